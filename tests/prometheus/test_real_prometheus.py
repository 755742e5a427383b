"""A real Prometheus with the shipped configuration finds a real daemon, scrapes it and evaluates every rule."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.daemon_process import Daemon, wait_until
from tests.docs.test_metrics_documented import PAGE, ROW
from tests.prometheus.shipped import ALERTS, DIRECTORY, RECORDED, read
from tests.requirements import require_tool
from tests.slurm.machine import free_ports

SLEEPER = "import time\nwhile True:\n    sum(range(200_000))\n    time.sleep(0.1)"  # some hundredths of a CPU
LABELS = {"job": "jobtrail", "cluster": "lab", "node": "localhost"}


def never_absent() -> set[str]:
    """Families of the daemon about itself that docs/metrics.md says are always there."""
    rows = (row for row in ROW.finditer(PAGE.read_text(encoding="utf-8")) if row["name"].startswith("jobtrail_"))
    named = {row["name"]: row["type"] for row in rows if row["rest"].endswith("| never")}
    assert len(named) > 20
    return {f"{name}_count" if kind == "histogram" else name for name, kind in named.items()}


def get(url: str) -> Any:
    """The JSON behind a URL; None while nobody answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError):
        return None


class Prometheus:
    """Prometheus in a directory of its own, with the shipped configuration, at a quicker pace."""

    def __init__(self, directory: Path, daemon_port: int) -> None:
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        config = read(DIRECTORY / "prometheus.yml")
        pace = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        (scrape,) = config["scrape_configs"]
        (discovery,) = scrape["http_sd_configs"]
        shipped = f"{discovery['url']}"
        assert shipped == "http://localhost:8080/v1/prometheus/targets"
        local = {**discovery, "url": shipped.replace("8080", str(daemon_port)), "refresh_interval": "1s"}
        changed = {
            **config,
            "global": {**config["global"], **pace},
            "rule_files": [str(DIRECTORY / "rules" / "*.yml")],
            "scrape_configs": [{**scrape, "http_sd_configs": [local]}],
        }
        directory.mkdir()
        (directory / "prometheus.yml").write_text(yaml.safe_dump(changed), encoding="utf-8")
        self._log = directory / "prometheus.log"
        program = require_tool("prometheus", "whether it finds and scrapes the daemon stays unchecked")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
                cwd=directory,
            )

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def wait_for(self, path: str, taken: Any, what: str) -> Any:
        """`taken` of an answer's data, once that is something."""

        def asked() -> Any:
            answer = get(self.url + path)
            return None if answer is None else taken(answer["data"])

        tail = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
        return wait_until(asked, f"{what}; Prometheus's log:\n{tail}", timeout_seconds=120, every_seconds=0.3)

    def series(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives, once it gives something."""
        path = f"/api/v1/query?query={urllib.parse.quote(expression)}"
        found: list[dict[str, Any]] = self.wait_for(path, lambda data: data["result"], expression)
        return found


@pytest.fixture
def world(tmp_path: Path, database: str) -> Iterator[tuple[Daemon, int]]:
    """A daemon on a port that Prometheus finds by its node's name, and a job that runs."""
    (port,) = free_ports(1)
    with Daemon(
        tmp_path / "daemon", scheduler="local", cluster="lab", node="localhost", http={"port": port},
        database={"url": database}, sampling={"interval_seconds": 0.5},
    ) as daemon:  # fmt: skip
        job = subprocess.Popen(
            [sys.executable, "-m", "jobtrail", "exec", "--", sys.executable, "-c", SLEEPER],
            env=daemon.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield daemon, port
        finally:
            job.terminate()
            job.wait(60)


def test_prometheus_finds_the_daemon_and_evaluates_the_rules(world: tuple[Daemon, int], tmp_path: Path) -> None:
    daemon, port = world
    wait_until(lambda: "hpc_job_cpu_seconds_total" in daemon.metrics(), f"the job; log:\n{daemon.tail()}")
    missing = never_absent() - daemon.metrics().keys()
    assert missing == set(), "documented as never absent"

    def listed() -> Any:
        status, body = daemon.get("/v1/prometheus/targets")
        return json.loads(body) if status == 200 else None

    found = wait_until(listed, f"the daemon's own chain; log:\n{daemon.tail()}")
    assert [one["targets"] for one in found] == [[f"localhost:{port}"]]

    with Prometheus(tmp_path / "prometheus", port) as prometheus:
        target = prometheus.wait_for(
            "/api/v1/targets?state=active",
            lambda data: next((one for one in data["activeTargets"] if one["health"] == "up"), None),
            "the target to be up",
        )
        assert target["labels"] == {**LABELS, "instance": f"localhost:{port}"}
        assert target["lastError"] == ""

        (cores,) = prometheus.series("job:hpc_job_cpu_cores:rate5m > 0")
        assert cores["metric"]["cluster"] == "lab"
        assert cores["metric"]["job_id"].startswith("local-")
        assert cores["metric"]["user"]
        assert 0 < float(cores["value"][1]) < 2
        (node,) = prometheus.series("node:hpc_node_memory_usage:ratio")
        assert node["metric"].items() >= {"cluster": "lab", "node": "localhost"}.items()
        assert 0 < float(node["value"][1]) < 1
        wanted = {"up", "hpc_job_info", "jobtrail_spool_depth", "jobtrail_build_info"}
        # A page that comes too late, as on a busy machine, takes its series away until the next one comes.
        prometheus.wait_for(
            "/api/v1/query?query=" + urllib.parse.quote('{job="jobtrail"}'),
            lambda data: wanted <= {one["metric"]["__name__"] for one in data["result"]},
            f"a page with {wanted}",
        )
        renamed = prometheus.series('count({job="jobtrail"}) - count({job="jobtrail",exported_node=""})')
        assert renamed[0]["value"][1] == "0", "a page's own label was renamed"

        def evaluated(data: Any) -> list[dict[str, Any]] | None:
            rules = [rule for group in data["groups"] for rule in group["rules"]]
            return rules if all(rule["health"] != "unknown" for rule in rules) else None

        rules = prometheus.wait_for("/api/v1/rules", evaluated, "every rule to be evaluated")
        assert {rule["name"]: rule.get("lastError", "") for rule in rules} == dict.fromkeys((*RECORDED, *ALERTS), "")
        assert {rule["health"] for rule in rules} == {"ok"}
        firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
        assert firing == [], "a daemon that is well, and a job that works, alarm nobody"

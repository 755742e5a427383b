"""The server role's view of the nodes, from slurmrestd to /metrics, the database and the API; and a job's report."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from tests.daemon_process import Daemon, wait_until

CAPTURE = Path(__file__).parents[1] / "fixtures/slurmrest/slurm-22.05/22-node-dies-nodefail/end.rest-nodes-v0.0.38.json"
PERIOD_SECONDS = 0.4


class SlurmRestd(ThreadingHTTPServer):
    """Knows v0.0.38 and the captured nodes; `silent` makes it answer 500."""

    daemon_threads = True
    silent = False
    asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: SlurmRestd

    def do_GET(self) -> None:
        known = {
            "/slurm/v0.0.38/ping": b'{"errors": [], "pings": [{"ping": "UP"}]}',
            "/slurm/v0.0.38/nodes": CAPTURE.read_bytes(),
            "/slurm/v0.0.38/jobs": b'{"errors": [], "jobs": []}',
        }
        self.server.asked += "/nodes" in self.path
        body = known.get(self.path.partition("?")[0].rstrip("/"))
        status = 500 if self.server.silent else 404 if body is None else 200
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        del format, args


@contextmanager
def slurmrestd() -> Iterator[SlurmRestd]:
    with SlurmRestd(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(60)


def server_daemon(directory: Path, url: str, rest: SlurmRestd) -> Daemon:
    """A daemon with the server role alone."""
    return Daemon(
        directory,
        cluster="lab",
        roles=["server"],
        database={"url": url},
        slurm={
            "rest_url": f"http://127.0.0.1:{rest.server_port}",
            "nodes_seconds": PERIOD_SECONDS,
            "poll_seconds": 0.1,
            "sacct": "",
        },
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Daemon, SlurmRestd]]:
    with embedded_postgres.running(tmp_path / "postgres") as url, slurmrestd() as rest:
        migrate.upgrade(url)
        with server_daemon(tmp_path / "daemon", url, rest) as daemon:
            yield daemon, rest


def test_the_nodes_of_the_cluster_are_seen_until_slurm_falls_silent(world: tuple[Daemon, SlurmRestd]) -> None:
    daemon, rest = world
    captured = {node["name"]: node for node in json.loads(CAPTURE.read_text())["nodes"]}

    def stored() -> list[dict[str, Any]] | None:
        status, body = daemon.get("/v1/nodes?cluster=lab")
        return json.loads(body)["nodes"] if status == 200 else None

    rows = {row["node"]: row for row in wait_until(stored, f"nodes in the database:\n{daemon.tail()}")}
    assert rows.keys() == captured.keys()
    for name, node in captured.items():
        assert (rows[name]["state"], rows[name]["cpus"]) == (node["state"].lower(), node["cpus"])
        assert rows[name]["memory_bytes"] == node["real_memory"] << 20
    page = daemon.metrics()
    assert {labels["node"] for labels, _ in page["hpc_node_state"]} == captured.keys()
    assert {labels["node"]: value for labels, value in page["hpc_node_cpus_allocated"]} == {
        name: node["alloc_cpus"] for name, node in captured.items()
    }
    down = [name for name, node in captured.items() if node["state"] == "down"]
    answer = json.loads(daemon.get("/v1/nodes?state=down")[1])
    assert ([row["node"] for row in answer["nodes"]], answer["total"]) == (sorted(down), len(down))

    rest.silent = True
    wait_until(lambda: "hpc_node_state" not in daemon.metrics(), "old values to go from the page")
    assert stored(), "rows stay, with the time of the last answer"
    rest.silent = False
    wait_until(lambda: "hpc_node_state" in daemon.metrics(), "the nodes to come back")


def test_a_report_of_a_job_that_an_epilog_alone_ended_says_that_the_outcome_is_unknown(
    world: tuple[Daemon, SlurmRestd],
) -> None:
    daemon, _ = world
    for kind, fields in (
        ("job-started", {"job_id": 41, "user": "ada", "node": "n1", "cluster": "lab", "cpu_allocation": 1}),
        ("job-finished", {"job_id": 41, "node": "n1", "cluster": "lab", "exit_code": 0}),
    ):
        status, body = daemon.request("POST", f"/v1/events/{kind}", json.dumps(fields).encode())
        assert status == 201, body

    def report() -> dict[str, Any] | None:
        status, body = daemon.get("/v1/jobs/41/report")
        found = json.loads(body)
        return found if status == 200 and found["outcome"]["state"] == "ended" else None

    found = wait_until(report, f"the end of the job; log:\n{daemon.tail()}")
    assert "outcome unknown" in found["sentence"].lower()
    assert (found["outcome"]["verdict"], found["outcome"]["state_confirmed"]) == ("unknown", False)
    assert found["efficiency"]["cpu_efficiency"] is None
    assert daemon.get("/v1/jobs/42/report")[0] == 404
    shown = daemon.cli("jobs", "show", "41").stdout
    assert shown.startswith(found["sentence"])


def test_of_several_servers_one_asks_and_the_next_takes_over_when_it_is_killed(tmp_path: Path) -> None:
    """Default roles make every node a server; the database says which of them asks Slurm."""
    with (
        embedded_postgres.running(tmp_path / "postgres") as url,
        slurmrestd() as rest,
        ExitStack() as stack,
    ):
        migrate.upgrade(url)
        daemons = [stack.enter_context(server_daemon(tmp_path / f"d{number}", url, rest)) for number in range(3)]

        def leaders() -> list[Daemon]:
            return [daemon for daemon in daemons if "hpc_node_state" in daemon.metrics()]

        (first,) = wait_until(leaders, "one to ask")
        asked = rest.asked
        wait_until(lambda: rest.asked > asked + 3, "it to go on asking")
        assert leaders() == [first]
        first.kill()
        daemons.remove(first)
        (second,) = wait_until(leaders, "another to take over")
        assert second is not first
        assert second.stop() == 0
        daemons.remove(second)
        assert wait_until(leaders, "the last to take over from one that was stopped") == daemons

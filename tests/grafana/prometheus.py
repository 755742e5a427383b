"""A real Prometheus that scrapes every second."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.daemon_process import wait_until
from tests.requirements import require_tool


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int, log: Path) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._log = log

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=30) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def now(self, expression: str, at: float) -> list[dict[str, Any]]:
        """Series with a number at that moment."""
        answer = self._ask("query", query=expression, time=str(at))
        return [one for one in answer["result"] if _finite(one["value"])]

    def over_time(self, expression: str, begin: float, end: float) -> list[dict[str, Any]]:
        """Series with a number at any of the seconds from `begin` to `end`."""
        answer = self._ask("query_range", query=expression, start=str(begin), end=str(end), step="1")
        return [one for one in answer["result"] if any(_finite(point) for point in one["values"])]

    def label_values(self, label: str, match: str) -> list[str]:
        """Values of a label of the matching series."""
        return list(self._ask(f"label/{label}/values", **{"match[]": match}))

    def _ask(self, path: str, **parameters: str) -> Any:
        address = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=120) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error


def _finite(point: list[Any]) -> bool:
    return math.isfinite(float(point[1]))


@contextmanager
def invented(series: dict[str, str]) -> Iterator[int]:
    """The port of a page with these counters and their labels, which grow with every scrape."""
    scrapes = itertools.count(1)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            value = next(scrapes)
            lines = [f"# TYPE {name} counter\n{name}{{{labels}}} {value}\n" for name, labels in series.items()]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write("".join(lines).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


@contextmanager
def prometheus(directory: Path, port: int, targets: dict[str, int]) -> Iterator[Prometheus]:
    """Running, with its data in `directory`, scraping these nodes' ports of 127.0.0.1 as grafana/prometheus has it."""
    program = require_tool("prometheus", "no expression of a dashboard can be asked")
    directory.mkdir()
    found = [
        {"targets": [f"127.0.0.1:{one}"], "labels": {"cluster": "lab", "node": node}} for node, one in targets.items()
    ]
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "jobtrail", "honor_labels": True, "static_configs": found}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    log = directory / "log"
    argv = [
        program,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        one = Prometheus(port, log)
        wait_until(one.ready, f"Prometheus; its log is {log}")
        yield one
    finally:
        process.terminate()
        process.wait(60)

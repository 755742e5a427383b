"""The real daemon as a child process of a test."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from prometheus_client.parser import text_string_to_metric_families

REPOSITORY = Path(__file__).parents[1]
Result = TypeVar("Result")
PATIENCE_SECONDS = 60.0  # nothing is measured by it: a busy machine may leave a process without a processor for seconds


def wait_until(
    condition: Callable[[], Result | None],
    what: str,
    *,
    timeout_seconds: float = PATIENCE_SECONDS,
    every_seconds: float = 0.02,
) -> Result:
    """The first truthy result of `condition`; AssertionError naming `what` when the time is up."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {timeout_seconds} s waiting for {what}; last seen: {result!r}")
        time.sleep(every_seconds)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float = 30.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Daemon:
    """`jobtrail serve` in a directory of its own."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.spool = directory / "spool"
        self.socket = directory / "hooks.sock"
        self.log = directory / "daemon.log"
        self.config = directory / "jobtrail.yaml"
        tree: dict[str, Any] = {
            "http": {"socket": str(self.socket), "port": 0},
            "spool": {"directory": str(self.spool)},
            "logging": {"level": "debug", "format": "json"},
        }
        for section, values in settings.items():
            tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
        self.config.write_text(yaml.safe_dump(tree), encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        """Environment in which `python -m jobtrail` finds this daemon."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBTRAIL_")}
        for name in ("DATABASE_URL", "HOST", "PORT", "SCHEDULER_BACKEND", "METRICS_RETENTION_DAYS", "SEED_DEMO"):
            kept.pop(name, None)
        path = os.pathsep.join(filter(None, (str(REPOSITORY / "daemon"), os.environ.get("PYTHONPATH"))))
        return {**kept, "PYTHONPATH": path, "JOBTRAIL_CONFIG": str(self.config)}

    def start(self, *, timeout_seconds: float = PATIENCE_SECONDS) -> Daemon:
        """Start and wait until it is ready to take events."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jobtrail", "serve"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                cwd=self.directory,
            )
        try:
            wait_until(self._answers, "the daemon to answer", timeout_seconds=timeout_seconds)
        except AssertionError as late:
            raise AssertionError(f"{late}; its log:\n{self.tail()}") from None
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon exited with {self.process.returncode}:\n{self.tail()}")
        try:
            return self.get("/healthz")[0] == 200
        except OSError:
            return False

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one request over the Unix socket."""
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, bytes]:
        """GET over the Unix socket."""
        return self.request("GET", path)

    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """A scrape, parsed: sample name → [(labels, value)]."""
        status, page = self.get("/metrics")
        assert status == 200
        samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return samples

    def stop(self, *, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        """SIGTERM and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_seconds)

    def kill(self) -> None:
        """SIGKILL: what a crash leaves behind."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            finally:
                self.kill()

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `jobtrail` command against this daemon."""
        done = subprocess.run(
            [sys.executable, "-m", "jobtrail", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

"""A daemon in the foreground as a child of the tests, its log, and waiting for conditions with a deadline."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")

POLL_SECONDS = 0.05
PATIENCE_SECONDS = (
    180.0  # nothing is measured by it: a busy machine may leave a program without a processor for seconds
)
TAIL_LINES = 25


class ClusterError(Exception):
    """The cluster could not be started or stopped, or one of Slurm's commands failed; says which, with its output."""


def poll_until(
    condition: Callable[[], Value | None],
    *,
    seconds: float = PATIENCE_SECONDS,
    what: str,
    step_seconds: float = POLL_SECONDS,
) -> Value:
    """Return the first true value of `condition`; raise ClusterError naming `what` after `seconds` without one."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {seconds:g} s in vain for: {what}")
        pause.wait(step_seconds)
    return value


class Daemon:
    """One program that stays in the foreground, in a session of its own so that Ctrl-C reaches only the tests."""

    def __init__(self, name: str, argv: Sequence[str], *, env: Mapping[str, str], log_directory: Path) -> None:
        """`log_directory`/<name>.log is what the program itself writes as its log, if it does; .out what it prints."""
        self.name = name
        self._argv = list(argv)
        self._env = dict(env)
        self._log = log_directory / f"{name}.log"
        self._out = log_directory / f"{name}.out"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; raises ClusterError when the daemon is not running."""
        if self._process is None:
            raise ClusterError(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it; whether it is ready is the caller's question (`wait_ready`)."""
        with self._out.open("ab") as out:
            self._process = subprocess.Popen(
                self._argv, env=self._env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def wait_ready(self, ready: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until `ready()` is true; raise ClusterError with the end of the log if it dies or takes too long."""

        def ready_or_dead() -> bool:
            return bool(ready()) or self._exit_status() is not None

        try:
            poll_until(ready_or_dead, seconds=seconds, what=f"{self.name} to be ready")
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self.tail()}") from None
        if (status := self._exit_status()) is not None:
            raise ClusterError(f"{self.name} ended with exit status {status}\n{self.tail()}")

    def stop(self, *, seconds: float = 60) -> None:
        """End it with SIGTERM; with SIGKILL and a ClusterError when it is still there after `seconds`."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ClusterError(f"{self.name} did not stop within {seconds:g} s\n{self.tail()}") from None

    def kill(self) -> None:
        """End it with SIGKILL, so that it can put nothing in order."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def output(self) -> str:
        """Return all that it printed."""
        return self._out.read_text(errors="replace")

    def tail(self) -> str:
        """Return the last lines of what it logged and printed."""
        parts = [f"--- end of {self.name}'s log"]
        for path in (self._log, self._out):
            if path.exists():
                parts += path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(parts)

    def _exit_status(self) -> int | None:
        return None if self._process is None else self._process.poll()

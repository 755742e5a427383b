"""A program that a user runs at a terminal, such as srun or salloc, while the test goes on."""

import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.slurm.daemons import PATIENCE_SECONDS, ClusterError, poll_until


class Program:
    """It runs since this was made, until it ends or the `with` block that it heads is left."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], directory: Path) -> None:
        """Start `argv`, its output to a new file in `directory`."""
        self._argv = list(argv)
        with tempfile.NamedTemporaryFile(dir=directory, suffix=".out", delete=False) as out:
            self._out = Path(out.name)
            self._process = subprocess.Popen(
                argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        """What it has written to stdout and stderr so far."""
        return self._out.read_text(errors="replace")

    def job_id(self, *, timeout: float = PATIENCE_SECONDS) -> int:
        """Return the id that its first line `job <id>` tells, once it does; raise ClusterError with its output."""

        def told() -> int | None:
            found = re.search(r"^job (\d+)$", self.output, re.MULTILINE)
            return int(found[1]) if found else None

        try:
            return poll_until(told, seconds=timeout, what=f"{self._argv} to tell its job id")
        except ClusterError as error:
            raise ClusterError(f"{error}; it wrote: {self.output!r}") from None

    def wait(self, *, timeout: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; return its exit status, negative for a signal. Raises ClusterError after `timeout`."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{self._argv} did not end within {timeout:g} s; it wrote: {self.output!r}") from None

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        """Nothing more; see __exit__."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it if it has not ended; what it started and left is killed with its cluster."""
        self.signal(signal.SIGKILL)
        self._process.wait()

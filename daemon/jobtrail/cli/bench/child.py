"""A command that ends with the process that started it, at the latest."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobtrail.domain.benchmarks.secrets import without_secrets

_KEEPER = Path(__file__).with_name("keeper.py")
KILL_SECONDS = 10.0  # how long after its grace a killed process may take to be gone


class Child:
    """A command in a session of its own, its output in a file, kept by `keeper`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, grace_seconds: float) -> None:
        self._process = process
        self._ended = asyncio.ensure_future(process.wait())
        self._grace_seconds = grace_seconds
        self.log = log

    @classmethod
    async def start(
        cls, command: Sequence[str], *, log: Path, environment: Mapping[str, str], grace_seconds: float
    ) -> Child:
        """Start it in the current directory. A command that does not exist ends with 127 and says so in the log.

        Raises OSError when the log cannot be written.
        """
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(_KEEPER), str(grace_seconds), *command,
                stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output, env=environment, start_new_session=True,
            )  # fmt: skip
        return cls(process, log, grace_seconds)

    @property
    def code(self) -> int | None:
        """Exit code, or minus the signal that ended it; None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """Have it and all that it started end; they are gone when this returns."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self.wait(), self._grace_seconds + KILL_SECONDS)
        except TimeoutError:  # a process that the kernel cannot kill, as one that hangs in a driver
            self._process.kill()
            await self.wait()


def how_it_ended(code: int) -> str:
    """`with exit code 1`, or `by signal 9`."""
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"


TAIL_BYTES = 8192
TAIL_LINES = 5
TAIL_CHARACTERS = 600


def last_words(log: Path) -> str:
    """The last lines of a log as one line, for a reason; empty if it holds none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = " | ".join(lines[-TAIL_LINES:])[-TAIL_CHARACTERS:]
    printable = "".join(character if character.isprintable() else " " for character in said)
    return f"; {log.name} ends: {without_secrets(printable)}" if printable else ""

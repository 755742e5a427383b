"""Runs a command of Slurm: with a deadline, and with nothing of the daemon's environment but its PATH."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping

from jobtrail.domain.errors import SlurmAnswerInvalid, SlurmDenied, SlurmError, SlurmHasNone, SlurmUnavailable

MAX_OUTPUT_BYTES = 64 << 20  # about 100,000 rows of sacct
LAST_WORDS_SECONDS = 2.0  # a killed process has to close its pipes
MAX_MESSAGE = 300  # characters of a command's own words in an error
_CHUNK = 65_536
_DENIED = re.compile(r"permission denied|privilege to perform|authentication|invalid user id", re.IGNORECASE)
# What it says, with exit status 1, where slurm.conf has AccountingStorageType=accounting_storage/none or none at all.
_NONE = re.compile(r"accounting storage is disabled", re.IGNORECASE)
# What Slurm's commands say where there is no slurm.conf, and no slurmctld is found by DNS (slurm.conf(5), configless).
_NOT_FOUND = re.compile(r"could not establish a configuration source", re.IGNORECASE)
_NOT_FOUND_HINT = "it finds no slurm.conf: name its path in the setting slurm.conf"
_SILENT_HINT = "does slurmdbd run, and does slurm.conf name it in AccountingStorageHost?"
_HINTS: Mapping[str, str] = {
    "slurm.sacct": "set slurm.sacct to the command's path, or to nothing to ask no sacct",
    "slurm.sacctmgr": "set slurm.sacctmgr to the command's path, or slurm.admin_comment to none",
}


class SlurmCommand:
    """One of Slurm's commands, as a name or a path.

    `setting` names it where it is missing; `conf` is the SLURM_CONF it is given (empty leaves it to the command),
    `timeout_seconds` the limit of one call.
    """

    def __init__(self, command: str, conf: str, *, setting: str, timeout_seconds: float) -> None:
        self.name = command
        self._conf = conf
        self._setting = setting
        self._timeout_seconds = timeout_seconds

    async def run(self, *arguments: str) -> str:
        """What it printed. Raises SlurmUnavailable, SlurmHasNone, SlurmDenied with its own words, SlurmAnswerInvalid.

        A command that was killed at its deadline may have done all the same what it was called for.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds), self._started(*arguments) as process:
                printed, said = await asyncio.gather(self._read_all(process), _read_end(process))
                status = await process.wait()
        except TimeoutError:
            raise SlurmUnavailable(f"{self.name} did not answer within {self._timeout_seconds:g} s") from None
        if status != 0:
            raise self._failure(status, said)
        return printed.decode(errors="replace")

    @contextlib.asynccontextmanager
    async def _started(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """The process, in a group of its own that is killed if it has not ended by itself."""
        try:
            process = await self._begun(*arguments)
        except OSError as error:
            raise SlurmUnavailable(
                f"cannot run {self.name}: {error.strerror}; install Slurm's client commands, or {_HINTS[self._setting]}"
            ) from error
        try:
            yield process
        finally:
            await _end(process)

    async def _begun(self, *arguments: str) -> asyncio.subprocess.Process:
        """The process, once it can be waited for. Raises OSError.

        Who gives up meanwhile waits the moment that takes: asyncio would end the process alone and leave what it
        started, and would then wait for its pipes, which those hold open.
        """
        beginning = asyncio.create_task(
            asyncio.create_subprocess_exec(
                self.name,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment(),
                cwd="/",
                start_new_session=True,
            )
        )
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            await asyncio.wait({beginning})
            if beginning.exception() is None:
                await _end(beginning.result())
            raise

    def _environment(self) -> dict[str, str]:
        """Times as Unix seconds, list of array tasks in full, and no SACCT_ or SLURM_ variable of anybody's."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "TZ": "UTC",  # --starttime is read as local time
            "SLURM_TIME_FORMAT": "%s",
            "SLURM_BITSTR_LEN": "0",
        }
        return environment | ({"SLURM_CONF": self._conf} if self._conf else {})

    def _failure(self, status: int, said: bytes) -> SlurmError:
        words = " ".join(said.decode(errors="replace").split())[:MAX_MESSAGE] or "it said nothing"
        if _NONE.search(words):
            return SlurmHasNone(f"{self.name} says that there is no accounting: {words}")
        if _DENIED.search(words):
            return SlurmDenied(f"{self.name} was refused: {words}")
        hint = _NOT_FOUND_HINT if _NOT_FOUND.search(words) else _SILENT_HINT
        return SlurmUnavailable(f"{self.name} ended with exit status {status}: {words} ({hint})")

    async def _read_all(self, process: asyncio.subprocess.Process) -> bytearray:
        """What it prints. Kills it after MAX_OUTPUT_BYTES and raises SlurmAnswerInvalid."""
        assert process.stdout is not None
        printed = bytearray()
        size = 0
        while chunk := await process.stdout.read(_CHUNK):
            size += len(chunk)
            if size <= MAX_OUTPUT_BYTES:
                printed += chunk
            elif process.returncode is None:
                _kill(process)
        if size > MAX_OUTPUT_BYTES:
            raise SlurmAnswerInvalid(self.name, f"printed more than {MAX_OUTPUT_BYTES} bytes; a question is small")
        return printed


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill its group if it has not ended by itself."""
    if process.returncode is None:
        _kill(process)
        # wait() returns only when the pipes have been read to their end, which another process may hold open.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.communicate(), LAST_WORDS_SECONDS)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _read_end(process: asyncio.subprocess.Process) -> bytes:
    """The last it says on standard error, however much it was."""
    assert process.stderr is not None
    end = b""
    while chunk := await process.stderr.read(_CHUNK):
        end = (end + chunk)[-4 * MAX_MESSAGE :]
    return end

"""Runs sacct(1): seldom, with a deadline, and with nothing of the daemon's environment but its PATH."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from jobtrail.adapters.sacct.rows import OPTIONAL, REQUIRED, read_answer
from jobtrail.domain.errors import SlurmAnswerInvalid, SlurmDenied, SlurmError, SlurmHasNone, SlurmUnavailable
from jobtrail.domain.slurm import SlurmAnswer

JOBS_PER_QUESTION = 500
MAX_OUTPUT_BYTES = 64 << 20  # about 100,000 rows
LAST_WORDS_SECONDS = 2.0  # a killed process has to close its pipes
MAX_MESSAGE = 300  # characters of sacct's own words in an error
_CHUNK = 65_536
_DENIED = re.compile(r"permission denied|authentication|invalid user id", re.IGNORECASE)
# What it says, with exit status 1, where slurm.conf has AccountingStorageType=accounting_storage/none or none at all.
_NONE = re.compile(r"accounting storage is disabled", re.IGNORECASE)


class Sacct:
    """Slurm's accounting as sacct(1) tells it. Implements SlurmAccounting.

    `command` is a name or a path, `conf` the SLURM_CONF it is given (empty leaves it to sacct), `timeout_seconds` the
    limit of one call of it. Calls are made one at a time and begin at least `pace_seconds` apart; who asks sooner
    waits. slurmdbd answers with every run only to root, to Slurm's own user and to its operators, where
    PrivateData=jobs is set (slurmdbd.conf(5)).
    """

    def __init__(
        self, command: str = "sacct", conf: str = "", *, timeout_seconds: float = 10.0, pace_seconds: float = 5.0
    ) -> None:
        self._command = command
        self._conf = conf
        self._timeout_seconds = timeout_seconds
        self._pace_seconds = pace_seconds
        self._fields: tuple[str, ...] = ()
        self._one_at_a_time = asyncio.Lock()
        self._earliest = 0.0

    async def runs_of(self, numbers: Sequence[int], *, since: int) -> SlurmAnswer:
        """All runs of these jobs that were not over before `since` (Unix seconds).

        Raises SlurmUnavailable (no such command, slurmdbd down, too slow), SlurmHasNone (the site keeps no accounting),
        SlurmDenied, and SlurmAnswerInvalid.
        """
        answers = []
        async with self._one_at_a_time:
            for start in range(0, len(numbers), JOBS_PER_QUESTION):
                await self._keep_pace()
                answers.append(await self._ask(numbers[start : start + JOBS_PER_QUESTION], since))
        return SlurmAnswer(
            records=tuple(record for answer in answers for record in answer.records),
            unreadable=tuple(unreadable for answer in answers for unreadable in answer.unreadable),
        )

    async def _keep_pace(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._earliest - loop.time()))
        self._earliest = loop.time() + self._pace_seconds

    async def _ask(self, numbers: Sequence[int], since: int) -> SlurmAnswer:
        fields = self._fields or await self._known_fields()
        # Nobody can have known it when they named their job.
        delimiter = f"<{secrets.token_hex(8)}>"
        try:
            printed = await self._run(
                "--parsable",
                "--noheader",
                "--noconvert",
                "--duplicates",
                "--allusers",
                "--local",
                "--whole-hetjob=no",
                f"--delimiter={delimiter}",
                f"--starttime={datetime.fromtimestamp(max(0, since), UTC):%Y-%m-%dT%H:%M:%S}",
                f"--format={','.join(fields)}",
                f"--jobs={','.join(map(str, numbers))}",
            )
        except (SlurmUnavailable, SlurmHasNone):
            self._fields = ()  # another version may be installed now, with other fields
            raise
        self._fields = fields
        return read_answer(printed, fields, delimiter, frozenset(numbers))

    async def _known_fields(self) -> tuple[str, ...]:
        """Those of the fields this sacct knows; it refuses a question that names another."""
        listed = {name.lower() for name in (await self._run("--helpformat")).split()}
        if missing := [name for name in REQUIRED if name.lower() not in listed]:
            raise SlurmAnswerInvalid(f"{self._command} --helpformat", f"does not list {', '.join(missing)}")
        return (*REQUIRED, *(name for name in OPTIONAL if name.lower() in listed))

    async def _run(self, *arguments: str) -> str:
        """What sacct printed. Raises SlurmUnavailable, SlurmHasNone or SlurmDenied with its own words."""
        try:
            async with asyncio.timeout(self._timeout_seconds), self._started(*arguments) as process:
                printed, said = await asyncio.gather(_read_all(process), _read_end(process))
                status = await process.wait()
        except TimeoutError:
            raise SlurmUnavailable(f"{self._command} did not answer within {self._timeout_seconds:g} s") from None
        if status != 0:
            raise self._failure(status, said)
        return printed.decode(errors="replace")

    @contextlib.asynccontextmanager
    async def _started(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """The process, in a group of its own that is killed if it has not ended by itself."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._command,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment(),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise SlurmUnavailable(
                f"cannot run {self._command}: {error.strerror}; install Slurm's client commands, or set slurm.sacct to "
                "the command's path, or to nothing to ask no sacct"
            ) from error
        try:
            yield process
        finally:
            if process.returncode is None:
                _kill(process)
                # wait() returns only when the pipes have been read to their end, which another process may hold open.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.communicate(), LAST_WORDS_SECONDS)

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
            return SlurmHasNone(f"{self._command} says that there is no accounting: {words}")
        if _DENIED.search(words):
            return SlurmDenied(f"{self._command} was refused: {words}")
        return SlurmUnavailable(
            f"{self._command} ended with exit status {status}: {words} (does slurmdbd run, and does slurm.conf name it "
            "in AccountingStorageHost?)"
        )


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _read_all(process: asyncio.subprocess.Process) -> bytearray:
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
        raise SlurmAnswerInvalid(
            "sacct", f"printed more than {MAX_OUTPUT_BYTES} bytes of at most {JOBS_PER_QUESTION} jobs"
        )
    return printed


async def _read_end(process: asyncio.subprocess.Process) -> bytes:
    """The last it says on standard error, however much it was."""
    assert process.stderr is not None
    end = b""
    while chunk := await process.stderr.read(_CHUNK):
        end = (end + chunk)[-4 * MAX_MESSAGE :]
    return end

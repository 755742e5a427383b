"""Asks sacct(1) about runs: seldom, and about many at a time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from jobtrail.adapters.sacct.rows import OPTIONAL, REQUIRED, read_answer
from jobtrail.adapters.sacct.running import SlurmCommand
from jobtrail.domain.errors import SlurmAnswerInvalid, SlurmHasNone, SlurmUnavailable
from jobtrail.domain.slurm import SlurmAnswer

JOBS_PER_QUESTION = 500


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
        self._program = SlurmCommand(command, conf, setting="slurm.sacct", timeout_seconds=timeout_seconds)
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
            printed = await self._program.run(
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
        listed = {name.lower() for name in (await self._program.run("--helpformat")).split()}
        if missing := [name for name in REQUIRED if name.lower() not in listed]:
            raise SlurmAnswerInvalid(f"{self._program.name} --helpformat", f"does not list {', '.join(missing)}")
        return (*REQUIRED, *(name for name in OPTIONAL if name.lower() in listed))

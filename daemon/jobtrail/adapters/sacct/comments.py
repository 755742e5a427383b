"""AdminComments of Slurm's accounting: read with sacct(1), written with sacctmgr(1).

slurmrestd cannot write them: up to v0.0.38 it does not know the field of a job; v0.0.40 and v0.0.42 set it on a job
that runs and leave one that has ended as it is, of which `scontrol update` says that it has already finished; and their
part slurmdb has no way to change a job (seen on Slurm 22.05.8 and 24.11.5).

`sacctmgr modify job` reaches the last run of a job alone. For a number that is the id of an array or of a heterogeneous
job as well, which one of its tasks or components bears, it changes all of them; so a job is named here as sacct's field
JobID has it: 7_3, 7+1. It needs root, SlurmUser, or a user with the admin level Operator (sacctmgr(1)).
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence

from jobtrail.adapters.sacct import values
from jobtrail.adapters.sacct.rows import each_row
from jobtrail.adapters.sacct.running import SlurmCommand
from jobtrail.core.slurm.comment_ports import HeldComment
from jobtrail.domain.errors import SlurmAnswerInvalid

FIELDS = ("JobIDRaw", "JobID", "Submit", "End", "AdminComment")
JOBS_PER_QUESTION = 500
PACE_SECONDS = 0.1  # between two calls of sacctmgr, each of which slurmdbd answers within some milliseconds
_NAME = re.compile(r"\d{1,10}(?:[_+]\d{1,10})?")
_WRITABLE = re.compile(r"[ !#-&(-<>-_a-{}~]{1,250}")  # printable ASCII but for quotes, backtick, = and |


class SlurmComments:
    """Implements AdminComments. One command runs at a time."""

    def __init__(
        self, *, sacct: str, sacctmgr: str, conf: str, timeout_seconds: float, pace_seconds: float = PACE_SECONDS
    ) -> None:
        """`sacct`, `sacctmgr`: names or paths; `conf`: the SLURM_CONF they are given, empty leaves it to them."""
        self._sacct = SlurmCommand(sacct, conf, setting="slurm.sacct", timeout_seconds=timeout_seconds)
        self._sacctmgr = SlurmCommand(sacctmgr, conf, setting="slurm.sacctmgr", timeout_seconds=timeout_seconds)
        self._pace_seconds = pace_seconds
        self._one_at_a_time = asyncio.Lock()

    async def held(self, numbers: Sequence[int]) -> Mapping[str, HeldComment]:
        """What is held of the last run of each of these jobs, by public id; nothing of unknown ones.

        Raises SlurmUnavailable, SlurmDenied, SlurmHasNone, SlurmAnswerInvalid.
        """
        found: dict[str, HeldComment] = {}
        async with self._one_at_a_time:
            for start in range(0, len(numbers), JOBS_PER_QUESTION):
                for one in await self._ask(numbers[start : start + JOBS_PER_QUESTION]):
                    before = found.get(one.job_id)
                    if before is None or (before.submit_time or 0) <= (one.submit_time or 0):
                        found[one.job_id] = one
        wanted = {f"slurm-{number}" for number in numbers}  # of an array's id sacct tells every task
        return {job_id: one for job_id, one in found.items() if job_id in wanted}

    async def write(self, held: HeldComment, text: str) -> None:
        """Write the comment of that job's last run. Raises as `held` does, ValueError for a text that would not stay
        as it is."""
        if not _WRITABLE.fullmatch(text):
            raise ValueError(f"an AdminComment must be printable ASCII without quotes, = and |, not {text!r}")
        async with self._one_at_a_time:
            await self._sacctmgr.run(
                "--immediate", "modify", "job", "where", f"jobid={held.name}", "set", f"AdminComment={text}"
            )
            await asyncio.sleep(self._pace_seconds)

    async def _ask(self, numbers: Sequence[int]) -> list[HeldComment]:
        # Anybody with the right to may have written anything: see rows.py on the delimiter.
        delimiter = f"<{secrets.token_hex(8)}>"
        printed = await self._sacct.run(
            "--parsable",
            "--noheader",
            "--duplicates",
            "--allusers",
            "--allocations",
            "--local",
            "--whole-hetjob=no",
            f"--delimiter={delimiter}",
            f"--format={','.join(FIELDS)}",
            f"--jobs={','.join(map(str, numbers))}",
        )
        rows = enumerate(each_row(printed, FIELDS, delimiter))
        return [_held(row, f"sacct.rows[{place}]") for place, row in rows if row["JobIDRaw"].isdecimal()]


def _held(row: Mapping[str, str], path: str) -> HeldComment:
    """Raises SlurmAnswerInvalid naming the field."""
    try:
        submitted, ended = values.time(row["Submit"]), values.time(row["End"])
    except ValueError as error:
        raise SlurmAnswerInvalid(f"{path}.Submit or End", str(error)) from None
    return HeldComment(
        job_id=f"slurm-{row['JobIDRaw']}",
        name=row["JobID"],
        submit_time=submitted,
        # What waits has no name of its own yet, as 7_[1-3].
        is_over=ended is not None and _NAME.fullmatch(row["JobID"]) is not None,
        comment=row["AdminComment"],
    )

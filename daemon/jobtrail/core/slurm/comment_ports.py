"""What writing summaries into Slurm's accounting asks of Slurm and of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from jobtrail.core.ports import Row


class HeldComment(msgspec.Struct, frozen=True, kw_only=True):
    """What accounting holds of the last run of a job, which is the one whose comment can be written."""

    job_id: str  # public id, slurm-<n>
    name: str  # what sacctmgr must be told so that it changes this job and no other: 7, 7_3, 7+1
    submit_time: int | None  # Unix seconds; names the run
    is_over: bool
    comment: str


class AdminComments(Protocol):
    """The AdminComments of Slurm's accounting.

    Both raise SlurmUnavailable, SlurmDenied, SlurmHasNone and SlurmAnswerInvalid.
    """

    async def held(self, numbers: Sequence[int]) -> Mapping[str, HeldComment]:
        """What is held of the last run of each of these jobs, by public id; nothing of unknown ones."""
        ...

    async def write(self, held: HeldComment, text: str) -> None:
        """Write the comment of that job's last run."""
        ...


class SettledRuns(Protocol):
    """The runs whose comment is still to be written."""

    async def uncommented(
        self, cluster: str, *, since_seconds: float, limit: int, but_not: Sequence[tuple[str, int]]
    ) -> Sequence[Row]:
        """Rows of table `jobs`: runs that ended in so many seconds, are settled and have no comment on record.

        The longest over comes first. Raises StoreUnavailable.
        """
        ...

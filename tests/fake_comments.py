"""Slurm's AdminComments and settled runs in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from jobtrail.core.ports import Row
from jobtrail.core.slurm.comment_ports import HeldComment
from jobtrail.domain.errors import SlurmError, StoreUnavailable


class MemoryComments:
    """An AdminComments. `runs` are accounting's rows in order; set `failure` to have every call fail with it."""

    def __init__(self) -> None:
        self.runs: list[HeldComment] = []
        self.failure: SlurmError | None = None
        self.written: list[tuple[str, str]] = []

    async def held(self, numbers: Sequence[int]) -> Mapping[str, HeldComment]:
        """The last run of each of these jobs."""
        if self.failure is not None:
            raise self.failure
        wanted = {f"slurm-{number}" for number in numbers}
        return {run.job_id: run for run in self.runs if run.job_id in wanted}

    async def write(self, held: HeldComment, text: str) -> None:
        """Write the comment of the last run that has this name."""
        if self.failure is not None:
            raise self.failure
        self.written.append((held.name, text))
        place = max(index for index, run in enumerate(self.runs) if run.name == held.name)
        self.runs[place] = msgspec.structs.replace(self.runs[place], comment=text)


class MemorySettledRuns:
    """A SettledRuns over a list of rows; `asked` notes how far back was looked."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self.rows = list(rows)
        self.asked: list[float] = []
        self.failure: StoreUnavailable | None = None

    async def uncommented(
        self, cluster: str, *, since_seconds: float, limit: int, but_not: Sequence[tuple[str, int]]
    ) -> Sequence[Row]:
        """Those that are not left out."""
        if self.failure is not None:
            raise self.failure
        self.asked.append(since_seconds)
        left = [row for row in self.rows if (row["job_id"], row["run"]) not in but_not]
        return [row for row in left if row["cluster_name"] == cluster][:limit]

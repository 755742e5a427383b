"""Slurm in memory: SlurmController and SlurmAccounting, held to the contract of slurmrestd's client."""

from collections.abc import Sequence

import msgspec

from jobtrail.domain.errors import SlurmError
from jobtrail.domain.slurm import NodeRecord, Origin, SlurmAnswer, SlurmRecord, Unreadable


class MemorySlurm:
    """What slurmctld and slurmdbd hold.

    `runs` is accounting, all runs of all jobs in order of submission; slurmctld holds the last run of each job but for
    those in `forgotten`. Set `failure` to have every question fail with it. `asked` notes the questions.
    """

    def __init__(self) -> None:
        self.runs: list[SlurmRecord] = []
        self.forgotten: set[str] = set()
        self.node_records: list[NodeRecord] = []
        self.unreadable: list[Unreadable] = []
        self.failure: SlurmError | None = None
        self.asked: list[str] = []

    async def current_jobs(self) -> SlurmAnswer:
        """The newest run of every job slurmctld holds."""
        self._ask("current_jobs")
        return SlurmAnswer(records=tuple(self._held().values()), unreadable=tuple(self.unreadable))

    async def job(self, number: int) -> SlurmAnswer:
        """The newest run of one job."""
        self._ask(f"job {number}")
        record = self._held().get(f"slurm-{number}")
        return SlurmAnswer(records=() if record is None else (record,), unreadable=self._unreadable_of({number}))

    async def nodes(self) -> Sequence[NodeRecord]:
        """Every node."""
        self._ask("nodes")
        return tuple(self.node_records)

    async def runs_of(self, numbers: Sequence[int], *, since: int) -> SlurmAnswer:
        """All runs of these jobs that were not over before `since`."""
        if not numbers:
            return SlurmAnswer()
        self._ask(f"runs_of {sorted(set(numbers))}")
        wanted = {f"slurm-{number}" for number in numbers}
        found = [
            msgspec.structs.replace(run, origin=Origin.SLURMDBD)
            for run in self.runs
            if run.job_id in wanted and (run.end_time is None or run.end_time >= since)
        ]
        return SlurmAnswer(records=tuple(found), unreadable=self._unreadable_of(set(numbers)))

    def _held(self) -> dict[str, SlurmRecord]:
        return {
            run.job_id: msgspec.structs.replace(run, origin=Origin.SLURMCTLD)
            for run in self.runs
            if run.job_id not in self.forgotten
        }

    def _unreadable_of(self, numbers: set[int]) -> tuple[Unreadable, ...]:
        wanted = {None, *(f"slurm-{number}" for number in numbers)}
        return tuple(one for one in self.unreadable if one.job_id in wanted)

    def _ask(self, question: str) -> None:
        self.asked.append(question)
        if self.failure is not None:
            raise self.failure

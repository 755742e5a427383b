"""Jobs that Slurm runs or ran and no hook told of."""

from __future__ import annotations

from collections.abc import Sequence

from jobtrail.core.ports import Clock, RunStore
from jobtrail.core.slurm.answers import Answers
from jobtrail.core.slurm.words import SlurmWords
from jobtrail.domain.job import Job
from jobtrail.domain.matching import record_of
from jobtrail.domain.slurm import SlurmRecord

# A prolog that is on its way through a node's spool comes first; Slurm's word on a run nobody announced can wait.
UNANNOUNCED_SECONDS = 30


class Unannounced:
    """Sends what Slurm says of such jobs: run without hooks, or cancelled while they waited."""

    def __init__(self, words: SlurmWords, store: RunStore, *, clock: Clock) -> None:
        self._words = words
        self._store = store
        self._clock = clock
        self._settled: set[tuple[str, int | None]] = set()  # job ids and submissions known to have their run

    async def take_up(self, current: Answers, runs: Sequence[Job], cluster: str) -> None:
        """Raises StoreUnavailable, SpoolFull."""
        before = self._clock.time_us() // 1_000_000 - UNANNOUNCED_SECONDS
        self._settled &= {_submission(record) for record in current}
        told = [record for record in current if _submission(record) not in self._settled and _is_told(record, before)]
        if not told:
            return
        stored: dict[str, list[Job]] = {}
        for job in [*runs, *await self._store.runs_of(cluster, sorted({record.job_id for record in told}))]:
            stored.setdefault(job.job_id, []).append(job)
        for record in told:
            if not any(record_of(job, [record]) is not None for job in stored.get(record.job_id, ())):
                await self._words.of_unannounced(record, cluster)
            self._settled.add(_submission(record))


def _submission(record: SlurmRecord) -> tuple[str, int | None]:
    return record.job_id, record.submit_time


def _is_told(record: SlurmRecord, before: int) -> bool:
    """Whether the record is of a run that began, or ended, some time ago; one that never had a node had no hooks."""
    if record.is_final and record.facts.nodes is None:
        return True
    moment = record.end_time if record.is_final else record.start_time if record.is_running else None
    return moment is not None and moment < before

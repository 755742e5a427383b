"""Asks Slurm what became of the runs, and sends its word as events.

A hook knows its node; only Slurm knows whether a job was cancelled, ran out of time or was taken back into the queue.
A turn asks one question for all runs that wait for an answer; every few minutes a turn compares all open runs with
what Slurm runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from jobtrail.core.facts import EventRejected, Observer, SlurmAnswered, SlurmAskFailed, SlurmRecordUnreadable
from jobtrail.core.patience import Patience
from jobtrail.core.ports import Clock, RunStore, SlurmAccounting, SlurmController
from jobtrail.core.slurm_words import SlurmWords
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import SlurmError, SpoolFull, StoreUnavailable
from jobtrail.domain.job import Job
from jobtrail.domain.matching import is_superseded, record_of
from jobtrail.domain.slurm import Origin, SlurmAnswer, SlurmRecord

FEW_JOBS = 3  # up to so many are asked about one by one, which costs slurmctld less than all its jobs
MOST_RUNS = 20_000
MOST_SECONDS_BETWEEN = 600.0
HISTORY_SECONDS = 7 * 86_400
# A prolog that is on its way through a node's spool comes first; Slurm's word on a run nobody announced can wait.
UNANNOUNCED_SECONDS = 30

_RunKey = tuple[str, int, str | None]


class Rhythm(msgspec.Struct, frozen=True, kw_only=True):
    """How often to ask. `poll_seconds` is between two turns, `compare_seconds` between two comparisons of all runs."""

    poll_seconds: float = 5.0
    compare_seconds: float = 180.0


class Reconciler:
    """The server role's conversation with Slurm. At least one of `controller` and `accounting` is given."""

    def __init__(
        self,
        *,
        controller: SlurmController | None,
        accounting: SlurmAccounting | None,
        store: RunStore,
        words: SlurmWords,
        clock: Clock,
        tell: Observer,
        cluster_of: Callable[[], Awaitable[str | None]],
        rhythm: Rhythm,
    ) -> None:
        self._controller = controller
        self._accounting = accounting
        self._store = store
        self._words = words
        self._clock = clock
        self._tell = tell
        self._cluster_of = cluster_of
        self._rhythm = rhythm
        self._patience: Patience[_RunKey] = Patience(rhythm.poll_seconds, MOST_SECONDS_BETWEEN)
        self._compare_due = 0.0
        self._missing: set[_RunKey] = set()  # open runs Slurm did not know at the last comparison
        self._settled: set[tuple[str, int | None]] = set()  # job ids and submissions known to have their run
        self.pending_jobs: int | None = None
        self.last_problem: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Take turns until `stop`."""
        while not stop.is_set():
            self.last_problem = None
            try:
                await self.turn()
            except StoreUnavailable as error:  # told by those who write to it; without it there is nothing to ask
                self.last_problem = str(error)
            except SpoolFull as error:
                self.last_problem = str(error)
                self._tell(EventRejected(reason="spool_full", detail=str(error)))
            await wait_for_any(stop.wait(), timeout_seconds=self._rhythm.poll_seconds)

    async def turn(self) -> None:
        """Ask once. Raises StoreUnavailable, SpoolFull."""
        cluster = await self._cluster_of()
        if cluster is None:
            return
        now = self._clock.monotonic()
        comparing = now >= self._compare_due
        unsettled = await self._store.unsettled(cluster, limit=MOST_RUNS)
        self._patience.keep({_key(job) for job in unsettled})
        runs = [job for job in unsettled if self._patience.is_due(_key(job), now)]
        for job in runs:
            self._patience.asked(_key(job), now)
        if comparing:
            self._compare_due = now + self._rhythm.compare_seconds
            known = {_key(job) for job in runs}
            opened = await self._store.open_runs(cluster, limit=MOST_RUNS)
            runs += [job for job in opened if _key(job) not in known]
        if runs or comparing:
            await self._reconcile(runs, cluster, comparing=comparing)

    async def _reconcile(self, runs: Sequence[Job], cluster: str, *, comparing: bool) -> None:
        current = await self._ask_controller(runs, everything=comparing)
        if current is None and self._controller is not None:
            return  # no answer now; accounting alone would mistake what it does not hold yet for unknown
        left: list[Job] = []
        for job in runs:
            record = record_of(job, current.records) if current is not None else None
            if record is not None:
                await self._words.about(job, record)
            if record is None or job.awaits == "usage":
                left.append(job)
        await self._ask_accounting(left, current, comparing=comparing)
        if comparing and current is not None:
            self.pending_jobs = sum(record.is_pending for record in current.records)
            await self._take_up_unannounced(runs, current, cluster)

    async def _ask_controller(self, runs: Sequence[Job], *, everything: bool) -> SlurmAnswer | None:
        """What the controller says of `runs`, None when it does not answer or there is none."""
        if self._controller is None:
            return None
        asked = runs if everything else [job for job in runs if job.awaits != "usage"]
        numbers = sorted({_number(job) for job in asked})
        try:
            if everything or len(numbers) > FEW_JOBS:
                answer = await self._controller.current_jobs()
            else:
                answer = _joined([await self._controller.job(number) for number in numbers])
        except SlurmError as error:
            self._failed("jobs", error)
            return None
        self._answered("jobs", answer)
        return answer

    async def _ask_accounting(self, runs: Sequence[Job], current: SlurmAnswer | None, *, comparing: bool) -> None:
        """Ask about runs the controller does not hold (any more); close those that nobody knows."""
        if not runs:
            self._missing = set() if comparing else self._missing
            return
        answer = await self._history(runs)
        if answer is None:
            return
        unknown: set[_RunKey] = set()
        for job in runs:
            record = record_of(job, answer.records)
            if record is None and self._accounting is None and current is not None:
                record = _taken_back(job, current.records)
            if record is not None:
                await self._words.about(job, record)
            elif not job.is_over and not _is_mentioned(job, current, answer):
                unknown.add(_key(job))
        if comparing:
            for job in runs:
                if _key(job) in unknown & self._missing:
                    await self._words.close(job)
            self._missing = unknown

    async def _history(self, runs: Sequence[Job]) -> SlurmAnswer | None:
        """What accounting says of `runs`: nothing where there is none, None when it does not answer."""
        if self._accounting is None:
            return SlurmAnswer()
        since = self._clock.time_us() // 1_000_000 - HISTORY_SECONDS
        try:
            answer = await self._accounting.runs_of(sorted({_number(job) for job in runs}), since=since)
        except SlurmError as error:
            self._failed("accounting", error)
            return None
        self._answered("accounting", answer)
        return answer

    async def _take_up_unannounced(self, runs: Sequence[Job], current: SlurmAnswer, cluster: str) -> None:
        """Send what Slurm says of jobs of which no hook had told: run without hooks, or cancelled while they waited."""
        before = self._clock.time_us() // 1_000_000 - UNANNOUNCED_SECONDS
        self._settled &= {_submission(record) for record in current.records}
        told = [record for record in current.records if _is_told(record, before)]
        told = [record for record in told if _submission(record) not in self._settled]
        if not told:
            return
        stored: dict[str, list[Job]] = {}
        for job in [*runs, *await self._store.runs_of(cluster, sorted({record.job_id for record in told}))]:
            stored.setdefault(job.job_id, []).append(job)
        for record in told:
            if not any(record_of(job, [record]) is not None for job in stored.get(record.job_id, ())):
                await self._words.of_unannounced(record, cluster)
            self._settled.add(_submission(record))

    def _failed(self, question: str, error: SlurmError) -> None:
        self.last_problem = str(error)
        self._tell(SlurmAskFailed(question=question, reason=str(error)))

    def _answered(self, question: str, answer: SlurmAnswer) -> None:
        self._tell(SlurmAnswered(question=question, records=len(answer.records)))
        for one in answer.unreadable:
            self._tell(SlurmRecordUnreadable(path=one.path, reason=one.reason))


def _key(job: Job) -> _RunKey:
    return job.job_id, job.run, job.awaits


def _number(job: Job) -> int:
    """Slurm's own id: only runs of Slurm jobs, slurm-<n>, await its word."""
    return int(job.job_id.removeprefix("slurm-"))


def _submission(record: SlurmRecord) -> tuple[str, int | None]:
    return record.job_id, record.submit_time


def _is_told(record: SlurmRecord, before: int) -> bool:
    """Whether the record is of a run that began, or ended, some time ago; one that never had a node had no hooks."""
    if record.is_final and record.facts.nodes is None:
        return True
    moment = record.end_time if record.is_final else record.start_time if record.is_running else None
    return moment is not None and moment < before


def _is_mentioned(job: Job, *answers: SlurmAnswer | None) -> bool:
    """Whether Slurm speaks of the job at all, readable or not: then it is not unknown, whatever run it means."""
    for answer in answers:
        if answer is None:
            continue
        if any(record.job_id == job.job_id for record in answer.records):
            return True
        if any(one.job_id in (None, job.job_id) for one in answer.unreadable):
            return True
    return False


def _taken_back(job: Job, records: Iterable[SlurmRecord]) -> SlurmRecord | None:
    """What follows for `job` when the controller's record is of a later run, and no accounting can tell more."""
    later = next((record for record in records if is_superseded(job, record)), None)
    if later is None:
        return None
    known = msgspec.structs.replace(later.facts, restart_count=None, nodes=None, node_list=None)
    return SlurmRecord(origin=Origin.SLURMCTLD, job_id=job.job_id, cluster=later.cluster, state="REQUEUED", facts=known)


def _joined(answers: Sequence[SlurmAnswer]) -> SlurmAnswer:
    return SlurmAnswer(
        records=tuple(record for answer in answers for record in answer.records),
        unreadable=tuple(one for answer in answers for one in answer.unreadable),
    )

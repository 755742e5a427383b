"""Asks Slurm what became of the runs, and sends its word as events.

A hook knows its node; only Slurm knows whether a job was cancelled, ran out of time or was taken back into the queue.
A turn asks one question for all runs that wait for an answer; every few minutes a turn compares all open runs with
what Slurm runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from jobtrail.core.facts import EventRejected, Observer, SlurmAnswered, SlurmAskFailed, SlurmRecordUnreadable
from jobtrail.core.ports import Clock, RunStore, SlurmAccounting, SlurmController
from jobtrail.core.slurm.answers import NOTHING, Answers
from jobtrail.core.slurm.patience import Patience
from jobtrail.core.slurm.silence import Silence
from jobtrail.core.slurm.unannounced import Unannounced
from jobtrail.core.slurm.words import SlurmWords, taken_back
from jobtrail.core.waiting import Backoff, wait_for_any
from jobtrail.domain.errors import SlurmError, SlurmHasNone, SpoolFull, StoreUnavailable
from jobtrail.domain.job import Job
from jobtrail.domain.slurm import SlurmAnswer

FEW_JOBS = 8  # up to so many are asked about one by one, which costs slurmctld less than all its jobs
MOST_RUNS = 20_000
MOST_USAGE = 500  # runs of which only the usage is asked, a turn: outcomes come first
MOST_SECONDS_BETWEEN = 600.0
HISTORY_SECONDS = 7 * 86_400
CLUSTER_UNKNOWN = "the cluster's name is not known yet: set `cluster`, or wait for the first hook"
RUNS_BETWEEN_PAUSES = 200  # so that matching thousands of runs holds up no hook

_RunKey = tuple[str, int, str | None]


async def _always() -> bool:
    return True


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
        leads: Callable[[], Awaitable[bool]] = _always,
        check_cluster: bool = True,
    ) -> None:
        """`leads`: whether this daemon is the one that asks. `check_cluster`: leave out what is of another cluster."""
        self._controller = controller
        self._accounting = accounting
        self._store = store
        self._words = words
        self._clock = clock
        self._tell = tell
        self._cluster_of = cluster_of
        self._rhythm = rhythm
        self._leads = leads
        self._check_cluster = check_cluster
        self._patience: Patience[_RunKey] = Patience(rhythm.poll_seconds, MOST_SECONDS_BETWEEN)
        self._backoff = Backoff(rhythm.poll_seconds, 60.0)
        self._ask_again = self._compare_due = 0.0
        self._silence = Silence(words, clock=clock, silent_seconds=5 * rhythm.compare_seconds)
        self._unannounced = Unannounced(words, store, clock=clock)
        self._problems: dict[str, str] = {}
        self.pending_jobs: int | None = None

    @property
    def last_problem(self) -> str | None:
        """Why Slurm does not answer now, or answers nothing of use; None while all is well."""
        return "; ".join(self._problems.values()) or None

    async def run(self, stop: asyncio.Event) -> None:
        """Take turns until `stop`; a question on its way is given up then."""
        while not stop.is_set():
            await wait_for_any(stop.wait(), self._guarded_turn())
            await wait_for_any(stop.wait(), timeout_seconds=self._rhythm.poll_seconds)

    async def _guarded_turn(self) -> None:
        try:
            await self.turn()
            self._problems.pop("store", None)
        except StoreUnavailable as error:  # told by those who write to it; without it there is nothing to ask
            self._problems["store"] = str(error)
        except SpoolFull as error:
            self._problems["store"] = str(error)
            self._tell(EventRejected(reason="spool_full", detail=str(error)))

    async def turn(self) -> None:
        """Ask once. Raises StoreUnavailable, SpoolFull."""
        if self._clock.monotonic() < self._ask_again:
            return
        if not await self._leads():
            self.pending_jobs = None  # the one that asks shows it
            self._problems.clear()
            return
        cluster = await self._cluster_of()
        if cluster is None:
            self._problems["cluster"] = (
                "the cluster's name is not known yet; set `cluster`, or wait for a hook to tell it"
            )
            return
        self._problems.pop("cluster", None)
        now = self._clock.monotonic()
        comparing = now >= self._compare_due
        runs = await self._due(cluster, now)
        if comparing:
            known = {_key(job) for job in runs}
            opened = await self._store.open_runs(cluster, limit=MOST_RUNS)
            runs += [job for job in opened if _key(job) not in known]
        if not runs and not comparing:
            return
        if await self._reconcile(runs, cluster, comparing=comparing):
            self._backoff.reset()
            for job in runs:
                self._patience.asked(_key(job), now)
            if comparing:
                self._compare_due = now + self._rhythm.compare_seconds
        else:
            self._ask_again = now + self._backoff.next_seconds()

    async def _due(self, cluster: str, now: float) -> list[Job]:
        """Runs to ask about now: all that lack facts or outcome, and some that lack usage alone."""
        unsettled = await self._store.unsettled(cluster, limit=MOST_RUNS)
        self._patience.keep({_key(job) for job in unsettled})
        due = [job for job in unsettled if self._patience.is_due(_key(job), now)]
        usage = [job for job in due if job.awaits == "usage"]
        return [job for job in due if job.awaits != "usage"] + usage[:MOST_USAGE]

    async def _reconcile(self, runs: Sequence[Job], cluster: str, *, comparing: bool) -> bool:
        """Ask about `runs` and send what is new; whether all that was asked answered."""
        current = await self._ask_controller(runs, cluster, everything=comparing)
        answered = current is not None or self._controller is None
        left: list[Job] = []
        for number, job in enumerate(runs):
            if number % RUNS_BETWEEN_PAUSES == RUNS_BETWEEN_PAUSES - 1:
                await asyncio.sleep(0)
            record = None if current is None else current.of(job)
            if record is not None:
                await self._words.about(job, record)
            if record is None or job.awaits == "usage":
                left.append(job)
        # While the controller is silent, accounting tells what is over; what goes on is not in it for some seconds.
        asked = left if answered else [job for job in left if job.is_over]
        history = await self._ask_accounting(asked, cluster)
        if history is None:
            return False
        for job in asked:
            await self._settle(job, current, history)
        if comparing and answered:
            await self._silence.judge(runs, current, history)
        if comparing and current is not None:
            self.pending_jobs = sum(record.is_pending for record in current)
            await self._unannounced.take_up(current, runs, cluster)
        return answered

    async def _settle(self, job: Job, current: Answers | None, history: Answers) -> None:
        """Send accounting's word on a run; without any, what follows from the controller's word on a later run."""
        record = history.of(job)
        if record is None and current is not None and job.awaits != "usage":
            record = taken_back(job, current.about(job)) if history is NOTHING else None
        if record is not None:
            await self._words.about(job, record)

    async def _ask_controller(self, runs: Sequence[Job], cluster: str, *, everything: bool) -> Answers | None:
        """What the controller says of `runs`, None when it does not answer or there is none."""
        if self._controller is None:
            return None
        numbers = sorted({_number(job) for job in runs if job.awaits != "usage"})
        if not numbers and not everything:
            return Answers((), complete=False)
        try:
            if everything or len(numbers) > FEW_JOBS:
                return self._answered("jobs", [await self._controller.current_jobs()], cluster, complete=True)
            answers = [await self._controller.job(number) for number in numbers]
            return self._answered("jobs", answers, cluster, complete=False)
        except SlurmError as error:
            self._failed("jobs", error)
            return None

    async def _ask_accounting(self, runs: Sequence[Job], cluster: str) -> Answers | None:
        """What accounting says of `runs`: NOTHING where the site has none, None when it does not answer."""
        if self._accounting is None:
            return NOTHING
        if not runs:
            return Answers((), complete=False)
        now = self._clock.time_us() // 1_000_000
        since = min([now - HISTORY_SECONDS, *(job.start_us // 1_000_000 for job in runs if job.start_us is not None)])
        try:
            answer = await self._accounting.runs_of(sorted({_number(job) for job in runs}), since=since)
        except SlurmHasNone:
            self._problems.pop("accounting", None)
            return NOTHING
        except SlurmError as error:
            self._failed("accounting", error)
            return None
        return self._answered("accounting", [answer], cluster, complete=True)

    def _answered(self, question: str, answers: Sequence[SlurmAnswer], cluster: str, *, complete: bool) -> Answers:
        """Take an answer: tell it, and leave out what is of another cluster."""
        self._problems.pop(question, None)
        for answer in answers:
            self._tell(SlurmAnswered(question=question, records=len(answer.records)))
            for one in answer.unreadable:
                self._tell(SlurmRecordUnreadable(path=one.path, reason=one.reason))
        foreign = {record.cluster for answer in answers for record in answer.records} - {None, cluster}
        if not foreign or not self._check_cluster:
            return Answers(answers, complete=complete)
        self._problems[question] = f"Slurm answers for another cluster than {cluster}: {', '.join(map(str, foreign))}"
        return Answers([_of_cluster(answer, cluster) for answer in answers], complete=complete)

    def _failed(self, question: str, error: SlurmError) -> None:
        self._problems[question] = str(error)
        self._tell(SlurmAskFailed(question=question, reason=str(error)))


def _of_cluster(answer: SlurmAnswer, cluster: str) -> SlurmAnswer:
    ours = tuple(record for record in answer.records if record.cluster in (None, cluster))
    return msgspec.structs.replace(answer, records=ours)


def _key(job: Job) -> _RunKey:
    return job.job_id, job.run, job.awaits


def _number(job: Job) -> int:
    """Slurm's own id: only runs of Slurm jobs, slurm-<n>, await its word."""
    return int(job.job_id.removeprefix("slurm-"))

"""The collector's own words in the trail: usage of running and ended jobs, and jobs nobody had announced."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence

from jobtrail.core.facts import EventRejected, JobAdopted, Observer
from jobtrail.core.ports import Clock, EventIntake, EventSpool
from jobtrail.core.runs.sampler import Sampler, Watched
from jobtrail.domain.errors import SpoolFull
from jobtrail.domain.events import Actor, Event, EventKind, encode
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.samples import FoundJob

SOURCE = "sampler"


def usage_event(watched: Watched, *, final: bool, event_id: str, now_us: int) -> Event:
    """A run's usage so far, or its final usage, as an event of this node."""
    target = watched.run.target
    return Event(
        kind=EventKind.USAGE_RECORDED if final else EventKind.CHECKPOINT,
        event_id=event_id,
        time_us=now_us,
        cluster=target.cluster,
        job_id=target.job_id,
        node=target.node,
        changed_by=Actor.COLLECTOR,
        source=SOURCE,
        slurm_start_time=watched.run.slurm_start_time,
        sluid=target.sluid,
        opened_by=target.ref,
        usage=watched.usage,
    )


def found_event(job: FoundJob, *, cluster: str, node: str, user_name: str | None, event_id: str, now_us: int) -> Event:
    """A job whose cgroup was found without any event about it."""
    return Event(
        kind=EventKind.JOB_FOUND,
        event_id=event_id,
        time_us=now_us,
        cluster=cluster,
        job_id=job.job_id,
        node=node,
        changed_by=Actor.COLLECTOR,
        source="cgroup_scan",
        sluid=job.sluid,
        facts=JobFacts(uid=job.uid, user_name=user_name),
        note="running when the daemon started; no prolog had announced it",
    )


async def send(intake: EventIntake, event: Event) -> None:
    """Put an event of the collector's own through the one way in."""
    await intake.accept(event, hashlib.sha256(encode(event)).digest())


class Collector:
    """Sends the collector's events and, at start, takes up the jobs that already run."""

    def __init__(
        self,
        *,
        intake: EventIntake,
        clock: Clock,
        tell: Observer,
        new_event_id: Callable[[], str],
        user_name_of: Callable[[int], str | None],
        node: str,
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._tell = tell
        self._new_event_id = new_event_id
        self._user_name_of = user_name_of
        self._node = node

    async def report(self, watched: Watched, final: bool) -> bool:  # noqa: FBT001 - the shape of sampler.Report
        """Send a run's usage. False when the spool is full: the sampler asks again."""
        event = usage_event(watched, final=final, event_id=self._new_event_id(), now_us=self._clock.time_us())
        try:
            await send(self._intake, event)
        except SpoolFull as error:
            self._tell(EventRejected(reason="spool_full", detail=str(error)))
            return False
        return True

    async def resume(
        self, spool: EventSpool, sampler: Sampler, *, but_not: Collection[str] = frozenset()
    ) -> frozenset[str]:
        """Sample on the runs the spool holds open, except for those with a ref in `but_not`; their job ids."""
        runs = [run for run in await spool.open_runs() if run.target.ref not in but_not]
        for run in runs:
            sampler.opened(run)
            self._tell(JobAdopted(job_id=run.target.job_id, found_by="spool"))
        return frozenset(run.target.job_id for run in runs)

    async def adopt(self, found: Sequence[FoundJob], known: frozenset[str], cluster: str) -> None:
        """Open runs for jobs found alive whose prolog never reached this daemon."""
        for job in found:
            if job.job_id in known or job.populated is False:
                continue
            event = found_event(
                job,
                cluster=cluster,
                node=self._node,
                user_name=None if job.uid is None else self._user_name_of(job.uid),
                event_id=self._new_event_id(),
                now_us=self._clock.time_us(),
            )
            try:
                await send(self._intake, event)
            except SpoolFull as error:  # the job is found again at the next start, or told by its epilog
                self._tell(EventRejected(reason="spool_full", detail=str(error)))
                return
            self._tell(JobAdopted(job_id=job.job_id, found_by="cgroup_scan"))

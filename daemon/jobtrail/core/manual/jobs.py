"""People's word on jobs becomes events: checked against what is held, with the daemon's word about who sent it.

A job is looked up in the database before it is changed, since it says whose it is and whether it still stands. What
this daemon has taken and not yet forwarded is waited for, so that who changes a job twice need not wait between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

import msgspec

from jobtrail.core.benchmarks.shares import ReportShares
from jobtrail.core.manual.ports import Author, Done, PostedSample, PostedSampleSink, Which
from jobtrail.core.ports import Clock, EventIntake, SampleRow, SpoolStatus
from jobtrail.core.query_ports import RunFinder
from jobtrail.domain.claims import MANUAL_FORM, REMARKS, Claims, is_manual, is_manual_id, made_id, said_fields
from jobtrail.domain.errors import (
    InvalidEvent,
    JobConflict,
    NotAllowed,
    NotFound,
    SpoolFull,
    StoreUnavailable,
)
from jobtrail.domain.events import Event, EventKind, request_digest
from jobtrail.domain.job import Job
from jobtrail.domain.people import PeoplesWord, Standing, claims_of, last_said_us, standing_of, told_by_person
from jobtrail.domain.phrases import describe_moment
from jobtrail.domain.registers import CLOCK_SKEW_US

FOR_HOOKS = 0.1  # of the spool: what anybody may send leaves that much for the events of jobs
SAMPLE_BYTES = 1024  # what a sample counts for in a user's share: about 250 a second go on for long
FORWARD_SECONDS = 2.0
LOOK_SECONDS = 0.02
AROUND_US = 300_000_000  # clocks differ by minutes at times: munge takes credentials that are five old (munge(7))
# Columns as people know them, where they have other names than the claims.
NAMES = {"submit_us": "submit_time", "start_us": "start_time", "end_us": "end_time", "cpus_total": "cpus_allocated",
         "gpus_total": "gpus_allocated"}  # fmt: skip


class ManualJobs:
    """A JobKeeper. `uid_of` may block: the uid of a login name, None where there is none."""

    def __init__(
        self,
        intake: EventIntake,
        *,
        jobs: RunFinder | None,
        samples: PostedSampleSink | None,
        spool_status: Callable[[], SpoolStatus],
        user_name_of: Callable[[int], str | None],
        uid_of: Callable[[str], int | None],
        clock: Clock,
        node: str,
        cluster: str,
        forward_seconds: float = FORWARD_SECONDS,
    ) -> None:
        self._intake = intake
        self._jobs = jobs
        self._samples = samples
        self._spool_status = spool_status
        self._user_name_of = user_name_of
        self._uid_of = uid_of
        self._clock = clock
        self._node = node
        self._cluster = cluster
        self._forward_seconds = forward_seconds
        self._shares = ReportShares(clock)

    async def create(self, wanted: Which, claims: Claims, author: Author) -> Done:
        """Begin to keep a job by hand; an empty `job_id` has one made of the event's id, without asking the database.

        Raises as JobKeeper does.
        """
        self._admit(author)
        cluster = wanted.cluster or self._cluster
        if cluster != self._cluster and not author.trusted:
            raise NotAllowed(f"{author.sent_by} may only keep jobs of cluster {self._cluster}")
        if wanted.job_id and not is_manual_id(wanted.job_id):
            raise InvalidEvent("job_id", f"must be {MANUAL_FORM}, not {wanted.job_id[:64]!r}")
        job_id = wanted.job_id or made_id(author.event_id)
        claims = await self._owned(claims, author)
        _check_times(PeoplesWord(), self._event(EventKind.JOB_CREATED, job_id, cluster, author, claims))
        if wanted.job_id:
            await self._check_free(Which(job_id=job_id, cluster=cluster), author)
        return await self._say(self._event(EventKind.JOB_CREATED, job_id, cluster, author, claims), run=1)

    async def amend(self, which: Which, claims: Claims, author: Author) -> Done:
        """Change what is said of a job. Raises as JobKeeper does."""
        self._admit(author)
        job = await self._standing(which, author)
        if not is_manual(job.job_id):
            _check_remarks(job, claims)
        elif author.uid is not None and not author.trusted and "user_name" in said_fields(claims):
            raise NotAllowed(f"{author.sent_by} may not give a job to another user; root and Slurm's user may")
        claims = await self._given(claims)
        held = PeoplesWord() if job.people is msgspec.UNSET else job.people
        event = self._event(EventKind.JOB_AMENDED, job.job_id, job.cluster_name, author, claims, run=job.run)
        # Who saw a word and says another means it to come after, whatever the clocks of two daemons show.
        event = msgspec.structs.replace(event, time_us=max(event.time_us, last_said_us(held, claims) + 1))
        if is_manual(job.job_id):
            _check_times(held, event)
        return await self._say(event, run=job.run)

    async def withdraw(self, which: Which, author: Author) -> Done:
        """Take a manual job back; its trail stays. Raises as JobKeeper does."""
        self._admit(author)
        job = await self._found(which)
        _check_may_write(job, author)
        if not is_manual(job.job_id):
            raise JobConflict("id", f"{job.job_id} is no manual job: what hooks and Slurm tell of cannot be deleted")
        event = self._event(EventKind.JOB_WITHDRAWN, job.job_id, job.cluster_name, author, None, run=job.run)
        if job.withdrawn is None or job.withdrawn.stamp.event_id != author.event_id:
            _check_stands(job)
        return await self._say(event, run=job.run)

    async def add_samples(self, which: Which, samples: Sequence[PostedSample], author: Author) -> int:
        """Keep samples of a job; how many. Raises as JobKeeper does."""
        self._admit(author)
        job = await self._standing(which, author)
        if self._samples is None:
            raise StoreUnavailable("this daemon has no database: set database.url")
        if job.start_us is None:
            raise JobConflict(
                "start_time", f"{job.job_id} has not started, as far as is known; samples are of jobs that ran"
            )
        if author.uid is not None and not author.trusted:
            self._shares.charge(author.uid, len(samples) * SAMPLE_BYTES)
        days = await self._samples.days()
        rows = [self._row(number, sample, job, author, days) for number, sample in enumerate(samples)]
        await self._samples.write(rows)
        return len(rows)

    def _admit(self, author: Author) -> None:
        """Take one request off a user's share. Raises TooManyReports, SpoolFull."""
        status = self._spool_status()
        if status.bytes_used > (1 - FOR_HOOKS) * status.bytes_limit:
            raise SpoolFull(status.bytes_limit)
        if author.uid is not None and not author.trusted:
            self._shares.book(author.uid)

    async def _owned(self, claims: Claims, author: Author) -> Claims:
        """The claims with the job's user: who makes it, unless who is trusted names another."""
        if author.trusted or author.uid is None:
            return await self._given(claims)
        own = await asyncio.to_thread(self._user_name_of, author.uid) or str(author.uid)
        if claims.user_name not in (None, own):
            raise NotAllowed(f"{author.sent_by} may only keep jobs of their own, {own}, not of {claims.user_name}")
        return msgspec.structs.replace(claims, user_name=own, uid=author.uid)

    async def _given(self, claims: Claims) -> Claims:
        """The claims with the uid of the user they name; who has none here reads of the job by a token alone."""
        if claims.user_name is None:
            gone = [*claims.retracted, "uid"] if "user_name" in claims.retracted else claims.retracted
            return msgspec.structs.replace(claims, retracted=tuple(gone))
        uid = await asyncio.to_thread(self._uid_of, claims.user_name)
        retracted = claims.retracted if uid is not None else (*claims.retracted, "uid")
        return msgspec.structs.replace(claims, uid=uid, retracted=retracted)

    def _event(
        self, kind: EventKind, job_id: str, cluster: str, author: Author, claims: Claims | None, run: int | None = None
    ) -> Event:
        return Event(
            kind=kind,
            event_id=author.event_id,
            time_us=self._clock.time_us(),
            cluster=cluster,
            job_id=job_id,
            node=self._node,
            changed_by=author.by,
            source=author.source,
            run=run,
            claims=claims,
            person=author.person,
            sent_by=author.sent_by,
            request_id=author.request_id,
        )

    async def _say(self, event: Event, *, run: int) -> Done:
        """Have the event held, and wait a little for the database to have it."""
        said = [event.job_id, event.cluster, event.claims, event.person, event.source, event.request_id]
        digest = request_digest(str(event.kind), "", msgspec.json.encode(said, order="sorted"))
        receipt = await self._intake.accept(event, digest)
        stored = self._jobs is not None and await self._forwarded(receipt.seq)
        return Done(receipt=receipt, job_id=event.job_id or "", cluster=event.cluster, run=run, stored=stored)

    async def _forwarded(self, seq: int) -> bool:
        """Whether the store has this daemon's events up to `seq`, or has them soon."""
        try:
            async with asyncio.timeout(self._forward_seconds):
                while self._spool_status().forwarded_seq < seq:  # noqa: ASYNC110 - a figure; nobody tells of its change
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _found(self, which: Which) -> Job:
        """The run; one that this daemon has just taken is waited for."""
        if self._jobs is None:
            raise StoreUnavailable("this daemon has no database: set database.url")
        await self._forwarded(self._spool_status().head_seq)
        return await self._jobs.held_run(which.job_id, run=which.run, cluster=which.cluster)

    async def _standing(self, which: Which, author: Author) -> Job:
        """The run, if it stands and the author may change it."""
        job = await self._found(which)
        _check_may_write(job, author)
        _check_stands(job)
        return job

    async def _check_free(self, which: Which, author: Author) -> None:
        try:
            job = await self._found(which)
        except NotFound:
            return
        made = None if job.people is msgspec.UNSET else job.people.creation
        if made is None or made.stamp.event_id != author.event_id:
            gone = "" if job.withdrawn is None else " and was withdrawn; ids are never used again"
            raise JobConflict("job_id", f"{job.job_id} exists already{gone}")

    def _row(self, number: int, sample: PostedSample, job: Job, author: Author, days: frozenset[date]) -> SampleRow:
        reading, place = sample.reading, f"samples[{number}]"
        self._check_time(f"{place}.sampled_at", reading.time_us, job, days)
        node = sample.node or next(iter(job.nodes), None)
        if node is None:
            raise InvalidEvent(f"{place}.node", f"is needed, because nobody said on which nodes {job.job_id} ran")
        return SampleRow(
            cluster=job.cluster_name,
            job_id=job.job_id,
            node=node,
            ref=job.correlation_id,
            reading=msgspec.structs.replace(reading, source=f"api:{author.source}"),
            cpu_percent=sample.cpu_percent,
        )

    def _check_time(self, field: str, time_us: int, job: Job, days: frozenset[date]) -> None:
        now_us = self._clock.time_us()
        if time_us > now_us + AROUND_US:
            raise InvalidEvent(field, "lies in the future")
        assert job.start_us is not None
        if time_us < job.start_us - AROUND_US:
            raise InvalidEvent(field, f"lies before the job's start at {describe_moment(job.start_us)}")
        if job.end_us is not None and time_us > job.end_us + AROUND_US:
            raise InvalidEvent(field, f"lies after the job's end at {describe_moment(job.end_us)}")
        if _day(time_us) not in days:
            kept = sorted(str(day) for day in days)
            span = f"{kept[0]} to {kept[-1]}" if kept else "no day"
            raise InvalidEvent(field, f"is of a day whose samples are not kept; they are of {span}")


def _day(time_us: int) -> date:
    return datetime.fromtimestamp(time_us / 1_000_000, tz=UTC).date()


def _check_may_write(job: Job, author: Author) -> None:
    if author.trusted or author.uid is None:
        return
    if not is_manual(job.job_id):
        raise NotAllowed(f"{author.sent_by} may change manual jobs of their own, and {job.job_id} is no manual one")
    if job.facts.uid != author.uid:
        raise NotAllowed(f"{author.sent_by} may change only their own jobs; {job.job_id} is of another user")


def _check_stands(job: Job) -> None:
    if job.withdrawn is not None:
        when = describe_moment(job.withdrawn.stamp.time_us)
        raise JobConflict("id", f"{job.job_id} was withdrawn at {when} and cannot be changed any more")


def _check_remarks(job: Job, claims: Claims) -> None:
    others = [NAMES.get(name, name) for name in said_fields(claims) if name not in REMARKS]
    if others:
        allowed = " and ".join(REMARKS)
        problem = f"is what Slurm and the hooks tell of {job.job_id}; people may change {allowed} of it"
        raise JobConflict(others[0], problem)


def _check_times(held: PeoplesWord, event: Event) -> None:
    """Raise InvalidEvent for times in the wrong order, times to come, and a state that they contradict."""
    word = told_by_person(held, event)
    standing = standing_of(word)
    claimed = {name: getattr(event.claims, name) for name in ("submit_us", "start_us", "end_us")}
    for name, time_us in claimed.items():
        if time_us is not None and time_us > event.time_us + CLOCK_SKEW_US:
            raise InvalidEvent(NAMES[name], "lies in the future; leave it out until then")
    _check_order(standing, word)
    state = None if event.claims is None else event.claims.state
    if state is not None and state is not standing.state:
        time = "end_time" if standing.is_over else "start_time"
        raise InvalidEvent("state", f"cannot be {state} beside the {time}; take that back with null")


def _check_order(standing: Standing, word: PeoplesWord) -> None:
    told_end_us = claims_of(word).end_us
    if standing.submit_us is not None and standing.start_us is not None and standing.start_us < standing.submit_us:
        raise InvalidEvent("start_time", f"must not be before submit_time, {describe_moment(standing.submit_us)}")
    if told_end_us is not None and standing.start_us is not None and told_end_us < standing.start_us:
        raise InvalidEvent("end_time", f"must not be before start_time, {describe_moment(standing.start_us)}")

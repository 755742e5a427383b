"""People's word on jobs on its way into the intake: who may say what of which job."""

import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest

from jobtrail.core.benchmarks.shares import BURST
from jobtrail.core.manual.jobs import ManualJobs
from jobtrail.core.manual.ports import Author, Done, PostedSample, Which
from jobtrail.core.ports import Receipt, SampleRow, SpoolStatus
from jobtrail.domain.claims import Claims, is_manual_id
from jobtrail.domain.errors import (
    InvalidEvent,
    JobConflict,
    NotAllowed,
    NotFound,
    SpoolFull,
    StoreUnavailable,
    TooManyReports,
)
from jobtrail.domain.events import Actor, Event, EventKind
from jobtrail.domain.job import Job, Run
from jobtrail.domain.joining import choose_run
from jobtrail.domain.samples import Reading
from jobtrail.domain.states import State
from jobtrail.domain.transitions import Rejected, apply, open_run
from tests.fakes import FakeClock
from tests.unit.stories import CLUSTER, JOB, SECOND, T0, started

MINUTE, DAY = 60 * SECOND, 86_400 * SECOND
TODAY = datetime.fromtimestamp(T0 / 1e6, tz=UTC).date()
ADA, ROOT, TOKEN = 1001, 0, None


def author(uid: int | None = ROOT, event_id: str | None = None, **more: Any) -> Author:
    return Author(
        person="ada",
        sent_by="token:x" if uid is None else f"uid:{uid}",
        uid=uid,
        trusted=uid in (ROOT, TOKEN),
        by=Actor.API,
        source="test",
        event_id=event_id or str(uuid.uuid4()),
        **more,
    )


class World:
    """An intake whose events are stored at once, or when told to, and what a test says of days and spool."""

    def __init__(self, *, has_store: bool = True) -> None:
        self.events: list[Event] = []
        self.digests: list[bytes] = []
        self.jobs: dict[str, list[Run]] = {}
        self.rows: list[SampleRow] = []
        self.held_days = {TODAY}
        self.used = 0
        self.lag = 0  # events that are not forwarded yet
        self.clock = FakeClock(T0)
        self.keeper = ManualJobs(
            self,
            jobs=self if has_store else None,
            samples=self if has_store else None,
            spool_status=self._status,
            user_name_of={ADA: "ada"}.get,
            uid_of={"ada": ADA, "root": ROOT}.get,
            clock=self.clock,
            node="srv",
            cluster=CLUSTER,
            forward_seconds=0.05,
        )
        self.told(started("n1", -10 * MINUTE, nodes=["n1"]))

    def _status(self) -> SpoolStatus:
        head = len(self.events)
        return SpoolStatus(
            chain_id="c", durability="disk", head_seq=head, forwarded_seq=head - self.lag, bytes_used=self.used,
            bytes_limit=1000, oldest_unforwarded_us=None,
        )  # fmt: skip

    def told(self, event: Event) -> None:
        runs = self.jobs.setdefault(event.job_id or "", [])
        chosen = choose_run(runs, event)
        result = apply(chosen or open_run(event.cluster, event.job_id or "", 1), event, created=chosen is None)
        assert not isinstance(result, Rejected), result.reason
        runs[:] = [run for run in runs if run is not chosen] + [result.run]

    async def accept(self, event: Event, digest: bytes) -> Receipt:
        self.events.append(event)
        self.digests.append(digest)
        self.told(event)
        return Receipt(event_id=event.event_id, seq=len(self.events), durability="disk")

    async def held_run(self, job_id: str, *, run: int | None = None, cluster: str | None = None) -> Job:
        runs = [one.job for one in self.jobs.get(job_id, []) if run in (None, one.job.run)]
        if not runs or cluster not in (None, runs[0].cluster_name):
            raise NotFound(f"no {job_id}")
        return runs[0]

    async def days(self) -> frozenset[date]:
        return frozenset(self.held_days)

    async def write(self, rows: Sequence[SampleRow]) -> int:
        self.rows += rows
        return len(rows)

    async def create(self, uid: int | None = ROOT, job_id: str = "manual-a", **claims: Any) -> Done:
        return await self.keeper.create(Which(job_id=job_id), Claims(**claims), author(uid))

    async def amend(self, uid: int | None = ROOT, job_id: str = "manual-a", **claims: Any) -> Done:
        return await self.keeper.amend(Which(job_id=job_id), Claims(**claims), author(uid))

    async def withdraw(self, uid: int | None = ROOT, job_id: str = "manual-a", event_id: str | None = None) -> Done:
        return await self.keeper.withdraw(Which(job_id=job_id), author(uid, event_id))

    async def sample(self, at: int, uid: int | None = ROOT, job_id: str = "manual-a", **more: Any) -> SampleRow:
        reading = Reading(time_us=T0 + at, source="", memory_current_bytes=5)
        sample = PostedSample(reading=reading, **more)
        assert await self.keeper.add_samples(Which(job_id=job_id), [sample], author(uid)) == 1
        return self.rows[-1]

    def job(self, job_id: str = "manual-a") -> Job:
        (run,) = self.jobs[job_id]
        return run.job


async def test_the_event_bears_who_says_it_and_who_sent_it() -> None:
    world = World()
    done = await world.keeper.create(
        Which(job_id="manual-a", cluster="other"), Claims(account="chem"), author(TOKEN, request_id="r")
    )
    (event,) = world.events
    assert (event.kind, event.person, event.sent_by, event.changed_by) == (
        EventKind.JOB_CREATED,
        "ada",
        "token:x",
        Actor.API,
    )
    assert (event.cluster, event.job_id, event.node, event.source, event.request_id, event.time_us) == (
        "other",
        "manual-a",
        "srv",
        "test",
        "r",
        T0,
    )
    assert (done.job_id, done.cluster, done.run, done.stored) == ("manual-a", "other", 1, True)


async def test_an_id_is_made_of_the_events_so_that_a_repeat_makes_the_same() -> None:
    """And no database is needed for it."""
    world, event_id = World(has_store=False), str(uuid.uuid4())
    first = await world.keeper.create(Which(job_id=""), Claims(), author(event_id=event_id))
    second = await world.keeper.create(Which(job_id=""), Claims(), author(event_id=event_id))
    other = await world.create(job_id="")
    assert first.job_id == second.job_id != other.job_id
    assert world.digests[0] == world.digests[1] != world.digests[2]
    number = int(first.job_id.removeprefix("manual-"))
    assert number == int.from_bytes(hashlib.sha256(event_id.encode()).digest()[:8]) % 2**53
    assert is_manual_id(first.job_id)
    assert first.stored is False


async def test_an_id_that_is_taken_is_not_given_again() -> None:
    world = World()
    await world.create()
    with pytest.raises(JobConflict, match=r"exists already$"):
        await world.create()
    await world.withdraw()
    with pytest.raises(JobConflict, match="was withdrawn; ids are never used again"):
        await world.create()
    for wrong in ("slurm-7", "manual-", "7"):
        with pytest.raises(InvalidEvent, match="job_id: must be manual-NAME"):
            await world.create(job_id=wrong)
    assert [event.kind for event in world.events] == [EventKind.JOB_CREATED, EventKind.JOB_WITHDRAWN]


async def test_a_repeat_of_a_creation_or_withdrawal_is_the_intakes_to_tell() -> None:
    world, one, two = World(), str(uuid.uuid4()), str(uuid.uuid4())
    for _ in range(2):
        await world.keeper.create(Which(job_id="manual-a"), Claims(), author(event_id=one))
    for _ in range(2):
        await world.withdraw(event_id=two)
    assert [event.event_id for event in world.events] == [one, one, two, two]
    with pytest.raises(JobConflict, match="was withdrawn at 2025-10-09 08:53:20 UTC and cannot be changed"):
        await world.withdraw()


async def test_a_user_keeps_jobs_of_their_own() -> None:
    world = World()
    await world.create(ADA)
    assert (world.job().facts.user_name, world.job().facts.uid) == ("ada", ADA)
    await world.create(ADA, "manual-b", user_name="ada")
    await world.create(1002, "manual-c")
    assert world.job("manual-c").facts.user_name == "1002"  # a login name that the kernel's uid has not
    with pytest.raises(NotAllowed, match="of their own, ada, not of root"):
        await world.create(ADA, "manual-d", user_name="root")
    with pytest.raises(NotAllowed, match="only keep jobs of cluster c1"):
        await world.keeper.create(Which(job_id="manual-d", cluster="x"), Claims(), author(ADA))
    with pytest.raises(NotAllowed, match="may not give a job to another user"):
        await world.amend(ADA, user_name="ada")
    with pytest.raises(NotAllowed, match="may not give a job"):
        await world.amend(ADA, retracted=("user_name",))


async def test_another_users_job_is_nobodys_to_change() -> None:
    world = World()
    await world.create(start_us=T0 - MINUTE, nodes=("n1",))
    for change in (world.amend(ADA, comment="x"), world.withdraw(ADA), world.sample(-SECOND, ADA)):
        with pytest.raises(NotAllowed, match="manual-a is of another user"):
            await change
    for change in (world.amend(ADA, JOB, comment="x"), world.withdraw(ADA, JOB), world.sample(0, ADA, JOB)):
        with pytest.raises(NotAllowed, match="slurm-7 is no manual one"):
            await change
    assert len(world.events) == 1
    assert world.rows == []


async def test_who_is_trusted_gives_a_job_to_its_user() -> None:
    """With the uid that the name has here, so that the user may read and change it; without one, nobody's."""
    world = World()
    await world.create(TOKEN, user_name="ada")
    assert world.job().facts.uid == ADA
    await world.amend(ADA, comment="mine")
    await world.amend(ROOT, user_name="nobody-here")
    assert (world.job().facts.user_name, world.job().facts.uid) == ("nobody-here", None)
    await world.amend(ROOT, user_name="root")
    assert world.job().facts.uid == ROOT
    await world.amend(ROOT, retracted=("user_name",))
    assert (world.job().facts.user_name, world.job().facts.uid) == (None, None)


async def test_of_other_jobs_people_may_remark_alone() -> None:
    world = World()
    done = await world.amend(job_id=JOB, account="chem", comment="ran hot")
    assert (done.job_id, done.run, world.events[0].run) == (JOB, 1, 1)
    facts = world.job(JOB).facts
    assert (facts.account, facts.comment, facts.user_name) == ("chem", "ran hot", "ada")
    for claims, name in (
        ({"partition": "p"}, "partition"),
        ({"end_us": T0}, "end_time"),
        ({"cpus_total": 1}, "cpus_a"),
    ):
        with pytest.raises(JobConflict, match=f"^{name}.*is what Slurm and the hooks tell of slurm-7"):
            await world.amend(job_id=JOB, comment="x", **claims)
    with pytest.raises(JobConflict, match="slurm-7 is no manual job"):
        await world.withdraw(job_id=JOB)
    with pytest.raises(NotFound):
        await world.amend(job_id="manual-none", comment="x")


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"start_us": T0 + MINUTE}, "start_time: lies in the future"),
        ({"submit_us": T0 + MINUTE}, "submit_time: lies in the future"),
        ({"start_us": T0, "end_us": T0 - 1}, "end_time: must not be before start_time, 2025-10-09 08:53:20 UTC"),
        ({"submit_us": T0, "start_us": T0 - 1}, "start_time: must not be before submit_time"),
        ({"state": State.PENDING, "start_us": T0}, "state: cannot be pending beside the start_time"),
        ({"state": State.RUNNING, "end_us": T0}, "state: cannot be running beside the end_time"),
    ],
)
async def test_times_that_cannot_be_are_refused(claims: dict[str, Any], message: str) -> None:
    """At the making, and in an amendment."""
    world = World()
    with pytest.raises(InvalidEvent, match=message):
        await world.create(**claims)
    await world.create()
    with pytest.raises(InvalidEvent, match=message):
        await world.amend(**claims)


async def test_an_amendment_is_held_against_what_was_said_before() -> None:
    world = World()
    await world.create(start_us=T0 - MINUTE)
    with pytest.raises(InvalidEvent, match="end_time: must not be before start_time"):
        await world.amend(end_us=T0 - 2 * MINUTE)
    await world.amend(end_us=T0)
    with pytest.raises(InvalidEvent, match="state: cannot be running beside the end_time; take that back with null"):
        await world.amend(state=State.RUNNING)
    await world.amend(state=State.RUNNING, retracted=("end_us",))
    assert (world.job().state, world.job().end_us) == (State.RUNNING, None)


async def test_a_clock_that_is_a_little_ahead_makes_no_future() -> None:
    world = World()
    await world.create(start_us=T0 + 4 * SECOND)
    assert world.job().state is State.RUNNING


async def test_an_amendment_counts_after_what_it_was_made_in_sight_of() -> None:
    """Also on a server whose clock is behind that of the one before."""
    world = World()
    await world.create()
    await world.amend(account="first")
    world.clock.set_wall_by(-MINUTE / 1e6)
    await world.amend(account="second", comment="x")
    assert (world.job().facts.account, world.events[-1].time_us) == ("second", T0 + 1)
    await world.amend(partition="p")
    assert world.events[-1].time_us == T0 - MINUTE


async def test_what_was_just_taken_is_waited_for() -> None:
    """For a while; then the answer says that the database does not have it yet."""
    world = World()
    world.lag = 1
    done = await world.create(job_id="")
    assert done.stored is False
    world.lag = 0
    assert (await world.amend(job_id=done.job_id, comment="x")).stored is True


async def test_samples_are_kept_of_the_job_with_who_sent_them() -> None:
    world = World()
    await world.create(start_us=T0 - MINUTE, nodes=("n1", "n2"))
    row = await world.sample(-SECOND, cpu_percent=40.0)
    assert (row.cluster, row.job_id, row.node, row.ref) == (CLUSTER, "manual-a", "n1", world.job().correlation_id)
    assert (row.reading.source, row.reading.memory_current_bytes, row.cpu_percent) == ("api:test", 5, 40.0)
    assert (await world.sample(-SECOND, node="n9")).node == "n9"
    assert (await world.sample(-MINUTE, job_id=JOB)).node == "n1"
    assert len(world.events) == 1  # samples are no events


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (6 * MINUTE, r"samples\[0\].sampled_at: lies in the future"),
        (-2 * DAY - 6 * MINUTE, "lies before the job's start at 2025-10-07"),
        (-DAY, f"is of a day whose samples are not kept; they are of {TODAY} to {TODAY}"),
    ],
)
async def test_samples_of_other_times_are_refused(at: int, message: str) -> None:
    world = World()
    await world.create(start_us=T0 - 2 * DAY, nodes=("n1",))
    with pytest.raises(InvalidEvent, match=message):
        await world.sample(at)
    world.held_days.clear()
    with pytest.raises(InvalidEvent, match="they are of no day"):
        await world.sample(0)
    assert world.rows == []


async def test_samples_are_of_the_time_in_which_the_job_ran() -> None:
    """Five minutes around it are for clocks."""
    world = World()
    await world.create()
    with pytest.raises(JobConflict, match="manual-a has not started, as far as is known"):
        await world.sample(0)
    await world.amend(start_us=T0 - 20 * MINUTE)
    with pytest.raises(InvalidEvent, match=r"samples\[0\].node: is needed"):
        await world.sample(0)
    await world.amend(end_us=T0 - 10 * MINUTE)
    with pytest.raises(InvalidEvent, match="lies after the job's end"):
        await world.sample(-4 * MINUTE, node="n1")
    await world.sample(-6 * MINUTE, node="n1")
    await world.withdraw()
    with pytest.raises(JobConflict, match="was withdrawn"):
        await world.sample(-6 * MINUTE, node="n1")


async def test_without_a_database_no_job_can_be_found() -> None:
    world = World(has_store=False)
    for change in (world.amend(), world.withdraw(), world.create()):
        with pytest.raises(StoreUnavailable, match="no database"):
            await change
    broken = World()
    await broken.create(start_us=T0)
    broken.keeper = ManualJobs(
        broken, jobs=broken, samples=None, spool_status=broken._status, user_name_of=lambda _: None,
        uid_of=lambda _: None, clock=broken.clock, node="srv", cluster=CLUSTER,
    )  # fmt: skip
    with pytest.raises(StoreUnavailable, match="no database"):
        await broken.sample(0)


async def test_what_anybody_may_send_leaves_room_for_hooks() -> None:
    """And no user sends more than their share; who is trusted may."""
    world = World()
    for number in range(BURST):
        await world.create(ADA, f"manual-{number}")
    with pytest.raises(TooManyReports):
        await world.create(ADA, "manual-more")
    for number in range(BURST + 5):
        await world.create(TOKEN, f"manual-t{number}")
    world.used = 901
    with pytest.raises(SpoolFull):
        await world.create(ROOT, "manual-last")


async def test_many_samples_take_more_of_a_users_share() -> None:
    """Of one who is trusted, nothing is counted."""
    world = World()
    await world.create(ADA, start_us=T0 - MINUTE, nodes=("n1",))
    many = [PostedSample(reading=Reading(time_us=T0, source="", threads=1))] * 1000
    for uid in (ADA, ADA, ADA, ROOT, ROOT, ROOT):
        await world.keeper.add_samples(Which(job_id="manual-a"), many, author(uid))
    with pytest.raises(TooManyReports):
        await world.keeper.add_samples(Which(job_id="manual-a"), many[:1], author(ADA))
    assert len(world.rows) == 6000


async def test_a_repeat_says_the_same_bytes_and_another_word_does_not() -> None:
    world, same = World(), str(uuid.uuid4())
    await world.create()
    for claims in (Claims(comment="x"), Claims(comment="x"), Claims(comment="y")):
        await world.keeper.amend(Which(job_id="manual-a"), claims, author(event_id=same))
    await world.keeper.amend(
        Which(job_id="manual-a"), Claims(comment="x"), msgspec.structs.replace(author(event_id=same), person="eve")
    )
    one, two, three, four = world.digests[1:]
    assert one == two
    assert len({one, three, four}) == 3

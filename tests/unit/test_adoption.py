"""Jobs that run without any event about them are taken up once, and none of which an end was told."""

import asyncio
import uuid
from collections.abc import Callable, Sequence

import pytest

from jobtrail.core.intake import Intake
from jobtrail.core.runs.adoption import Adoption
from jobtrail.core.runs.collector import Collector, send
from jobtrail.domain.events import Event, EventKind, decode
from jobtrail.domain.samples import FoundJob
from tests.fake_spool import MemorySpool
from tests.fakes import Facts, FakeClock, FakeLifecycle
from tests.unit.stories import finished, started

JOB, OTHER = "slurm-7", "slurm-8"  # of JOB the stories tell


class Bench:
    """A daemon after its start. `jobs` have a cgroup; `during` happens while the hierarchies are looked through."""

    def __init__(self, *jobs: str, cluster: str | None = "c1") -> None:
        self.clock, self.facts = FakeClock(), Facts()
        self.spool = MemorySpool(clock=self.clock)
        self.intake = Intake(self.spool, FakeLifecycle(), self.facts)
        self.jobs, self.cluster = jobs, cluster
        self.during: Callable[[], Sequence[Event]] = list
        self.looks = self.adopted = 0
        self.unnamed: list[int] = []
        collector = Collector(
            intake=self.intake, clock=self.clock, tell=self.facts, new_event_id=lambda: str(uuid.uuid4()),
            user_name_of={}.get, node="n1",
        )  # fmt: skip
        self.adoption = Adoption(
            self.spool, collector, scan=self.scan, cluster_of=self.cluster_of, unnamed=self.unnamed.append,
            adopted=self.take_note,
        )  # fmt: skip

    async def scan(self) -> Sequence[FoundJob]:
        self.looks += 1
        found = [FoundJob(job_id=job, uid=1000, path=f"/{job}", populated=True) for job in self.jobs]
        for event in self.during():
            await send(self.intake, event)
        return found

    async def cluster_of(self) -> str | None:
        return self.cluster

    def take_note(self) -> None:
        self.adopted += 1

    async def take(self, event: Event) -> None:
        await send(self.intake, event)

    def taken_up(self) -> list[str | None]:
        events = [decode(row.payload) for row in self.spool.rows]
        return [event.job_id for event in events if event.kind is EventKind.JOB_FOUND]


async def test_a_job_that_nobody_announced_is_taken_up_and_a_known_one_is_not() -> None:
    bench = Bench(JOB, OTHER)
    await bench.take(started("n1", 0))
    await bench.adoption.begin()
    await bench.adoption.run(asyncio.Event())
    assert (bench.taken_up(), bench.adopted, bench.unnamed) == ([OTHER], 1, [])


async def test_a_job_whose_end_is_told_while_it_is_looked_for_is_not_taken_up() -> None:
    """Its processes were there when its cgroup was looked at; a run of it would stay open for nobody to end."""
    bench = Bench(JOB)
    await bench.take(started("n1", 0))
    await bench.adoption.begin()
    bench.during = lambda: [finished("n1", 5)]
    await bench.adoption.run(asyncio.Event())
    assert bench.taken_up() == []


async def test_a_job_that_ended_between_the_first_request_and_the_look_is_not_taken_up() -> None:
    bench = Bench(JOB)
    await bench.take(started("n1", 0))
    await bench.adoption.begin()
    await bench.take(finished("n1", 5))
    await bench.adoption.run(asyncio.Event())
    assert bench.taken_up() == []


async def test_a_job_that_begins_while_others_are_looked_for_is_not_taken_up() -> None:
    bench = Bench(JOB)
    await bench.adoption.begin()
    bench.during = lambda: [started("n1", 0)]
    await bench.adoption.run(asyncio.Event())
    assert bench.taken_up() == []


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_jobs_wait_for_the_clusters_name_which_is_asked_for_at_each_event() -> None:
    bench = Bench(JOB, OTHER, cluster=None)
    await bench.adoption.begin()
    running = asyncio.create_task(bench.adoption.run(asyncio.Event()))
    await until(lambda: bench.looks == 1)
    await bench.take(started("n1", 0))
    await until(lambda: bench.looks == 2)
    assert (bench.taken_up(), bench.unnamed) == ([], [2])
    bench.cluster = "c1"
    await bench.take(finished("n1", 5))
    bench.jobs = (OTHER,)
    await running
    assert (bench.taken_up(), bench.unnamed, bench.adopted) == ([OTHER], [2], 1)


@pytest.mark.parametrize("jobs", [(), (JOB,)])
async def test_it_ends_where_there_is_nothing_to_take_up_or_the_daemon_stops(jobs: tuple[str, ...]) -> None:
    bench, stop = Bench(*jobs, cluster=None), asyncio.Event()
    await bench.adoption.begin()
    running = asyncio.create_task(bench.adoption.run(stop))
    await until(lambda: bench.looks == 1)
    stop.set()
    await running
    assert (bench.taken_up(), bench.adopted) == ([], 0 if jobs else 1)

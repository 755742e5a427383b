"""The collector's own events: usage of running and ended jobs, and jobs nobody had announced."""

import hashlib

import msgspec
import pytest

from jobtrail.core.facts import EventRejected, JobAdopted
from jobtrail.core.ports import OpenRun, Receipt
from jobtrail.core.runs.board import Board
from jobtrail.core.runs.collector import Collector
from jobtrail.core.runs.sampler import Rhythm, Sampler, Watched
from jobtrail.domain.errors import SpoolBroken, SpoolFull
from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage, encode
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.samples import FoundJob
from tests.fakes import Facts, FakeClock, FakeNodeSource, FakeUsageSource
from tests.unit.runs import open_run


class NotingIntake:
    """An EventIntake that notes events, or refuses them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.error: Exception | None = None

    async def accept(self, event: Event, digest: bytes) -> Receipt:
        assert digest == hashlib.sha256(encode(event)).digest()
        if self.error is not None:
            raise self.error
        self.events.append(event)
        return Receipt(event_id=event.event_id, seq=len(self.events), durability="disk")


class Bench:
    """A collector with its surroundings."""

    def __init__(self) -> None:
        self.clock, self.facts, self.intake = FakeClock(), Facts(), NotingIntake()
        self.numbers = iter(range(1, 100))
        self.collector = Collector(
            intake=self.intake,
            clock=self.clock,
            tell=self.facts,
            new_event_id=lambda: f"00000000-0000-4000-8000-{next(self.numbers):012}",
            user_name_of={1000: "ada"}.get,
            node="n1",
        )

    def watched(self, usage: NodeUsage) -> Watched:
        run = open_run()
        target = msgspec.structs.replace(run.target, sluid="s7")
        run = msgspec.structs.replace(run, target=target, slurm_start_time=1_760_000_000)
        return Watched(run=run, source=FakeUsageSource(), born=0, due=0, next_checkpoint=0, usage=usage)


@pytest.mark.parametrize(("final", "kind"), [(True, EventKind.USAGE_RECORDED), (False, EventKind.CHECKPOINT)])
async def test_usage_is_told_under_the_run_it_belongs_to(final: bool, kind: EventKind) -> None:
    """It names the event that opened the run, since times alone could not tell two runs of one job id apart."""
    bench, usage = Bench(), NodeUsage(cpu_usage_us=5)
    assert await bench.collector.report(bench.watched(usage), final)
    (event,) = bench.intake.events
    assert (event.kind, event.opened_by, event.usage) == (kind, "ref-a", usage)
    assert (event.cluster, event.job_id, event.node, event.changed_by) == ("c1", "slurm-a", "n1", Actor.COLLECTOR)
    assert (event.slurm_start_time, event.sluid) == (1_760_000_000, "s7")
    assert event.time_us == bench.clock.time_us()


async def test_a_full_spool_is_told_and_asked_again_later() -> None:
    bench = Bench()
    bench.intake.error = SpoolFull(77)
    assert not await bench.collector.report(bench.watched(NodeUsage()), True)
    assert bench.facts == [EventRejected(reason="spool_full", detail="the spool holds its maximum of 77 bytes")]


async def test_a_broken_spool_stops_the_daemon() -> None:
    """Nothing could be promised any more; the failure travels up."""
    bench = Bench()
    bench.intake.error = SpoolBroken("disk I/O error")
    with pytest.raises(SpoolBroken):
        await bench.collector.report(bench.watched(NodeUsage()), True)


class Opened:
    """The side of a spool that knows the open runs."""

    def __init__(self, *runs: OpenRun) -> None:
        self._runs = runs

    async def open_runs(self) -> tuple[OpenRun, ...]:
        return self._runs


async def test_runs_that_were_open_at_the_last_stop_are_sampled_on() -> None:
    """But for those of before a reboot that could not be closed yet."""
    bench, source, board = Bench(), FakeUsageSource(), Board(max_jobs=9)
    sampler = Sampler(
        source_for=lambda _: source,
        node_source=FakeNodeSource(),
        board=board,
        add_row=lambda _: None,
        report=bench.collector.report,
        clock=bench.clock,
        tell=bench.facts,
        rhythm=Rhythm(),
    )
    opened = Opened(open_run("a"), open_run("b"), open_run("c"))
    known = await bench.collector.resume(opened, sampler, but_not={"ref-c"})  # type: ignore[arg-type]
    assert known == {"slurm-a", "slurm-b"}
    assert set(source.attached) == set(board.jobs) == {"ref-a", "ref-b"}
    assert bench.facts == [JobAdopted(job_id=f"slurm-{name}", found_by="spool") for name in "ab"]


def found(job_id: str, *, uid: int | None = 1000, populated: bool | None = True) -> FoundJob:
    return FoundJob(job_id=job_id, uid=uid, path=f"/job_{job_id}", populated=populated, sluid="s1")


async def test_jobs_nobody_announced_are_taken_up_and_said_to_be() -> None:
    """Not those that are known, and no directory that a dead node left behind without a process in it."""
    bench = Bench()
    jobs = [
        found("slurm-1"),
        found("slurm-2"),
        found("slurm-3", populated=False),
        found("slurm-4", uid=None, populated=None),
        found("slurm-5", uid=4242),
    ]
    await bench.collector.adopt(jobs, frozenset({"slurm-2"}), "c9")
    assert [event.job_id for event in bench.intake.events] == ["slurm-1", "slurm-4", "slurm-5"]
    first = bench.intake.events[0]
    assert (first.kind, first.cluster, first.node, first.sluid) == (EventKind.JOB_FOUND, "c9", "n1", "s1")
    assert first.time_us == bench.clock.time_us()
    assert [event.facts for event in bench.intake.events] == [
        JobFacts(uid=1000, user_name="ada"), JobFacts(), JobFacts(uid=4242)
    ]  # fmt: skip
    assert len({event.event_id for event in bench.intake.events}) == 3
    assert [fact.job_id for fact in bench.facts.of(JobAdopted)] == ["slurm-1", "slurm-4", "slurm-5"]


async def test_a_full_spool_does_not_keep_the_daemon_from_starting() -> None:
    """The store has been away for days: what is acknowledged must still be forwarded by a daemon that runs."""
    bench = Bench()
    bench.intake.error = SpoolFull(77)
    await bench.collector.adopt([found("slurm-1"), found("slurm-2")], frozenset(), "c9")
    assert bench.facts == [EventRejected(reason="spool_full", detail="the spool holds its maximum of 77 bytes")]

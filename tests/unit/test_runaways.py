"""Runs whose end nobody reports are closed, and those that may still go on are not."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from jobtrail.core.facts import EventRejected, RunClosed
from jobtrail.core.intake import Intake
from jobtrail.core.ports import OpenRun
from jobtrail.core.runs.over_runs import Over
from jobtrail.core.runs.runaways import BETWEEN_STEPS_SECONDS, Boot, Graces, Runaways
from jobtrail.core.runs.sight import Sight
from jobtrail.domain.errors import JobtrailError, StoreRefused, StoreUnavailable
from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage, Whereabouts, decode
from jobtrail.domain.samples import Target
from tests.fake_over_runs import MemoryOverRuns
from tests.fake_spool import MemorySpool
from tests.fakes import Facts, FakeClock, FakeLifecycle
from tests.unit import moved_time

SECOND = 1_000_000
T0 = FakeClock().time_us()
EXTERN = frozenset({"step_extern", "step_0"})
BATCH = frozenset({"step_batch"})
STEP = frozenset({"step_0"})
TREE = Whereabouts(root_pid=77, root_pid_start_ticks=5)
OWN = Whereabouts(cgroup_path="/jobtrail/local-1")


class Bench:
    """The search with its surroundings. `sights` are what the sampler saw, by the id of the run's first event."""

    def __init__(self, *, boot_id: str | None = "now", booted_us: int | None = T0 - 3600 * SECOND) -> None:
        self.clock, self.facts, self.lifecycle = FakeClock(), Facts(), FakeLifecycle()
        self.sights: dict[str, Sight] = {}
        self.sight_of: Callable[[str], Sight | None] = self.sights.get
        self.steps: dict[str, frozenset[str]] = {}
        self.asked: list[str] = []
        self.store = MemoryOverRuns()
        self.spool = MemorySpool(clock=self.clock, boot_id=boot_id)
        self._numbers = itertools.count(1)
        self.runaways = self.search(boot_id=boot_id, booted_us=booted_us)

    def search(self, *, boot_id: str | None, booted_us: int | None, with_store: bool = True) -> Runaways:
        """The search as the daemon makes it at a start."""
        return Runaways(
            spool=self.spool,
            intake=Intake(self.spool, self.lifecycle, lambda _: None),
            sight_of=self._sight_of,
            steps_of=self._look_at_steps,
            boot=Boot(boot_id=boot_id, booted_us=lambda: booted_us),
            clock=self.clock,
            tell=self.facts,
            new_event_id=self._new_id,
            graces=Graces(every_seconds=120, gone_seconds=300),
            over_runs=self.store if with_store else None,
        )

    def _sight_of(self, ref: str) -> Sight | None:
        return self.sight_of(ref)

    def _look_at_steps(self, targets: Sequence[Target]) -> dict[str, frozenset[str]]:
        self.asked += [target.job_id for target in targets]
        return {target.ref: self.steps.get(target.job_id, frozenset()) for target in targets}

    def _new_id(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._numbers):012}"

    async def open(
        self, job_id: str = "slurm-7", *, sight: Sight | None = None, usage: NodeUsage | None = None, **more: Any
    ) -> OpenRun:
        """A run that is open, and perhaps was looked at."""
        fields: dict[str, Any] = {"time_us": T0, "changed_by": Actor.SLURM_PROLOG, "source": "prolog"} | more
        event = Event(
            kind=EventKind.JOB_STARTED, event_id=self._new_id(), cluster="c1", job_id=job_id, node="n1", **fields
        )
        await self.spool.append(event, event.event_id.encode())
        if usage is not None:
            checkpoint = Event(
                kind=EventKind.CHECKPOINT, event_id=self._new_id(), time_us=T0, cluster="c1", job_id=job_id, node="n1",
                changed_by=Actor.COLLECTOR, source="sampler", usage=usage,
            )  # fmt: skip
            await self.spool.append(checkpoint, checkpoint.event_id.encode())
        if sight is not None:
            self.sights[event.event_id] = sight
        (run,) = [one for one in await self.spool.open_runs() if one.target.ref == event.event_id]
        return run

    @property
    def closings(self) -> list[Event]:
        """The ends that were inferred, in order."""
        events = [decode(row.payload) for row in self.spool.rows]
        return [event for event in events if event.kind is EventKind.JOB_CLOSED]

    def closed(self) -> list[tuple[str | None, str, float, float]]:
        """Of each: the job, the reason, and in seconds after T0 the interval in which the end lies."""
        told = []
        for event in self.closings:
            assert event.closing is not None
            not_before, latest = ((at - T0) / SECOND for at in (event.closing.not_before_us, event.time_us))
            told.append((event.job_id, event.closing.reason, not_before, latest))
        return told


def gone(*, after: float | None, first: float, seconds: float, **more: Any) -> Sight:
    """Last seen `after` seconds after T0 (never for None), first missed at `first`, and then for so many seconds."""
    seen_us = None if after is None else T0 + round(after * SECOND)
    return Sight(seen_us=seen_us, gone_us=T0 + round(first * SECOND), gone_seconds=seconds, **more)


LONG = gone(after=90, first=100, seconds=300)


async def test_a_job_whose_cgroup_is_gone_for_long_is_closed() -> None:
    """The event names the run in every way there is, says who inferred it and why, and takes effect like any other."""
    bench = Bench()
    run = await bench.open(sight=LONG, slurm_start_time=1_760_000_000, sluid="s7")
    bench.steps = {"slurm-7": EXTERN}
    await bench.runaways.turn()
    (event,) = bench.closings
    assert (event.changed_by, event.source, event.opened_by) == (Actor.COLLECTOR, "runaways", run.target.ref)
    assert (event.cluster, event.job_id, event.node) == ("c1", "slurm-7", "n1")
    assert (event.slurm_start_time, event.sluid) == (1_760_000_000, "s7")
    assert event.closing is not None
    assert (event.closing.reason, event.closing.whole_run) == ("cgroup_gone", False)
    assert event.closing.detail == "the job's cgroup was not there for 300 s"
    assert (event.closing.not_before_us, event.time_us) == (T0 + 90 * SECOND, T0 + 100 * SECOND)
    assert bench.lifecycle.told == [("closed", run, event.time_us)]
    assert list(await bench.spool.open_runs()) == []
    assert bench.facts == [RunClosed(job_id="slurm-7", reason="cgroup_gone")]


@pytest.mark.parametrize(
    "sight",
    [
        None,
        Sight(),
        Sight(seen_us=T0),
        gone(after=90, first=100, seconds=299.9),
        gone(after=None, first=1, seconds=9e9),
    ],
    ids=["not watched", "not looked at", "there", "gone a moment ago", "never appeared"],
)
async def test_a_job_that_may_still_run_or_whose_epilog_may_still_come_is_left_open(sight: Sight | None) -> None:
    bench = Bench()
    bench.steps = {"slurm-7": EXTERN}
    run = await bench.open(sight=sight)
    await bench.runaways.turn()
    assert list(await bench.spool.open_runs()) == [run]
    assert bench.facts == []


@pytest.mark.parametrize(
    ("steps", "closes"),
    [
        ({"slurm-7": BATCH}, True),
        ({"slurm-7": STEP, "slurm-8": EXTERN}, True),
        ({"slurm-7": STEP, "slurm-8": BATCH}, False),
        ({}, False),
    ],
    ids=["batch host", "all jobs have an extern step", "steps alone", "unknown"],
)
async def test_between_its_steps_a_job_may_have_no_cgroup(steps: dict[str, frozenset[str]], closes: bool) -> None:
    """slurmstepd removes the job's cgroup with its last step; only a batch or an extern step lasts as the job does."""
    bench = Bench()
    run = await bench.open(sight=Sight(seen_us=T0))
    await bench.open("slurm-8", sight=Sight(seen_us=T0))
    bench.steps = steps
    await bench.runaways.turn()
    bench.steps = {}
    bench.sights[run.target.ref] = LONG
    await bench.runaways.turn()
    assert bool(bench.closings) is closes
    bench.sights[run.target.ref] = gone(after=90, first=100, seconds=BETWEEN_STEPS_SECONDS)
    await bench.runaways.turn()
    assert bench.closed() == [("slurm-7", "cgroup_gone", 90, 100)]


async def test_a_requeued_job_is_not_taken_for_its_run_before() -> None:
    """That the first run had a batch step says nothing of the second."""
    bench = Bench()
    bench.steps = {"slurm-7": BATCH}
    await bench.open(sight=Sight(seen_us=T0))
    await bench.runaways.turn()
    bench.steps = {}
    second = await bench.open(sight=LONG, time_us=T0 + SECOND)
    await bench.runaways.turn()
    assert bench.closed() == [("slurm-7", "later_run_began", 0, 1)]
    assert list(await bench.spool.open_runs()) == [second]


async def test_what_was_seen_before_a_restart_of_the_daemon_counts() -> None:
    """The last checkpoint tells that there was a cgroup, and when it was last read."""
    bench = Bench()
    bench.steps = {"slurm-8": EXTERN}
    await bench.open("slurm-8", sight=Sight(seen_us=T0))
    usage = NodeUsage(sample_count=3, last_sample_us=T0 + 60 * SECOND)
    await bench.open(sight=gone(after=None, first=500, seconds=300), usage=usage)
    await bench.open("slurm-9", sight=gone(after=None, first=500, seconds=300), usage=NodeUsage())
    await bench.runaways.turn()
    assert bench.closed() == [("slurm-7", "cgroup_gone", 60, 500)]


@pytest.mark.parametrize("job_id", ["local-1", "slurm-7"])
async def test_a_process_tree_that_ended_is_closed_soon(job_id: str) -> None:
    """Also one that was never seen, as the process named at the start cannot come later."""
    bench = Bench()
    await bench.open(job_id, sight=gone(after=None, first=2, seconds=9.9), whereabouts=TREE)
    await bench.runaways.turn()
    assert bench.closings == []
    (run,) = await bench.spool.open_runs()
    bench.sights[run.target.ref] = gone(after=None, first=2, seconds=10)
    await bench.runaways.turn()
    assert bench.closed() == [(job_id, "process_gone", 0, 2)]
    (event,) = bench.closings
    assert event.closing is not None
    assert event.closing.detail == "neither process 77 nor any that it started was there for 10 s"


async def test_a_local_cgroup_without_processes_is_closed_soon_after_it_was_seen() -> None:
    """One that was never seen may be made later by whoever announced it, so that takes longer."""
    bench = Bench()
    await bench.open("local-1", sight=gone(after=5, first=6, seconds=10), whereabouts=OWN)
    await bench.open("local-2", sight=gone(after=None, first=6, seconds=299), whereabouts=OWN)
    await bench.open("local-3", sight=gone(after=None, first=6, seconds=300), whereabouts=OWN)
    await bench.runaways.turn()
    assert bench.closed() == [("local-1", "cgroup_gone", 5, 6), ("local-3", "cgroup_gone", 0, 6)]
    assert bench.asked == [], "only jobs of Slurm have steps"


async def test_a_checkpoint_does_not_say_that_a_local_job_had_processes_then() -> None:
    """Its cgroup can still be read when it is empty; only what this daemon saw itself bounds the end from below."""
    bench = Bench()
    usage = NodeUsage(sample_count=3, last_sample_us=T0 + 60 * SECOND, processes_peak=2)
    sight = gone(after=None, first=500, seconds=10, needs_processes=True)
    await bench.open("local-1", sight=sight, usage=usage, whereabouts=OWN)
    await bench.runaways.turn()
    assert bench.closed() == [("local-1", "cgroup_gone", 0, 500)]


async def test_runs_of_before_a_reboot_are_closed_at_the_start() -> None:
    """Without being looked at; the end lies between the last sample and the boot."""
    bench = Bench(boot_id="before")
    await bench.open("slurm-1")
    await bench.open("slurm-2", usage=NodeUsage(sample_count=1, last_sample_us=T0 + 60 * SECOND))
    again = bench.search(boot_id="after", booted_us=T0 + 100 * SECOND)
    assert await again.close_rebooted() == frozenset()
    assert bench.closed() == [("slurm-1", "node_rebooted", 0, 100), ("slurm-2", "node_rebooted", 60, 100)]
    assert bench.closings[0].closing is not None
    assert "boot id was before when the run began and is after" in bench.closings[0].closing.detail
    assert bench.sights == {}


@pytest.mark.parametrize("booted", [None, T0 - 5 * SECOND])
async def test_the_end_is_never_before_its_own_lower_bound(booted: int | None) -> None:
    """When the boot time is unknown the end may lie anywhere up to now; when the clock was set back, nowhere sane."""
    bench = Bench(boot_id="before")
    await bench.open()
    bench.clock.advance(50)
    await bench.search(boot_id="after", booted_us=booted).close_rebooted()
    assert bench.closed() == [("slurm-7", "node_rebooted", 0, 50 if booted is None else 0)]


@pytest.mark.parametrize(("began_in", "is_now"), [("same", "same"), (None, "now"), ("now", None), (None, None)])
async def test_without_two_boot_ids_that_differ_no_reboot_is_inferred(began_in: str | None, is_now: str | None) -> None:
    """A run that an older release opened, or a /proc that cannot be read."""
    bench = Bench(boot_id=began_in)
    await bench.open()
    again = bench.search(boot_id=is_now, booted_us=T0 + 100 * SECOND)
    assert await again.close_rebooted() == frozenset()
    await again.turn()
    assert bench.closings == []


@pytest.mark.parametrize(
    ("sight", "booted", "closes"),
    [
        (gone(after=None, first=2000, seconds=300), T0 + 1000 * SECOND, True),
        (gone(after=None, first=2000, seconds=299), T0 + 1000 * SECOND, False),
        (gone(after=None, first=2000, seconds=300), T0 + 500 * SECOND, False),
        (gone(after=None, first=2000, seconds=300), None, False),
        (gone(after=1999, first=2000, seconds=300), T0 + 1000 * SECOND, False),
    ],
    ids=["before the boot", "not for long enough", "the clock was set", "boot unknown", "seen"],
)
async def test_a_run_that_began_before_the_boot_and_was_never_seen_since_is_closed(
    sight: Sight, booted: int | None, closes: bool
) -> None:
    """Its prolog's file lay in the spool directory when the node went down: it was taken up under the new boot id."""
    bench = Bench(booted_us=booted)
    await bench.open(sight=sight)
    await bench.runaways.turn()
    assert bench.closed() == ([("slurm-7", "node_rebooted", 0, 1000)] if closes else [])


async def test_a_full_spool_is_told_and_tried_at_the_next_turn() -> None:
    """One refusal a turn is enough; nothing is lost and nothing is told twice."""
    bench = Bench()
    bench.steps = {"slurm-1": EXTERN}
    for number in (1, 2):
        await bench.open(f"slurm-{number}", sight=LONG)
    bench.spool.full = True
    await bench.runaways.turn()
    assert [type(fact) for fact in bench.facts] == [EventRejected]
    assert len(await bench.spool.open_runs()) == 2
    bench.spool.full = False
    await bench.runaways.turn()
    assert [event.job_id for event in bench.closings] == ["slurm-1", "slurm-2"]


async def test_runs_for_whose_end_there_is_no_room_are_named_so_that_they_are_not_sampled() -> None:
    """A job of the same id may run again by now."""
    bench = Bench(boot_id="before")
    runs = [await bench.open(f"slurm-{number}") for number in (1, 2)]
    again = bench.search(boot_id="after", booted_us=T0 + 100 * SECOND)
    bench.spool.full = True
    assert await again.close_rebooted() == {run.target.ref for run in runs}
    bench.spool.full = False
    await again.turn()
    assert [event.job_id for event in bench.closings] == ["slurm-1", "slurm-2"]


NEVER = gone(after=None, first=1, seconds=9000)  # as where jobs have no cgroups
ENDED = Over(reason="ended_in_slurm", latest_us=T0 + 600 * SECOND, detail="Slurm says TIMEOUT (slurmdbd)")


async def test_a_run_that_is_over_in_slurm_is_closed_where_no_cgroup_can_tell() -> None:
    """The store is asked once for all of Slurm's runs; the others go on."""
    bench = Bench()
    over, other = await bench.open(sight=NEVER), await bench.open("slurm-8", sight=NEVER)
    local = await bench.open("local-1", sight=Sight(seen_us=T0))
    bench.store.ends = {over.target.ref: ENDED, local.target.ref: ENDED}
    bench.clock.advance(900)
    await bench.runaways.turn()
    assert bench.closed() == [("slurm-7", "ended_in_slurm", 0, 600)]
    assert bench.closings[0].opened_by == over.target.ref
    assert bench.closings[0].closing is not None
    assert bench.closings[0].closing.detail == ENDED.detail
    assert bench.store.asked == [[over.target.ref, other.target.ref]]
    assert [run.target.job_id for run in await bench.spool.open_runs()] == ["slurm-8", "local-1"]
    assert bench.facts == [RunClosed(job_id="slurm-7", reason="ended_in_slurm")]


async def test_the_end_lies_after_the_last_sample() -> None:
    bench = Bench()
    usage = NodeUsage(sample_count=1, last_sample_us=T0 + 550 * SECOND)
    run = await bench.open(sight=Sight(), usage=usage)
    bench.store.ends = {run.target.ref: ENDED}
    bench.clock.advance(900)
    await bench.runaways.turn()
    assert bench.closed() == [("slurm-7", "ended_in_slurm", 550, 600)]


async def test_a_cgroup_that_a_dead_slurmstepd_left_behind_does_not_keep_the_run() -> None:
    """It can be read, without processes, for ever; that tells nothing of the end."""
    bench = Bench()
    run = await bench.open(sight=Sight(seen_us=T0 + 890 * SECOND, empty=True))
    bench.store.ends = {run.target.ref: ENDED}
    bench.clock.advance(900)
    await bench.runaways.turn()
    assert bench.closed() == [("slurm-7", "ended_in_slurm", 600, 600)]


async def test_what_the_cgroup_shows_counts_first() -> None:
    bench = Bench()
    bench.steps = {"slurm-7": BATCH}
    run = await bench.open(sight=LONG)
    bench.store.ends = {run.target.ref: ENDED}
    bench.clock.advance(900)
    await bench.runaways.turn()
    assert bench.closed() == [("slurm-7", "cgroup_gone", 90, 100)]


@pytest.mark.parametrize(
    ("sight", "after", "began"),
    [
        (None, 900, 0),
        (Sight(seen_us=T0 + 890 * SECOND), 900, 0),
        (NEVER, 899, 0),
        (NEVER, 1000, 601),
    ],
    ids=["not watched", "alive", "ended a moment ago", "began after that end"],
)
async def test_a_run_that_may_still_go_on_is_left_open(sight: Sight | None, after: float, began: int) -> None:
    """Processes that outlive their job are measured on, an epilog has its time, and a word must be of this run."""
    bench = Bench()
    run = await bench.open(sight=sight, time_us=T0 + began * SECOND)
    bench.store.ends = {run.target.ref: ENDED}
    bench.clock.advance(after)
    await bench.runaways.turn()
    assert list(await bench.spool.open_runs()) == [run]


async def test_a_run_that_is_seen_while_the_store_answers_is_left_open() -> None:
    bench = Bench()
    run = await bench.open(sight=Sight())
    bench.store.ends = {run.target.ref: ENDED}
    looks = iter([Sight(), Sight(seen_us=T0)])
    bench.clock.advance(900)
    bench.sight_of = lambda _: next(looks)
    await bench.runaways.turn()
    assert list(await bench.spool.open_runs()) == [run]


async def test_a_young_run_is_not_asked_about() -> None:
    bench = Bench()
    await bench.open(sight=NEVER)
    bench.clock.advance(300)
    await bench.runaways.turn()
    assert bench.store.asked == []
    bench.clock.advance(1)
    await bench.runaways.turn()
    assert len(bench.store.asked) == 1


async def test_without_a_database_nobody_is_asked() -> None:
    bench = Bench()
    run = await bench.open(sight=NEVER)
    bench.store.ends = {run.target.ref: ENDED}
    bench.clock.advance(900)
    await bench.search(boot_id="now", booted_us=None, with_store=False).turn()
    assert (bench.store.asked, bench.closings) == ([], [])


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreRefused("a value")])
async def test_a_store_that_does_not_answer_costs_the_question_only(error: JobtrailError) -> None:
    bench = Bench()
    bench.steps = {"slurm-8": BATCH}
    run = await bench.open(sight=NEVER)
    await bench.open("slurm-8", sight=LONG)
    bench.store.ends = {run.target.ref: ENDED}
    bench.store.error = error
    bench.clock.advance(900)
    await bench.runaways.turn()
    assert bench.closed() == [("slurm-8", "cgroup_gone", 90, 100)]
    bench.store.error = None
    await bench.runaways.turn()
    assert [event.job_id for event in bench.closings] == ["slurm-8", "slurm-7"]


def test_every_two_minutes_until_the_stop() -> None:
    """Not at once: at the start nothing has been looked at yet. A stop is not waited for."""

    async def main() -> None:
        bench.steps = {"slurm-7": EXTERN}
        await bench.open(sight=LONG)
        stop = asyncio.Event()
        began = bench.clock.monotonic()
        task = asyncio.create_task(bench.runaways.run(stop))
        await asyncio.sleep(119)
        assert bench.closings == []
        await asyncio.sleep(2)
        assert len(bench.closings) == 1
        stop.set()
        await task
        assert bench.clock.monotonic() - began == pytest.approx(121, abs=0.1)

    bench = Bench()
    moved_time.run(bench.clock, main())

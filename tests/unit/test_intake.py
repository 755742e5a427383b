"""The one way in: held durably first, then told to the lifecycle, once."""

import asyncio

import pytest

from jobtrail.core.facts import EventAccepted, RunClosed
from jobtrail.core.intake import Intake
from jobtrail.core.ports import Receipt
from jobtrail.domain.errors import EventConflict, JobtrailError, SpoolBroken, SpoolFull
from jobtrail.domain.events import Actor, Event, EventKind
from tests.fakes import Facts, FakeClock, FakeLifecycle
from tests.unit import moved_time
from tests.unit.runs import open_run
from tests.unit.stories import closed, event, finished, started

DIGEST = b"d" * 32


class ScriptedSpool:
    """A spool that answers what a test put there, and notes when it was asked among what the lifecycle was told."""

    def __init__(self, lifecycle: FakeLifecycle, answer: Receipt | JobtrailError) -> None:
        self._lifecycle = lifecycle
        self._answer = answer

    async def append(self, event: Event, digest: bytes) -> Receipt:
        self._lifecycle.told.append(("append", event.event_id, digest))
        if isinstance(self._answer, JobtrailError):
            raise self._answer
        return self._answer


async def accept(one: Event, answer: Receipt | JobtrailError) -> tuple[list[tuple[object, ...]], Facts]:
    lifecycle, facts = FakeLifecycle(), Facts()
    intake = Intake(ScriptedSpool(lifecycle, answer), lifecycle, facts)  # type: ignore[arg-type]
    if isinstance(answer, JobtrailError):
        with pytest.raises(type(answer)):
            await intake.accept(one, DIGEST)
    else:
        assert await intake.accept(one, DIGEST) is answer
    return lifecycle.told, facts


def receipt(**fields: object) -> Receipt:
    return Receipt(event_id="e", seq=7, durability="disk", **fields)  # type: ignore[arg-type]


async def test_a_start_is_held_and_then_opens_its_run() -> None:
    one, run = started("n1", 0), open_run()
    told, facts = await accept(one, receipt(opened=run))
    assert told == [("append", one.event_id, DIGEST), ("opened", run)]
    assert facts == [EventAccepted(kind="job_started", event_id=one.event_id, job_id="slurm-7", seq=7)]


async def test_a_run_that_makes_room_for_another_is_closed_first() -> None:
    """A second prolog of one job id: the first run's end was lost."""
    one, old, new = started("n1", 0), open_run("old"), open_run("new")
    told, _ = await accept(one, receipt(closed=old, opened=new))
    assert told[1:] == [("closed", old, one.time_us), ("opened", new)]


async def test_an_end_that_the_start_of_a_later_run_showed_is_told() -> None:
    one = started("n1", 0)
    _, facts = await accept(one, receipt(inferred=closed("n1", 0, reason="later_run_began")))
    assert facts.of(RunClosed) == [RunClosed(job_id="slurm-7", reason="later_run_began")]


async def test_a_repeated_event_takes_effect_once() -> None:
    one = finished("n1", 5)
    told, facts = await accept(one, receipt(duplicate=True, closed=open_run(), opened=open_run()))
    assert told == [("append", one.event_id, DIGEST)]
    assert facts.of(EventAccepted)[0].duplicate


@pytest.mark.parametrize("by", [Actor.CLI, Actor.API])
async def test_a_sender_that_keeps_the_counters_open_gets_a_last_look_before_the_end(by: Actor) -> None:
    """`jobtrail exec` leaves the dead child unreaped until its end is taken in."""
    one, run = finished("n1", 5, changed_by=by), open_run()
    told, _ = await accept(one, receipt(closed=run))
    assert told == [("last_look", "c1", "slurm-7"), ("append", one.event_id, DIGEST), ("closed", run, one.time_us)]


async def test_an_epilog_gets_none_because_the_counters_are_gone() -> None:
    for one in (finished("n1", 5), started("n1", 5, changed_by=Actor.API)):
        told, _ = await accept(one, receipt())
        assert told == [("append", one.event_id, DIGEST)]


@pytest.mark.parametrize("error", [SpoolFull(5), SpoolBroken("disk"), EventConflict("e")])
async def test_what_is_not_held_has_no_effect(error: JobtrailError) -> None:
    told, facts = await accept(started("n1", 0), error)
    assert [name for name, *_ in told] == ["append"]
    assert facts == []


async def test_an_event_about_the_chain_touches_no_run() -> None:
    one = event(EventKind.CHAIN_STARTED, "n1", 0, changed_by=Actor.API)
    told, _ = await accept(one, receipt())
    assert [name for name, *_ in told] == ["append"]


def test_a_last_look_that_hangs_holds_the_end_up_for_a_second_only() -> None:
    """The counters of a job on a dead file system may never answer; its end is recorded all the same."""
    clock, one = FakeClock(), event(EventKind.JOB_FINISHED, "n1", 9, changed_by=Actor.CLI)

    class Hanging(FakeLifecycle):
        async def last_look(self, cluster: str, job_id: str) -> None:
            await asyncio.Event().wait()

    lifecycle = Hanging()
    spool = ScriptedSpool(lifecycle, receipt())

    async def scene() -> None:
        began = clock.monotonic()
        await Intake(spool, lifecycle, Facts()).accept(one, DIGEST)  # type: ignore[arg-type]
        assert clock.monotonic() - began == pytest.approx(1.0, abs=0.01)

    moved_time.run(clock, scene())
    assert [what for what, *_ in lifecycle.told] == ["append"]

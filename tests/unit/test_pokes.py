"""A poke gets its job looked at and is answered afterwards; how often and how many at once is bounded."""

import asyncio

import pytest

from jobtrail.core.ports import PokeAnswer
from jobtrail.core.runs.pokes import LOOKS, MOST_AT_ONCE, POKES, Pokes, WholeLook
from tests.fakes import FakeClock
from tests.unit import moved_time

ALICE = 1001
BURST, SECONDS_PER_LOOK, ANSWER_SECONDS = POKES.burst, POKES.seconds_per_look, POKES.answer_seconds


class ScriptedLooker:
    """Jobs by owner; a look takes `seconds`, or fails."""

    def __init__(self, clock: FakeClock, owners: dict[str, int], seconds: float = 0.01) -> None:
        self._clock = clock
        self._owners = owners
        self._seconds = seconds
        self.error: Exception | None = None
        self.looks: list[tuple[str, int, str]] = []
        self.ended: list[float] = []

    def is_running_for(self, job_id: str, uid: int) -> bool:
        return self._owners.get(job_id) == uid

    async def poked(self, job_id: str, uid: int, *, by: str) -> None:
        self.looks.append((job_id, uid, by))
        await asyncio.sleep(self._seconds)
        if self.error is not None:
            raise self.error
        self.ended.append(self._clock.monotonic())


def many(number: int) -> dict[str, int]:
    return {f"slurm-{n}": ALICE for n in range(number)}


def test_it_is_answered_when_the_look_is_done() -> None:
    clock = FakeClock()
    looker = ScriptedLooker(clock, many(1), seconds=0.2)

    async def scene() -> None:
        assert await Pokes(looker, clock).poke("slurm-0", ALICE) is PokeAnswer.LOOKED
        assert looker.ended == [clock.monotonic()]

    moved_time.run(clock, scene())
    assert looker.looks == [("slurm-0", ALICE, "task_epilog")]


def test_nobody_has_anothers_job_looked_at() -> None:
    """A job of somebody else, and one that is not here, are answered alike."""
    clock = FakeClock()
    looker = ScriptedLooker(clock, many(1))

    async def scene() -> None:
        pokes = Pokes(looker, clock)
        assert await pokes.poke("slurm-0", 1002) is PokeAnswer.NOT_YOURS
        assert await pokes.poke("slurm-9", ALICE) is PokeAnswer.NOT_YOURS

    moved_time.run(clock, scene())
    assert looker.looks == []


def test_a_job_that_pokes_without_end_gets_two_looks_a_second_after_the_first_few() -> None:
    clock = FakeClock()
    looker = ScriptedLooker(clock, many(2), seconds=0.0)
    seconds = 10

    async def scene() -> None:
        pokes = Pokes(looker, clock)
        first = [await pokes.poke("slurm-0", ALICE) for _ in range(BURST + 2)]
        assert first == [PokeAnswer.LOOKED] * BURST + [PokeAnswer.TOO_SOON] * 2
        assert await pokes.poke("slurm-1", ALICE) is PokeAnswer.LOOKED
        for _ in range(seconds * 100):
            await asyncio.sleep(0.01)
            await pokes.poke("slurm-0", ALICE)

    moved_time.run(clock, scene())
    looks = sum(job_id == "slurm-0" for job_id, _, _ in looker.looks)
    assert looks == pytest.approx(BURST + seconds / SECONDS_PER_LOOK, abs=1)


def test_a_pause_gives_the_first_few_back() -> None:
    clock = FakeClock()
    looker = ScriptedLooker(clock, many(1), seconds=0.0)

    async def scene() -> None:
        pokes = Pokes(looker, clock)
        for _ in range(2):
            answers = [await pokes.poke("slurm-0", ALICE) for _ in range(BURST + 1)]
            assert answers == [PokeAnswer.LOOKED] * BURST + [PokeAnswer.TOO_SOON]
            await asyncio.sleep(BURST * SECONDS_PER_LOOK)

    moved_time.run(clock, scene())


def test_a_look_that_hangs_holds_the_task_up_for_half_a_second_only() -> None:
    """And counts among those in progress until it is done, so that hanging ones cannot pile up."""
    clock = FakeClock()
    looker = ScriptedLooker(clock, many(MOST_AT_ONCE + 1), seconds=60)

    async def scene() -> None:
        pokes, began = Pokes(looker, clock), clock.monotonic()
        answers = await asyncio.gather(*(pokes.poke(f"slurm-{n}", ALICE) for n in range(MOST_AT_ONCE)))
        assert answers == [PokeAnswer.BUSY] * MOST_AT_ONCE
        assert clock.monotonic() - began == pytest.approx(ANSWER_SECONDS, abs=0.01)
        assert await pokes.poke(f"slurm-{MOST_AT_ONCE}", ALICE) is PokeAnswer.BUSY
        assert len(looker.looks) == MOST_AT_ONCE
        await asyncio.sleep(61)
        assert len(looker.ended) == MOST_AT_ONCE
        await pokes.poke(f"slurm-{MOST_AT_ONCE}", ALICE)
        assert len(looker.looks) == MOST_AT_ONCE + 1

    moved_time.run(clock, scene())


def test_a_mistake_in_looking_is_not_hidden() -> None:
    clock = FakeClock()
    looker = ScriptedLooker(clock, many(1))
    looker.error = ZeroDivisionError("a bug")

    async def scene() -> None:
        with pytest.raises(ZeroDivisionError):
            await Pokes(looker, clock).poke("slurm-0", ALICE)

    moved_time.run(clock, scene())


class Part:
    """One who looks at a part of a job, for so long."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self.looks: list[tuple[str, int]] = []

    def is_running_for(self, job_id: str, uid: int) -> bool:
        return (job_id, uid) == ("slurm-0", ALICE)

    async def look_now(self, job_id: str, uid: int) -> None:
        await asyncio.sleep(self._seconds)
        self.looks.append((job_id, uid))

    asked = look_now


def test_a_whole_look_is_at_counters_and_energy_at_once() -> None:
    clock = FakeClock()
    counters, energies = Part(clock, 0.5), Part(clock, 0.6)

    async def scene() -> None:
        pokes, began = Pokes(WholeLook(counters, energies), clock, LOOKS), clock.monotonic()
        assert await pokes.poke("slurm-0", ALICE) is PokeAnswer.LOOKED
        assert clock.monotonic() - began == pytest.approx(0.6, abs=0.01)
        assert await pokes.poke("slurm-0", 1002) is PokeAnswer.NOT_YOURS

    moved_time.run(clock, scene())
    assert counters.looks == energies.looks == [("slurm-0", ALICE)]


def test_where_no_energy_is_read_the_counters_are_all_there_is() -> None:
    clock = FakeClock()
    counters = Part(clock, 0.0)

    async def scene() -> None:
        assert await Pokes(WholeLook(counters, None), clock, LOOKS).poke("slurm-0", ALICE) is PokeAnswer.LOOKED

    moved_time.run(clock, scene())
    assert counters.looks == [("slurm-0", ALICE)]


def test_a_few_short_parts_of_a_job_can_be_measured_one_after_the_other() -> None:
    """A begin and an end each; and no driver that hangs keeps who asks for more than about a second."""
    clock = FakeClock()
    looker = ScriptedLooker(clock, many(2), seconds=0.0)

    async def scene() -> None:
        pokes = Pokes(looker, clock, LOOKS)
        answers = [await pokes.poke("slurm-0", ALICE) for _ in range(LOOKS.burst + 1)]
        assert answers == [PokeAnswer.LOOKED] * LOOKS.burst + [PokeAnswer.TOO_SOON]
        looker._seconds = 60
        began = clock.monotonic()
        assert await pokes.poke("slurm-1", ALICE) is PokeAnswer.BUSY
        assert 0.5 < clock.monotonic() - began < 1.0
        await asyncio.sleep(60)

    moved_time.run(clock, scene())

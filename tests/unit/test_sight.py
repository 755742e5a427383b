"""What the looks at a run tell of whether it is still there."""

import asyncio
from typing import Any

import msgspec
import pytest

from jobtrail.core.runs.sight import Sight, first_sight
from jobtrail.domain.events import NodeUsage, Whereabouts
from jobtrail.domain.samples import Miss, Missed, Reading
from tests.unit.runs import open_run
from tests.unit.sampling import Bench

SECOND = 1_000_000
GONE, NOT_YET = Missed(miss=Miss.GONE), Missed(miss=Miss.NOT_YET)


def there(at: int, processes: int | None = 2) -> Reading:
    return Reading(time_us=at * SECOND, source="cgroup_v2", processes=processes)


def look(sight: Sight, at: int, reading: Reading | Missed | None) -> None:
    sight.note(reading, now=1000 + at, now_us=at * SECOND)


def told(sight: Sight) -> tuple[float | None, float | None, float]:
    """When it was last seen, when it was first missed since, and for how long it is gone, in seconds."""
    seen, missed = (None if at is None else at / SECOND for at in (sight.seen_us, sight.gone_us))
    return seen, missed, 0.0 if missed is None else sight.gone_seconds


def test_a_run_is_gone_from_the_first_look_that_missed_it() -> None:
    """Until it is there again: the next step of a job makes its cgroup anew."""
    sight = Sight()
    assert told(sight) == (None, None, 0)
    look(sight, 1, NOT_YET)
    assert told(sight) == (None, 1, 0)
    look(sight, 5, NOT_YET)
    assert told(sight) == (None, 1, 4)
    look(sight, 6, there(6))
    assert told(sight) == (6, None, 0)
    for at in (20, 30, 45):
        look(sight, at, GONE)
    assert told(sight) == (6, 20, 25)
    look(sight, 50, there(50))
    look(sight, 60, GONE)
    assert told(sight) == (50, 60, 0)


@pytest.mark.parametrize(("processes", "alive"), [(2, True), (None, True), (0, False)])
def test_a_run_is_alive_while_it_is_there_perhaps_with_processes(processes: int | None, alive: bool) -> None:
    """A cgroup stays, empty, when its slurmstepd was killed; where processes cannot be counted there may be some."""
    sight = Sight()
    assert not sight.is_alive
    look(sight, 1, there(1, processes))
    assert sight.is_alive is alive
    look(sight, 2, GONE)
    assert not sight.is_alive
    look(sight, 3, there(3))
    assert sight.is_alive


@pytest.mark.parametrize("nothing", [None, Missed(miss=Miss.UNREADABLE, detail="EACCES")])
def test_a_look_that_failed_tells_nothing(nothing: Missed | None) -> None:
    """Neither that the run is there nor that it is gone, nor for how long."""
    sight = Sight()
    look(sight, 1, there(1))
    look(sight, 2, nothing)
    assert told(sight) == (1, None, 0)
    look(sight, 3, GONE)
    look(sight, 90, nothing)
    assert told(sight) == (1, 3, 0)


@pytest.mark.parametrize(
    ("needs", "had", "processes", "is_there"),
    [(True, True, 0, False), (True, False, 0, True), (False, True, 0, True), (True, True, None, True)],
)
def test_an_empty_cgroup_is_the_end_of_a_local_job_that_had_processes(
    needs: bool, had: bool, processes: int | None, is_there: bool
) -> None:
    """Not of one that is yet to enter it, nor of a Slurm job, nor where the number of processes cannot be read."""
    sight = Sight(needs_processes=needs, had_processes=had)
    look(sight, 1, there(1, processes))
    assert (sight.gone_us is None) is is_there


def test_a_cgroup_that_had_processes_may_become_empty() -> None:
    sight = Sight(needs_processes=True)
    for at, processes in enumerate((0, 3, 0, 0)):
        look(sight, at, there(at, processes))
    assert told(sight) == (1, 2, 1)


@pytest.mark.parametrize(
    ("job_id", "where", "peak", "needs", "had"),
    [
        ("slurm-7", Whereabouts(), 4, False, True),
        ("slurm-7", Whereabouts(cgroup_path="/x"), None, False, False),
        ("slurm-7", Whereabouts(root_pid=9), None, True, True),
        ("local-7", Whereabouts(root_pid=9), None, True, True),
        ("local-7", Whereabouts(cgroup_path="/x"), None, True, False),
        ("local-7", Whereabouts(cgroup_path="/x"), 0, True, False),
        ("local-7", Whereabouts(cgroup_path="/x"), 4, True, True),
    ],
)
def test_a_run_is_first_seen_with_what_was_known_of_it(
    job_id: str, where: Whereabouts, peak: int | None, needs: bool, had: bool
) -> None:
    """After a restart of the daemon the last checkpoint tells whether there had been processes."""
    run = open_run(usage=None if peak is None else NodeUsage(processes_peak=peak))
    target = msgspec.structs.replace(run.target, job_id=job_id, whereabouts=where)
    sight = first_sight(msgspec.structs.replace(run, target=target))
    assert sight == Sight(needs_processes=needs, had_processes=had)


def test_the_sampler_tells_what_its_looks_saw() -> None:
    """Of runs that are open; nothing of others."""
    bench = Bench()
    seen: list[Any] = []

    async def scene() -> None:

        bench.open("a")
        await asyncio.sleep(40)
        bench.source.end("a")
        await asyncio.sleep(60)
        sight = bench.sampler.sight_of("ref-a")
        assert sight is not None
        assert sight.seen_us is not None
        assert sight.gone_us is not None
        seen.append((sight.gone_us - sight.seen_us, sight.gone_seconds))
        bench.close("a")
        assert bench.sampler.sight_of("ref-a") is None

    bench.run(scene)
    ((between, gone_seconds),) = seen
    assert between == pytest.approx(15 * SECOND, abs=0.1 * SECOND)
    assert gone_seconds == pytest.approx(45, abs=0.1)

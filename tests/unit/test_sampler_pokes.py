"""A look that a job's own task asked for: whose it may be, and that the usage tells when it was the last one."""

import asyncio

import pytest

from tests.unit.sampling import SECOND, Bench

ALICE = 1001


def test_the_last_look_at_a_short_job_is_exact_and_named() -> None:
    """Between two looks of the sampler's own rhythm, at the end of all that the job did."""
    bench = Bench()

    async def scene() -> None:
        bench.open()
        await asyncio.sleep(2.9)
        await bench.sampler.poked("slurm-a", ALICE, by="task_epilog")
        bench.source.end("a")
        await asyncio.sleep(0.1)
        bench.close()
        await asyncio.sleep(1)

    bench.run(scene)
    (usage,) = bench.finals()
    assert usage.cpu_usage_us == pytest.approx(2.9 * SECOND, abs=2000)
    assert usage.covered_us == pytest.approx(2.9 * SECOND, abs=2000)
    assert usage.sources["last_look"] == "task_epilog"


def test_a_later_look_takes_the_name_away() -> None:
    """A step ended, and the job went on: its last sample was not asked for."""
    bench = Bench()

    async def scene() -> None:
        bench.open()
        await asyncio.sleep(2.9)
        await bench.sampler.poked("slurm-a", ALICE, by="task_epilog")
        await asyncio.sleep(100)
        bench.source.end("a")
        bench.close()
        await asyncio.sleep(1)

    bench.run(scene)
    (usage,) = bench.finals()
    assert "last_look" not in usage.sources


def test_a_look_that_found_nothing_is_not_named() -> None:
    bench = Bench()

    async def scene() -> None:
        bench.open(alive=False)
        await bench.sampler.poked("slurm-a", ALICE, by="task_epilog")
        bench.close()
        await asyncio.sleep(1)

    bench.run(scene)
    (usage,) = bench.finals()
    assert "last_look" not in usage.sources


def test_looks_that_are_asked_for_update_the_usage_and_add_no_rows() -> None:
    """A task may ask twice a second all day; the rows are those of the sampler's own looks."""
    bench = Bench()
    looks = 200

    async def scene() -> None:
        bench.open(age=1000)
        await asyncio.sleep(16)
        before = len(bench.rows)
        for _ in range(looks):
            await asyncio.sleep(0.5)
            await bench.sampler.poked("slurm-a", ALICE, by="task_epilog")
        entry = bench.board.jobs["ref-a"]
        assert entry.usage is not None
        assert entry.usage.cpu_usage_us == pytest.approx(116 * SECOND, abs=5000)
        assert len(bench.looks()) >= looks
        assert len(bench.rows) - before <= 100 / 15 + 1
        bench.close()
        await asyncio.sleep(1)

    bench.run(scene)


def test_the_only_look_at_a_very_short_job_is_a_row() -> None:
    bench = Bench()

    async def scene() -> None:
        bench.open()
        await asyncio.sleep(0.05)
        await bench.sampler.poked("slurm-a", ALICE, by="task_epilog")
        assert len(bench.rows) == 1
        bench.source.end("a")
        bench.close()
        await asyncio.sleep(1)

    bench.run(scene)
    assert len(bench.rows) == 1


@pytest.mark.parametrize(("uid", "theirs"), [(ALICE, True), (0, True), (1002, False)])
def test_a_job_is_its_users_and_roots(uid: int, theirs: bool) -> None:
    bench = Bench()

    async def scene() -> None:
        bench.open()
        assert bench.sampler.is_running_for("slurm-a", uid) is theirs
        assert not bench.sampler.is_running_for("slurm-b", uid)
        before = len(bench.looks())
        await bench.sampler.poked("slurm-a", uid, by="task_epilog")
        assert len(bench.looks()) - before == theirs
        bench.close()
        assert not bench.sampler.is_running_for("slurm-a", uid)
        await asyncio.sleep(1)

    bench.run(scene)


def test_a_look_that_is_to_be_written_down_has_a_row_whenever_the_last_was() -> None:
    """And is of the job's own user or root; it is no last look that a task asked for."""
    bench = Bench()

    async def scene() -> None:
        bench.open()
        await asyncio.sleep(20.05)
        before = len(bench.rows)
        for uid in (ALICE, 1002, 0):
            await asyncio.sleep(0.1)
            await bench.sampler.look_now("slurm-a", uid)
        asked = bench.rows[before:]
        assert [row.reading.cpu_usage_us for row in asked] == [
            pytest.approx(seconds * SECOND, abs=2000) for seconds in (20.15, 20.35)
        ]
        bench.source.end("a")
        bench.close()
        await asyncio.sleep(1)

    bench.run(scene)
    assert "last_look" not in bench.finals()[0].sources

"""What each look writes down of what open runs had used: the energy of any part of a run can be told from it."""

import asyncio
from itertools import pairwise

import pytest

from jobtrail.core.gpu.books import EmissionSettings
from jobtrail.core.gpu.ports import EnergySampleRow
from jobtrail.domain.emissions import read_factor
from tests.unit.gpu_world import GpuBench, gpu

SECOND = 1_000_000
ALICE = 1001
A, B = "GPU-a", "GPU-b"


def of(bench: GpuBench, name: str) -> list[EnergySampleRow]:
    """The rows of a job."""
    return [row for row in bench.energy_rows if row.job_id == f"slurm-{name}"]


def seconds(bench: GpuBench, name: str) -> list[float]:
    """When they are of, to a tenth, after the bench's begin."""
    began = bench.clock.time_us() - round(bench.clock.monotonic() * 1e6)
    return [round((row.sample.time_us - began) / 1e6, 1) for row in of(bench, name)]


def test_between_two_rows_a_run_used_what_they_differ_by() -> None:
    """100 W of one GPU, half of a package's 60 W and its memory's 6; the last row is of the run's end."""
    bench = GpuBench(energy=True, emissions=EmissionSettings(factor=read_factor(400.0), pue=1.3))

    async def scene() -> None:
        await asyncio.sleep(3)
        bench.job("7", "0")
        await asyncio.sleep(100)
        bench.over("7")
        await asyncio.sleep(20)

    bench.play(scene)
    rows = of(bench, "7")
    assert len(rows) >= 7
    for before, after in pairwise(row.sample for row in rows):
        passed_us = after.time_us - before.time_us
        assert passed_us > 0
        assert (after.gpu_microjoules or 0) - (before.gpu_microjoules or 0) == pytest.approx(100 * passed_us, rel=0.01)
        assert (after.cpu_microjoules or 0) - (before.cpu_microjoules or 0) == pytest.approx(30 * passed_us, rel=0.01)
        assert (after.dram_microjoules or 0) - (before.dram_microjoules or 0) == pytest.approx(3 * passed_us, rel=0.01)
        assert (after.covered_us or 0) - (before.covered_us or 0) == pytest.approx(passed_us, rel=0.01)
    final, (usage,) = rows[-1], bench.finals("7")
    assert final.sample.gpu_microjoules == usage.energy_gpu_microjoules
    assert final.sample.covered_us == usage.energy_covered_us
    assert (final.cluster, final.ref, final.sample.node, final.sample.gpu_method) == ("c1", "ref-7", "n1", "counter")
    assert (final.gpu_ids, final.shared_gpu_ids, final.board_ids) == ((B,), (), ())
    assert (final.factor, final.pue) == (read_factor(400.0), 1.3)


def test_nothing_is_written_of_what_is_not_known() -> None:
    """A job without GPUs on a node without counters, and a GPU that tells neither energy nor power."""
    bench = GpuBench()
    for values in bench.gpus.values.values():
        values["energy_microjoules"] = None

    async def scene() -> None:
        bench.job("7", "0")
        bench.job("8")
        await asyncio.sleep(60)
        bench.over("7")
        bench.over("8")
        await asyncio.sleep(1)

    bench.play(scene)
    assert bench.energy_rows == []


def test_a_component_that_was_not_read_has_no_number_then() -> None:
    """Its sum so far is of an earlier moment. A GPU alone then gives no row."""
    bench, alone = GpuBench(energy=True), GpuBench()

    async def scene(one: GpuBench) -> None:
        one.job("7", "0")
        await asyncio.sleep(31)
        one.gpus.problem = "driver_lost"
        await asyncio.sleep(29)
        one.gpus.problem = None
        await asyncio.sleep(20)

    bench.play(lambda: scene(bench))
    known = [row.sample.gpu_microjoules is not None for row in of(bench, "7")]
    assert (known[0], known[-1], known.count(False)) == (True, True, 2)
    without, *_ = [row for row in of(bench, "7") if row.sample.gpu_microjoules is None]
    assert (without.sample.gpu_method, without.shared_gpu_ids, without.gpu_ids) == (None, None, (B,))
    assert (without.sample.cpu_microjoules or 0) > 0
    alone.play(lambda: scene(alone))
    assert len(of(alone, "7")) == known.count(True)
    assert all(row.sample.cpu_microjoules is None for row in of(alone, "7"))


def test_counters_of_the_node_that_fail_leave_those_of_gpus() -> None:
    bench = GpuBench(energy=True)

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(31)
        bench.places.failing = True
        bench.gpus.use(B, 50.0, 700)
        await asyncio.sleep(15)

    bench.play(scene)
    last = of(bench, "7")[-1].sample
    assert (last.cpu_microjoules, last.dram_microjoules) == (None, None)
    assert (last.gpu_microjoules or 0) > 0


def test_whose_gpus_are_shared_is_told_look_by_look() -> None:
    """Two jobs on place 0, and one of them on place 1 too; of its own GPUs alone is told."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0,1")
        await asyncio.sleep(31)
        bench.job("8", "0")
        await asyncio.sleep(31)
        bench.over("8")
        await asyncio.sleep(31)

    bench.play(scene)
    rows = of(bench, "7")
    assert [rows[0].gpu_ids, rows[0].shared_gpu_ids] == [(B, A), ()]
    assert {row.shared_gpu_ids for row in rows} == {(), (B,)}
    assert rows[-1].shared_gpu_ids == ()
    assert rows[-1].sample.gpu_method == "mixed"
    assert {row.shared_gpu_ids for row in of(bench, "8")} == {(B,)}
    assert {row.sample.gpu_method for row in of(bench, "8")} == {"apportioned"}


def test_gpus_that_are_not_found_are_unknown_not_none() -> None:
    """Of the two that the hook named, one is on the node."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0,5")
        await asyncio.sleep(31)

    bench.play(scene)
    assert {(row.gpu_ids, row.shared_gpu_ids) for row in of(bench, "7")} == {(None, None)}


def test_an_instance_names_its_board() -> None:
    bench = GpuBench(gpu("b", 1), gpu("m", 0, parent_gpu_id=B, share_of_parent=0.5))

    async def scene() -> None:
        bench.job("7", hook=False)
        bench.gpus.use("GPU-m", 50.0, 700)
        await asyncio.sleep(31)

    bench.play(scene)
    assert {(row.gpu_ids, row.board_ids) for row in of(bench, "7")} == {(("GPU-m",), (B,))}


def test_many_jobs_that_come_and_go_write_few_rows_of_another() -> None:
    """Each of their begins and ends is a look."""
    bench = GpuBench(energy=True)

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(20)
        for number in range(100, 200):
            bench.job(str(number))
            await asyncio.sleep(0.05)
            bench.over(str(number))
            await asyncio.sleep(0.05)

    bench.play(scene)
    times = seconds(bench, "7")
    assert len(times) < 26  # 30 s, and a row each half a second of the last ten at most
    assert all(row.sample.gpu_microjoules is not None for row in of(bench, "7"))
    ended = [usage.energy_cpu_microjoules for n in range(100, 200) for usage in bench.finals(str(n))]
    last = [of(bench, str(n))[-1:] for n in range(100, 200)]
    assert [rows[0].sample.cpu_microjoules if rows else None for rows in last] == ended
    assert len(ended) - ended.count(None) > 80


def test_who_asks_has_a_row_now() -> None:
    """Two of them bound what lies between: 3 s at 100 W are 300 J, whatever the interval."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        bench.job("8", "1")
        await asyncio.sleep(16)
        before = len(bench.energy_rows)
        await bench.watch.asked("slurm-7", ALICE)
        await asyncio.sleep(3)
        await bench.watch.asked("slurm-7", 0)
        await asyncio.sleep(0.2)
        await bench.watch.asked("slurm-8", 1002)
        asked = bench.energy_rows[before:]
        one, other = (row.sample for row in asked if row.job_id == "slurm-7")
        assert other.time_us - one.time_us == 3 * SECOND
        assert (other.gpu_microjoules or 0) - (one.gpu_microjoules or 0) == 300 * SECOND
        assert [row.job_id for row in asked].count("slurm-8") == 2  # the third was not theirs to ask, and too soon

    bench.play(scene)


def test_those_who_ask_together_share_a_look() -> None:
    """And one that had begun before they asked is not theirs."""
    bench = GpuBench()
    bench.gpus.slow_seconds = 0.2

    async def scene() -> None:
        bench.job("7", "0")
        bench.job("8", "1")
        await asyncio.sleep(16)
        before = len(bench.gpus.looks)
        first = asyncio.create_task(bench.watch.asked("slurm-7", ALICE))
        await asyncio.sleep(0.1)
        asked_us = bench.clock.time_us()
        await asyncio.gather(*(bench.watch.asked(f"slurm-{job}", ALICE) for job in (7, 8, 7, 8)))
        await first
        assert len(bench.gpus.looks) == before + 2
        for job in ("7", "8"):
            assert of(bench, job)[-1].sample.time_us >= asked_us

    bench.play(scene)


def test_a_watch_that_is_over_opens_no_driver_for_who_asks() -> None:
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(16)

    bench.play(scene)
    looks = len(bench.gpus.looks)
    asyncio.run(bench.watch.asked("slurm-7", ALICE))
    assert len(bench.gpus.looks) == looks


def test_the_row_of_an_end_that_is_told_late_is_of_the_look() -> None:
    """What was used until then is in the sum, so an earlier time would make the run's power look higher than it was."""
    bench = GpuBench(energy=True)

    async def scene() -> None:
        run = bench.job("7", "0")
        await asyncio.sleep(29)
        ended_us = bench.clock.time_us()
        await asyncio.sleep(3)
        bench.source.end("7")
        bench.sampler.closed(run, ended_us)
        await asyncio.sleep(1)
        before, last = (row.sample for row in of(bench, "7")[-2:])
        assert last.time_us == ended_us + 3 * SECOND
        passed_us = last.time_us - before.time_us
        assert (last.gpu_microjoules or 0) - (before.gpu_microjoules or 0) == 100 * passed_us
        assert (last.covered_us or 0) - (before.covered_us or 0) == passed_us - 3 * SECOND

    bench.play(scene)

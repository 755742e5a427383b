"""Runs after and beside each other on the same GPU: each has the energy of its own time, and no more."""

import asyncio

import pytest

from jobtrail.domain.events import GpuUsage
from tests.unit.gpu_world import GpuBench

SECOND = 1_000_000
B = "GPU-b"


def had(bench: GpuBench, name: str) -> GpuUsage:
    """What a run had of its only GPU."""
    (usage,) = bench.finals(name)
    (gpu,) = usage.gpus
    return gpu


@pytest.mark.parametrize("slow", [0.0, 0.3])
@pytest.mark.parametrize("after", [0.0, 0.1, 0.2])
def test_a_run_that_begins_when_another_ends_takes_nothing_of_it(slow: float, after: float) -> None:
    """A requeue, or the next job of a queue: it may be there before the last look at the one that ended is done."""
    bench = GpuBench()

    async def scene() -> None:
        await asyncio.sleep(1)
        bench.job("7", "0")
        bench.gpus.use(B, 50.0, 700)
        await asyncio.sleep(43)
        bench.gpus.slow_seconds = slow
        bench.over("7")
        await asyncio.sleep(after)
        bench.job("8", "0")
        bench.gpus.use(B, 50.0, 800)
        await asyncio.sleep(40)
        bench.over("8")
        await asyncio.sleep(5)

    began = bench.clock.time_us() + SECOND
    bench.play(scene)
    for name, seconds in (("7", 43), ("8", 40)):
        gpu = had(bench, name)
        assert gpu.energy_method == "counter"
        assert gpu.energy_microjoules == pytest.approx(100 * seconds * SECOND, rel=0.03)
        assert gpu.mismatch is None
    rows = [row for row in bench.energy_rows if row.job_id in {"slurm-7", "slurm-8"}]
    assert {row.shared_gpu_ids for row in rows} == {()}
    held = [row.job_id for row in bench.gpu_rows if row.reading.gpu.gpu_id == B and began < row.reading.time_us]
    assert held == sorted(held, key=str)
    assert set(held) == {"slurm-7", "slurm-8"}


def test_the_time_before_another_shared_a_gpu_was_the_first_ones_alone() -> None:
    """The look that the second one's begin causes ends a time in which it was not there."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(44)
        bench.job("8", "0")
        await asyncio.sleep(40)
        bench.over("8")
        await asyncio.sleep(40)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    first, second = had(bench, "7"), had(bench, "8")
    assert second.energy_microjoules == pytest.approx(100 * 20 * SECOND, rel=0.03)
    assert first.energy_microjoules == pytest.approx(100 * (44 + 20 + 40) * SECOND, rel=0.01)
    together = (first.energy_microjoules or 0) + (second.energy_microjoules or 0)
    assert together == pytest.approx(100 * 124 * SECOND, rel=0.01)
    assert (first.energy_method, second.energy_method) == ("mixed", "apportioned")

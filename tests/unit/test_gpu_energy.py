"""Energy of CPUs and memory among the runs, and what it emits."""

import asyncio

import pytest

from jobtrail.core.gpu.books import EmissionSettings
from jobtrail.domain.emissions import read_factor
from jobtrail.domain.events import NodeUsage
from tests.unit.gpu_world import GpuBench

SECOND = 1_000_000


def play(bench: GpuBench, *, seconds: float = 100, jobs: tuple[str, ...] = ("7",)) -> dict[str, NodeUsage]:
    """Jobs that begin and end together; their final usage."""

    async def scene() -> None:
        await asyncio.sleep(1)
        for job in jobs:
            bench.job(job)
        await asyncio.sleep(seconds)
        for job in jobs:
            bench.over(job)
        await asyncio.sleep(1)

    bench.play(scene)
    return {job: bench.finals(job)[0] for job in jobs}


def test_a_package_is_divided_by_cpu_time() -> None:
    """Two busy CPUs, one of them the job's: half of 60 W and of 6 W, from its start to its end."""
    bench = GpuBench(energy=True)
    used = play(bench)["7"]
    assert used.energy_cpu_microjoules == pytest.approx(100 * SECOND * 30, rel=0.01)
    assert used.energy_dram_microjoules == pytest.approx(100 * SECOND * 3, rel=0.01)
    assert used.energy_covered_us == pytest.approx(100 * SECOND, rel=0.01)
    assert used.sources["energy_cpu"] == used.sources["energy_dram"] == "apportioned"
    assert used.emissions_micrograms is None


def test_a_job_of_a_second_has_its_energy() -> None:
    """Looks at its begin and its end are enough."""
    used = play(GpuBench(energy=True), seconds=1)["7"]
    assert used.energy_cpu_microjoules == pytest.approx(30 * SECOND, rel=0.05)


def test_all_jobs_together_get_no_more_than_there_was() -> None:
    """Three jobs that burn a CPU each on a node that says it was busy with two."""
    bench = GpuBench(energy=True)
    used = play(bench, jobs=("7", "8", "9"))
    assert {usage.energy_cpu_microjoules for usage in used.values()} == {used["7"].energy_cpu_microjoules}
    assert used["7"].energy_cpu_microjoules == pytest.approx(100 * SECOND * 30, rel=0.01)


def test_emissions_follow_the_energy() -> None:
    """100 s of 33 W by 500 g per kWh and a PUE of 1.2."""
    settings = EmissionSettings(factor=read_factor(500.0), pue=1.2)
    used = play(GpuBench(energy=True, emissions=settings))["7"]
    assert (used.emissions_micrograms or 0) / 1e6 == pytest.approx(3300 / 3.6e6 * 1.2 * 500, rel=0.01)


@pytest.mark.parametrize("dram", [True, False])
def test_what_cannot_be_read_says_why(dram: bool) -> None:
    """Counters only root may read; a node without memory counters."""
    bench = GpuBench(energy=True)
    if dram:
        bench.packages.absent = {"package-0": "EACCES", "package-0/dram": "EACCES"}
    else:
        bench.packages.dram = False
    used = play(bench)["7"]
    assert used.energy_dram_microjoules is None
    assert used.absent["energy_dram_microjoules"] == ("EACCES" if dram else "no RAPL dram zone")
    assert (used.energy_cpu_microjoules is None) is dram
    assert used.absent.get("energy_cpu_microjoules") == ("EACCES" if dram else None)


def test_a_counter_that_comes_late_takes_the_reason_away() -> None:
    """As when its kernel module is loaded meanwhile."""
    bench = GpuBench(energy=True)
    bench.packages.absent = {}

    async def scene() -> None:
        bench.job("7")
        await asyncio.sleep(16)
        assert "energy_cpu_microjoules" not in bench.shown("7").usage.absent
        bench.packages.absent = {"package": "no RAPL package zone"}
        await asyncio.sleep(16)
        assert bench.shown("7").usage.absent == {"energy_cpu_microjoules": "no RAPL package zone"}
        bench.packages.absent = None
        await asyncio.sleep(31)
        assert bench.shown("7").usage.absent == {}
        assert bench.shown("7").usage.energy_cpu_microjoules

    bench.play(scene)


def test_a_job_whose_processes_come_late_loses_nothing() -> None:
    """A prolog runs before the job's cgroup is there; what it then used since its start counts."""
    bench = GpuBench(energy=True)

    async def scene() -> None:
        await asyncio.sleep(1)
        run = bench.job("7")
        del bench.source._born["slurm-7"]
        bench.source.readings.pop("slurm-7", None)
        await asyncio.sleep(2)
        bench.source.start("7")
        await asyncio.sleep(60)
        assert bench.shown("7").usage.energy_cpu_microjoules
        assert run.target.ref in bench.board.jobs

    bench.play(scene)


def test_a_run_of_before_the_daemon_begins_with_the_second_look() -> None:
    """Its CPU time so far is not what it used since."""
    bench = GpuBench(energy=True)

    async def scene() -> None:
        await asyncio.sleep(20)
        bench.source.start("7")
        bench.open("7", alive=False, age=1000)
        await asyncio.sleep(30)

    bench.play(scene)
    used = bench.watch.final("ref-7", NodeUsage())
    assert used.energy_cpu_microjoules == 30 * (used.energy_covered_us or 0)


def test_a_node_that_says_nothing_of_its_cpus_gives_no_share() -> None:
    """The time is a gap."""
    bench = GpuBench(energy=True)
    bench.busy.cpus = 0
    assert play(bench)["7"].energy_cpu_microjoules is None


@pytest.mark.parametrize("seconds", [1.0, 40.0])
def test_a_run_that_ends_while_a_look_is_made_loses_nothing(seconds: float) -> None:
    """The next job begins in the same moment, and its first look finds the one before neither open nor looked at."""
    bench = GpuBench(energy=True)
    bench.gpus.slow_seconds = 0.2

    async def scene() -> None:
        await asyncio.sleep(1)
        bench.job("7", "0")
        await asyncio.sleep(seconds)
        bench.job("8", "1")
        await asyncio.sleep(0.1)  # the look that this causes waits for the GPUs
        bench.over("7")
        await asyncio.sleep(20)
        bench.over("8")
        await asyncio.sleep(5)

    bench.play(scene)
    (used,) = bench.finals("7")
    assert used.energy_cpu_microjoules == pytest.approx((seconds + 0.1) * SECOND * 30, rel=0.1)
    assert used.energy_covered_us == pytest.approx((seconds + 0.1) * SECOND, rel=0.25)


def test_a_look_that_misses_a_runs_cpu_time_costs_nothing() -> None:
    """What it used since the look before that one is known at the next."""
    bench = GpuBench(energy=True)

    async def scene() -> None:
        await asyncio.sleep(1)
        bench.job("7")
        await asyncio.sleep(20)
        bench.source.readings.pop("slurm-7", None)
        born = bench.source._born.pop("slurm-7")
        await asyncio.sleep(15)
        bench.source._born["slurm-7"] = born
        await asyncio.sleep(30)

    bench.play(scene)
    used = bench.watch.final("ref-7", NodeUsage())
    assert used.energy_covered_us == pytest.approx(65 * SECOND, abs=2 * SECOND)
    assert used.energy_cpu_microjoules == pytest.approx(30 * (used.energy_covered_us or 0), rel=0.02)


def test_without_the_nodes_cpu_time_before_a_job_its_first_look_gives_no_share() -> None:
    """And a look without it in the middle costs nothing."""
    bench = GpuBench(energy=True)

    async def scene() -> None:
        bench.busy.cpus = None
        bench.job("6")
        await asyncio.sleep(1)
        bench.busy.cpus = 2
        bench.job("7")
        await asyncio.sleep(31)
        bench.busy.cpus = None
        await asyncio.sleep(15)
        bench.busy.cpus = 2
        await asyncio.sleep(15)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    (used,) = bench.finals("7")
    assert used.energy_covered_us == pytest.approx(61 * SECOND, abs=2 * SECOND)
    assert used.energy_cpu_microjoules == 30 * (used.energy_covered_us or 0)

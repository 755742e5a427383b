"""What is known of a run over a window, from rows that the real writers wrote."""

import time
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresEnergySamples, PostgresGpuSamples, PostgresSink, session
from jobtrail.adapters.postgres.benchmark_window import THROTTLES, window_use
from jobtrail.core.facts import Fact
from jobtrail.core.gpu.ports import EnergySampleRow, GpuSampleRow
from jobtrail.domain.benchmarks.settling import CandidateRun, EnergySample, WindowUse
from jobtrail.domain.emissions import EmissionFactor, EmissionMethod
from jobtrail.domain.events import Actor, EventKind, GpuUsage, NodeUsage
from jobtrail.domain.gpus import Gpu, GpuReading
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.usage import with_emissions
from tests.chains import SECOND, T0, ChainWriter

LUX = EmissionFactor(grams_per_kwh=105.3, year=2023, source="LU: a source", method=EmissionMethod.COUNTRY)
MINUTE = 60 * SECOND
RUN = CandidateRun(cluster="c1", job_id="slurm-1", run=1)
NOW = time.time_ns() // 1000 - 20 * MINUTE  # when the runs begin; samples have partitions of today and yesterday


class Runs:
    """Runs in the store, by the real writers. Times are µs after NOW."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.facts: list[Fact] = []
        self._energy = PostgresEnergySamples(pool, timeout_seconds=10.0, tell=self.facts.append)
        self._gpus = PostgresGpuSamples(pool, timeout_seconds=10.0, tell=self.facts.append)
        self.refs: dict[tuple[str, str], str] = {}  # job id and node -> what opened the run there

    async def begin(self, job_id: str, *nodes: str, at: int = 0, used: NodeUsage | None = None, **facts: Any) -> None:
        for node in nodes:
            writer = ChainWriter(node)
            ref = writer.started(job_id, NOW - T0 + at, nodes=nodes, **facts)
            self.refs[job_id, node] = ref
            if used is not None:
                writer.used(job_id, NOW - T0 + at + MINUTE, used, opened_by=ref)
            await PostgresSink(self._pool).store(writer.rows, node=node)

    async def end(self, job_id: str, node: str, at: int, used: NodeUsage | None = None) -> None:
        writer, ref = ChainWriter(node), self.refs[job_id, node]
        writer.finished(job_id, NOW - T0 + at, opened_by=ref)
        if used is not None:
            writer.used(job_id, NOW - T0 + at + 1, used, opened_by=ref)
        await PostgresSink(self._pool).store(writer.rows, node=node)

    async def sample(
        self, at: int, joules: float | None, *, node: str = "n1", job_id: str = "slurm-1", **more: Any
    ) -> None:
        """A run has used so much by then."""
        values = {name: more.pop(name) for name in ("cpu_microjoules", "dram_microjoules") if name in more}
        row = EnergySampleRow(
            cluster="c1",
            job_id=job_id,
            ref=more.pop("ref", None) or self.refs[job_id, node],
            sample=EnergySample(
                node=node, time_us=NOW + at, gpu_microjoules=None if joules is None else round(joules * SECOND),
                covered_us=at, gpu_method=None if joules is None else "counter", **values,
            ),
            **{"gpu_ids": ("GPU-1",), "shared_gpu_ids": (), **more},
        )  # fmt: skip
        await self._energy.write_energy([row])

    async def look(self, at: int, *reasons: str, gpu_id: str = "GPU-1", node: str = "n1") -> None:
        """At a GPU whose clocks are held down for these reasons."""
        reading = GpuReading(gpu=Gpu(gpu_id=gpu_id, vendor="nvidia"), time_us=NOW + at, throttle_reasons=tuple(reasons))
        await self._gpus.write_gpus([GpuSampleRow(node=node, reading=reading)])

    async def use(self, started: int, ended: int, run: CandidateRun = RUN) -> WindowUse:
        async with session(self._pool, 10.0) as connection:
            return await window_use(connection, run, started_us=NOW + started, ended_us=NOW + ended)

    async def execute(self, statement: str, *arguments: object) -> None:
        async with session(self._pool, 10.0) as connection:
            await connection.execute(statement, *arguments)


@pytest.fixture
def runs(pool: Any) -> Runs:
    return Runs(pool)


def times(use: WindowUse) -> list[tuple[str, float]]:
    return [(sample.node, (sample.time_us - NOW) / MINUTE) for sample in use.samples]


def held(gpu_id: str, **more: Any) -> NodeUsage:
    """What a node reports of a run with a GPU."""
    one = GpuUsage(gpu_id=gpu_id, **{"vendor": "nvidia", "resolved_by": "gres_conf", **more})
    return NodeUsage(gpus=(one,), energy_gpu_microjoules=300 * SECOND, energy_covered_us=MINUTE)


async def test_samples_inside_and_one_on_each_side_of_every_node(runs: Runs) -> None:
    """To the µJ; those of the job's other run and of another job are not among them."""
    await runs.begin("slurm-1", "n1", "n2")
    await runs.begin("slurm-2", "n1")
    for node, minutes in (("n1", range(1, 9)), ("n2", (1, 4, 8))):
        for minute in minutes:
            await runs.sample(minute * MINUTE, 1000.25 * minute, node=node)
    await runs.sample(5 * MINUTE, 7.0, job_id="slurm-2")
    await runs.sample(5 * MINUTE, 8.0, ref="11111111-1111-1111-1111-111111111111")
    use = await runs.use(3 * MINUTE, 5 * MINUTE)
    assert times(use) == [("n1", 2), ("n1", 3), ("n1", 4), ("n1", 5), ("n1", 6), ("n2", 1), ("n2", 4), ("n2", 8)]
    assert use.samples[0] == EnergySample(
        node="n1", time_us=NOW + 2 * MINUTE, gpu_microjoules=2_000_500_000, covered_us=2 * MINUTE, gpu_method="counter"
    )
    assert (use.nodes, use.complete, use.is_over, use.has_gpus) == (("n1", "n2"), True, False, True)


async def test_where_gpus_and_cpus_were_not_read_at_the_same_looks_there_is_one_of_each(runs: Runs) -> None:
    await runs.begin("slurm-1", "n1")
    await runs.sample(1 * MINUTE, 100.0)
    await runs.sample(2 * MINUTE, None, cpu_microjoules=5, dram_microjoules=6)
    await runs.sample(4 * MINUTE, None, cpu_microjoules=7, dram_microjoules=8)
    await runs.sample(5 * MINUTE, None, cpu_microjoules=9, dram_microjoules=9)
    await runs.sample(6 * MINUTE, 200.0)
    use = await runs.use(3 * MINUTE, 3 * MINUTE + SECOND)
    assert times(use) == [("n1", 1), ("n1", 2), ("n1", 4), ("n1", 6)]
    found = [(one.gpu_microjoules, one.cpu_microjoules, one.dram_microjoules, one.gpu_method) for one in use.samples]
    first, last = (100 * SECOND, None, None, "counter"), (200 * SECOND, None, None, "counter")
    assert found == [first, (None, 5, 6, None), (None, 7, 8, None), last]


async def test_a_batch_that_came_twice_is_there_once(runs: Runs) -> None:
    await runs.begin("slurm-1", "n1")
    for minute in (1, 1, 2, 2):
        await runs.sample(minute * MINUTE, 10.0 * minute)
    assert times(await runs.use(0, 2 * MINUTE)) == [("n1", 1), ("n1", 2)]


async def test_samples_of_a_beginning_that_was_told_twice(runs: Runs) -> None:
    """As where the daemon found the run before its prolog was heard: what it measured names the first report."""
    other = ChainWriter("n1")
    facts = JobFacts(nodes=("n1",))
    found = other.event(EventKind.JOB_FOUND, "slurm-1", NOW - T0 + SECOND, Actor.COLLECTOR, facts=facts)
    await PostgresSink(runs._pool).store(other.rows, node="n1")
    await runs.begin("slurm-1", "n1")
    await runs.sample(1 * MINUTE, 10.0, ref=found)
    await runs.sample(2 * MINUTE, 20.0)
    assert times(await runs.use(0, 3 * MINUTE)) == [("n1", 1), ("n1", 2)]


async def test_a_window_is_complete_when_every_node_was_looked_at_after_it(runs: Runs) -> None:
    await runs.begin("slurm-1", "n1", "n2")
    assert not (await runs.use(MINUTE, 3 * MINUTE)).complete
    await runs.sample(3 * MINUTE, 10.0)
    await runs.sample(2 * MINUTE, 10.0, node="n2")
    assert not (await runs.use(MINUTE, 3 * MINUTE)).complete
    await runs.sample(4 * MINUTE, 10.0, node="n2")
    assert (await runs.use(MINUTE, 3 * MINUTE)).complete


async def test_a_run_is_over_once_its_last_samples_can_be_there(runs: Runs) -> None:
    """They take another way into the store than the word of its end."""
    await runs.begin("slurm-1", "n1")
    await runs.end("slurm-1", "n1", 10 * MINUTE)
    assert not (await runs.use(0, MINUTE)).is_over
    await runs.execute("UPDATE jobs SET updated_at = now() - interval '1 minute'")
    assert (await runs.use(0, MINUTE)).is_over


@pytest.mark.parametrize("reason", THROTTLES)
async def test_clocks_that_heat_or_hardware_held_down_are_told(runs: Runs, reason: str) -> None:
    await runs.begin("slurm-1", "n1")
    await runs.sample(MINUTE, 10.0)
    await runs.look(2 * MINUTE, "sw_power_cap", reason)
    assert (await runs.use(MINUTE, 3 * MINUTE)).throttled == (reason,)


async def test_idle_and_the_power_cap_hold_nobody_back_nor_does_what_is_elsewhere(runs: Runs) -> None:
    """Neither another time, nor another GPU, nor one of the same id on another node."""
    await runs.begin("slurm-1", "n1")
    await runs.sample(MINUTE, 10.0)
    await runs.look(2 * MINUTE, "gpu_idle", "sw_power_cap", "applications_clocks_setting", "sync_boost")
    await runs.look(2 * MINUTE, "hw_slowdown", gpu_id="GPU-9")
    await runs.look(2 * MINUTE, "hw_slowdown", node="n9")
    await runs.look(MINUTE - 1, "hw_slowdown")
    await runs.look(3 * MINUTE + 2 * SECOND, "hw_slowdown")
    assert (await runs.use(MINUTE, 3 * MINUTE)).throttled == ()
    await runs.look(3 * MINUTE + SECOND // 2, "hw_slowdown")  # the look that ends the window
    assert (await runs.use(MINUTE, 3 * MINUTE)).throttled == ("hw_slowdown",)


async def test_an_instance_is_held_down_with_its_board(runs: Runs) -> None:
    await runs.begin("slurm-1", "n1")
    await runs.sample(MINUTE, 10.0, gpu_ids=("MIG-1",), board_ids=("GPU-1",))
    await runs.look(2 * MINUTE, "hw_thermal_slowdown")
    assert (await runs.use(MINUTE, 3 * MINUTE)).throttled == ("hw_thermal_slowdown",)


async def test_gpus_that_a_report_names_count_without_any_energy(runs: Runs) -> None:
    await runs.begin("slurm-1", "n1", used=held("GPU-5"))
    await runs.look(2 * MINUTE, "hw_power_brake_slowdown", gpu_id="GPU-5")
    use = await runs.use(MINUTE, 3 * MINUTE)
    assert (use.throttled, use.has_gpus, use.samples) == (("hw_power_brake_slowdown",), True, ())


async def test_gpus_that_others_held_at_a_look_in_the_window_are_shared(runs: Runs) -> None:
    await runs.begin("slurm-1", "n1")
    for minute, shared in ((1, ("GPU-1",)), (3, ("GPU-2",)), (4, ()), (6, ("GPU-3",))):
        await runs.sample(minute * MINUTE, 10.0, gpu_ids=("GPU-1", "GPU-2", "GPU-3"), shared_gpu_ids=shared)
    assert (await runs.use(2 * MINUTE, 5 * MINUTE)).shared == ("GPU-2",)


async def test_gpus_that_others_reports_say_they_held_are_shared(runs: Runs) -> None:
    """If they held them in the window; what a process of theirs did on it by mistake is told elsewhere."""
    await runs.begin("slurm-1", "n1", used=held("GPU-1"))
    await runs.begin("slurm-2", "n1", at=4 * MINUTE, used=held("GPU-1"))
    await runs.begin("slurm-3", "n1", at=5 * MINUTE, used=held("GPU-2"))
    await runs.begin("slurm-4", "n9", at=1 * MINUTE, used=held("GPU-1"))
    await runs.begin("slurm-5", "n1", at=1 * MINUTE, used=held("GPU-1", resolved_by=None, mismatch="a process"))
    assert (await runs.use(MINUTE, 3 * MINUTE)).shared == ()
    assert (await runs.use(MINUTE, 5 * MINUTE)).shared == ("GPU-1",)
    await runs.end("slurm-2", "n1", 6 * MINUTE, held("GPU-1"))
    assert (await runs.use(5 * MINUTE, 7 * MINUTE)).shared == ("GPU-1",)
    assert (await runs.use(7 * MINUTE, 8 * MINUTE)).shared == ()


async def test_pue_and_factor_are_those_the_run_reported(runs: Runs) -> None:
    await runs.begin("slurm-1", "n1", used=with_emissions(held("GPU-1"), LUX, 1.4))
    await runs.sample(MINUTE, 10.0, factor=msgspec.structs.replace(LUX, year=2020), pue=1.1)
    use = await runs.use(0, 2 * MINUTE)
    assert (use.pue, use.factor_grams_per_kwh, use.factor_year, use.factor_source) == (1.4, 105.3, 2023, "LU: a source")


@pytest.mark.parametrize(("pue", "known"), [(1.4, 1.4), (1.2, None)])
async def test_before_the_first_report_they_are_those_of_the_samples(
    runs: Runs, pue: float, known: float | None
) -> None:
    """If all name the same."""
    await runs.begin("slurm-1", "n1", "n2")
    await runs.sample(MINUTE, 10.0, factor=LUX, pue=1.4)
    await runs.sample(MINUTE, 10.0, node="n2", factor=LUX, pue=pue)
    use = await runs.use(0, 2 * MINUTE)
    expected = (None, None, None) if known is None else (105.3, 2023, "LU: a source")
    assert use.pue == known
    assert (use.factor_grams_per_kwh, use.factor_year, use.factor_source) == expected


async def test_a_run_without_gpus_and_one_that_is_not_stored(runs: Runs) -> None:
    await runs.begin("slurm-1", "n1")
    await runs.sample(MINUTE, None, cpu_microjoules=5, gpu_ids=())
    use = await runs.use(MINUTE, MINUTE)
    assert (use.has_gpus, use.throttled, use.shared, use.complete, use.pue) == (False, (), (), True, None)
    nobodys = CandidateRun(cluster="c1", job_id="slurm-1", run=2)
    assert await runs.use(0, MINUTE, nobodys) == WindowUse()
    assert runs.facts == []


async def test_gpus_that_were_asked_for_are_known_before_any_look(runs: Runs) -> None:
    await runs.begin("slurm-1", "n1", gpus_total=2)
    assert (await runs.use(0, MINUTE)).has_gpus

"""The watch over GPUs: whose they are, what each job had of them, and that nothing is counted twice or made up."""

import asyncio
from itertools import pairwise

import pytest

from jobtrail.core.energy.node import Ended
from jobtrail.core.facts import GpuLookFailed, GpuMismatch, GpusLooked, GpuValueAbsent, SampleSourceFailed
from jobtrail.core.gpu.sources import NO_GPUS, REST_LOOKS
from jobtrail.core.runs.sampler import Rhythm
from jobtrail.domain.events import GpuUsage, NodeUsage
from jobtrail.domain.gpus import GpuEvent
from tests.fakes import FakeClock
from tests.unit.gpu_world import GpuBench, Gpus, gpu
from tests.unit.runs import open_run

SECOND = 1_000_000
A, B = "GPU-a", "GPU-b"


def of(usage: NodeUsage) -> dict[str, GpuUsage]:
    """A usage's GPUs by id."""
    return {gpu.gpu_id: gpu for gpu in usage.gpus}


def test_each_job_has_the_gpu_of_its_place_from_its_first_moment_to_its_last() -> None:
    """Place 0 is minor 1: energy is the counter's, to the µJ, also of the seconds after the last tick."""
    bench = GpuBench()
    bench.gpus.watts = {A: 100, B: 300}

    async def scene() -> None:
        bench.job("7", "0")
        bench.job("8", "1")
        bench.gpus.use(B, 80.0, 700)
        await asyncio.sleep(100)
        bench.over("7")
        bench.over("8")
        await asyncio.sleep(1)

    bench.play(scene)
    (seven,), (eight,) = bench.finals("7"), bench.finals("8")
    assert seven.gpus[0].gpu_id == B
    assert seven.gpus[0].resolved_by == "gres_conf_file"
    assert eight.gpus[0].gpu_id == A
    assert seven.energy_gpu_microjoules == pytest.approx(100 * SECOND * 300, rel=0.01)
    assert eight.energy_gpu_microjoules == pytest.approx(100 * SECOND * 100, rel=0.01)
    assert seven.gpus[0].energy_covered_us == seven.energy_covered_us == pytest.approx(100 * SECOND, rel=0.01)
    assert (seven.gpu_observed_us or 0) == pytest.approx(100 * SECOND, rel=0.01)
    assert (seven.gpu_busy_us or 0) == pytest.approx(80 * SECOND, rel=0.01)
    assert (seven.gpu_unused_us, eight.gpu_busy_us) == (0, 0)
    assert eight.gpu_unused_us == eight.gpu_observed_us
    assert seven.sources["energy_gpu"] == "counter"
    assert bench.gpus.closed


def test_the_board_shows_what_a_job_holds_and_uses() -> None:
    """An idle GPU is seen; a job without GPUs has none."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0,1")
        bench.job("9")
        bench.gpus.use(B, 60.0, 700)
        await asyncio.sleep(120)
        shown = bench.shown("7")
        assert (shown.active, shown.unresolved, shown.mismatches, shown.usage_percent) == (1, 0, 0, 30.0)
        idle = {one.reading.gpu.gpu_id: one.idle_seconds for one in shown.devices}
        assert idle[B] == 0
        assert idle[A] == pytest.approx(120, abs=16)
        none = bench.shown("9")
        assert (none.devices, none.active, none.unresolved, none.mismatches, none.usage_percent) == ((), *[None] * 4)
        assert [(one.reading.gpu.gpu_id, one.jobs) for one in bench.board.gpus] == [(A, 1), (B, 1)]

    bench.play(scene)
    assert {(row.reading.gpu.gpu_id, row.job_id, row.cluster, row.ref) for row in bench.gpu_rows[-2:]} == {
        (A, "slurm-7", "c1", "ref-7"),
        (B, "slurm-7", "c1", "ref-7"),
    }


def test_a_failing_driver_costs_its_values_and_says_why() -> None:
    """Levels go, totals stay; the same failure is told as such; the time is no part of the energy."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(30)
        before = bench.shown("7").usage.energy_gpu_microjoules
        bench.gpus.problem = "hung"
        await asyncio.sleep(100)
        shown = bench.shown("7")
        assert (shown.devices, shown.active, shown.usage_percent) == ((), None, None)
        assert shown.usage.energy_gpu_microjoules == before
        bench.gpus.problem = None
        await asyncio.sleep(15)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    failures = bench.facts.of(GpuLookFailed)
    assert [(one.reason, one.repeated) for one in failures[:3]] == [("hung", False), ("hung", True), ("hung", True)]
    assert bench.facts.of(GpusLooked)
    (final,) = bench.finals("7")
    # 20 s to the last look that succeeded, and 5 s from the first one after.
    assert final.gpus[0].energy_covered_us == pytest.approx(25 * SECOND, abs=2 * SECOND)


def test_a_hanging_driver_holds_the_end_of_a_run_up_for_a_second() -> None:
    """What was known is reported then, and the look goes on by itself."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(40)
        bench.gpus.slow_seconds = 7.0
        ended = bench.clock.monotonic()
        bench.over("7")
        await asyncio.sleep(2)
        (at,) = [at for at, _, final, _ in bench.reports if final]
        assert at - ended == pytest.approx(1.0, abs=0.2)

    bench.play(scene)
    assert bench.finals("7")[0].energy_gpu_microjoules


def test_a_restarted_daemon_counts_on_and_never_twice() -> None:
    """The books begin with the checkpoint's numbers; the time between is in none of them."""
    before = NodeUsage(
        gpus=(
            GpuUsage(
                gpu_id=B, observed_us=50 * SECOND, busy_us=5, unused_us=7, energy_microjoules=1_000,
                energy_covered_us=50 * SECOND, energy_method="integrated", errors={"79": 1},
            ),
        ),
        energy_gpu_microjoules=1_000, energy_cpu_microjoules=500, energy_covered_us=50 * SECOND,
    )  # fmt: skip
    bench = GpuBench(rhythm=Rhythm(checkpoint_seconds=30))

    async def scene() -> None:
        bench.job("7", "0", usage=before)
        await asyncio.sleep(60)

    bench.play(scene)
    last = bench.reports[-1][3]
    (had,) = last.gpus
    grown = (had.energy_covered_us or 0) - 50 * SECOND
    assert grown == pytest.approx(60 * SECOND, abs=16 * SECOND)
    assert had.energy_microjoules == 1_000 + grown * 100 == last.energy_gpu_microjoules
    assert (had.energy_method, had.errors) == ("mixed", {"79": 1})
    assert last.energy_cpu_microjoules == 500
    assert bench.checkpoints("7")


def test_a_gpu_nobody_finds_is_told_at_the_end_and_not_before() -> None:
    """`unresolved:<position>` in the final usage; a checkpoint could not take it back."""
    bench = GpuBench(rhythm=Rhythm(checkpoint_seconds=10))

    async def scene() -> None:
        bench.job("7", "0,5")
        await asyncio.sleep(150)
        shown = bench.shown("7")
        assert (shown.unresolved, shown.active, len(shown.devices)) == (1, None, 1)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    assert of(bench.finals("7")[0]).keys() == {B, "unresolved:5"}
    assert {tuple(of(usage)) for _, _, final, usage in bench.reports if not final} == {(B,)}
    # Slurm's files are read again while a place is unknown, once a minute at most.
    assert bench.conf_reads == [("n1", "")] * 3


def test_gpus_that_come_late_are_found() -> None:
    """A driver that is still being opened leaves every place unknown for a while; what was found then stays."""
    bench = GpuBench()
    bench.gpus.problem = "starting"

    async def scene() -> None:
        bench.job("7", "1", slurm_conf="/x/slurm.conf")
        await asyncio.sleep(20)
        assert bench.shown("7").unresolved == 1
        bench.gpus.problem = None
        await asyncio.sleep(15)
        assert bench.shown("7").active == 0
        bench.conf = type(bench.conf)(problem="gone")
        await asyncio.sleep(100)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    assert of(bench.finals("7")[0]).keys() == {A}
    assert set(bench.conf_reads) == {("n1", "/x/slurm.conf")}


def test_a_process_on_a_gpu_its_job_does_not_hold() -> None:
    """Both sides keep the evidence, told once; a job without GPUs shows the one it took."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        bench.job("8", "1")
        bench.job("9")
        bench.gpus.use(A, 50.0, 700, 900)
        await asyncio.sleep(60)
        assert bench.shown("8").mismatches == 1
        for job in ("7", "8", "9"):
            bench.over(job)
        await asyncio.sleep(16)

    bench.play(scene)
    finals = {job: of(bench.finals(job)[0]) for job in ("7", "8", "9")}
    assert finals["7"][B].mismatch == "process 700 of slurm-7 was on GPU-a, which the job does not hold"
    assert finals["8"][A].mismatch == "process 700 of slurm-7 was on it"
    assert finals["9"][A].mismatch == "process 900 of slurm-9 was on GPU-a, which the job does not hold"
    assert [(one.job_id, one.kind) for one in bench.facts.of(GpuMismatch)] == [
        ("slurm-7", "held_by_another"),
        ("slurm-9", "held_by_another"),
    ]


def test_a_run_nobody_spoke_of_has_the_gpus_its_processes_use() -> None:
    """And keeps them; of a partitioned board it has the instance."""
    part = gpu("m", 1, parent_gpu_id=B, share_of_parent=0.25)
    bench = GpuBench(gpu("a", 0), gpu("b", 1), part)

    async def scene() -> None:
        bench.job("7", hook=False)
        await asyncio.sleep(30)
        assert bench.shown("7").devices == ()
        bench.gpus.use(B, 50.0, 700)
        bench.gpus.use("GPU-m", 50.0, 700)
        await asyncio.sleep(60)
        bench.gpus.use(B, 0.0)
        bench.gpus.use("GPU-m", 0.0)
        await asyncio.sleep(30)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    (had,) = bench.finals("7")[0].gpus
    assert (had.gpu_id, had.resolved_by, had.energy_method) == ("GPU-m", "processes", "apportioned")
    assert had.energy_microjoules == 25 * (had.energy_covered_us or 0)


def test_a_board_is_held_by_the_jobs_on_its_instances() -> None:
    """Or a fleet of partitioned boards would look free while jobs run on all of them."""
    bench = GpuBench(
        gpu("a", 0), gpu("b", 1), gpu("m", 1, parent_gpu_id=B, share_of_parent=0.5),
        gpu("n", 1, parent_gpu_id=B, share_of_parent=0.5),
    )  # fmt: skip

    async def scene() -> None:
        bench.job("7", hook=False)
        bench.gpus.use("GPU-m", 50.0, 700)
        await asyncio.sleep(60)
        jobs = {one.reading.gpu.gpu_id: one.jobs for one in bench.board.gpus}
        assert jobs == {A: 0, B: 1, "GPU-m": 1, "GPU-n": 0}

    bench.play(scene)


def test_an_instance_without_its_board_or_its_share_has_no_energy() -> None:
    """Nothing is guessed: the counter is of the whole board."""
    bench = GpuBench(
        gpu("m", 0, parent_gpu_id=B), gpu("n", 1, parent_gpu_id="GPU-gone", share_of_parent=0.5), gpu("b", 2)
    )

    async def scene() -> None:
        bench.job("7", hook=False)
        bench.gpus.use("GPU-m", 50.0, 700)
        bench.gpus.use("GPU-n", 50.0, 700)
        await asyncio.sleep(60)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    final = bench.finals("7")[0]
    assert {one.energy_microjoules for one in final.gpus} == {None}
    assert final.energy_gpu_microjoules is None


def test_two_jobs_that_share_a_gpu_have_half_its_energy_each() -> None:
    """And their rows name no job."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        bench.job("8", "0")
        await asyncio.sleep(60)

    bench.play(scene)
    had = of(bench.watch.final("ref-7", NodeUsage()))[B]
    assert had.energy_method == "apportioned"
    assert had.energy_microjoules == 50 * (had.energy_covered_us or 0)
    (row,) = [row for row in bench.gpu_rows[-2:] if row.reading.gpu.gpu_id == B]
    assert (row.job_id, row.cluster, row.ref, row.node) == (None, None, None, "n1")


def test_what_a_gpu_does_not_give_stays_unknown() -> None:
    """No utilisation, no processes, no energy: time was observed, and nothing else is known."""
    bench = GpuBench()
    bench.gpus.values[B] = {"energy_microjoules": None, "absent": {"energy_microjoules": "not_supported"}}

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(60)
        shown = bench.shown("7")
        assert (shown.active, shown.usage_percent) == (None, None)
        assert shown.devices[0].idle_seconds is None
        bench.gpus.values[B] = {"utilization_percent": 50.0, "processes": ()}
        await asyncio.sleep(60)
        bench.gpus.values[B] = {"energy_microjoules": None}
        await asyncio.sleep(30)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    final = bench.finals("7")[0]
    assert final.gpu_memory_peak_bytes is None
    assert final.gpu_observed_us == pytest.approx(105 * SECOND, abs=31 * SECOND)
    assert final.gpu_busy_us is None  # of half that time it could be told, and the mean is of all of it
    told = [(one.gpu_id, one.value) for one in bench.facts.of(GpuValueAbsent) if one.reason == "not_supported"]
    assert told.count((B, "energy_microjoules")) == 1
    assert len(told) == len(set(told))


def test_a_vendor_without_gpus_is_no_reason_for_what_anothers_do_not_give() -> None:
    """On every node with GPUs of one vendor the other's source has none."""
    none = Gpus(FakeClock())
    none.problem = NO_GPUS
    bench = GpuBench(others=[none])
    bench.gpus.values[B]["energy_microjoules"] = None

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(40)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    assert bench.finals("7")[0].absent["energy_gpu_microjoules"] == "not_supported"


def test_a_look_at_another_time_of_day_and_a_late_look_count_nothing() -> None:
    """A clock that is set back, or forward by more than three intervals, is a gap."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(20)
        bench.clock.set_wall_by(-100)
        await asyncio.sleep(15)
        bench.clock.set_wall_by(100)
        await asyncio.sleep(15)

    bench.play(scene)
    had = of(bench.watch.final("ref-7", NodeUsage()))[B]
    assert (had.observed_us or 0) <= 31 * SECOND


def test_no_gpus_is_no_failure_and_is_asked_again_later() -> None:
    """A driver may be loaded while the daemon runs."""
    bench = GpuBench()
    bench.gpus.problem = NO_GPUS

    async def scene() -> None:
        await asyncio.sleep(15.0 * REST_LOOKS)
        assert len(bench.gpus.looks) == 1
        await asyncio.sleep(30.0)
        assert len(bench.gpus.looks) == 2

    bench.play(scene)
    assert bench.facts.of(GpuLookFailed) == []


def test_looks_because_runs_begin_do_not_crowd() -> None:
    """Twenty jobs in a second are a few looks, not twenty."""
    bench = GpuBench()

    async def scene() -> None:
        await asyncio.sleep(3)
        before = len(bench.gpus.looks)
        for number in range(20):
            bench.watch.opened(open_run(str(number)))
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        assert 2 <= len(bench.gpus.looks) - before <= 4

    bench.play(scene)


def test_the_end_of_a_run_without_gpus_asks_no_driver() -> None:
    """Where there are no energy counters either, there is nothing to look at."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("9")
        await asyncio.sleep(3)
        before = len(bench.gpus.looks)
        bench.over("9")
        await asyncio.sleep(1)
        assert len(bench.gpus.looks) == before

    bench.play(scene)
    assert bench.finals("9")[0].gpus == ()


def test_runs_it_does_not_know_keep_their_usage() -> None:
    """What the sampler says of them is passed on."""
    bench = GpuBench()
    usage = NodeUsage(cpu_usage_us=5)
    bench.watch.closed("ref-x", 1)
    assert bench.watch.so_far("ref-x", usage) is usage
    assert bench.watch.final("ref-x", usage) is usage


def test_a_read_that_fails_costs_that_look() -> None:
    """Whose process it is stays unknown then; the failure is told by who reads."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(2)
        bench.gpus.use(B, 50.0, 700)
        bench.places.failing = True
        await asyncio.sleep(20)

    bench.play(scene)
    assert bench.shown("7").devices
    assert {fact.source for fact in bench.facts.of(SampleSourceFailed)} == {"GpuWatch"}


def test_a_job_that_has_no_series_is_watched_all_the_same() -> None:
    """The cap on jobs is of the page alone."""
    bench = GpuBench()

    async def scene() -> None:
        for number in range(bench.board.max_jobs):
            bench.board.open(open_run(f"x{number}"))
        bench.job("7", "0")
        await asyncio.sleep(30)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    assert bench.finals("7")[0].energy_gpu_microjoules


def test_a_run_that_ends_with_the_daemon_opens_no_driver_again() -> None:
    """What was known at the last look is what is reported."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(20)

    bench.play(scene)
    looks = len(bench.gpus.looks)
    asyncio.run(bench.watch.ended({"ref-7": Ended(ended_us=bench.clock.time_us())}))
    assert len(bench.gpus.looks) == looks
    assert bench.watch.final("ref-7", NodeUsage()).energy_gpu_microjoules


def test_a_counter_that_leaps_is_not_believed() -> None:
    """A driver that writes nonsense into its counter once: those intervals are bridged by power."""
    bench = GpuBench()
    bench.gpus.values[B] |= {"power_milliwatts": 100_000}

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(20)
        bench.gpus.values[B] |= {"energy_microjoules": 2**62}
        await asyncio.sleep(15)
        del bench.gpus.values[B]["energy_microjoules"]
        await asyncio.sleep(30)
        bench.over("7")
        await asyncio.sleep(1)

    bench.play(scene)
    (gpu,) = bench.finals("7")[0].gpus
    assert gpu.energy_microjoules == pytest.approx(65 * 100 * SECOND, rel=0.01)
    assert gpu.energy_method == "mixed"


@pytest.mark.parametrize("set_by", [-3600, 3600])
def test_idle_time_goes_on_when_the_clock_is_set(set_by: int) -> None:
    """As on a node whose clock is wrong until its first answer from a time server."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(40)
        bench.clock.set_wall_by(set_by)
        await asyncio.sleep(200)
        (shown,) = bench.shown("7").devices
        assert shown.idle_seconds == pytest.approx(240, abs=17)

    bench.play(scene)


def test_who_asks_for_looks_without_end_fills_no_table() -> None:
    """Rows of every GPU of the node come twice a second at most; what a driver tells once is never left out."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(1)
        before = len(bench.gpu_rows)
        for number in range(40):
            bench.gpus.values[A]["events"] = (GpuEvent(time_us=number, code=79),) if number == 13 else ()
            await bench.watch.asked("slurm-7", 0)
        assert len(bench.gpus.looks) > 40
        added = bench.gpu_rows[before:]
        assert len(added) <= 2 * (2 + 40 * 0.05 / 0.5)
        assert [event.code for row in added for event in row.reading.events] == [79]

    bench.play(scene)


def test_slurms_files_that_hang_hold_up_no_look_and_no_sampling() -> None:
    """On a file system of the network whose server is gone; when it is back, the GPUs are found."""
    bench = GpuBench(energy=True, files_seconds=0.01)
    bench.conf_opens.clear()

    async def scene() -> None:
        bench.job("7", "0")
        await bench.watch.asked("slurm-7", 0)
        await bench.watch.asked("slurm-7", 0)
        assert len(bench.gpus.looks) == 2
        assert len(bench.conf_reads) == 1
        assert bench.shown("7").unresolved == 1
        await bench.sampler.look_now("slurm-7", 0)
        assert bench.board.jobs["ref-7"].reading is not None
        bench.conf_opens.set()
        async with asyncio.timeout(10):
            while bench.shown("7").unresolved:
                bench.clock.advance(1)
                await bench.watch.asked("slurm-7", 0)
        assert [one.reading.gpu.gpu_id for one in bench.shown("7").devices] == [B]

    try:
        asyncio.run(scene())
    finally:
        bench.conf_opens.set()


def test_a_daemon_stops_while_slurms_files_hang() -> None:
    bench = GpuBench(files_seconds=0.01)
    bench.conf_opens.clear()

    async def scene() -> None:
        bench.job("7", "0")
        stop = asyncio.Event()
        await bench.watch.asked("slurm-7", 0)
        stop.set()
        await bench.watch.run(stop)
        bench.conf_opens.set()

    asyncio.run(scene())
    assert bench.gpus.closed


def test_files_that_cannot_be_understood_at_all_are_told() -> None:
    bench = GpuBench()
    bench.conf_fails = True

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(16)
        assert bench.shown("7").unresolved == 1

    bench.play(scene)
    told = bench.facts.of(SampleSourceFailed)
    assert {(one.source, one.reason) for one in told} == {("gres.conf", "RuntimeError: broken")}


@pytest.mark.parametrize(("takes", "apart"), [(0.0, 0.05), (0.1, 0.5), (3.0, 3.0)])
def test_who_asks_without_end_takes_a_fifth_of_the_drivers_time_at_most(takes: float, apart: float) -> None:
    """A driver that is slow is slow for all who use it; one that hangs is waited for and no longer."""
    bench = GpuBench()

    async def scene() -> None:
        bench.job("7", "0")
        await asyncio.sleep(1)
        bench.gpus.slow_seconds = takes
        for _ in range(6):
            await bench.watch.asked("slurm-7", 0)
        asked = bench.gpus.looks[-4:]
        assert min(after - before for before, after in pairwise(asked)) >= apart - 1e-6

    bench.play(scene)

"""The page of /metrics: exact text, what is absent, hostile names, and that Prometheus's own tools accept it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from jobtrail.adapters.exposition import FAMILIES, PLAIN_JOBS, Exposition
from jobtrail.core.ports import OpenRun
from jobtrail.core.runs.board import Board, GpuDevice, JobGpus, NodeGpu
from jobtrail.domain.benchmarks.settling import LastValidRun
from jobtrail.domain.events import GpuUsage, NodeUsage
from jobtrail.domain.gpus import Gpu, GpuReading
from jobtrail.domain.samples import NodeReading, Reading, Target
from jobtrail.domain.slurm import NodeRecord
from jobtrail.domain.states import State
from tests.requirements import require_tool

GOLDEN = Path(__file__).parents[1] / "fixtures" / "metrics" / "golden.prom"
NOW_US = 1_800_000_100_000_000
STARTED_US = 1_800_000_000_000_000
HOSTILE = (
    'quote"',
    "back\\slash",
    "new\nline",
    '\\"',
    '"} 1\nhpc_fake{x="',
    "ünï→€",
    "tab\tret\r",
    "\x00\x1b[31m",
    "%s%d",
    "",
)
WHOLE = Reading(
    time_us=STARTED_US + 90_000_000, source="cgroup_v2", cpu_usage_us=150_000_001, cpu_user_us=120_000_000,
    cpu_system_us=30_000_001, cpu_throttled_periods=7, cpu_throttled_us=1_500_000, memory_current_bytes=1 << 30,
    memory_peak_bytes=3 << 29, memory_limit_bytes=1 << 32, memory_rss_bytes=900_000_000, memory_cache_bytes=100_000_000,
    memory_shmem_bytes=4096, oom_kills=2, io_read_bytes=123, io_write_bytes=0, processes=3, threads=17,
    pressure_cpu_some_us=1, pressure_cpu_full_us=0, pressure_memory_some_us=20, pressure_memory_full_us=10,
    pressure_io_some_us=3_000_000, pressure_io_full_us=2_500_000,
)  # fmt: skip
WHOLE_USAGE = NodeUsage(
    cpu_usage_us=150_000_001, cpu_user_us=120_000_000, cpu_system_us=30_000_001, cpu_throttled_us=1_500_000,
    memory_peak_bytes=3 << 29, oom_kills=2, io_read_bytes=123, io_write_bytes=0,
)  # fmt: skip
WHOLE_GPU = GpuReading(
    gpu=Gpu(
        gpu_id="GPU-a", vendor="nvidia", minor=3, index=0, pci_bus_id="00000000:10:00.0", name="NVIDIA H100",
        memory_total_bytes=1 << 36, driver_version="575.57.08",
    ),
    time_us=NOW_US, utilization_percent=70, memory_utilization_percent=20.5, memory_used_bytes=1 << 35,
    power_milliwatts=312_345, power_limit_milliwatts=700_000, energy_microjoules=5_000_012_345_000,
    temperature_celsius=61, memory_temperature_celsius=70, sm_clock_hertz=1_980_000_000,
    memory_clock_hertz=2_619_000_000, throttle_reasons=("gpu_idle",), pcie_receive_bytes_per_second=1_500_000,
    pcie_transmit_bytes_per_second=0, nvlink_receive_bytes=12, nvlink_transmit_bytes=13, ecc_corrected=3,
    ecc_uncorrected=0, remapped_rows_corrected=1, remapped_rows_uncorrected=2, remapped_rows_pending=True,
    sm_active_percent=81.25, sm_occupancy_percent=42.5, tensor_active_percent=63.75, fp64_active_percent=0.0,
    fp32_active_percent=12.5, fp16_active_percent=6.25, dram_active_percent=33.5,
)  # fmt: skip
BARE_GPU = GpuReading(gpu=Gpu(gpu_id="0000:03:00.0", vendor="amd"), time_us=NOW_US)

OWN_NODE = NodeRecord(
    name="n1", state="mixed", cpus=16, cpus_allocated=5, cpu_load=9.99, memory_bytes=1 << 37,
    memory_allocated_bytes=1 << 33, gpus=0, gpus_allocated=0,
)  # fmt: skip
OTHER_NODE = NodeRecord(
    name="n2", state="idle", flags=("not_responding", "drain"), cpus=64, cpus_allocated=0, cpu_load=0.0,
    memory_bytes=1 << 38, memory_allocated_bytes=0, gpus=4, gpus_allocated=1,
)  # fmt: skip
BARE_NODE = NodeRecord(name="n3", state="down")

BENCHMARK = LastValidRun(
    cluster="c1", recipe="chat", model="llama", hardware="00aa11bb", ended_us=1_799_990_000_500_000,
    values={
        ("output_token_throughput", "value"): 2562.549214562589, ("total_token_throughput", "value"): 7697.5,
        ("request_throughput", "value"): 80.0, ("request_goodput", "value"): 0.0, ("error_rate", "value"): 0.0,
        **{
            (metric, stat): seconds
            for metric in ("time_to_first_token", "time_per_output_token", "inter_token_latency", "request_latency",
                           "batch_latency")
            for stat, seconds in (("mean", 0.0125), ("p50", 0.01), ("p90", 0.02), ("p95", 0.03), ("p99", 0.04),
                                  ("p99.9", 0.5), ("std", 0.001))
        },
        ("output_tokens_per_joule", "value"): 1.25, ("emissions_per_million_output_tokens", "value"): 23.5,
    },
    energies={("gpu", "bench"): 6144.0, ("total", "bench"): 7000.5, ("total", "job"): 9000.25},
    regressions={"output_token_throughput": True, "time_to_first_token": False},
    baseline_ratios={"output_token_throughput": 0.85, "time_to_first_token": 1.01},
    runs_by_status={"ok": 12, "failed": 1},
)  # fmt: skip
BARE_BENCHMARK = LastValidRun(cluster="", recipe="", model="", hardware="22cc33dd", ended_us=1, values={})

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class StillClock:
    """A clock that stands at NOW_US."""

    def time_us(self) -> int:
        """The one time."""
        return NOW_US

    def monotonic(self) -> float:
        """The one time."""
        return 100.0


def run(ref: str, job_id: str = "slurm-1", node: str = "n1", **facts: Any) -> OpenRun:
    """An open run."""
    target = Target(ref=ref, cluster=facts.pop("cluster", "c1"), job_id=job_id, node=node)
    return OpenRun(target=target, started_us=facts.pop("started_us", STARTED_US), **facts)


def exposition(board: Board, own: bytes = b"") -> Exposition:
    """An exposition of `board`."""
    return Exposition(board, lambda: own, node="n1", clock=StillClock())


def parsed(page: bytes) -> Samples:
    """The page as prometheus_client's parser reads it; a series that comes twice is an error."""
    found: Samples = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} comes twice"
            found[key] = sample.value
    return found


def value(page: bytes, name: str, **labels: str) -> float | None:
    """The one value of a series, or None when it is not there."""
    return parsed(page).get((name, frozenset(labels.items())))


def names(page: bytes) -> set[str]:
    """Names of the series of a page."""
    return {name for name, _ in parsed(page)}


def full_board() -> Board:
    """One job of each kind: whole, barely known, ended, and never read."""
    board = Board(max_jobs=10)
    board.open(
        run("a", "slurm-1", user_name="alice", account="physics", partition="batch", qos="normal", cpus=4, gpus=0)
    )
    board.update("a", WHOLE, 37.5, WHOLE_USAGE)
    board.open(run("b", "slurm-2", user_name="bob", cpus=1))
    only_usage = NodeUsage(cpu_usage_us=2_000_000)
    board.update("b", Reading(time_us=NOW_US, source="cgroup_v1", cpu_usage_us=2_000_000), None, only_usage)
    board.open(run("c", "slurm-3", user_name="carol", gpus=2))
    board.update("c", WHOLE, 0.0, WHOLE_USAGE)
    board.end("c", STARTED_US + 95_500_000, 0.0)
    board.open(run("d", "local-4", cluster="local"))
    energy = NodeUsage(
        energy_gpu_microjoules=1_500_000, energy_cpu_microjoules=250_001, energy_dram_microjoules=0,
        emissions_micrograms=52_632,
    )  # fmt: skip
    board.update_gpus("a", JobGpus(usage=energy))
    devices = (
        GpuDevice(reading=WHOLE_GPU, usage=GpuUsage(gpu_id="GPU-a", energy_microjoules=1_500_000), idle_seconds=12.25),
        GpuDevice(reading=BARE_GPU, usage=GpuUsage(gpu_id="0000:03:00.0")),
    )
    board.update_gpus(
        "c", JobGpus(usage=energy, devices=devices, active=1, unresolved=0, mismatches=1, usage_percent=70.0)
    )
    board.gpus = (NodeGpu(reading=WHOLE_GPU, jobs=1), NodeGpu(reading=BARE_GPU, jobs=0))
    board.node = NodeReading(
        time_us=NOW_US, cpus=8, memory_total_bytes=1 << 36, memory_used_bytes=1 << 34, load_1m=1.25
    )
    board.node_cpu_percent = 12.5
    board.job_states = {"running": 3, "completed": 120}
    board.suspended_jobs = (("lab", "slurm-2"), ("other", "slurm-2"))
    board.shed_jobs_total = 1
    board.cluster_nodes = (OWN_NODE, OTHER_NODE, BARE_NODE)
    board.benchmarks.show([BENCHMARK, BARE_BENCHMARK])
    return board


def check_with_promtool(page: bytes) -> None:
    """`promtool check metrics` finds nothing to say about the page."""
    promtool = require_tool("promtool", "whether Prometheus's own linter accepts /metrics stays unchecked")
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_the_page_of_a_known_board_is_the_golden_one() -> None:
    """Names, types, labels and values do not change by accident; JOBTRAIL_WRITE_GOLDEN=1 writes them anew."""
    page = exposition(full_board()).render()
    if os.environ.get("JOBTRAIL_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_bytes(page)
    assert page == GOLDEN.read_bytes()


def test_promtool_accepts_the_golden_page() -> None:
    """All names and types follow Prometheus's rules."""
    check_with_promtool(GOLDEN.read_bytes())


def test_every_family_can_be_on_the_page() -> None:
    """The golden page leaves no family untried."""
    on_page = {family.name for family in text_string_to_metric_families(GOLDEN.read_text())}
    assert on_page == {
        family.name.removesuffix("_total") if family.kind == "counter" else family.name for family in FAMILIES
    }


def test_values_and_units() -> None:
    """µs become seconds exactly, and nothing else changes its unit."""
    page = exposition(full_board()).render()
    job = {"job_id": "slurm-1", "node": "n1"}
    assert value(page, "hpc_job_cpu_seconds_total", **job, mode="system") == 30.000001
    assert value(page, "hpc_job_memory_peak_bytes", **job) == 3 << 29
    assert value(page, "hpc_job_pressure_seconds_total", **job, resource="io", kind="full") == 2.5
    assert value(page, "hpc_job_sample_age_seconds", **job) == 10.0
    assert value(page, "hpc_job_runtime_seconds", **job, user="alice") == 100.0
    ended = {"job_id": "slurm-3", "node": "n1", "user": "carol"}
    assert value(page, "hpc_job_runtime_seconds", **ended) == 95.5
    assert value(page, "hpc_job_cpu_usage_percent", **ended) == 0.0
    assert value(page, "hpc_node_job_count", node="n1") == 3
    assert value(page, "hpc_job_total") == 123
    assert [value(page, "hpc_job_state_total", state=state) for state in ("running", "failed")] == [3, 0]


def test_what_is_unknown_has_no_series() -> None:
    """Absent is not 0: a job without readings has its info and its runtime, and nothing measured."""
    board = Board(max_jobs=10)
    board.open(run("a", user_name="u"))
    page = exposition(board).render()
    assert names(page) == {
        "hpc_job_info", "hpc_job_runtime_seconds", "hpc_node_job_count", "jobtrail_series_shed_jobs_total"
    }  # fmt: skip
    assert b"hpc_job_memory" not in page, "a family without a series has no header either"


def test_a_zero_is_a_value() -> None:
    """A counter that was read as 0 is exported, also where other jobs have none."""
    page = exposition(full_board()).render()
    assert value(page, "hpc_job_io_write_bytes_total", job_id="slurm-1", node="n1") == 0
    assert value(page, "hpc_job_io_write_bytes_total", job_id="slurm-2", node="n1") is None
    assert value(page, "hpc_job_gpus_allocated", job_id="slurm-1", node="n1") == 0


@pytest.mark.parametrize(
    ("user", "system", "usage", "expected"),
    [
        (3, 2, 6, {"user": 3e-6, "system": 2e-6}),
        (3, None, 6, {"all": 6e-6}),
        (None, 2, 6, {"all": 6e-6}),
        (None, None, 6, {"all": 6e-6}),
        (None, None, None, {}),
    ],
)
def test_modes_never_count_time_twice(
    user: int | None, system: int | None, usage: int | None, expected: dict[str, float]
) -> None:
    """A sum over modes is the job's CPU time, whether or not the split is known."""
    board = Board(max_jobs=10)
    for ref in ("a", "b"):
        board.open(run(ref, f"slurm-{ref}"))
    board.update("a", WHOLE, None, NodeUsage(cpu_user_us=user, cpu_system_us=system, cpu_usage_us=usage))
    board.update("b", WHOLE, None, WHOLE_USAGE)
    page = exposition(board).render()
    modes = {
        mode: value(page, "hpc_job_cpu_seconds_total", job_id="slurm-a", node="n1", mode=mode)
        for mode in ("user", "system", "all")
    }
    assert {mode: seconds for mode, seconds in modes.items() if seconds is not None} == expected


def test_states_are_absent_until_the_store_has_told_them() -> None:
    """Unknown counts are not 0."""
    board = Board(max_jobs=1)
    assert b"hpc_job_state_total" not in exposition(board).render()
    board.job_states = {}
    assert b"hpc_job_suspended" not in exposition(board).render()
    assert value(exposition(board).render(), "hpc_job_state_total", state=State.RUNNING) == 0


def test_the_nodes_of_the_cluster_are_told_as_slurm_tells_them() -> None:
    """A node of which Slurm does not say a value has no series of it."""
    page = exposition(full_board()).render()
    assert value(page, "hpc_node_state", node="n1", state="mixed", flags="") == 1
    assert value(page, "hpc_node_state", node="n2", state="drained", flags="drain,not_responding") == 1
    assert value(page, "hpc_node_total_cpus", node="n2") == 64
    assert value(page, "hpc_node_total_memory_bytes", node="n2") == 1 << 38
    assert value(page, "hpc_node_cpu_load", node="n2") == 0
    assert value(page, "hpc_node_gpus_allocated", node="n2") == 1
    assert [name for name, labels in parsed(page) if ("node", "n3") in labels] == ["hpc_node_state"]


def test_of_its_own_node_the_page_tells_what_was_measured() -> None:
    """One node is one series of a family: Slurm's word stands in only while nothing is measured."""
    board = full_board()
    page = exposition(board)
    assert value(page.render(), "hpc_node_cpu_load", node="n1") == 1.25
    assert value(page.render(), "hpc_node_cpus_allocated", node="n1") == 5
    board.node = None
    assert value(page.render(), "hpc_node_cpu_load", node="n1") == 9.99
    board.node = NodeReading(time_us=0, load_1m=float("nan"))
    assert value(page.render(), "hpc_node_cpu_load", node="n1") == 9.99
    assert value(page.render(), "hpc_node_total_cpus", node="n1") == 16


def test_nodes_change_come_and_go() -> None:
    """What is kept between pages never shows an old value or a node that is gone."""
    board = Board(max_jobs=1)
    page = exposition(board)
    board.cluster_nodes = (NodeRecord(name="a", state="idle", cpus=1), NodeRecord(name="b", state="idle", cpus=2))
    assert value(page.render(), "hpc_node_state", node="a", state="idle", flags="") == 1
    board.cluster_nodes = (NodeRecord(name="b", state="down", cpus=3),)
    second = page.render()
    assert [value(second, "hpc_node_total_cpus", node=node) for node in ("a", "b")] == [None, 3]
    assert [labels for name, labels in parsed(second) if name == "hpc_node_state"] == [
        frozenset({("node", "b"), ("state", "down"), ("flags", "")})
    ]
    board.cluster_nodes = None
    assert names(page.render()) == {"hpc_node_job_count", "jobtrail_series_shed_jobs_total"}


@pytest.mark.parametrize(
    ("state", "flags", "shown"),
    [
        ("idle", ("drain",), "drained"),
        ("idle", ("drain", "completing"), "draining"),
        ("mixed", ("drain",), "draining"),
        ("allocated", ("drain",), "draining"),
        ("allocated", ("completing",), "allocated"),
        ("down", ("drain",), "down"),
    ],
)
def test_a_node_that_takes_no_jobs_is_no_idle_one(state: str, flags: tuple[str, ...], shown: str) -> None:
    """A sum by state must not count a drained node as idle; one that is down is down before all else."""
    board = Board(max_jobs=1)
    board.cluster_nodes = (NodeRecord(name="a", state=state, flags=flags),)
    page = exposition(board).render()
    assert value(page, "hpc_node_state", node="a", state=shown, flags=",".join(sorted(flags))) == 1


def test_readings_change_and_jobs_come_and_go() -> None:
    """What is kept between pages never shows an old value or a job that is gone."""
    board = Board(max_jobs=10)
    page = exposition(board)
    for number in range(3):
        board.open(run(f"r{number}", f"slurm-{number}"))
        board.update(f"r{number}", Reading(time_us=NOW_US, source="x", processes=number), None, NodeUsage())
    first = page.render()
    assert [value(first, "hpc_job_processes", job_id=f"slurm-{n}", node="n1") for n in range(3)] == [0, 1, 2]
    del board.jobs["r1"]
    board.update("r2", Reading(time_us=NOW_US, source="x", processes=9), None, NodeUsage())
    second = page.render()
    assert [value(second, "hpc_job_processes", job_id=f"slurm-{n}", node="n1") for n in range(3)] == [0, None, 9]
    board.update("r0", Reading(time_us=NOW_US, source="x"), None, NodeUsage())
    third = page.render()
    assert [value(third, "hpc_job_processes", job_id=f"slurm-{n}", node="n1") for n in range(3)] == [None, None, 9]
    board.jobs.clear()
    assert b"hpc_job_" not in page.render()


def test_rendering_changes_nothing() -> None:
    """A page may be made any number of times: only the board's own `scraped` counts scrapes."""
    board = full_board()
    page = exposition(board)
    assert page.render() == page.render() == page.render()
    assert list(board.jobs) == ["a", "b", "c", "d"]
    assert board.jobs["c"].scrapes_left == 2


def test_a_requeued_job_is_one_series() -> None:
    """While the first run is in grace the second may run: Prometheus refuses a page with a series twice."""
    board = Board(max_jobs=10)
    board.open(run("first", user_name="u"))
    board.end("first", NOW_US, 0.0)
    board.open(run("second", user_name="u", started_us=NOW_US - 1_000_000))
    page = exposition(board).render()
    assert value(page, "hpc_job_runtime_seconds", job_id="slurm-1", node="n1", user="u") == 1.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_absent(bad: float) -> None:
    """A rate that cannot be told is absent, never NaN; the other jobs keep theirs."""
    board = Board(max_jobs=10)
    for ref, percent in (("a", 1.5), ("b", bad)):
        board.open(run(ref, f"slurm-{ref}", user_name="u"))
        board.update(ref, WHOLE, percent, WHOLE_USAGE)
    board.node_cpu_percent, board.node = bad, NodeReading(time_us=0)
    page = exposition(board).render()
    assert value(page, "hpc_job_cpu_usage_percent", job_id="slurm-a", node="n1", user="u") == 1.5
    assert value(page, "hpc_job_cpu_usage_percent", job_id="slurm-b", node="n1", user="u") is None
    assert value(page, "hpc_node_cpu_usage_percent", node="n1") is None


def test_a_clock_set_back_gives_no_negative_time() -> None:
    """Ages and run times stop at 0."""
    board = Board(max_jobs=10)
    board.open(run("a", user_name="u", started_us=NOW_US + 5))
    board.update("a", Reading(time_us=NOW_US + 5, source="x"), None, NodeUsage())
    page = exposition(board).render()
    assert value(page, "hpc_job_runtime_seconds", job_id="slurm-1", node="n1", user="u") == 0
    assert value(page, "hpc_job_sample_age_seconds", job_id="slurm-1", node="n1") == 0


def hostile_board(texts: tuple[str, ...]) -> Board:
    """A board whose every name is one of `texts`."""
    board = Board(max_jobs=100)
    for number, text in enumerate(texts):
        facts = dict.fromkeys(("user_name", "account", "partition", "qos"), text)
        board.open(run(f"r{number}", f"slurm-{number}", node=f"n{text}", cluster=text, **facts))
        board.update(f"r{number}", WHOLE, 1.0, WHOLE_USAGE)
    board.cluster_nodes = tuple(NodeRecord(name=f"m{text}", state="idle", flags=(text,)) for text in texts)
    board.benchmarks.show(
        [
            LastValidRun(
                cluster=text, recipe=text, model=text, hardware=text, ended_us=NOW_US, values={},
                regressions={text: True}, runs_by_status={text: 1},
            )
            for text in texts
        ]
    )  # fmt: skip
    return board


def test_promtool_accepts_a_page_of_hostile_names() -> None:
    """Whatever a job, user or partition is called, the page is valid."""
    check_with_promtool(exposition(hostile_board(HOSTILE)).render())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_is_read_back_as_it_was(text: str) -> None:
    """Escaping loses nothing: Prometheus's parser gives back every name, character for character."""
    samples = parsed(exposition(hostile_board((text,))).render())
    info = [dict(labels) for name, labels in samples if name == "hpc_job_info"]
    assert info == [
        {
            "job_id": "slurm-0",
            "node": f"n{text}",
            **dict.fromkeys(("user", "account", "partition", "qos", "cluster"), text),
        }
    ]
    assert all(number == 1 for (name, _), number in samples.items() if name == "hpc_job_info")


def test_half_a_character_does_not_break_the_page() -> None:
    """A lone surrogate has no UTF-8; it becomes a question mark."""
    page = exposition(hostile_board(("a\udc80b",))).render()
    assert {dict(labels)["user"] for name, labels in parsed(page) if name == "hpc_job_info"} == {"a?b"}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(0, 2**63 - 1), st.none() | st.integers(0, 2**53), st.none() | st.floats(0, 1e9),
        ),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_every_value_is_read_back_and_every_absence_stays_one(
    jobs: list[tuple[int | None, int | None, float | None]],
) -> None:
    """Whichever jobs have a value, each series carries its own job's."""
    board = Board(max_jobs=100)
    for number, (memory, cpu, percent) in enumerate(jobs):
        board.open(run(f"r{number}", f"slurm-{number}", user_name="u"))
        reading = Reading(time_us=NOW_US, source="x", memory_rss_bytes=memory)
        board.update(f"r{number}", reading, percent, NodeUsage(cpu_throttled_us=cpu))
    page = exposition(board).render()
    for number, (memory, cpu, percent) in enumerate(jobs):
        job = {"job_id": f"slurm-{number}", "node": "n1"}
        assert value(page, "hpc_job_memory_rss_bytes", **job) == memory
        assert value(page, "hpc_job_cpu_throttled_seconds_total", **job) == (None if cpu is None else cpu / 1e6)
        assert value(page, "hpc_job_cpu_usage_percent", **job, user="u") == percent


@pytest.mark.parametrize("jobs", [PLAIN_JOBS, PLAIN_JOBS + 1])
def test_seconds_are_the_same_numbers_on_a_long_page(jobs: int) -> None:
    """How seconds are written changes with the number of jobs; what is read back does not, and gaps stay gaps."""
    board = Board(max_jobs=jobs)
    throttled = [None if number % 7 == 3 else number**5 for number in range(jobs)]
    for number, microseconds in enumerate(throttled):
        board.open(run(f"r{number}", f"slurm-{number}"))
        usage = NodeUsage(cpu_throttled_us=microseconds)
        board.update(f"r{number}", Reading(time_us=NOW_US, source="x"), None, usage)
    page = exposition(board).render()
    assert (b" 0e-6\n" in page) == (jobs > PLAIN_JOBS)
    read = parsed(page)
    for number, microseconds in enumerate(throttled):
        labels = frozenset({("job_id", f"slurm-{number}"), ("node", "n1")})
        expected = None if microseconds is None else microseconds / 1e6
        assert read.get(("hpc_job_cpu_throttled_seconds_total", labels)) == expected


def test_the_daemons_own_figures_follow() -> None:
    """The page ends with what the daemon says of itself."""
    assert exposition(Board(max_jobs=1), own=b"jobtrail_x 1\n").render().endswith(b"\njobtrail_x 1\n")


def test_of_a_job_that_runs_again_the_newer_runs_gpus_are_shown() -> None:
    """One job and node is one series, also while the run before is in grace; and labels follow the GPUs."""
    board = Board(max_jobs=10)
    page = exposition(board)
    for ref, joules in (("old", 1), ("new", 2)):
        board.open(run(ref, "slurm-1"))
        usage = NodeUsage(energy_gpu_microjoules=joules * 1_000_000)
        reading = BARE_GPU if ref == "old" else WHOLE_GPU
        device = GpuDevice(reading=reading, usage=GpuUsage(gpu_id=reading.gpu.gpu_id), idle_seconds=float(joules))
        board.update_gpus(ref, JobGpus(usage=usage, devices=(device,), active=0, unresolved=0))
        text = page.render()
        labels = {"job_id": "slurm-1", "node": "n1"}
        assert value(text, "hpc_job_energy_joules_total", component="gpu", **labels) == joules
        of_gpu = {**labels, "gpu_vendor": reading.gpu.vendor, "gpu_id": reading.gpu.gpu_id}
        assert value(text, "hpc_job_gpu_idle_seconds", **of_gpu) == joules
    board.update_gpus("new", JobGpus(usage=NodeUsage()))
    board.update_gpus("old", JobGpus(usage=NodeUsage()))
    assert not {name for name in names(page.render()) if "gpu" in name or "energy" in name}


LLAMA = {"cluster": "c1", "recipe": "chat", "model": "llama", "hardware": "00aa11bb"}


def with_benchmarks(*runs: LastValidRun) -> bytes:
    """The page of a board with these benchmarks alone."""
    board = Board(max_jobs=1)
    board.benchmarks.show(runs)
    return exposition(board).render()


def test_benchmarks_are_told_by_recipe_model_and_hardware() -> None:
    """Percentiles are quantiles, the mean is a series of its own, and each word of the labels is the run's."""
    page = with_benchmarks(BENCHMARK)
    assert value(page, "hpc_benchmark_output_tokens_per_second", **LLAMA) == 2562.549214562589
    quantiles = {
        dict(labels)["quantile"]: seconds
        for (name, labels), seconds in parsed(page).items()
        if name == "hpc_benchmark_time_to_first_token_seconds"
    }
    assert quantiles == {"0.5": 0.01, "0.9": 0.02, "0.95": 0.03, "0.99": 0.04}
    assert value(page, "hpc_benchmark_time_to_first_token_seconds_mean", **LLAMA) == 0.0125
    assert value(page, "hpc_benchmark_energy_joules", **LLAMA, domain="total", window="job") == 9000.25
    assert value(page, "hpc_benchmark_last_run_timestamp_seconds", **LLAMA) == 1_799_990_000.5
    assert value(page, "hpc_benchmark_regression", **LLAMA, metric="output_token_throughput") == 1
    assert value(page, "hpc_benchmark_regression", **LLAMA, metric="time_to_first_token") == 0
    assert value(page, "hpc_benchmark_baseline_ratio", **LLAMA, metric="output_token_throughput") == 0.85
    assert value(page, "hpc_benchmark_runs", **LLAMA, status="failed") == 1


def test_what_a_benchmark_did_not_measure_has_no_series() -> None:
    """No 0 and no NaN stands for unknown; a 0 that was measured is told."""
    bare = names(with_benchmarks(BARE_BENCHMARK))
    assert {name for name in bare if name.startswith("hpc_benchmark")} == {"hpc_benchmark_last_run_timestamp_seconds"}
    odd = {("output_token_throughput", "value"): float("nan"), ("request_throughput", "value"): float("inf")}
    page = with_benchmarks(LastValidRun(**{**LLAMA, "ended_us": 1, "values": odd}))  # type: ignore[arg-type]
    assert "hpc_benchmark_output_tokens_per_second" not in names(page)
    assert "hpc_benchmark_requests_per_second" not in names(page)
    assert value(with_benchmarks(BENCHMARK), "hpc_benchmark_goodput_requests_per_second", **LLAMA) == 0.0


def test_benchmarks_come_change_and_go() -> None:
    """The text is kept while the runs are the same, and is never that of others."""
    board = Board(max_jobs=1)
    page = exposition(board)
    assert b"hpc_benchmark" not in page.render()
    board.benchmarks.show([BENCHMARK])
    first = page.render()
    board.benchmarks.show([BENCHMARK])
    assert page.render() == first
    board.benchmarks.show([BENCHMARK, BARE_BENCHMARK])
    assert len(parsed(page.render())) == len(parsed(first)) + 1
    board.benchmarks.clear()
    assert b"hpc_benchmark" not in page.render()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.text(max_size=20), st.text(max_size=20))
def test_any_recipe_and_model_is_read_back_as_it_was(recipe: str, model: str) -> None:
    """Whoever names a recipe can neither break the page nor forge a series."""
    labels = {**LLAMA, "recipe": recipe, "model": model}
    page = with_benchmarks(LastValidRun(**labels, ended_us=2_000_000, values={}))  # type: ignore[arg-type]
    assert value(page, "hpc_benchmark_last_run_timestamp_seconds", **labels) == 2.0


def test_a_full_page_of_benchmarks_is_made_in_no_time() -> None:
    """The cap's worth of runs is rendered once of each settling; the event loop waits for it."""
    runs = [LastValidRun(**{**msgspec.structs.asdict(BENCHMARK), "recipe": f"r{number}"}) for number in range(1000)]
    board = Board(max_jobs=1)
    board.benchmarks.show(runs)
    page = exposition(board)
    started = time.thread_time()
    page.render()
    assert time.thread_time() - started < 2.0  # it takes a tenth of one; others' work and waiting do not count
    assert len(board.benchmarks.page.runs if board.benchmarks.page else ()) == 1000

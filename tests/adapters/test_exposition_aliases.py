"""Names of other exporters on the page: exactly theirs, with their units, only where asked for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jobtrail.adapters.exposition import ALIAS_FAMILIES, Exposition
from jobtrail.core.ports import OpenRun
from jobtrail.core.runs.board import Board, GpuDevice, JobGpus, NodeGpu
from jobtrail.domain.events import GpuUsage, NodeUsage
from jobtrail.domain.gpus import Gpu, GpuReading
from tests.adapters.test_exposition import (
    BARE_GPU,
    HOSTILE,
    NOW_US,
    WHOLE,
    WHOLE_GPU,
    WHOLE_USAGE,
    StillClock,
    check_with_promtool,
    exposition,
    full_board,
    names,
    parsed,
    run,
    value,
)

ALL = ("slurm-job-exporter", "cgroup_exporter", "dcgm-exporter")
FREE_GPU = GpuReading(gpu=Gpu(gpu_id="GPU-free", vendor="nvidia", index=1), time_us=NOW_US, power_milliwatts=70_000)
MIG = GpuReading(
    gpu=Gpu(gpu_id="MIG-1", vendor="nvidia", index=0, parent_gpu_id="GPU-a", gpu_instance=9),
    time_us=NOW_US, memory_used_bytes=1 << 20,
)  # fmt: skip


def page_of(board: Board, *tools: str) -> bytes:
    """The page with the names of these tools."""
    return Exposition(board, lambda: b"", node="n1", clock=StillClock(), aliases=tools).render()


def of_uid(opened: OpenRun) -> OpenRun:
    """The run of the user with the number 1000."""
    return msgspec.structs.replace(opened, target=msgspec.structs.replace(opened.target, uid=1000))


def board_with_gpus() -> Board:
    """A job with a whole GPU, an instance of one and one of another vendor; and a GPU that no job holds."""
    board = Board(max_jobs=10)
    board.open(of_uid(run("a", "slurm-7", user_name="alice", account="physics", cpus=4)))
    board.update("a", WHOLE, 37.5, WHOLE_USAGE)
    devices = tuple(GpuDevice(reading=reading, usage=GpuUsage(gpu_id=reading.gpu.gpu_id, vendor=reading.gpu.vendor))
                    for reading in (WHOLE_GPU, MIG, BARE_GPU))  # fmt: skip
    board.update_gpus("a", JobGpus(usage=NodeUsage(), devices=devices, unresolved=0))
    board.gpus = (
        NodeGpu(reading=WHOLE_GPU, jobs=1),
        NodeGpu(reading=FREE_GPU, jobs=0),
        NodeGpu(reading=BARE_GPU, jobs=1),
    )
    return board


def only(page: bytes, tool: str) -> dict[Any, float]:
    """The series of a tool's names."""
    wanted = {family.name for family in ALIAS_FAMILIES[tool]}
    return {key: number for key, number in parsed(page).items() if key[0] in wanted}


def test_nothing_is_added_where_nothing_is_asked_for() -> None:
    assert page_of(full_board()) == exposition(full_board()).render()


@pytest.mark.parametrize("tool", ALIAS_FAMILIES)
def test_the_rest_of_the_page_stays_and_each_name_comes_once(tool: str) -> None:
    plain, more = parsed(page_of(board_with_gpus())), parsed(page_of(board_with_gpus(), tool))
    added = {name for name, _ in more} - {name for name, _ in plain}
    assert added == {family.name for family in ALIAS_FAMILIES[tool]}
    assert plain.items() <= more.items()


@pytest.mark.parametrize("tool", ALIAS_FAMILIES)
def test_each_series_has_the_labels_of_its_family(tool: str) -> None:
    page = page_of(board_with_gpus(), tool)
    of_family = {family.name: set(family.labels) for family in ALIAS_FAMILIES[tool]}
    for name, labels in only(page, tool):
        assert {label for label, _ in labels} == of_family[name], name


def test_values_and_units_of_slurm_job_exporter() -> None:
    page = page_of(board_with_gpus(), "slurm-job-exporter")
    job = {"user": "alice", "account": "physics", "slurmjobid": "7"}
    assert value(page, "slurm_job_memory_usage", **job) == 1 << 30
    assert value(page, "slurm_job_memory_max", **job) == 3 << 29
    assert value(page, "slurm_job_process_count", **job) == 3
    gpu = {**job, "gpu": "0", "gpu_type": "NVIDIA H100"}
    assert value(page, "slurm_job_power_gpu", **gpu) == 312_345  # mW
    assert value(page, "slurm_job_memory_usage_gpu", **gpu) == 1 << 35
    assert value(page, "slurm_job_utilization_gpu", **gpu) == 70
    assert value(page, "slurm_job_pcie_gpu", **gpu, direction="RX") == 1_500_000
    assert value(page, "slurm_job_pcie_gpu", **gpu, direction="TX") == 0
    assert value(page, "slurm_job_memory_usage_gpu", **job, gpu="MIG-1", gpu_type="") == 1 << 20


@pytest.mark.parametrize(
    ("source", "cgroup", "rss"),
    [
        ("cgroup_v1", "/slurm/uid_1000/job_7", 900_000_000),
        (
            "cgroup_v2",
            "/system.slice/slurmstepd.scope/job_7",
            1_000_000_000,
        ),  # with the page cache, as there
    ],
)
def test_values_of_cgroup_exporter(source: str, cgroup: str, rss: int) -> None:
    board = Board(max_jobs=2)
    board.open(of_uid(run("a", "slurm-7", user_name="alice", cpus=4)))
    board.update("a", msgspec.structs.replace(WHOLE, source=source), None, WHOLE_USAGE)
    page = page_of(board, "cgroup_exporter")
    assert value(page, "cgroup_cpu_total_seconds", cgroup=cgroup) == 150.000001
    assert value(page, "cgroup_memory_rss_bytes", cgroup=cgroup) == rss
    assert value(page, "cgroup_memory_total_bytes", cgroup=cgroup) == 1 << 32
    assert value(page, "cgroup_cpus", cgroup=cgroup) == 4
    assert value(page, "cgroup_io_pressure_seconds_total", cgroup=cgroup, type="full") == 2.5
    assert value(page, "cgroup_info", cgroup=cgroup, username="alice", uid="1000", jobid="7") == 1


def test_values_of_the_fork_that_jobstats_uses() -> None:
    page = page_of(board_with_gpus(), "jobstats")
    job = {"jobid": "7", "step": "", "task": ""}
    assert value(page, "cgroup_memory_rss_bytes", **job) == 900_000_000
    assert value(page, "cgroup_cpu_user_seconds", **job) == 120.0
    assert value(page, "cgroup_uid", jobid="7") == 1000


def test_values_and_units_of_dcgm_exporter() -> None:
    """Every GPU of NVIDIA's, those of jobs with hpc_job."""
    page = page_of(board_with_gpus(), "dcgm-exporter")
    found = only(page, "dcgm-exporter")
    by_gpu = {
        (name, dict(labels)["UUID"], dict(labels)["GPU_I_ID"], dict(labels)["hpc_job"]): number
        for (name, labels), number in found.items()
    }
    assert by_gpu["DCGM_FI_DEV_POWER_USAGE", "GPU-a", "", "7"] == pytest.approx(312.345)
    assert by_gpu["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "GPU-a", "", "7"] == pytest.approx(5_000_012_345)
    assert by_gpu["DCGM_FI_DEV_FB_USED", "GPU-a", "", "7"] == 32768
    assert by_gpu["DCGM_FI_DEV_SM_CLOCK", "GPU-a", "", "7"] == 1980
    assert by_gpu["DCGM_FI_PROF_SM_ACTIVE", "GPU-a", "", "7"] == pytest.approx(0.8125)
    assert by_gpu["DCGM_FI_DEV_FB_USED", "GPU-a", "9", "7"] == 1
    assert by_gpu["DCGM_FI_DEV_POWER_USAGE", "GPU-free", "", ""] == 70
    assert {uuid for _, uuid, _, _ in by_gpu} == {"GPU-a", "GPU-free"}, "none of another vendor"


def test_what_is_unknown_has_no_series() -> None:
    board = Board(max_jobs=2)
    board.open(run("a", user_name="u"))
    assert names(page_of(board, *ALL)) == names(page_of(board))


def test_a_requeued_job_is_one_series() -> None:
    board = Board(max_jobs=5)
    for ref, processes in (("old", 1), ("new", 2)):
        board.open(run(ref, "slurm-7", user_name="alice"))
        board.update(ref, msgspec.structs.replace(WHOLE, processes=processes), None, WHOLE_USAGE)
    page = page_of(board, "slurm-job-exporter")
    assert value(page, "slurm_job_process_count", user="alice", account="", slurmjobid="7") == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_of_a_user_breaks_the_page(text: str) -> None:
    board = Board(max_jobs=2)
    board.open(run("a", "slurm-7", user_name=text))
    board.update("a", WHOLE, None, WHOLE_USAGE)
    page = page_of(board, *ALL)
    assert value(page, "slurm_job_memory_usage", user=text, account="", slurmjobid="7") == 1 << 30


@pytest.mark.parametrize("tools", [("slurm-job-exporter", "cgroup_exporter"), ("jobstats",)])
def test_promtool_accepts_the_names(tools: tuple[str, ...]) -> None:
    check_with_promtool(page_of(board_with_gpus(), *tools))


def test_promtool_dislikes_one_label_of_dcgm_exporters_and_nothing_else() -> None:
    """`modelName` is that tool's own name, which dashboards use; Prometheus takes it all the same."""
    page = page_of(board_with_gpus(), "dcgm-exporter")
    assert b"modelName=" in page
    check_with_promtool(page.replace(b"modelName=", b"model_name="))

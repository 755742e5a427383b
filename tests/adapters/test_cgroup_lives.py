"""Jobs come, go and come again; their parents keep the CPU time; files hold anything."""

import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobtrail.adapters.cgroup import CgroupReader
from jobtrail.domain.samples import CpuTotals, Miss, Missed, Reading
from tests.adapters.cgroup_trees import V1_JOB, V2_JOB, copy, remove_v1_job, target, v1_job

AWAY = "system.slice/n1_slurmstepd.scope/away"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_not_yet_then_there_then_gone_then_there_again(tmp_path: Path, version: str) -> None:
    """A prolog comes before the cgroup, the epilog after it; a directory made anew has a new life of counters."""
    kept = copy(version, tmp_path / "kept")
    root = copy(version, tmp_path)
    at = target() if version == "v2" else target("slurm-53", uid=1001)
    shutil.rmtree(root)
    reader = CgroupReader(root)
    reader.attach(at)
    missed = reader.read(["r"])["r"]
    assert isinstance(missed, Missed)
    assert missed.miss is Miss.UNREADABLE
    shutil.copytree(kept, root)
    remove(root, version)
    assert reader.read(["r"])["r"] == Missed(miss=Miss.NOT_YET)
    shutil.copytree(kept, root, dirs_exist_ok=True)
    assert isinstance(reader.read(["r"])["r"], Reading)
    remove(root, version)
    assert reader.read(["r"])["r"] == Missed(miss=Miss.GONE)
    assert reader.read(["r"])["r"] == Missed(miss=Miss.GONE)
    shutil.copytree(kept, root, dirs_exist_ok=True)
    usage = root / V2_JOB / "cpu.stat" if version == "v2" else v1_job(root, "cpuacct") / "cpuacct.usage"
    usage.write_text("usage_usec 5\n" if version == "v2" else "5000\n")
    again = reader.read(["r"])["r"]
    assert isinstance(again, Reading)
    assert again.cpu_usage_us == 5
    reader.close()
    assert reader.open_files == 0


def remove(root: Path, version: str) -> None:
    if version == "v2":
        shutil.rmtree(root / V2_JOB)
    else:
        remove_v1_job(root)


def test_a_left_over_freezer_directory_is_no_job(tmp_path: Path) -> None:
    """v1's freezer directory may outlive a job's counters, with the extern step's process still in it."""
    root = copy("v1", tmp_path)
    reader = CgroupReader(root)
    reader.attach(target("slurm-53", uid=1001))
    assert isinstance(reader.read(["r"])["r"], Reading)
    for controller in ("cpuacct", "cpu", "memory", "blkio", "pids"):
        shutil.rmtree(v1_job(root, controller))
    assert reader.read(["r"])["r"] == Missed(miss=Miss.GONE)
    assert reader.read(["r"])["r"] == Missed(miss=Miss.GONE)


def test_a_controller_that_comes_late_is_found(tmp_path: Path) -> None:
    """Slurm makes a job's directories one after the other."""
    root = copy("v1", tmp_path)
    shutil.move(v1_job(root, "memory"), tmp_path / "memory")
    now = [0.0]
    reader = CgroupReader(root, monotonic=lambda: now[0])
    reader.attach(target("slurm-53", uid=1001))
    first = reader.read(["r"])["r"]
    assert isinstance(first, Reading)
    assert first.absent["memory_current_bytes"] == "no memory cgroup"
    shutil.move(tmp_path / "memory", v1_job(root, "memory"))
    now[0] += 0.2
    second = reader.read(["r"])["r"]
    assert isinstance(second, Reading)
    assert second.memory_current_bytes == 53_325_824


def test_unknown_refs_and_detached_ones(tmp_path: Path) -> None:
    """A ref nobody attached is a miss, not an error; detaching lets descriptors go and may be repeated."""
    reader = CgroupReader(copy("v2", tmp_path))
    reader.attach(target())
    reader.detach("r")
    reader.detach("r")
    missed = reader.read(["r"])["r"]
    assert isinstance(missed, Missed)
    assert missed.miss is Miss.UNREADABLE
    assert reader.cpu_totals(["r"]) == CpuTotals(parent_us=None, by_ref={})


def test_detach_does_not_wait_for_a_read(tmp_path: Path) -> None:
    """The event loop detaches while a worker reads; the descriptors close when the read is done."""
    inside, go_on = threading.Event(), threading.Event()

    def clock() -> int:
        inside.set()
        assert go_on.wait(10)
        return 1

    reader = CgroupReader(copy("v2", tmp_path), clock_us=clock)
    reader.attach(target())
    got: dict[str, Reading | Missed] = {}
    worker = threading.Thread(target=lambda: got.update(reader.read(["r"])))
    worker.start()
    assert inside.wait(10)
    reader.detach("r")
    reader.attach(target("slurm-1", ref="other"))
    go_on.set()
    worker.join(10)
    assert isinstance(got["r"], Reading)
    assert reader.open_files == 0


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_cpu_totals(tmp_path: Path, version: str) -> None:
    """The parent keeps what ended jobs used, also when none of the jobs is there any more."""
    root = copy(version, tmp_path)
    at = target() if version == "v2" else target("slurm-53", uid=1001)
    parent = 11_250_000 if version == "v2" else 1_379_099
    own = 4_246_398 if version == "v2" else 1_379_099
    reader = CgroupReader(root)
    reader.attach(at)
    assert reader.cpu_totals(["r"]) == CpuTotals(parent_us=parent, by_ref={"r": own})
    remove(root, version)
    assert reader.cpu_totals(["r"]) == CpuTotals(parent_us=parent, by_ref={})
    if version == "v2":
        shutil.rmtree((root / V2_JOB).parent)
    else:
        shutil.rmtree(root / "cpuacct/slurm_n1")
    assert reader.cpu_totals(["r"]) == CpuTotals(parent_us=None, by_ref={})


def test_parents_of_slurms_and_local_jobs_add_up(tmp_path: Path) -> None:
    """A local job's parent joins with what it has at that time, so only growth below it counts."""
    root = copy("v2", tmp_path)
    shutil.copytree(root / V2_JOB, root / "jobtrail/exec-1")
    parent = root / "jobtrail/cpu.stat"
    parent.write_text("usage_usec 90000000\n")
    reader = CgroupReader(root)
    reader.attach(target())
    reader.attach(target("local-1", ref="local", cgroup_path="/jobtrail/exec-1"))
    assert reader.cpu_totals(["r"]).parent_us == 11_250_000
    assert reader.cpu_totals(["r", "local"]).parent_us == 11_250_000
    parent.write_text("usage_usec 90000700\n")
    assert reader.cpu_totals(["r", "local"]).parent_us == 11_250_700
    shutil.rmtree(root / "jobtrail")
    assert reader.cpu_totals(["r", "local"]) == CpuTotals(parent_us=11_250_700, by_ref={"r": 4_246_398})


def test_two_nodes_on_one_host_have_a_parent_each(tmp_path: Path) -> None:
    """Each slurmd's jobs are below its own scope."""
    root = copy("v2", tmp_path)
    other = root / "system.slice/n2_slurmstepd.scope"
    other.mkdir()
    (other / "cpu.stat").write_text("usage_usec 7\n")
    reader = CgroupReader(root)
    reader.attach(target(ref="a"))
    reader.attach(target(ref="b", node="n2"))
    assert reader.cpu_totals(["a"]).parent_us == 11_250_000
    assert reader.cpu_totals(["b"]) == CpuTotals(parent_us=7, by_ref={})


FILES = {
    "v1": ["cpuacct/{}/cpuacct.usage", "cpuacct/{}/cpuacct.stat", "cpu/{}/cpu.stat", "memory/{}/memory.stat",
           "memory/{}/memory.limit_in_bytes", "memory/{}/memory.oom_control", "freezer/{}/step_batch/cgroup.procs",
           "blkio/{}/blkio.throttle.io_service_bytes_recursive", "pids/{}/pids.current"],
    "v2": ["cpu.stat", "memory.current", "memory.max", "memory.stat", "memory.events", "io.stat", "pids.current",
           "cpu.pressure", "step_0/cgroup.procs"],
}  # fmt: skip
LIKE_A_KERNEL_FILE = st.lists(
    st.sampled_from(
        [b"usage_usec ", b"total_rss ", b"user ", b"8:0 ", b"Read ", b"rbytes=", b"total=", b"some ", b"max", b"\n",
         b"\n", b" ", b"0", b"17", b"-3", b"9" * 25, b"oom_kill ", b"Total ", b"\xff\x00", b"anon "]
    )
).map(b"".join)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    version=st.sampled_from(["v1", "v2"]),
    contents=st.lists(st.binary(max_size=200) | LIKE_A_KERNEL_FILE, min_size=9, max_size=9),
)
def test_arbitrary_bytes_give_numbers_or_reasons(version: str, contents: list[bytes]) -> None:
    """Whatever the files hold, each value is a non-negative number or absent with a reason, never both or neither."""
    with tempfile.TemporaryDirectory() as directory:
        root = copy(version, Path(directory))
        job = root / V2_JOB if version == "v2" else root
        for name, content in zip(FILES[version], contents, strict=True):
            (job / name.format(V1_JOB)).write_bytes(content)
        at = target() if version == "v2" else target("slurm-53", uid=1001)
        reader = CgroupReader(root)
        reader.attach(at)
        got = reader.read(["r"])["r"]
        totals = reader.cpu_totals(["r"])
        reader.scan()
        reader.close()
    assert isinstance(got, Reading)
    for field in set(Reading.__struct_fields__) - {"time_us", "source", "absent"}:
        value = getattr(got, field)
        if value is None:
            assert got.absent[field]
        else:
            assert field not in got.absent
            assert 0 <= value < 2**63
    assert totals.by_ref.get("r") == got.cpu_usage_us

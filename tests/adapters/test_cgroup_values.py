"""Every value of both versions, from files a kernel wrote; and what is absent says why."""

import os
import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest

from jobtrail.adapters.cgroup import CgroupReader
from jobtrail.domain.samples import Miss, Missed, Reading, Target
from tests.adapters.cgroup_trees import V2_JOB, copy, target, v1_job
from tests.requirements import require_root

V1_TARGET = target("slurm-53", uid=1001)


def look(root: Path, at: Target, **settings: int) -> Reading | Missed:
    reader = CgroupReader(root, clock_us=lambda: 42, **settings)
    reader.attach(at)
    try:
        return reader.read([at.ref])[at.ref]
    finally:
        reader.close()
        assert reader.open_files == 0


def reading(root: Path, at: Target, **settings: int) -> Reading:
    result = look(root, at, **settings)
    assert isinstance(result, Reading), result
    return result


def test_all_values_of_a_complete_v2_job(tmp_path: Path) -> None:
    """Each field of a reading is the number in its file."""
    assert reading(copy("v2", tmp_path), target()) == Reading(
        time_us=42,
        source="cgroup_v2",
        cpu_usage_us=4_246_398,
        cpu_user_us=3_204_511,
        cpu_system_us=1_041_887,
        cpu_throttled_periods=97,
        cpu_throttled_us=2_318_204,
        memory_current_bytes=78_155_776,
        memory_peak_bytes=134_479_872,
        memory_limit_bytes=209_715_200,
        memory_rss_bytes=52_957_184,
        memory_cache_bytes=20_480_000,
        memory_shmem_bytes=4_096_000,
        oom_kills=2,
        io_read_bytes=9_371_648 + 4_096,
        io_write_bytes=4_194_304,
        processes=6,
        threads=6,
        pressure_cpu_some_us=1_250_331,
        pressure_cpu_full_us=498_220,
        pressure_memory_some_us=20_114,
        pressure_memory_full_us=18_003,
        pressure_io_some_us=91_776,
        pressure_io_full_us=88_410,
        absent={},
    )


def test_all_values_of_a_captured_v1_job(tmp_path: Path) -> None:
    """v1's own units are converted, hierarchical figures are taken, and a kill in a task's cgroup is found."""
    got = reading(copy("v1", tmp_path), V1_TARGET)
    assert got == Reading(
        time_us=42,
        source="cgroup_v1",
        cpu_usage_us=1_379_099,
        cpu_user_us=1_020_000,
        cpu_system_us=350_000,
        cpu_throttled_periods=26,
        cpu_throttled_us=1_662_997,
        memory_current_bytes=53_325_824,
        memory_peak_bytes=209_715_200,
        memory_limit_bytes=209_715_200,
        memory_rss_bytes=got.memory_rss_bytes,
        memory_cache_bytes=got.memory_cache_bytes,
        memory_shmem_bytes=0,
        oom_kills=1,
        io_read_bytes=0,
        io_write_bytes=0,
        processes=2,
        threads=3,
        absent={field: "not in cgroup v1" for field in Reading.__struct_fields__ if field.startswith("pressure")},
    )
    stat = dict(line.split() for line in (v1_job(tmp_path / "v1", "memory") / "memory.stat").read_text().splitlines())
    assert got.memory_rss_bytes == int(stat["total_rss"]) > 50 << 20 > int(stat["rss"])
    assert got.memory_cache_bytes == int(stat["total_cache"])


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("memory.max", "max\n", {"memory_limit_bytes": "unlimited"}),
        ("memory.max", "", {"memory_limit_bytes": "not understood"}),
        ("memory.current", "781557", {"memory_current_bytes": "not understood"}),
        ("memory.current", "-1\n", {"memory_current_bytes": "not understood"}),
        ("memory.current", "1_000\n", {"memory_current_bytes": "not understood"}),
        ("memory.current", f"{2**63}\n", {"memory_current_bytes": "not understood"}),
        ("memory.current", "9" * 100_000 + "\n", {"memory_current_bytes": "not understood"}),
        ("memory.peak", None, {"memory_peak_bytes": "no memory.peak (Linux 5.19+)"}),
        ("memory.events", "low 0\n", {"oom_kills": "no oom_kill in memory.events"}),
        ("memory.stat", "anon 1\nfile 2\nshmem 3", {"memory_shmem_bytes": "not understood"}),
        ("io.stat", None, {"io_read_bytes": "no io controller", "io_write_bytes": "no io controller"}),
        ("io.stat", "8:0 rbytes=x wbytes=1\n", {"io_read_bytes": "not understood"}),
        ("io.stat", "nonsense\n", {"io_read_bytes": "not understood", "io_write_bytes": "not understood"}),
        ("pids.current", None, {"threads": "no pids controller"}),
        ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n", {"pressure_cpu_full_us": "no full line"}),
        ("io.pressure", None, dict.fromkeys(("pressure_io_some_us", "pressure_io_full_us"),
                                             "no pressure stall information")),
        ("step_0/slurm/cgroup.procs", "not pids\n", {"processes": "not understood"}),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_absent_with_its_reason(
    tmp_path: Path, file: str, content: str | None, expected: dict[str, str]
) -> None:
    """One bad file costs its own values and no other; never is 0 put in their place."""
    root = copy("v2", tmp_path)
    path = root / V2_JOB / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    got = reading(root, target())
    assert got.absent == expected
    assert all(getattr(got, field) is None for field in expected)
    whole = set(msgspec.structs.asdict(got)) - {"absent", *expected}
    assert all(getattr(got, field) is not None for field in whole)


def test_hybrid_scope_with_nothing_but_cpu_time(tmp_path: Path) -> None:
    """Where the controllers are v1's, the unified hierarchy has CPU time alone; all else says so."""
    root = tmp_path / "root"
    shutil.copytree(copy("v2", tmp_path), root / "unified")
    (root / "memory").mkdir()
    job = root / "unified" / V2_JOB
    for path in [path for path in job.iterdir() if path.is_file() and not path.name.startswith("cgroup.")]:
        path.unlink()
    (job / "cpu.stat").write_text("usage_usec 70\nuser_usec 50\nsystem_usec 20\nnice_usec 0\n")
    got = reading(root, target())
    assert (got.source, got.cpu_usage_us, got.cpu_user_us, got.cpu_system_us) == ("cgroup_v2", 70, 50, 20)
    assert got.processes == 6
    assert got.absent["memory_current_bytes"] == "no memory controller"
    assert got.absent["cpu_throttled_us"] == "no cpu controller"
    assert got.memory_current_bytes is None


def test_an_empty_io_stat_is_no_io(tmp_path: Path) -> None:
    """The kernel lists devices a cgroup used; none listed is a true zero."""
    root = copy("v2", tmp_path)
    (root / V2_JOB / "io.stat").write_text("")
    got = reading(root, target())
    assert (got.io_read_bytes, got.io_write_bytes) == (0, 0)


def test_v1_controllers_slurm_does_not_use_are_absent(tmp_path: Path) -> None:
    """Only controllers whose Slurm plugin is active have the job; values of the others are absent, threads counted."""
    root = copy("v1", tmp_path)
    for controller in ("blkio", "pids", "cpu"):
        shutil.rmtree(v1_job(root, controller))
    got = reading(root, V1_TARGET)
    assert got.absent["io_read_bytes"] == "no blkio cgroup"
    assert got.absent["cpu_throttled_periods"] == "no cpu cgroup"
    assert (got.threads, got.cpu_usage_us) == (3, 1_379_099)


def test_v1_limit_of_any_page_size_is_unlimited(tmp_path: Path) -> None:
    """No limit prints as the largest whole number of pages below 2^63."""
    root = copy("v1", tmp_path)
    for page in (4_096, 65_536):
        (v1_job(root, "memory") / "memory.limit_in_bytes").write_text(f"{2**63 - page}\n")
        got = reading(root, V1_TARGET)
        assert (got.memory_limit_bytes, got.absent["memory_limit_bytes"]) == (None, "unlimited")


def test_v1_blkio_sums_devices(tmp_path: Path) -> None:
    """Reads and writes of all devices, from the recursive file."""
    root = copy("v1", tmp_path)
    lines = "8:0 Read 4096\n8:0 Write 512\n8:0 Sync 1\n8:0 Total 4608\n8:16 Read 10\n8:16 Write 20\nTotal 4638\n"
    (v1_job(root, "blkio") / "blkio.throttle.io_service_bytes_recursive").write_text(lines)
    got = reading(root, V1_TARGET)
    assert (got.io_read_bytes, got.io_write_bytes) == (4_106, 532)


def test_v1_kills_of_ended_steps_are_kept(tmp_path: Path) -> None:
    """A step's cgroup goes with its count; what was seen of it stays in the job's."""
    root = copy("v1", tmp_path)
    reader = CgroupReader(root)
    reader.attach(V1_TARGET)
    shutil.copytree(v1_job(root, "memory") / "step_batch", v1_job(root, "memory") / "step_0")
    first = reader.read(["r"])["r"]
    assert isinstance(first, Reading)
    assert first.oom_kills == 2
    shutil.rmtree(v1_job(root, "memory") / "step_0")
    second = reader.read(["r"])["r"]
    assert isinstance(second, Reading)
    assert second.oom_kills == 2


@pytest.mark.parametrize(("version", "at"), [("v1", V1_TARGET), ("v2", target())])
def test_the_cap_on_open_files_costs_no_value(tmp_path: Path, version: str, at: Target) -> None:
    """With no descriptor to keep, files are opened at each read, with the same result."""
    root = copy(version, tmp_path)
    for limit in (0, 1, 5, 12):
        assert reading(root, at, max_open_files=limit) == reading(root, at)


def test_a_long_list_of_processes_is_counted_to_its_end(tmp_path: Path) -> None:
    """Lists longer than one read are read on."""
    root = copy("v2", tmp_path)
    (root / V2_JOB / "step_0/user/task_special/cgroup.procs").write_text("".join(f"{n}\n" for n in range(1, 50_001)))
    assert reading(root, target()).processes == 50_005


def test_another_users_cgroup_is_unreadable() -> None:
    """Permission errors name themselves: per file as a reason, for a whole directory as a miss."""
    require_root("only root can become another user")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        root = copy("v2", Path(directory))
        (root / V2_JOB / "memory.peak").chmod(0)
        some = as_nobody(root)
        assert isinstance(some, Reading)
        assert some.absent == {"memory_peak_bytes": "EACCES"}
        (root / V2_JOB).parent.chmod(0)
        none = as_nobody(root)
    assert isinstance(none, Missed)
    assert none.miss is Miss.UNREADABLE
    assert none.detail == f"{root / V2_JOB}: EACCES"


def as_nobody(root: Path) -> Reading | Missed:
    """What the reader gives in a process of the user nobody."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
            os.write(write_end, msgspec.msgpack.encode(type_and_value(look(root, target()))))
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        kind, value = msgspec.msgpack.decode(pipe.read())
    os.waitpid(pid, 0)
    return msgspec.convert(value, Reading if kind == "Reading" else Missed)


def type_and_value(result: Reading | Missed) -> tuple[str, object]:
    """What a pipe can carry of a result."""
    return type(result).__name__, msgspec.to_builtins(result)

"""Real cgroups of this machine: known work against its counters, kills for memory, and races with removal."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jobtrail.adapters.cgroup import CgroupReader, v1
from jobtrail.domain.samples import Miss, Missed, Reading
from tests.adapters.cgroup_trees import REAL_ROOT, RealV1Job, real_node, real_v1_job, target
from tests.daemon_process import wait_until
from tests.requirements import require_root, unmet

# The interpreter's start and end, which the process itself cannot count, on a busy machine.
NOISE_US = 100_000
BURN = """
import sys, time
while time.process_time() < float(sys.argv[1]): sum(range(2000))
"""
HOLD = """
import sys
block = bytearray(int(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def job() -> Iterator[RealV1Job]:
    """A real v1 job; needs root."""
    require_root("only root can make cgroup v1 directories")
    with real_v1_job(53) as made:
        yield made


@contextmanager
def reader_of(node: str) -> Iterator[CgroupReader]:
    """A reader on the machine's own hierarchy with the job attached."""
    reader = CgroupReader(REAL_ROOT)
    reader.attach(target("slurm-53", uid=1001, node=node))
    try:
        yield reader
    finally:
        reader.close()


def start(enter: Callable[[], None], code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        preexec_fn=enter,  # noqa: PLW1509 - its start-up must be charged, too; it only opens and writes
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> int:
    """Wait for a child's end; its exit code."""
    process.communicate("", timeout=60)
    return process.returncode


def reading(reader: CgroupReader) -> Reading:
    got = reader.read(["r"])["r"]
    assert isinstance(got, Reading), got
    return got


def reading_with(reader: CgroupReader, is_right: Callable[[int], bool]) -> Reading | None:
    """A reading of which the resident memory is right, if this look gives one."""
    got = reading(reader)
    return got if got.memory_rss_bytes is not None and is_right(got.memory_rss_bytes) else None


def test_cpu_time_agrees_with_getrusage(job: RealV1Job) -> None:
    """A burn of a known length costs the job what wait4 says it cost, within 5 %; the parent counter, too."""
    job.make("step_batch")
    with reader_of(real_node()) as reader:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert finish(start(lambda: job.enter("step_batch"), BURN, "1.0")) == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used_us = 1e6 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        got = reading(reader)
        assert got.cpu_usage_us == pytest.approx(used_us, rel=0.05, abs=NOISE_US)
        assert (got.cpu_user_us or 0) + (got.cpu_system_us or 0) == pytest.approx(used_us, rel=0.05, abs=NOISE_US)
        totals = reader.cpu_totals(["r"])
        assert totals.by_ref == {"r": got.cpu_usage_us}
        assert totals.parent_us == pytest.approx(used_us, rel=0.05, abs=NOISE_US)
        job.remove()
        assert reader.read(["r"])["r"] == Missed(miss=Miss.GONE)
        kept = reader.cpu_totals(["r"])
        assert kept.by_ref == {}
        assert kept.parent_us == pytest.approx(used_us, rel=0.05, abs=NOISE_US)
        job.make()


def test_memory_processes_and_threads(job: RealV1Job) -> None:
    """50 MB held are in rss, current and peak; given back, they stay in the peak."""
    job.make("step_batch/task_0")
    with reader_of(real_node()) as reader:
        holder = start(lambda: job.enter("step_batch/task_0"), HOLD, str(50 << 20))
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        # The kernel adds up memory.stat of all processors every two seconds, and sooner only after many changes.
        held = wait_until(lambda: reading_with(reader, lambda rss: rss >= 50 << 20), "what is held to be counted")
        finish(holder)
        freed = wait_until(lambda: reading_with(reader, lambda rss: rss < 10 << 20), "what was freed to be counted")
    assert 50 << 20 <= (held.memory_rss_bytes or 0) < 75 << 20
    assert 50 << 20 <= (held.memory_current_bytes or 0) < 80 << 20
    assert 50 << 20 <= (freed.memory_peak_bytes or 0) < 80 << 20
    assert (freed.memory_rss_bytes or 0) < 10 << 20
    assert held.absent["memory_limit_bytes"] == "unlimited"
    assert (held.processes, held.threads, freed.processes, freed.threads) == (1, 1, 0, 0)
    assert held.io_write_bytes is not None


def test_a_kill_for_memory_in_a_task_is_counted(job: RealV1Job) -> None:
    """The job is limited to 20 MB; its child's task cgroup gets the kill, and the job's reading shows it."""
    job.make("step_batch/task_0")
    (job.directory("memory") / "memory.limit_in_bytes").write_text(str(20 << 20))
    with reader_of(real_node()) as reader:
        before = reading(reader)
        assert finish(start(lambda: job.enter("step_batch/task_0"), HOLD, str(60 << 20))) == -signal.SIGKILL
        after = reading(reader)
        assert reading(reader).oom_kills == 1
        assert finish(start(lambda: job.enter("step_batch/task_0"), HOLD, str(60 << 20))) == -signal.SIGKILL
        assert reading(reader).oom_kills == 2
        for controller in job.controllers:
            (job.directory(controller) / "step_batch/task_0").rmdir()
        assert reading(reader).oom_kills == 2
        with real_v1_job(54) as other:
            (other.directory("memory") / "memory.limit_in_bytes").write_text(str(20 << 20))
            assert finish(start(other.enter, HOLD, str(60 << 20))) == -signal.SIGKILL
        assert reading(reader).oom_kills == 2
    assert (before.oom_kills, after.oom_kills) == (0, 1)
    assert after.memory_limit_bytes == 20 << 20
    assert "oom_kill 0" in (job.directory("memory") / "memory.oom_control").read_text()


def test_removal_under_kept_descriptors_and_a_new_life(job: RealV1Job) -> None:
    """ENODEV from a removed cgroup's descriptor means gone; a directory made anew is read anew."""
    with reader_of(real_node()) as reader:
        assert finish(start(job.enter, BURN, "0.3")) == 0  # of which a little is used before it is in the job
        assert (reading(reader).cpu_usage_us or 0) > 200_000
        kept = reader.open_files
        assert 8 <= kept <= 12
        job.remove()
        assert reader.read(["r"])["r"] == Missed(miss=Miss.GONE)
        assert reader.open_files == 0
        job.make()
        assert reading(reader).cpu_usage_us == 0
        assert reader.open_files == kept


def test_what_is_replaced_at_every_try_of_a_look_is_gone_until_the_next(
    job: RealV1Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a reading without its counters and without a reason for that."""
    monkeypatch.setattr(v1, "TRIES", 1)
    with reader_of(real_node()) as reader:
        kept = reading(reader) and reader.open_files
        job.remove()
        job.make()
        assert reader.read(["r"])["r"] == Missed(miss=Miss.GONE)
        assert reader.open_files == 0
        assert reading(reader).cpu_usage_us == 0
        assert reader.open_files == kept


def seen_too_little(looks: dict[str, int]) -> bool:
    """Whether the looks so far show nothing: a busy machine makes few of them."""
    return looks.get("reading", 0) <= 20 or looks.get("gone", 0) == 0


def test_reading_against_removal_in_a_loop(job: RealV1Job) -> None:
    """While jobs come and go, each look is a reading, not yet, or gone; nothing is raised and no descriptor leaks."""
    looks: dict[str, int] = {}
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            job.remove()
            job.make("step_batch/task_0")

    with reader_of(real_node()) as reader:
        reader.read(["r"])
        churner = threading.Thread(target=churn)
        churner.start()
        try:
            began = time.monotonic()
            while (passed := time.monotonic() - began) < 2 or (seen_too_little(looks) and passed < 60):
                got = reader.read(["r"])["r"]
                kind = "reading" if isinstance(got, Reading) else got.miss.value
                looks[kind] = looks.get(kind, 0) + 1
                if isinstance(got, Reading):
                    assert got.cpu_usage_us in {0, None}
                totals = reader.cpu_totals(["r"])
                assert totals.by_ref.get("r", 0) == 0
                reader.scan()
        finally:
            stop.set()
            churner.join(60)
    assert not seen_too_little(looks), looks
    assert set(looks) <= {"reading", "gone"}
    assert reader.open_files == 0


def test_scan_finds_a_real_job(job: RealV1Job) -> None:
    """With its user, and populated exactly while a process is in it."""
    reader = CgroupReader(REAL_ROOT, node=real_node())
    assert [(found.job_id, found.uid, found.populated) for found in reader.scan()] == [("slurm-53", 1001, False)]
    holder = start(job.enter, HOLD, "1")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert [found.populated for found in reader.scan()] == [True]
    finish(holder)


def test_a_real_v2_cgroup() -> None:
    """CPU time within 5 %, pressure, processes and removal on a unified hierarchy, be it the hybrid one."""
    require_root("only root can make cgroups at the top of the hierarchy")
    root = REAL_ROOT if (REAL_ROOT / "cgroup.controllers").exists() else REAL_ROOT / "unified"
    scope = root / "system.slice" / f"{real_node()}_slurmstepd.scope"
    task = scope / "job_53" / "step_batch" / "user" / "task_0"
    had_slice = scope.parent.exists()
    try:
        task.mkdir(parents=True)
    except OSError as error:
        unmet(f"no real cgroup v2 can be made: {error.filename}: {error.strerror}")

    try:
        reader = CgroupReader(root)
        reader.attach(target("slurm-53", node=real_node()))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert finish(start(lambda: write_own_pid(task), BURN, "1.0")) == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used_us = 1e6 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        got = reading(reader)
        assert got.cpu_usage_us == pytest.approx(used_us, rel=0.05, abs=NOISE_US)
        assert got.processes == 0
        assert got.pressure_cpu_some_us is not None or "pressure" in got.absent["pressure_cpu_some_us"]
        assert [(found.job_id, found.populated) for found in reader.scan() if found.path.startswith(str(scope))] == [
            ("slurm-53", False)
        ]
        for step in ("step_1", "step_2"):  # the second replaces the first, so their number stays
            assert processes_with_one_in(scope / "job_53" / step, reader) == 1
        remove_tree(scope / "job_53")
        assert reader.read(["r"])["r"] == Missed(miss=Miss.GONE)
        assert reader.cpu_totals(["r"]).parent_us == pytest.approx(used_us, rel=0.05, abs=NOISE_US)
        reader.close()
    finally:
        remove_tree(scope)
        if not had_slice:
            with suppress(OSError):  # others have made something there meanwhile
                scope.parent.rmdir()


def processes_with_one_in(step: Path, reader: CgroupReader) -> int | None:
    """The job's count of processes while one lives in a step made just before."""
    step.mkdir()
    holder = start(lambda: write_own_pid(step), HOLD, "1")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    counted = reading(reader).processes
    finish(holder)
    step.rmdir()
    return counted


def write_own_pid(directory: Path) -> None:
    """Move the calling process into a cgroup."""
    (directory / "cgroup.procs").write_text("0")


def remove_tree(top: Path) -> None:
    """Remove a cgroup and all below it."""
    for directory, _, _ in os.walk(top, topdown=False):
        os.rmdir(directory)

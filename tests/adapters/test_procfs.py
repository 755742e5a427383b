"""Process trees against what the kernel says of children, and the node's own figures, from copied and real /proc."""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobtrail.adapters.procfs import NodeProc, ProcessTreeReader
from jobtrail.domain.samples import CpuTotals, Miss, Missed, NodeReading, Reading
from tests.adapters.cgroup_trees import target
from tests.requirements import require_root, unmet

# The interpreter's start and end, which the process itself cannot count, on a busy machine.
NOISE_US = 100_000

TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


class FakeProc:
    """A /proc made by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)

    def put(
        self, pid: int, *, parent: int = 1, start: int = 100, user: int = 0, system: int = 0, waited: int = 0,
        state: str = "S", threads: int = 1, rss_kib: int = 1_000, hwm_kib: int = 1_500, read: int = 0, written: int = 0,
        command: str = "a b) S (c",
    ) -> None:  # fmt: skip
        """A process; times in ticks. Its command tries to break the line's fields."""
        home = self.root / str(pid)
        home.mkdir(exist_ok=True)
        (home / "stat").write_text(
            f"{pid} ({command}) {state} {parent} {pid} {pid} 0 -1 4194304 9 9 0 0 {user} {system} {waited} 0 "
            f"20 0 {threads} 0 {start} 1000 250 18446744073709551615 1 1 0\n"
        )
        memory = f"VmPeak:\t 9999 kB\nVmHWM:\t {hwm_kib} kB\nVmRSS:\t {rss_kib} kB\nRssAnon:\t {rss_kib // 2} kB\n"
        (home / "status").write_text(
            f"Name:\tx\nState:\t{state}\n{memory if state != 'Z' else ''}Threads:\t{threads}\n"
        )
        (home / "io").write_text(f"rchar: 9\nwchar: 9\nread_bytes: {read}\nwrite_bytes: {written}\n")

    def end(self, pid: int) -> None:
        """The process is gone."""
        shutil.rmtree(self.root / str(pid))


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


def watch(proc: FakeProc, pid: int = 10, start: int | None = 100) -> Callable[[], Reading | Missed]:
    reader = ProcessTreeReader(proc.root, clock_us=lambda: 42)
    reader.attach(target("local-1", root_pid=pid, root_pid_start_ticks=start))
    return lambda: reader.read(["r"])["r"]


def reading(got: Reading | Missed) -> Reading:
    assert isinstance(got, Reading), got
    return got


def test_all_values_of_a_tree(proc: FakeProc) -> None:
    """Sums over the root and its descendants; strangers do not count, and what a tree cannot tell says so."""
    proc.put(10, user=100, system=50, waited=7, threads=3, rss_kib=2_000, hwm_kib=8_000, read=10, written=20)
    proc.put(11, parent=10, start=110, user=30, system=20, rss_kib=4_000, read=1, written=2)
    proc.put(12, parent=11, start=120, user=3, system=2, read=100, written=200)
    proc.put(13, parent=1, user=10_000, rss_kib=10**6, read=5_000)
    got = reading(watch(proc)())
    never = {field: reason for field, reason in got.absent.items() if reason == "not counted for a process tree"}
    assert got == Reading(
        time_us=42,
        source="procfs",
        cpu_usage_us=212 * TICK_US,
        cpu_user_us=140 * TICK_US,
        cpu_system_us=72 * TICK_US,
        memory_current_bytes=7_000 << 10,
        memory_rss_bytes=3_500 << 10,
        memory_peak_bytes=8_000 << 10,
        io_read_bytes=111,
        io_write_bytes=222,
        processes=3,
        threads=5,
        absent=never,
    )
    assert {"oom_kills", "memory_cache_bytes", "pressure_io_full_us", "cpu_throttled_us"} <= set(never)


def test_peak_is_the_largest_sum_or_single_high_water_mark(proc: FakeProc) -> None:
    """It stays when memory is given back."""
    proc.put(10, rss_kib=3_000, hwm_kib=3_000)
    proc.put(11, parent=10, rss_kib=3_000, hwm_kib=3_500)
    look = watch(proc)
    assert reading(look()).memory_peak_bytes == 6_000 << 10
    proc.end(11)
    assert reading(look()).memory_peak_bytes == 6_000 << 10
    proc.put(10, rss_kib=10, hwm_kib=9_000)
    assert reading(look()).memory_peak_bytes == 9_000 << 10


def test_a_child_that_was_waited_for_counts_once(proc: FakeProc) -> None:
    """Its time moves into its parent's waited-for time; the total neither falls nor doubles."""
    proc.put(10, user=10)
    proc.put(11, parent=10, user=100)
    look = watch(proc)
    assert reading(look()).cpu_usage_us == 110 * TICK_US
    proc.end(11)
    proc.put(10, user=11, waited=130)
    assert reading(look()).cpu_usage_us == 141 * TICK_US


def test_a_child_nobody_waited_for_keeps_what_was_seen(proc: FakeProc) -> None:
    """Its parent ignores SIGCHLD: the kernel drops its time, the books do not; growth goes on from there."""
    proc.put(10, user=10)
    proc.put(11, parent=10, user=100)
    look = watch(proc)
    look()
    proc.end(11)
    assert reading(look()).cpu_usage_us == 110 * TICK_US
    proc.put(10, user=15)
    assert reading(look()).cpu_usage_us == 115 * TICK_US


def test_a_daemonised_descendant_stays_in_the_tree(proc: FakeProc) -> None:
    """Seen once, it belongs to the tree when its parent dies, with its later children, and after its end."""
    proc.put(10, user=10)
    proc.put(11, parent=10, user=5)
    proc.put(12, parent=11, start=120, user=50, read=7)
    look = watch(proc)
    look()
    proc.end(11)
    proc.put(10, user=10, waited=5)
    proc.put(12, parent=1, start=120, user=60, read=9)
    proc.put(13, parent=12, start=130, user=1)
    assert reading(look()).cpu_usage_us == 76 * TICK_US
    proc.end(12)
    proc.put(13, parent=1, start=130, user=2)
    assert reading(look()).cpu_usage_us == 77 * TICK_US
    assert reading(look()).io_read_bytes == 9
    proc.end(10)
    got = reading(look())
    assert (got.cpu_usage_us, got.processes) == (77 * TICK_US, 1)
    proc.end(13)
    assert look() == Missed(miss=Miss.GONE, detail="no process of the tree is left")


def test_a_reused_pid_is_a_stranger(proc: FakeProc) -> None:
    """Same number, other start: before the first look, for the root, and for a descendant."""
    proc.put(10, start=999, user=500)
    got = watch(proc)()
    assert isinstance(got, Missed)
    assert (got.miss, "another process" in got.detail) == (Miss.GONE, True)
    proc.put(10, start=100, user=10)
    proc.put(11, parent=10, start=110, user=20)
    look = watch(proc)
    look()
    proc.put(11, parent=1, start=998, user=40_000)
    assert reading(look()).cpu_usage_us == 30 * TICK_US
    proc.put(10, start=999, user=50_000)
    assert isinstance(look(), Missed)


def test_a_zombie_keeps_its_time_and_is_no_process(proc: FakeProc) -> None:
    """Until its parent waits, the last figures of a process that ended stand."""
    proc.put(10, user=10, state="Z")
    got = reading(watch(proc)())
    assert (got.cpu_usage_us, got.processes, got.threads, got.memory_current_bytes) == (10 * TICK_US, 0, 0, 0)
    assert got.absent["memory_peak_bytes"] == "no process had memory at any look"


@pytest.mark.parametrize(("pid", "miss"), [(99, Miss.NOT_YET), (1, Miss.UNREADABLE), (0, Miss.UNREADABLE)])
def test_roots_that_are_not_there_or_not_allowed(proc: FakeProc, pid: int, miss: Miss) -> None:
    """The whole node's ancestor is no job."""
    proc.put(1, parent=0)
    got = watch(proc, pid=pid, start=None)()
    assert isinstance(got, Missed)
    assert got.miss is miss
    assert str(pid) in got.detail


def test_no_root_pid_and_no_proc(tmp_path: Path) -> None:
    """Each error names what is wrong."""
    reader = ProcessTreeReader(tmp_path / "nowhere")
    reader.attach(target("local-1", root_pid=10))
    got = reader.read(["r", "unknown"])
    assert got["r"] == Missed(miss=Miss.UNREADABLE, detail=f"{tmp_path}/nowhere: no such file")
    assert reader.cpu_totals(["r"]) == CpuTotals(parent_us=None, by_ref={})
    reader = ProcessTreeReader(tmp_path)
    reader.attach(target("local-1"))
    missed = reader.read(["r"])["r"]
    assert isinstance(missed, Missed)
    assert "root_pid" in missed.detail


def test_io_of_another_user_is_absent(proc: FakeProc) -> None:
    """A sum that lacks one process would be too low, so there is none."""
    proc.put(10, read=5)
    proc.put(11, parent=10, read=7)
    (proc.root / "11" / "io").unlink()
    (proc.root / "11" / "io").mkdir()
    got = reading(watch(proc)())
    assert (got.io_read_bytes, got.absent["io_read_bytes"]) == (None, "EISDIR")


def pieces(*parts: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes, or what these parts make in any order."""
    return st.binary(max_size=300) | st.lists(st.sampled_from(parts)).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(
    stat=pieces(b"10 ", b"(a)", b" S", b" ", b" 0", b"-1", b"\xff", b" 1 1 1 1 1 1 1 1 1 1"),
    status=pieces(b"\nVmRSS:", b" 7 kB\n", b"\nRssAnon:", b"9" * 30),
    io=st.binary(max_size=100),
)
def test_arbitrary_bytes_in_proc(
    tmp_path_factory: pytest.TempPathFactory, stat: bytes, status: bytes, io: bytes
) -> None:
    """Nothing is raised; each value is a number or absent with a reason."""
    proc = FakeProc(tmp_path_factory.mktemp("proc"))
    proc.put(10)
    proc.put(11, parent=10)
    (proc.root / "11" / "stat").write_bytes(stat)
    (proc.root / "10" / "status").write_bytes(status)
    (proc.root / "10" / "io").write_bytes(io)
    got = reading(watch(proc)())
    for field in set(Reading.__struct_fields__) - {"time_us", "source", "absent"}:
        value = getattr(got, field)
        assert (value is None) == (field in got.absent)
        assert value is None or 0 <= value < 2**63
    for name, content in (("stat", stat), ("meminfo", status), ("loadavg", io)):
        (proc.root / name).write_bytes(content)
    node = NodeProc(proc.root).read_node()
    for field in set(NodeReading.__struct_fields__) - {"time_us", "absent"}:
        assert (getattr(node, field) is None) == (field in node.absent)


TREE = """
import os, subprocess, sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: sum(range(2000))
burn(0.3)
for _ in range(2):                                # children waited for, each with one of its own
    if (pid := os.fork()) == 0:
        if (grandchild := os.fork()) == 0:
            burn(0.2); os._exit(0)
        os.waitpid(grandchild, 0); burn(0.1); os._exit(0)
    os.waitpid(pid, 0)
if (pid := os.fork()) == 0:                       # a child that becomes another program
    os.execv(sys.executable, [sys.executable, "-c", "import time\\nwhile time.process_time() < 0.3: sum(range(2000))"])
live = os.fork()
if live == 0:                                     # a child that still lives at the look
    burn(0.2); os.write(1, b"live\\n"); sys.stdin.read(); os._exit(0)
os.waitpid(pid, 0)
print("done", flush=True)
sys.stdin.read()
os.waitpid(live, 0)
"""


def test_a_real_tree_agrees_with_getrusage() -> None:
    """Nested, waited for, exec'd and living children: within 5 % of what wait4 says at the end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    reader = ProcessTreeReader()
    with subprocess.Popen(
        [sys.executable, "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as root:
        assert root.stdout is not None
        reader.attach(target("local-1", root_pid=root.pid))
        first = reading(reader.read(["r"])["r"])
        assert {root.stdout.readline(), root.stdout.readline()} == {"live\n", "done\n"}
        last = reading(reader.read(["r"])["r"])
        root.communicate("")
        assert root.returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_us = 1e6 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert used_us > 1_400_000
    assert last.cpu_usage_us == pytest.approx(used_us, rel=0.05, abs=NOISE_US)
    assert (first.cpu_usage_us or 0) <= (last.cpu_usage_us or 0)
    assert (last.processes, last.threads) == (2, 2)
    assert (last.memory_rss_bytes or 0) > 1 << 20
    assert (last.memory_peak_bytes or 0) >= (last.memory_rss_bytes or 0)
    gone = reader.read(["r"])["r"]
    assert isinstance(gone, Missed)
    assert gone.miss is Miss.GONE


def test_a_real_reused_pid_is_not_charged() -> None:
    """The pid of an ended root is given to another process on purpose; the tree is gone."""
    require_root("only root may choose the next pid")
    last_pid = Path("/proc/sys/kernel/ns_last_pid")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # another process may take the pid, and keep it: then it is tried with another
        reader = ProcessTreeReader()
        with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as root:
            reader.attach(target("local-1", root_pid=root.pid))
            reading(reader.read(["r"])["r"])
            root.communicate(b"")
        try:
            last_pid.write_text(str(root.pid - 1))
        except OSError as error:
            unmet(f"{last_pid}: {error.strerror}")
        stranger = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        try:
            if stranger.pid == root.pid:
                got = reader.read(["r"])["r"]
                assert got == Missed(miss=Miss.GONE, detail="no process of the tree is left")
                return
        finally:
            stranger.communicate(b"")
    pytest.fail("no pid could be had again within 60 s")


NODE_STAT = """cpu  100 20 30 1000 50 6 7 8 90 10
cpu0 50 10 15 500 25 3 3 4 45 5
cpu1 50 10 15 500 25 3 4 4 45 5
intr 1 2 3
"""


def test_node_figures(tmp_path: Path) -> None:
    """Busy is neither idle nor waiting for I/O; guests are part of user time already; used is what is not available."""
    (tmp_path / "stat").write_text(NODE_STAT)
    (tmp_path / "meminfo").write_text("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n")
    (tmp_path / "loadavg").write_text("0.52 0.31 0.20 1/234 5678\n")
    assert NodeProc(tmp_path, clock_us=lambda: 7).read_node() == NodeReading(
        time_us=7,
        cpu_busy_us=171 * TICK_US,
        cpu_total_us=1_221 * TICK_US,
        cpus=2,
        memory_total_bytes=1_000 << 10,
        memory_used_bytes=600 << 10,
        load_1m=0.52,
        absent={},
    )


def test_node_figures_that_lack(tmp_path: Path) -> None:
    """Nothing is 0 because a file is missing."""
    got = NodeProc(tmp_path, clock_us=lambda: 7).read_node()
    fields = set(NodeReading.__struct_fields__) - {"time_us", "absent"}
    assert got == NodeReading(time_us=7, absent=dict.fromkeys(fields, "no such file"))


def test_the_real_node() -> None:
    """Figures of this machine that another interface of the kernel confirms."""
    load = None
    while load != os.getloadavg()[0]:  # the kernel works it out anew every five seconds
        load = os.getloadavg()[0]
        got = NodeProc().read_node()
    assert got.absent == {}
    assert got.cpus == os.sysconf("SC_NPROCESSORS_ONLN")
    assert got.memory_total_bytes == pytest.approx(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), rel=0.01)
    assert 0 < (got.cpu_busy_us or 0) < (got.cpu_total_us or 0)
    assert got.load_1m == pytest.approx(load, abs=0.01)

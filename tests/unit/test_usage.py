"""Usage arithmetic: readings into a node's usage, rates between readings. Absent stays absent."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.events import NodeUsage
from jobtrail.domain.samples import NodeReading, Reading
from jobtrail.domain.usage import (
    cpu_percent,
    is_estimated,
    larger,
    merge_reports,
    node_cpu_percent,
    observe,
    replace_in_total,
    smaller,
    with_accounting,
    with_cpu_of_ended_job,
    with_last_look,
)

SECOND = 1_000_000
START = 1_760_000_000 * SECOND
maybe = st.none() | st.integers(0, 2**53 - 1)


@given(maybe, maybe)
def test_the_larger_and_the_smaller_of_what_is_known(one: int | None, other: int | None) -> None:
    known = [value for value in (one, other) if value is not None]
    assert larger(one, other) == max(known, default=None)
    assert smaller(one, other) == min(known, default=None)


def reading(at: int = 0, **values: object) -> Reading:
    return msgspec.convert({"time_us": START + at, "source": "cgroup_v2", **values}, Reading)


def test_a_reading_becomes_usage_value_by_value() -> None:
    """The peak is never below what was seen at the moment, as v1 without memory.max_usage shows only that."""
    usage = observe(
        NodeUsage(),
        reading(
            3 * SECOND,
            cpu_usage_us=11,
            cpu_user_us=7,
            cpu_system_us=4,
            cpu_throttled_us=2,
            memory_current_bytes=500,
            memory_peak_bytes=400,
            oom_kills=0,
            io_read_bytes=9,
            io_write_bytes=8,
            processes=3,
            memory_limit_bytes=600,
            absent={"memory_peak_bytes": "denied", "pressure_cpu_some_us": "no file"},
        ),
        START,
    )
    assert usage == NodeUsage(
        cpu_usage_us=11,
        cpu_user_us=7,
        cpu_system_us=4,
        cpu_throttled_us=2,
        memory_peak_bytes=500,
        oom_kills=0,
        io_read_bytes=9,
        io_write_bytes=8,
        processes_peak=3,
        memory_limit_bytes=600,
        sample_count=1,
        first_sample_us=START + 3 * SECOND,
        last_sample_us=START + 3 * SECOND,
        last_alive_us=START + 3 * SECOND,
        covered_us=3 * SECOND,
        sources={"usage": "cgroup_v2"},
    )


def test_what_no_reading_gave_is_absent_with_its_reason_and_not_zero() -> None:
    usage = observe(NodeUsage(), reading(cpu_usage_us=1, absent={"io_read_bytes": "no io controller"}), START)
    assert (usage.io_read_bytes, usage.memory_peak_bytes, usage.oom_kills) == (None, None, None)
    assert usage.absent == {"io_read_bytes": "no io controller"}
    later = observe(usage, reading(SECOND, io_read_bytes=0), START)
    assert later.io_read_bytes == 0
    assert later.absent == {}


def test_no_memory_now_is_no_peak_of_nothing() -> None:
    """A command that exited before the first look has no memory left and had some all the same."""
    usage = observe(NodeUsage(), reading(memory_current_bytes=0, absent={"memory_peak_bytes": "no process"}), START)
    assert (usage.memory_peak_bytes, usage.absent) == (None, {"memory_peak_bytes": "no process"})


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8))
def test_usage_never_shrinks_and_counts_every_reading(counters: list[int]) -> None:
    """A counter that starts over, because the cgroup was made anew, costs nothing already counted."""
    usage = NodeUsage()
    for number, counter in enumerate(counters, 1):
        usage = observe(usage, reading(number * SECOND, cpu_usage_us=counter, memory_current_bytes=counter), START)
    assert (usage.cpu_usage_us, usage.memory_peak_bytes) == (max(counters), max(counters) or None)
    assert usage.sample_count == len(counters)
    assert (usage.first_sample_us, usage.last_sample_us) == (START + SECOND, START + len(counters) * SECOND)
    assert usage.covered_us == len(counters) * SECOND


@pytest.mark.parametrize(("processes", "alive"), [(2, True), (None, True), (0, False)])
def test_a_cgroup_without_processes_is_no_sign_of_life(processes: int | None, alive: bool) -> None:
    usage = observe(NodeUsage(), reading(SECOND, processes=processes), START)
    assert (usage.last_sample_us, usage.last_alive_us) == (START + SECOND, START + SECOND if alive else None)


def test_a_clock_that_was_set_back_covers_nothing_rather_than_less_than_nothing() -> None:
    assert observe(NodeUsage(), reading(-5 * SECOND, cpu_usage_us=1), START).covered_us == 0


def test_of_two_reasons_for_one_absence_always_the_same_is_kept() -> None:
    one, other = NodeUsage(absent={"io_read_bytes": "b"}), NodeUsage(absent={"io_read_bytes": "a"})
    assert merge_reports(one, other) == merge_reports(other, one)
    assert merge_reports(one, other).absent == {"io_read_bytes": "a"}


def test_a_total_says_where_each_of_its_parts_came_from() -> None:
    total = replace_in_total(None, None, NodeUsage(cpu_usage_us=5, sources={"usage": "cgroup_v2"}, sample_count=2))
    total = replace_in_total(total, None, NodeUsage(cpu_usage_us=7, sources={"usage": "cgroup_v1", "cpu": "x"}))
    assert (total.cpu_usage_us, total.sample_count) == (12, 2)
    assert total.sources == {"cpu": "x", "usage": "cgroup_v1,cgroup_v2"}


def test_a_nodes_new_report_replaces_its_old_one_in_the_total() -> None:
    old = NodeUsage(cpu_usage_us=5, memory_peak_bytes=100, sample_count=2)
    new = NodeUsage(cpu_usage_us=9, memory_peak_bytes=90, sample_count=3, io_read_bytes=4)
    total = replace_in_total(replace_in_total(None, None, old), old, new)
    assert (total.cpu_usage_us, total.memory_peak_bytes, total.io_read_bytes, total.sample_count) == (9, 100, 4, 3)


def test_the_cpu_time_of_an_ended_job_says_how_exact_it_is() -> None:
    usage = NodeUsage(cpu_usage_us=5, sources={"usage": "cgroup_v1"}, absent={"cpu_usage_us": "gone", "oom_kills": "?"})
    exact = with_cpu_of_ended_job(usage, 8, shared_by=1)
    assert (exact.cpu_usage_us, exact.sources["cpu"], exact.absent) == (8, "parent_counter", {"oom_kills": "?"})
    shared = with_cpu_of_ended_job(usage, 3, shared_by=4)
    assert (shared.cpu_usage_us, shared.sources["cpu"]) == (5, "parent_counter_shared_by_4")
    assert with_cpu_of_ended_job(NodeUsage(), 0, shared_by=1).cpu_usage_us == 0
    read = with_cpu_of_ended_job(usage, 7, shared_by=0)
    assert (read.cpu_usage_us, read.sources["cpu"]) == (7, "last_sample")
    assert [is_estimated(each) for each in (exact, shared, read)] == [False, True, True]


def test_accounting_takes_the_place_of_estimates_and_not_of_counters() -> None:
    """It can be whole seconds too high: only where a counter told the whole of a run is that known."""

    def told(source: str, *, complete: bool, seconds: float) -> tuple[int | None, str]:
        usage = NodeUsage(cpu_usage_us=2_400_000, sources={"cpu": source})
        total = with_accounting(usage, cpu_usage_us=int(seconds * 1e6), memory_peak_bytes=None, complete=complete)
        return total.cpu_usage_us, total.sources["cpu"]

    assert told("parent_counter", complete=True, seconds=3.4) == (2_400_000, "parent_counter")
    assert told("parent_counter", complete=False, seconds=3.4) == (3_400_000, "slurm_accounting")
    assert told("last_sample", complete=True, seconds=2.5) == (2_500_000, "slurm_accounting")
    assert told("parent_counter_shared_by_2", complete=True, seconds=2.3) == (2_300_000, "slurm_accounting")


@pytest.mark.parametrize(
    ("source", "told", "expected"),
    [
        ("last_sample", 2, (100, "last_sample")),
        ("last_sample", 100, (100, "slurm_accounting")),
        ("last_sample", 101, (101, "slurm_accounting")),
        ("last_sample,parent_counter", 99, (100, "last_sample,parent_counter")),
        ("parent_counter_shared_by_2", 79, (100, "parent_counter_shared_by_2")),
        ("parent_counter_shared_by_2", 80, (80, "slurm_accounting")),
        ("parent_counter_shared_by_2", 200, (200, "slurm_accounting")),
    ],
)
def test_accounting_never_takes_away_what_was_measured(source: str, told: int, expected: tuple[int, str]) -> None:
    """What was last read is a lower bound; of a share of what several jobs used, user and system time are."""
    usage = NodeUsage(cpu_usage_us=100, cpu_user_us=70, cpu_system_us=10, sources={"cpu": source})
    for complete in (True, False):
        total = with_accounting(usage, cpu_usage_us=told, memory_peak_bytes=None, complete=complete)
        assert (total.cpu_usage_us, total.sources["cpu"]) == expected


def test_user_and_system_time_never_exceed_the_total() -> None:
    """On cgroup v1 they are counted in clock ticks, which may sum up to more than the exact counter shows."""
    usage = NodeUsage(cpu_usage_us=100, cpu_user_us=90, cpu_system_us=20, sources={"cpu": "parent_counter_shared_by_2"})
    assert with_accounting(usage, cpu_usage_us=105, memory_peak_bytes=None).cpu_usage_us == 105
    assert with_accounting(usage, cpu_usage_us=100, memory_peak_bytes=None).sources["cpu"] == "slurm_accounting"


def test_usage_says_who_asked_for_its_last_sample() -> None:
    usage = NodeUsage(cpu_usage_us=5, sources={"usage": "cgroup_v1"})
    asked = with_last_look(usage, "task_epilog")
    assert asked.sources == {"usage": "cgroup_v1", "last_look": "task_epilog"}
    assert with_last_look(asked, None) == usage
    assert with_last_look(asked, "task_epilog") is asked


@pytest.mark.parametrize(
    ("earlier", "later", "cpus", "expected"),
    [
        (reading(cpu_usage_us=0), reading(SECOND, cpu_usage_us=SECOND), 1, 100.0),
        (reading(cpu_usage_us=0), reading(SECOND, cpu_usage_us=SECOND), 4, 25.0),
        (reading(cpu_usage_us=7), reading(SECOND, cpu_usage_us=7), 2, 0.0),
        (None, reading(cpu_usage_us=7), 2, None),
        (reading(), reading(SECOND, cpu_usage_us=7), 2, None),
        (reading(cpu_usage_us=7), reading(SECOND), 2, None),
        (reading(cpu_usage_us=7), reading(SECOND, cpu_usage_us=8), None, None),
        (reading(cpu_usage_us=7), reading(SECOND, cpu_usage_us=8), 0, None),
        (reading(cpu_usage_us=9), reading(SECOND, cpu_usage_us=8), 2, None),
        (reading(cpu_usage_us=7), reading(0, cpu_usage_us=8), 2, None),
        (reading(SECOND, cpu_usage_us=7), reading(0, cpu_usage_us=8), 2, None),
    ],
)
def test_the_share_of_the_allocated_cpus(
    earlier: Reading | None, later: Reading, cpus: int | None, expected: float | None
) -> None:
    """Only between two readings of one counter life; otherwise it is not known, which is not 0."""
    assert cpu_percent(earlier, later, cpus) == expected


def node(busy: int | None, total: int | None) -> NodeReading:
    return NodeReading(time_us=START, cpu_busy_us=busy, cpu_total_us=total)


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        (node(0, 0), node(50, 200), 25.0),
        (node(50, 200), node(50, 400), 0.0),
        (None, node(1, 2), None),
        (node(None, 0), node(1, 2), None),
        (node(0, None), node(1, 2), None),
        (node(0, 0), node(None, 2), None),
        (node(0, 0), node(1, None), None),
        (node(5, 10), node(4, 20), None),
        (node(5, 10), node(6, 10), None),
        (node(5, 10), node(6, 9), None),
    ],
)
def test_the_share_of_the_nodes_cpus(earlier: NodeReading | None, later: NodeReading, expected: float | None) -> None:
    assert node_cpu_percent(earlier, later) == expected


@pytest.mark.parametrize(
    ("peak", "told", "expected", "source"),
    [
        (None, 7, 7, True),
        (7, 7, 7, False),
        (7, 8, 8, True),
        (7, 6, 7, False),
        (7, None, 7, False),
        (None, 0, None, False),
    ],
)
def test_the_peak_is_the_larger_of_readings_and_accounting(
    peak: int | None, told: int | None, expected: int | None, source: bool
) -> None:
    """Accounting samples memory too; none at all is what it says of a step too short for it."""
    usage = NodeUsage(memory_peak_bytes=peak, absent={} if peak else {"memory_peak_bytes": "gone"})
    total = with_accounting(usage, cpu_usage_us=None, memory_peak_bytes=told)
    assert total.memory_peak_bytes == expected
    assert total.sources == ({"memory_peak": "slurm_accounting"} if source else {})
    assert total.absent == ({"memory_peak_bytes": "gone"} if expected is None else {})


def test_accounting_fills_in_what_nobody_read() -> None:
    """And says so; what it does not know stays absent with its reason."""
    usage = NodeUsage(absent={"cpu_usage_us": "gone", "oom_kills": "no file"}, sources={"usage": "cgroup_v2"})
    total = with_accounting(usage, cpu_usage_us=9, memory_peak_bytes=None)
    assert (total.cpu_usage_us, total.memory_peak_bytes) == (9, None)
    assert total.absent == {"oom_kills": "no file"}
    assert total.sources == {"usage": "cgroup_v2", "cpu": "slurm_accounting"}
    assert with_accounting(None, cpu_usage_us=None, memory_peak_bytes=None) == NodeUsage()


def test_what_is_known_of_the_cpu_time_only_by_share_is_an_estimate() -> None:
    assert is_estimated(None)
    assert is_estimated(NodeUsage())
    assert is_estimated(NodeUsage(cpu_usage_us=1, sources={"cpu": "parent_counter,parent_counter_shared_by_2"}))
    assert not is_estimated(NodeUsage(cpu_usage_us=0))
    assert not is_estimated(NodeUsage(cpu_usage_us=1, sources={"cpu": "parent_counter"}))

"""Processes beside allocations: who uses what, what disagrees, and how long a held GPU was idle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.gpu_allocation import GpuAllocation, ResolvedGpu, UnresolvedGpu, Via
from jobtrail.domain.gpu_use import AttributionMismatch, Disagreement, IdleTime, IdleTracker, attribute
from jobtrail.domain.gpus import Gpu, GpuProcess, GpuReading

SECOND_US = 1_000_000
A, B, C = "GPU-a", "GPU-b", "GPU-c"
PIDS = {11: "slurm-1", 12: "slurm-1", 21: "slurm-2"}


def holds(*gpu_ids: str, unresolved: int = 0) -> GpuAllocation:
    return GpuAllocation(
        resolved=tuple(
            ResolvedGpu(gpu_id=gpu_id, via=Via.GRES_CONF_FILE, asked=str(place), evidence="")
            for place, gpu_id in enumerate(gpu_ids)
        ),
        unresolved=(UnresolvedGpu(asked="9", reason="not there"),) * unresolved,
    )


def look(
    gpu_id: str, *pids: int, unread: bool = False, utilization: float | None = None, parent: str | None = None
) -> GpuReading:
    return GpuReading(
        gpu=Gpu(gpu_id=gpu_id, vendor="nvidia", parent_gpu_id=parent),
        time_us=0,
        utilization_percent=utilization,
        processes=None if unread else tuple(GpuProcess(pid=pid) for pid in pids),
    )


def test_each_jobs_gpus_are_active_where_its_processes_are() -> None:
    found = attribute([look(A, 11, 12), look(B), look(C, 21)], {"slurm-1": holds(A, B), "slurm-2": holds(C)}, PIDS.get)
    assert (found.jobs["slurm-1"].active, found.jobs["slurm-1"].idle) == ((A,), (B,))
    assert found.jobs["slurm-1"].allocated == 2
    assert found.jobs["slurm-2"].active == (C,)
    assert found.mismatches == ()
    assert (found.gpus[A].holders, found.gpus[A].users, found.gpus[A].shared) == (("slurm-1",), ("slurm-1",), False)


def test_a_gpu_of_which_nothing_is_known_is_neither_active_nor_idle() -> None:
    found = attribute([look(A, unread=True)], {"slurm-1": holds(A, B, unresolved=1)}, PIDS.get)
    assert found.jobs["slurm-1"].unknown == (A, B)
    assert found.jobs["slurm-1"].allocated == 3
    assert found.gpus[A].users is None


@pytest.mark.parametrize(
    ("reading", "jobs", "state"),
    [
        (look(A, unread=True, utilization=40), ["slurm-1"], "active"),
        (look(A, unread=True, utilization=0), ["slurm-1"], "idle"),
        (look(A, unread=True, utilization=40), ["slurm-1", "slurm-2"], "unknown"),
        (look(A, 99, utilization=40), ["slurm-1"], "unknown"),
        (look(A, 99, utilization=0), ["slurm-1"], "idle"),
        (look(A, 21, utilization=40), ["slurm-1", "slurm-2"], "idle"),
        (look(A, 11, utilization=0), ["slurm-1"], "resting"),
    ],
)
def test_utilisation_tells_only_where_processes_cannot(reading: GpuReading, jobs: list[str], state: str) -> None:
    """Work of a process in no job, such as a server of MPS, may be the job's own."""
    found = attribute([reading], {job: holds(A) for job in jobs}, PIDS.get).jobs["slurm-1"]
    assert getattr(found, state) == (A,)


def test_jobs_that_share_a_gpu_are_no_disagreement() -> None:
    found = attribute([look(A, 11, 21, 99)], {"slurm-1": holds(A), "slurm-2": holds(A)}, PIDS.get)
    assert found.mismatches == ()
    assert found.gpus[A].shared
    assert found.gpus[A].strangers == (99,)
    assert found.jobs["slurm-1"].active == found.jobs["slurm-2"].active == (A,)


def test_a_process_on_a_gpu_its_job_does_not_hold_is_told() -> None:
    found = attribute([look(A, 11, 21), look(B, 21)], {"slurm-1": holds(A), "slurm-2": holds()}, PIDS.get)
    assert found.mismatches == (
        AttributionMismatch(kind=Disagreement.HELD_BY_ANOTHER, gpu_id=A, pid=21, job="slurm-2", holders=("slurm-1",)),
        AttributionMismatch(kind=Disagreement.NOT_HELD, gpu_id=B, pid=21, job="slurm-2"),
    )


def test_a_job_whose_gpus_are_not_all_known_cannot_disagree() -> None:
    assert attribute([look(A, 11)], {"slurm-1": holds(unresolved=1)}, PIDS.get).mismatches == ()
    assert attribute([look(A, 11)], {}, PIDS.get).mismatches == ()


def test_who_holds_a_board_holds_its_instances() -> None:
    readings = [look(A, 11), look("MIG-1", 11, parent=A), look("MIG-2", parent=A)]
    found = attribute(readings, {"slurm-1": holds(A)}, PIDS.get)
    assert found.mismatches == ()
    assert found.gpus["MIG-1"].holders == ("slurm-1",)
    assert found.jobs["slurm-1"].active == (A,)


def test_a_process_of_an_instance_also_stands_on_its_board() -> None:
    readings = [look(A, 11, 21), look("MIG-1", 11, parent=A), look("MIG-2", 21, parent=A)]
    found = attribute(readings, {"slurm-1": holds("MIG-1"), "slurm-2": holds("MIG-2")}, PIDS.get)
    assert found.mismatches == ()
    swapped = attribute(readings, {"slurm-1": holds("MIG-2"), "slurm-2": holds("MIG-1")}, PIDS.get)
    assert [(one.gpu_id, one.job) for one in swapped.mismatches] == [("MIG-1", "slurm-1"), ("MIG-2", "slurm-2")]


@given(
    st.lists(st.lists(st.sampled_from([11, 12, 21, 99]), max_size=4), max_size=4),
    st.dictionaries(st.sampled_from(["slurm-1", "slurm-2"]), st.sets(st.integers(0, 4)), max_size=2),
)
def test_every_gpu_of_a_job_has_one_state(processes: list[list[int]], held: dict[str, set[int]]) -> None:
    readings = [look(f"GPU-{number}", *pids) for number, pids in enumerate(processes)]
    jobs = {job: holds(*(f"GPU-{number}" for number in sorted(numbers))) for job, numbers in held.items()}
    found = attribute(readings, jobs, PIDS.get)
    for job, use in found.jobs.items():
        assert sorted((*use.active, *use.idle, *use.unknown)) == sorted(jobs[job].gpu_ids)
        on = {f"GPU-{number}" for number, pids in enumerate(processes) if any(PIDS.get(pid) == job for pid in pids)}
        assert set(use.active) == on & set(jobs[job].gpu_ids)
        assert {one.gpu_id for one in found.mismatches if one.job == job} == on - set(jobs[job].gpu_ids)


def tracker() -> IdleTracker:
    return IdleTracker(window_seconds=60, max_gap_seconds=10)


def looks(of: IdleTracker, *states: tuple[int, bool | None]) -> IdleTracker:
    for second, active in states:
        of.observe(second * SECOND_US, "slurm-1", A, active=active)
    return of


def test_idle_time_lies_between_two_idle_looks() -> None:
    found = looks(tracker(), (0, False), (5, False), (10, False), (15, True), (20, False), (25, False)).idle(
        25 * SECOND_US, "slurm-1", A
    )
    assert found == IdleTime(idle_seconds=15, covered_seconds=25, window_seconds=60)
    assert found.coverage == pytest.approx(25 / 60)


def test_what_was_not_seen_counts_neither_way() -> None:
    found = looks(tracker(), (0, False), (5, None), (10, False), (30, False), (35, False), (35, True)).idle(
        35 * SECOND_US, "slurm-1", A
    )
    assert found == IdleTime(idle_seconds=5, covered_seconds=5, window_seconds=60)


def test_the_window_slides() -> None:
    busy = looks(tracker(), *((second, second >= 100) for second in range(0, 141, 10)))
    assert busy.idle(140 * SECOND_US, "slurm-1", A) == IdleTime(idle_seconds=10, covered_seconds=60, window_seconds=60)
    assert busy.idle(190 * SECOND_US, "slurm-1", A) == IdleTime(idle_seconds=0, covered_seconds=10, window_seconds=60)


def test_one_look_says_nothing_yet() -> None:
    assert looks(tracker(), (0, False)).idle(0, "slurm-1", A) is None
    assert tracker().idle(0, "slurm-1", A) is None


def test_looks_at_a_node_are_counted_until_the_gpu_is_given_back() -> None:
    idle = tracker()
    readings = [look(A), look(B, 11, utilization=0), look(C, 11, utilization=9)]
    for second in (0, 5):
        idle.observe_all(second * SECOND_US, attribute(readings, {"slurm-1": holds(A, B, C, "GPU-x")}, PIDS.get))
    found = [idle.idle(5 * SECOND_US, "slurm-1", gpu_id) for gpu_id in (A, B, C)]
    assert [one and one.idle_seconds for one in found] == [5, 5, 0]
    assert idle.idle(5 * SECOND_US, "slurm-1", "GPU-x") is None
    idle.observe_all(6 * SECOND_US, attribute(readings, {"slurm-1": holds(C)}, PIDS.get))
    assert idle.idle(6 * SECOND_US, "slurm-1", A) is None


@given(st.lists(st.tuples(st.integers(-5, 30), st.sampled_from([True, False, None])), max_size=60))
def test_idle_is_never_more_than_covered_nor_covered_more_than_the_window(steps: list[tuple[int, bool | None]]) -> None:
    idle, now = tracker(), 0
    for step, active in steps:
        now += step
        idle.observe(now * SECOND_US, "slurm-1", A, active=active)
        found = idle.idle(now * SECOND_US, "slurm-1", A)
        assert found is None or 0 <= found.idle_seconds <= found.covered_seconds <= found.window_seconds

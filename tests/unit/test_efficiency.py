"""What a run used of its CPUs and its memory: suspended time, nodes that did not tell, and unequal nodes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobtrail.domain.efficiency import CpuUse, MemoryUse, active_seconds, cpu_use, memory_use
from tests.job_rows import job_row, node_row

BEGIN = datetime(2026, 11, 21, 8, tzinfo=UTC)
GIB = 1 << 30


def ran(seconds: float = 100.0, **job: Any) -> dict[str, Any]:
    known = {"start_time": BEGIN, "end_time": BEGIN + timedelta(seconds=seconds), "cpus_allocated": 4}
    return job_row(**{**known, "cpu_seconds": 200.0, **job})


@pytest.mark.parametrize(
    ("seconds", "suspended", "active"),
    [(100.0, None, 100.0), (100.0, 0.0, 100.0), (100.0, 40.0, 60.0), (100.0, 130.0, 0.0), (None, 40.0, None)],
)
def test_suspended_time_is_taken_off_where_it_is_known(
    seconds: float | None, suspended: float | None, active: float | None
) -> None:
    assert active_seconds(seconds, suspended) == active


@pytest.mark.parametrize(
    ("suspended", "told"),
    [
        (None, CpuUse(cpus=4, allocated_seconds=400.0, ratio=0.5, cores=2.0)),
        (0.0, CpuUse(cpus=4, allocated_seconds=400.0, ratio=0.5, cores=2.0)),
        (50.0, CpuUse(cpus=4, allocated_seconds=200.0, ratio=1.0, cores=4.0)),
        (100.0, CpuUse(cpus=4)),  # there was no time in which it could have used any
    ],
)
def test_cpus_are_not_held_against_a_job_while_it_is_suspended(suspended: float | None, told: CpuUse) -> None:
    assert cpu_use(ran(suspended_seconds=suspended), ()) == told


def test_of_a_run_that_goes_on_the_time_is_that_up_to_its_last_sample() -> None:
    told = {"state": "running", "end_time": None, "last_sample_at": BEGIN + timedelta(seconds=80)}
    assert cpu_use(ran(suspended_seconds=30.0, **told), ()).allocated_seconds == 200.0


@pytest.mark.parametrize(
    ("nodes", "job", "cpus"),
    [
        ([node_row("n1", cpus=3), node_row("n2", cpus=1, sample_count=0)], {}, 3),
        ([node_row("n1", cpus=None)], {}, None),
        ([], {}, None),
        ([node_row("n1", cpus=3)], {"usage_sources": {"cpu": "slurm_accounting"}}, 4),
        ([node_row("n1", cpus=3)], {"nodes_reporting": 2}, 4),
        ([node_row("n1", cpus=3)], {"nodes_total": None}, 4),
        ([node_row("n1", cpus=3)], {"nodes_reporting": 0}, 4),
    ],
)
def test_cpu_time_is_of_the_cpus_of_the_nodes_that_told_of_it(
    nodes: list[dict[str, Any]], job: dict[str, Any], cpus: int | None
) -> None:
    assert cpu_use(ran(**{"nodes_reporting": 1, "nodes_total": 2, **job}), nodes).cpus == cpus


def node(name: str, peak: int | None, limit: int | None) -> dict[str, Any]:
    return node_row(name, memory_peak_bytes=None if peak is None else peak * GIB,
                    memory_limit_bytes=None if limit is None else limit * GIB)  # fmt: skip


RUN = {"memory_peak_bytes": 6 * GIB, "memory_limit_bytes": 16 * GIB, "nodes_total": 2}


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([node("n1", 6, 16), node("n2", 3, 4)], (3, 4, "n2")),
        ([node("n1", 8, 16), node("n2", 2, 4)], (2, 4, "n2")),  # of equals the last by name
        ([node("n1", 6, 16), node("n2", 3, 16)], (6, 16, None)),
        ([node("n1", 6, 16), node("n2", None, 4)], (6, 16, None)),
        ([node("n1", 6, 16), node("n2", 3, None)], (6, 16, None)),
        ([], (6, 16, None)),
    ],
)
def test_of_unequal_nodes_the_one_nearest_to_its_own_limit_tells(
    nodes: list[dict[str, Any]], told: tuple[int, int, str | None]
) -> None:
    peak, limit, name = told
    assert memory_use(job_row(**RUN), nodes) == MemoryUse(
        peak_bytes=peak * GIB, limit_bytes=limit * GIB, limit_of=name, ratio=peak / limit
    )


@pytest.mark.parametrize(
    ("job", "limit"),
    [
        ({"memory_requested_bytes": 16 * GIB}, 8 * GIB),
        ({"memory_requested_bytes": 16 * GIB, "nodes_total": None}, None),
        ({}, None),
    ],
)
def test_without_a_limit_it_is_a_node_s_share_of_what_was_asked_for(job: dict[str, Any], limit: int | None) -> None:
    use = memory_use(job_row(**{**RUN, "memory_limit_bytes": None, **job}), ())
    assert (use.limit_bytes, use.ratio) == (limit, None if limit is None else 0.75)

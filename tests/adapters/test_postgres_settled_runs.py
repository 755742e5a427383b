"""The runs whose AdminComment is still to be written, from a real trail."""

from __future__ import annotations

import time
from typing import Any

import pytest

from jobtrail.adapters.postgres import PostgresSettledRuns, PostgresSink, session
from jobtrail.domain.events import Actor, EventKind, NodeUsage
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.job_report_making import make_report
from jobtrail.domain.slurm import Origin, SlurmRecord
from tests.chains import SECOND, T0, ChainWriter

LONG = time.time() - T0 / 1e6 + 86_400.0  # seconds since the jobs of ChainWriter, and a day: tests may run for hours
USAGE = NodeUsage(cpu_usage_us=30 * SECOND, memory_peak_bytes=1 << 30, sample_count=7, covered_us=9 * SECOND)


def ran(writer: ChainWriter, number: int, *, state: str | None = "COMPLETED", at: int = 0) -> None:
    """A job that ran for ten seconds, and Slurm's word on it if it said one."""
    job_id = f"slurm-{number}"
    opened_by = writer.started(job_id, at)
    writer.finished(job_id, at + 10 * SECOND, 0, opened_by=opened_by)
    writer.used(job_id, at + 10 * SECOND + 1, USAGE, opened_by=opened_by)
    if state is None:
        return
    start = (T0 + at) // SECOND
    record = SlurmRecord(
        origin=Origin.SLURMDBD, job_id=job_id, state=state, submit_time=start - 5, start_time=start,
        end_time=start + 10, outcome=Outcome(exit_code=0), facts=JobFacts(nodes=("n1",), partition="p1"),
        cpu_usage_us=30 * SECOND,
    )  # fmt: skip
    writer.event(EventKind.SLURM_REPORTED, job_id, at + 11 * SECOND, Actor.RECONCILER, run=1, slurm=record)


async def numbers(pool: Any, *, quiet: float = 0.0, since: float = LONG, **more: Any) -> list[int]:
    runs = PostgresSettledRuns(pool, timeout_seconds=10.0, quiet_seconds=quiet)
    rows = await runs.uncommented("c1", since_seconds=since, **{"limit": 10, "but_not": (), **more})
    return [int(row["job_id"].removeprefix("slurm-")) for row in rows]


@pytest.fixture
async def stored(pool: Any) -> Any:
    """Jobs 3 and 1 are settled, 1 the longer; the others are not, or are commented on."""
    writer = ChainWriter("n1")
    ran(writer, 3, at=60 * SECOND)
    ran(writer, 1)
    ran(writer, 2, state=None)
    ran(writer, 4, state="REQUEUED")
    ran(writer, 5)
    writer.event(EventKind.COMMENT_WRITTEN, "slurm-5", 20 * SECOND, Actor.RECONCILER, run=1, note="jobtrail: x")
    writer.whole_job("local-6")
    await PostgresSink(pool).store(writer.rows, node="n1")
    return pool


async def test_settled_runs_without_a_comment_the_longest_over_first(stored: Any) -> None:
    assert await numbers(stored) == [1, 3]


async def test_those_that_are_known_are_left_out(stored: Any) -> None:
    assert await numbers(stored, but_not=[("slurm-1", 1), ("slurm-3", 2)]) == [3]
    assert await numbers(stored, limit=1) == [1]


async def test_a_run_of_which_something_new_was_said_is_not_settled_yet(stored: Any) -> None:
    assert await numbers(stored, quiet=3600.0) == []


async def test_what_was_over_before_is_let_be(stored: Any) -> None:
    assert await numbers(stored, since=3600.0) == []


async def test_usage_that_accounting_may_still_tell_is_waited_for_for_ten_minutes(stored: Any) -> None:
    async with session(stored, 10.0) as connection:
        await connection.execute("UPDATE jobs SET awaits = 'usage' WHERE job_id IN ('slurm-1', 'slurm-3')")
        await connection.execute("UPDATE jobs SET end_time = now() WHERE job_id = 'slurm-1'")
    assert await numbers(stored) == [3]


async def test_runs_of_another_cluster_are_another_daemons(stored: Any) -> None:
    runs = PostgresSettledRuns(stored, timeout_seconds=10.0, quiet_seconds=0.0)
    assert await runs.uncommented("c2", since_seconds=LONG, limit=10, but_not=()) == []


async def test_a_row_is_what_a_report_is_made_of(stored: Any) -> None:
    runs = PostgresSettledRuns(stored, timeout_seconds=10.0, quiet_seconds=0.0)
    row, _ = await runs.uncommented("c1", since_seconds=LONG, limit=10, but_not=())
    told = make_report(row, sentence="", nodes=(), gpus=(), other_runs=(), now=row["end_time"])
    assert (told.verdict, told.cpu.used_seconds, told.memory.peak_bytes) == ("completed", 30.0, 1 << 30)


async def test_the_comment_is_a_row_of_the_jobs_trail_and_changes_no_job(stored: Any) -> None:
    async with session(stored, 10.0) as connection:
        (row,) = await connection.fetch(
            "SELECT l.change_type, l.run, l.unapplied, j.correlation_id = l.correlation_id AS same FROM audit_log AS l"
            " JOIN jobs AS j USING (job_id) WHERE l.kind = 'comment_written'"
        )
    assert dict(row) == {"change_type": "update", "run": 1, "unapplied": None, "same": True}

"""The jobs derived anew from the trail: equal when nobody touched them, every difference named when somebody did."""

from typing import Any

import pytest

from jobtrail.adapters.postgres import PostgresSink, RebuildReport, rebuild, rebuild_check, session
from jobtrail.adapters.postgres.values import to_datetime
from jobtrail.core.ports import TRAIL_ONLY
from jobtrail.domain.events import EventKind, NodeUsage
from jobtrail.domain.states import State
from tests.chains import SECOND, T0, ChainWriter


@pytest.fixture
async def filled(pool: Any) -> Any:
    """Two nodes' chains stored out of order: shared jobs, a second run, a NUL, a poison row, 30 jobs more."""
    nodes = ["n1", "n2"]
    one, other = ChainWriter("n1"), ChainWriter("n2")
    for writer in (one, other):
        writer.begin()
        opened_by = writer.started("slurm-1", nodes=nodes, job_name="nul \x00")
        writer.used("slurm-1", 4 * SECOND, NodeUsage(cpu_usage_us=5, sample_count=1), opened_by=opened_by)
        writer.finished("slurm-1", 5 * SECOND, 1 if writer is one else 0, opened_by=opened_by)
        writer.raw(b"poison")
    one.started("slurm-1", 60 * SECOND)
    for number in range(2, 32):
        other.whole_job(f"slurm-{number}", exit_code=number % 3)
    sink = PostgresSink(pool)
    await sink.store(other.rows, node="n2")
    for begin in range(0, len(one.rows), 2):
        await sink.store(one.rows[begin : begin + 2], node="n1")
    return pool


async def check(pool: Any) -> RebuildReport:
    async with session(pool, 10.0) as connection:
        return await rebuild_check(connection)


async def change(pool: Any, statement: str) -> None:
    async with session(pool, 10.0) as connection:
        await connection.execute(statement)


def named(report: RebuildReport) -> list[tuple[str, int, str | None, str, Any, Any]]:
    return [(one.job_id, one.run, one.node, one.field, one.stored, one.from_trail) for one in report.differences]


async def test_an_untouched_projection_equals_its_trail(filled: Any) -> None:
    report = await check(filled)
    assert named(report) == []
    assert (report.equal, report.runs, report.events, report.unverifiable) == (True, 32, 97, {})


async def test_progress_is_told(filled: Any) -> None:
    told: list[int] = []
    async with session(filled, 10.0) as connection:
        await rebuild_check(connection, told.append)
    assert told[-1] == 32


async def test_a_hand_edited_column_is_named_with_both_values(filled: Any) -> None:
    await change(filled, "UPDATE jobs SET state = 'completed', cpu_seconds = 1e9 WHERE job_id = 'slurm-4'")
    await change(filled, "UPDATE job_nodes SET memory_peak_bytes = NULL WHERE job_id = 'slurm-5'")
    report = await check(filled)
    assert not report.equal
    assert sorted(named(report), key=str) == [
        ("slurm-4", 1, None, "cpu_seconds", 1e9, 30.0),
        ("slurm-4", 1, None, "state", "completed", "failed"),
        ("slurm-5", 1, "n2", "memory_peak_bytes", None, 1 << 30),
    ]


async def test_an_edited_projection_is_found_although_the_columns_agree(filled: Any) -> None:
    await change(filled, "UPDATE jobs SET projection = projection || '{\"nodes_ended\": 77}' WHERE job_id = 'slurm-4'")
    ((job_id, _, _, field, stored, expected),) = named(await check(filled))
    assert (job_id, field, stored["nodes_ended"], expected["nodes_ended"]) == ("slurm-4", "projection", 77, 1)


async def test_missing_and_invented_rows_are_named(filled: Any) -> None:
    await change(filled, "DELETE FROM jobs WHERE job_id = 'slurm-4'")
    await change(filled, "DELETE FROM job_nodes WHERE job_id = 'slurm-5'")
    await change(filled, "INSERT INTO job_nodes (cluster_name, job_id, run, node, projection) "
                         "VALUES ('c1', 'slurm-6', 1, 'n99', '{}')")  # fmt: skip
    await change(filled, "INSERT INTO jobs (cluster_name, job_id, run, state, correlation_id, projection) "
                         "VALUES ('c1', 'slurm-999', 1, 'ended', gen_random_uuid(), '{}')")  # fmt: skip
    assert sorted(named(await check(filled)), key=str) == [
        ("slurm-4", 1, None, "row", None, "present"),
        ("slurm-5", 1, "n2", "row", None, "present"),
        ("slurm-6", 1, "n99", "row", "present", None),
        ("slurm-999", 1, None, "row", "present", None),
    ]


async def test_a_rebuild_puts_everything_right_and_says_what_was_wrong(filled: Any) -> None:
    await change(filled, "UPDATE jobs SET state = 'completed'")
    await change(filled, "DELETE FROM jobs WHERE job_id = 'slurm-4'")
    await change(filled, "DELETE FROM job_nodes WHERE node = 'n1'")
    await change(filled, "INSERT INTO jobs (cluster_name, job_id, run, state, correlation_id, projection) "
                         "VALUES ('c1', 'slurm-999', 1, 'ended', gen_random_uuid(), '{}')")  # fmt: skip
    async with session(filled, 10.0) as connection:
        report = await rebuild(connection)
    assert not report.equal
    after = await check(filled)
    assert (named(after), after.runs) == ([], 32)


async def test_a_run_whose_payload_is_erased_is_said_to_be_unverifiable_and_left_as_it_is(filled: Any) -> None:
    async with session(filled, 10.0) as connection, connection.transaction():
        await connection.execute("ALTER TABLE audit_payload DISABLE TRIGGER audit_payload_append_only")
        await connection.execute(
            "DELETE FROM audit_payload p USING audit_log l "
            "WHERE (l.chain_id, l.seq) = (p.chain_id, p.seq) AND l.job_id = 'slurm-4' AND l.kind = 'job_started'"
        )
    await change(filled, "UPDATE jobs SET account = 'kept' WHERE job_id = 'slurm-4'")
    report = await check(filled)
    assert (report.equal, report.unverifiable) == (True, {"c1/slurm-4/1": "the payload of an event is erased"})
    async with session(filled, 10.0) as connection:
        await rebuild(connection)
        assert await connection.fetchval("SELECT account FROM jobs WHERE job_id = 'slurm-4'") == "kept"


async def test_an_event_kept_in_the_trail_only_is_no_difference(pool: Any) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    sink = PostgresSink(pool)
    await sink.store(writer.rows[:2], node="n1")
    await sink.store(writer.rows[2:], node="n1", trail_only=TRAIL_ONLY)
    report = await check(pool)
    assert (report.equal, report.events) == (True, 2)


@pytest.fixture
async def said(pool: Any) -> Any:
    """A job kept by hand, one that was withdrawn and spoken of later, and a remark on a Slurm job."""
    writer, late = ChainWriter("n1"), ChainWriter("n2")
    writer.whole_job("slurm-1")
    writer.said(EventKind.JOB_AMENDED, -SECOND, "slurm-1", run=1, comment="told on a clock that is behind")
    writer.said(EventKind.JOB_CREATED, 0, "manual-b", state=State.RUNNING)
    writer.said(EventKind.JOB_CREATED, 0, "manual-a", account="chem", uid=9, user_name="ada")
    writer.said(EventKind.JOB_WITHDRAWN, SECOND, "manual-a")
    late.said(EventKind.JOB_AMENDED, 2 * SECOND, "manual-a", account="phys")
    sink = PostgresSink(pool)
    await sink.store(writer.rows, node="n1")
    await sink.store(late.rows, node="n2")
    return pool


async def test_what_people_said_gives_the_same_again(said: Any) -> None:
    report = await check(said)
    assert named(report) == []
    assert (report.runs, report.unverifiable) == (3, {})
    async with session(said, 10.0) as connection:
        (row,) = await connection.fetch(
            "SELECT job_id, withdrawn_by, sent_by, user_name, uid, account, job ->> 'state' AS state, withdrawn_at "
            "FROM jobs_withdrawn"
        )
    assert tuple(row) == (
        "manual-a", "ada", "uid:7", "ada", 9, "phys", "pending", to_datetime(T0 + SECOND)
    )  # fmt: skip


async def test_a_withdrawn_job_that_somebody_touched_is_named_and_put_right(said: Any) -> None:
    """Also one that somebody put back among the jobs, and one that somebody made up."""
    await change(said, "UPDATE jobs_withdrawn SET withdrawn_by = 'eve'")
    await change(
        said,
        "INSERT INTO jobs (cluster_name, job_id, run, state, correlation_id, projection) "
        "SELECT cluster_name, job_id, run, 'running', correlation_id, projection FROM jobs_withdrawn",
    )
    await change(
        said,
        "INSERT INTO jobs_withdrawn (cluster_name, job_id, run, withdrawn_at, correlation_id, job, projection) "
        "SELECT cluster_name, 'manual-x', run, withdrawn_at, correlation_id, job, projection FROM jobs_withdrawn",
    )
    assert sorted(named(await check(said))) == [
        ("manual-a", 1, None, "row", "present", None),
        ("manual-a", 1, None, "withdrawn.withdrawn_by", "eve", "ada"),
        ("manual-x", 1, None, "row", "present", None),
    ]
    async with session(said, 60.0) as connection:
        assert (await rebuild(connection)).differing == 3
    assert named(await check(said)) == []
    async with session(said, 10.0) as connection:
        held = await connection.fetch("SELECT job_id FROM jobs UNION ALL SELECT job_id FROM jobs_withdrawn ORDER BY 1")
    assert [row["job_id"] for row in held] == ["manual-a", "manual-b", "slurm-1"]


async def test_a_withdrawn_job_that_is_missing_is_named(said: Any) -> None:
    await change(said, "DELETE FROM jobs_withdrawn")
    assert named(await check(said)) == [("manual-a", 1, None, "withdrawn.row", None, "present")]

"""What the CLI and the API ask."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import JobFilter, PostgresReader, PostgresSink, PostgresStore, public_job_id, session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.errors import NotFound, StoreUnavailable
from jobtrail.domain.events import Actor, EventKind, NodeUsage
from jobtrail.domain.slurm import Origin, SlurmRecord
from tests.chains import SECOND, T0, ChainWriter

START = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=T0)


@pytest.fixture
async def reader(pool: Any) -> PostgresReader:
    """Jobs 1 to 5 one minute apart on n1, job 3 twice, job 5 still running; job 1 in another cluster too."""
    writer, other = ChainWriter("n1"), ChainWriter("m1", cluster="c2")
    for number in range(1, 6):
        opened_by = writer.started(
            f"slurm-{number}", number * 60 * SECOND, account="even" if number % 2 == 0 else "odd"
        )
        if number != 5:
            writer.finished(f"slurm-{number}", (number * 60 + 10) * SECOND, number % 2, opened_by=opened_by)
    writer.started("slurm-3", 200 * SECOND)
    other.started("slurm-1", 0)
    sink = PostgresSink(pool)
    await sink.store(writer.rows, node="n1")
    await sink.store(other.rows, node="m1")
    return PostgresReader(pool, timeout_seconds=10.0)


def keys(jobs: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(job["cluster_name"], job["job_id"], job["run"]) for job in jobs]


async def test_jobs_come_newest_first_in_pages_with_the_total(reader: PostgresReader) -> None:
    page = await reader.list_jobs(limit=3)
    assert keys(page.jobs) == [("c1", "slurm-5", 1), ("c1", "slurm-4", 1), ("c1", "slurm-3", 2)]
    assert page.total == 7
    rest = await reader.list_jobs(limit=3, offset=6)
    assert keys(rest.jobs) == [("c2", "slurm-1", 1)]
    assert page.jobs[0]["start_time"] == START + timedelta(minutes=5)


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("wanted", "job_ids"),
    [
        (JobFilter(state="running"), ["slurm-5", "slurm-3", "slurm-1"]),
        (JobFilter(state="failed"), ["slurm-3", "slurm-1"]),
        (JobFilter(user="ada", account="even"), ["slurm-4", "slurm-2"]),
        (JobFilter(user="nobody"), []),
        (JobFilter(partition="p1", cluster="c2"), ["slurm-1"]),
        (JobFilter(node="m1"), ["slurm-1"]),
        (JobFilter(since=START + 4 * MINUTE + timedelta(seconds=11), cluster="c1"), ["slurm-5", "slurm-3"]),
        (JobFilter(until=START + 2 * MINUTE, cluster="c1"), ["slurm-1"]),
        (JobFilter(since=START + 2 * MINUTE, until=START + 3 * MINUTE, cluster="c1"), ["slurm-2"]),
    ],
)
async def test_each_filter_picks_its_jobs(reader: PostgresReader, wanted: JobFilter, job_ids: list[str]) -> None:
    page = await reader.list_jobs(wanted)
    assert [job["job_id"] for job in page.jobs] == job_ids
    assert page.total == len(job_ids)


async def test_a_job_is_shown_with_its_newest_run_its_nodes_and_the_other_runs(reader: PostgresReader) -> None:
    for job_id in ("3", "slurm-3"):
        detail = await reader.show_job(job_id)
        assert (detail.job["run"], detail.job["state"], detail.other_runs) == (2, "running", [("c1", 1)])
        assert [node["node"] for node in detail.nodes] == ["n1"]
    first = await reader.show_job("3", run=1)
    assert (first.job["state"], first.job["verdict_evidence"]["told"]["outcome"]) == ("failed", {"exit_code": 1})
    assert "projection" not in first.job
    assert (await reader.show_job("1", cluster="c2")).job["cluster_name"] == "c2"
    msgspec.json.encode(detail)  # the API sends it as it is


async def test_a_job_is_shown_with_the_reason_of_its_end_and_how_much_its_figures_cover(pool: Any) -> None:
    writer = ChainWriter("n1")
    opened_by = writer.started("slurm-7", nodes=("n1", "n2"))
    usage = NodeUsage(cpu_usage_us=20 * SECOND, memory_peak_bytes=1 << 20, sample_count=3, covered_us=9 * SECOND)
    writer.finished("slurm-7", 10 * SECOND, 3, opened_by=opened_by)
    writer.used("slurm-7", 10 * SECOND + 1, usage, opened_by=opened_by)
    record = SlurmRecord(origin=Origin.SLURMDBD, job_id="slurm-7", state="NODE_FAIL", start_time=T0 // SECOND)
    writer.event(EventKind.SLURM_REPORTED, "slurm-7", 12 * SECOND, Actor.RECONCILER, run=1, slurm=record)
    await PostgresSink(pool).store(writer.rows, node="n1")
    detail = await PostgresReader(pool, timeout_seconds=10.0).show_job("7")
    assert "node" in detail.sentence
    assert detail.sentence.endswith(".")
    job = detail.job
    assert (job["state_confirmed"], job["outcome_source"], job["raw_state"]) == (True, "slurmdbd", "NODE_FAIL")
    assert (detail.efficiency["nodes_reporting"], detail.efficiency["nodes_total"]) == (1, 2)
    assert detail.efficiency["sample_count"] == 3
    assert not {"projection"} & (job.keys() | detail.nodes[0].keys())
    assert {"end_inferred", "end_not_before"} <= detail.nodes[0].keys()


@pytest.mark.parametrize("which", [{"job_id": "77"}, {"job_id": "3", "run": 9}, {"job_id": "3", "cluster": "c2"}])
async def test_a_job_that_is_not_stored_is_named(reader: PostgresReader, which: dict[str, Any]) -> None:
    with pytest.raises(NotFound, match="slurm-"):
        await reader.show_job(**which)


async def test_the_trail_of_a_job_comes_oldest_first_and_cut_at_the_old_end(reader: PostgresReader) -> None:
    rows = await reader.audit_log("3")
    assert [(row["event_kind"], row["run"]) for row in rows] == [
        ("job_started", 1), ("job_finished", 1), ("job_started", 2),
    ]  # fmt: skip
    assert rows[1]["event"]["outcome"] == {"exit_code": 1}
    assert rows[1]["job_snapshot"]["state"] == "failed"
    assert isinstance(rows[0]["correlation_id"], str)
    assert [row["seq"] for row in await reader.audit_log("3", limit=2)] == [row["seq"] for row in rows[1:]]
    assert [row["run"] for row in await reader.audit_log("3", run=2)] == [2]
    assert await reader.audit_log("3", cluster="c2") == []
    msgspec.json.encode(rows)


async def test_states_are_counted(reader: PostgresReader, pool: Any) -> None:
    expected = {"running": 3, "failed": 2, "ended": 2}
    assert await reader.count_states() == expected
    store = PostgresStore(pool, timeout_seconds=10.0)
    assert await store.count_states() == expected
    await store.keep_partitions(days_ahead=3, retention_days=7)  # a day may have begun since the database was made
    assert await store.keep_partitions(days_ahead=3, retention_days=7) == (0, 0)


async def test_a_database_not_migrated_is_unavailable(empty_database: str) -> None:
    from jobtrail.adapters.postgres import close_pool, open_pool

    opened = await open_pool(empty_database, size=1, timeout_seconds=5.0)
    with pytest.raises(StoreUnavailable, match="jobs"):
        await PostgresReader(opened, timeout_seconds=5.0).list_jobs()
    await close_pool(opened, timeout_seconds=5.0)


@pytest.mark.parametrize(
    ("text", "stored"), [("123", "slurm-123"), ("slurm-123", "slurm-123"), ("local-4", "local-4"), ("²", "²"), ("", "")]
)
def test_a_bare_number_means_slurms(text: str, stored: str) -> None:
    assert public_job_id(text) == stored


async def test_a_task_of_an_array_is_found_by_the_id_it_has_in_it(pool: Any) -> None:
    """The task has a job id of its own; the array's last task has the array's."""
    writer = ChainWriter("n1")
    for job_id, task in (("slurm-51", 3), ("slurm-50", 4)):
        writer.started(job_id, array_job_id="slurm-50", array_task_id=task)
    await PostgresSink(pool).store(writer.rows, node="n1")
    reader = PostgresReader(pool, timeout_seconds=10.0)
    assert (await reader.show_job("50_3")).job["job_id"] == "slurm-51"
    assert (await reader.show_job("slurm-50_4", cluster="c1")).job["job_id"] == "slurm-50"
    assert [row["job_id"] for row in await reader.audit_log("50_3")] == ["slurm-51"]
    for missing in ({"job_id": "50_5"}, {"job_id": "50_3", "cluster": "c2"}):
        with pytest.raises(NotFound, match="of array slurm-50 is stored"):
            await reader.show_job(**missing)


async def test_a_task_of_an_array_is_found_through_an_index(pool: Any) -> None:
    """A million jobs of others cost nothing."""
    async with session(pool, 10.0) as connection:
        await connection.execute("SET enable_seqscan = off")
        query = SQL["array_task_find"].replace("$1", "'slurm-5'").replace("$2", "3").replace("$3", "NULL")
        plan = await connection.fetch("EXPLAIN " + query.partition("\n")[2])
        await connection.execute("RESET enable_seqscan")
    assert "jobs_array_task_idx" in "\n".join(row[0] for row in plan)

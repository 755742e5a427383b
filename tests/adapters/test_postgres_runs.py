"""The runs that Slurm is still to be asked about: which, in which order, and what it costs to find them."""

from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresReader, PostgresRuns, PostgresSink, session
from jobtrail.adapters.postgres.pool import transaction
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.events import Event, encode
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.slurm import Origin
from tests.chains import ChainWriter
from tests.postgres import EVERY_ROW
from tests.unit.stories import SECOND, finished, reported, started

OLD_RUNS = 100_000
LONG_AGO = "now() - interval '200 days' + n * interval '10 seconds'"
# A run as the sink writes it, but for what a question looks at.
ADD = """
WITH seed AS (SELECT projection FROM jobs WHERE job_id = 'slurm-7' ORDER BY run LIMIT 1),
    run AS (SELECT n, $1::text AS cluster, 'slurm-' || (n + $2::integer) AS id
            FROM generate_series(1, $4::integer) AS n)
INSERT INTO jobs
    (cluster_name, job_id, run, correlation_id, state, awaits, projection, start_time, submit_time, end_time,
    updated_at)
SELECT cluster, id, 1, gen_random_uuid(), 'ended', $3::text,
    projection || jsonb_build_object('cluster_name', cluster, 'job_id', id, 'awaits', $3),
    {start}, {submit}, {end}, {updated}
FROM seed, run
"""
FACTS = JobFacts(nodes=("n1",), node_list="n1", user_name="ada", job_name="x")


async def add(
    pool: Any,
    number: int,
    awaits: str | None,
    *,
    cluster: str = "c1",
    count: int = 1,
    start: str = "NULL",
    submit: str = "NULL",
    end: str = "NULL",
    updated: str = "now()",
) -> None:
    """Runs slurm-`number` and the `count` - 1 after it; times are SQL."""
    statement = ADD.format(start=start, submit=submit, end=end, updated=updated)
    async with session(pool, 60.0) as connection:
        await connection.execute(statement, cluster, number - 1, awaits, count)


async def store(pool: Any, *events: Event) -> None:
    writer = ChainWriter("n1")
    for event in events:
        writer.raw(encode(event), kind=str(event.kind))
    await PostgresSink(pool).store(writer.rows, node="n1")


@pytest.fixture
async def runs(pool: Any) -> PostgresRuns:
    """A store with one run that nothing is awaited of any more: the pattern of all others."""
    await store(pool, started("n1", 0, nodes=["n1"]))
    async with session(pool, 10.0) as connection:
        await connection.execute("UPDATE jobs SET awaits = NULL, cluster_name = 'pattern'")
    return PostgresRuns(pool, timeout_seconds=30.0)


async def unsettled(runs: PostgresRuns, *, limit: int = 100) -> list[int]:
    return [int(job.job_id.removeprefix("slurm-")) for job in await runs.unsettled("c1", limit=limit)]


async def test_unknown_outcomes_come_before_usage_and_the_newest_first(pool: Any, runs: PostgresRuns) -> None:
    await add(pool, 1, "usage", start="now() - interval '2 hours'", end="now() - interval '1 minute'")
    await add(pool, 2, "usage", end="now() - interval '1 second'")
    await add(pool, 3, "outcome", end="now() - interval '6 days'")
    await add(pool, 4, "facts", start="now() - interval '1 day'")
    await add(pool, 5, "outcome", start="now() - interval '9 days'", end="now() - interval '2 hours'")
    await add(pool, 6, "end", start="now() - interval '1 minute'")
    await add(pool, 7, None, end="now()")
    assert await unsettled(runs) == [5, 4, 3, 2, 1]
    assert await unsettled(runs, limit=4) == [5, 4, 3, 2]
    assert await unsettled(runs, limit=2) == [5, 4]


async def test_what_is_older_than_a_week_is_not_asked_about(pool: Any, runs: PostgresRuns) -> None:
    """Also not what has no time at all and was last heard of before then."""
    past = "now() - interval '8 days'"
    await add(pool, 1, "outcome", start="now() - interval '9 days'", end=past)
    await add(pool, 2, "facts", start=past)
    await add(pool, 3, "usage", end=past)
    await add(pool, 4, "outcome", submit=past)
    await add(pool, 5, "outcome", updated=past)
    await add(pool, 8, "outcome", submit="now() - interval '6 days'", updated="now() - interval '6 days'")
    await add(pool, 9, "outcome")
    assert await unsettled(runs) == [9, 8]


@pytest.mark.parametrize("awaits", ["facts", "outcome", "usage", "end"])
async def test_the_only_cluster_is_that_of_the_last_weeks_runs(pool: Any, runs: PostgresRuns, awaits: str) -> None:
    """A cluster that is gone, with runs that nobody ever asked about, stands in nobody's way."""
    assert await runs.only_cluster() is None
    past = "now() - interval '8 days'"
    await add(pool, 1, awaits, cluster="gone", start=past, updated=past)
    assert await runs.only_cluster() is None
    await add(pool, 1, awaits, cluster="c2", start="now()")
    assert await runs.only_cluster() == "c2"
    await add(pool, 2, awaits, cluster="c2", start="now()")
    assert await runs.only_cluster() == "c2"
    await add(pool, 1, awaits, cluster="c1", start="now()")
    assert await runs.only_cluster() is None


async def test_a_run_that_goes_on_for_weeks_still_names_its_cluster(pool: Any, runs: PostgresRuns) -> None:
    await add(pool, 1, "end", cluster="c2", start="now() - interval '30 days'")
    assert await runs.only_cluster() == "c2"


def scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a plan that read a table."""
    inner = [scan for part in plan.get("Plans", ()) for scan in scans(part)]
    return [plan, *inner] if "Relation Name" in plan or "Index Name" in plan else inner


def rows_read(plan: dict[str, Any]) -> int:
    removed = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    each = [
        (scan["Actual Rows"] + sum(scan.get(name, 0) for name in removed)) * scan["Actual Loops"]
        for scan in scans(plan)
    ]
    return int(sum(each))


async def test_a_hundred_thousand_old_runs_cost_a_question_nothing(pool: Any, runs: PostgresRuns) -> None:
    """Runs that were never settled stay for ever, and these questions are asked every few seconds."""
    for first, awaits in ((1, "usage"), (OLD_RUNS // 2 + 1, "outcome")):
        await add(pool, first, awaits, count=OLD_RUNS // 2, start=LONG_AGO, end=LONG_AGO)
    await add(pool, 900_001, "usage", count=30, end="now() - n * interval '1 minute'")
    await add(pool, 910_001, "outcome", count=20, end="now() - n * interval '1 minute'")
    await add(pool, 920_001, "end", count=10, start="now() - n * interval '1 minute'")
    async with session(pool, 60.0) as connection:
        await connection.execute(EVERY_ROW.format(table="jobs", column="run"))
        await connection.execute("ANALYZE jobs")
        for name, arguments in (
            ("runs_unsettled", ("c1", 20_000)),
            ("clusters_unsettled", ()),
            ("runs_open", ("c1", 9)),
            ("jobs_list", (*[None] * 9, 50, 0)),
        ):
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {SQL[name]}"
            (told,) = msgspec.json.decode(await connection.fetchval(explain, *arguments))
            plan = told["Plan"]
            assert {scan["Node Type"] for scan in scans(plan)} <= {
                "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Bitmap Index Scan",
            }, msgspec.json.format(msgspec.json.encode(plan))  # fmt: skip
            assert rows_read(plan) <= 200, (name, plan)
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 300, (name, plan)
    wanted = await runs.unsettled("c1", limit=20_000)
    assert len(wanted) == 50


async def test_an_update_of_a_running_job_touches_no_index(pool: Any, runs: PostgresRuns) -> None:
    """Each checkpoint of each job is one, so that an index on what it changes would cost more than it gives."""
    await add(pool, 1, "end", start="now()")
    async with transaction(pool, 10.0) as connection:
        await connection.execute("UPDATE jobs SET updated_at = now(), cpu_seconds = 3, last_sample_at = now()")
        in_place = await connection.fetchval("SELECT pg_stat_get_xact_tuples_hot_updated('jobs'::regclass)")
    assert in_place == 2


async def test_the_newest_run_is_the_one_that_was_submitted_last_even_if_it_never_started(pool: Any) -> None:
    """Taken back into the queue and held there, then cancelled: the second run has no start."""
    first = started("n1", 0, nodes=["n1"])
    await store(
        pool,
        first,
        msgspec.structs.replace(finished("n1", 10 * SECOND, nodes=["n1"]), opened_by=first.event_id),
        reported(
            Origin.SLURMDBD, 20 * SECOND, "a", state="REQUEUED", submit_time=-1, start_time=0, end_time=10, facts=FACTS
        ),
        reported(
            Origin.SLURMDBD, 90 * SECOND, "b", state="CANCELLED", submit_time=11, end_time=60,
            facts=JobFacts(job_name="x"),
        ),
    )  # fmt: skip
    reader = PostgresReader(pool, timeout_seconds=10.0)
    detail = await reader.show_job("7")
    assert (detail.job["run"], detail.job["verdict"], detail.job["start_time"]) == (2, "cancelled", None)
    assert detail.other_runs == [("c1", 1)]
    assert [job["run"] for job in (await reader.list_jobs()).jobs] == [2, 1]

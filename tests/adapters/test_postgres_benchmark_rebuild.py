"""Benchmarks derived anew from the trail: every difference named, what the server worked out kept where it is right."""

from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import (
    PostgresBenchmarks,
    PostgresSink,
    RebuildReport,
    rebuild,
    rebuild_check,
    session,
)
from jobtrail.domain.benchmarks.report import Decision
from jobtrail.domain.benchmarks.settling import JobLink, LinkState, Settlement, Verdict, WindowEnergy
from tests.benchmark_reports import LINKED, RECIPE, claim, decide, report, tell, uid
from tests.chains import SECOND, ChainWriter

MINUTE = 60 * SECOND
ENERGY = WindowEnergy(window="bench", domain="total", joules=60.0, method="counter", coverage=1.0)
SETTLEMENT = Settlement(
    links=(JobLink(claim=claim(), state=LinkState.LINKED, cluster="c1", run=1),),
    energies=(ENERGY,),
    measurements=(("output_tokens_per_joule", "value", 20.0),),
)
TABLES = (
    "benchmark_recipe", "benchmark_run", "benchmark_run_job", "benchmark_metric", "benchmark_energy",
    "benchmark_verdict", "benchmark_decision",
)  # fmt: skip


@pytest.fixture
async def filled(pool: Any) -> Any:
    """Runs 1 to 60, told by two nodes out of order, run 1 by both; decisions; conflicts; all settled and judged."""
    one, other, late = ChainWriter("n1"), ChainWriter("n2"), ChainWriter("n3")
    one.whole_job("slurm-1")
    for number in range(1, 61):
        recipe = msgspec.structs.replace(RECIPE, body={"first": number})
        tell(one if number % 2 else other, report(number, 100.0 + number, at=number * MINUTE, recipe=recipe, repeats=2))
    first = report(1, 101.0, at=MINUTE, recipe=msgspec.structs.replace(RECIPE, body={"first": 1}), repeats=2)
    tell(other, msgspec.structs.replace(first, from_job=True, user_name="ada \x00"))
    tell(other, report(2, 1.0))
    decide(late, 1, Decision.PIN, 100 * MINUTE, note="nul \x00")
    decide(late, 2, Decision.ACCEPT, 101 * MINUTE)
    decide(late, 77, Decision.ACCEPT, 101 * MINUTE)
    for writer in (other, late, one):
        await PostgresSink(pool).store(writer.rows, node=writer.node)
    store = PostgresBenchmarks(pool, timeout_seconds=10.0)
    verdict = {"metric": "output_token_throughput", "stat": "value", "verdict": "ok", "baseline_n": 9}
    for number in (1, 2, 3):
        await store.settle(uid(number), SETTLEMENT)
        await store.write_verdicts([Verdict(run_uid=uid(number), **verdict)])  # type: ignore[arg-type]
    return pool


async def check(pool: Any) -> RebuildReport:
    async with session(pool, 10.0) as connection:
        return await rebuild_check(connection)


async def mend(pool: Any) -> RebuildReport:
    async with session(pool, 10.0) as connection:
        return await rebuild(connection)


async def change(pool: Any, statement: str, *values: Any) -> None:
    async with session(pool, 10.0) as connection:
        await connection.execute(statement, *values)


async def contents(pool: Any) -> dict[str, list[str]]:
    """All rows, as text, without the moments at which they were written."""
    query = "SELECT to_jsonb(t) - '{stored_at,looked_at,settled_at,judged_at}'::text[] AS row FROM %s t ORDER BY 1"
    async with session(pool, 10.0) as connection:
        return {table: [row["row"] for row in await connection.fetch(query % table)] for table in TABLES}


def named(found: RebuildReport) -> list[tuple[str | None, str, Any, Any]]:
    return sorted(((one.benchmark, one.field, one.stored, one.from_trail) for one in found.differences), key=str)


async def test_untouched_tables_equal_their_trail(filled: Any) -> None:
    found = await check(filled)
    assert named(found) == []
    assert (found.equal, found.runs, found.benchmarks, found.unverifiable) == (True, 1, 60, {})
    before = await contents(filled)
    assert (await mend(filled)).equal
    assert await contents(filled) == before


async def test_edited_missing_and_invented_rows_are_named_and_put_right(filled: Any) -> None:
    before = await contents(filled)
    await change(filled, "UPDATE benchmark_run SET status = 'failed', user_name = 'x' WHERE run_uid = $1", uid(4))
    await change(filled, "DELETE FROM benchmark_run WHERE run_uid = $1", uid(5))
    await change(filled, "UPDATE benchmark_metric SET value = 9e9 WHERE run_uid = $1 AND repeat = 0"
                         " AND metric = 'output_token_throughput'", uid(6))  # fmt: skip
    await change(filled, "DELETE FROM benchmark_metric WHERE run_uid = $1 AND repeat = 2", uid(8))
    await change(filled, "DELETE FROM benchmark_decision WHERE run_uid = $1", uid(2))
    await change(filled, "INSERT INTO benchmark_decision VALUES ($1, gen_random_uuid(), 'pin', now(), 'eve')", uid(3))
    await change(filled, "UPDATE benchmark_recipe SET body = '{}'")
    await change(filled, "INSERT INTO benchmark_recipe VALUES ('evil', 'x', NULL, '{}', now(), gen_random_uuid())")
    invent = "INSERT INTO benchmark_run SELECT (jsonb_populate_record(r, jsonb_build_object('run_uid', $2::text))).*"
    await change(filled, f"{invent} FROM benchmark_run r WHERE run_uid = $1::text::uuid", uid(9), uid(99))
    found = await check(filled)
    told = [(which, field) for which, field, *_ in named(found)]
    assert told == sorted(
        [
            (uid(4), "status"), (uid(4), "user_name"), (uid(5), "row"), (uid(5), "numbers"), (uid(6), "numbers"),
            (uid(8), "numbers"), (uid(2), "row"), (uid(3), "row"), (f"chat {RECIPE.sha256}", "body"), ("evil x", "row"),
            (uid(99), "row"),
        ],
        key=str,
    )  # fmt: skip
    assert found.differing == len(told)
    assert (uid(4), "status", "failed", "ok") in named(found)
    assert (f"chat {RECIPE.sha256}", "body", {}, {"first": 1}) in named(found)
    assert named(await mend(filled)) == named(found)
    assert (await check(filled)).equal
    assert await contents(filled) == before


async def test_what_the_server_worked_out_stays_with_runs_that_are_right_and_is_open_for_the_others(
    filled: Any,
) -> None:
    await change(filled, "UPDATE benchmark_run SET model = 'forged' WHERE run_uid = $1", uid(1))
    await mend(filled)
    store = PostgresBenchmarks(filled, timeout_seconds=10.0)
    open_runs = {run.run_uid for run in await store.unsettled(limit=100)}
    assert uid(1) in open_runs
    assert not {uid(2), uid(3)} & open_runs
    async with session(filled, 10.0) as connection:
        for table, condition in (("energy", ""), ("verdict", ""), ("metric", " WHERE settled")):
            rows = await connection.fetch(f"SELECT run_uid::text FROM benchmark_{table}{condition} ORDER BY run_uid")
            assert [row["run_uid"] for row in rows] == [uid(2), uid(3)]
    waiting = set(await store.unjudged(limit=100))
    assert {uid(2), uid(3)} <= waiting  # their history was wrong
    assert uid(1) not in waiting  # its job is to be found again first
    await store.settle(uid(1), LINKED)
    assert {uid(1), uid(2), uid(3)} <= set(await store.unjudged(limit=100))


async def test_a_report_that_was_erased_is_said_to_be_unverifiable_and_left_as_it_is(filled: Any) -> None:
    async with session(filled, 10.0) as connection, connection.transaction():
        await connection.execute("ALTER TABLE audit_payload DISABLE TRIGGER audit_payload_append_only")
        await connection.execute(
            "DELETE FROM audit_payload p USING audit_log l WHERE (l.chain_id, l.seq) = (p.chain_id, p.seq)"
            " AND l.event_id = (SELECT event_id FROM benchmark_run WHERE run_uid = $1)", uid(7)
        )  # fmt: skip
    found = await check(filled)
    assert (found.equal, list(found.unverifiable.values())) == (True, ["the payload of an event is erased"])
    before = await contents(filled)
    await mend(filled)
    assert await contents(filled) == before

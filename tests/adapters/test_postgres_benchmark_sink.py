"""Reports of benchmarks on their way into the tables: what they become, what they never change, and what is refused."""

import asyncio
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresReader, PostgresSink, session
from jobtrail.core.ports import TRAIL_ONLY
from jobtrail.domain.benchmarks.report import Decision, Role, Status
from jobtrail.domain.events import Actor, EventKind
from tests.benchmark_reports import claim, decide, report, tell, uid
from tests.chains import SECOND, ChainWriter


async def store(pool: Any, writer: ChainWriter, **options: Any) -> Any:
    return await PostgresSink(pool).store(writer.rows, node=writer.node, **options)


async def fetch(pool: Any, query: str, *values: Any) -> list[dict[str, Any]]:
    async with session(pool, 10.0) as connection:
        return [dict(row) for row in await connection.fetch(query, *values)]


async def test_a_report_becomes_a_run_its_recipe_its_claims_and_its_numbers(pool: Any) -> None:
    writer = ChainWriter()
    told = report(repeats=3, jobs=(claim("slurm-8", Role.CLIENT), claim("slurm-7", Role.SERVER, cluster="c1")))
    event_id = tell(writer, told)
    assert (await store(pool, writer)).unapplied == {}
    (run,) = await fetch(pool, "SELECT *, run_uid::text AS uid FROM benchmark_run")
    expected = {
        "uid": uid(1), "cluster_name": "c1", "node": "n1", "recipe_name": "chat", "mode": "serve", "tool": "vllm",
        "tool_version": "0.9.2", "model": "llama", "status": "ok", "repeats": 3, "error_rate": 0.0,
        "output_tokens": 3000.0, "gpu_model": "H100", "gpu_count": 1, "from_job": False, "settled_at": None,
        "judged_at": None, "token_count_source": "server",
    }  # fmt: skip
    assert {name: run[name] for name in expected} == expected
    assert str(run["event_id"]) == event_id
    (raw, *_) = msgspec.json.decode(run["raw"])
    assert "measurements" not in raw["result"]
    (recipe,) = await fetch(pool, "SELECT name, version, body FROM benchmark_recipe")
    assert (recipe["name"], recipe["version"], msgspec.json.decode(recipe["body"])["mode"]) == ("chat", "1", "serve")
    links = await fetch(pool, "SELECT job_id, role, link_state, cluster_name FROM benchmark_run_job ORDER BY position")
    assert [tuple(link.values()) for link in links] == [
        ("slurm-8", "client", "pending", None), ("slurm-7", "server", "pending", "c1"),
    ]  # fmt: skip
    values = await fetch(
        pool, "SELECT repeat, value FROM benchmark_metric WHERE metric = 'output_token_throughput' ORDER BY repeat"
    )
    assert [tuple(row.values()) for row in values] == [
        (0, 100.0), (1, pytest.approx(99.0)), (2, 100.0), (3, pytest.approx(101.0)),
    ]  # fmt: skip


async def test_a_report_is_in_the_audit_of_the_job_that_served_and_opens_no_run(pool: Any) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-7")
    before = ChainWriter("n2")
    tell(before, report(jobs=(claim("slurm-9", Role.CLIENT), claim("slurm-7", Role.SERVER))))
    tell(before, report(2, jobs=(claim("slurm-404"),)))
    await store(pool, writer)
    jobs = await fetch(pool, "SELECT * FROM jobs")
    await store(pool, before)
    assert await fetch(pool, "SELECT * FROM jobs") == jobs
    trail = await PostgresReader(pool, timeout_seconds=10.0).audit_log("7")
    assert [row["event_kind"] for row in trail].count("benchmark_recorded") == 1
    (row,) = [row for row in trail if row["event_kind"] == "benchmark_recorded"]
    assert (row["run"], row["change_type"], row["event"]["benchmark"]["run_uid"]) == (None, None, uid(1))


async def test_the_same_again_changes_nothing_and_other_contents_are_left_out_with_the_reason(pool: Any) -> None:
    writer, other = ChainWriter("n1"), ChainWriter("n2")
    tell(writer, report())
    tell(writer, report())  # in the same batch
    tell(writer, report(throughput=1.0))
    tell(other, report(), at=9 * SECOND + 90_000_000)
    tell(other, report(throughput=2.0))
    reason = f"benchmark run {uid(1)} is held with other contents"
    assert (await store(pool, writer)).unapplied == {3: reason}
    held = await fetch(pool, "SELECT * FROM benchmark_run, benchmark_metric")
    assert (await store(pool, other)).unapplied == {2: reason}
    assert await fetch(pool, "SELECT * FROM benchmark_run, benchmark_metric") == held
    rows = await fetch(pool, "SELECT unapplied FROM audit_log WHERE unapplied IS NOT NULL")
    assert [row["unapplied"] for row in rows] == [reason, reason]


async def test_of_reports_of_one_run_that_come_at_once_one_is_held(pool: Any) -> None:
    writers = [ChainWriter(f"n{number}") for number in range(4)]
    for number, writer in enumerate(writers):
        for run in (1, 2) if number % 2 else (2, 1):
            tell(writer, report(run, throughput=100.0 + number // 2))
    stored = await asyncio.gather(*(store(pool, writer) for writer in writers))
    assert sorted(len(one.unapplied) for one in stored) == [0, 0, 2, 2]  # a batch is one transaction
    (speeds,) = await fetch(pool, "SELECT array_agg(value) AS of_runs FROM benchmark_metric"
                                  " WHERE repeat = 0 AND metric = 'output_token_throughput'")  # fmt: skip
    assert speeds["of_runs"] in ([100.0, 100.0], [101.0, 101.0])


@pytest.mark.parametrize("inside_first", [True, False])
async def test_the_word_from_inside_the_job_counts_whichever_comes_first(pool: Any, inside_first: bool) -> None:
    inside = msgspec.structs.replace(report(), from_job=True, uid=7, user_name="ada")
    outside = msgspec.structs.replace(report(), from_job=False, uid=8, user_name="bob")
    for number, told in enumerate([inside, outside] if inside_first else [outside, inside]):
        writer = ChainWriter(f"n{number}")
        tell(writer, told, at=(20 if told is inside else 15) * SECOND)
        assert (await store(pool, writer)).unapplied == {}
    (run,) = await fetch(pool, "SELECT uid, user_name, from_job FROM benchmark_run")
    assert run == {"uid": 7, "user_name": "ada", "from_job": True}


async def test_what_is_no_report_is_told_and_stored_in_the_trail_only(pool: Any) -> None:
    writer = ChainWriter()
    writer.event(EventKind.BENCHMARK_RECORDED, None, 0, Actor.CLI)
    writer.event(EventKind.BASELINE_DECIDED, "slurm-1", 0, Actor.CLI)
    tell(writer, msgspec.structs.replace(report(), run_uid="seven"))
    told = await store(pool, writer)
    assert sorted(told.unapplied) == [1, 2, 3]
    assert "benchmark.run_uid 'seven'" in told.unapplied[3]
    assert await fetch(pool, "SELECT FROM benchmark_run") == await fetch(pool, "SELECT FROM jobs") == []


async def test_a_report_kept_in_the_trail_only_says_so(pool: Any) -> None:
    writer = ChainWriter()
    tell(writer, report())
    await store(pool, writer, trail_only=TRAIL_ONLY)
    (row,) = await fetch(pool, "SELECT job_id, unapplied FROM audit_log")
    assert row["job_id"] == "slurm-1"
    assert "trail only" in row["unapplied"]
    assert await fetch(pool, "SELECT FROM benchmark_run") == []


async def test_a_run_in_which_all_failed_has_no_numbers(pool: Any) -> None:
    writer = ChainWriter()
    told = report()
    (repeat,) = told.repeats
    assert repeat.result is not None
    nothing = msgspec.structs.replace(repeat.result, requests_completed=0, requests_failed=100)
    tell(writer, msgspec.structs.replace(told, repeats=(msgspec.structs.replace(repeat, result=nothing),)))
    await store(pool, writer)
    assert await fetch(pool, "SELECT status, error_rate FROM benchmark_run") == [
        {"status": Status.INVALID, "error_rate": 1.0}
    ]
    assert await fetch(pool, "SELECT FROM benchmark_metric") == []


async def test_decisions_are_kept_with_who_when_and_why_and_the_last_pin_holds(pool: Any) -> None:
    writer = ChainWriter()
    for number in (1, 2):
        tell(writer, report(number, at=number * 60 * SECOND))
    decide(writer, 1, Decision.PIN, 300 * SECOND, note="the good one")
    decide(writer, 2, Decision.PIN, 301 * SECOND)
    decide(writer, 2, Decision.ACCEPT, 302 * SECOND)
    decide(writer, 77, Decision.ACCEPT, 303 * SECOND)
    assert (await store(pool, writer)).unapplied == {}
    (first, *_) = await fetch(pool, "SELECT * FROM benchmark_decision ORDER BY decided_at")
    assert (first["decision"], first["decided_by"], first["reason"]) == ("pin", "ada", "the good one")
    (trail, *_) = await fetch(pool, "SELECT job_id FROM audit_log WHERE kind = 'baseline_decided' ORDER BY seq")
    assert trail["job_id"] == "slurm-1"
    query = "SELECT run_uid::text, accepted, pinned FROM benchmark_reference ORDER BY run_uid"
    assert [tuple(row.values()) for row in await fetch(pool, query)] == [(uid(1), False, False), (uid(2), True, True)]
    more = ChainWriter("n2")
    decide(more, 2, Decision.UNPIN, 304 * SECOND)
    await store(pool, more)
    assert [tuple(row.values()) for row in await fetch(pool, query)] == [(uid(1), False, False), (uid(2), True, False)]


async def test_a_run_or_decision_that_changes_the_history_of_later_runs_lets_them_be_judged_again(pool: Any) -> None:
    writer = ChainWriter()
    for number in (1, 3, 4):
        tell(writer, report(number, at=number * 60 * SECOND))
    await store(pool, writer)
    judged = "SELECT run_uid::text FROM benchmark_run WHERE judged_at IS NOT NULL ORDER BY run_uid"

    async def judge_all_but(change: Any) -> list[str]:
        await fetch(pool, "UPDATE benchmark_run SET judged_at = now()")
        more = ChainWriter("n2")
        change(more)
        await store(pool, more)
        return [row["run_uid"] for row in await fetch(pool, judged)]

    assert await judge_all_but(lambda more: decide(more, 3, Decision.ACCEPT)) == [uid(1), uid(3)]
    assert await judge_all_but(lambda more: tell(more, report(2, at=120 * SECOND))) == [uid(1)]
    other = report(9, at=0, model="other")
    assert await judge_all_but(lambda more: tell(more, other)) == [uid(1), uid(2), uid(3), uid(4)]

"""What every BenchmarkStore promises, held by the fake and by PostgreSQL's."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresBenchmarks, PostgresSink, close_pool, open_pool, session
from jobtrail.core.benchmarks.ports import BenchmarkStore
from jobtrail.domain.benchmarks.report import BenchmarkReport, Decision, Role, Status, ToolResult
from jobtrail.domain.benchmarks.settling import (
    CandidateRun,
    JobLink,
    LinkState,
    Settlement,
    Verdict,
    WindowEnergy,
    WindowUse,
)
from jobtrail.domain.errors import StoreUnavailable
from jobtrail.domain.events import decode
from tests.benchmark_reports import LINKED, RECIPE, claim, decide, report, result, tell, uid
from tests.chains import SECOND, T0, ChainWriter
from tests.fake_benchmarks import DAY_US, MemoryBenchmarks

THROUGHPUT = ("output_token_throughput", "value")
MINUTE = 60 * SECOND


class Bench(Protocol):
    """A store, and hands to put reports and jobs into it."""

    store: BenchmarkStore

    async def take(self, writer: ChainWriter) -> None: ...

    async def add_job(self, job: CandidateRun) -> None: ...

    async def let_pass(self, days: int) -> None: ...

    async def break_down(self) -> None: ...


class MemoryBench:
    def __init__(self) -> None:
        self.store = MemoryBenchmarks()

    async def take(self, writer: ChainWriter) -> None:
        for row in writer.rows:
            assert self.store.take(decode(row.payload)) is None

    async def add_job(self, job: CandidateRun) -> None:
        self.store.jobs.append(job)

    async def let_pass(self, days: int) -> None:
        self.store.now_us += days * DAY_US

    async def break_down(self) -> None:
        self.store.unavailable = "down"


class PostgresBench:
    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.store = PostgresBenchmarks(pool, timeout_seconds=10.0)

    async def take(self, writer: ChainWriter) -> None:
        assert (await PostgresSink(self.pool).store(writer.rows, node=writer.node)).unapplied == {}

    async def add_job(self, job: CandidateRun) -> None:
        async with session(self.pool, 10.0) as connection:
            await connection.execute(
                "INSERT INTO jobs (cluster_name, job_id, run, user_name, state, restart_count, start_time, end_time,"
                " correlation_id, projection) VALUES ($1, $2, $3, $4, $5, $6, to_timestamp($7 / 1e6::double precision),"
                " to_timestamp($8 / 1e6::double precision), gen_random_uuid(), '{}')",
                job.cluster, job.job_id, job.run, job.user_name, "completed" if job.is_over else "running",
                job.restart_count, job.start_us, job.end_us,
            )  # fmt: skip

    async def let_pass(self, days: int) -> None:
        async with session(self.pool, 10.0) as connection:
            await connection.execute(
                "UPDATE benchmark_run SET stored_at = stored_at - $1 * interval '1 day',"
                " looked_at = looked_at - $1 * interval '1 day'",
                days,
            )

    async def break_down(self) -> None:
        async with session(self.pool, 10.0) as connection:
            await connection.execute("DROP TABLE benchmark_run CASCADE")


@pytest.fixture(params=["memory", "postgres"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "memory":
        yield MemoryBench()
        return
    pool = await open_pool(request.getfixturevalue("database"), size=2, timeout_seconds=10.0)
    yield PostgresBench(pool)
    await close_pool(pool, timeout_seconds=5.0)


async def tell_all(bench: Bench, *reports: Any, node: str = "n1") -> None:
    """One batch a report, so that they are taken in one after the other."""
    for one in reports:
        writer = ChainWriter(node)
        tell(writer, one)
        await bench.take(writer)


async def decide_on(bench: Bench, number: int, decision: Decision, at: int) -> None:
    writer = ChainWriter("server")
    decide(writer, number, decision, at)
    await bench.take(writer)


def verdict(number: int, word: str = "ok", **more: Any) -> Verdict:
    known: dict[str, Any] = {"metric": THROUGHPUT[0], "stat": THROUGHPUT[1], "baseline_n": 9}
    return Verdict(run_uid=uid(number), verdict=word, **{**known, **more})


def linked(run: int = 1, **more: Any) -> JobLink:
    return JobLink(claim=claim(), state=LinkState.LINKED, cluster="c1", run=run, **more)


def with_result(one: BenchmarkReport, measured: ToolResult) -> BenchmarkReport:
    (repeat,) = one.repeats
    return msgspec.structs.replace(one, repeats=(msgspec.structs.replace(repeat, result=measured),))


async def link(bench: Bench, *numbers: int) -> None:
    for number in numbers:
        await bench.store.settle(uid(number), LINKED)


async def uids(bench: Bench, limit: int = 10) -> list[str]:
    return [run.run_uid for run in await bench.store.unsettled(limit=limit)]


async def test_a_new_run_is_unsettled_with_its_claims_and_the_runs_of_the_claimed_jobs(bench: Bench) -> None:
    first = CandidateRun(
        cluster="c1", job_id="slurm-1", run=1, start_us=T0, end_us=T0 + MINUTE, user_name="ada", is_over=True,
        restart_count=1,
    )  # fmt: skip
    second = CandidateRun(cluster="c1", job_id="slurm-1", run=2, start_us=T0 + MINUTE)
    elsewhere = CandidateRun(cluster="c2", job_id="slurm-1", run=1)
    pinned_down = CandidateRun(cluster="c2", job_id="slurm-2", run=1)
    for job in (elsewhere, second, first, pinned_down, CandidateRun(cluster="c1", job_id="slurm-2", run=1)):
        await bench.add_job(job)
    claims = (claim(role=Role.SERVER), claim("slurm-2", Role.CLIENT, cluster="c2"), claim("slurm-9", Role.CLIENT))
    told = msgspec.structs.replace(report(jobs=claims, repeats=2), uid=0, user_name="root", from_job=True)
    await tell_all(bench, told)
    (found,) = await bench.store.unsettled(limit=10)
    assert found.received_us > 0
    assert found.candidates == (first, second, elsewhere, pinned_down)
    assert (found.run_uid, found.status, found.claims) == (uid(1), Status.OK, claims)
    assert (found.started_us, found.ended_us, found.windows) == (T0, T0 + 20 * SECOND, ((T0, T0 + 20 * SECOND),))
    assert (found.output_tokens, found.user_name, found.from_job, found.by_root) == (2000.0, "root", True, True)


async def test_tokens_are_unknown_unless_each_repeat_counted_them(bench: Bench) -> None:
    told = report(repeats=2)
    without = msgspec.structs.replace(result(100.0), measurements=result(100.0).measurements[:-1])
    repeats = (told.repeats[0], msgspec.structs.replace(told.repeats[1], result=without))
    await tell_all(bench, msgspec.structs.replace(told, repeats=repeats))
    (found,) = await bench.store.unsettled(limit=1)
    assert found.output_tokens is None


async def test_the_windows_are_of_the_repeats_that_count_without_the_pauses(bench: Bench) -> None:
    told = report(repeats=3)
    first, second, third = told.repeats
    late = msgspec.structs.replace(
        third, started_us=third.started_us + 5 * SECOND, ended_us=third.ended_us + 5 * SECOND
    )
    failed = msgspec.structs.replace(second, result=result(1.0, invalid_reason="it was cut off"))
    ended_us = told.ended_us + 5 * SECOND
    await tell_all(bench, msgspec.structs.replace(told, ended_us=ended_us, repeats=(first, failed, late)))
    (found,) = await bench.store.unsettled(limit=1)
    assert found.windows == ((T0, T0 + 10 * SECOND), (T0 + 25 * SECOND, T0 + 35 * SECOND))


async def test_the_oldest_come_first_and_those_looked_at_go_to_the_end_until_nothing_is_awaited(bench: Bench) -> None:
    await tell_all(bench, report(3), report(1), report(2))
    assert await uids(bench) == [uid(3), uid(1), uid(2)]
    assert await uids(bench, limit=2) == [uid(3), uid(1)]
    await bench.store.settle(uid(3), Settlement(open_reason="the job is not known yet"))
    assert await uids(bench) == [uid(1), uid(2), uid(3)]
    await bench.store.settle(uid(1), Settlement(links=(linked(),)))
    await bench.store.settle(uid(77), Settlement())  # of a run that nobody reported
    assert await uids(bench) == [uid(2), uid(3)]


async def test_what_is_open_for_more_than_a_week_is_given_up(bench: Bench) -> None:
    await tell_all(bench, report(1))
    await bench.let_pass(6)
    await tell_all(bench, report(2))
    assert await uids(bench) == [uid(1), uid(2)]
    await bench.let_pass(2)
    assert await uids(bench) == [uid(2)]


async def test_a_better_word_on_who_reported_opens_the_links_again(bench: Bench) -> None:
    await tell_all(bench, report())
    await bench.store.settle(uid(1), Settlement())
    await tell_all(bench, msgspec.structs.replace(report(), from_job=True, user_name="ada"), node="n2")
    (found,) = await bench.store.unsettled(limit=10)
    assert (found.from_job, found.user_name) == (True, "ada")


async def test_nothing_is_known_of_a_window_of_a_run_that_is_not_stored(bench: Bench) -> None:
    unknown = CandidateRun(cluster="c1", job_id="slurm-404", run=1)
    assert await bench.store.window_use(unknown, started_us=T0, ended_us=T0 + MINUTE) == WindowUse()


async def test_a_settlement_replaces_the_one_before(bench: Bench) -> None:
    await tell_all(bench, report())
    energy = WindowEnergy(window="bench", domain="gpu", joules=50.0, method="counter", coverage=1.0)
    total = msgspec.structs.replace(energy, domain="total", joules=60.0)
    first = Settlement(
        links=(linked(),), energies=(energy, total), measurements=(("output_tokens_per_joule", "value", 20.0),)
    )
    await bench.store.settle(uid(1), first)
    (found,) = await bench.store.last_valid_runs(ended_after_us=0, limit=10)
    assert found.energies == {("gpu", "bench"): 50.0, ("total", "bench"): 60.0}
    assert found.values["output_tokens_per_joule", "value"] == 20.0
    await bench.store.settle(uid(1), Settlement(links=(linked(),), energies=(total,)))
    (found,) = await bench.store.last_valid_runs(ended_after_us=0, limit=10)
    assert found.energies == {("total", "bench"): 60.0}
    assert ("output_tokens_per_joule", "value") not in found.values
    assert found.values[THROUGHPUT] == 100.0


async def test_ok_runs_are_unjudged_oldest_first_until_there_is_a_verdict(bench: Bench) -> None:
    await tell_all(
        bench,
        report(2, at=2 * MINUTE),
        report(1),
        report(3, status=Status.FAILED, reason="exit 1"),
        report(4, repeats=0),  # without a result it is not ok
        with_result(report(5, at=5 * MINUTE), result(1.0, failed=50)),
    )
    assert list(await bench.store.unjudged(limit=10)) == []  # of none is the job known
    await link(bench, 1, 2, 3, 4, 5)
    assert list(await bench.store.unjudged(limit=10)) == [uid(1), uid(2), uid(5)]
    assert list(await bench.store.unjudged(limit=1)) == [uid(1)]
    await bench.store.write_verdicts([verdict(1), verdict(2), verdict(77)])
    assert list(await bench.store.unjudged(limit=10)) == [uid(5)]
    await bench.store.write_verdicts([])
    assert list(await bench.store.unjudged(limit=10)) == [uid(5)]


async def test_a_recipe_that_gates_on_energy_is_judged_again_when_that_is_known(bench: Bench) -> None:
    body = {"gate": {"output_tokens_per_joule": {"min_rel": 0.1}, "time_per_output_token.p99": {"min_rel": 0.2}}}
    recipe = msgspec.structs.replace(RECIPE, body=body)
    await tell_all(bench, report(recipe=recipe), report(2, model="other"), report(3, at=MINUTE, recipe=recipe))
    await link(bench, 1, 2, 3)
    gates = await bench.store.gates(uid(1))
    assert gates == {("output_tokens_per_joule", "value"): 0.1, ("time_per_output_token", "p99"): 0.2}
    assert (await bench.store.gates(uid(2)), await bench.store.gates(uid(77))) == ({}, {})
    unknown = {"metric": "output_tokens_per_joule", "stat": "value"}
    await bench.store.write_verdicts([verdict(1, "insufficient", **unknown), verdict(2), verdict(3)])
    assert list(await bench.store.unjudged(limit=10)) == []
    settlement = msgspec.structs.replace(LINKED, measurements=(("output_tokens_per_joule", "value", 20.0),))
    for number in (1, 2):
        await bench.store.settle(uid(number), settlement)
    assert list(await bench.store.unjudged(limit=10)) == [uid(1), uid(3)]


async def test_the_history_is_of_the_same_series_oldest_first_with_the_run_last(bench: Bench) -> None:
    reports = [report(number, 100.0 + number, at=number * MINUTE, repeats=3) for number in (1, 2, 3, 4)]
    await tell_all(
        bench, *reports, report(5, at=MINUTE, model="other"), report(6, at=MINUTE, status=Status.FAILED, reason="x")
    )
    await link(bench, 1, 2, 3, 4, 5, 6)
    await bench.store.write_verdicts([verdict(2, "suspect"), verdict(2, "ok", stat="p99", advisory=True)])
    held = await bench.store.history(uid(3), limit=10)
    assert [run.run_uid for run in held] == [uid(1), uid(2), uid(3)]
    assert [run.run_uid for run in await bench.store.history(uid(3), limit=1)] == [uid(2), uid(3)]
    last = held[-1]
    assert (last.ended_us, last.status, last.error_rate) == (T0 + 3 * MINUTE + 30 * SECOND, Status.OK, 0.0)
    assert last.values[THROUGHPUT] == 103.0
    assert last.repeats[THROUGHPUT] == pytest.approx((103 * 0.99, 103.0, 103 * 1.01))
    assert ("output_tokens", "value") not in last.values
    assert held[1].verdicts == {THROUGHPUT: "suspect", ("output_token_throughput", "p99"): "ok"}
    assert (last.accepted, last.pinned, last.verdicts) == (False, False, {})
    assert list(await bench.store.history(uid(77), limit=3)) == []


def of(state: LinkState, role: Role = Role.BOTH) -> JobLink:
    known = {"cluster": "c1", "run": 1} if state is LinkState.LINKED else {}
    return JobLink(claim=claim(role=role), state=state, **known)


@pytest.mark.parametrize(
    ("links", "counts"),
    [
        ([of(LinkState.PENDING)], False),
        ([of(LinkState.CONFLICT)], False),
        ([of(LinkState.LINKED)], True),
        ([of(LinkState.CONFLICT), of(LinkState.LINKED)], True),
        ([of(LinkState.LINKED, Role.CLIENT)], True),
        ([of(LinkState.LINKED, Role.CLIENT), of(LinkState.CONFLICT, Role.SERVER)], False),
    ],
)
async def test_a_run_that_is_linked_to_none_of_its_jobs_is_no_measure_of_others(
    bench: Bench, links: list[JobLink], counts: bool
) -> None:
    """Anybody may report any number of any job: what its job contradicts moves no baseline and no gauge."""
    await tell_all(bench, report(1, 900.0), report(2, at=MINUTE), report(3, at=2 * MINUTE))
    await link(bench, 2, 3)
    await bench.store.write_verdicts([verdict(1), verdict(2), verdict(3)])
    assert list(await bench.store.unjudged(limit=10)) == []
    await decide_on(bench, 1, Decision.PIN, 10 * MINUTE)
    await bench.store.write_verdicts([verdict(2), verdict(3)])
    await bench.store.settle(uid(1), Settlement(links=tuple(links)))
    history = await bench.store.history(uid(3), limit=10)
    assert [run.run_uid for run in history] == ([uid(1)] if counts else []) + [uid(2), uid(3)]
    assert [run.counts for run in await bench.store.history(uid(1), limit=10)] == [counts]
    assert list(await bench.store.unjudged(limit=10)) == ([uid(1), uid(2), uid(3)] if counts else [])
    await bench.store.settle(uid(3), Settlement(links=(of(LinkState.CONFLICT),)))
    (shown,) = await bench.store.last_valid_runs(ended_after_us=0, limit=10)
    assert shown.ended_us == T0 + MINUTE + 10 * SECOND
    assert [run.counts for run in await bench.store.history(uid(3), limit=10)][-1] is False
    assert list(await bench.store.unjudged(limit=10))[-1] == uid(3)


async def test_a_run_without_jobs_counts_among_others_without(bench: Bench) -> None:
    await tell_all(bench, report(1, jobs=()), report(2, at=MINUTE, jobs=()), report(3, at=2 * MINUTE))
    await link(bench, 3)
    assert [run.run_uid for run in await bench.store.history(uid(2), limit=10)] == [uid(1), uid(2)]
    assert [run.run_uid for run in await bench.store.history(uid(3), limit=10)] == [uid(3)]
    await bench.store.settle(uid(1), Settlement())
    # Of no job, anybody can make up as many as the page holds: they must not push off those that ran.
    await tell_all(bench, *[report(number, at=number * MINUTE, jobs=(), model=f"m{number}") for number in (4, 5, 6)])
    assert [run.ended_us for run in await bench.store.last_valid_runs(ended_after_us=0, limit=2)] == [
        T0 + 2 * MINUTE + 10 * SECOND, T0 + 6 * MINUTE + 10 * SECOND,
    ]  # fmt: skip


async def test_the_pinned_run_is_in_the_history_however_old_until_another_is_pinned(bench: Bench) -> None:
    await tell_all(bench, *[report(number, at=number * MINUTE) for number in (1, 2, 3, 4)])
    await link(bench, 1, 2, 3, 4)

    async def pinned() -> list[tuple[str, bool]]:
        return [(run.run_uid, run.pinned) for run in await bench.store.history(uid(4), limit=1)]

    await decide_on(bench, 1, Decision.PIN, 10 * MINUTE)
    assert await pinned() == [(uid(1), True), (uid(3), False), (uid(4), False)]
    await decide_on(bench, 3, Decision.PIN, 11 * MINUTE)
    assert await pinned() == [(uid(3), True), (uid(4), False)]
    await decide_on(bench, 3, Decision.UNPIN, 12 * MINUTE)
    assert await pinned() == [(uid(3), False), (uid(4), False)]
    await decide_on(bench, 3, Decision.ACCEPT, 13 * MINUTE)
    assert [run.accepted for run in await bench.store.history(uid(4), limit=1)] == [True, False]


async def test_what_changes_a_history_lets_later_runs_of_the_series_be_judged_again(bench: Bench) -> None:
    await tell_all(bench, *[report(number, at=number * MINUTE) for number in (1, 3, 4)], report(9, model="other"))
    await link(bench, 1, 3, 4, 9)
    everything = [verdict(number) for number in (1, 2, 3, 4, 9)]
    await bench.store.write_verdicts(everything)
    await decide_on(bench, 3, Decision.ACCEPT, 10 * MINUTE)
    assert list(await bench.store.unjudged(limit=10)) == [uid(4)]
    await bench.store.write_verdicts(everything)
    await tell_all(bench, report(2, at=2 * MINUTE), node="late")
    await link(bench, 2)
    assert list(await bench.store.unjudged(limit=10)) == [uid(2), uid(3), uid(4)]


async def test_the_last_valid_run_of_each_series_has_its_numbers_and_verdicts(bench: Bench) -> None:
    await tell_all(
        bench,
        report(1, 100.0),
        report(2, 90.0, at=MINUTE),
        report(3, at=2 * MINUTE, status=Status.FAILED, reason="x"),
        report(4, at=3 * MINUTE, model="other", recipe=None),
    )
    await link(bench, 1, 2, 3, 4)
    tpot = {"metric": "time_per_output_token", "stat": "p50"}
    await bench.store.write_verdicts(
        [
            verdict(2, "regression", relative_change=-0.1),
            verdict(2, "ok", relative_change=0.05, **tpot),
            verdict(2, "regression", relative_change=0.5, **{**tpot, "stat": "p99"}, advisory=True),
            verdict(2, "insufficient", metric="time_to_first_token", stat="p50"),
        ]
    )
    other, found = await bench.store.last_valid_runs(ended_after_us=T0, limit=10)
    assert (other.cluster, other.recipe, other.model, other.regressions) == ("c1", "", "other", {})
    assert (found.cluster, found.recipe, found.model, len(found.hardware)) == ("c1", "chat", "llama", 8)
    assert (found.ended_us, found.values[THROUGHPUT]) == (T0 + MINUTE + 10 * SECOND, 90.0)
    assert found.regressions == {"output_token_throughput": True, "time_per_output_token": False}
    assert found.baseline_ratios == pytest.approx({"output_token_throughput": 0.9, "time_per_output_token": 1.05})
    assert found.runs_by_status == {"ok": 2, "failed": 1}
    assert [run.model for run in await bench.store.last_valid_runs(ended_after_us=T0, limit=1)] == ["other"]
    assert list(await bench.store.last_valid_runs(ended_after_us=T0 + 4 * MINUTE, limit=10)) == []


async def test_a_store_that_is_away_says_so(bench: Bench) -> None:
    await bench.break_down()
    with pytest.raises(StoreUnavailable):
        await bench.store.unsettled(limit=1)
    with pytest.raises(StoreUnavailable):
        await bench.store.settle(uid(1), Settlement())
    with pytest.raises(StoreUnavailable):
        await bench.store.history(uid(1), limit=1)

"""What people ask of benchmarks: lists, one run, leaderboards, two runs side by side."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import (
    PostgresBenchmarkReader,
    PostgresBenchmarks,
    PostgresReader,
    PostgresSink,
    session,
)
from jobtrail.adapters.postgres.benchmark_sorting import COLUMNS, NUMBERS
from jobtrail.adapters.postgres.values import to_datetime
from jobtrail.core.benchmarks.ports import RANK_COLUMNS, RUN_COLUMNS, RunFilter
from jobtrail.domain.benchmarks.regression import judge
from jobtrail.domain.benchmarks.report import Decision, Role, Status
from jobtrail.domain.benchmarks.settling import JobLink, LinkState, Settlement, Verdict, WindowEnergy
from jobtrail.domain.errors import InvalidEvent, NotFound, StoreUnavailable
from tests.benchmark_reports import HARDWARE, LINKED, RECIPE, claim, decide, report, result, tell, uid
from tests.chains import SECOND, T0, ChainWriter

MINUTE = 60 * SECOND
OTHER = msgspec.structs.replace(RECIPE, name="batch", sha256="c" * 64)
SLOW = msgspec.structs.replace(HARDWARE, gpu_model="L4")
TTFT = "time_to_first_token"


def told(*runs: Any) -> ChainWriter:
    writer = ChainWriter()
    for one in runs:
        tell(writer, one)
    return writer


async def link(pool: Any, *numbers: int) -> None:
    store = PostgresBenchmarks(pool, timeout_seconds=10.0)
    for number in numbers:
        await store.settle(uid(number), LINKED)


@pytest.fixture
async def reader(pool: Any) -> PostgresBenchmarkReader:
    """Job slurm-7 of ada, in which run 1 was served; runs 1 to 6 one minute apart, 2 the best of its series."""
    (repeat,) = report().repeats
    bad = msgspec.structs.replace(repeat, result=result(900.0, failed=5))
    writer = told(
        report(1, 100.0, at=MINUTE, repeats=3, jobs=(claim("slurm-8", Role.CLIENT), claim("slurm-7", Role.SERVER))),
        report(2, 120.0, at=2 * MINUTE, user_name="bob"),
        report(3, 50.0, at=3 * MINUTE, hardware=SLOW),
        report(4, 120.0, at=4 * MINUTE, recipe=OTHER, model="mistral"),
        report(5, at=5 * MINUTE, status=Status.FAILED, reason="the server ended with exit code 1", repeats=0),
        report(6, at=6 * MINUTE, repeats=1, jobs=()),
    )
    writer.whole_job("slurm-7")
    tell(writer, msgspec.structs.replace(report(7, at=7 * MINUTE), repeats=(bad,)))
    decide(writer, 1, Decision.PIN, 8 * MINUTE, note="the good one")
    await PostgresSink(pool).store(writer.rows, node="n1")
    store = PostgresBenchmarks(pool, timeout_seconds=10.0)
    energy = WindowEnergy(
        window="bench",
        domain="total",
        joules=60.0,
        method="counter",
        coverage=0.95,
        pue=1.2,
        factor_grams_per_kwh=100.0,
    )
    await store.settle(
        uid(1),
        Settlement(
            links=(
                JobLink(claim=claim("slurm-8", Role.CLIENT), state=LinkState.PENDING, reason="is not known yet"),
                JobLink(claim=claim("slurm-7", Role.SERVER), state=LinkState.LINKED, cluster="c1", run=1),
            ),
            energies=(energy, msgspec.structs.replace(energy, domain="gpu", joules=50.0, window="job")),
            measurements=(("output_tokens_per_joule", "value", 50.0), ("emissions", "value", 0.002)),
        ),
    )
    await link(pool, 2, 3, 4, 7)
    await store.write_verdicts(
        [
            Verdict(run_uid=uid(1), metric="output_token_throughput", stat="value", verdict="ok", baseline_n=9,
                    mad_log=0.01, median=100.0),
            Verdict(run_uid=uid(1), metric=TTFT, stat="p50", verdict="suspect", baseline_n=9),
            Verdict(run_uid=uid(1), metric=TTFT, stat="p99", verdict="regression", baseline_n=9, advisory=True),
        ]
    )  # fmt: skip
    return PostgresBenchmarkReader(pool, timeout_seconds=10.0)


async def numbers(reader: PostgresBenchmarkReader, **wanted: Any) -> list[int]:
    """Which runs are listed, by number; the total must be as many."""
    rows, total = await reader.list_runs(RunFilter(**wanted), limit=50, offset=0)
    assert {tuple(row) for row in rows} <= {RUN_COLUMNS}
    assert total == len(rows)
    return [numbered(row) for row in rows]


def numbered(row: dict[str, Any]) -> int:
    return next(number for number in range(1, 10) if uid(number) == row["run_uid"])


async def test_runs_come_newest_first_in_pages_with_the_total(reader: PostgresBenchmarkReader) -> None:
    rows, total = await reader.list_runs(RunFilter(), limit=2, offset=1)
    assert ([numbered(row) for row in rows], total) == ([6, 5], 7)
    msgspec.json.encode(rows)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"recipe": "batch"}, [4]),
        ({"model": "mistral"}, [4]),
        ({"status": "failed"}, [5]),
        ({"tool": "vllm"}, [7, 6, 5, 4, 3, 2, 1]),
        ({"tool": "aiperf"}, []),
        ({"job_id": "slurm-8"}, [1]),
        ({"user_name": "ada"}, [1]),
        ({"user_name": "bob"}, [2]),
        ({"verdict": "suspect"}, [1]),
        ({"verdict": "regression"}, []),
        ({"since_us": T0 + 3 * MINUTE, "until_us": T0 + 5 * MINUTE}, [4, 3]),
        ({"recipe": "chat", "status": "ok", "until_us": T0 + 3 * MINUTE}, [2, 1]),
    ],
)
async def test_each_filter_picks_its_runs(
    reader: PostgresBenchmarkReader, wanted: dict[str, Any], found: list[int]
) -> None:
    assert await numbers(reader, **wanted) == found
    if found:
        assert await numbers(reader, **wanted, sort="started_at") == found[::-1]
        assert sorted(await numbers(reader, **wanted, sort=TTFT)) == sorted(found)


async def test_runs_of_one_hardware_are_listed(reader: PostgresBenchmarkReader) -> None:
    (slow,) = [row for row in (await reader.list_runs(RunFilter(), limit=50, offset=0))[0] if row["gpu_model"] == "L4"]
    assert await numbers(reader, hardware=slow["hardware"]) == [3]


@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ("-output_tokens_per_second", [7, 4, 2, 6, 1, 3, 5]),  # many requests of 7 failed; it is listed
        ("output_token_throughput", [3, 6, 1, 4, 2, 7, 5]),
        ("-output_tokens_per_joule", [1, 7, 6, 5, 4, 3, 2]),
        ("request_latency.p99", [7, 6, 4, 3, 2, 1, 5]),
        ("model", [7, 6, 5, 3, 2, 1, 4]),
        ("-job_state", [1, 7, 6, 5, 4, 3, 2]),
        ("-error_ratio", [7, 6, 4, 3, 2, 1, 5]),
        ("ended_at", [1, 2, 3, 4, 5, 6, 7]),
    ],
)
async def test_runs_are_sorted_by_columns_and_metrics_with_the_unknown_last(
    reader: PostgresBenchmarkReader, sort: str, found: list[int]
) -> None:
    assert await numbers(reader, sort=sort) == found


async def test_every_sort_that_is_allowed_works_both_ways(reader: PostgresBenchmarkReader) -> None:
    for sort in (*COLUMNS, *NUMBERS, "output_tokens.mean"):
        rows, _ = await reader.list_runs(RunFilter(sort=sort), limit=50, offset=0)
        back, _ = await reader.list_runs(RunFilter(sort=f"-{sort}"), limit=50, offset=0)
        assert len(rows) == len(back) == 7
        known = [row[sort] for row in rows if row.get(sort) is not None]
        assert (sort, known) == (sort, sorted(known))
        assert [row[sort] for row in back if row.get(sort) is not None] == known[::-1]


@pytest.mark.parametrize("sort", ["nonsense", "", "-", "run_uid; DROP TABLE jobs", "nonsense.p50"])
async def test_an_unknown_sort_is_refused_with_those_there_are(reader: PostgresBenchmarkReader, sort: str) -> None:
    with pytest.raises(InvalidEvent, match=r"sort: .*output_tokens_per_second"):
        await reader.list_runs(RunFilter(sort=sort), limit=1, offset=0)


async def test_a_run_is_shown_with_its_job_numbers_energy_and_all_that_belongs_to_it(
    reader: PostgresBenchmarkReader,
) -> None:
    shown = await reader.show_run(uid(1))
    expected = {
        "run_uid": uid(1), "recipe": "chat", "recipe_version": "1", "mode": "serve", "status": "ok",
        "verdict": "suspect", "job_id": "slurm-7", "run": 1, "cluster_name": "c1", "job_role": "server",
        "link_state": "linked", "user_name": "ada", "partition": "p1", "job_state": "ended", "error_ratio": 0.0,
        "output_tokens_per_second": 100.0, "ttft_p50_seconds": 0.1, "tpot_p99_seconds": 0.04, "duration_seconds": 30.0,
        "goodput_requests_per_second": None, "batch_latency_p50_seconds": None, "output_tokens": 3000.0,
        "total_joules": 60.0, "gpu_joules": None, "job_gpu_joules": 50.0, "job_total_joules": None,
        "energy_coverage_ratio": 0.95, "energy_method": "counter", "output_tokens_per_joule": 50.0,
        "joules_per_output_token": None, "emissions_grams": 0.002, "pinned": True, "accepted": False,
    }  # fmt: skip
    assert {name: shown[name] for name in expected} == expected
    assert isinstance(shown["correlation_id"], str)
    throughput = {"metric": "output_token_throughput", "stat": "value", "unit": "token/s", "direction": "higher"}
    assert {**throughput, "value": 100.0} in shown["metrics"]
    assert [repeat["repeat"] for repeat in shown["repeats"]] == [1, 2, 3]
    assert {**throughput, "value": 99.0} in shown["repeats"][0]["metrics"]
    assert shown["repeats"][1]["started_at"] == to_datetime(T0 + MINUTE + 10 * SECOND)
    assert [(link["job_id"], link["link_state"]) for link in shown["links"]] == [
        ("slurm-8", "pending"), ("slurm-7", "linked"),
    ]  # fmt: skip
    assert [(one["time_window"], one["domain"], one["joules"]) for one in shown["energies"]] == [
        ("bench", "total", 60.0), ("job", "gpu", 50.0),
    ]  # fmt: skip
    assert [one["verdict"] for one in shown["verdicts"]] == ["ok", "suspect", "regression"]
    assert [(one["decision"], one["decided_by"], one["reason"]) for one in shown["decisions"]] == [
        ("pin", "ada", "the good one")
    ]
    assert shown["details"]["recipe_body"] == RECIPE.body
    msgspec.json.encode(shown)


async def test_a_run_without_a_result_shows_nothing_instead_of_zeros(reader: PostgresBenchmarkReader) -> None:
    shown = await reader.show_run(uid(5))
    assert (shown["status"], shown["invalid_reason"]) == ("failed", "the server ended with exit code 1")
    absent = [name for name in NUMBERS if shown[name] is not None]
    assert (absent, shown["metrics"], shown["repeats"], shown["verdict"]) == ([], [], [], None)


async def test_a_beginning_of_a_uid_will_do_where_it_is_the_only_one(pool: Any) -> None:
    uids = ["0f0f0f0f-1111-4111-8111-111111111111", "0f0f0f0f-1111-4111-8111-222222222222"]
    await PostgresSink(pool).store(told(*(report(run_uid=one) for one in uids)).rows, node="n1")
    reader = PostgresBenchmarkReader(pool, timeout_seconds=10.0)
    assert (await reader.show_run(uids[0][:25]))["run_uid"] == uids[0]
    assert (await reader.show_run(uids[1].upper()))["run_uid"] == uids[1]
    for asked, reason in (
        ("0f0f0f0f", "several benchmark runs begin with 0f0f0f0f"),
        ("0f0f0f0", "first 8 characters"),
        ("0f0f0f0e", "no benchmark run 0f0f0f0e is stored"),
        ("0f0f0f0f'; DROP", "no benchmark run is called"),
        ("-" * 12, "no benchmark run is called"),
        (uids[0] + "0", "no benchmark run is called"),
    ):
        with pytest.raises(NotFound, match=reason):
            await reader.show_run(asked)


async def board(reader: PostgresBenchmarkReader, metric: str, stat: str = "value", **wanted: Any) -> list[Any]:
    rows = await reader.leaderboard(metric, stat, RunFilter(**wanted), limit=10)
    assert {tuple(row) for row in rows} <= {RANK_COLUMNS}
    return [(row["rank"], numbered(row), row["value"]) for row in rows]


async def test_a_leaderboard_has_the_best_valid_run_of_each_recipe_model_and_hardware(
    reader: PostgresBenchmarkReader,
) -> None:
    """Neither run 7, in which too many requests failed, nor a worse one of the same series. Equal runs share a rank.
    Run 6, of no job, is of no series that has jobs."""
    assert await board(reader, "output_token_throughput") == [
        (1, 2, 120.0), (1, 4, 120.0), (3, 6, 100.0), (4, 3, 50.0),
    ]  # fmt: skip
    assert await board(reader, "output_token_throughput", recipe="chat") == [
        (1, 2, 120.0), (2, 6, 100.0), (3, 3, 50.0),
    ]  # fmt: skip
    assert await board(reader, "output_tokens_per_joule") == [(1, 1, 50.0)]
    (first, *_) = await reader.leaderboard("output_token_throughput", "value", RunFilter(), limit=1)
    assert (first["unit"], first["direction"], first["recipe"]) == ("token/s", "higher", "chat")
    msgspec.json.encode(first)


async def test_of_a_latency_the_smallest_leads(pool: Any) -> None:
    runs = [
        msgspec.structs.replace(one, repeats=(msgspec.structs.replace(one.repeats[0], result=result(1.0, ttft=ttft)),))
        for one, ttft in ((report(1), 0.3), (report(2), 0.2), (report(3, model="other"), 0.1), (report(4), 0.05))
    ]
    await PostgresSink(pool).store(told(*runs).rows, node="n1")
    await link(pool, 1, 2, 3)  # nobody knows of the job of 4
    reader = PostgresBenchmarkReader(pool, timeout_seconds=10.0)
    assert await board(reader, TTFT, "p50") == [(1, 3, 0.1), (2, 2, 0.2)]


@pytest.mark.parametrize("metric", ["duration", "output_tokens", "nonsense"])
async def test_there_is_no_leaderboard_of_what_is_neither_good_nor_bad(
    reader: PostgresBenchmarkReader, metric: str
) -> None:
    with pytest.raises(NotFound, match="output_token_throughput"):
        await reader.leaderboard(metric, "value", RunFilter(), limit=10)


async def test_two_runs_are_compared_with_their_noise(reader: PostgresBenchmarkReader) -> None:
    found = await reader.compare(uid(1), uid(2))
    assert (numbered(found["one"]), numbered(found["other"])) == (1, 2)
    assert (found["comparable"], found["differences"]) == (True, {})
    by_name = {(row["metric"], row["stat"]): row for row in found["metrics"]}
    throughput = by_name["output_token_throughput", "value"]
    assert (throughput["relative_change"], throughput["judgement"]) == (pytest.approx(0.2), "better")
    assert (throughput["significant"], throughput["noise"]) == (True, "history")
    tokens = by_name["output_tokens", "value"]
    assert (tokens["direction"], tokens["judgement"], tokens["significant"]) == ("none", None, None)
    assert ("output_tokens_per_joule", "value") not in by_name
    back = await reader.compare(uid(2), uid(1))
    assert {row["judgement"] for row in back["metrics"] if row["metric"] == "output_token_throughput"} == {"worse"}
    msgspec.json.encode(found)


async def test_runs_of_other_conditions_are_compared_with_what_differs(reader: PostgresBenchmarkReader) -> None:
    found = await reader.compare(uid(2), uid(3))
    assert (found["comparable"], found["differences"]) == (False, {"gpu_model": ["H100", "L4"]})
    with pytest.raises(NotFound):
        await reader.compare(uid(1), uid(99))


async def test_a_job_of_a_benchmark_is_followed_with_one_query(pool: Any, reader: PostgresBenchmarkReader) -> None:
    async with session(pool, 10.0) as connection:
        (row,) = await connection.fetch(
            "SELECT s.run_uid::text AS uid, j.end_time - j.start_time AS took FROM benchmark_run_summary s"
            " JOIN jobs j USING (cluster_name, job_id, run)"
        )
    assert (row["uid"], row["took"]) == (uid(1), timedelta(seconds=10))


async def test_a_report_is_in_the_audit_of_the_run_it_is_linked_to(pool: Any, reader: PostgresBenchmarkReader) -> None:
    trail = PostgresReader(pool, timeout_seconds=10.0)
    for run, told in ((None, 1), (1, 1), (2, 0)):
        rows = await trail.audit_log("7", run=run)
        assert [row["event_kind"] for row in rows].count("benchmark_recorded") == told


async def test_a_slow_run_is_judged_against_the_history_that_the_store_gives(pool: Any) -> None:
    """The rule and the store together: six runs alike, a slow one, and one more that confirms it."""
    speeds = (100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 70.0, 71.0)
    runs = [report(number, speed, at=number * MINUTE) for number, speed in enumerate(speeds, start=1)]
    await PostgresSink(pool).store(told(*runs).rows, node="n1")
    await link(pool, *range(1, len(runs) + 1))
    store = PostgresBenchmarks(pool, timeout_seconds=10.0)
    while waiting := await store.unjudged(limit=3):
        for run_uid in waiting:
            await store.write_verdicts(judge(await store.history(run_uid, limit=50), await store.gates(run_uid)))
    rows, _ = await PostgresBenchmarkReader(pool, timeout_seconds=10.0).list_runs(
        RunFilter(sort="started_at"), limit=50, offset=0
    )
    assert [row["verdict"] for row in rows] == ["insufficient"] * 5 + ["ok", "regression", "regression"]
    (found,) = await store.last_valid_runs(ended_after_us=0, limit=10)
    assert found.regressions["output_token_throughput"] is True
    assert found.baseline_ratios["output_token_throughput"] == pytest.approx(0.71, abs=0.005)


async def test_a_database_that_is_away_says_so(pool: Any, reader: PostgresBenchmarkReader) -> None:
    async with session(pool, 10.0) as connection:
        await connection.execute("DROP VIEW benchmark_run_summary")
    with pytest.raises(StoreUnavailable):
        await reader.list_runs(RunFilter(), limit=1, offset=0)

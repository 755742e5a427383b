"""Figures of many runs over time, worked out by a real database."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresAnalytics, session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.analytics import read_question
from jobtrail.domain.errors import StoreUnavailable
from tests.adapters.stored_jobs import BEARER, OTHER_UID, served_from
from tests.adapters.test_http_report_readers import CLIENT
from tests.adapters.test_http_senders import STRANGER_UID, reachable
from tests.postgres import EVERY_ROW
from tests.served_api import Answer, Served, parse_answer, request_bytes, served

__all__ = ["reachable"]
PATH = "/v1/analytics/query"
DAY = datetime(2026, 11, 20, tzinfo=UTC)
# Of each run: id, user, uid, nodes, hour it began, hours it ran or NULL, verdict, and what it used.
COLUMNS = (
    "job_id, user_name, uid, nodes, start_time, end_time, submit_time, state, verdict, cpus_allocated, cpu_seconds,"
    " memory_peak_bytes, gpus_allocated, gpu_seconds, gpu_busy_seconds, gpu_unused_seconds, energy_joules, account"
)
RUNS: list[tuple[Any, ...]] = [
    # ada: two hours on 2 CPUs at 50 %, GPUs half busy; one hour of which CPU and energy are unknown; one goes on
    ("slurm-1", "ada", STRANGER_UID, 1, 0, 2, "completed", 2, 7200.0, 100, 1, 7200.0, 3600.0, 600.0, 5000.0),
    ("slurm-2", "ada", STRANGER_UID, 1, 1, 1, "failed", 2, None, None, 0, None, None, None, None),
    ("slurm-3", "ada", STRANGER_UID, 1, 5, None, None, 2, None, None, 0, None, None, None, None),
    # eve: on two nodes, cancelled; and one whose outcome nobody told
    ("slurm-4", "eve", OTHER_UID, 2, 0, 4, "cancelled", 8, 28_800.0, 900, 0, None, None, None, 1000.0),
    ("slurm-5", "eve", OTHER_UID, 1, 3, 3, None, 4, 43_200.0, 50, None, None, None, None, 2000.0),
    # the day before
    ("slurm-6", "ada", STRANGER_UID, 1, -22, 1, "failed", 1, 1800.0, 300, 0, None, None, None, 2500.0),
]


async def fill(pool: Any) -> None:
    async with session(pool, 10.0) as connection:
        for job_id, user, uid, nodes, began, hours, verdict, *used in RUNS:
            start = DAY + timedelta(hours=began)
            end = None if hours is None else start + timedelta(hours=hours)
            names = [f"n{number}" for number in range(1, nodes + 1)]
            state = "running" if end is None else "ended" if verdict is None else verdict
            values = (
                job_id, user, uid, names, start, end, start - timedelta(seconds=30), state, verdict, *used, "physics",
            )  # fmt: skip
            places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
            await connection.execute(
                f"INSERT INTO jobs (cluster_name, run, correlation_id, projection, {COLUMNS}) "
                f"VALUES ('c1', 1, gen_random_uuid(), '{{}}', {places})",
                *values,
            )
            for share, node in enumerate(names, start=1):
                await connection.execute(
                    "INSERT INTO job_nodes (cluster_name, job_id, run, node, projection, started_at, ended_at, cpus,"
                    " cpu_seconds) VALUES ('c1', $1, 1, $2, '{}', $3, $4, $5, $6)",
                    job_id, node, start, end, used[0] // nodes, used[1] and used[1] * share / 3,
                )  # fmt: skip


@pytest.fixture
async def api(tmp_path: Path, pool: Any) -> AsyncIterator[Served]:
    await fill(pool)
    async with served_from(pool, tmp_path) as one:
        yield one


def body(*metrics: str, **fields: Any) -> bytes:
    wanted = {"from": DAY, "to": DAY + timedelta(days=1), "bucket": {"unit": "day"}}
    return msgspec.json.encode({"metrics": metrics, **wanted, **fields})


async def ask(api: Served, *metrics: str, **fields: Any) -> dict[str, Any]:
    answer = await api.request("POST", PATH, body(*metrics, **fields), BEARER, tcp=True)
    assert answer.status == 200, answer.body
    return answer.json()


def table(groups: list[dict[str, Any]], metric: str) -> dict[Any, Any]:
    """Each group's figure and what it rests on, by its keys."""
    return {
        tuple(group["group"].values()): tuple(group["values"][metric][name] for name in ("value", "jobs", "of"))
        for group in groups
    }


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("jobs_started", (5, 5, 5)),
        ("jobs_ended", (4, 4, 4)),
        ("jobs_failed", (1, 3, 4)),
        ("failed_ratio", (pytest.approx(1 / 3), 3, 4)),
        ("wait_seconds_mean", (30.0, 5, 5)),
        ("run_seconds", (36_000.0, 4, 4)),
        ("cpu_seconds", (79_200.0, 3, 4)),
        ("cpu_efficiency", (pytest.approx(79_200 / (14_400 + 115_200 + 43_200)), 3, 4)),
        ("memory_peak_max", (900, 3, 4)),
        ("gpu_seconds", (7200.0, 1, 2)),  # of slurm-5 it is not known whether it had any
        ("gpu_utilization_mean", (50.0, 1, 2)),
        ("gpu_unused_seconds", (600.0, 1, 2)),
        ("energy_joules", (8000.0, 3, 4)),
        ("emissions_grams", (None, 0, 4)),
    ],
)
async def test_each_metric_and_what_it_rests_on(api: Served, metric: str, told: tuple[Any, ...]) -> None:
    answer = await ask(api, metric)
    assert table(answer["totals"], metric) == {(): told}
    assert table(answer["buckets"][0]["groups"], metric) == {(): told}
    assert answer["units"].keys() == {metric}


async def test_suspended_time_and_nodes_that_did_not_tell_are_not_held_against_a_run(pool: Any, api: Served) -> None:
    """As in the view: slurm-4 was suspended for one of its four hours, and a node of slurm-5 told nothing."""
    async with session(pool, 10.0) as connection:
        await connection.execute("UPDATE jobs SET suspended_seconds = 3600 WHERE job_id = 'slurm-4'")
        await connection.execute("UPDATE jobs SET nodes_reporting = 1, nodes_total = 2 WHERE job_id = 'slurm-5'")
        await connection.execute("UPDATE job_nodes SET sample_count = 1, cpus = 3 WHERE job_id = 'slurm-5'")
    answer = await ask(api, "cpu_efficiency", "run_seconds")
    allocated = 14_400 + 8 * 3 * 3600 + 3 * 3 * 3600
    assert table(answer["totals"], "cpu_efficiency") == {(): (pytest.approx(79_200 / allocated), 3, 4)}
    assert table(answer["totals"], "run_seconds") == {(): (36_000.0, 4, 4)}, "it held its nodes"
    by_node = await ask(api, "cpu_efficiency", filters={"node": ["n2"]})
    assert table(by_node["totals"], "cpu_efficiency") == {(): (pytest.approx(28_800 * 2 / 3 / (4 * 3 * 3600)), 1, 1)}


async def test_buckets_hold_what_ended_in_them(api: Served) -> None:
    """The last is shorter; one without runs is there only when it is asked for."""
    fields = {"bucket": {"unit": "hour", "interval": 2}, "to": DAY + timedelta(hours=7)}
    answer = await ask(api, "jobs_ended", "cpu_seconds", **fields)
    assert [(bucket["start"][11:16], bucket["end"][11:16]) for bucket in answer["buckets"]] == [
        ("00:00", "02:00"), ("02:00", "04:00"), ("04:00", "06:00"), ("06:00", "07:00"),
    ]  # fmt: skip
    assert [table(bucket["groups"], "jobs_ended")[()][0] for bucket in answer["buckets"]] == [0, 2, 1, 1]
    filled = await ask(
        api, "jobs_ended", "cpu_seconds", **{**fields, "fill_gaps": True, "to": DAY + timedelta(hours=9)}
    )
    assert [table(bucket["groups"], "cpu_seconds")[()] for bucket in filled["buckets"]] == [
        (None, 0, 0), (7200.0, 1, 2), (28_800.0, 1, 1), (43_200.0, 1, 1), (None, 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("group_by", "told"),
    [
        (["user"], {("ada",): 7200.0, ("eve",): 72_000.0}),
        (["user", "state"], {
            ("ada", "completed"): 7200.0, ("ada", "failed"): None, ("ada", "running"): None,
            ("eve", "cancelled"): 28_800.0, ("eve", "ended"): 43_200.0,
        }),
        (["account"], {("physics",): 79_200.0}),
        (["qos"], {(None,): 79_200.0}),
        (["partition", "cluster"], {(None, "c1"): 79_200.0}),
        (["node"], {("n1",): pytest.approx(7200 / 3 + 28_800 / 3 + 43_200 / 3), ("n2",): 19_200.0}),
    ],
)  # fmt: skip
async def test_groups(api: Served, group_by: list[str], told: dict[Any, Any]) -> None:
    answer = await ask(api, "cpu_seconds", group_by=group_by)
    assert {keys: figure[0] for keys, figure in table(answer["totals"], "cpu_seconds").items()} == told
    assert answer["groups_total"] == len(told)
    assert all(list(group["group"]) == group_by for group in answer["totals"])


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"user": "eve"}, 2), ({"user": ["eve", "ada"]}, 4), ({"user": "no' OR 1=1 --"}, 0),
        ({"account": "physics"}, 4), ({"state": ["failed", "cancelled"]}, 2), ({"node": "n2"}, 1),
        ({"partition": "p"}, 0), ({"cluster": "c1"}, 4),
    ],
)  # fmt: skip
async def test_filters(api: Served, filters: dict[str, Any], told: int) -> None:
    figures = table((await ask(api, "jobs_ended", filters=filters))["totals"], "jobs_ended")
    assert figures == {(): (told, told, told)}


async def test_the_groups_with_most_of_a_metric(api: Served) -> None:
    """And how many there are beside; a group without a value has the least."""
    top = {"metric": "cpu_seconds", "k": 1}
    answer = await ask(api, "jobs_ended", group_by=["user", "state"], top_k=top)
    assert table(answer["totals"], "jobs_ended").keys() == {("eve", "ended")}
    assert answer["groups_total"] == 5
    four = await ask(api, "jobs_ended", group_by=["user", "state"], top_k={**top, "k": 4})
    assert list(table(four["totals"], "jobs_ended")) == [
        ("eve", "ended"), ("eve", "cancelled"), ("ada", "completed"), ("ada", "failed"),
    ]  # fmt: skip


async def test_each_figure_beside_that_of_the_period_before(api: Served) -> None:
    answer = await ask(api, "energy_joules", "jobs_failed", group_by=["user"], compare_previous=True)
    values = {group["group"]["user"]: group["values"] for group in answer["totals"]}
    assert values["ada"]["energy_joules"] == {
        "value": 5000.0, "jobs": 1, "of": 2, "previous": 2500.0, "delta": 2500.0, "delta_percent": 100.0,
    }  # fmt: skip
    assert (values["ada"]["jobs_failed"]["delta"], values["eve"]["energy_joules"]["delta"]) == (0, None)
    assert answer["previous_from"] == "2026-11-19T00:00:00Z"
    hours = await ask(
        api, "jobs_ended", compare_previous=True, bucket={"unit": "hour"}, **{"from": DAY - timedelta(hours=21)},
        to=DAY - timedelta(hours=20),
    )  # fmt: skip
    assert hours["buckets"][0]["groups"][0]["values"]["jobs_ended"]["previous"] == 0


async def test_more_groups_than_can_be_told_are_refused_with_their_number(api: Served, pool: Any) -> None:
    async with session(pool, 10.0) as connection:
        await connection.execute(
            "INSERT INTO jobs (cluster_name, job_id, run, state, correlation_id, projection, end_time, user_name)"
            " SELECT 'c1', 'slurm-' || n, 1, 'completed', gen_random_uuid(), '{}', $1, 'user' || n"
            " FROM generate_series(1000, 1499) AS n",
            DAY,
        )
    answer = await api.request("POST", PATH, body("jobs_ended", group_by=["user"]), BEARER, tcp=True)
    assert (answer.status, answer.json()["details"]) == (400, {"field": "group_by"})
    assert "502 groups" in answer.json()["message"]
    assert (
        len((await ask(api, "jobs_ended", group_by=["user"], top_k={"metric": "jobs_ended", "k": 500}))["totals"])
        == 500
    )


async def asked_by(uid: int, socket: str, question: bytes) -> Answer:
    """The question by a process of user `uid`."""
    import sys

    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, socket, str(uid), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(
        child.communicate(request_bytes("POST", PATH, question, {"Connection": "close"})), 30
    )
    return parse_answer(out)


async def test_a_user_is_told_of_their_own_runs(reachable: Path, api: Served) -> None:
    socket = api.settings.poke_socket
    for uid, ended in ((STRANGER_UID, 2), (OTHER_UID, 2), (0, 4)):
        answer = await asked_by(uid, socket, body("jobs_ended"))
        assert table(answer.json()["totals"], "jobs_ended")[()][0] == ended
    none = await asked_by(STRANGER_UID, socket, body("jobs_ended", filters={"user": "eve"}))
    assert (none.status, table(none.json()["totals"], "jobs_ended")) == (200, {(): (0, 0, 0)})
    assert (await asked_by(65534, socket, body("jobs_ended"))).status == 403


async def test_over_tcp_it_takes_the_token_and_is_no_event(api: Served) -> None:
    """A refused question is not counted among the refused events."""
    assert (await api.request("POST", PATH, body("jobs_ended"), tcp=True)).status == 401
    wrong = await api.request("POST", PATH, b"{}", BEARER, tcp=True)
    assert (wrong.status, wrong.json()["error"]) == (400, "validation_error")
    large = await api.request("POST", PATH, b" " * 65_537, BEARER, tcp=True)
    assert (large.status, large.json()["details"]) == (413, {"limit_bytes": 65_536})
    assert (await api.request("POST", f"{PATH}?x=1", body("jobs_ended"), BEARER, tcp=True)).status == 400
    assert api.facts == []


async def test_without_a_database_there_is_nothing_to_tell(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        answer = await api.request("POST", PATH, body("jobs_ended"))
    assert (answer.status, "database.url" in answer.json()["message"]) == (503, True)


async def test_what_takes_too_long_is_given_up_and_the_connection_goes_on(pool: Any) -> None:
    await fill(pool)
    question = read_question(body("jobs_ended", group_by=["user"]))
    async with session(pool, 10.0) as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="in time; ask for less time"):
            await PostgresAnalytics(pool, timeout_seconds=0.5).analyse(question, uid=None)
    assert (await PostgresAnalytics(pool, timeout_seconds=5.0).analyse(question, uid=None)).groups_total == 2


async def test_a_day_among_years_of_runs_is_found_by_index(pool: Any) -> None:
    async with session(pool, 60.0) as connection:
        await connection.execute(
            "INSERT INTO jobs (cluster_name, job_id, run, state, correlation_id, projection, start_time, end_time)"
            " SELECT 'c1', 'slurm-' || n, 1, 'completed', gen_random_uuid(), '{}', began, began"
            " FROM generate_series(1, 60000) AS n,"
            " LATERAL (SELECT $1::timestamptz - n * interval '5 min') AS t (began)",
            DAY,
        )
        await connection.execute(EVERY_ROW.format(table="jobs", column="run"))
        await connection.execute("ANALYZE jobs")
        day = (DAY - timedelta(days=30), DAY - timedelta(days=30), DAY - timedelta(days=29), 3600)
        arguments = (*day, *[None] * 7, ["user"], False, None, 501, 50_001)
        (told,) = msgspec.json.decode(
            await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {SQL['analytics']}", *arguments)
        )
    text = msgspec.json.encode(told).decode()
    assert "Seq Scan" not in text
    assert {"jobs_end_time_idx", "jobs_start_time_idx"} <= {part for part in text.split('"') if part.endswith("_idx")}

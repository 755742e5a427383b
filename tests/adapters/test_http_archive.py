"""What is told of stored jobs, their samples and their trail, from a real database through real sockets."""

import csv
import io
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.http import audit_reads, jobs
from jobtrail.adapters.http.csv_page import as_csv
from jobtrail.adapters.postgres import PostgresBenchmarkReader, PostgresNodes, session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.analytics import Dimension, Filters, Metric, Question, Unit
from tests.adapters.stored_jobs import OTHER_UID, add_samples, get, opener, served_from, store, stories
from tests.adapters.test_http_benchmark_reads import API, resolved
from tests.adapters.test_http_report_readers import read_as
from tests.adapters.test_http_senders import OVERFLOW_UID, SLURM_UID, STRANGER_UID, reachable
from tests.chains import SECOND, T0, ChainWriter
from tests.postgres import EVERY_ROW
from tests.served_api import Served, served

__all__ = ["reachable"]
START = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=T0)
REQUEST = uuid.UUID("6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21")
QUESTIONS = ("/v1/jobs", "/v1/jobs/1", "/v1/jobs/1/metrics", "/v1/jobs/1/audit", "/v1/audit")


@pytest.fixture
def writer() -> ChainWriter:
    return stories()[0]


@pytest.fixture
async def api(tmp_path: Path, pool: Any, writer: ChainWriter) -> AsyncIterator[Served]:
    await store(pool, [writer])
    async with served_from(pool, tmp_path) as one:
        yield one


def ids(body: dict[str, Any]) -> list[str]:
    return [job["job_id"] for job in body["jobs"]]


@pytest.mark.parametrize(
    ("question", "wanted", "total"),
    [
        ("", ["slurm-4", "slurm-3", "slurm-2", "slurm-1"], 4),
        ("?limit=1&offset=1", ["slurm-3"], 4),
        ("?state=running", ["slurm-4"], 1),
        ("?user=ada&account=odd", ["slurm-3", "slurm-1"], 2),
        ("?user=eve", [], 0),
        ("?partition=p1&node=n1&cluster=c1&limit=2", ["slurm-4", "slurm-3"], 4),
        ("?since=2025-10-09T08:56:00Z", ["slurm-4", "slurm-3"], 2),
        ("?until=2025-10-09T10:55:00%2B02:00", ["slurm-1"], 1),
    ],
)
async def test_jobs_are_listed_newest_first(api: Served, question: str, wanted: list[str], total: int) -> None:
    answer = await get(api, f"/v1/jobs{question}")
    assert (answer.status, ids(answer.json()), answer.json()["total"]) == (200, wanted, total)


async def test_a_list_as_csv_has_every_column_and_no_formula(api: Served) -> None:
    answer = await get(api, "/v1/jobs?format=csv&limit=3")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["jobtrail-total"] == "4"
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [row["job_id"] for row in rows] == ["slurm-4", "slurm-3", "slurm-2"]
    assert rows[0]["job_name"] == "'=job 4"
    assert rows[0]["end_time"] == ""
    assert rows[1].keys() == (await get(api, "/v1/jobs?limit=1")).json()["jobs"][0].keys()


async def test_an_empty_page_has_the_heading_of_the_others(api: Served) -> None:
    whole, empty = [await get(api, f"/v1/jobs?format=csv{more}") for more in ("", "&user=nobody")]
    assert whole.body.splitlines()[0] == empty.body.strip()
    assert empty.headers["jobtrail-total"] == "0"


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20x"]
)
def test_text_that_a_spreadsheet_would_take_for_a_formula_is_quoted(text: str) -> None:
    """Some read full-width signs as the plain ones: https://owasp.org/www-community/attacks/CSV_Injection."""
    assert list(csv.DictReader(io.StringIO(as_csv([{"job_name": text}], ()), newline=""))) == [{"job_name": f"'{text}"}]


@pytest.mark.parametrize("path", QUESTIONS)
async def test_who_asks_the_same_again_is_told_that_nothing_changed(api: Served, path: str) -> None:
    first = await get(api, f"{path}?limit=3" if path not in {"/v1/jobs/1"} else path)
    assert first.status == 200
    tag = first.headers["etag"]
    again = await get(api, f"{path}?limit=3" if path not in {"/v1/jobs/1"} else path, If_None_Match=f'"x", {tag}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    other = await get(api, path, If_None_Match='"another"')
    assert other.status == 200


async def test_a_list_that_changed_has_another_tag(api: Served, pool: Any, writer: ChainWriter) -> None:
    tag = (await get(api, "/v1/jobs")).headers["etag"]
    known = len(writer.rows)
    writer.started("slurm-9", 600 * SECOND)
    later = ChainWriter(writer.node, chain_id=writer.chain_id)
    later.rows = writer.rows[known:]
    await store(pool, [later])
    answer = await get(api, "/v1/jobs", If_None_Match=tag)
    assert (answer.status, answer.json()["total"]) == (200, 5)


async def test_one_run_is_its_row_with_the_reason_of_its_end(api: Served) -> None:
    answer = (await get(api, "/v1/jobs/slurm-1?run=1&cluster=c1")).json()
    assert (answer["job_id"], answer["run"], answer["state"], answer["exit_code"]) == ("slurm-1", 1, "failed", 1)
    assert answer["cpu_seconds"] == 30.0
    assert answer["sentence"].endswith(".")
    assert answer["other_runs"] == []
    assert "projection" not in answer


@pytest.mark.parametrize("path", [f"/v1/jobs/77{part}" for part in ("", "/metrics", "/audit")])
async def test_a_job_that_is_not_stored_is_404(api: Served, path: str) -> None:
    answer = await get(api, path)
    assert (answer.status, answer.json()["error"]) == (404, "not_found")
    assert "77" in answer.json()["message"]


async def add_minute(pool: Any, writer: ChainWriter) -> None:
    """Of job 1 a sample each 10 s for a minute, with none from 20 to 39 s; the third has no CPU."""
    await add_samples(
        pool,
        "INSERT INTO job_samples (sampled_at, cluster_name, job_id, node, opened_by, source, cpu_percent, cpu_seconds,"
        " memory_current_bytes) SELECT $1::timestamptz + n * interval '1 s', 'c1', 'slurm-1', 'n1', $2::uuid, 'test',"
        " CASE WHEN n = 40 THEN NULL ELSE n END, n, 1000 - n FROM unnest(ARRAY[0, 10, 40, 50]) AS n",
        START + timedelta(minutes=1),
        opener(writer, "slurm-1"),
    )


async def test_samples_come_as_they_were_taken(api: Served, pool: Any, writer: ChainWriter) -> None:
    await add_minute(pool, writer)
    body = (await get(api, "/v1/jobs/1/metrics")).json()
    assert [(row["cpu_percent"], row["memory_current_bytes"]) for row in body["samples"]] == [
        (0.0, 1000), (10.0, 990), (None, 960), (50.0, 950),
    ]  # fmt: skip
    assert (body["step_seconds"], body["gpu_samples"], body["truncated"]) == (None, [], [])
    assert body["start_time"] == "2025-10-09T08:53:20Z"  # a minute before the run
    cut = (await get(api, "/v1/jobs/1/metrics?limit=3")).json()
    assert (len(cut["samples"]), cut["truncated"]) == (3, ["samples"])
    rest = (await get(api, f"/v1/jobs/1/metrics?start_time={cut['samples'][-1]['sampled_at']}")).json()
    assert [row["cpu_seconds"] for row in rest["samples"]] == [40.0, 50.0]


async def test_a_step_without_samples_has_no_row(api: Served, pool: Any, writer: ChainWriter) -> None:
    """And a mean is weighted by the time that each sample looks back on."""
    await add_minute(pool, writer)
    body = (await get(api, "/v1/jobs/1/metrics?step=20")).json()
    rows = body["samples"]
    assert [row["sampled_at"] for row in rows] == [
        "2025-10-09T08:54:20Z", "2025-10-09T08:55:00Z",
    ]  # fmt: skip
    assert [row["samples"] for row in rows] == [2, 2]
    assert rows[0]["cpu_percent"] == pytest.approx(100 / 11)  # 10 % over 10 s, and 0 % of the first look, weighing 1
    assert rows[1]["cpu_percent"] == 50.0  # the look without a value weighs nothing
    assert [row["cpu_seconds"] for row in rows] == [10.0, 50.0]
    assert [row["memory_current_bytes"] for row in rows] == [1000, 960]


async def test_samples_of_gpus(api: Served, pool: Any, writer: ChainWriter) -> None:
    await add_samples(
        pool,
        "INSERT INTO gpu_samples (sampled_at, node, gpu_id, vendor, cluster_name, job_id, opened_by,"
        " utilization_percent, energy_joules, throttle_reasons, processes)"
        " SELECT $1::timestamptz + n * interval '10 s', 'n1', 'GPU-' || g, 'nvidia', 'c1', 'slurm-1', $2::uuid,"
        " n * 10, 100 + n, ARRAY['thermal'], '[{\"pid\": 7}]'"
        " FROM generate_series(0, 2) AS n, unnest(ARRAY['a', 'b']) AS g",
        START + timedelta(minutes=1),
        opener(writer, "slurm-1"),
    )
    whole = (await get(api, "/v1/jobs/1/metrics")).json()["gpu_samples"]
    assert len(whole) == 6
    assert (whole[0]["processes"], whole[0]["throttle_reasons"]) == ([{"pid": 7}], ["thermal"])
    stepped = (await get(api, "/v1/jobs/1/metrics?step=3600")).json()["gpu_samples"]
    assert [(row["gpu_id"], row["samples"], row["energy_joules"]) for row in stepped] == [
        ("GPU-a", 3, 102.0), ("GPU-b", 3, 102.0),
    ]  # fmt: skip
    assert stepped[0]["utilization_percent"] == pytest.approx(300 / 21)


async def test_a_run_that_did_not_start_has_no_samples(api: Served, pool: Any) -> None:
    await add_samples(pool, "UPDATE jobs SET start_time = NULL WHERE job_id = 'slurm-2'")
    body = (await get(api, "/v1/jobs/2/metrics")).json()
    assert (body["start_time"], body["end_time"], body["samples"]) == (None, None, [])


async def test_the_trail_of_a_job_and_of_all(api: Served) -> None:
    events = (await get(api, "/v1/jobs/1/audit")).json()["events"]
    assert [event["event_kind"] for event in events] == ["job_started", "job_finished", "usage_recorded"]
    assert events[-1]["job_snapshot"]["cpu_seconds"] == 30.0
    everything: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(10):
        page = (await get(api, f"/v1/audit?limit=3{cursor}")).json()
        everything += page["events"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [event["seq"] for event in everything] == list(range(10, 0, -1))


@pytest.mark.parametrize(
    ("question", "seqs"),
    [
        ("changed_by=slurm-epilog", [8, 5, 2]),
        ("since=2025-10-09T08:57:00Z", [10]),
        ("until=2025-10-09T08:54:25Z", [1]),
        ("changed_by=nobody", []),
        ("correlation_id=00000000-0000-4000-8000-000000000000", []),
    ],
)
async def test_the_trail_is_filtered(api: Served, question: str, seqs: list[int]) -> None:
    assert [event["seq"] for event in (await get(api, f"/v1/audit?{question}")).json()["events"]] == seqs


async def test_all_of_one_correlation(api: Served) -> None:
    wanted = (await get(api, "/v1/jobs/2")).json()["correlation_id"]
    events = (await get(api, f"/v1/audit?correlation_id={wanted}")).json()["events"]
    assert {event["job_id"] for event in events} == {"slurm-2"}
    assert len(events) == 3


async def test_a_user_reads_of_their_own_jobs_alone(reachable: Path, api: Served) -> None:
    """Lists are of their own, whatever they ask for; another's job is refused by name."""
    socket = api.settings.poke_socket
    mine = await read_as(STRANGER_UID, socket, "/v1/jobs")
    assert (ids(mine.json()), mine.json()["total"]) == (["slurm-3", "slurm-1"], 2)
    assert ids((await read_as(STRANGER_UID, socket, "/v1/jobs?account=even")).json()) == []
    assert ids((await read_as(OTHER_UID, socket, "/v1/jobs")).json()) == ["slurm-4", "slurm-2"]
    trail = (await read_as(STRANGER_UID, socket, "/v1/audit")).json()["events"]
    assert {event["job_id"] for event in trail} == {"slurm-1", "slurm-3"}
    for part in ("", "/metrics", "/audit"):
        assert (await read_as(STRANGER_UID, socket, f"/v1/jobs/1{part}")).status == 200
        refused = await read_as(STRANGER_UID, socket, f"/v1/jobs/2{part}")
        assert (refused.status, refused.json()["error"]) == (403, "forbidden")
    assert ids((await read_as(SLURM_UID, socket, "/v1/jobs?limit=2")).json()) == ["slurm-4", "slurm-3"]
    assert (await read_as(OVERFLOW_UID, socket, "/v1/jobs")).status == 403


@pytest.mark.parametrize("path", QUESTIONS)
async def test_over_tcp_it_takes_the_token(api: Served, path: str) -> None:
    assert (await api.request("GET", path, tcp=True)).status == 401
    wrong = {"Authorization": "Bearer 0123456789abcdef0123"}
    assert (await api.request("GET", path, headers=wrong, tcp=True)).status == 403
    assert (await api.request("GET", path)).status == 200


@pytest.mark.parametrize("path", QUESTIONS)
async def test_without_a_database_there_is_nothing_to_tell(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as api:
        answer = await api.request("GET", path)
    assert (answer.status, "database.url" in answer.json()["message"]) == (503, True)


@pytest.mark.parametrize(
    ("path", "field", "allowed"),
    [
        ("/v1/jobs?state=Failed", "state", "pending, running"),
        ("/v1/jobs?users=a", "users", "account"),
        ("/v1/jobs?since=yesterday", "since", "2026-11-21T08:00:00Z"),
        ("/v1/jobs?since=1999-01-01T00:00:00Z", "since", "2000"),
        ("/v1/jobs?limit=1001", "limit", "1000"),
        ("/v1/jobs?format=xml", "format", "csv"),
        ("/v1/jobs/0", "id", "slurm-N"),
        ("/v1/jobs/1?run=x", "run", "whole number"),
        ("/v1/jobs/1/metrics?step=0", "step", "86400"),
        ("/v1/jobs/1/metrics?start_time=2025-10-09T08:00:00Z&end_time=2025-10-09T08:00:00Z", "end_time", "after"),
        ("/v1/jobs/1/audit?limit=0", "limit", "1000"),
        ("/v1/audit?cursor=%2B", "cursor", "next_cursor"),
        ("/v1/audit?cursor=AAAA", "cursor", "next_cursor"),
        ("/v1/audit?cursor=WzEsMiwzXQ", "cursor", "next_cursor"),
        ("/v1/audit?correlation_id=7", "correlation_id", "UUID"),
    ],
)
async def test_a_wrong_question_is_answered_with_the_allowed_form(
    api: Served, path: str, field: str, allowed: str
) -> None:
    answer = await get(api, path)
    assert (answer.status, answer.json()["details"]) == (400, {"field": field})
    assert allowed in answer.json()["message"]


async def test_every_list_has_a_tag(tmp_path: Path, pool: Any) -> None:
    seconds = {"timeout_seconds": 10.0}
    asked = {"nodes": PostgresNodes(pool, **seconds), "benchmarks": PostgresBenchmarkReader(pool, **seconds)}
    async with served_from(pool, tmp_path, **asked) as api:
        for path in (
            "/v1/nodes",
            "/v1/benchmarks/runs",
            "/v1/benchmarks/runs?format=csv",
            "/v1/benchmarks/leaderboard",
        ):
            tag = (await get(api, path)).headers["etag"]
            assert (await get(api, path, If_None_Match=tag)).status == 304


async def test_a_page_of_a_long_trail_reads_little_of_it(pool: Any) -> None:
    """Sixty thousand events of six thousand jobs, of which one user has ten; a hundred each are of one person, of one
    sender and of one request."""
    async with session(pool, 120.0) as connection:
        await connection.execute(
            "INSERT INTO jobs (cluster_name, job_id, run, state, correlation_id, projection, uid)"
            " SELECT 'c1', 'slurm-' || n, 1, 'completed', gen_random_uuid(), '{}',"
            " CASE WHEN n % 600 = 0 THEN 7 ELSE 8 END"
            " FROM generate_series(1, 6000) AS n",
            timeout=60.0,
        )
        await connection.execute(
            "INSERT INTO audit_log (chain_id, seq, event_id, kind, prev_hash, commitment, row_hash, changed_at,"
            " received_at, changed_by, cluster_name, job_id, run, correlation_id, request_id)"
            " SELECT $1::uuid, n, gen_random_uuid(), 'checkpoint', sha256(n::text::bytea),"
            " sha256('c'), sha256('r'), $2::timestamptz + n * interval '1 s',"
            " $2::timestamptz, 'collector', 'c1', 'slurm-' || n % 6000 + 1, 1, gen_random_uuid(),"
            " CASE WHEN n % 600 = 0 THEN $3::uuid END"
            " FROM generate_series(1, 60000) AS n",
            "11111111-1111-4111-8111-111111111111",
            START,
            REQUEST,
            timeout=60.0,
        )
        await connection.execute(
            "INSERT INTO audit_payload (chain_id, seq, received_at, payload, salt, person, sent_by)"
            " SELECT chain_id, seq, received_at, '', '', CASE WHEN seq % 600 = 1 THEN 'ada' END,"
            " CASE WHEN seq % 600 = 2 THEN 'uid:7' END FROM audit_log",
            timeout=60.0,
        )
        for table, column in (("jobs", "run"), ("audit_log", "run"), ("audit_payload", "salt")):
            await connection.execute(EVERY_ROW.format(table=table, column=column))
        await connection.execute("ANALYZE jobs, audit_log, audit_payload")
        at = START + timedelta(seconds=30_000)
        place = (at, "11111111-1111-4111-8111-111111111111", 30_000)
        for name, arguments in (
            ("trail_page", (*[None] * 7, 101, None)),
            ("trail_page", (*[None] * 4, *place, 101, None)),
            ("trail_page", (*[None] * 3, REQUEST, *[None] * 3, 101, None)),
            ("trail_page", (*[None] * 7, 101, "ada")),
            ("trail_page", (*[None] * 7, 101, "uid:7")),
            ("trail_page_of_user", (*[None] * 7, 101, None, 7)),
        ):
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {SQL[name]}"
            (told,) = msgspec.json.decode(await connection.fetchval(explain, *arguments))
            plan = told["Plan"]
            assert plan["Actual Rows"] in (100, 101), (name, arguments)
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 1500, (name, plan)


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/jobs", jobs.LIST_PARAMETERS),
        ("/v1/jobs/{id}", jobs.SHOW_PARAMETERS),
        ("/v1/jobs/{id}/metrics", jobs.METRICS_PARAMETERS),
        ("/v1/jobs/{id}/audit", audit_reads.JOB_PARAMETERS),
        ("/v1/audit", audit_reads.PARAMETERS),
    ],
)
def test_the_description_names_the_parameters_that_there_are(path: str, known: tuple[str, ...]) -> None:
    parts = [resolved(one) for one in API["paths"][path]["get"]["parameters"]]
    assert sorted(one["name"] for one in parts if one["in"] == "query") == sorted(known)


def test_the_described_words_of_a_question_are_those_that_there_are() -> None:
    schemas = API["components"]["schemas"]
    assert schemas["AnalyticsMetric"]["enum"] == list(Metric)
    question = schemas["AnalyticsQuestion"]["properties"]
    assert set(question) == set(Question.__struct_encode_fields__)
    assert question["group_by"]["items"]["enum"] == list(Dimension)
    assert question["bucket"]["properties"]["unit"]["enum"] == list(Unit)
    assert set(question["filters"]["properties"]) == set(Filters.__struct_fields__)

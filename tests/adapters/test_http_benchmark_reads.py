"""What is answered about benchmarks: to whom, with which words in the address, as JSON and as CSV."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import json

from jobtrail.adapters.http.benchmark_reads import LEADERBOARD_PARAMETERS, LIST_PARAMETERS
from jobtrail.core.benchmarks.ports import RunFilter
from jobtrail.domain.benchmarks.report import BenchmarkReport
from jobtrail.domain.benchmarks.submitted import WRITTEN_BY_DAEMON, read_report
from jobtrail.domain.errors import InvalidEvent, NotFound, StoreUnavailable
from tests.adapters.benchmark_runs import SECRET, UID, ScriptedRuns
from tests.adapters.test_http_pokes import poke
from tests.adapters.test_http_reading import ScriptedJobs
from tests.adapters.test_http_report_readers import read_as
from tests.adapters.test_http_senders import SLURM_UID, STRANGER_UID, reachable
from tests.adapters.test_http_tokens import OTHER, TOKEN, write
from tests.served_api import Answer, Served, served

__all__ = ["reachable"]
RUNS = "/v1/benchmarks/runs"
ALL = (RUNS, f"{RUNS}/{UID}", "/v1/benchmarks/leaderboard", f"/v1/benchmarks/compare?a={UID}&b={UID[:8]}")
API = yaml.safe_load((Path(__file__).parents[2] / "docs" / "openapi.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def runs() -> ScriptedRuns:
    return ScriptedRuns(owner=STRANGER_UID)


@pytest.fixture
async def api(tmp_path: Path, runs: ScriptedRuns) -> AsyncIterator[Served]:
    file = tmp_path / "read.token"
    write(file, TOKEN)
    async with served(tmp_path, benchmarks=runs, trusted_uids=frozenset({SLURM_UID}), read_token_file=str(file)) as one:
        yield one


async def ask(api: Served, path: str, **headers: str) -> Answer:
    return await poke(api, path, b"", "GET", **headers)


@pytest.mark.parametrize("path", ALL)
async def test_every_local_user_may_ask_and_over_tcp_who_shows_the_token(
    reachable: Path, api: Served, path: str
) -> None:
    """A loopback port knows no user, so it is no better than another one."""
    assert (await read_as(1, api.settings.poke_socket, path)).status == 200
    assert (await api.request("GET", path)).status == 200
    for token, status in ((TOKEN, 200), (OTHER, 403), (None, 401)):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        assert (await api.request("GET", path, headers=headers, tcp=True)).status == status


async def test_how_a_run_was_called_is_for_its_user(reachable: Path, api: Served) -> None:
    for uid, sees in ((STRANGER_UID, True), (SLURM_UID, True), (0, True), (1, False)):
        answer = await read_as(uid, api.settings.poke_socket, f"{RUNS}/{UID}")
        assert (SECRET.encode() in answer.body) is sees
        assert answer.json()["hidden"] == ([] if sees else ["argv", "recipe_body", "files", "claims"])
        assert answer.json()["details"]["parameters"] == {"dtype": "bfloat16"}
    over = await api.request("GET", f"{RUNS}/{UID}", headers={"Authorization": f"Bearer {TOKEN}"}, tcp=True)
    assert SECRET.encode() not in over.body


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        (RUNS, ("list", RunFilter(), 100, 0)),
        (
            f"{RUNS}?recipe=a%20b&model=m&status=ok&tool=vllm&job_id=slurm-1&user=alice&hardware=3fa1c09b&verdict=ok"
            "&since=2026-11-21T08:00:00Z&until=2026-11-21T10:00:00%2B01:00&sort=-request_latency.p90&limit=5&offset=7",
            (
                "list",
                RunFilter(
                    recipe="a b", model="m", status="ok", tool="vllm", job_id="slurm-1", user_name="alice",
                    hardware="3fa1c09b", verdict="ok", since_us=1_795_248_000_000_000, until_us=1_795_251_600_000_000,
                    sort="-request_latency.p90",
                ),
                5, 7,
            ),
        ),
        (f"{RUNS}/{UID[:8].upper()}", ("show", UID[:8])),
        (
            "/v1/benchmarks/leaderboard",
            ("leaderboard", "output_token_throughput", "value", RunFilter(), 100),
        ),
        (
            "/v1/benchmarks/leaderboard?metric=time_to_first_token&recipe=chat&model=m&hardware=h&limit=3",
            ("leaderboard", "time_to_first_token", "p50", RunFilter(recipe="chat", model="m", hardware="h"), 3),
        ),
        (
            "/v1/benchmarks/leaderboard?metric=request_latency&stat=p99.9",
            ("leaderboard", "request_latency", "p99.9", RunFilter(), 100),
        ),
        (f"/v1/benchmarks/compare?a={UID}&b={UID[:9]}", ("compare", UID, UID[:9])),
    ],
)  # fmt: skip
async def test_a_question_is_asked_as_it_was_put(
    api: Served, runs: ScriptedRuns, question: str, asked: tuple[Any, ...]
) -> None:
    assert (await ask(api, question)).status == 200
    assert runs.asked == [asked]


@pytest.mark.parametrize(
    ("question", "field", "allowed"),
    [
        (f"{RUNS}?reciep=a", "reciep", "is no parameter here; there are"),
        (f"{RUNS}?recipe=a&recipe=b", "recipe", "once"),
        (f"{RUNS}?recipe=", "recipe", "1 to 255 visible"),
        (f"{RUNS}?model=a%0Ab", "model", "1 to 255 visible"),
        (f"{RUNS}?since=yesterday", "since", "must be a time with its zone"),
        (f"{RUNS}?since=2026-11-21T08:00:00", "since", "must be a time with its zone"),
        (f"{RUNS}?until=1970-01-01T00:00:00Z", "until", "between the years 2000 and 2100"),
        (f"{RUNS}?sort=a;b", "sort", "must be a column"),
        (f"{RUNS}?limit=1001", "limit", "from 1 to 1000"),
        (f"{RUNS}?format=xml", "format", "must be json or csv"),
        (f"{RUNS}/6f1f2c", "uid", "first 8 or more"),
        (f"{RUNS}/{UID}?format=csv", "format", "is no parameter"),
        ("/v1/benchmarks/leaderboard?stat=p100", "stat", "must be one of value, mean"),
        ("/v1/benchmarks/leaderboard?user=a", "user", "is no parameter"),
        (f"/v1/benchmarks/compare?a={UID}", "b", "first 8 or more"),
        ("/v1/benchmarks/compare?a=zzzzzzzz&b=zzzzzzzz", "a", "first 8 or more"),
    ],
)
async def test_what_is_wrong_in_an_address_is_named(
    api: Served, runs: ScriptedRuns, question: str, field: str, allowed: str
) -> None:
    answer = await ask(api, question)
    assert (answer.status, answer.json()["details"]) == (400, {"field": field})
    assert allowed in answer.json()["message"]
    assert runs.asked == []


@pytest.mark.parametrize(
    ("problem", "status"),
    [(NotFound("no"), 404), (StoreUnavailable("away"), 503), (InvalidEvent("sort", "'x' is unknown"), 400)],
)
async def test_what_the_database_says_is_passed_on(
    api: Served, runs: ScriptedRuns, problem: Exception, status: int
) -> None:
    runs.problem = problem
    for path in ALL:
        assert (await ask(api, path)).status == status


async def test_without_a_database_it_is_said(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        for path in ALL:
            answer = await ask(api, path)
            assert (answer.status, "database.url" in answer.json()["message"]) == (503, True)


@pytest.mark.parametrize(
    ("question", "accept", "is_csv"),
    [
        ("?format=csv", "application/json", True),
        ("?format=json", "text/csv", False),
        ("", "text/csv", True),
        ("", "text/csv;q=0.5, application/json", False),
        ("", "application/json;q=0.1, text/csv; charset=utf-8; q=0.9", True),
        ("", "*/*", False),
        ("", "text/csv;q=x", False),
        ("", "", False),
    ],
)
async def test_csv_is_given_to_who_wants_it(api: Served, question: str, accept: str, *, is_csv: bool) -> None:
    for path in (RUNS, "/v1/benchmarks/leaderboard"):
        answer = await ask(api, f"{path}{question}", Accept=accept)
        assert answer.headers["content-type"].startswith("text/csv" if is_csv else "application/json")


async def test_csv_is_a_table_without_formulas(api: Served) -> None:
    """Each cell reads back; text that a spreadsheet would run has an apostrophe before it, numbers have none."""
    answer = await ask(api, f"{RUNS}?format=csv")
    assert answer.headers["jobtrail-total"] == "41"
    assert answer.headers["content-disposition"] == 'attachment; filename="benchmark-runs.csv"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    (row,) = csv.DictReader(io.StringIO(answer.body.decode(), newline=""))
    assert row == {
        "run_uid": UID, "recipe": "chat", "model": "'=HYPERLINK(1)", "status": "ok", "error_ratio": "", "gain": "-0.5",
        "started_at": "2026-11-21T08:00:00Z", "accepted": "false", "notes": '["a","b"]', "user_name": 'a\tb,"c"',
        "tool": "'-v",
    }  # fmt: skip
    ranked = await ask(api, "/v1/benchmarks/leaderboard?format=csv&metric=request_latency&stat=p90")
    assert ranked.headers["content-disposition"].endswith('"leaderboard-request_latency-p90.csv"')
    assert ranked.body.startswith(b"rank,value,run_uid,")


async def test_json_has_all_and_how_many(api: Served) -> None:
    answer = (await ask(api, RUNS)).json()
    assert (answer["total"], answer["runs"][0]["run_uid"]) == (41, UID)
    board = (await ask(api, "/v1/benchmarks/leaderboard")).json()
    assert (board["metric"], board["stat"], board["runs"][0]["rank"]) == ("output_token_throughput", "value", 1)


def test_the_description_names_the_parameters_that_there_are() -> None:
    for path, known in ((RUNS, LIST_PARAMETERS), ("/v1/benchmarks/leaderboard", LEADERBOARD_PARAMETERS)):
        parts = [resolved(one) for one in API["paths"][path]["get"]["parameters"]]
        assert sorted(one["name"] for one in parts if one["in"] == "query") == sorted(known)


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """A part of the description, where it stands or where it refers to."""
    while "$ref" in part:
        found: Any = API
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def test_the_described_report_is_the_accepted_one() -> None:
    """Every field at every depth, which are needed, and the words that are allowed; and the example comes in."""
    _, ours = json.schema_components([BenchmarkReport])
    schemas = API["components"]["schemas"]
    described = [name for name, kind in ours.items() if "properties" in kind]
    assert len(described) == 8
    for name in described:
        left_out = set(WRITTEN_BY_DAEMON) if name == "BenchmarkReport" else set()
        assert set(schemas[name]["properties"]) == set(ours[name]["properties"]) - left_out
        assert schemas[name]["required"] == ours[name]["required"]
        assert schemas[name]["additionalProperties"] is False
    for word in ("mode", "status"):
        assert schemas["BenchmarkReport"]["properties"][word]["enum"] == ours[word.title()]["enum"]
    example = API["paths"][RUNS]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert read_report(json.encode(example), now_us=example["ended_us"]).run_uid == example["run_uid"]


class SlowRuns(ScriptedRuns):
    """Answers when `gate` opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered = asyncio.Event(), asyncio.Event()

    async def _note(self, *question: Any) -> None:
        self.entered.set()
        await self.gate.wait()
        await super()._note(*question)


async def test_a_user_has_one_question_at_a_time_about_jobs_and_benchmarks_together(reachable: Path) -> None:
    """There are two connections to the database for those who ask: one user cannot take both."""
    slow = SlowRuns()
    async with served(reachable, benchmarks=slow, jobs=ScriptedJobs()) as api:
        socket = api.settings.poke_socket
        waiting = asyncio.create_task(read_as(STRANGER_UID, socket, RUNS))
        await asyncio.wait_for(slow.entered.wait(), 20)
        for path in (*ALL, "/v1/jobs/7/report"):
            answer = await read_as(STRANGER_UID, socket, path)
            assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        others = [asyncio.create_task(read_as(uid, socket, RUNS)) for uid in (0, 1)]
        slow.gate.set()
        assert [(await one).status for one in (waiting, *others)] == [200, 200, 200]
        assert (await read_as(STRANGER_UID, socket, RUNS)).status == 200

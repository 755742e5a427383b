"""Jobs that people write: over the Unix sockets and TCP, in front of a real database."""

import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from jobtrail.adapters.http import job_json
from jobtrail.adapters.postgres import PostgresSamples, PostgresSink
from jobtrail.core.ports import Receipt
from jobtrail.domain.audit import EMPTY_CHAIN, ChainHead, link
from jobtrail.domain.events import Actor, Event, encode
from tests.adapters.stored_jobs import BEARER, served_from
from tests.adapters.test_http_senders import OVERFLOW_UID, STRANGER_UID, reachable, send_as
from tests.adapters.test_http_tokens import write
from tests.served_api import Answer, RecordingIntake, Served, served

__all__ = ["reachable"]

WRITE_TOKEN = "w" * 32
SIGNED = {"X-Changed-By": "ada", "X-Source": "lsf-import"}
ASKED = "6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21"
DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.yaml"


class StoringIntake(RecordingIntake):
    """What it takes is in the database before it answers."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self._sink, self._head, self._chain = PostgresSink(pool), EMPTY_CHAIN, str(uuid.uuid4())

    async def accept(self, event: Event, digest: bytes) -> Receipt:
        receipt = await super().accept(event, digest)
        if not receipt.duplicate:
            row = link(
                self._head,
                chain_id=self._chain,
                event_id=event.event_id,
                kind=event.kind,
                time_us=event.time_us,
                received_us=event.time_us,
                payload=encode(event),
                salt=os.urandom(32),
            )
            assert (await self._sink.store([row], node="n1")).unapplied == {}
            self._head = ChainHead(row.seq, row.row_hash)
        return receipt


@pytest.fixture
async def api(reachable: Path, pool: Any) -> AsyncIterator[Served]:
    file = reachable / "write.token"
    write(file, WRITE_TOKEN)
    samples = PostgresSamples(pool, timeout_seconds=10.0, tell=lambda _: None)
    more: dict[str, Any] = {"intake": StoringIntake(pool), "posted_samples": samples, "write_token_file": str(file)}
    async with served_from(pool, reachable, **more) as one:
        yield one


async def ask(api: Served, method: str, path: str, body: Any = None, *, tcp: bool = False, **headers: str) -> Answer:
    data = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.request(method, path, data, {**SIGNED, **named}, tcp=tcp)


async def ask_as(uid: int, api: Served, method: str, path: str, body: Any = None) -> Answer:
    data = b"" if body is None else msgspec.json.encode(body)
    return await send_as(uid, api, path, data, SIGNED, method=method)


def ago(minutes: float) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()


def timed(body: Any) -> Any:
    """The body with times in place of minutes; it was written when the tests were collected, maybe long ago."""
    samples = body.get("samples") if isinstance(body, dict) else None
    if not isinstance(samples, list):
        return body
    is_late = [isinstance(one, dict) and type(one.get("sampled_at")) is int for one in samples]
    dated = [
        {**one, "sampled_at": ago(one["sampled_at"])} if late else one
        for one, late in zip(samples, is_late, strict=True)
    ]
    return {**body, "samples": dated}


async def test_a_job_from_its_making_to_its_end(api: Served) -> None:
    """What was written is what is read, by the same names."""
    fields: dict[str, Any] = {
        "user_name": "root", "account": "chem", "partition": "p", "qos": "q", "job_name": "naïve = job",
        "comment": "c", "work_dir": "/w", "nodes": "n[1-2],gpu7", "cpus_allocated": 64, "gpus_allocated": 2,
        "memory_limit_bytes": 1 << 40, "time_limit_seconds": 3600, "submit_time": ago(90), "start_time": ago(60),
    }  # fmt: skip
    made = await ask(api, "POST", "/v1/jobs", {"job_id": "manual-lsf-1", **fields}, X_Correlation_Id=ASKED.upper())
    assert (made.status, made.headers["location"]) == (201, "/v1/jobs/manual-lsf-1")
    event = api.intake.events[0]
    assert made.json() == {
        "job_id": "manual-lsf-1", "cluster_name": "c1", "run": 1, "event_id": event.event_id, "seq": 1,
        "durability": "disk", "stored": True,
    }  # fmt: skip
    assert (event.person, event.sent_by, event.source, event.changed_by, event.request_id) == (
        "ada", "uid:0", "lsf-import", Actor.API, ASKED
    )  # fmt: skip
    job = (await ask(api, "GET", "/v1/jobs/manual-lsf-1")).json()
    for name in set(fields) - {"nodes", "submit_time", "start_time"}:
        assert job[name] == fields[name], name
    assert (job["nodes"], job["state"], job["uid"]) == (["n1", "n2", "gpu7"], "running", 0)
    for name in ("submit_time", "start_time"):
        assert datetime.fromisoformat(job[name]) == datetime.fromisoformat(fields[name])
    end = {"state": "failed", "exit_code": 3, "end_time": ago(1), "comment": None}
    assert (await ask(api, "PATCH", "/v1/jobs/manual-lsf-1", end)).status == 200
    job = (await ask(api, "GET", "/v1/jobs/manual-lsf-1")).json()
    assert (job["state"], job["verdict"], job["exit_code"], job["comment"]) == ("failed", "failed", 3, None)
    assert (job["outcome_source"], job["state_confirmed"], job["end_inferred"]) == ("person", True, False)
    assert job["sentence"].endswith("This is people's word, no hook tells of the job.")


async def test_a_withdrawn_job_is_in_no_answer_but_the_trail(api: Served, pool: Any) -> None:
    for name in ("manual-a", "manual-b"):
        await ask(api, "POST", "/v1/jobs", {"job_id": name, "start_time": ago(5), "user_name": "root"})
    gone = await ask(api, "DELETE", "/v1/jobs/manual-a", X_Correlation_Id=ASKED)
    assert (gone.status, gone.json()["stored"]) == (200, True)
    page = (await ask(api, "GET", "/v1/jobs")).json()
    assert ([job["job_id"] for job in page["jobs"]], page["total"]) == (["manual-b"], 1)
    for path in ("/v1/jobs/manual-a", "/v1/jobs/manual-a/metrics"):
        answer = await ask(api, "GET", path)
        assert (answer.status, "was withdrawn at" in answer.json()["message"]) == (404, True)
    for method, body in (("PATCH", {"comment": "x"}), ("DELETE", None)):
        answer = await ask(api, method, "/v1/jobs/manual-a", body)
        assert (answer.status, answer.json()["error"]) == (409, "conflict")
        assert "was withdrawn" in answer.json()["message"]
    taken = await ask(api, "POST", "/v1/jobs", {"job_id": "manual-a"})
    assert (taken.status, taken.json()["details"]) == (409, {"field": "job_id"})
    trail = (await ask(api, "GET", "/v1/jobs/manual-a/audit")).json()["events"]
    assert [(event["event_kind"], event["change_type"]) for event in trail] == [
        ("job_created", "create"),
        ("job_withdrawn", "delete"),
    ]
    assert trail[-1]["job_snapshot"]["state"] == "running"
    found = (await ask(api, "GET", f"/v1/audit?correlation_id={ASKED}")).json()["events"]
    assert [(event["job_id"], event["event_kind"], event["request_id"]) for event in found] == [
        ("manual-a", "job_withdrawn", ASKED)
    ]
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM job_efficiency") == 1
        assert await connection.fetchval("SELECT withdrawn_by FROM jobs_withdrawn") == "ada"


async def test_the_trail_is_found_by_person_and_by_who_sent_it(api: Served) -> None:
    """And a program's word as before."""
    await ask_as(STRANGER_UID, api, "POST", "/v1/jobs", {"job_id": "manual-s"})
    await ask(api, "PATCH", "/v1/jobs/manual-s", {"comment": "x"}, X_Changed_By="root@admin", X_Source="cli")
    for wanted, kinds in (
        ("ada", ["job_created"]),
        (f"uid:{STRANGER_UID}", ["job_created"]),
        ("root@admin", ["job_amended"]),
        ("uid:0", ["job_amended"]),
        ("cli", ["job_amended"]),
        ("api", ["job_created"]),
        ("nobody", []),
    ):
        events = (await ask(api, "GET", f"/v1/audit?changed_by={wanted}")).json()["events"]
        assert [event["event_kind"] for event in events] == kinds, wanted
    mine = (await ask_as(STRANGER_UID, api, "GET", f"/v1/audit?changed_by=uid:{STRANGER_UID}")).json()["events"]
    assert [(event["person"], event["sent_by"]) for event in mine] == [("ada", f"uid:{STRANGER_UID}")]


async def test_a_user_keeps_manual_jobs_of_their_own(api: Served) -> None:
    """Of nobody else's, and still reads their trail when they are withdrawn."""
    root = (await ask(api, "POST", "/v1/jobs", {"start_time": ago(1), "nodes": ["n1"]})).json()["job_id"]
    mine = (await ask_as(STRANGER_UID, api, "POST", "/v1/jobs", {"start_time": ago(1), "nodes": ["n1"]})).json()[
        "job_id"
    ]
    sample = {"samples": [{"sampled_at": ago(0), "cpu_percent": 1}]}
    for job_id, status in ((mine, (200, 201, 200)), (root, (403, 403, 403))):
        answers = [
            await ask_as(STRANGER_UID, api, "PATCH", f"/v1/jobs/{job_id}", {"comment": "x"}),
            await ask_as(STRANGER_UID, api, "POST", f"/v1/jobs/{job_id}/metrics", sample),
            await ask_as(STRANGER_UID, api, "DELETE", f"/v1/jobs/{job_id}"),
        ]
        assert tuple(answer.status for answer in answers) == status
    for path, status in ((f"/v1/jobs/{mine}/audit", 200), (f"/v1/jobs/{root}/audit", 403)):
        assert (await ask_as(STRANGER_UID, api, "GET", path)).status == status
    trail = (await ask_as(STRANGER_UID, api, "GET", "/v1/audit")).json()["events"]
    assert {event["job_id"] for event in trail} == {mine}
    assert len(trail) == 3
    assert (await ask_as(OVERFLOW_UID, api, "POST", "/v1/jobs", {})).status == 403


async def test_over_tcp_it_takes_the_token_for_writing(api: Served) -> None:
    assert (await ask(api, "POST", "/v1/jobs", {}, tcp=True)).status == 401
    assert (await ask(api, "POST", "/v1/jobs", {}, tcp=True, **BEARER)).status == 403  # that for reading
    good = {"Authorization": f"Bearer {WRITE_TOKEN}"}
    made = await ask(api, "POST", "/v1/jobs", {"user_name": "eve"}, tcp=True, **good)
    assert made.status == 201
    job = made.json()["job_id"]
    assert (await ask(api, "PATCH", f"/v1/jobs/{job}", {"comment": "x"}, tcp=True, **good)).status == 200
    assert (await ask(api, "DELETE", f"/v1/jobs/{job}", tcp=True, **good)).status == 200
    assert {event.sent_by for event in api.intake.events} == {"token:http.write_token_file"}


async def test_the_same_request_again_makes_one_event(api: Served) -> None:
    """201, then 200; another word under its id is 409."""
    again = {"Jobtrail_Event_Id": str(uuid.uuid4())}
    answers = [await ask(api, "POST", "/v1/jobs", {"account": "a"}, **again) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert (await ask(api, "POST", "/v1/jobs", {"account": "b"}, **again)).status == 409
    job, last = answers[0].json()["job_id"], {"Jobtrail_Event_Id": str(uuid.uuid4())}
    gone = [await ask(api, "DELETE", f"/v1/jobs/{job}", **last) for _ in range(2)]
    assert [answer.status for answer in gone] == [200, 200]
    assert len(api.intake.events) == 2


async def test_of_a_job_that_hooks_tell_of_people_say_account_and_comment(api: Served) -> None:
    started = {"job_id": 7, "cluster": "c1", "user": "ada", "account": "phys", "node_list": "n1"}
    assert (await api.event("job-started", started)).status == 201
    for field, value in (("partition", "p"), ("state", "failed"), ("end_time", ago(0)), ("nodes", None)):
        refused = await ask(api, "PATCH", "/v1/jobs/7", {"comment": "x", field: value})
        assert (refused.status, refused.json()["details"]) == (409, {"field": field}), field
        assert "people may change account and comment of it" in refused.json()["message"]
    assert (await ask(api, "DELETE", "/v1/jobs/7")).status == 409
    assert (await ask(api, "PATCH", "/v1/jobs/7", {"comment": "x", "account": "chem"})).json()["job_id"] == "slurm-7"
    job = (await ask(api, "GET", "/v1/jobs/7")).json()
    assert (job["comment"], job["account"], job["state"]) == ("x", "chem", "running")
    await ask(api, "PATCH", "/v1/jobs/slurm-7", {"account": None})
    assert (await ask(api, "GET", "/v1/jobs/7")).json()["account"] == "phys"


async def test_samples_that_were_sent_are_read_beside_others(api: Served) -> None:
    """By the names they were sent with; what was not sent is null."""
    await ask(api, "POST", "/v1/jobs", {"job_id": "manual-m", "start_time": ago(30), "nodes": ["n1"]})
    values: dict[str, Any] = dict.fromkeys(job_json.Sample.__struct_fields__[3:], 7) | {"cpu_percent": 12.5}
    samples = [{"sampled_at": ago(0.02), **values}, {"sampled_at": ago(0), "node": "n2", "memory_current_bytes": 9}]
    kept = await ask(api, "POST", "/v1/jobs/manual-m/metrics", {"samples": samples})
    assert (kept.status, kept.json()) == (201, {"stored": 2})
    first, second = (await ask(api, "GET", "/v1/jobs/manual-m/metrics")).json()["samples"]
    assert {name: first[name] for name in values} == values
    assert (first["node"], first["source"], second["node"]) == ("n1", "api:lsf-import", "n2")
    assert (second["memory_current_bytes"], second["cpu_percent"], second["absent"]) == (9, None, None)
    assert len(api.intake.events) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "allowed"),
    [
        ("POST", "/v1/jobs", b"{", "body", "JSON"),
        ("POST", "/v1/jobs", [], "body", "object"),
        ("POST", "/v1/jobs", {"job_id": "slurm-9"}, "job_id", "manual-NAME"),
        ("POST", "/v1/jobs", {"job_id": "manual-Ü"}, "job_id", "small letters"),
        ("POST", "/v1/jobs", {"cluster_name": "a b"}, "cluster_name", "without spaces"),
        ("POST", "/v1/jobs", {"user": "ada"}, "user", "there are user_name, account"),
        ("POST", "/v1/jobs", {"account": "a b"}, "account", "without spaces"),
        ("POST", "/v1/jobs", {"comment": "a\0b"}, "comment", "NUL"),
        ("POST", "/v1/jobs", {"comment": 5}, "comment", "str"),
        ("POST", "/v1/jobs", {"nodes": []}, "nodes", "1 to 65536"),
        ("POST", "/v1/jobs", {"nodes": ["a b"]}, "nodes", "without spaces"),
        ("POST", "/v1/jobs", {"nodes": 5}, "nodes", "n[1-4],gpu7"),
        ("POST", "/v1/jobs", {"cpus_allocated": -1}, "cpus_allocated", ">= 0"),
        ("POST", "/v1/jobs", {"cpus_allocated": 2**31}, "cpus_allocated", "<= 2147483647"),
        ("POST", "/v1/jobs", {"exit_code": 256}, "exit_code", "<= 255"),
        ("POST", "/v1/jobs", {"exit_code": 0, "exit_signal": 9}, "exit_signal", "left out"),
        ("POST", "/v1/jobs", {"state": "done"}, "state", "pending, running, ended"),
        ("POST", "/v1/jobs", {"start_time": "today"}, "start_time", "2026-11-21T08:00:00Z"),
        ("POST", "/v1/jobs", {"start_time": "2026-11-21T08:00:00"}, "start_time", "with its zone"),
        ("POST", "/v1/jobs", {"start_time": "1999-01-01T00:00:00Z"}, "start_time", "2000"),
        ("POST", "/v1/jobs", {"start_time": "2099-01-01T00:00:00Z"}, "start_time", "future"),
        ("POST", "/v1/jobs?dry=1", {}, "dry", "no parameter"),
        ("PATCH", "/v1/jobs/manual-m", {}, "body", "at least one field"),
        ("PATCH", "/v1/jobs/manual-m", {"job_id": "manual-x"}, "job_id", "no field here"),
        ("PATCH", "/v1/jobs/manual-m", {"end_time": "2001-01-01T00:00:00Z"}, "end_time", "before start_time"),
        ("PATCH", "/v1/jobs/manual-M", {"comment": "x"}, "id", "manual-NAME"),
        ("PATCH", "/v1/jobs/manual-m?run=0", {"comment": "x"}, "run", "whole number"),
        ("DELETE", "/v1/jobs/manual-m", {"comment": "x"}, "body", "empty"),
        ("POST", "/v1/jobs/manual-m/metrics", {"samples": []}, "samples", "1 to 1000"),
        ("POST", "/v1/jobs/manual-m/metrics", {"samples": [5]}, "samples[0]", "object"),
        ("POST", "/v1/jobs/manual-m/metrics", {"samples": [{}]}, "samples[0].sampled_at", "2026-11-21"),
        ("POST", "/v1/jobs/manual-m/metrics", {"samples": [{"sampled_at": 0}]}, "samples[0]", "no value"),
        ("POST", "/v1/jobs/manual-m/metrics", {"samples": [{"sampled_at": 0, "cpu": 1}]}, "samples[0].cpu", "cpu"),
        ("POST", "/v1/jobs/manual-m/metrics", {"samples": [{"sampled_at": 0, "threads": "1"}]},
         "samples[0].threads", "int"),
        ("POST", "/v1/jobs/manual-m/metrics", {"samples": [{"sampled_at": 0, "threads": 1, "node": ""}]},
         "samples[0].node", "visible"),
        ("POST", "/v1/jobs/manual-m/metrics", {"samples": [{"sampled_at": -9, "threads": 1}]},
         "samples[0].sampled_at", "future"),
        ("POST", "/v1/jobs/manual-m/metrics", {"samples": [{"sampled_at": 999, "threads": 1}]},
         "samples[0].sampled_at", "before the job's start"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named_with_the_allowed_form(
    api: Served, method: str, path: str, body: Any, field: str, allowed: str
) -> None:
    await ask(api, "POST", "/v1/jobs", {"job_id": "manual-m", "start_time": ago(30), "nodes": ["n1"]})
    answer = await ask(api, method, path, timed(body))
    assert (answer.status, answer.json()["error"]) == (400, "validation_error")
    assert answer.json()["details"] == {"field": field}
    assert allowed in answer.json()["message"]
    assert len(api.intake.events) == 1


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X_Changed_By", ""),
        ("X_Changed_By", "two words"),
        ("X_Source", ""),
        ("X_Source", "Capital"),
        ("X_Correlation_Id", "7"),
        ("Jobtrail_Event_Id", "7"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/jobs"), ("PATCH", "/v1/jobs/1"), ("DELETE", "/v1/jobs/1"), ("POST", "/v1/jobs/1/metrics")],
)
async def test_every_write_says_who_makes_it_and_with_what(
    tmp_path: Path, method: str, path: str, header: str, value: str
) -> None:
    async with served(tmp_path) as api:
        answer = await ask(api, method, path, {}, **{header: value})
    assert (answer.status, answer.json()["details"]) == (400, {"field": header.replace("_", "-")})


async def test_a_job_nobody_has_is_404_and_a_body_too_large_413(api: Served) -> None:
    for method, path, body in (
        ("PATCH", "/v1/jobs/manual-none", {"comment": "x"}),
        ("DELETE", "/v1/jobs/manual-none", None),
        ("PATCH", "/v1/jobs/5_3", {"comment": "x"}),
    ):
        assert (await ask(api, method, path, body)).status == 404
    large = {"comment": "x" * (1 << 20)}
    assert (await ask(api, "POST", "/v1/jobs", large)).status == 413
    assert api.intake.events == []


async def test_without_a_database_a_job_is_made_and_none_is_changed(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        made = await ask(api, "POST", "/v1/jobs", {"account": "a"})
        assert (made.status, made.json()["stored"]) == (201, False)
        assert (await ask(api, "POST", "/v1/jobs", {"job_id": "manual-a"})).status == 503
        for method, body in (("PATCH", {"comment": "x"}), ("DELETE", None)):
            assert (await ask(api, method, "/v1/jobs/manual-a", body)).status == 503


def test_the_described_fields_are_those_that_are_taken() -> None:
    """With their limits."""
    schemas = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))["components"]["schemas"]
    described = {
        job_json.JobFields: schemas["JobFields"]["properties"],
        job_json.NewJob: schemas["NewJob"]["properties"],
        job_json.Sample: schemas["PostedSamples"]["properties"]["samples"]["items"]["properties"],
    }
    for kind, theirs in described.items():
        ours = msgspec.json.schema(kind)["$defs"]
        fields = ours[kind.__name__]["properties"]
        assert set(theirs) == set(fields)
        for name, limits in theirs.items():
            choices = fields[name].get("anyOf", [fields[name]])
            for limit in ("minimum", "maximum"):
                if limit in limits:
                    checked = [int(choice[limit]) for choice in choices if limit in choice]
                    assert checked == [limits[limit]], (name, limit)
    items = schemas["PostedSamples"]["properties"]["samples"]
    assert (items["minItems"], items["maxItems"]) == (1, job_json.MAX_SAMPLES)

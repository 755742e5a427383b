"""Bad input through real sockets: 4xx naming what is wrong, nothing stored but a counter, never a 5xx, memory flat."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.served_api import (
    HOOK_PATH,
    PROLOG,
    Answer,
    Served,
    hook_headers,
    parse_answer,
    read_all,
    request_bytes,
    served,
)

GROWTH_BYTES = 24 * 1024 * 1024
ROUNDS = 25


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as one:
        yield one


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[asyncio.Runner]:
    """A loop for tests whose function hypothesis calls many times."""
    with asyncio.Runner() as one:
        yield one


def refused(api: Served, answer: Answer, status: int, field: str | None) -> None:
    """The refusal is named, told once, and nothing was stored."""
    assert (answer.status, answer.json()["details"].get("field")) == (status, field), answer.body
    assert len(api.rejections) == 1
    assert api.intake.events == []


BODIES = {
    "empty": (b"", "body"),
    "one nul": (b"\0", "body"),
    "nul flood": (b"\0" * 1_000_000, "body"),
    "text": (b"hello world", "body"),
    "json": (b'{"SLURM_JOB_ID": 1}', "body"),
    "env by lines": (b"SLURM_JOB_ID=1\nSLURMD_NODENAME=n1\n", "SLURM_JOB_ID"),
    "no job id": (b"SLURMD_NODENAME=n1\0SLURM_CLUSTER_NAME=lab\0", "SLURM_JOB_ID"),
    "job id is a word": (PROLOG.replace(b"17", b"abc"), "SLURM_JOB_ID"),
    "job id is negative": (PROLOG.replace(b"17", b"-1"), "SLURM_JOB_ID"),
    "job id is huge": (PROLOG.replace(b"17", b"9" * 5000), "SLURM_JOB_ID"),
    "job id is quoted": (PROLOG.replace(b"17", b"1'; DROP TABLE jobs; --"), "SLURM_JOB_ID"),
    "two job ids": (PROLOG + b"SLURM_JOB_ID=18\0", "SLURM_JOB_ID"),
    "job ids differ": (PROLOG + b"SLURM_JOBID=18\0", "SLURM_JOBID"),
    "no node": (b"SLURM_JOB_ID=17\0SLURM_CLUSTER_NAME=lab\0", "SLURMD_NODENAME"),
    "no cluster": (b"SLURM_JOB_ID=17\0SLURMD_NODENAME=n1\0", "SLURM_CLUSTER_NAME"),
    "node list bomb": (PROLOG + b"SLURM_NODELIST=n[1-999999999]\0", "SLURM_NODELIST"),
    "node list with fields": (PROLOG + b"SLURM_NODELIST=n[1-9999][1-9999][1-9999]\0", "SLURM_NODELIST"),
    "too many records": (PROLOG + b"".join(b"A%d=\0" % number for number in range(1000)), "body"),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_hooks_body_that_is_no_environment(api: Served, name: str) -> None:
    """400 naming the variable."""
    body, field = BODIES[name]
    refused(api, await api.hook(body), 400, field)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Jobtrail_Event_Id", ""),
        ("Jobtrail_Event_Id", "1"),
        ("Jobtrail_Event_Id", str(uuid.uuid4()) + "0"),
        ("Jobtrail_Event_Id", str(uuid.uuid4()).replace("-", "")),
        ("Jobtrail_Event_Id", "{" + str(uuid.uuid4()) + "}"),
        ("Jobtrail_Event_Id", "../../../../etc/passwd-xxxxxxxxxxxxxx"),
        ("Jobtrail_Event_Time", ""),
        ("Jobtrail_Event_Time", "now"),
        ("Jobtrail_Event_Time", "0"),
        ("Jobtrail_Event_Time", "-1"),
        ("Jobtrail_Event_Time", "946684799.999999999"),
        ("Jobtrail_Event_Time", "4102444800"),
        ("Jobtrail_Event_Time", "9" * 500),
        ("Jobtrail_Event_Time", "1795224968.1234567890"),
        ("Jobtrail_Event_Time", "1.7e9"),
        ("Jobtrail_Event_Time", "1795224968."),
        ("Jobtrail_Event_Time", "\xb9795224968"),
    ],
)
async def test_absurd_headers(api: Served, name: str, value: str) -> None:
    """400 naming the header, whether it is missing or no uuid, no time, or a time out of all reason."""
    headers: dict[str, Any] = {name: value}
    refused(api, await api.hook(**headers), 400, name.replace("_", "-"))


async def test_a_header_given_twice(api: Served) -> None:
    """Which one counts is not guessed."""
    data = request_bytes("POST", HOOK_PATH, PROLOG, {**hook_headers(), "jobtrail-event-id": str(uuid.uuid4())})
    _, _, rest = data.partition(b"\r\n")
    answer = parse_answer(await api.raw(b"POST " + HOOK_PATH.encode() + b" HTTP/1.1\r\nConnection: close\r\n" + rest))
    refused(api, answer, 400, "Jobtrail-Event-Id")


@pytest.mark.parametrize("hook", ["task-epilog", "prolog.sh", "..%2f..", "PROLOG", "%00", "a" * 4000, "%C3%A9pilogue"])
async def test_an_unknown_hook(api: Served, hook: str) -> None:
    """404 naming the known ones."""
    answer = await api.hook(path=f"/v1/hooks/slurm/{hook}")
    refused(api, answer, 404, "hook")
    assert answer.json()["details"]["known"] == ["prolog", "epilog", "prolog-slurmctld", "epilog-slurmctld"]
    assert api.rejections == ["unknown_hook"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", HOOK_PATH, 405),
        ("PUT", "/v1/events/job-started", 405),
        ("POST", "/metrics", 405),
        ("DELETE", "/", 405),
        ("GET", "/v1/nowhere", 404),
        ("POST", "/v1/hooks/slurm/", 404),
        ("POST", "/v1/hooks/slurm/a/b", 404),
        ("GET", "/%ff%fe", 404),
        ("BREW", "/coffee", 400),
    ],
)
async def test_nothing_is_there(api: Served, method: str, path: str, status: int) -> None:
    """404 and 405 (with Allow) in the shape of every other error."""
    answer = await api.request(method, path)
    assert (answer.status, "allow" in answer.headers) == (status, status == 405)
    assert set(answer.json()) == {"error", "message", "details"}
    assert len(api.rejections) == (method != "GET")  # who only reads loses no event


STARTED = "job-started"
FINISHED = "job-finished"
JSON_EVENTS: dict[str, tuple[str, bytes | dict[str, Any], str]] = {
    "empty": (STARTED, b"", "body"),
    "no json": (STARTED, b"job_id=1", "body"),
    "cut off": (STARTED, b'{"job_id": 1', "body"),
    "two values": (STARTED, b'{"job_id": 1} {"job_id": 2}', "body"),
    "a list": (STARTED, b"[]", "body"),
    "latin-1": (STARTED, b'{"job_id": 1, "user": "caf\xe9"}', "body"),
    "lone surrogate": (STARTED, b'{"job_id": 1, "user": "\\ud800"}', "body"),
    "not a number": (STARTED, b'{"job_id": 1, "cpu_allocation": NaN}', "body"),
    "deep": (STARTED, b'{"job_id": 1, "node_list": ' + b"[" * 200_000, "node_list"),
    "deep in unknown": (STARTED, b'{"job_id": 1, "x": ' + b'{"a":' * 200_000, "x"),
    "nul": (STARTED, {"job_id": 1, "job_name": "a\0b"}, "job_name"),
    "nul in a list": (STARTED, {"job_id": 1, "command": ["a", "\0"]}, "command"),
    "unknown field": (STARTED, {"job_id": 1, "colour": "red"}, "colour"),
    "field of the other event": (STARTED, {"job_id": 1, "exit_code": 0}, "exit_code"),
    "no job id": (STARTED, {}, "job_id"),
    "job id 0": (STARTED, {"job_id": 0}, "job_id"),
    "job id is a float": (STARTED, {"job_id": 1.5}, "job_id"),
    "job id is true": (STARTED, {"job_id": True}, "job_id"),
    "job id is huge": (STARTED, b'{"job_id": ' + b"9" * 5000 + b"}", "job_id"),
    "job id beyond 32 bits": (STARTED, {"job_id": 2**32}, "job_id"),
    "job id with a sign": (STARTED, {"job_id": "slurm-+1"}, "job_id"),
    "job id of another kind": (STARTED, {"job_id": "pbs-1"}, "job_id"),
    "cpus are a word": (STARTED, {"job_id": 1, "cpu_allocation": "four"}, "cpu_allocation"),
    "cpus are none": (STARTED, {"job_id": 1, "cpu_allocation": 0}, "cpu_allocation"),
    "memory is huge": (STARTED, {"job_id": 1, "memory_allocation_mb": 2**60}, "memory_allocation_mb"),
    "gpus differ": (STARTED, {"job_id": 1, "gpu_allocation": 2, "gpu_devices": ["0"]}, "gpu_allocation"),
    "relative cgroup": (STARTED, {"job_id": "local-1", "cgroup_path": "sys/fs"}, "cgroup_path"),
    "climbing cgroup": (STARTED, {"job_id": "local-1", "cgroup_path": "/sys/fs/cgroup/../../etc"}, "cgroup_path"),
    "ticks of nobody": (STARTED, {"job_id": "local-1", "root_pid_start_ticks": 1}, "root_pid"),
    "node list bomb": (STARTED, {"job_id": 1, "node_list": "n[1-999999999]"}, "node_list"),
    "nodes are numbers": (STARTED, {"job_id": 1, "node_list": [1]}, "node_list"),
    "node with a space": (STARTED, {"job_id": 1, "node": "a b"}, "node"),
    "node with a newline": (STARTED, {"job_id": 1, "node": "a\n"}, "node"),
    "cluster too long": (STARTED, {"job_id": 1, "cluster": "c" * 256}, "cluster"),
    "cluster unknown": (STARTED, {"job_id": 1}, "cluster"),
    "source with a quote": (STARTED, {"job_id": 1, "source": "a'b"}, "source"),
    "name too long": (STARTED, {"job_id": 1, "job_name": "j" * 5000}, "job_name"),
    "time without a zone": (STARTED, {"job_id": 1, "timestamp": "2026-11-21T10:00:00"}, "timestamp"),
    "time is a word": (STARTED, {"job_id": 1, "timestamp": "now"}, "timestamp"),
    "time long ago": (STARTED, {"job_id": "local-1", "timestamp": "1999-12-31T23:59:59Z"}, "timestamp"),
    "time far ahead": (STARTED, {"job_id": "local-1", "timestamp": "2100-01-01T00:00:00Z"}, "timestamp"),
    "time of year one": (STARTED, {"job_id": "local-1", "timestamp": "0001-01-01T00:00:00+23:59"}, "timestamp"),
    "unknown state": (FINISHED, {"job_id": "local-1", "final_state": "done"}, "final_state"),
    "exit code 256": (FINISHED, {"job_id": "local-1", "exit_code": 256}, "exit_code"),
    "signal 0": (FINISHED, {"job_id": "local-1", "signal": 0}, "signal"),
    "signal 65": (FINISHED, {"job_id": "local-1", "signal": 65}, "signal"),
    "code and signal": (FINISHED, {"job_id": "local-1", "exit_code": 1, "signal": 9}, "signal"),
}


@pytest.mark.parametrize("name", JSON_EVENTS)
async def test_a_json_event_that_is_none(api: Served, name: str) -> None:
    """400 naming the field."""
    kind, body, field = JSON_EVENTS[name]
    refused(api, await api.event(kind, body), 400, field)


async def test_a_second_event_under_an_id(api: Served) -> None:
    """409; the first one stands."""
    identity = str(uuid.uuid4())
    assert (await api.hook(Jobtrail_Event_Id=identity)).status == 201
    answer = await api.hook(PROLOG.replace(b"17", b"18"), Jobtrail_Event_Id=identity)
    assert (answer.status, answer.json()["details"]["field"]) == (409, "Jobtrail-Event-Id")
    assert [event.job_id for event in api.intake.events] == ["slurm-17"]


async def test_two_mebibytes(api: Served) -> None:
    """413 at the default limit of 1 MiB."""
    answer = await api.hook(PROLOG + b"X=" + b"y" * 2 * 1024 * 1024)
    assert (answer.status, answer.json()["details"], api.intake.events) == (413, {"limit_bytes": 1024 * 1024}, [])


token = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=40)
requests = st.builds(
    request_bytes,
    method=st.sampled_from(["POST", "GET", "PUT", "X"]),
    path=st.one_of(
        st.sampled_from([HOOK_PATH, "/v1/events/job-started", "/v1/events/job-finished", "/metrics"]),
        st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=30).map(lambda text: f"/{text}"),
    ),
    body=st.one_of(st.binary(max_size=200), st.just(PROLOG), st.just(b'{"job_id": "local-1"}')),
    headers=st.fixed_dictionaries(
        {"Connection": st.just("close")},
        optional={
            "Jobtrail-Event-Id": st.one_of(token, st.uuids().map(str)),
            "Jobtrail-Event-Time": st.one_of(token, st.decimals(0, 5_000_000_000, places=3).map(str)),
            "Content-Type": token,
            "Content-Encoding": token,
            "Content-Length": st.one_of(token, st.integers(-2, 300).map(str)),
            "Transfer-Encoding": st.one_of(token, st.just("chunked")),
            "Expect": token,
            "Upgrade": token,
            "X-Any": token,
        },
    ),
)
hypothesis_settings = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def statuses(received: bytes) -> list[int]:
    """Statuses of all answers in a connection's bytes."""
    lines = [line for line in received.split(b"\r\n") if line.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))]
    return [int(line.split()[1]) for line in lines]


def exchange(runner: asyncio.Runner, directory: Path, sent: list[bytes]) -> None:
    """Send each on a connection of its own: no answer is a 5xx, and the daemon still serves afterwards."""

    async def all_of_them() -> None:
        async with served(directory, header_timeout_seconds=0.3, body_timeout_seconds=0.3) as api:
            received = await asyncio.gather(*(api.raw(data, half_close=True) for data in sent))
            assert max((status for data in received for status in statuses(data)), default=0) < 500, received
            status = 408  # a machine that stalls is too slow for the third of a second that a request may take here
            for _ in range(20):
                if status == 408:
                    status = (await api.hook()).status
            assert status == 201

    runner.run(all_of_them())


@hypothesis_settings
@given(sent=st.lists(requests, min_size=1, max_size=8))
@example(sent=[request_bytes("OPTIONS", "*", b"", {})])
def test_any_request_gets_an_answer_below_500(runner: asyncio.Runner, tmp_path: Path, sent: list[bytes]) -> None:
    """Whatever its headers and body."""
    exchange(runner, tmp_path, sent)


@hypothesis_settings
@given(sent=st.lists(st.one_of(st.binary(max_size=300), requests.map(lambda data: data[::-1])), min_size=1, max_size=8))
def test_any_bytes_get_an_answer_below_500(runner: asyncio.Runner, tmp_path: Path, sent: list[bytes]) -> None:
    """Also what is no request at all."""
    exchange(runner, tmp_path, sent)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@hypothesis_settings
@given(
    fields=st.dictionaries(
        st.sampled_from(
            ["job_id", "user", "node_list", "cpu_allocation", "memory_allocation_mb", "gpu_devices", "gpu_allocation",
             "cgroup_path", "root_pid", "command", "timestamp", "node", "cluster", "source", "exit_code", "signal",
             "final_state"]
        ),
        json_values,
        max_size=5,
    ),
    kind=st.sampled_from(["job-started", "job-finished"]),
)  # fmt: skip
def test_any_json_is_an_event_or_400(runner: asyncio.Runner, tmp_path: Path, fields: dict[str, Any], kind: str) -> None:
    """What the wrong type is, and where, is the sender's to mend."""
    import json

    body = json.dumps({"job_id": "local-1", **fields}).encode()
    exchange(runner, tmp_path, [request_bytes("POST", f"/v1/events/{kind}", body, {"Connection": "close"})])


def resident_bytes() -> int:
    """Memory of this process, from /proc/self/statm (proc(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _volley(api: Served) -> int:
    """One of each kind of bad request; how many were refused."""
    bad = [body for body, _ in BODIES.values()]
    bodies = [await api.hook(body) for body in bad]
    large = [await api.hook(b"x" * 2_000_000), await api.hook(b"\x1f\x8b" + b"\0" * 900_000, Content_Encoding="gzip")]
    events = [await api.event(kind, body) for kind, body, _ in JSON_EVENTS.values()]
    reader, writer = await api.unix()
    writer.write(b"\0" * 500_000)
    rubbish = parse_answer(await read_all(reader))
    writer.close()
    answers = [*bodies, *large, *events, rubbish]
    assert all(400 <= answer.status < 500 for answer in answers)
    return len(answers)


async def test_memory_stays_flat(api: Served) -> None:
    """Thousands of bad requests, some of them large, leave nothing behind."""
    for _ in range(3):
        await _volley(api)
    before = resident_bytes()
    sent = sum([await _volley(api) for _ in range(ROUNDS)])
    api.facts.clear()
    assert sent > 1500
    assert resident_bytes() - before < GROWTH_BYTES
    assert api.intake.events == []

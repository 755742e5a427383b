"""POST /v1/benchmarks/runs and …/decisions: who may, what it becomes, and what it never does to others."""

import asyncio
import sys
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.http.benchmark_posts import BODY_SECONDS, MAX_DECISION_BYTES, MOST_AT_ONCE
from jobtrail.core.benchmarks.shares import BURST
from jobtrail.core.facts import EventRejected
from jobtrail.domain.benchmarks.report import BaselineDecision, Decision, report_event_id
from jobtrail.domain.benchmarks.submitted import MAX_REPORT_BYTES
from jobtrail.domain.errors import EventConflict, SpoolBroken, SpoolFull
from jobtrail.domain.events import Actor, EventKind
from tests.adapters.benchmark_runs import UID, ScriptedRuns
from tests.adapters.test_http_pokes import POKE, poke
from tests.adapters.test_http_senders import CLIENT, OVERFLOW_UID, SLURM_UID, STRANGER_UID, reachable
from tests.adapters.test_http_tokens import OTHER, TOKEN, write
from tests.benchmark_reports import claim, report
from tests.benchmark_reports import uid as run_uid
from tests.served_api import Answer, Served, hang_up, parse_answer, read_all, request_bytes, served

__all__ = ["reachable"]
PATH = "/v1/benchmarks/runs"
DECISIONS = f"{PATH}/{UID}/decisions"


def body(**fields: Any) -> bytes:
    return msgspec.json.encode(report(**fields))


async def send_as(uid: int, socket: str, path: str, sent: bytes, headers: dict[str, str] | None = None) -> Answer:
    """One POST by a process of user `uid`, through the mode that the socket really has."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, socket, str(uid),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    data = request_bytes("POST", path, sent, {"Connection": "close", **(headers or {})})
    out, errors = await asyncio.wait_for(child.communicate(data), 30)
    assert child.returncode == 0, errors.decode()
    return parse_answer(out)


async def test_an_ordinary_users_report_is_theirs(reachable: Path) -> None:
    """Whatever it says of its user; the same bytes again are the same event."""
    forged = msgspec.json.encode({**msgspec.to_builtins(report()), "uid": 0, "user_name": "root", "from_job": True})
    async with served(reachable) as api:
        first = await send_as(STRANGER_UID, api.settings.poke_socket, PATH, forged)
        again = await send_as(STRANGER_UID, api.settings.poke_socket, PATH, forged)
        daemon = await send_as(1, api.settings.poke_socket, PATH, body(number=2))
    assert [first.status, again.status, daemon.status] == [201, 200, 201]
    assert first.json() == again.json()
    event, named = api.intake.events
    assert (event.kind, event.event_id) == (EventKind.BENCHMARK_RECORDED, report_event_id(run_uid(1), forged))
    assert first.json() == {"event_id": event.event_id, "seq": 1, "durability": "disk"}
    assert (event.changed_by, event.source, event.node, event.cluster, event.job_id) == (
        Actor.API, "bench", "n1", "lab", None
    )  # fmt: skip
    assert event.benchmark == msgspec.structs.replace(report(), uid=STRANGER_UID)
    assert named.benchmark is not None
    assert (named.benchmark.uid, named.benchmark.user_name) == (1, "daemon")


async def test_a_report_from_the_users_open_job_says_so(reachable: Path) -> None:
    claims = (claim("local-7", cluster="local"),)
    async with served(reachable, local_scheduler=True) as api:
        started = msgspec.json.encode({"job_id": "local-7", "node": "n1"})
        Path(api.settings.socket).chmod(0o666)
        assert (await send_as(STRANGER_UID, api.settings.socket, "/v1/events/job-started", started)).status == 201
        for uid, number in ((STRANGER_UID, 1), (SLURM_UID, 2), (0, 3)):
            sent = body(number=number, jobs=claims)
            assert (await send_as(uid, api.settings.poke_socket, PATH, sent)).status == 201
    told = [event.benchmark.from_job for event in api.intake.events if event.benchmark is not None]
    assert told == [True, False, False]


async def test_it_comes_in_on_both_sockets_and_not_over_tcp(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        assert (await api.request("POST", PATH, body())).status == 201
        assert (await poke(api, PATH, body(number=2))).status == 201
        answer = await api.request("POST", PATH, body(number=3), tcp=True)
        assert (answer.status, answer.json()["error"]) == (403, "forbidden")
        answer = await api.request("POST", DECISIONS, b'{"decision": "pin"}', tcp=True)
        assert (answer.status, answer.json()["error"]) == (403, "forbidden")
    assert len(api.intake.events) == 2


async def test_a_user_nobody_knows_is_refused(reachable: Path) -> None:
    async with served(reachable) as api:
        answer = await send_as(OVERFLOW_UID, api.settings.poke_socket, PATH, body())
        assert (answer.status, answer.json()["error"]) == (403, "forbidden")


@pytest.mark.parametrize("socket", ["users", "hooks"])
async def test_up_to_a_mebibyte_comes_in_although_a_poke_is_small(tmp_path: Path, socket: str) -> None:
    """Announced or in chunks; and a poke on the same socket is held to its own bound."""
    large = body(argv=tuple("x" * 4000 for _ in range(250)))
    assert 1_000_000 < len(large) < MAX_REPORT_BYTES
    padded = body(number=2) + b" " * (MAX_REPORT_BYTES + 1)
    async with served(tmp_path) as api:
        path = api.settings.poke_socket if socket == "users" else api.settings.socket
        assert (await send(path, request_bytes("POST", PATH, large, {"Connection": "close"}))).status == 201
        answer = await send(path, request_bytes("POST", PATH, padded, {"Connection": "close"}))
        assert (answer.status, answer.json()["details"]) == (413, {"limit_bytes": MAX_REPORT_BYTES})
        chunk = b"%x\r\n%s\r\n" % (len(padded), padded)
        head = request_bytes("POST", PATH, b"", {"Connection": "close", "Transfer-Encoding": "chunked"})
        assert (await send(path, head + chunk + b"0\r\n\r\n")).status == 413
        assert (await poke(api, body=POKE + b"x" * 5000)).status == 413
    assert len(api.intake.events) == 1


async def send(path: str, data: bytes) -> Answer:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    said = await asyncio.wait_for(read_all(reader), 10)
    await hang_up(writer)
    return parse_answer(said)


@pytest.mark.parametrize(
    ("sent", "field", "allowed"),
    [
        (b"{", "body", "must be JSON"),
        (b"[" * 100_000, "body", "must not nest"),
        (body().replace(b'"tool"', b'"toll"', 1), "toll", "is not known"),
        (body().replace(b"output_token_throughput", b"speed"), "repeats[0].result.measurements[0].metric", "'speed'"),
        (body().replace(b'"p50"', b'"p5x"'), "repeats[0].result.measurements[3].stat", "'p5x' is no statistic"),
        (body(started_us=4_102_444_800_000_000), "started_us", "between the years 2000 and 2100"),
        (body(run_uid="1"), "run_uid", "must be a UUID"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_held(
    tmp_path: Path, sent: bytes, field: str, allowed: str
) -> None:
    async with served(tmp_path) as api:
        answer = await poke(api, PATH, sent)
        assert (answer.status, answer.json()["error"]) == (400, "validation_error")
        assert answer.json()["details"] == {"field": field}
        assert allowed in answer.json()["message"]
    assert (api.intake.events, api.facts) == ([], [])


async def test_its_id_is_the_bytes_own(tmp_path: Path) -> None:
    right = report_event_id(run_uid(1), body())
    async with served(tmp_path) as api:
        for identity, status in ((str(uuid.uuid4()), 400), ("x", 400), (right, 201), (right.upper(), 200)):
            answer = await poke(api, PATH, body(), **{"Jobtrail-Event-Id": identity})
            assert answer.status == status
            assert status != 400 or answer.json()["details"] == {"field": "Jobtrail-Event-Id"}


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [(EventConflict("e"), 409, None), (SpoolFull(1000, 30), 503, "30"), (SpoolBroken("disk"), 503, "5")],
)
async def test_what_the_spool_cannot_take_is_told(
    tmp_path: Path, error: Exception, status: int, retry: str | None
) -> None:
    async with served(tmp_path) as api:
        api.intake.error = error
        answer = await poke(api, PATH, body())
        assert (answer.status, answer.headers.get("retry-after")) == (status, retry)


async def test_the_last_of_the_spool_is_for_hooks(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        api.spool_bytes = 950
        answer = await poke(api, PATH, body())
        assert (answer.status, answer.headers["retry-after"]) == (503, "30")
        assert (await api.hook()).status == 201


async def test_a_user_has_a_share(reachable: Path) -> None:
    """A burst, then 429 with when to come again; others are not held up, and root has none."""
    flood = """
import os, socket, sys
os.chdir(os.path.dirname(sys.argv[1]))
os.setresuid(int(sys.argv[2]), int(sys.argv[2]), int(sys.argv[2]))
request, states = sys.stdin.buffer.read(), []
for _ in range(int(sys.argv[3])):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(os.path.basename(sys.argv[1]))
        peer.sendall(request)
        states.append(b"".join(iter(lambda: peer.recv(65536), b"")))
statuses = [int(state.split()[1]) for state in states]
print(statuses)
sys.stdout.flush()
sys.stdout.buffer.write(states[statuses.index(429)] if 429 in statuses else b"")
"""
    request = request_bytes("POST", PATH, body(), {"Connection": "close"})
    async with served(reachable) as api:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", flood, api.settings.poke_socket, str(STRANGER_UID), str(3 * BURST),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(child.communicate(request), 60)
        states, _, last = out.partition(b"\n")
        statuses = msgspec.json.decode(states)
        assert statuses[:BURST] == [201] + [200] * (BURST - 1)
        assert 429 in statuses[BURST:]  # not the last: a share grows again while the machine stands still
        answer = parse_answer(last)
        assert (answer.json()["error"], answer.headers["retry-after"]) == ("too_many_requests", "1")
        assert (await send_as(SLURM_UID, api.settings.poke_socket, PATH, body(number=2))).status == 201
        assert [(await poke(api, PATH, body(number=3))).status for _ in range(BURST + 5)][-1] == 200
    assert api.facts == []


async def test_a_user_has_one_report_taken_at_a_time(reachable: Path) -> None:
    """A second one is told to wait; others are not held up."""
    async with served(reachable) as api:
        api.intake.gate = asyncio.Event()
        waiting = asyncio.create_task(send_as(STRANGER_UID, api.settings.poke_socket, PATH, body()))
        await asyncio.wait_for(api.intake.entered.wait(), 20)
        answer = await send_as(STRANGER_UID, api.settings.poke_socket, PATH, body(number=2))
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        other = asyncio.create_task(send_as(SLURM_UID, api.settings.poke_socket, PATH, body(number=3)))
        api.intake.gate.set()
        assert [(await one).status for one in (waiting, other)] == [201, 201]
        assert (await send_as(STRANGER_UID, api.settings.poke_socket, PATH, body())).status == 200


async def test_who_sends_slowly_is_given_up_and_holds_up_no_poke(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        reader, writer = await asyncio.open_unix_connection(api.settings.poke_socket)
        writer.write(request_bytes("POST", PATH, b"", {"Content-Length": "100"}) + b"{")
        assert (await poke(api)).status == 200
        said = await asyncio.wait_for(read_all(reader), 4 * BODY_SECONDS)
        await hang_up(writer)
        assert b" 408 " in said.partition(b"\r\n")[0]
    assert api.intake.events == []


async def test_only_so_many_users_reports_are_read_at_a_time(reachable: Path) -> None:
    """The others are told to come again, and a poke is answered all the same. Root waits for nobody."""
    async with served(reachable) as api:
        api.intake.gate = asyncio.Event()
        first = [
            asyncio.create_task(send_as(STRANGER_UID + n, api.settings.poke_socket, PATH, body(number=n + 1)))
            for n in range(MOST_AT_ONCE)
        ]
        while api.intake.waiting < MOST_AT_ONCE:
            api.intake.entered.clear()
            await asyncio.wait_for(api.intake.entered.wait(), 20)
        answer = await send_as(1, api.settings.poke_socket, PATH, body(number=50))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert (await poke(api)).status == 200
        root = asyncio.create_task(poke(api, PATH, body(number=51)))
        api.intake.gate.set()
        assert [(await one).status for one in (*first, root)] == [201] * (MOST_AT_ONCE + 1)


async def test_a_refusal_on_the_hooks_socket_is_told_as_any_there(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        assert (await api.request("POST", PATH, b"{}")).status == 400
    assert [fact.reason for fact in api.facts if isinstance(fact, EventRejected)] == ["invalid"]


async def decide_as(uid: int, api: Served, sent: bytes, path: str = DECISIONS, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await send_as(uid, api.settings.poke_socket, path, sent, named)


async def test_a_decision_is_its_users_roots_and_slurms(reachable: Path) -> None:
    """Recorded with the kernel's word on who made it, whatever a header says."""
    async with served(reachable, benchmarks=ScriptedRuns(owner=1), trusted_uids=frozenset({SLURM_UID})) as api:
        answer = await decide_as(1, api, b'{"decision": "pin", "note": "release"}', X_Changed_By="root")
        assert answer.status == 201
        assert answer.json()["event_id"] == api.intake.events[0].event_id
        path = f"{PATH}/{UID[:8].upper()}/decisions"
        assert (await decide_as(0, api, b'{"decision": "unpin"}', path, X_Source="portal")).status == 201
        assert (await decide_as(SLURM_UID, api, b'{"decision": "accept"}')).status == 201
        refused = await decide_as(STRANGER_UID, api, b'{"decision": "pin"}')
        assert (refused.status, refused.json()["error"]) == (403, "forbidden")
    first, second, third = api.intake.events
    assert first.baseline == BaselineDecision(run_uid=UID, decision=Decision.PIN, by="daemon")
    assert (first.kind, first.note, first.source) == (EventKind.BASELINE_DECIDED, "release", "bench")
    assert second.baseline == BaselineDecision(run_uid=UID, decision=Decision.UNPIN, by="root")
    assert (second.note, second.source) == (None, "portal")
    assert third.baseline is not None
    assert third.baseline.by == str(SLURM_UID)


async def test_a_decision_about_a_run_that_nobody_reported_is_roots(reachable: Path) -> None:
    async with served(reachable, benchmarks=ScriptedRuns(owner=None)) as api:
        assert (await decide_as(STRANGER_UID, api, b'{"decision": "pin"}')).status == 403
        assert (await decide_as(0, api, b'{"decision": "pin"}')).status == 201


@pytest.mark.parametrize("status", ["failed", "invalid"])
async def test_a_run_that_is_not_ok_becomes_no_reference(tmp_path: Path, status: str) -> None:
    """One that was pinned before can be let go."""
    async with served(tmp_path, benchmarks=ScriptedRuns(status=status)) as api:
        for word in (b"pin", b"accept"):
            answer = await poke(api, DECISIONS, b'{"decision": "%s"}' % word)
            assert (answer.status, answer.json()["details"]["field"]) == (400, "decision")
            assert f"{UID} is {status}" in answer.json()["message"]
        assert (await poke(api, DECISIONS, b'{"decision": "unpin"}')).status == 201
    assert len(api.intake.events) == 1


async def test_a_decision_sent_again_is_the_same(tmp_path: Path) -> None:
    identity = str(uuid.uuid4())
    async with served(tmp_path, benchmarks=ScriptedRuns()) as api:
        for sent, status in (
            (b'{"decision":"pin"}', 201),
            (b'{"decision":"pin"}', 200),
            (b'{"decision":"unpin"}', 409),
        ):
            assert (await poke(api, DECISIONS, sent, **{"Jobtrail-Event-Id": identity})).status == status


@pytest.mark.parametrize(
    ("path", "sent", "headers", "status", "field"),
    [
        (DECISIONS, b"{}", {}, 400, "body"),
        (DECISIONS, b'{"decision": "keep"}', {}, 400, "decision"),
        (DECISIONS, b'{"decision": "pin", "why": "x"}', {}, 400, "body"),
        (DECISIONS, b'{"decision": "pin", "note": ""}', {}, 400, "note"),
        (DECISIONS, b'{"decision": "pin", "note": "a\\u0000"}', {}, 400, "note"),
        (DECISIONS, b'{"decision": "pin"', {}, 400, "body"),
        (DECISIONS, b'{"decision": "pin"}', {"X-Source": "a b"}, 400, "X-Source"),
        (f"{PATH}/6f1f2c/decisions", b'{"decision": "pin"}', {}, 400, "uid"),
        (f"{PATH}/00000000/decisions", b'{"decision": "pin"}', {}, 404, None),
        (DECISIONS, b" " * (MAX_DECISION_BYTES + 1), {}, 413, None),
    ],
)
async def test_a_wrong_decision_is_refused(
    tmp_path: Path, path: str, sent: bytes, headers: dict[str, str], status: int, field: str | None
) -> None:
    async with served(tmp_path, benchmarks=ScriptedRuns()) as api:
        answer = await poke(api, path, sent, **headers)
        assert (answer.status, answer.json()["details"].get("field")) == (status, field)
    assert api.intake.events == []


async def test_without_a_database_reports_come_in_and_decisions_do_not(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        assert (await poke(api, PATH, body())).status == 201
        answer = await poke(api, DECISIONS, b'{"decision": "pin"}')
        assert (answer.status, "database" in answer.json()["message"]) == (503, True)


async def test_over_tcp_who_shows_the_token_decides_and_says_in_whose_name(tmp_path: Path) -> None:
    file = tmp_path / "write.token"
    write(file, TOKEN)
    known = {"Authorization": f"Bearer {TOKEN}", "X-Changed-By": "ada@portal", "X-Source": "portal"}
    wrong: list[tuple[dict[str, str], int, str | None]] = [
        ({"Authorization": ""}, 401, None),
        ({"Authorization": f"Bearer {OTHER}"}, 403, None),
        ({"X-Changed-By": ""}, 400, "X-Changed-By"),
        ({"X-Changed-By": "a b"}, 400, "X-Changed-By"),
        ({"X-Source": ""}, 400, "X-Source"),
    ]
    async with served(tmp_path, benchmarks=ScriptedRuns(owner=7), write_token_file=str(file)) as api:
        for change, status, field in wrong:
            headers = {name: value for name, value in {**known, **change}.items() if value}
            answer = await api.request("POST", DECISIONS, b'{"decision": "pin"}', headers, tcp=True)
            assert (answer.status, answer.json()["details"].get("field")) == (status, field)
        assert (await api.request("POST", DECISIONS, b'{"decision": "pin"}', known, tcp=True)).status == 201
        assert (await api.request("POST", PATH, body(), known, tcp=True)).status == 403
    (event,) = api.intake.events
    assert event.baseline == BaselineDecision(run_uid=UID, decision=Decision.PIN, by="ada@portal")
    assert (event.source, event.changed_by) == ("portal", Actor.API)

"""Who may ask what: every route of every listener, for everybody who can come. Each route must be in the table."""

import asyncio
import base64
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from jobtrail.adapters.http.node_identity import shared_token
from jobtrail.adapters.http.routes import Routes
from jobtrail.adapters.postgres import PostgresReader, PostgresSamples, PostgresSecurity
from jobtrail.core.link.protocol import MEDIA_TYPE
from jobtrail.domain.events import EventKind
from tests.adapters.stored_jobs import OTHER_UID, served_from, store, stories
from tests.adapters.test_http_senders import SLURM_UID, STRANGER_UID, reachable
from tests.adapters.test_http_tokens import TOKEN, write
from tests.chains import ChainWriter
from tests.served_api import PROLOG, Answer, Served, hook_headers, parse_answer, request_bytes
from tests.served_link import in_postgres, write_token

__all__ = ["reachable"]
Way = tuple[str, str]  # method and path
# One process a user: each request on a connection of its own, from the socket's directory as that of test_http_senders.
CLIENT = """
import base64, json, os, socket, sys
uid = int(sys.argv[2])
os.chdir(os.path.dirname(sys.argv[1]))
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
answers = []
for request in json.load(sys.stdin):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(20)
        peer.connect(os.path.basename(sys.argv[1]))
        peer.sendall(base64.b64decode(request))
        answers.append(b"".join(iter(lambda: peer.recv(65536), b"")))
print(json.dumps([base64.b64encode(answer).decode() for answer in answers]))
"""
SIGNED = {"X-Changed-By": "ada", "X-Source": "test"}
PACKED = {"Content-Type": MEDIA_TYPE, "Jobtrail-Node": "n1"}
CHAIN = "6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21"

BODIES = {
    ("DELETE", "/v1/jobs/{id}"): b"",
    ("PATCH", "/v1/jobs/{id}"): b'{"comment":"x"}',
    ("POST", "/v1/jobs/{id}/metrics"): b'{"samples":[{"sampled_at":"2025-10-09T09:00:00Z","cpu_percent":1}]}',
}

OPEN = {("GET", path) for path in ("/", "/health", "/readyz", "/metrics", "/openapi.json", "/v1/nodes")}
OPEN |= {("GET", "/v1/prometheus/targets")}
OF_A_JOB = {("GET", f"/v1/jobs/{{id}}{part}") for part in ("", "/metrics", "/audit", "/report")}
READ = {("GET", f"/v1/{part}") for part in ("jobs", "audit", "benchmarks/runs", "benchmarks/runs/{uid}")}
READ |= {("GET", f"/v1/benchmarks/{part}") for part in ("leaderboard", "compare")} | {("POST", "/v1/analytics/query")}
MAKE = {("POST", "/v1/jobs")}
KEEP = {("PATCH", "/v1/jobs/{id}"), ("POST", "/v1/jobs/{id}/metrics"), ("DELETE", "/v1/jobs/{id}")}
DECIDE = {("POST", "/v1/benchmarks/runs/{uid}/decisions")}
REPORT = {("POST", "/v1/benchmarks/runs"), ("POST", "/v1/jobs/{id}/look")}
ADMIN = {("GET", "/v1/security/events")}
CONTROLLER = {("POST", "/v1/hooks/slurm/{hook:prolog-slurmctld|epilog-slurmctld}")}
HOOKS = {("POST", "/v1/hooks/slurm/{hook}")}
EVENTS = {("POST", "/v1/events/job-started"), ("POST", "/v1/events/job-finished")}
POKE = {("POST", "/v1/hooks/slurm/task-epilog")}
LINK = {
    ("GET", "/v1/chains/{chain_id}/head"), ("POST", "/v1/chains/{chain_id}/batches"), ("POST", "/v1/runs/over"),
    ("POST", "/v1/security/forwarded"),
}  # fmt: skip
LINK |= {("POST", f"/v1/samples/{what}") for what in ("jobs", "gpus", "energy")}
ALIVE = {("GET", "/healthz")}
ALL = ALIVE | OPEN | READ | OF_A_JOB | MAKE | KEEP | DECIDE | REPORT | ADMIN | CONTROLLER | HOOKS | EVENTS | POKE | LINK

# Over TCP, where nothing is told to strangers. What is not named is refused.
TCP: Mapping[str, set[Way]] = {
    "nobody": ALIVE,
    "a wrong token": ALIVE,
    "a wrong password": set(),
    "a user": ALIVE | OPEN | READ | OF_A_JOB,
    "the token read": ALIVE | OPEN | READ | OF_A_JOB,
    "the token write": ALIVE | OPEN | MAKE | KEEP | DECIDE,
    "the token admin": ALIVE | OPEN | ADMIN,
    "a node": ALIVE | LINK,
    "slurmctld": ALIVE | CONTROLLER,
}
HERE = ALIVE | OPEN | READ | OF_A_JOB | MAKE | KEEP | DECIDE | REPORT | ADMIN | HOOKS | EVENTS | CONTROLLER
THERE = READ | MAKE | DECIDE | REPORT | POKE
# On the sockets: of the job in the path STRANGER_UID is the user.
UNIX: Mapping[tuple[str, int], set[Way]] = {
    ("hooks", 0): HERE,
    ("hooks", SLURM_UID): HERE,
    ("hooks", STRANGER_UID): HERE - ADMIN - HOOKS - EVENTS - CONTROLLER,
    ("hooks", OTHER_UID): HERE - ADMIN - HOOKS - EVENTS - CONTROLLER - OF_A_JOB - KEEP,
    ("poke", 0): THERE | OF_A_JOB | KEEP,
    ("poke", SLURM_UID): THERE | OF_A_JOB | KEEP,
    ("poke", STRANGER_UID): THERE | OF_A_JOB | KEEP,
    ("poke", OTHER_UID): THERE,
}


def routes_of(routes: Routes) -> set[Way]:
    every = [*routes.reading(), *routes.writing(), *routes.remote_writing(), *routes.on_poke_socket()]
    return {(route.method, route.path) for route in every}


def request_of(way: Way, shown: Mapping[str, str]) -> bytes:
    """A request that is good but for who sends it."""
    method, template = way
    job = "manual-own" if way in KEEP else "slurm-1"
    path = template.replace("{hook:prolog-slurmctld|epilog-slurmctld}", "prolog-slurmctld").replace("{hook}", "prolog")
    path = path.replace("{id}", job).replace("{uid}", str(uuid.uuid4())).replace("{chain_id}", CHAIN)
    headers, body = {"Connection": "close", **shown}, b""
    if way in MAKE | KEEP | DECIDE:
        headers |= SIGNED
        body = BODIES.get(way, b"{}")
    elif way in HOOKS | CONTROLLER | POKE:
        headers |= hook_headers()
        body = PROLOG
    elif way in LINK and method == "POST":
        headers |= PACKED
    elif way in LINK:
        headers |= {"Jobtrail-Node": "n1"}
    elif method == "POST":
        body = b"{}"
    return request_bytes(method, path, body, headers)


def lets_in(answer: Answer) -> bool:
    """Whether the request came as far as its handler's own business."""
    missing = answer.status in (404, 405) and answer.json()["message"].startswith(("there is nothing", "only "))
    return answer.status not in (401, 403) and not missing


def in_order(ways: Sequence[Way] | set[Way]) -> list[Way]:
    """What takes a job back comes last."""
    return sorted(ways, key=lambda way: (way[0] == "DELETE", way))


def differing(found: Iterator[tuple[Way, Answer]], allowed: set[Way]) -> list[str]:
    return [
        f"{way}: {answer.status} {answer.body[:120]!r}"
        for way, answer in found
        if lets_in(answer) is not (way in allowed)
    ]


@pytest.fixture
async def api(reachable: Path, pool: Any) -> AsyncIterator[Served]:
    """Everything that there can be, in front of a database."""
    tokens = {}
    for name in ("write", "admin", "hook"):
        write(reachable / f"{name}.token", f"{name}-{TOKEN}")
        tokens[name] = str(reachable / f"{name}.token")
    web = reachable / "web.yml"
    digest = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode()
    web.write_text(f"basic_auth_users:\n  alice: {digest}\n")
    web.chmod(0o600)
    own = ChainWriter("n1")
    own.said(EventKind.JOB_CREATED, 0, "manual-own", user_name="eve", uid=STRANGER_UID)
    await store(pool, [*stories(), own])
    more: dict[str, Any] = {
        "posted_samples": PostgresSamples(pool, timeout_seconds=10.0, tell=lambda _: None),
        "security": PostgresSecurity(pool, timeout_seconds=10.0),
        "forwarded_to": in_postgres(pool),
        "node_identity": shared_token(str(write_token(reachable / "nodes.token", f"node-{TOKEN}"))),
    }
    async with served_from(
        pool, reachable, jobs=PostgresReader(pool, timeout_seconds=10.0), web_config_file=str(web),
        write_token_file=tokens["write"], admin_token_file=tokens["admin"], hook_token_file=tokens["hook"], **more,
    ) as one:  # fmt: skip
        yield one


async def test_over_tcp_everybody_may_what_is_theirs_and_nothing_else(api: Served) -> None:
    assert routes_of(api.api.routes) == ALL
    basic = {
        name: "Basic " + base64.b64encode(f"alice:{password}".encode()).decode()
        for name, password in (("a user", "correct horse"), ("a wrong password", "battery staple"))
    }
    bearers = {"a wrong token": "x" * 32, "the token read": TOKEN, "the token write": f"write-{TOKEN}"}
    bearers |= {"the token admin": f"admin-{TOKEN}", "a node": f"node-{TOKEN}", "slurmctld": f"hook-{TOKEN}"}
    shown = basic | {name: f"Bearer {token}" for name, token in bearers.items()}
    for who, allowed in TCP.items():
        header = {"Authorization": shown[who]} if who in shown else {}
        found = []
        for way in in_order(ALL - HOOKS):
            found.append((way, parse_answer(await api.raw(request_of(way, header), tcp=True))))
        assert differing(iter(found), allowed) == [], who
    assert {event.source for event in api.intake.events if event.kind is EventKind.SLURM_REPORTED} == {
        "prolog_slurmctld"
    }


async def test_on_the_sockets_everybody_may_what_is_theirs_and_nothing_else(api: Served) -> None:
    Path(api.settings.socket).chmod(0o666)  # its mode is a wall of its own; this is about the one behind it
    sockets = {"hooks": api.settings.socket, "poke": api.settings.poke_socket}
    for (socket, uid), allowed in UNIX.items():
        ways = in_order(ALL - (HOOKS | CONTROLLER if socket == "poke" else POKE))
        requests = [base64.b64encode(request_of(way, {})).decode() for way in ways]
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, sockets[socket], str(uid),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await asyncio.wait_for(child.communicate(json.dumps(requests).encode()), 120)
        assert child.returncode == 0, errors.decode()
        answers = [parse_answer(base64.b64decode(one)) for one in json.loads(out)]
        assert differing(zip(ways, answers, strict=True), allowed) == [], (socket, uid)

"""T-36: requests that nobody should send. No answer is a 5xx, nothing is half written, memory stays where it was."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.adapters.test_http_contract import DOCUMENT, relayed
from tests.faults.figures import Figures, in_full, often
from tests.faults.raw_http import exchange, rss_bytes, status_of, statuses_in
from tests.faults.trial import FaultDaemon
from tests.served_api import hook_headers, request_bytes

MEBIBYTE = 1024 * 1024
MOST_GROWTH_BYTES = 24 * MEBIBYTE
STARTED, FINISHED, HOOK = "/v1/events/job-started", "/v1/events/job-finished", "/v1/hooks/slurm/prolog"
DEEP = 50_000
HOSTILE_JSON = (
    b"", b"null", b"[]", b"0", b'"x"', b"{", b"{}", b'{"job_id"', b"\xff\xfe", b'{"job_id": NaN}',
    b'{"job_id": Infinity}',
    b'{"job_id": -Infinity}', b'{"job_id": 1e400}', b'{"job_id": 1' + b"0" * 400 + b"}", b'{"job_id": -1}',
    b'{"job_id": 1, "job_id": 2}', b'{"job_id": "\\ud800"}', b'{"job_id": "a\\u0000b"}',
    b'{"job_id": 7, "user": "\\udfff"}',
    b'{"job_id": 7, "user": "x\\u0000"}', b'{"job_id": 7, "cpu_allocation": 1e309}',
    b'{"job_id": 7, "timestamp": 1e300}',
    b'{"job_id": 7, "timestamp": "9999-12-31T23:59:60Z"}', b'{"job_id": 7, "timestamp": "0001-01-01T00:00:00+23:59"}',
    b'{"job_id": 7, "node_list": "n[1-99999999999]"}', b'{"job_id": 7, "node_list": "' + b"n[1-9]" * 200 + b'"}',
    b'{"job_id": 7, "gpu_devices": ' + b"[" * 500 + b"]" * 500 + b"}", b"[" * DEEP, b'{"a":' * DEEP,
    b'{"job_id": 7, "memory_allocation_mb": 9223372036854775808}', b'{"job_id": 7, "memory_allocation_mb": -1}',
    b'{"job_id": 7, "cgroup_path": "/../../etc"}', b'{"job_id": 7, "root_pid": 1, "root_pid_start_ticks": 1e999}',
    b'{"job_id": 7}' * 3, b" " * 10_000 + b"{}", b"\xef\xbb\xbf{}",
)  # fmt: skip
HOSTILE_ENVIRONMENT = (
    b"", b"\0", b"\0" * 1000, b"=", b"==\0", b"SLURM_JOB_ID", b"SLURM_JOB_ID=\0", b"SLURM_JOB_ID=1",
    b"SLURM_JOB_ID=x\0",
    b"SLURM_JOB_ID=-1\0", b"SLURM_JOB_ID=1" + b"0" * 400 + b"\0", b"SLURM_JOB_ID=7\0SLURM_JOB_ID=8\0",
    b"SLURM_JOB_ID=7\0SLURM_JOB_START_TIME=1e400\0", b"SLURM_JOB_ID=7\0SLURM_JOB_NODELIST=n[1-99999999999]\0",
    b"\xff\xfe=\xff\0SLURM_JOB_ID=7\0", b"SLURM_JOB_ID=\xd9\xa7\0", b"SLURM_JOB_ID=7\0" + b"SLURM_X=1\0" * 20_000,
)  # fmt: skip
POST_HEAD = b"POST " + HOOK.encode() + b" HTTP/1.1\r\nHost: a\r\n"
HOSTILE_HEADS = (
    b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\n\r\n", b"\r\n" * 1000, b"\0" * 4096,
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nX\x00Y: z\r\n\r\n", b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET //////..%2f..%2f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"CONNECT evil:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"G\xc3\x89T / HTTP/1.1\r\n\r\n",
    POST_HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST_HEAD + b"Content-Length: -1\r\n\r\n",
    POST_HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    POST_HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
    b"GET /v1/jobs?limit=1&limit=2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /v1/jobs?since=%ff%fe&cursor=%00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /v1/jobs/%2e%2e%2f/report HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\nConnection: close\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Basic " + b"=" * 3000 + b"\r\nConnection: close\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nAuthorization: b\r\nConnection: close\r\n\r\n",
)  # fmt: skip


def posted(path: str, body: bytes, kind: str = "application/json") -> bytes:
    return request_bytes("POST", path, body, {"Connection": "close", "Content-Type": kind, **hook_headers()})


class Target:
    """A daemon that is fuzzed, and what it answered."""

    def __init__(self, daemon: FaultDaemon) -> None:
        self.daemon = daemon
        self.cases = 0
        self.wrong: list[tuple[bytes, bytes]] = []

    async def send(self, data: bytes) -> int:
        """The status of the answer; no status is one by which a client hung up on."""
        answer = await exchange(self.daemon.socket, data, half_close=False)
        self.cases += 1
        if any(status >= 500 and status != 503 for status in statuses_in(answer)):
            self.wrong.append((data[:300], answer[:300]))
        return status_of(answer)

    async def whole(self, data: bytes) -> int:
        """The status of the answer to a request that lacks nothing; one that a machine stalls in goes once more."""
        status = await self.send(data)
        return await self.send(data) if status == 408 else status

    def accepted(self, figures: Figures, before: int) -> None:
        """Nothing was answered with a 5xx, memory stayed, and the log holds no traceback."""
        assert self.daemon.pid is not None
        growth = rss_bytes(self.daemon.pid) - before
        figures.add(cases=self.cases, server_errors=len(self.wrong))
        figures.set(rss_growth_mib=growth / MEBIBYTE)
        assert self.wrong == []
        assert growth < MOST_GROWTH_BYTES
        assert "Traceback" not in self.daemon.log.read_text()


@pytest.fixture
def target(place: Path, database: str) -> Iterator[Target]:
    daemon = FaultDaemon(
        place / "d", database={"url": database}, http={"header_timeout_seconds": 1.0}, metrics={"target_port": 8080}
    )
    with daemon:
        yield Target(daemon)


@pytest.mark.fault("T-36")
def test_hostile_requests_get_an_answer_that_blames_them(
    target: Target, figures: Figures, draw: random.Random, database: str
) -> None:
    """By hand, then cut, doubled and flipped at random."""

    async def all_of_them() -> dict[str, set[int]]:
        found: dict[str, set[int]] = {"json": set(), "environment": set(), "head": set(), "mutated": set()}
        for body in HOSTILE_JSON:
            for path in (STARTED, FINISHED):
                found["json"].add(await target.whole(posted(path, body)))
        for body in HOSTILE_ENVIRONMENT:
            found["environment"].add(await target.whole(posted(HOOK, body, "application/octet-stream")))
        heads = [target.send(head) for head in HOSTILE_HEADS]
        found["head"] |= set(await asyncio.gather(*heads))
        seeds = [posted(STARTED, body) for body in HOSTILE_JSON[:20]] + [posted(HOOK, b"SLURM_JOB_ID=7\0")]
        assert target.daemon.pid is not None
        for _ in range(often(quick=15, full=400)):
            batch = [target.send(mutated(draw.choice(seeds), draw)) for _ in range(20)]
            found["mutated"] |= set(await asyncio.gather(*batch))
        return found

    assert target.daemon.pid is not None
    asyncio.run(target.send(posted(STARTED, HOSTILE_JSON[0])))
    before = rss_bytes(target.daemon.pid)
    found = asyncio.run(all_of_them())
    target.accepted(figures, before)
    assert found["json"] <= {400, 403, 200, 201, 409}
    assert found["head"] <= {0, 200, 400, 401, 403, 404, 405, 408, 417, 501}
    assert 500 not in found["mutated"]
    status, _ = target.daemon.request("POST", HOOK, b"SLURM_JOB_ID=901\0SLURMD_NODENAME=n1\0SLURM_CLUSTER_NAME=c\0",
                                      hook_headers())  # fmt: skip
    assert status == 201  # and it still does its work
    target.daemon.stop()
    with psycopg.connect(database) as connection:
        gaps = connection.execute("SELECT count(*) - max(seq) FROM audit_log GROUP BY chain_id").fetchall()
    assert all(gap == (0,) for gap in gaps)  # nothing was half written


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Some bytes changed, taken out, or put in twice."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(changed))
        match draw.randrange(4):
            case 0:
                changed[at] = draw.randrange(256)
            case 1:
                del changed[at : at + draw.randint(1, 20)]
            case 2:
                changed[at:at] = changed[at : at + draw.randint(1, 200)]
            case _:
                changed[at:at] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 8)))
        if not changed:
            return b"\0"
    return bytes(changed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.sampled_from([
        "job_id", "user", "node_list", "cpu_allocation", "memory_allocation_mb", "gpu_allocation", "gpu_vendor",
        "gpu_devices", "cgroup_path", "partition", "account", "timestamp", "final_state", "exit_code", "signal",
        "cluster", "node", "root_pid", "root_pid_start_ticks", "x",
    ]), JSON, max_size=8,
)  # fmt: skip


@pytest.mark.fault("T-36")
def test_made_up_events_are_taken_or_refused(target: Target, figures: Figures, draw: random.Random) -> None:
    """Any JSON where an event's field should be."""
    assert target.daemon.pid is not None
    before = rss_bytes(target.daemon.pid)

    @seed(draw.getrandbits(32))
    @settings(max_examples=often(quick=250, full=20_000), deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(path=st.sampled_from([STARTED, FINISHED]), fields=FIELDS, job=st.integers(1, 50))
    def tried(path: str, fields: dict[str, object], job: int) -> None:
        body = json.dumps({"job_id": job, **fields}).encode()
        status = asyncio.run(target.whole(posted(path, body)))
        assert status in {200, 201, 400, 403, 409, 413}, (status, body)

    tried()
    target.accepted(figures, before)


@pytest.mark.fault("T-36")
def test_odd_requests_made_of_the_description(
    target: Target, figures: Figures, draw: random.Random, place: Path
) -> None:
    """Schemathesis, over the socket on which everything is answered."""

    async def run() -> str:
        async with relayed(str(target.daemon.socket)) as url:
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "schemathesis.cli", "run", str(DOCUMENT), "--url", url, "--checks",
                "not_a_server_error", "--max-examples", "60" if in_full() else "2", "--phases", "fuzzing", "--no-color",
                "--seed", str(draw.getrandbits(31)), "--generation-database", "none", "--suppress-health-check", "all",
                "--request-timeout", "60", "--exclude-path-regex", "^/v1/((chains|samples|runs)/|security/forwarded$)",
                cwd=place, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            try:
                out, _ = await asyncio.wait_for(program.communicate(), 900)
            finally:
                if program.returncode is None:
                    program.kill()
                    await program.wait()
            text = out.decode(errors="replace")
            assert program.returncode == 0, text[-6000:]
            return text

    assert target.daemon.pid is not None
    before = rss_bytes(target.daemon.pid)
    text = asyncio.run(run())
    made = re.search(r"(\d+) generated", text)
    assert made is not None, text[-2000:]
    target.cases = int(made[1])
    target.accepted(figures, before)

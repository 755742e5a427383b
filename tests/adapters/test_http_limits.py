"""Slow, huge and countless clients: each is ended within its deadline, and honest ones are served meanwhile."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.served_api import (
    HOOK_PATH,
    PROLOG,
    Served,
    hang_up,
    hook_headers,
    parse_answer,
    read_all,
    request_bytes,
    served,
)

HEAD_SECONDS = 0.5
BODY_SECONDS = 0.4
ANSWER_SECONDS = 0.5
PATIENCE_SECONDS = 60.0  # longer than any test waits: what is ended sooner was ended by another deadline
SLACK_SECONDS = 20.0  # of a machine that does other things too
KIB = 1024


def daemon(directory: Path, **settings: Any) -> AbstractAsyncContextManager[Served]:
    """One that is patient where a test does not say otherwise: the machine may stand still between two bytes."""
    patient: dict[str, Any] = {
        "header_timeout_seconds": PATIENCE_SECONDS,
        "body_timeout_seconds": PATIENCE_SECONDS,
        "answer_timeout_seconds": PATIENCE_SECONDS,
        "max_body_bytes": 64 * KIB,
        "max_connections": 8,
    }
    return served(directory, **{**patient, **settings})


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with daemon(tmp_path) as one:
        yield one


def head(length: object = len(PROLOG), **headers: str) -> bytes:
    """The head of a hook request that promises `length` bytes."""
    return request_bytes("POST", HOOK_PATH, b"", {**hook_headers(), "Content-Length": str(length), **headers})


def chunked_head(**headers: str) -> bytes:
    return request_bytes("POST", HOOK_PATH, b"", {**hook_headers(), "Transfer-Encoding": "chunked", **headers})


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("sent", [b"", b"POST /v1/ho", b"GET / HTTP/1.1\r\n", head()[:-2]], ids=repr)
async def test_a_head_that_does_not_come(tmp_path: Path, sent: bytes, tcp: bool) -> None:
    """Silence, half a line and half a head are cut at the deadline; who had begun is told."""
    async with daemon(tmp_path, header_timeout_seconds=HEAD_SECONDS) as api:
        began = time.monotonic()
        received = await api.raw(sent, tcp=tcp)
        assert time.monotonic() - began >= HEAD_SECONDS * 0.9
        if sent:
            assert parse_answer(received).status == 408
        else:
            assert received == b""
        assert api.rejections == (["timeout"] if sent else [])


async def dripped(api: Served, first: bytes, drop: bytes) -> bytes:
    """What is answered to `first` and then a drop now and then: all of it, though the last drop may find no reader.

    A stream of asyncio would throw away what it has not read yet when a write fails.
    """
    loop, received = asyncio.get_running_loop(), b""
    with socket.socket(socket.AF_UNIX) as one:
        one.setblocking(False)
        await loop.sock_connect(one, api.settings.socket)

        async def receive() -> None:
            nonlocal received
            with suppress(ConnectionError):
                while data := await loop.sock_recv(one, 65_536):
                    received += data

        ended = asyncio.create_task(receive())
        async with asyncio.timeout(SLACK_SECONDS):
            await loop.sock_sendall(one, first)
            while not ended.done():
                with suppress(ConnectionError):
                    await loop.sock_sendall(one, drop)
                await asyncio.wait([ended], timeout=0.05)
    return received


async def test_a_dripping_head(tmp_path: Path) -> None:
    """A byte now and then does not move the deadline."""
    async with daemon(tmp_path, header_timeout_seconds=HEAD_SECONDS) as api:
        assert parse_answer(await dripped(api, b"GET /", b"x")).status == 408


@pytest.mark.parametrize("sent", [head(), head() + PROLOG[:5], chunked_head(), chunked_head() + b"5\r\nSLU"], ids=len)
async def test_a_body_that_does_not_come(tmp_path: Path, sent: bytes) -> None:
    """Also a body longer in its Content-Length than in truth is 408 at its deadline, and nothing is stored."""
    async with daemon(tmp_path, header_timeout_seconds=HEAD_SECONDS, body_timeout_seconds=BODY_SECONDS) as api:
        began = time.monotonic()
        answer = parse_answer(await api.raw(sent))
        assert time.monotonic() - began >= BODY_SECONDS * 0.9
        assert (answer.status, api.rejections, api.intake.events) == (408, ["timeout"], [])


async def test_a_dripping_body(tmp_path: Path) -> None:
    """The body's deadline is for the whole."""
    async with daemon(tmp_path, header_timeout_seconds=HEAD_SECONDS, body_timeout_seconds=BODY_SECONDS) as api:
        assert parse_answer(await dripped(api, head(1000), b"X")).status == 408
        assert api.rejections == ["timeout"]


async def test_the_rest_of_a_body_that_was_given_up_is_no_head(tmp_path: Path) -> None:
    """Nobody is told a second time: not where the daemon stands still until the next head would be due, too."""
    async with daemon(tmp_path, header_timeout_seconds=HEAD_SECONDS, body_timeout_seconds=BODY_SECONDS) as api:
        reader, writer = await api.unix()
        writer.write(head(1000))
        assert (await reader.readuntil(b"}\n")).startswith(b"HTTP/1.1 408")
        writer.write(b"X")
        due = time.monotonic() + HEAD_SECONDS
        while time.monotonic() < due:  # the loop of the daemon, which is also this one, stands still
            pass
        assert await asyncio.wait_for(read_all(reader), SLACK_SECONDS) == b""
        assert api.rejections == ["timeout"]
        await hang_up(writer)


async def test_an_idle_connection_is_ended(tmp_path: Path) -> None:
    """After an answer the next head has the same deadline as the first; nobody is told off for being idle."""
    async with daemon(tmp_path, header_timeout_seconds=HEAD_SECONDS) as api:
        reader, writer = await api.unix()
        writer.write(request_bytes("GET", "/healthz", b"", {}))
        assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
        assert await asyncio.wait_for(read_all(reader), SLACK_SECONDS) == b""
        assert api.rejections == []
        await hang_up(writer)


async def test_a_connection_serves_many_requests(api: Served) -> None:
    """One after the other, and several sent at once (pipelining), in order."""
    reader, writer = await api.unix()
    for _ in range(3):
        writer.write(request_bytes("POST", HOOK_PATH, PROLOG, hook_headers()))
        assert (await reader.readuntil(b"}\n")).startswith(b"HTTP/1.1 201")
    requests = [request_bytes("POST", HOOK_PATH, PROLOG, hook_headers()) for _ in range(50)]
    last = request_bytes("GET", "/healthz", b"", {"Connection": "close"})
    writer.write(b"".join(requests) + last)
    received = await asyncio.wait_for(read_all(reader), 10)
    assert (received.count(b"HTTP/1.1 201 Created"), received.count(b"HTTP/1.1 200 OK")) == (50, 1)
    assert len(api.intake.events) == 53
    await hang_up(writer)


async def test_a_client_that_reads_nothing(tmp_path: Path) -> None:
    """An answer nobody reads is given up at its deadline."""
    async with daemon(tmp_path, answer_timeout_seconds=ANSWER_SECONDS) as api:
        api.page = b"x" * (16 * KIB * KIB)
        # A reader with this limit takes a little and then leaves the rest in the socket.
        reader, writer = await asyncio.open_connection(api.addresses.host, api.addresses.port, limit=1)
        writer.write(request_bytes("GET", "/metrics", b"", {}))
        deadline = time.monotonic() + SLACK_SECONDS
        while not api.scrapes:  # from then on the answer has its time
            assert time.monotonic() < deadline
            assert (await api.request("GET", "/healthz")).status == 200
        began = time.monotonic()
        while time.monotonic() - began < 2 * ANSWER_SECONDS:
            assert (await api.request("GET", "/healthz")).status == 200
        assert len(await read_all(reader)) < len(api.page)
        await hang_up(writer)


@pytest.mark.parametrize(
    "sent",
    [
        head(2 * KIB * KIB),
        head(64 * KIB + 1, Connection="close") + b"A" * (64 * KIB + 1),
        chunked_head(Connection="close")
        + b"".join(b"4000\r\n" + b"A" * 0x4000 + b"\r\n" for _ in range(5))
        + b"0\r\n\r\n",
        head("9" * 15),
    ],
    ids=["announced", "sent", "chunked", "absurd"],
)
async def test_a_body_that_is_too_large(api: Served, sent: bytes) -> None:
    """413 with the limit, as soon as it shows, and nothing stored."""
    answer = parse_answer(await api.raw(sent))
    assert (answer.status, answer.json()["details"]) == (413, {"limit_bytes": 64 * KIB})
    assert (api.rejections, api.intake.events) == (["too_large"], [])


async def test_a_body_of_the_largest_size_is_taken(api: Served) -> None:
    """The limit is what it says."""
    padding = 64 * KIB - len(PROLOG) - len(b"X=\0")
    assert (await api.hook(PROLOG + b"X=" + b"y" * padding + b"\0")).status == 201
    assert (await api.hook(PROLOG + b"X=" + b"y" * (padding + 1) + b"\0")).status == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x"])
async def test_an_encoded_body_is_refused(api: Served, encoding: str) -> None:
    """What could unfold to a thousand times its size is not unfolded."""
    answer = await api.hook(b"\x1f\x8b\x08" + b"\0" * 100, Content_Encoding=encoding)
    assert (answer.status, answer.json()["details"], api.rejections) == (
        415,
        {"field": "Content-Encoding"},
        ["unsupported"],
    )


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n",
        b"\0" * 100_000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:24]),
)
async def test_what_is_not_http_is_400(api: Served, sent: bytes) -> None:
    """In the shape of every other error, told once, without a word about the software, and without a log of its own."""
    answer = parse_answer(await api.raw(sent))
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
    assert answer.headers["server"] == "jobtrail"
    assert api.rejections == ["invalid"]


async def test_more_body_than_announced_is_no_event(api: Served) -> None:
    """The rest is read as a request of its own, and is none."""
    reader, writer = await api.unix()
    writer.write(head() + PROLOG)
    assert (await reader.readuntil(b"}\n")).startswith(b"HTTP/1.1 201")
    writer.write(b"\0\0\0\0rest\r\n\r\n")
    assert parse_answer(await read_all(reader)).status == 400
    assert (len(api.intake.events), api.rejections) == (1, ["invalid"])
    await hang_up(writer)


async def test_rubbish_right_behind_an_event_spoils_it(api: Served) -> None:
    """What arrives in one piece is refused in one piece: no 2xx, and nothing stored."""
    received = await api.raw(head() + PROLOG + b"\0\0\0\0rest\r\n\r\n")
    assert parse_answer(received).status == 400
    assert (api.intake.events, api.rejections) == ([], ["invalid"])


@pytest.mark.parametrize("chunk", [b"zz\r\nx\r\n", b"5\r\nhelloworld\r\n", b"fffffffffffffffff\r\n"], ids=repr)
async def test_wrong_chunks_are_400(api: Served, chunk: bytes) -> None:
    """Broken chunking is the sender's mistake."""
    received = await api.raw(chunked_head() + chunk)
    assert parse_answer(received).status == 400
    assert (api.rejections, api.intake.events) == (["invalid"], [])


async def test_a_sender_that_hangs_up_is_no_mistake_of_ours(api: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Half a body and gone: nothing stored, no traceback, one refusal told."""
    _, writer = await api.unix()
    writer.write(head() + PROLOG[:5])
    await writer.drain()
    await hang_up(writer)
    deadline = time.monotonic() + SLACK_SECONDS
    while not api.rejections:
        assert time.monotonic() < deadline
        assert (await api.request("GET", "/healthz")).status == 200
    assert (api.rejections, api.intake.events) == (["invalid"], [])
    assert caplog.records == []


async def test_an_unknown_expectation_is_told(api: Served) -> None:
    """417, decided before any handler runs, is counted like the rest."""
    answer = await api.hook(Expect="a-miracle")
    assert (answer.status, answer.headers["server"], api.rejections) == (417, "jobtrail", ["unsupported"])


async def test_the_body_is_asked_for(api: Served) -> None:
    """curl's Expect: 100-continue is answered before the body comes."""
    reader, writer = await api.unix()
    writer.write(head(Expect="100-continue", Connection="close"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(PROLOG)
    assert parse_answer(await read_all(reader)).status == 201
    await hang_up(writer)


async def test_a_full_tcp_listener_leaves_the_hooks_alone(api: Served) -> None:
    """Each listener has its own cap: who is one too many is told so, and hooks are served all the while."""
    crowd = [await api.tcp() for _ in range(8)]
    refused = parse_answer(await api.raw(request_bytes("GET", "/healthz", b"", {}), tcp=True))
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert (await api.hook()).status == 201
    for _, writer in crowd:
        await hang_up(writer)
    deadline = time.monotonic() + SLACK_SECONDS
    while b" 200 " not in await api.raw(request_bytes("GET", "/healthz", b"", {"Connection": "close"}), tcp=True):
        assert time.monotonic() < deadline
    assert set(api.rejections) == {"busy"}


async def test_a_crowd_of_slow_clients_is_gone_in_time(tmp_path: Path) -> None:
    """Hundreds of half heads on the hooks' own socket: all are cut, and an honest hook among them is served."""
    async with daemon(tmp_path, header_timeout_seconds=2 * HEAD_SECONDS, max_connections=512) as api:
        crowd = []
        for _ in range(300):
            crowd.append(await api.unix())
            crowd[-1][1].write(b"POST /v1/hooks/slurm/prolog HTTP/1.1\r\nHost: x\r\n")
        assert (await api.hook()).status == 201
        async with asyncio.timeout(SLACK_SECONDS):
            answers = await asyncio.gather(*(read_all(reader) for reader, _ in crowd))
        assert {parse_answer(answer).status for answer in answers} == {408}
        for _, writer in crowd:
            await hang_up(writer)

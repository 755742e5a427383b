"""T-37: huge bodies, bodies that lie about their length, chunks without end, compressed bombs.

Each is refused before it costs memory.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import wire
from tests.faults.figures import Figures, often
from tests.faults.raw_http import connect, exchange, rss_bytes, status_of
from tests.faults.trial import FaultDaemon
from tests.served_api import hang_up, hook_headers, read_all, request_bytes

MEBIBYTE = 1024 * 1024
CLOSE = b"\r\nConnection: close\r\n\r\n"
HOOK = "/v1/hooks/slurm/prolog"
EVENT = "/v1/events/job-started"
MOST_GROWTH_BYTES = 16 * MEBIBYTE


@pytest.fixture
def daemon(place: Path) -> Iterator[FaultDaemon]:
    with FaultDaemon(place / "d") as one:
        yield one


def head(path: str, **headers: object) -> bytes:
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return request_bytes("POST", path, b"", {**hook_headers(), **named})


async def flooded(place: Path, begin: bytes, piece: bytes, *, most_bytes: int) -> tuple[int, int, float]:
    """Send pieces for as long as they are taken: the answer's status, the bytes that were taken, the seconds."""
    reader, writer = await connect(place)
    answered, sent, began = asyncio.create_task(read_all(reader)), 0, time.monotonic()
    try:
        writer.write(begin)
        while not answered.done() and sent < most_bytes:
            writer.write(piece)
            sent += len(piece)
            async with asyncio.timeout(30):
                await writer.drain()
    except (ConnectionError, TimeoutError):
        pass
    answer = await asyncio.wait_for(answered, 60)
    seconds = time.monotonic() - began
    await hang_up(writer)
    return status_of(answer), sent, seconds


@pytest.mark.fault("T-37")
def test_what_is_too_large_is_refused_early(daemon: FaultDaemon, figures: Figures) -> None:
    assert daemon.pid is not None
    before = rss_bytes(daemon.pid)
    piece = b"A" * 65_536
    chunk = b"10000\r\n" + piece + b"\r\n"
    announced = asyncio.run(exchange(daemon.socket, head(HOOK, Content_Length=10**12)))
    absurd = asyncio.run(exchange(daemon.socket, head(HOOK, Content_Length="9" * 40)))
    many = often(quick=64, full=2048) * MEBIBYTE
    chunked = asyncio.run(flooded(daemon.socket, head(HOOK, Transfer_Encoding="chunked"), chunk, most_bytes=many))
    plain = asyncio.run(flooded(daemon.socket, head(EVENT, Content_Length=many), piece, most_bytes=many))
    tiny = asyncio.run(
        flooded(daemon.socket, head(HOOK, Transfer_Encoding="chunked"), b"1\r\nA\r\n" * 4096, most_bytes=many)
    )
    long_size = asyncio.run(exchange(daemon.socket, head(HOOK, Transfer_Encoding="chunked") + b"0" * 100_000))
    growth = rss_bytes(daemon.pid) - before
    slowest = max(chunked[2], plain[2], tiny[2])
    figures.set(cases=6, slowest_seconds=slowest, rss_growth_mib=growth / MEBIBYTE)
    assert status_of(announced) == 413
    assert status_of(absurd) in {400, 413}
    assert [found[0] for found in (chunked, plain, tiny)] == [413, 413, 413]
    assert slowest < 30  # what is refused is not read to its end; a machine may stall
    assert status_of(long_size) in {400, 408}
    assert growth < MOST_GROWTH_BYTES


@pytest.mark.fault("T-37")
def test_compressed_bodies_are_not_unpacked(daemon: FaultDaemon, figures: Figures) -> None:
    assert daemon.pid is not None
    before = rss_bytes(daemon.pid)
    bomb = gzip.compress(b"\0" * (64 * MEBIBYTE))
    nested = gzip.compress(bomb)
    statuses = []
    deflated = zlib.compress(b"\0" * MEBIBYTE)
    for encoding, body in (("gzip", bomb), ("gzip, gzip", nested), ("deflate", deflated), ("br", b"x")):
        for path in (HOOK, EVENT, "/v1/benchmarks/runs", "/v1/analytics/query"):
            data = request_bytes(
                "POST", path, body, {**hook_headers(), "Content-Encoding": encoding, "Connection": "close"}
            )
            statuses.append(status_of(asyncio.run(exchange(daemon.socket, data))))
    growth = rss_bytes(daemon.pid) - before
    figures.set(cases=len(statuses), rss_growth_mib=growth / MEBIBYTE)
    assert set(statuses) == {415}
    assert growth < MOST_GROWTH_BYTES


@pytest.mark.fault("T-37")
def test_lies_about_the_length_harm_nobody(daemon: FaultDaemon, figures: Figures, draw: random.Random) -> None:
    """A body shorter than it said ends at its deadline; a longer one is not taken for another request."""
    sending = wire.make("prolog", 501, draw, start=int(time.time()))
    short = asyncio.run(exchange(daemon.socket, head(HOOK, Content_Length=500) + sending.body[:100], half_close=True))
    lying = {**hook_headers(), "Content-Length": "5", "Transfer-Encoding": "chunked"}
    smuggled = request_bytes("POST", HOOK, b"0\r\n\r\n", lying)
    both = asyncio.run(exchange(daemon.socket, smuggled + sending.request()))
    began = time.monotonic()
    honest = status_of(asyncio.run(exchange(daemon.socket, sending.request().replace(b"\r\n\r\n", CLOSE, 1))))
    figures.set(cases=2, honest_seconds=time.monotonic() - began)
    assert honest == 201
    assert status_of(short) in {0, 400}  # it had hung up
    assert (status_of(both), both.count(b"HTTP/1.1 ")) == (400, 1)

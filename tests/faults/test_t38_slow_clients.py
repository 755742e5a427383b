"""T-38: clients that say half a line, half a head, a byte now and then, or nothing; by the hundred, on every listener.

They are gone within their deadline, and honest hooks are acknowledged meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_process import wait_until
from tests.faults import wire
from tests.faults.figures import Figures, often, percentile
from tests.faults.raw_http import connect, descriptors, rss_bytes, tcp_port
from tests.faults.trial import FaultDaemon
from tests.served_api import hang_up, hook_headers, read_all, request_bytes

DEADLINE_SECONDS = 5.0  # http.header_timeout_seconds, and of the body
SLACK_SECONDS = 20.0  # of a machine whose cores do other things
HOOK_SECONDS = 2.0  # that a hook waits
MEBIBYTE = 1024 * 1024
BODY = request_bytes("POST", "/v1/hooks/slurm/prolog", b"", {**hook_headers(), "Content-Length": "500"})
SLOW = {
    "silent": b"", "half a line": b"POST /v1/hoo", "half a head": b"POST / HTTP/1.1\r\nHost: x\r\nA: b",
    "no body": BODY, "half a body": BODY + b"SLURM_JOB",
}  # fmt: skip


@pytest.fixture
def daemon(place: Path) -> Iterator[FaultDaemon]:
    with FaultDaemon(place / "d") as one:
        yield one


@pytest.fixture(autouse=True)
def enough_files() -> Iterator[None]:
    """Both ends of each connection count here but for the daemon's own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def slow(place: Path | int, data: bytes, *, drips: bool) -> float | None:
    """How long a client is suffered that sends `data` and then nothing, or a byte now and then; None: not taken in."""
    try:
        reader, writer = await connect(place)
    except OSError:
        return None
    began = time.monotonic()
    ended = asyncio.create_task(read_all(reader))
    try:
        writer.write(data)
        while not ended.done():
            await asyncio.wait([ended], timeout=0.5 if drips else None)
            if drips and not ended.done():
                writer.write(b"x")
    except OSError:
        pass
    answer = await ended
    await hang_up(writer)
    return None if b" 503 " in answer[:40] else time.monotonic() - began


async def honest(socket: Path, draw: random.Random, until: asyncio.Event) -> list[float]:
    """How long hooks wait for their acknowledgement, one after another."""
    took, job = [], 10_000
    while not until.is_set():
        job += 1
        line = wire.Line(socket)
        began = time.monotonic()
        status, _ = await line.post(wire.make("prolog", job, draw, start=int(time.time())))
        took.append(time.monotonic() - began)
        line.close()
        assert status == 201
        await asyncio.wait([asyncio.ensure_future(until.wait())], timeout=0.1)
    return took


@pytest.mark.fault("T-38")
@pytest.mark.parametrize("listener", ["tcp", "poke"])
def test_a_crowd_of_slow_clients_keeps_no_hook_waiting(
    daemon: FaultDaemon, figures: Figures, draw: random.Random, listener: str
) -> None:
    """On the port, and on the socket that every user may connect to; the hooks' socket has places of its own."""
    assert daemon.pid is not None
    before, files = rss_bytes(daemon.pid), descriptors(daemon.pid)
    place = tcp_port(daemon.log) if listener == "tcp" else daemon.socket.with_name("poke.sock")
    crowd = often(quick=400, full=2000)

    async def siege() -> tuple[list[float | None], list[float]]:
        over = asyncio.Event()
        hooks = asyncio.create_task(honest(daemon.socket, draw, over))
        kinds = list(SLOW.values())
        clients = [slow(place, kinds[n % len(kinds)], drips=n % 2 == 0) for n in range(crowd)]
        suffered = await asyncio.gather(*clients)
        over.set()
        return suffered, await hooks

    suffered, hooks = asyncio.run(siege())
    taken = [seconds for seconds in suffered if seconds is not None]
    growth = rss_bytes(daemon.pid) - before
    slowest = max(taken)
    hook_p99 = percentile(hooks, 0.99) or 0.0
    figures.set(sockets=crowd, slowest_to_close_seconds=slowest, hooks=len(hooks), hook_p99_seconds=hook_p99,
                rss_growth_mib=growth / MEBIBYTE)  # fmt: skip
    assert slowest < DEADLINE_SECONDS + SLACK_SECONDS
    assert len(taken) >= 256 * 0.9  # http.max_connections of them had a place at once
    # One that waits for a slow client waits for seconds, and so would nearly all of them; a stalled machine delays one,
    # of less than ten where the crowd is soon gone.
    assert (percentile(hooks, 0.5) or 9) < HOOK_SECONDS
    assert growth < 32 * MEBIBYTE
    pid = daemon.pid
    wait_until(lambda: descriptors(pid) < files + 20, "the places of the slow clients to be free")


@pytest.mark.fault("T-38")
def test_each_kind_of_slowness_ends_on_the_hooks_own_socket(daemon: FaultDaemon, figures: Figures) -> None:
    """Root's processes alone can do this there; they too are ended."""

    async def all_kinds() -> list[float | None]:
        return await asyncio.gather(
            *(slow(daemon.socket, data, drips=drips) for data in SLOW.values() for drips in (False, True))
        )

    took = [seconds for seconds in asyncio.run(all_kinds()) if seconds is not None]
    figures.set(sockets=len(took), slowest_to_close_seconds=max(took))
    assert len(took) == 2 * len(SLOW)
    assert max(took) < DEADLINE_SECONDS + SLACK_SECONDS

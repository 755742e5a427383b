"""Raw connections to a daemon, and its memory: for tests of what no library would send."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from pathlib import Path

from tests.served_api import hang_up, read_all

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def tcp_port(log: Path) -> int:
    """The TCP port that a daemon says it listens on."""
    return int(re.findall(r'"http": "https?://[^ "]+:(\d+)"', log.read_text())[-1])


def rss_bytes(pid: int) -> int:
    """The resident memory of a process now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


async def connect(place: Path | int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a Unix socket, or to a port of this machine."""
    if isinstance(place, int):
        return await asyncio.open_connection("127.0.0.1", place)
    return await asyncio.open_unix_connection(str(place))


async def exchange(place: Path | int, data: bytes, *, seconds: float = 60.0, half_close: bool = False) -> bytes:
    """All that is answered to `data` until the daemon hangs up. Raises TimeoutError."""
    reader, writer = await connect(place)
    try:
        writer.write(data)
        if half_close:
            writer.write_eof()
        return await asyncio.wait_for(read_all(reader), seconds)
    finally:
        await hang_up(writer)


def status_of(answer: bytes) -> int:
    """The status of the first answer; 0 where nothing was answered."""
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(found[1]) if found else 0


def statuses_in(answer: bytes) -> list[int]:
    """The statuses of all answers on a connection."""
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


def silent_until_closed(sockets: list[socket.socket], began: float) -> list[float]:
    """How long after `began` each connection was closed by the other side; nothing is sent meanwhile."""
    took = []
    for one in sockets:
        one.settimeout(60)
        try:
            while one.recv(65536):
                pass
        except ConnectionError:
            pass
        took.append(time.monotonic() - began)
        one.close()
    return took

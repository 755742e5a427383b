"""A TCP proxy between the daemon and its database, for the faults of a network: silence, resets, delays, a trickle.

It runs on a loop in a thread of its own. A kernel's `netem` would do some of this, where there is one; the proxy needs
no privilege and is the same everywhere.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

CHUNK = 65536
IN_FLIGHT = 256  # pieces of one direction that are on their way


class Proxy(threading.Thread):
    """Use as a context. What is set on it holds from the next piece of data on.

    `silent`: nothing is read any more and new connections are taken up by the kernel alone, as by a black hole behind
    a firewall's state; `delay_seconds`: each piece waits so long; every `stall_every`th piece, if not 0, waits
    `stall_seconds` more. `trickle` lets so little through each connection and direction, and while a line is as slow as
    that the server does not hear either that a client has gone; what is on its way then arrives at once when the line
    is swift again.
    """

    def __init__(self, port: int) -> None:
        super().__init__(name="proxy", daemon=True)
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._heard = asyncio.Event()
        self._heard.set()
        self._swift = asyncio.Event()
        self._swift.set()
        self.port = 0
        self.connections = self.stalls = self.stall_every = self._pieces = 0
        self.delay_seconds = self.stall_seconds = self._bytes_a_second = 0.0

    def __enter__(self) -> Proxy:
        self.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.join(60)

    def run(self) -> None:
        """The thread's life."""
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(self._leave())
        self._loop.close()

    async def _leave(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def silence(self) -> None:
        """Stop reading on all connections, those to come among them."""
        self._on_loop(self._heard.clear)

    def speak(self) -> None:
        """Go on."""
        self._on_loop(self._heard.set)

    def trickle(self, bytes_a_second: float) -> None:
        """Be so slow from now on."""
        self._bytes_a_second = bytes_a_second
        self._on_loop(self._swift.clear)

    def flow(self) -> None:
        """Be swift again."""
        self._on_loop(self._swift.set)

    def reset_all(self) -> None:
        """RST to every client: close without lingering (socket(7), SO_LINGER)."""

        def reset() -> None:
            for writer in list(self._clients):
                sock: socket.socket | None = writer.get_extra_info("socket")
                if sock is not None:
                    with suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

        self._on_loop(reset)

    def half_close_all(self) -> None:
        """FIN to every client, and read on: the other direction stays open."""

        def half_close() -> None:
            for writer in list(self._clients):
                with suppress(OSError, RuntimeError):
                    writer.write_eof()

        self._on_loop(half_close)

    def _on_loop(self, act: Callable[[], Any]) -> None:
        done = threading.Event()

        def run() -> None:
            act()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(60)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        self._clients.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            await self._heard.wait()
            back, there = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(there)
            await asyncio.gather(self._pump(reader, there), self._pump(back, writer))
        except (OSError, asyncio.CancelledError):  # cancelled only when the proxy ends
            pass
        finally:
            for one in (writer, there):
                if one is not None:
                    self._writers.discard(one)
                    self._clients.discard(one)
                    one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand on until one side ends; raises ConnectionError then, so that the other direction ends too."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)
        await asyncio.gather(self._take(reader, under_way), self._hand_on(under_way, writer))

    async def _take(self, reader: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Note of each piece when it is to arrive: many are on their way at once, as on a long line."""
        while True:
            size = CHUNK if self._swift.is_set() else max(1, int(self._bytes_a_second))
            data = await reader.read(size)
            await self._heard.wait()
            delay = self.delay_seconds
            self._pieces += 1
            if self.stall_every and self._pieces % self.stall_every == 0:
                self.stalls += 1
                delay += self.stall_seconds
            await under_way.put((self._loop.time() + delay, data))
            if not data:
                return

    async def _hand_on(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            if not data:
                raise ConnectionResetError
            if not self._swift.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._swift.wait(), len(data) / self._bytes_a_second)
            with suppress(RuntimeError):  # half-closed: what comes is lost
                writer.write(data)
            await writer.drain()

"""The producer: a process that sends events and keeps the oracle file. It imports nothing of the daemon's.

Each client sends the prolog and the epilog of one job after another, each event until it is acknowledged, always under
the same id; every so often several clients send the same event at once. SIGTERM: finish the jobs begun, then end with
status 0, or 4 where some event was not acknowledged within `--patience` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.faults.oracle import OracleWriter
from tests.faults.wire import Line, Sending, make

PAUSE_SECONDS = 0.02  # between two tries of an event that was not answered


class Producer:
    """Many clients in one process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._draw = random.Random(options.seed)
        self._oracle = OracleWriter(options.oracle)
        self._next_job = options.first_job
        self._stop = asyncio.Event()
        self._give_up_at = float("inf")
        self.unanswered = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        await asyncio.gather(*(self._client() for _ in range(self._options.clients)))
        return 4 if self.unanswered else 0

    def _on_stop(self) -> None:
        self._stop.set()
        self._give_up_at = time.monotonic() + self._options.patience

    async def _client(self) -> None:
        lines = [Line(self._options.socket) for _ in range(self._options.copies)]
        while not self._stop.is_set() and self._next_job < self._options.first_job + self._options.jobs:
            job, self._next_job = self._next_job, self._next_job + 1
            start = int(time.time())
            for hook in ("prolog", "epilog"):
                await self._deliver(make(hook, job, self._draw, start=start), lines)
                if self._options.pause:
                    await asyncio.sleep(self._draw.uniform(0, self._options.pause))
        for line in lines:
            line.close()

    async def _deliver(self, sending: Sending, lines: list[Line]) -> None:
        self._oracle.sent(sending.event_id, **sending.details())
        copies = self._draw.randint(1, len(lines)) if self._draw.random() < self._options.share else 1
        await asyncio.gather(*(self._until_acknowledged(sending, line) for line in lines[:copies]))

    async def _until_acknowledged(self, sending: Sending, line: Line) -> None:
        while True:
            began = time.monotonic()
            with suppress(OSError, EOFError, TimeoutError):
                status, answer = await line.post(sending)
                if status in (200, 201):
                    self._oracle.ack(
                        sending.event_id, status=status, seq=answer["seq"], durability=answer["durability"],
                        seconds=round(time.monotonic() - began, 4),
                    )  # fmt: skip
                    return
                self._oracle.refused(sending.event_id, status)
            if time.monotonic() > self._give_up_at:
                self.unanswered += 1
                return
            await asyncio.sleep(PAUSE_SECONDS)


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket", type=Path)
    parser.add_argument("oracle", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--copies", type=int, default=4, help="at most so many clients send one event at once")
    parser.add_argument("--share", type=float, default=0.2, help="of the events that several clients send at once")
    parser.add_argument("--pause", type=float, default=0.0, help="longest break of a client between events, seconds")
    parser.add_argument("--jobs", type=int, default=10**9, help="end after so many")
    parser.add_argument("--first-job", type=int, default=1)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--patience", type=float, default=60.0)
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(asyncio.run(Producer(arguments(sys.argv[1:])).run()))

"""A process full of simulated nodes. It shares nothing with the server but a port and a certificate.

Reads one JSON command a line on standard input and answers with one JSON line when that is done.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import ssl
import sys
import time
from asyncio import sslproto
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.fleet.node import Node
from benchmarks.fleet.site import raise_descriptors
from benchmarks.fleet.wire import Wire
from jobtrail.core.waiting import Backoff
from jobtrail.domain.errors import StoreUnavailable

JOBS_A_NODE = 10_000
CONNECTING_AT_ONCE = 50


def name_of(number: int) -> str:
    """The node's name."""
    return f"f{number:05d}"


class Nodes:
    """The nodes of this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        context = ssl.create_default_context(cafile=options.ca)
        self.counts: Counter[str] = Counter()
        gate = asyncio.Semaphore(CONNECTING_AT_ONCE)
        tokens = Path(options.tokens).read_text(encoding="utf-8").split()
        self.nodes = [
            Node(
                name_of(number),
                Wire(
                    port=options.port,
                    context=context,
                    node=name_of(number),
                    token=tokens[number],
                    counts=self.counts,
                    gate=gate,
                ),
                first_job=(number + 1) * JOBS_A_NODE,
            )
            for number in range(options.first, options.first + options.count)
        ]
        self._draw = random.Random(options.first)
        self._stop = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        self._cpu_before = time.process_time()

    async def connect(self) -> None:
        """All at once, as after a power cut of the machine room."""
        self._running = [asyncio.create_task(node.run(self._stop)) for node in self.nodes]

    async def whole_jobs(self, *, each: int, seconds: float) -> None:
        """`each` jobs on every node, begun at random moments of `seconds`; nobody waits for the trail."""
        moments = sorted((self._draw.uniform(0, seconds), node) for node in self.nodes * each) if seconds else [
            (0.0, node) for node in self.nodes * each
        ]  # fmt: skip
        await _at(moments, Node.whole_job)

    async def some_jobs(self, *, jobs: int, seconds: float) -> None:
        """So many jobs on nodes drawn by chance, evenly over `seconds`."""
        step = seconds / max(jobs, 1)
        await _at([(number * step, self._draw.choice(self.nodes)) for number in range(jobs)], Node.whole_job)

    async def storm(self, *, seconds: float, width: int, first_job: int, total: int) -> None:
        """One prolog on every node within `seconds`; `width` nodes have one job together."""
        began = time.monotonic()
        for place, node in enumerate(self.nodes):
            await asyncio.sleep(max(0.0, began + seconds * place / len(self.nodes) - time.monotonic()))
            if width == 1:
                node.prolog()
                continue
            group = int(node.name[1:]) // width
            last = min(total, (group + 1) * width) - 1
            node.prolog(first_job + group, f"f[{group * width:05d}-{last:05d}]")

    async def looks(self, *, nodes: int, seconds: float, fresh: bool) -> None:
        """So many nodes ask for the end of their chain; `fresh`: each over a new connection."""
        chosen = self.nodes[:nodes]
        if fresh:
            for node in chosen:
                node.wire.close()
        await self._each(chosen, seconds, Node.look)

    async def samples(self, *, jobs: int, seconds: float) -> None:
        """Every node sends the readings of `jobs` jobs once."""
        await self._each(self.nodes, seconds, lambda node: node.send_samples(jobs))

    async def _each(self, nodes: list[Node], seconds: float, ask: Any) -> None:
        """Ask for each node, spread over `seconds`, until it is answered; how long that took is noted as a lag."""

        async def one(node: Node, after: float) -> None:
            await asyncio.sleep(after)
            began, backoff = time.monotonic(), Backoff()
            while True:
                try:
                    await ask(node)
                    break
                except StoreUnavailable as error:
                    await asyncio.sleep(backoff.after(error))
            node.chain.lags.append(time.monotonic() - began)

        await asyncio.gather(*(one(node, seconds * place / len(nodes)) for place, node in enumerate(nodes)))

    async def settled(self, *, seconds: float) -> None:
        """Return when nothing waits, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(node.chain.waiting for node in self.nodes):
            await asyncio.sleep(0.1)

    def report(self) -> dict[str, Any]:
        """What was counted since the last report."""
        lags = [round(lag, 4) for node in self.nodes for lag in node.chain.lags]
        for node in self.nodes:
            node.chain.lags = []
        counts = dict(self.counts)
        self.counts.clear()
        return {
            "lags": lags,
            "counts": counts,
            "waiting": sum(node.chain.waiting for node in self.nodes),
            "waiting_nodes": sum(1 for node in self.nodes if node.chain.waiting),
            "events": sum(node.chain.head.seq for node in self.nodes),
            "open": sum(1 for node in self.nodes if node.wire.is_open),
            "emptied_at": [round(node.chain.emptied_at, 3) for node in self.nodes],
            "cpu_seconds": self._cpu(),
            "ended": [repr(task.exception()) for task in self._running if task.done()][:3],
        }

    def _cpu(self) -> float:
        """CPU seconds of this process since the last question."""
        before, self._cpu_before = self._cpu_before, time.process_time()
        return self._cpu_before - before


async def _at(moments: list[tuple[float, Node]], do: Any) -> None:
    began = time.monotonic()
    for moment, node in moments:
        if (wait := began + moment - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        do(node)


async def _obey(nodes: Nodes) -> None:
    loop = asyncio.get_running_loop()
    commands: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(sys.stdin, lambda: commands.put_nowait(sys.stdin.readline()))
    while (line := await commands.get()).strip():
        given = json.loads(line)
        what = given.pop("do")
        answer = nodes.report() if what == "report" else await getattr(nodes, what)(**given)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    loop.remove_reader(sys.stdin)


def main() -> None:
    """Run until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    raise_descriptors(options.count + 100)
    sslproto.SSLProtocol.max_size = 16_384  # or the buffers of these connections take gigabytes
    asyncio.run(_obey(Nodes(options)))


if __name__ == "__main__":
    main()

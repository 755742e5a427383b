"""The processes of the load generator, and what they say together."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from typing import Any

import msgspec

from benchmarks.daemon import REPOSITORY
from benchmarks.fleet.site import Site

LINE_BYTES = 64 * 1024 * 1024  # a report holds a number for each event


class Report(msgspec.Struct, frozen=True):
    """Of all nodes, since the last one."""

    lags: list[float]  # sorted, seconds
    counts: Counter[str]
    waiting: int
    waiting_nodes: int
    events: int  # that were ever made
    open: int
    emptied_at: list[float]
    cpu_seconds: float
    ended: list[str]

    def lag(self, share: float) -> float | None:
        """The lag that `share` of all do not exceed; None without any."""
        return self.lags[min(len(self.lags) - 1, int(share * len(self.lags)))] if self.lags else None


class Crew:
    """The load generator."""

    def __init__(self, site: Site, *, nodes: int, processes: int) -> None:
        self._site = site
        self.nodes = nodes
        each, rest = divmod(nodes, processes)
        self.shares = [each + (number < rest) for number in range(processes)]
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Crew:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "daemon")))}
        first = 0
        for count in self.shares:
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "benchmarks.fleet.nodes", "--port", str(self._site.port), "--ca",
                    str(self._site.ca), "--tokens", str(self._site.tokens), "--first", str(first),
                    "--count", str(count),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment, limit=LINE_BYTES,
                )
            )  # fmt: skip
            first += count
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def do(self, what: str, **arguments: Any) -> list[Any]:
        """Have all processes do something, and wait until they have."""
        return list(await asyncio.gather(*(self._do(one, {"do": what, **arguments}) for one in self._processes)))

    async def do_parts(self, what: str, number: str, total: int, **arguments: Any) -> None:
        """The same where each process has a part of `total`."""
        parts = [round(total * share / self.nodes) for share in self.shares]
        await asyncio.gather(
            *(
                self._do(one, {"do": what, number: part, **arguments})
                for one, part in zip(self._processes, parts, strict=True)
            )
        )

    async def report(self) -> Report:
        """What all of them say."""
        told = await self.do("report")
        counts: Counter[str] = Counter()
        for one in told:
            counts.update(one["counts"])
        added = {
            name: sum(one[name] for one in told)
            for name in ("waiting", "waiting_nodes", "events", "open", "cpu_seconds")
        }
        return Report(
            lags=sorted(lag for one in told for lag in one["lags"]),
            counts=counts,
            emptied_at=[at for one in told for at in one["emptied_at"]],
            ended=[problem for one in told for problem in one["ended"]],
            **added,
        )

    async def _do(self, process: asyncio.subprocess.Process, command: dict[str, Any]) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the load generator ended")
        return json.loads(line)

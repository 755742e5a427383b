"""Takes up, once after the start, the jobs that run without any event about them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from jobtrail.core.ports import EventSpool
from jobtrail.core.runs.collector import Collector
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.samples import FoundJob


class Adoption:
    """Looks for jobs until their cluster's name is known, which on a node where no hook ever spoke is at the first one.

    A job whose end is told while it is looked for is found, and is not open any more: it must not be taken for one of
    which nobody told. So what is open is asked for before anybody is heard, before each look, and after it.
    """

    def __init__(
        self,
        spool: EventSpool,
        collector: Collector,
        *,
        scan: Callable[[], Awaitable[Sequence[FoundJob]]],
        cluster_of: Callable[[], Awaitable[str | None]],
        unnamed: Callable[[int], None],
        adopted: Callable[[], None],
    ) -> None:
        """`unnamed` hears once of how many jobs the cluster is not known yet, `adopted` that all are taken up."""
        self._spool = spool
        self._collector = collector
        self._scan = scan
        self._cluster_of = cluster_of
        self._unnamed = unnamed
        self._adopted = adopted
        self._known: frozenset[str] = frozenset()
        self._warned = False

    async def begin(self) -> None:
        """Note which jobs are known. To be called before events are taken."""
        self._known = await self._open_jobs()

    async def run(self, stop: asyncio.Event) -> None:
        """Take them up, once, or give it up at `stop`."""
        while not stop.is_set():
            self._known |= await self._open_jobs()
            found = await self._scan()
            cluster = await self._cluster_of()
            if cluster or not found:
                self._known |= await self._open_jobs()
                await self._collector.adopt(found, self._known, cluster or "")
                self._adopted()
                return
            if not self._warned:
                self._unnamed(len(found))
                self._warned = True
            await wait_for_any(stop.wait(), self._spool.wait_beyond(self._spool.status().head_seq))
            self._known = frozenset()

    async def _open_jobs(self) -> frozenset[str]:
        return frozenset(run.target.job_id for run in await self._spool.open_runs())

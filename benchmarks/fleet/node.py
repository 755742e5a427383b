"""One simulated node: its own chain in memory, its own token, and the daemon's own forwarder and backoff."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Sequence
from typing import Any, NoReturn

from benchmarks.daemon import prolog_body
from benchmarks.fleet.wire import Wire
from jobtrail.adapters.server_link.sinks import LinkEvents, LinkSamples
from jobtrail.adapters.slurm_env import hook_decoder
from jobtrail.core.forwarder import Forwarder
from jobtrail.core.ports import SampleRow, SpoolStatus
from jobtrail.core.waiting import Backoff
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead, link
from jobtrail.domain.errors import SpoolBroken
from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage, encode
from jobtrail.domain.samples import Reading

EVENTS_A_JOB = 3  # prolog, epilog, and what the job used


class Clock:
    """The machine's clocks."""

    def time_us(self) -> int:
        """Microseconds since 1970."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()


class Chain:
    """What the forwarder needs of a spool. It keeps nothing on disk: what a node's disk costs is measured elsewhere."""

    def __init__(self) -> None:
        self.chain_id = str(uuid.uuid4())
        self.head = EMPTY_CHAIN
        self.forwarded_seq = 0
        self.lags: list[float] = []  # of each event since they were last taken, seconds from here to the trail and back
        self.emptied_at = 0.0
        self._rows: list[ChainedEvent] = []  # those not forwarded yet
        self._born: list[float] = []
        self._more = asyncio.Event()

    def add(self, event: Event) -> None:
        """Chain an event."""
        row = link(
            self.head, chain_id=self.chain_id, event_id=event.event_id, kind=event.kind, time_us=event.time_us,
            received_us=event.time_us, payload=encode(event), salt=os.urandom(32),
        )  # fmt: skip
        self._rows.append(row)
        self._born.append(time.monotonic())
        self.head = ChainHead(row.seq, row.row_hash)
        self._more.set()

    async def read_after(self, seq: int, *, limit: int, max_bytes: int) -> Sequence[ChainedEvent]:
        """Rows that wait."""
        del max_bytes
        first = self.head.seq - len(self._rows)
        return self._rows[max(0, seq - first) : max(0, seq - first) + limit]

    async def mark_forwarded(self, seq: int) -> None:
        """The trail has them: note how long each took, and forget it."""
        now, done = time.monotonic(), seq - (self.head.seq - len(self._rows))
        if done > 0:
            self.lags += [now - born for born in self._born[:done]]
            del self._rows[:done], self._born[:done]
        self.forwarded_seq = seq
        if not self._rows:
            self.emptied_at = now
            self._more.clear()

    async def wait_beyond(self, seq: int) -> None:
        """Return when there is more."""
        while self.head.seq <= seq:
            self._more.clear()
            await self._more.wait()

    async def record_refusal(self, seq: int, reason: str) -> None:
        """No event of a simulated node may be refused."""
        raise AssertionError(f"event {seq} was refused: {reason}")

    async def give_up_chain(self, after_seq: int, reason: str) -> NoReturn:
        """Nor may a chain be given up."""
        raise SpoolBroken(f"after {after_seq}: {reason}")

    def status(self) -> SpoolStatus:
        """As the forwarder asks for it."""
        return SpoolStatus(
            chain_id=self.chain_id, durability="volatile", head_seq=self.head.seq, forwarded_seq=self.forwarded_seq,
            bytes_used=0, bytes_limit=1 << 30, oldest_unforwarded_us=None, refused=0,
        )  # fmt: skip

    @property
    def waiting(self) -> int:
        """Events that the trail does not have."""
        return len(self._rows)


class Node:
    """A node of the fleet."""

    def __init__(self, name: str, wire: Wire, *, first_job: int) -> None:
        self.name = name
        self.wire = wire
        self.chain = Chain()
        self._samples = LinkSamples(wire)  # type: ignore[arg-type]  # of a link it only needs `ask`
        self._events = LinkEvents(wire)  # type: ignore[arg-type]  # the same
        self._decode = hook_decoder(own_node=name)
        self._job = first_job
        self._add(EventKind.CHAIN_STARTED, None, Actor.COLLECTOR, note="a new spool")

    async def run(self, stop: asyncio.Event) -> None:
        """Forward as a node does."""
        forwarder = Forwarder(
            self.chain,  # type: ignore[arg-type]  # what the forwarder uses of a spool
            self._events, node=self.name, clock=Clock(), tell=lambda _fact: None, backoff=Backoff(),
        )  # fmt: skip
        await forwarder.run(stop)

    def prolog(self, job: int | None = None, nodes: str = "") -> None:
        """A job starts here."""
        if job is None:
            self._job += 1
        self._hook("prolog", job or self._job, nodes)

    def whole_job(self) -> None:
        """A job starts, ends, and what it used is known."""
        self.prolog()
        self._hook("epilog", self._job, "")
        usage = NodeUsage(
            cpu_usage_us=31_000_000, cpu_user_us=29_000_000, cpu_system_us=2_000_000, memory_peak_bytes=1 << 30,
            sample_count=7, covered_us=9_000_000,
        )  # fmt: skip
        self._add(EventKind.USAGE_RECORDED, f"slurm-{self._job}", Actor.COLLECTOR, usage=usage)

    async def look(self) -> None:
        """Ask where the store's copy ends, as a node does that has had nothing to send for minutes."""
        await self._events.head(self.chain.chain_id)

    async def send_samples(self, jobs: int) -> None:
        """The readings of one moment."""
        await self._samples.write([_sample(self.name, number) for number in range(jobs)])

    def _hook(self, hook: str, job: int, nodes: str) -> None:
        body = prolog_body(job, node=self.name)
        if nodes:
            body = body.replace(f"SLURM_NODELIST={self.name}\0".encode(), f"SLURM_NODELIST={nodes}\0".encode())
        if hook == "epilog":
            body = body.replace(b"prolog_slurmd", b"epilog_slurmd") + b"SLURM_JOB_EXIT_CODE=0\0"
        self.chain.add(self._decode(hook, body, event_id=str(uuid.uuid4()), time_us=time.time_ns() // 1000))

    def _add(self, kind: EventKind, job_id: str | None, by: Actor, **fields: Any) -> None:
        self.chain.add(
            Event(
                kind=kind, event_id=str(uuid.uuid4()), time_us=time.time_ns() // 1000,
                cluster="bench" if job_id else "", job_id=job_id, node=self.name, changed_by=by, source="fleet",
                **fields,
            )
        )  # fmt: skip


def _sample(node: str, number: int) -> SampleRow:
    return SampleRow(
        cluster="bench", job_id=f"slurm-{number + 1}", node=node, ref=str(uuid.uuid4()), cpu_percent=12.5,
        reading=Reading(
            time_us=time.time_ns() // 1000, source="cgroup_v2", cpu_usage_us=31_000_000, cpu_user_us=29_000_000,
            cpu_system_us=2_000_000, memory_current_bytes=900 << 20, memory_peak_bytes=1 << 30,
            memory_rss_bytes=700 << 20, memory_cache_bytes=200 << 20, oom_kills=0, processes=3, threads=7,
        ),
    )  # fmt: skip

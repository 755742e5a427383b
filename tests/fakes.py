"""In-memory implementations of the ports, held to the same contract suites as the real ones."""

import asyncio
import math
import uuid
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from jobtrail.core.facts import Fact
from jobtrail.core.ports import OpenRun, Receipt, SampleRow, SpoolStatus, StoreReport, is_of_an_earlier_run
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead, broken_link, link
from jobtrail.domain.errors import (
    ChainGap,
    EventConflict,
    InvalidEvent,
    SpoolBroken,
    SpoolFull,
    StoreRefused,
    StoreUnavailable,
)
from jobtrail.domain.events import Actor, Event, EventKind, JobFacts, Whereabouts, check_time_us, decode, encode
from jobtrail.domain.job import Run
from jobtrail.domain.samples import CpuTotals, FoundJob, Miss, Missed, NodeReading, Reading, Target
from jobtrail.domain.transitions import Rejected, apply, choose_run, open_run

AnyFact = TypeVar("AnyFact", bound=Fact)


class MemorySink:
    """An EventSink in memory, with the promises of the real one (tests/contract/test_sink_contract.py)."""

    def __init__(self) -> None:
        self.chains: dict[str, list[ChainedEvent]] = {}
        self.runs: dict[tuple[str, str], list[Run]] = {}
        self.conflicts: list[tuple[str, int]] = []
        self.trail_only: list[tuple[str, int]] = []
        self.unavailable: str | None = None  # set it to make the store go away
        self.refuses: set[str] = set()  # ids of events whose projection is refused

    async def head(self, chain_id: str) -> ChainHead:
        self._check_available()
        rows = self.chains.get(chain_id)
        return ChainHead(rows[-1].seq, rows[-1].row_hash) if rows else EMPTY_CHAIN

    async def store(self, events: Sequence[ChainedEvent], *, node: str, trail_only: bool = False) -> StoreReport:
        self._check_available()
        if len({row.chain_id for row in events}) != 1:
            raise StoreRefused("a batch holds events of exactly one chain")
        chain_id = events[0].chain_id
        head = await self.head(chain_id)
        if events[0].seq > head.seq + 1:
            raise ChainGap(head.seq)
        held = self.chains.get(chain_id, [])
        replays = [row for row in events if row.seq <= head.seq]
        conflicts = tuple(row.seq for row in replays if held[row.seq - 1].row_hash != row.row_hash)
        linked, problem = self._linked(head, events[len(replays) :])
        if not trail_only and any(row.event_id in self.refuses for row in linked):
            raise StoreRefused("the projection refuses an event")
        self.conflicts += [(chain_id, seq) for seq in conflicts]
        if problem is not None:
            self.conflicts.append((chain_id, events[len(replays) + len(linked)].seq))
            if not linked and not replays:
                raise StoreRefused(problem)
        unapplied = self._apply(linked, trail_only=trail_only)
        self.chains.setdefault(chain_id, []).extend(linked)
        return StoreReport(
            head=await self.head(chain_id),
            stored=len(linked),
            replayed=len(replays) - len(conflicts),
            conflicts=conflicts,
            unapplied=unapplied,
        )

    def _check_available(self) -> None:
        if self.unavailable is not None:
            raise StoreUnavailable(self.unavailable)

    @staticmethod
    def _linked(head: ChainHead, events: Sequence[ChainedEvent]) -> tuple[list[ChainedEvent], str | None]:
        good: list[ChainedEvent] = []
        for row in events:
            problem = broken_link(row, head)
            if problem is not None:
                return good, problem
            good.append(row)
            head = ChainHead(row.seq, row.row_hash)
        return good, None

    def _apply(self, rows: Sequence[ChainedEvent], *, trail_only: bool) -> dict[int, str]:
        if trail_only:
            self.trail_only += [(row.chain_id, row.seq) for row in rows]
            return {}
        reasons = {row.seq: self._apply_one(row) for row in rows}
        return {seq: reason for seq, reason in reasons.items() if reason is not None}

    def _apply_one(self, row: ChainedEvent) -> str | None:
        try:
            event = decode(row.payload)
        except InvalidEvent as error:
            return str(error)
        if event.job_id is None:
            return None
        runs = self.runs.setdefault((event.cluster, event.job_id), [])
        chosen = choose_run(runs, event)
        result = apply(chosen or open_run(event.cluster, event.job_id, len(runs) + 1), event, created=chosen is None)
        if isinstance(result, Rejected):
            return result.reason
        if chosen is None:
            runs.append(result.run)
        else:
            runs[runs.index(chosen)] = result.run
        return None


class MemorySampleSink:
    """A SampleSink in memory."""

    def __init__(self) -> None:
        self.rows: list[SampleRow] = []
        self.unavailable: str | None = None
        self.refusing = False

    async def write(self, rows: Sequence[SampleRow]) -> None:
        if self.unavailable is not None:
            raise StoreUnavailable(self.unavailable)
        if self.refusing:
            raise StoreRefused("refused")
        self.rows += rows


class FakeUsageSource:
    """A UsageSource that gives what a test put there, with the promises of the real ones.

    Jobs are named by their public id: `readings` are those that are there now, `unreadable` those that err and why.
    """

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}
        self.unreadable: dict[str, str] = {}
        self.parent_us: int | None = None
        self.found: list[FoundJob] = []
        self.attached: dict[str, Target] = {}
        self.looks: list[tuple[str, ...]] = []  # the refs of each call of `read`
        self._seen: set[str] = set()

    def attach(self, target: Target) -> None:
        self.attached[target.ref] = target
        self._seen.discard(target.ref)

    def detach(self, ref: str) -> None:
        self.attached.pop(ref, None)

    def read(self, refs: Iterable[str]) -> dict[str, Reading | Missed]:
        asked = tuple(refs)
        self.looks.append(asked)
        return {ref: self._read_one(ref) for ref in asked}

    def _read_one(self, ref: str) -> Reading | Missed:
        target = self.attached.get(ref)
        if target is None:
            return Missed(miss=Miss.UNREADABLE, detail="nothing is attached under this ref")
        if target.job_id in self.unreadable:
            return Missed(miss=Miss.UNREADABLE, detail=self.unreadable[target.job_id])
        reading = self.readings.get(target.job_id)
        if reading is None:
            return Missed(miss=Miss.GONE if ref in self._seen else Miss.NOT_YET)
        self._seen.add(ref)
        return reading

    def cpu_totals(self, refs: Iterable[str]) -> CpuTotals:
        usages = {ref: reading.cpu_usage_us for ref in refs if isinstance(reading := self._read_one(ref), Reading)}
        return CpuTotals(
            parent_us=self.parent_us, by_ref={ref: usage for ref, usage in usages.items() if usage is not None}
        )

    def scan(self) -> Sequence[FoundJob]:
        return tuple(self.found)


class FakeNodeSource:
    """A NodeSource that gives the reading a test put there."""

    def __init__(self, reading: NodeReading | None = None) -> None:
        self.reading = reading or NodeReading(
            time_us=0,
            absent=dict.fromkeys(
                ("cpu_busy_us", "cpu_total_us", "cpus", "memory_total_bytes", "memory_used_bytes", "load_1m"),
                "no node was put there",
            ),
        )
        self.looks = 0

    def read_node(self) -> NodeReading:
        self.looks += 1
        return self.reading


class FakeClock:
    """Wall and steady time that move when told to. The wall clock may be set; the steady one only goes on."""

    def __init__(self, time_us: int = 1_760_000_000_000_000, monotonic: float = 1000.0) -> None:
        self._steady_ns = math.ceil(monotonic * 1e9)
        self._wall_minus_steady_us = time_us - self._steady_ns // 1000

    def time_us(self) -> int:
        return self._steady_ns // 1000 + self._wall_minus_steady_us

    def monotonic(self) -> float:
        return self._steady_ns / 1e9

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._steady_ns += math.ceil(seconds * 1e9)

    def set_wall_by(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does."""
        self._wall_minus_steady_us += round(seconds * 1e6)


class FakeLifecycle:
    """A Lifecycle that notes what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def opened(self, run: OpenRun) -> None:
        self.told.append(("opened", run))

    def closed(self, run: OpenRun, ended_us: int) -> None:
        self.told.append(("closed", run, ended_us))

    async def last_look(self, cluster: str, job_id: str) -> None:
        self.told.append(("last_look", cluster, job_id))


class Facts(list[Fact]):
    """An Observer that keeps what it is told."""

    def __call__(self, fact: Fact) -> None:
        self.append(fact)

    def of(self, kind: type[AnyFact]) -> list[AnyFact]:
        """The facts of one kind, in order."""
        return [fact for fact in self if isinstance(fact, kind)]


class MemorySpool:
    """An EventSpool in memory, with the promises of the real one (tests/contract/test_spool_contract.py)."""

    def __init__(self, *, clock: FakeClock | None = None, node: str = "n1", durability: str = "disk") -> None:
        self.chain_id = str(uuid.uuid4())
        self.rows: list[ChainedEvent] = []
        self.refusals: dict[int, str] = {}
        self.full = False  # set it to refuse what is new
        self.broken: str | None = None  # set it to break the spool for good
        self._clock = clock or FakeClock()
        self._durability = durability
        self._held: dict[str, tuple[int, bytes]] = {}
        self._runs: dict[tuple[str, str | None, str], OpenRun] = {}
        self._early_ends: dict[tuple[str, str | None, str], int] = {}
        self._forwarded_seq = 0
        self._moved = asyncio.Condition()
        self._add(
            Event(
                kind=EventKind.CHAIN_STARTED,
                event_id=str(uuid.uuid4()),
                time_us=self._clock.time_us(),
                cluster="",
                job_id=None,
                node=node,
                changed_by=Actor.COLLECTOR,
                source="spool",
                note="a new spool",
            ),
            b"",
        )

    async def append(self, event: Event, digest: bytes) -> Receipt:
        self._check_serving()
        check_time_us("time_us", event.time_us)
        try:
            event = msgspec.structs.replace(event, event_id=str(uuid.UUID(event.event_id)))
        except ValueError as error:
            raise InvalidEvent("event_id", "must be a UUID") from error
        if event.event_id in self._held:
            seq, first = self._held[event.event_id]
            if first != digest:
                raise EventConflict(event.event_id)
            return Receipt(event_id=event.event_id, seq=seq, durability=self._durability, duplicate=True)
        if self.full:
            raise SpoolFull(0)
        event, opened, closed = self._effect(event)
        self._add(event, digest)
        async with self._moved:
            self._moved.notify_all()
        return Receipt(
            event_id=event.event_id, seq=len(self.rows), durability=self._durability, opened=opened, closed=closed
        )

    async def read_after(self, seq: int, *, limit: int, max_bytes: int) -> Sequence[ChainedEvent]:
        self._check_serving()
        batch: list[ChainedEvent] = []
        for row in self.rows[seq : seq + limit]:
            if batch and sum(len(one.payload) for one in batch) + len(row.payload) > max_bytes:
                break
            batch.append(row)
        return batch

    async def mark_forwarded(self, seq: int) -> None:
        self._check_serving()
        self._forwarded_seq = max(0, min(seq, len(self.rows)))

    async def record_refusal(self, seq: int, reason: str) -> None:
        self._check_serving()
        self.refusals[seq] = reason

    async def open_runs(self) -> Sequence[OpenRun]:
        self._check_serving()
        return sorted(self._runs.values(), key=lambda run: run.started_us)

    async def wait_beyond(self, seq: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: len(self.rows) > seq or self.broken is not None)
        self._check_serving()

    def status(self) -> SpoolStatus:
        waiting = self.rows[self._forwarded_seq :]
        return SpoolStatus(
            chain_id=self.chain_id,
            durability=self._durability,
            head_seq=len(self.rows),
            forwarded_seq=self._forwarded_seq,
            bytes_used=sum(len(row.payload) for row in self.rows),
            bytes_limit=1 << 30,
            oldest_unforwarded_us=waiting[0].received_us if waiting else None,
            refused=len(self.refusals),
        )

    def _check_serving(self) -> None:
        if self.broken is not None:
            raise SpoolBroken(self.broken)

    def _add(self, event: Event, digest: bytes) -> None:
        head = ChainHead(self.rows[-1].seq, self.rows[-1].row_hash) if self.rows else EMPTY_CHAIN
        row = link(
            head,
            chain_id=self.chain_id,
            event_id=event.event_id,
            kind=event.kind,
            time_us=event.time_us,
            received_us=self._clock.time_us(),
            payload=encode(event),
            salt=uuid.uuid4().bytes * 2,
        )
        self.rows.append(row)
        self._held[event.event_id] = (row.seq, digest)

    def _effect(self, event: Event) -> tuple[Event, OpenRun | None, OpenRun | None]:
        """The event with `opened_by`, the run it opened, the run it closed."""
        key = (event.cluster, event.job_id, event.node)
        held = self._runs.get(key)
        match event.kind:
            case EventKind.JOB_FOUND if held is not None:
                return event, None, None
            case EventKind.JOB_STARTED if event.time_us <= self._early_ends.pop(key, -1):
                return event, None, None
            case EventKind.JOB_STARTED if held is not None and is_of_an_earlier_run(event, held):
                return event, None, None
            case EventKind.JOB_STARTED | EventKind.JOB_FOUND:
                self._runs[key] = opened = _opened_run(event)
                return event, opened, held
            case EventKind.CHAIN_STARTED:
                return event, None, None
        return self._effect_on_run(event, key, held)

    def _effect_on_run(
        self, event: Event, key: tuple[str, str | None, str], held: OpenRun | None
    ) -> tuple[Event, OpenRun | None, OpenRun | None]:
        finished = event.kind is EventKind.JOB_FINISHED
        if held is None:
            if finished:
                self._early_ends[key] = event.time_us
            return event, None, None
        if event.opened_by not in (None, held.target.ref):
            return event, None, None
        if finished and event.opened_by is None and is_of_an_earlier_run(event, held):
            return event, None, None
        event = msgspec.structs.replace(event, opened_by=held.target.ref)
        if finished:
            return event, None, self._runs.pop(key)
        if event.kind is EventKind.CHECKPOINT and event.usage is not None:
            self._runs[key] = msgspec.structs.replace(held, usage=event.usage)
        return event, None, None


def _opened_run(event: Event) -> OpenRun:
    facts = event.facts or JobFacts()
    target = Target(
        ref=event.event_id,
        cluster=event.cluster,
        job_id=event.job_id or "",
        node=event.node,
        uid=facts.uid,
        sluid=event.sluid,
        whereabouts=event.whereabouts or Whereabouts(),
    )
    known = {name: getattr(facts, name) for name in ("user_name", "account", "partition", "qos", "cpus")}
    return OpenRun(
        target=target,
        started_us=event.time_us,
        gpus=None if facts.gpu_devices is None else len(facts.gpu_devices),
        found=event.kind is EventKind.JOB_FOUND,
        slurm_start_time=event.slurm_start_time,
        **known,
    )

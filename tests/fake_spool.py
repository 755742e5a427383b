"""The spool in memory, held to the same contract suite as the real one."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from jobtrail.core.gpu.ports import gpu_hook_of
from jobtrail.core.ports import OpenRun, Receipt, SpoolStatus, is_of_a_later_run, is_of_an_earlier_run
from jobtrail.core.runs.succession import end_of_replaced
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead, link
from jobtrail.domain.errors import (
    EventConflict,
    InvalidEvent,
    SpoolBroken,
    SpoolFull,
)
from jobtrail.domain.events import Actor, Event, EventKind, Whereabouts, check_time_us, encode
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.samples import Target
from tests.fakes import FakeClock


class MemorySpool:
    """An EventSpool in memory, with the promises of the real one (tests/contract/test_spool_contract.py)."""

    def __init__(
        self,
        *,
        clock: FakeClock | None = None,
        node: str = "n1",
        durability: str = "disk",
        boot_id: str | None = None,
    ) -> None:
        self.chain_id = str(uuid.uuid4())
        self.rows: list[ChainedEvent] = []
        self.refusals: dict[int, str] = {}
        self.full = False  # set it to refuse what is new
        self.broken: str | None = None  # set it to break the spool for good
        self._clock = clock or FakeClock()
        self._durability = durability
        self._boot_id = boot_id
        self._held: dict[str, tuple[int, bytes]] = {}
        self._runs: dict[tuple[str, str | None, str], OpenRun] = {}
        self._early_ends: dict[tuple[str, str | None, str], int] = {}
        self._closed: dict[tuple[str, str | None, str], tuple[OpenRun, int]] = {}
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
        inferred = self._end_of_earlier(event, opened, closed)
        if inferred is not None:
            self._add(inferred, inferred.event_id.encode())
        async with self._moved:
            self._moved.notify_all()
        return Receipt(
            event_id=event.event_id,
            seq=self._held[event.event_id][0],
            durability=self._durability,
            opened=opened,
            closed=closed,
            inferred=inferred,
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

    async def give_up_chain(self, after_seq: int, reason: str) -> NoReturn:
        self._check_serving()
        if self.full:
            raise SpoolFull(0)
        self.broken = f"a new chain begins with the next start: {reason}"
        raise SpoolBroken(self.broken)

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
            case EventKind.JOB_STARTED if self._closed_already(event, key):
                return event, None, None
            case EventKind.JOB_STARTED | EventKind.JOB_FOUND:
                self._runs[key] = opened = _opened_run(event, self._boot_id)
                self._closed.pop(key, None)
                return event, opened, held
            case EventKind.JOB_CLOSED if held and event.closing and event.opened_by == held.target.ref:
                self._closed[key] = held, event.closing.not_before_us
                return event, None, self._runs.pop(key)
            case EventKind.CHAIN_STARTED | EventKind.SLURM_REPORTED | EventKind.JOB_CLOSED | EventKind.COMMENT_WRITTEN:
                return event, None, None
        return self._effect_on_run(event, key, held)

    def _end_of_earlier(self, event: Event, opened: OpenRun | None, closed: OpenRun | None) -> Event | None:
        """The end of the run before, where a start shows it: that of the run replaced, or a late start itself."""
        if event.kind is not EventKind.JOB_STARTED:
            return None
        if opened is not None:
            return None if closed is None else end_of_replaced(closed, opened, event_id=str(uuid.uuid4()))
        held = self._runs.get((event.cluster, event.job_id, event.node))
        if held is None or not is_of_an_earlier_run(event, held):
            return None
        return end_of_replaced(_opened_run(event, self._boot_id), held, event_id=str(uuid.uuid4()))

    def _closed_already(self, event: Event, key: tuple[str, str | None, str]) -> bool:
        if key not in self._closed:
            return False
        run, ended_not_before_us = self._closed[key]
        return not is_of_a_later_run(event, run) and event.time_us <= ended_not_before_us

    def _of_closed_run(self, event: Event, key: tuple[str, str | None, str]) -> Event:
        if key not in self._closed:
            return event
        run, _ = self._closed[key]
        other = is_of_an_earlier_run(event, run) or is_of_a_later_run(event, run)
        if other or event.opened_by not in (None, run.target.ref):
            return event
        del self._closed[key]
        return msgspec.structs.replace(event, opened_by=run.target.ref)

    def _effect_on_run(
        self, event: Event, key: tuple[str, str | None, str], held: OpenRun | None
    ) -> tuple[Event, OpenRun | None, OpenRun | None]:
        finished = event.kind is EventKind.JOB_FINISHED
        if held is None:
            if finished:
                self._early_ends[key] = event.time_us
                event = self._of_closed_run(event, key)
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


def _opened_run(event: Event, boot_id: str | None) -> OpenRun:
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
        boot_id=boot_id,
        slurm_start_time=event.slurm_start_time,
        gpu_hook=gpu_hook_of(event),
        slurm_conf=event.environment.get("SLURM_CONF"),
        **known,
    )

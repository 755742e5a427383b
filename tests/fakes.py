"""In-memory implementations of the ports, held to the same contract suites as the real ones."""

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from jobtrail.core.facts import Fact
from jobtrail.core.ports import OpenRun, SampleRow, StoreReport
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead, broken_link
from jobtrail.domain.belonging import refused_part
from jobtrail.domain.benchmarks.holding import content_sha256, is_about_benchmarks, precedence, refusal
from jobtrail.domain.checkpoints import Anchor
from jobtrail.domain.errors import (
    ChainGap,
    InvalidEvent,
    StoreRefused,
    StoreUnavailable,
)
from jobtrail.domain.events import Event, decode
from jobtrail.domain.job import Run
from jobtrail.domain.joining import choose_run
from jobtrail.domain.people import about_nothing
from jobtrail.domain.samples import CpuTotals, FoundJob, Miss, Missed, NodeReading, Reading, Target
from jobtrail.domain.transitions import Rejected, apply, open_run

AnyFact = TypeVar("AnyFact", bound=Fact)


class MemorySink:
    """An EventSink in memory, with the promises of the real one (tests/contract/test_sink_contract.py)."""

    def __init__(self) -> None:
        self.chains: dict[str, list[ChainedEvent]] = {}
        self.runs: dict[tuple[str, str], list[Run]] = {}
        self.benchmarks: dict[str, Event] = {}  # the event that counts, by uid of the run
        self.conflicts: list[tuple[str, int]] = []
        self.trail_only: list[tuple[str, int]] = []
        self.unavailable: str | None = None  # set it to make the store go away
        self.refuses: set[str] = set()  # ids of events whose projection is refused
        self.anchor: Anchor | None = None  # what a report tells of checkpoints

    async def head(self, chain_id: str) -> ChainHead:
        self._check_available()
        return self._end(chain_id)

    async def store(self, events: Sequence[ChainedEvent], *, node: str, trail_only: str | None = None) -> StoreReport:
        self._check_available()
        if len({row.chain_id for row in events}) != 1:
            raise StoreRefused("a batch holds events of exactly one chain")
        chain_id = events[0].chain_id
        head = self._end(chain_id)
        if events[0].seq > head.seq + 1:
            raise ChainGap(head.seq)
        held = self.chains.get(chain_id, [])
        replays = [row for row in events if row.seq <= head.seq]
        conflicts = tuple(row.seq for row in replays if held[row.seq - 1].row_hash != row.row_hash)
        linked, problem = self._linked(head, events[len(replays) :])
        if trail_only is None and any(row.event_id in self.refuses for row in linked):
            raise StoreRefused("the projection refuses an event")
        self.conflicts += [(chain_id, seq) for seq in conflicts]
        if problem is not None:
            self.conflicts.append((chain_id, events[len(replays) + len(linked)].seq))
            if not linked and not replays:
                raise StoreRefused(problem)
        unapplied = self._apply(linked, trail_only)
        self.chains.setdefault(chain_id, []).extend(linked)
        return StoreReport(
            head=self._end(chain_id),
            stored=len(linked),
            replayed=len(replays) - len(conflicts),
            conflicts=conflicts,
            unapplied=unapplied,
            anchor=self.anchor,
        )

    def _end(self, chain_id: str) -> ChainHead:
        rows = self.chains.get(chain_id)
        return ChainHead(rows[-1].seq, rows[-1].row_hash) if rows else EMPTY_CHAIN

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

    def _apply(self, rows: Sequence[ChainedEvent], trail_only: str | None) -> dict[int, str]:
        if trail_only is not None:
            self.trail_only += [(row.chain_id, row.seq) for row in rows]
            return {}
        reasons = {row.seq: self._apply_one(row) for row in rows}
        return {seq: reason for seq, reason in reasons.items() if reason is not None}

    def _apply_one(self, row: ChainedEvent) -> str | None:
        try:
            event = decode(row.payload)
        except InvalidEvent as error:
            return str(error)
        if is_about_benchmarks(event):
            return self._apply_benchmark(event)
        if event.job_id is None:
            return None
        runs = self.runs.setdefault((event.cluster, event.job_id), [])
        chosen = choose_run(runs, event)
        if (reason := refused_part(runs, chosen, event)) is not None:
            return reason
        if chosen is None and (reason := about_nothing(event)) is not None:
            return reason
        result = apply(chosen or open_run(event.cluster, event.job_id, len(runs) + 1), event, created=chosen is None)
        if isinstance(result, Rejected):
            return result.reason
        if chosen is None:
            runs.append(result.run)
        else:
            runs[runs.index(chosen)] = result.run
        return None

    def _apply_benchmark(self, event: Event) -> str | None:
        """Hold a report. Nothing about a benchmark changes any run of a job."""
        if (reason := refusal(event)) is not None or event.benchmark is None:
            return reason
        run_uid = event.benchmark.run_uid
        held = self.benchmarks.setdefault(run_uid, event)
        assert held.benchmark is not None
        if content_sha256(held.benchmark) != content_sha256(event.benchmark):
            return f"benchmark run {run_uid} is held with other contents"
        self.benchmarks[run_uid] = min(held, event, key=precedence)
        return None


class MemorySampleSink:
    """A SampleSink in memory."""

    def __init__(self) -> None:
        self.rows: list[SampleRow] = []
        self.unavailable: str | None = None
        self.retry_after_seconds: float | None = None
        self.refusing = False

    async def write(self, rows: Sequence[SampleRow]) -> int:
        if self.unavailable is not None:
            raise StoreUnavailable(self.unavailable, retry_after_seconds=self.retry_after_seconds)
        if self.refusing:
            raise StoreRefused("refused")
        self.rows += rows
        return len(rows)


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

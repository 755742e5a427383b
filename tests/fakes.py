"""In-memory implementations of the ports, held to the same contract suites as the real ones."""

from collections.abc import Sequence

from jobtrail.core.ports import SampleRow, StoreReport
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead, broken_link
from jobtrail.domain.errors import ChainGap, InvalidEvent, StoreRefused, StoreUnavailable
from jobtrail.domain.events import decode
from jobtrail.domain.job import Run
from jobtrail.domain.transitions import Rejected, apply, choose_run, open_run


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

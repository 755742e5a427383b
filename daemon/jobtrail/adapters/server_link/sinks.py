"""The ports of the node role, at a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from jobtrail.adapters.server_link.answers import RowsRefused
from jobtrail.adapters.server_link.client import ServerLink
from jobtrail.core.facts import SamplesDropped
from jobtrail.core.gpu.ports import EnergySampleRow, GpuSampleRow
from jobtrail.core.link.protocol import (
    BATCHES_PATH,
    ENERGY_SAMPLES_PATH,
    GPU_SAMPLES_PATH,
    HEAD_PATH,
    JOB_SAMPLES_PATH,
    OVER_RUNS_PATH,
    EnergySamples,
    EventBatch,
    GpuSamples,
    JobSamples,
    RunsAsked,
    RunsOver,
)
from jobtrail.core.ports import SampleRow, StoreReport
from jobtrail.core.runs.over_runs import Over
from jobtrail.domain.audit import ChainedEvent, ChainHead
from jobtrail.domain.errors import StoreRefused, StoreUnavailable
from jobtrail.domain.samples import Target

_heads = msgspec.json.Decoder(ChainHead)
_reports = msgspec.json.Decoder(StoreReport)
_over = msgspec.json.Decoder(RunsOver)
Answer = TypeVar("Answer")
Row = TypeVar("Row")


class LinkEvents:
    """An EventSink at a server. A batch whose answer was lost is sent again, and compared with what is held."""

    def __init__(self, link: ServerLink) -> None:
        self._link = link

    async def head(self, chain_id: str) -> ChainHead:
        """The last row of this chain that the servers' store holds. Raises StoreUnavailable."""
        try:
            return _understood(_heads, await self._link.ask("head", HEAD_PATH.format(chain_id=chain_id)))
        except StoreRefused as error:  # of a chain's end there is no content to refuse
            raise StoreUnavailable(str(error)) from error

    async def store(self, events: Sequence[ChainedEvent], *, node: str, trail_only: str | None = None) -> StoreReport:
        """Store a batch of one chain. `node` is what the link's own settings say to the server.

        Raises StoreUnavailable, ChainGap, StoreRefused.
        """
        del node
        if not events:
            raise StoreRefused("a batch holds events of exactly one chain, this one of 0")
        batch = EventBatch(events=tuple(events), trail_only=trail_only is not None)
        path = BATCHES_PATH.format(chain_id=events[0].chain_id)
        return _understood(_reports, await self._link.ask("events", path, batch))


class LinkSamples:
    """A SampleSink, GpuSampleSink and EnergySampleSink at a server.

    Rows whose answer was lost are sent again, and may then be held twice: a sample has no key, and the same reading
    twice changes no maximum, no counter's growth and no average by much.
    """

    def __init__(self, link: ServerLink) -> None:
        self._link = link

    async def write(self, rows: Sequence[SampleRow]) -> int:
        """Store readings of jobs; how many the server took. Raises StoreUnavailable, StoreRefused."""
        return await self._send("job_samples", JOB_SAMPLES_PATH, rows, lambda sent: JobSamples(rows=sent))

    async def write_gpus(self, rows: Sequence[GpuSampleRow]) -> int:
        """Store readings of GPUs; how many the server took. Raises StoreUnavailable, StoreRefused."""
        return await self._send("gpu_samples", GPU_SAMPLES_PATH, rows, lambda sent: GpuSamples(rows=sent))

    async def write_energy(self, rows: Sequence[EnergySampleRow]) -> int:
        """Store energy of open runs; how many the server took. Raises StoreUnavailable, StoreRefused."""
        return await self._send("energy_samples", ENERGY_SAMPLES_PATH, rows, lambda sent: EnergySamples(rows=sent))

    async def _send(self, what: str, path: str, rows: Sequence[Row], body: Callable[[tuple[Row, ...]], object]) -> int:
        """Send rows; how many were taken. Where the server names some that it refuses, these are dropped and the others
        sent again."""
        kept = tuple(rows)
        while True:
            try:
                await self._link.ask(what, path, body(kept))
                break
            except RowsRefused as error:  # another server may know of other rows
                left = tuple(row for place, row in enumerate(kept) if place not in error.rows)
                if not left or len(left) == len(kept):
                    raise
                kept = left
        if len(kept) < len(rows):
            self._link.tell(SamplesDropped(rows=len(rows) - len(kept)))  # now: until then all rows may come again
        return len(kept)


class LinkOverRuns:
    """An OverRuns at a server."""

    def __init__(self, link: ServerLink) -> None:
        self._link = link

    async def over(self, targets: Sequence[Target]) -> Mapping[str, Over]:
        """Those of `targets` that are over, by ref. Raises StoreUnavailable, StoreRefused."""
        if not targets:
            return {}
        asked = RunsAsked(targets=tuple(targets))
        return _understood(_over, await self._link.ask("over_runs", OVER_RUNS_PATH, asked)).runs


def _understood(decoder: msgspec.json.Decoder[Answer], answer: bytes) -> Answer:
    try:
        return decoder.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreUnavailable(f"a server's answer is not understood: {str(error)[:200]}") from error

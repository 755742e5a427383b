"""The readers of GPUs, one for each vendor: asked together, left alone where there are no GPUs, told about."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from jobtrail.core.facts import GpuErrorsTold, GpuLookFailed, GpusLooked, GpuValueAbsent, Observer
from jobtrail.core.ports import GpuSource
from jobtrail.domain.gpus import GpuLook

NO_GPUS = "no_gpus"  # the problem of a source that is not expected to have any: no failure
REST_LOOKS = 20  # for how many looks a source that says so is not asked again
MOST_TOLD = 10_000  # absent values that are remembered as told


class GpuSources:
    """Looks at the GPUs of all vendors at once."""

    def __init__(self, sources: Sequence[GpuSource], tell: Observer) -> None:
        self._sources = sources
        self._tell = tell
        self._resting: dict[int, int] = {}  # number of the source -> looks it is still left alone
        self._problems: dict[str, str] = {}  # vendor -> why its last look gave nothing
        self._told: set[tuple[str, str, str]] = set()

    async def look(self) -> tuple[GpuLook, ...]:
        """One look at each source; those without GPUs are not asked for a while."""
        asked = [number for number in range(len(self._sources)) if self._resting.get(number, 0) <= 0]
        self._resting = {number: looks - 1 for number, looks in self._resting.items() if looks > 1}
        looks = await asyncio.gather(*(self._sources[number].look() for number in asked))
        for number, look in zip(asked, looks, strict=True):
            if look.problem == NO_GPUS:
                self._resting[number] = REST_LOOKS
                self._problems.pop(look.vendor, None)
            elif look.problem is not None:
                self._failed(look)
            else:
                self._succeeded(look)
        return tuple(looks)

    async def close(self) -> None:
        """Let the drivers go."""
        for source in self._sources:
            await source.close()

    def _failed(self, look: GpuLook) -> None:
        reason = look.problem or ""
        repeated = self._problems.get(look.vendor) == reason
        self._problems[look.vendor] = reason
        self._tell(GpuLookFailed(vendor=look.vendor, reason=reason, detail=look.detail or "", repeated=repeated))

    def _succeeded(self, look: GpuLook) -> None:
        self._problems.pop(look.vendor, None)
        self._tell(GpusLooked(vendor=look.vendor, gpus=len(look.readings), seconds=look.seconds))
        for reading in look.readings:
            for code, times in Counter(event.code for event in reading.events).items():
                self._tell(GpuErrorsTold(vendor=look.vendor, gpu_id=reading.gpu.gpu_id, code=code, times=times))
            for value, reason in reading.absent.items():
                key = (reading.gpu.gpu_id, value, reason)
                if key in self._told or len(self._told) >= MOST_TOLD:
                    continue
                self._told.add(key)
                self._tell(GpuValueAbsent(vendor=look.vendor, gpu_id=reading.gpu.gpu_id, value=value, reason=reason))

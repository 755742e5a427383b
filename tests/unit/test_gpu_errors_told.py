"""Errors that drivers tell of GPUs become facts, those of a look counted by GPU and code."""

import asyncio

from jobtrail.core.facts import Fact, GpuErrorsTold
from jobtrail.core.gpu.sources import GpuSources
from jobtrail.domain.gpus import Gpu, GpuEvent, GpuLook, GpuReading


class Driver:
    """A GpuSource that gives one look after the other."""

    def __init__(self, *looks: tuple[GpuReading, ...]) -> None:
        self._looks = list(looks)

    async def look(self) -> GpuLook:
        return GpuLook(vendor="nvidia", time_us=1, readings=self._looks.pop(0))

    async def close(self) -> None:
        self._looks.clear()


def reading(name: str, *codes: int) -> GpuReading:
    events = tuple(GpuEvent(time_us=1, code=code) for code in codes)
    return GpuReading(gpu=Gpu(gpu_id=name, vendor="nvidia"), time_us=1, events=events)


def test_errors_of_a_look_are_told_by_gpu_and_code() -> None:
    facts: list[Fact] = []
    driver = Driver((reading("a", 79, 31, 79), reading("b")), (reading("a"), reading("b", 79)))

    async def two_looks() -> None:
        sources = GpuSources([driver], facts.append)
        await sources.look()
        await sources.look()

    asyncio.run(two_looks())
    assert [fact for fact in facts if isinstance(fact, GpuErrorsTold)] == [
        GpuErrorsTold(vendor="nvidia", gpu_id="a", code=79, times=2),
        GpuErrorsTold(vendor="nvidia", gpu_id="a", code=31, times=1),
        GpuErrorsTold(vendor="nvidia", gpu_id="b", code=79, times=1),
    ]

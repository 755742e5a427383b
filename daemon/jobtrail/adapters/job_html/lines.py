"""Which charts a run has, and their lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jobtrail.adapters.job_html.charts import Chart, Line
from jobtrail.adapters.job_html.scales import BYTES, PERCENT, WATTS, energy
from jobtrail.domain.advice_words import clock
from jobtrail.domain.job_report_timeline import GpuTimeline, NodeTimeline, Timeline

SHORTEST_ID = len("GPU-5f2d77a1")
_COMPONENTS: Mapping[str, str] = MappingProxyType({"gpu": "GPUs", "cpu": "CPUs", "dram": "memory"})


def charts_of(timeline: Timeline) -> Iterator[Chart]:
    """All charts; those without a value are not drawn."""
    each = f"in each {clock(max(1.0, timeline.bucket_seconds))}"
    nodes, gpus = timeline.nodes, timeline.gpus
    yield Chart(
        key="cpu", title="CPU", about=f"of the CPUs allocated, the mean {each}", scale=PERCENT,
        lines=[_line(node.node, node.points, "cpu_percent") for node in nodes],
    )  # fmt: skip
    yield Chart(
        key="memory", title="Memory", about=f"in use, file cache included, the most {each}", scale=BYTES,
        lines=[*(_line(node.node, node.points, "memory_bytes") for node in nodes), *_limits(nodes)],
    )  # fmt: skip
    yield Chart(
        key="gpu-utilisation", title="GPU utilisation", about=f"of each GPU, the mean {each}", scale=PERCENT,
        lines=_of_gpus(gpus, "utilization_percent"),
    )  # fmt: skip
    yield Chart(
        key="gpu-memory", title="GPU memory", about=f"in use on each GPU, the most {each}", scale=BYTES,
        lines=_of_gpus(gpus, "memory_bytes"),
    )  # fmt: skip
    yield Chart(
        key="gpu-power", title="GPU power", about=f"of each board, the mean {each}", scale=WATTS,
        lines=_of_gpus(gpus, "power_watts"),
    )  # fmt: skip
    held = {one.component: one for one in timeline.energy}
    most = max((point.joules for one in timeline.energy for point in one.points), default=0.0)
    yield Chart(
        key="energy", title="Energy", about="used since the start, by component", scale=energy(most),
        lines=[_line(name, held[key].points, "joules") for key, name in _COMPONENTS.items() if key in held],
    )  # fmt: skip


def _line(name: str, points: Sequence[Any], value: str) -> Line:
    return Line(name=name, points=[(point.seconds, getattr(point, value), point.gap) for point in points])


def _of_gpus(gpus: Sequence[GpuTimeline], value: str) -> list[Line]:
    several_nodes = len({gpu.node for gpu in gpus}) > 1
    length = _telling([gpu.gpu_id for gpu in gpus])
    names = [gpu.gpu_id[:length] for gpu in gpus]
    return [
        _line(f"{gpu.node} {name}" if several_nodes else name, gpu.points, value)
        for gpu, name in zip(gpus, names, strict=True)
    ]


def _telling(ids: Sequence[str]) -> int:
    """How much of the ids tells all of them apart: of NVIDIA's the first of their groups; the table has them whole."""
    longest = max(map(len, ids), default=0)
    lengths = range(SHORTEST_ID, longest)
    return next((length for length in lengths if len({one[:length] for one in ids}) == len({*ids})), longest)


def _limits(nodes: Sequence[NodeTimeline]) -> Iterator[Line]:
    """The memory limit once for each value it had."""
    seen: set[int] = set()
    for node in nodes:
        points = [(point.seconds, point.memory_limit_bytes) for point in node.points]
        known = [(at, limit) for at, limit in points if limit is not None]
        values = {limit for _, limit in known}
        if known and not values <= seen:
            seen |= values
            (first, limit), (last, _) = known[0], known[-1]
            changing = [(at, float(value), False) for at, value in known]
            steady = [(first, float(limit), False), (last, float(limit), False)]
            name = "limit" if len(nodes) == 1 else f"limit ({node.node})" if len(seen) > 1 else "limit of a node"
            yield Line(name=name, points=steady if len(values) == 1 else changing, is_limit=True)

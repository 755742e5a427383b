"""The time lines of a run: what samples said of it, thinned out, and the marks of its trail.

Moments are seconds since the run began. A value that no sample had is None, and `gap` says that nobody looked for
longer than usual before a point, so that no line is drawn across.
"""

from __future__ import annotations

import msgspec

MOST_POINTS = 600  # of a line: a screen shows no more
LEAST_POINTS = 60
ALL_POINTS = 9_000  # of all lines together, so that a page stays small
MOST_NODES = 8
MOST_GPUS = 16
LINES_OF_A_NODE = 2  # CPU and memory
LINES_OF_A_GPU = 3  # utilisation, memory, power
LINES_OF_ENERGY = 3  # GPUs, CPUs, memory


class NodePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A node's part at a time: the mean CPU use of what it had there, the most memory."""

    seconds: float
    gap: bool = False
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None


class GpuPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU at a time: mean utilisation and power, the most memory."""

    seconds: float
    gap: bool = False
    utilization_percent: float | None = None
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_watts: float | None = None


class EnergyPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Joules that a component had used up to a time, over the nodes shown."""

    seconds: float
    gap: bool = False
    joules: float


class NodeTimeline(msgspec.Struct, frozen=True, kw_only=True):
    """One node's points."""

    node: str
    points: tuple[NodePoint, ...]


class GpuTimeline(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU's points."""

    node: str
    gpu_id: str
    points: tuple[GpuPoint, ...]


class EnergyTimeline(msgspec.Struct, frozen=True, kw_only=True):
    """One component's points; `component` is gpu, cpu or dram."""

    component: str
    points: tuple[EnergyPoint, ...]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the trail, or an error that a GPU's driver told."""

    seconds: float
    what: str
    by: str | None = None
    node: str | None = None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """All lines of a run that lasted `seconds`; of many nodes and GPUs some, as `nodes_total` and `gpus_total` show."""

    seconds: float
    bucket_seconds: float  # what one point stands for
    nodes: tuple[NodeTimeline, ...] = ()
    gpus: tuple[GpuTimeline, ...] = ()
    energy: tuple[EnergyTimeline, ...] = ()
    marks: tuple[Mark, ...] = ()
    nodes_total: int = 0
    gpus_total: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw, as of a run whose samples are no longer kept."""
        return not (self.nodes or self.gpus or self.energy)


def points_of_a_line(nodes: int, gpus: int) -> int:
    """How many points a line may have where so many nodes and GPUs are drawn."""
    lines = LINES_OF_A_NODE * nodes + LINES_OF_A_GPU * gpus + LINES_OF_ENERGY
    return max(LEAST_POINTS, min(MOST_POINTS, ALL_POINTS // lines))

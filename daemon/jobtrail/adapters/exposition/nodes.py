"""The nodes on the page: this one as the daemon measures it, and all of the cluster as Slurm describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

from jobtrail.adapters.exposition.text import Column, Family, Series, SeriesLines, Value, header, small
from jobtrail.domain.slurm import NodeRecord

LABELS = ("node",)
# What the daemon measures on its own node, in the order of Exposition's values.
OWN_FAMILIES: tuple[Family, ...] = (
    Family("hpc_node_cpu_usage_percent", "gauge", "CPU busy between the last two looks, per cent of all CPUs.", LABELS),
    Family("hpc_node_memory_usage_bytes", "gauge", "Memory that is not available to new processes.", LABELS),
    Family("hpc_node_job_count", "untyped", "Jobs running on this node, on this page or not.", LABELS),
    Family("hpc_node_total_memory_bytes", "gauge", "Memory of the node.", LABELS),
    Family("hpc_node_total_cpus", "gauge", "CPUs of the node.", LABELS),
    Family("hpc_node_cpu_load", "gauge", "Load average over one minute.", LABELS),
)
# What Slurm alone knows.
SLURM_FAMILIES: tuple[Family, ...] = (
    Family("hpc_node_state", "gauge", "State of the node in Slurm: always 1, the labels tell.",
           ("node", "state", "flags")),
    Family("hpc_node_cpus_allocated", "gauge", "CPUs allocated to jobs.", LABELS),
    Family("hpc_node_memory_allocated_bytes", "gauge", "Memory allocated to jobs.", LABELS),
    Family("hpc_node_gpus", "gauge", "GPUs of the node in Slurm's configuration.", LABELS),
    Family("hpc_node_gpus_allocated", "gauge", "GPUs allocated to jobs.", LABELS),
)  # fmt: skip
NODE_FAMILIES = (*OWN_FAMILIES, *SLURM_FAMILIES)

_STATE = "hpc_node_state"
_COLUMNS: Mapping[str, Callable[[NodeRecord], Value]] = {
    _STATE: lambda _: 1,
    "hpc_node_cpu_load": lambda node: node.cpu_load,
    "hpc_node_total_cpus": lambda node: node.cpus,
    "hpc_node_cpus_allocated": lambda node: node.cpus_allocated,
    "hpc_node_total_memory_bytes": lambda node: node.memory_bytes,
    "hpc_node_memory_allocated_bytes": lambda node: node.memory_allocated_bytes,
    "hpc_node_gpus": lambda node: node.gpus,
    "hpc_node_gpus_allocated": lambda node: node.gpus_allocated,
}
_BUSY = frozenset({"allocated", "mixed"})


def shown_state(node: NodeRecord) -> str:
    """The state in the words of sinfo(1): of a node that takes no new jobs, whether the last one has left it."""
    if "drain" in node.flags:
        if node.state in _BUSY or (node.state == "idle" and "completing" in node.flags):
            return "draining"
        if node.state == "idle":
            return "drained"
    return node.state


class NodeTable:
    """The families of nodes. The text of the cluster's nodes is kept while the board holds the same answer of Slurm.

    Where this daemon's own node has a measured value, Slurm's of the same family is left out: one node is one series.
    """

    def __init__(self, own_node: str) -> None:
        self._own = own_node
        self._nodes: Sequence[NodeRecord] | None = None
        self._measured: frozenset[str] = frozenset()
        self._labels: list[dict[str, str | None]] = []
        self._lines = {
            family.name: SeriesLines(family, Series(family.name)) for family in NODE_FAMILIES if family.name in _COLUMNS
        }
        self._texts: dict[str, bytes] = {}

    def render(self, nodes: Sequence[NodeRecord] | None, own: Sequence[Value]) -> list[bytes]:
        """The text of each family that has a series; `own` are this node's values in the order of OWN_FAMILIES."""
        measured = {
            family.name: text
            for family, value in zip(OWN_FAMILIES, own, strict=True)
            if (text := small(family, {self._own: value}))
        }
        if nodes is not self._nodes or measured.keys() != self._measured:
            self._rewrite(nodes or (), measured.keys())
            self._nodes, self._measured = nodes, frozenset(measured)
        parts = []
        for family in NODE_FAMILIES:
            text, of_cluster = measured.get(family.name, b""), self._texts.get(family.name, b"")
            if text or of_cluster:
                parts.append((text[:-1] or header(family)) + of_cluster + b"\n")
        return parts

    def _rewrite(self, nodes: Sequence[NodeRecord], measured: Set[str]) -> None:
        labels: list[dict[str, str | None]] = [
            {"node": node.name, "state": shown_state(node), "flags": ",".join(sorted(node.flags))} for node in nodes
        ]
        same_nodes = [one["node"] for one in labels] == [one["node"] for one in self._labels]
        for name, lines in self._lines.items():
            if not same_nodes or (name == _STATE and labels != self._labels):
                lines.relabel(labels)
        self._labels = labels
        for name, read in _COLUMNS.items():
            column: Column = [None if name in measured and node.name == self._own else read(node) for node in nodes]
            self._texts[name] = self._lines[name].render({name: column})

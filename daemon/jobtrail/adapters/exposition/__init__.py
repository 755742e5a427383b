"""/metrics in the Prometheus text format 0.0.4, rendered from the board in memory.

A family's lines lie together, so the page is made column by column: one value of all jobs is turned into text in one
call and woven between line beginnings that are made once and kept until jobs come or go. prometheus_client, which makes
an object and a format call of every line, takes tens of times as long (`python -m benchmarks exposition`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobtrail.adapters.exposition.aliases import ALIAS_FAMILIES, Aliases
from jobtrail.adapters.exposition.benchmarks import BENCHMARK_FAMILIES, BenchmarkText
from jobtrail.adapters.exposition.gpus import GPU_FAMILIES, GpuTable
from jobtrail.adapters.exposition.jobs import JOB_FAMILIES, JobTable
from jobtrail.adapters.exposition.nodes import NODE_FAMILIES, NodeTable
from jobtrail.adapters.exposition.text import PLAIN_JOBS, Family, Value, ones, small
from jobtrail.core.ports import Clock
from jobtrail.core.runs.board import Board
from jobtrail.domain.states import State

__all__ = ["ALIAS_FAMILIES", "FAMILIES", "PLAIN_JOBS", "Exposition"]

CLUSTER_FAMILIES: tuple[Family, ...] = (
    Family("hpc_job_state_total", "untyped", "Jobs now in each state (a count that can fall).", ("state",)),
    Family("hpc_job_total", "untyped", "Jobs on record (a count that can fall).", ()),
    Family("hpc_job_suspended", "gauge", "1 while Slurm says that the job is suspended.", ("cluster", "job_id")),
)
SHED_FAMILY = Family("jobtrail_series_shed_jobs_total", "counter", "Jobs left off this page by metrics.max_jobs.", ())
FAMILIES: tuple[Family, ...] = (
    *JOB_FAMILIES, *GPU_FAMILIES, *NODE_FAMILIES, *CLUSTER_FAMILIES, *BENCHMARK_FAMILIES, SHED_FAMILY,
)  # fmt: skip


class Exposition:
    """Renders the page from memory; nothing is read and the board is not changed.

    `own_metrics` gives the daemon's families about itself, as text that ends with a newline. `aliases` are the tools
    whose names for the same things stand on the page as well.
    """

    def __init__(
        self,
        board: Board,
        own_metrics: Callable[[], bytes],
        *,
        node: str,
        clock: Clock,
        aliases: Sequence[str] = (),
    ) -> None:
        self._board = board
        self._own_metrics = own_metrics
        self._clock = clock
        self._jobs = JobTable()
        self._gpus = GpuTable(node)
        self._nodes = NodeTable(node)
        self._benchmarks = BenchmarkText()
        self._aliases = Aliases(aliases, node=node)

    def render(self) -> bytes:
        """The whole page, in UTF-8. A family without a series is left out."""
        board = self._board
        parts = [*self._jobs.render(board.jobs, self._clock.time_us())]
        parts += self._gpus.render(board.jobs, board.gpus)
        parts += self._nodes.render(board.cluster_nodes, self._own_values())
        if board.job_states is not None:  # what the store did not name, it has none of
            states: dict[str, Value] = {**dict.fromkeys(map(str, State), 0), **board.job_states}
            parts.append(small(CLUSTER_FAMILIES[0], states))
            parts.append(small(CLUSTER_FAMILIES[1], {"": sum(board.job_states.values())}))
        parts.append(ones(CLUSTER_FAMILIES[2], board.suspended_jobs))
        parts.append(self._benchmarks.render(board.benchmarks.page))
        parts += self._aliases.render(board)
        parts.append(small(SHED_FAMILY, {"": board.shed_jobs_total}))
        parts.append(self._own_metrics())
        return b"".join(parts)

    def _own_values(self) -> tuple[Value, ...]:
        """In the order of OWN_FAMILIES."""
        board, live = self._board, self._board.live_jobs()
        if board.node is None:
            return (None, None, live, None, None, None)
        node = board.node
        return (board.node_cpu_percent, node.memory_used_bytes, live, node.memory_total_bytes, node.cpus, node.load_1m)

"""Table `nodes`: each node's last known state, written by the server role and read by the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.values import encode, to_datetime
from jobtrail.core.query_ports import NodeFilter, NodeList
from jobtrail.domain.slurm import NodeRecord

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

LAST_SECOND = 253_402_300_799  # of the year 9999, the last that a datetime can tell


class PostgresNodes:
    """A NodeStore and NodeReader on a PostgreSQL pool."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def write_nodes(self, cluster: str, nodes: Sequence[NodeRecord], *, asked_us: int) -> None:
        """Replace what is held of a cluster's nodes, in one statement. Raises StoreUnavailable, StoreRefused."""
        rows = encode([_row(node) for node in nodes])
        async with session(self._pool, self._timeout) as connection:
            await connection.execute(SQL["nodes_write"], cluster, to_datetime(asked_us), rows)

    async def list_nodes(self, wanted: NodeFilter, *, limit: int, offset: int) -> NodeList:
        """Nodes that match, by name. Raises StoreUnavailable."""
        conditions = (wanted.state, wanted.partition, wanted.cluster)
        async with session(self._pool, self._timeout) as connection:
            rows = await connection.fetch(SQL["nodes_list"], *conditions, limit, offset)
            total = await connection.fetchval(SQL["nodes_count"], *conditions)
        return NodeList(nodes=[dict(row.items()) for row in rows], total=total)


def _row(node: NodeRecord) -> dict[str, Any]:
    return {
        "node": _text(node.name),
        "state": _text(node.state),
        "state_flags": sorted(map(_text, node.flags)),  # sorted, so that another order is not another state
        "reason": None if node.reason is None else _text(node.reason),
        "cpus": node.cpus,
        "cpus_allocated": node.cpus_allocated,
        "cpu_load": node.cpu_load,
        "memory_bytes": node.memory_bytes,
        "memory_allocated_bytes": node.memory_allocated_bytes,
        "memory_free_bytes": node.memory_free_bytes,
        "gpus": node.gpus,
        "gpus_allocated": node.gpus_allocated,
        "boot_time": _moment(node.boot_time),
        "slurmd_start_time": _moment(node.slurmd_start_time),
        "slurmd_version": None if node.version is None else _text(node.version),
        "partitions": [_text(partition) for partition in node.partitions],
    }


def _text(text: str) -> str:
    """As PostgreSQL can hold it: without U+0000."""
    return text.replace("\x00", "\ufffd")


def _moment(seconds: int | None) -> Any:
    """A time in Unix seconds; None also for one beyond all calendars, Slurm's way to say infinite or unknown."""
    return to_datetime(seconds * 1_000_000) if seconds is not None and 0 < seconds <= LAST_SECOND else None

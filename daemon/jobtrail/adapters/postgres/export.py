"""The trail as lines of JSON, for those who verify it without this program and without the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrail.adapters.postgres.anchors import sealed, to_us
from jobtrail.adapters.postgres.pool import transaction
from jobtrail.adapters.postgres.removals import load_removals
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.checkpoints import ZERO_HASH, Leaf, path_in, tree

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection, Pool

VERSION = 1
ROWS_AT_ONCE = 500
PATIENCE_SECONDS = 86_400.0
LAST_SEQ = 2**62

Line = dict[str, Any]


class PostgresExport:
    """Exports on a PostgreSQL pool, each on one snapshot. Needs the rights of jobtrail_auditor."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def trail(self) -> AsyncIterator[Line]:
        """Everything: checkpoints first, then each chain with its rows. Raises StoreUnavailable."""
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(SQL["verify_hold_still"])
            yield {"jobtrail_export": VERSION, "scope": "trail"}
            async for row in connection.cursor(SQL["verify_checkpoints"], 0, prefetch=50, timeout=PATIENCE_SECONDS):
                columns = (row["chains"] or (), row["seqs"] or (), row["hashes"] or (), row["store_hashes"] or ())
                leaves = [[chain, seq, one.hex(), other.hex()] for chain, seq, one, other in zip(*columns, strict=True)]
                yield _checkpoint(row) | {"leaves": leaves}
            for chain in await connection.fetch(SQL["verify_chains"], timeout=PATIENCE_SECONDS):
                yield _chain(chain)
                async for line in _rows(connection, chain["chain_id"], 0, LAST_SEQ):
                    yield line

    async def evidence(self, job_id: str, cluster: str | None) -> AsyncIterator[Line]:
        """What proves the rows of one job: they, the rows around them without content, and paths to signed roots.

        Yields a heading only when nothing is known of the job. Raises StoreUnavailable.
        """
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(SQL["verify_hold_still"])
            yield {"jobtrail_export": VERSION, "scope": job_id}
            removals = await load_removals(connection)
            wanted: dict[str, set[int]] = {}
            stretches: dict[tuple[str, int], int] = {}
            for row in await connection.fetch(SQL["verify_job_rows"], job_id, cluster):
                wanted.setdefault(row["chain_id"], set()).add(row["seq"])
                key = row["chain_id"], row["before"] or 0
                stretches[key] = max(stretches.get(key, 0), row["after"] or row["seq"])
            proofs: dict[int, list[tuple[str, int]]] = {}
            leaves: dict[tuple[str, int], Any] = {}
            for (chain_id, before), last in stretches.items():
                for row in await connection.fetch(SQL["verify_leaves"], chain_id, before - 1, last):
                    if row["head_seq"] in (before, last):
                        leaves[chain_id, row["head_seq"]] = row
                        proofs.setdefault(row["number"], []).append((chain_id, row["head_seq"]))
            for line in await _proved(connection, proofs):
                yield line
            for (chain_id, before), last in stretches.items():
                yield await _stretch(connection, chain_id, last, leaves.get((chain_id, before)))
                async for line in _rows(connection, chain_id, before, last, only=wanted[chain_id]):
                    if line["payload"] is None and "withheld" not in line:
                        line["removed_under"] = removals.of_payload(chain_id, line["seq"])
                    yield line


async def _stretch(connection: Connection, chain_id: str, last: int, begin: Any) -> Line:
    rows = await connection.fetch(SQL["verify_rows"], chain_id, last - 1, last)
    end = rows[0] if rows else None
    return {
        "type": "chain",
        "chain_id": chain_id,
        "node": "" if end is None else end["node"],
        "head_seq": last,
        "head_hash": "" if end is None else end["row_hash"].hex(),
        "store_hash": "" if end is None else (end["store_hash"] or ZERO_HASH).hex(),
        "begin": begin and [begin["head_seq"], begin["head_hash"].hex(), begin["store_hash"].hex()],
    }


async def _proved(connection: Connection, proofs: dict[int, list[tuple[str, int]]]) -> list[Line]:
    """Checkpoints with the paths of some leaves, in order."""
    lines: list[Line] = []
    for row in await connection.fetch(SQL["verify_some_checkpoints"], sorted(proofs), timeout=PATIENCE_SECONDS):
        leaves = [
            Leaf(chain_id=chain, head_seq=seq, head_hash=one, store_hash=other)
            for chain, seq, one, other in zip(
                row["chains"], row["seqs"], row["hashes"], row["store_hashes"], strict=True
            )
        ]
        levels = tree(leaves)
        places = {(leaf.chain_id, leaf.head_seq): index for index, leaf in enumerate(leaves)}
        shown = [_proof(leaves[places[key]], places[key], levels) for key in proofs[row["number"]]]
        lines.append(_checkpoint(row) | {"proofs": shown})
    return lines


def _proof(leaf: Leaf, index: int, levels: Sequence[Sequence[bytes]]) -> Line:
    return {
        "leaf": [leaf.chain_id, leaf.head_seq, leaf.head_hash.hex(), leaf.store_hash.hex()],
        "index": index,
        "path": [one.hex() for one in path_in(levels, index)],
    }


async def _rows(
    connection: Connection, chain_id: str, after: int, last: int, *, only: set[int] | None = None
) -> AsyncIterator[Line]:
    """Rows of a chain; those not in `only` without what they say, but for the hashes over it."""
    cursor = connection.cursor(
        SQL["verify_rows"], chain_id, after, last, prefetch=ROWS_AT_ONCE, timeout=PATIENCE_SECONDS
    )
    async for row in cursor:
        line = _row(row)
        if only is not None and row["seq"] not in only:
            line |= {"payload": None, "salt": None, "snapshot": None, "person": None, "sent_by": None, "withheld": True}
        yield line


def _checkpoint(row: Any) -> Line:
    one = sealed(row)
    return {
        "type": "checkpoint",
        "number": row["number"],
        "previous": row["previous"].hex(),
        "root": row["root"].hex(),
        "leaf_count": row["leaf_count"],
        "total_rows": row["total_rows"],
        "time_us": one.checkpoint.time_us,
        "digest": row["digest"].hex(),
        "signature": row["signature"] and row["signature"].hex(),
        "key_id": row["key_id"],
    }


def _chain(row: Any) -> Line:
    return {
        "type": "chain",
        "chain_id": row["chain_id"],
        "node": row["node"],
        "head_seq": row["head_seq"],
        "head_hash": row["head_hash"] and row["head_hash"].hex(),
        "store_hash": row["store_hash"] and row["store_hash"].hex(),
    }


_TIMES = {"changed_at": "time_us", "received_at": "received_us", "stored_at": "stored_us"}


def _row(row: Any) -> Line:
    line: Line = {"type": "row"}
    for name, value in row.items():
        if name in _TIMES:
            line[_TIMES[name]] = to_us(value)
        else:
            line[name] = value.hex() if isinstance(value, bytes) else value
    return line


def encoded(line: Line) -> bytes:
    """A line of the file."""
    return msgspec.json.encode(line) + b"\n"

"""The trail as a sealer sees it: what is not sealed, recomputed here, and the next checkpoint put in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobtrail.adapters.postgres.anchors import join_path, sealed
from jobtrail.adapters.postgres.pool import session, transaction
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.trail_rows import trail_row
from jobtrail.core.trail.ports import Recomputed
from jobtrail.domain.checkpoints import Inclusion, Sealed
from jobtrail.domain.verification import ChainCheck, Finding, Position

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection, Pool

ROWS_AT_ONCE = 500
MOST_FINDINGS = 100  # told of one turn
PATIENCE_SECONDS = 3600.0  # the first turn on an old trail reads all of it


class PostgresSeals:
    """A SealStore on a PostgreSQL pool."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def newest(self) -> Sealed | None:
        """The newest checkpoint. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            row = await connection.fetchrow(SQL["seal_newest"])
        return None if row is None else sealed(row)

    async def checkpoint(self, number: int) -> Sealed | None:
        """The checkpoint of this number. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            row = await connection.fetchrow(SQL["seal_numbered"], number)
        return None if row is None else sealed(row)

    async def recompute(self) -> Recomputed:
        """Recompute every row that is not sealed, on one snapshot of the database. Raises StoreUnavailable."""
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            newest = await connection.fetchrow(SQL["seal_newest"])
            checks, findings = await _check(connection)
            for row in await connection.fetch(SQL["seal_lost"]):
                detail = f"it was sealed up to there, and the store holds it up to {row['held']}"
                findings.append(
                    Finding(code="tail_missing", chain_id=row["chain_id"], seq=row["head_seq"], detail=detail)
                )
        chains = {chain_id: (start, check.good) for chain_id, (start, check) in checks.items()}
        return Recomputed(newest=None if newest is None else sealed(newest), chains=chains, findings=findings)

    async def keep(self, sealed: Sealed, proofs: Sequence[Inclusion]) -> bool:
        """Keep a checkpoint; False when another sealer was first. Raises StoreUnavailable, StoreRefused."""
        checkpoint, leaves = sealed.checkpoint, [proof.leaf for proof in proofs]
        async with session(self._pool, self._timeout) as connection:
            kept: bool = await connection.fetchval(
                SQL["seal_keep"],
                checkpoint.number,
                checkpoint.previous,
                checkpoint.root,
                checkpoint.total_rows,
                checkpoint.time_us,
                sealed.signature,
                sealed.key_id,
                [leaf.chain_id for leaf in leaves],
                [leaf.head_seq for leaf in leaves],
                [leaf.head_hash for leaf in leaves],
                [leaf.store_hash for leaf in leaves],
                [join_path(proof.path) for proof in proofs],
            )
        return kept


async def _check(connection: Connection) -> tuple[dict[str, tuple[Position, ChainCheck]], list[Finding]]:
    checks: dict[str, tuple[Position, ChainCheck]] = {}
    findings: list[Finding] = []
    async for row in connection.cursor(SQL["seal_rows"], prefetch=ROWS_AT_ONCE, timeout=PATIENCE_SECONDS):
        chain_id = row["chain_id"]
        if chain_id not in checks:
            start = Position()
            if row["sealed_seq"] is not None:
                start = Position(
                    seq=row["sealed_seq"], row_hash=row["sealed_hash"], store_hash=row["sealed_store_hash"]
                )
            checks[chain_id] = (start, ChainCheck(chain_id, start))
        found = checks[chain_id][1].take(trail_row(row))
        findings += found[: MOST_FINDINGS - len(findings)]
    return checks, findings

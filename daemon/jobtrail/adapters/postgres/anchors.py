"""Checkpoints as rows of the database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.values import EPOCH
from jobtrail.domain.checkpoints import HASH_BYTES, Anchor, Checkpoint, Inclusion, Leaf, Sealed

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection


async def anchor_of(connection: Connection, chain_id: str) -> Anchor | None:
    """What the writer of a chain is told of the store's checkpoints; None before the first."""
    newest: Sealed | None = None
    own: Inclusion | None = None
    for row in await connection.fetch(SQL["anchor_of_chain"], chain_id):
        if row["is_own"]:
            leaf = Leaf(
                chain_id=chain_id, head_seq=row["head_seq"], head_hash=row["head_hash"], store_hash=row["store_hash"]
            )
            own = Inclusion(sealed=sealed(row), leaf=leaf, index=row["position"], path=split_path(row["path"]))
        else:
            newest = sealed(row)
    return None if newest is None else Anchor(newest=newest, own=own)


def sealed(row: Any) -> Sealed:
    """A row of `audit_checkpoint`."""
    checkpoint = Checkpoint(
        number=row["number"],
        previous=row["previous"],
        root=row["root"],
        leaf_count=row["leaf_count"],
        total_rows=row["total_rows"],
        time_us=to_us(row["sealed_at"]),
    )
    return Sealed(checkpoint=checkpoint, signature=row["signature"], key_id=row["key_id"])


def to_us(moment: datetime) -> int:
    """A time of the database in µs since 1970, exact."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def join_path(path: tuple[bytes, ...]) -> bytes:
    """A path as one value: its hashes one after the other."""
    return b"".join(path)


def split_path(joined: bytes) -> tuple[bytes, ...]:
    """The hashes of a path that `join_path` made."""
    return tuple(joined[start : start + HASH_BYTES] for start in range(0, len(joined), HASH_BYTES))

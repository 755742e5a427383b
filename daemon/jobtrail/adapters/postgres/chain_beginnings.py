"""Whether chains of nodes that had one before say which, as the database holds both."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from jobtrail.adapters.postgres.anchors import to_us
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.chain_beginnings import Beginning, followers, judge, note_of
from jobtrail.domain.verification import Finding, Removals

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection

PATIENCE_SECONDS = 86_400.0


async def check_beginnings(
    connection: Connection, chains: Container[str], removals: Removals, accepted: Container[str]
) -> list[Finding]:
    """What is wrong with how some chains begin. Raises StoreUnavailable."""
    beginnings = [
        Beginning(
            chain_id=row["chain_id"],
            node=row["node"],
            stored_us=to_us(row["stored_at"]),
            head_seq=row["head_seq"],
            note=None if row["payload"] is None else note_of(row["payload"]),
        )
        for row in await connection.fetch(SQL["verify_beginnings"], timeout=PATIENCE_SECONDS)
    ]
    heads = {one.chain_id: one.head_seq for one in beginnings}
    found: list[Finding] = []
    for one, named in followers(beginnings, accepted):
        if one.chain_id not in chains:
            continue
        held, pruned = None, 0
        if named is not None:
            held = await connection.fetchval(SQL["verify_row_hash"], named.chain_id, named.seq)
            pruned = removals.beginning(named.chain_id).seq
        finding = judge(one, named, heads, held, pruned)
        found += [] if finding is None else [finding]
    return found

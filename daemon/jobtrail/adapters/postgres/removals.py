"""What was removed from the trail by order, as the database's own chain has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.verification import Removals

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection


def note_removal(removals: Removals, kind: str, payload: bytes, seq: int) -> bool:
    """Take in what a row says of a removal. False when it cannot be read."""
    try:
        removals.add(kind, msgspec.json.decode(payload).get("removal", {}), seq)
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError):
        return False
    return True


async def load_removals(connection: Connection) -> Removals:
    """All that is said there, without recomputing the chain that says it."""
    removals = Removals()
    for row in await connection.fetch(SQL["verify_removals"]):
        if row["payload"] is not None:
            note_removal(removals, row["kind"], row["payload"], row["seq"])
    return removals

"""What people order about the trail: removals and holds. The database's functions do it, with a row about each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobtrail.adapters.postgres.pool import translated
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.errors import StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

PATIENCE_SECONDS = 86_400.0
REFUSED = ("SQLSTATE 55000", "SQLSTATE 42501")  # a hold, an anchor that is missing; a login without the right


async def order(pool: Pool, name: str, *arguments: Any) -> dict[str, Any]:
    """Have an order carried out, in one transaction; what came of it.

    Raises StoreRefused for one that the database refuses, StoreUnavailable.
    """
    statements = {"audit_erase": SQL["audit_erase"], "audit_prune": SQL["audit_prune"], "audit_hold": SQL["audit_hold"]}
    try:
        with translated():
            async with pool.acquire() as connection:
                row = await connection.fetchrow(statements[name], *arguments, timeout=PATIENCE_SECONDS)
    except StoreUnavailable as error:
        if any(code in str(error) for code in REFUSED):
            raise StoreRefused(str(error)) from error
        raise
    assert row is not None
    return dict(row)

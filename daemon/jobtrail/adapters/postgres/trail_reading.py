"""Questions that people ask of the whole trail."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from jobtrail.adapters.postgres.pool import transaction
from jobtrail.adapters.postgres.reading import readable
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.core.ports import Row
from jobtrail.core.query_ports import AuditFilter, AuditPage, AuditPlace
from jobtrail.domain.events import Actor

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

_ACTORS = frozenset(Actor)


class PostgresTrailReader:
    """A TrailReader on a PostgreSQL pool.

    Pages go by place and not by number, so that what is stored between two questions moves nothing. An event that
    arrives late, of a node that was cut off, takes its place by its time and is missed by who is beyond it already.
    """

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def trail(self, wanted: AuditFilter, *, limit: int, after: AuditPlace | None = None) -> AuditPage:
        """Events of jobs that match, newest first, beyond `after`. Raises StoreUnavailable."""
        by_program = wanted.changed_by if wanted.changed_by in _ACTORS else None
        arguments = (
            wanted.since,
            wanted.until,
            by_program,
            _uuid(wanted.correlation_id),
            *((None, None, None) if after is None else (after.changed_at, _uuid(after.chain_id), after.seq)),
            limit + 1,
            None if by_program else wanted.changed_by,
        )
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(SQL["plan_for_values"])
            if wanted.uid is None:
                found = await connection.fetch(SQL["trail_page"], *arguments)
            else:
                found = await connection.fetch(SQL["trail_page_of_user"], *arguments, wanted.uid)
        rows = [readable(row) for row in found]
        return AuditPage(events=rows[:limit], following=_place(rows[limit - 1]) if len(rows) > limit else None)


def _place(row: Row) -> AuditPlace:
    return AuditPlace(changed_at=row["changed_at"], chain_id=row["chain_id"], seq=row["seq"])


def _uuid(text: str | None) -> uuid.UUID | None:
    return None if text is None else uuid.UUID(text)

"""Which runs that a node holds open are over as the store knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from jobtrail.adapters.postgres.pool import session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.core.runs.over_runs import Over, over_by
from jobtrail.domain.job import Job
from jobtrail.domain.samples import Target

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

_decode = msgspec.json.Decoder(Job).decode


class PostgresOverRuns:
    """An OverRuns: one query, however many runs are asked about."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds

    async def over(self, targets: Sequence[Target]) -> Mapping[str, Over]:
        """Those of `targets` that are over, by ref. Raises StoreUnavailable, StoreRefused."""
        if not targets:
            return {}
        asked = [(target.cluster, target.job_id, target.node, target.ref) for target in targets]
        async with session(self._pool, self._timeout) as connection:
            rows = await connection.fetch(SQL["runs_over_on_node"], *map(list, zip(*asked, strict=True)))
        found = {row["ref"]: over_by(_decode(row["projection"])) for row in rows}
        return {ref: over for ref, over in found.items() if over is not None}

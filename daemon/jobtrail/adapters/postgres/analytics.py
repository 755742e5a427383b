"""Figures of many runs over time, worked out by the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from jobtrail.adapters.postgres.pool import transaction
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.analytics import MAX_CELLS, MAX_GROUPS, Question
from jobtrail.domain.analytics_answer import Analysis, Cell, answer, check_size
from jobtrail.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

_APART = frozenset({"rank", "groups_total", "current", "bucket", "keys", "whole"})


class PostgresAnalytics:
    """An AnalyticsReader on a PostgreSQL pool. What is asked goes to the database as values alone."""

    def __init__(self, pool: Pool, *, timeout_seconds: float) -> None:
        """The database is to give up a little before `timeout_seconds`, so that the connection can go on."""
        self._pool = pool
        self._timeout = timeout_seconds
        self._statement_milliseconds = str(max(1, int(timeout_seconds * 900)))

    async def analyse(self, question: Question, *, uid: int | None) -> Analysis:
        """The answer, of the runs of user `uid` alone where one is given.

        Raises InvalidEvent where there is more to answer than is allowed, StoreUnavailable.
        """
        rows = await self._rows(_arguments(question, uid))
        groups = rows[0]["groups_total"] if rows else 0
        check_size(question, groups=groups, cells=len(rows))
        return answer(question, [_cell(row) for row in rows], groups_total=groups)

    async def _rows(self, arguments: Sequence[Any]) -> Sequence[Any]:
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(SQL["plan_for_values"])
            await connection.execute(SQL["statement_timeout"], self._statement_milliseconds)
            try:
                return await connection.fetch(SQL["analytics"], *arguments)
            except asyncpg.QueryCanceledError as error:
                raise StoreUnavailable(
                    "the database did not work it out in time; ask for less time, or filter"
                ) from error


def _arguments(question: Question, uid: int | None) -> tuple[Any, ...]:
    filters, top = question.filters, question.top_k
    return (
        question.previous_begin if question.compare_previous else question.begin,
        question.begin,
        question.end,
        question.bucket.seconds,
        _words(filters.user),
        _words(filters.account),
        _words(filters.partition),
        _words(filters.cluster),
        _words(filters.state),
        _words(filters.node),
        uid,
        [str(dimension) for dimension in question.group_by],
        question.by_node,
        None if top is None else str(top.metric),
        # One more of each than is allowed tells that there are too many.
        MAX_GROUPS + 1 if top is None else top.k,
        MAX_CELLS + 1,
    )


def _words(given: str | Sequence[str] | None) -> list[str] | None:
    """The values of which any will do; None is all."""
    if given is None:
        return None
    return [str(given)] if isinstance(given, str) else [str(word) for word in given]


def _cell(row: Any) -> Cell:
    return Cell(
        rank=row["rank"],
        current=row["current"],
        bucket=row["bucket"],
        keys=tuple(row["keys"]),
        figures={name: value for name, value in row.items() if name not in _APART},
    )

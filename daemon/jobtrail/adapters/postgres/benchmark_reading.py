"""Questions that people ask of the stored benchmark runs."""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrail.adapters.postgres.benchmark_sorting import NEWEST, sorting
from jobtrail.adapters.postgres.pool import transaction
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.values import to_datetime
from jobtrail.core.benchmarks.ports import RunFilter
from jobtrail.domain.benchmarks.comparison import Side, compare
from jobtrail.domain.benchmarks.metrics import METRICS, Direction
from jobtrail.domain.benchmarks.report import Repeat
from jobtrail.domain.errors import NotFound

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection, Pool

Row = dict[str, Any]

UID = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,28}")
DETAILS = frozenset({"parameters", "files", "fingerprint_parts", "claims", "gates", "recipe_body"})  # jsonb
BELONGING = {
    "links": SQL["benchmark_links_of"],
    "energies": SQL["benchmark_energies_of"],
    "verdicts": SQL["benchmark_verdicts_of"],
    "decisions": SQL["benchmark_decisions_of"],
}
_repeats = msgspec.json.Decoder(tuple[Repeat, ...])


class PostgresBenchmarkReader:
    """A BenchmarkReader on a PostgreSQL pool. Every method raises StoreUnavailable.

    Runs with more failed requests than `max_error_ratio` are listed and shown, and have no place on a leaderboard.
    """

    def __init__(self, pool: Pool, *, timeout_seconds: float, max_error_ratio: float = 0.01) -> None:
        self._pool = pool
        self._timeout = timeout_seconds
        self._max_error_ratio = max_error_ratio

    async def list_runs(self, wanted: RunFilter, *, limit: int, offset: int) -> tuple[list[Row], int]:
        """Runs that match and how many there are in all; what has no value in the sort's column comes last.

        Raises InvalidEvent for an unknown sort.
        """
        by, conditions = sorting(wanted.sort), _conditions(wanted)
        page = (limit, offset)
        async with self._look() as connection:
            if wanted.sort == NEWEST:
                rows = [_row(row) for row in await connection.fetch(SQL["benchmark_list_newest"], *conditions, *page)]
            elif by.number is not None:
                arguments = (*conditions, *page, *by.number, by.descending)
                found = await connection.fetch(SQL["benchmark_list_by_number"], *arguments)
                rows = await _summaries(connection, [row["run_uid"] for row in found])
            else:
                arguments = (*conditions, *page, by.column, by.descending)
                found = await connection.fetch(SQL["benchmark_list_by_column"], *arguments)
                rows = await _summaries(connection, [row["run_uid"] for row in found])
            total = await connection.fetchval(SQL["benchmark_count"], *conditions)
        return rows, total

    async def show_run(self, run_uid: str) -> Row:
        """The summary with `metrics`, `repeats`, `links`, `energies`, `verdicts`, `decisions` and `details`, which is
        what was reported beside numbers. A beginning of the uid of eight characters or more will do. Raises NotFound.
        """
        async with self._look() as connection:
            uid = await _resolve(connection, run_uid)
            (shown,) = await _summaries(connection, [uid])
            details = _row(await connection.fetchrow(SQL["benchmark_details"], uid))
            numbers = await connection.fetch(SQL["benchmark_all_numbers"], uid)
            for name, query in BELONGING.items():
                rows = await connection.fetch(query, [uid])
                shown[name] = [_without_uid(row) for row in rows]
        repeats = _repeats.decode(details.pop("raw"))
        return {
            **shown,
            "metrics": [_number(row) for row in numbers if row["repeat"] == 0],
            "repeats": [_repeat(number, one, numbers) for number, one in enumerate(repeats, start=1)],
            "details": details,
        }

    async def leaderboard(self, metric: str, stat: str, wanted: RunFilter, *, limit: int) -> list[Row]:
        """The best valid run of each recipe, model and hardware, best first by the metric's direction. Each is a row of
        the summary with `rank`, the same for equal values, and `value`.

        Raises NotFound for a metric that has no direction or is unknown.
        """
        known = METRICS.get(metric)
        if known is None or known.direction is Direction.NONE:
            ranked = ", ".join(name for name, one in METRICS.items() if one.direction is not Direction.NONE)
            raise NotFound(f"there is no leaderboard of {metric!r}; there are {ranked}")
        higher = known.direction is Direction.HIGHER
        async with self._look() as connection:
            places = await connection.fetch(
                SQL["benchmark_leaderboard"],
                *_conditions(wanted), limit, metric, stat, higher, self._max_error_ratio,
            )  # fmt: skip
            rows = await _summaries(connection, [place["run_uid"] for place in places])
        about = {"metric": metric, "stat": stat, "unit": known.unit, "direction": str(known.direction)}
        return [
            {"rank": place["rank"], "value": place["value"], **about, **row}
            for place, row in zip(places, rows, strict=True)
        ]

    async def compare(self, one: str, other: str) -> Row:
        """Both summaries as `one` and `other`; in `metrics` each number both have, with `relative_change` of the other
        against the one, `judgement` (better, worse, same; None of a fact), `significant` (None where nothing says how
        large the noise is) and `noise`, what was used for that; in `differences` what decides the speed and is not the
        same in both. Raises NotFound.
        """
        async with self._look() as connection:
            uids = [await _resolve(connection, run_uid) for run_uid in (one, other)]
            shown = await _summaries(connection, uids)
            parts = [_row(await connection.fetchrow(SQL["benchmark_details"], uid)) for uid in uids]
            numbers = [await connection.fetch(SQL["benchmark_all_numbers"], uid) for uid in uids]
            verdicts = [await connection.fetch(SQL["benchmark_verdicts_of"], [uid]) for uid in uids]
        sides = [_sides(rows, held) for rows, held in zip(numbers, verdicts, strict=True)]
        return {
            "one": shown[0],
            "other": shown[1],
            "comparable": shown[0]["fingerprint"] == shown[1]["fingerprint"],
            "differences": _differences(*(part["fingerprint_parts"] for part in parts)),
            "metrics": [_compared(key, *(side[key] for side in sides)) for key in sides[0] if key in sides[1]],
        }

    @asynccontextmanager
    async def _look(self) -> AsyncIterator[Connection]:
        """One snapshot for all queries of an answer."""
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(SQL["plan_for_values"])
            yield connection


def _conditions(wanted: RunFilter) -> tuple[Any, ...]:
    return (
        wanted.recipe, wanted.model, wanted.status, wanted.tool, wanted.job_id, wanted.user_name, wanted.hardware,
        wanted.verdict, to_datetime(wanted.since_us), to_datetime(wanted.until_us),
    )  # fmt: skip


async def _resolve(connection: Connection, run_uid: str) -> str:
    """The one uid that begins so. Raises NotFound."""
    text = run_uid.strip().lower()
    digits = text.replace("-", "")
    if not UID.fullmatch(text) or not 8 <= len(digits) <= 32:
        raise NotFound(f"no benchmark run is called {run_uid!r}; a uid, or the first 8 characters of one or more, is")
    least, most = (str(uuid.UUID(digits.ljust(32, filler))) for filler in "0f")
    found = await connection.fetch(SQL["benchmark_uids"], least, most)
    if len(found) > 1:
        raise NotFound(f"several benchmark runs begin with {run_uid}; give more of the uid")
    if not found:
        raise NotFound(f"no benchmark run {run_uid} is stored")
    uid: str = found[0]["run_uid"]
    return uid


async def _summaries(connection: Connection, uids: Sequence[str]) -> list[Row]:
    """The summaries of these runs, in this order.

    They are asked for apart, or the view would be worked out for all runs among which these are picked.
    """
    rows = {str(row["run_uid"]): _row(row) for row in await connection.fetch(SQL["benchmark_summary"], uids)}
    return [rows[uid] for uid in uids]


def _row(record: Any) -> Row:
    return {name: _value(name, value) for name, value in record.items()}


def _value(name: str, value: Any) -> Any:
    if name in DETAILS and value is not None:
        return msgspec.json.decode(value)
    # asyncpg has a UUID class of its own, which JSON encoders do not know.
    return str(value) if name in ("run_uid", "correlation_id", "event_id") and value is not None else value


def _without_uid(record: Any) -> Row:
    return {name: value for name, value in _row(record).items() if name != "run_uid"}


def _number(row: Any) -> Row:
    known = METRICS.get(row["metric"])
    return {
        "metric": row["metric"],
        "stat": row["stat"],
        "value": row["value"],
        "unit": known and known.unit,
        "direction": known and str(known.direction),
    }


def _repeat(number: int, one: Repeat, numbers: Sequence[Any]) -> Row:
    return {
        "repeat": number,
        "started_at": to_datetime(one.started_us),
        "ended_at": to_datetime(one.ended_us),
        "exit_code": one.exit_code,
        "exit_signal": one.exit_signal,
        "tool": one.result and one.result.tool,
        "sha256": one.result and one.result.sha256,
        "metrics": [_number(row) for row in numbers if row["repeat"] == number],
    }


def _sides(numbers: Iterable[Any], verdicts: Iterable[Any]) -> dict[tuple[str, str], Side]:
    """A run's own numbers with what is known of their noise, by metric and statistic."""
    own: dict[tuple[str, str], float] = {}
    repeats: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in numbers:
        key = (row["metric"], row["stat"])
        if row["repeat"] == 0:
            own[key] = row["value"]
        else:
            repeats[key].append(row["value"])
    history = {(row["metric"], row["stat"]): row["mad_log"] for row in verdicts if row["verdict"] != "insufficient"}
    return {key: Side(value, repeats[key], history.get(key)) for key, value in own.items()}


def _compared(key: tuple[str, str], one: Side, other: Side) -> Row:
    known = METRICS[key[0]]
    return {
        "metric": key[0],
        "stat": key[1],
        "unit": known.unit,
        "direction": str(known.direction),
        "one": one.value,
        "other": other.value,
        **msgspec.to_builtins(compare(one, other, known.direction)),
    }


def _differences(one: dict[str, str], other: dict[str, str]) -> dict[str, list[str | None]]:
    names = sorted(one.keys() | other.keys())
    return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}

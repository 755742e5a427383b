"""Handlers of what is asked of benchmarks: runs, one run, the leaderboard, a comparison.

Results are for all local users: who compares clusters or versions needs those of others. How a run was called is not:
its command line, what its tool wrote and its recipe's own words are for its user, root and Slurm's user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.csv_page import csv_answer, wants_csv
from jobtrail.adapters.http.etags import tagged
from jobtrail.adapters.http.refusals import json_answer
from jobtrail.adapters.http.run_uids import run_uid
from jobtrail.adapters.http.senders import Gate, Sender
from jobtrail.adapters.http.tokens import Door
from jobtrail.adapters.http.turns import Turns
from jobtrail.core.benchmarks.ports import RANK_COLUMNS, RUN_COLUMNS, BenchmarkReader, RunFilter
from jobtrail.domain.benchmarks.metrics import PERCENTILE, STATS, default_stat
from jobtrail.domain.events import check_time_us

PRIVATE = ("argv", "recipe_body", "files", "claims", "raw")  # of a run's details
NAMES = ("recipe", "model", "status", "tool", "job_id", "hardware", "verdict")
LIST_PARAMETERS = (*NAMES, "user", "since", "until", "sort", "limit", "offset", "format")
LEADERBOARD_PARAMETERS = ("metric", "stat", "recipe", "model", "hardware", "limit", "format")
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MAX_OFFSET = 10_000_000
DEFAULT_METRIC = "output_token_throughput"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SORT = re.compile(r"-?[a-z][a-z0-9_]{0,62}(\.[a-z0-9.]{1,16})?")
_PERCENTILE = re.compile(PERCENTILE)


class BenchmarkReads:
    """Tells of benchmarks, over TCP to who shows the token for reading, on a Unix socket to everybody there."""

    def __init__(self, runs: BenchmarkReader | None, *, gate: Gate, token: Door, turns: Turns) -> None:
        self._runs = runs
        self._gate = gate
        self._token = token
        self._turns = turns

    async def runs(self, request: web.Request) -> web.Response:
        """GET /v1/benchmarks/runs."""
        reader = self._who(request)
        query.check_parameters(request, LIST_PARAMETERS)
        wanted = _filter(request)
        limit = query.number(request, "limit", least=1, most=MAX_LIMIT) or DEFAULT_LIMIT
        offset = query.number(request, "offset", least=0, most=MAX_OFFSET) or 0
        as_csv = wants_csv(request)
        with self._turns.taken(reader):
            rows, total = await self._asked().list_runs(wanted, limit=limit, offset=offset)
        if as_csv:
            return tagged(request, csv_answer(rows, RUN_COLUMNS, name="benchmark-runs.csv", total=total))
        return tagged(request, json_answer(200, {"runs": rows, "total": total}))

    async def run(self, request: web.Request) -> web.Response:
        """GET /v1/benchmarks/runs/{uid}."""
        reader = self._who(request)
        uid = run_uid("uid", request.match_info["uid"])
        query.check_parameters(request, ())
        with self._turns.taken(reader):
            found = await self._asked().show_run(uid)
        return json_answer(200, shown_to(reader, found))

    async def leaderboard(self, request: web.Request) -> web.Response:
        """GET /v1/benchmarks/leaderboard."""
        reader = self._who(request)
        query.check_parameters(request, LEADERBOARD_PARAMETERS)
        metric = query.name(request, "metric") or DEFAULT_METRIC
        stat = query.name(request, "stat") or default_stat(metric)
        if stat not in STATS and not _PERCENTILE.fullmatch(stat):
            raise query.invalid("stat", f"must be one of {', '.join(STATS)}, or p with a number, not {stat[:32]!r}")
        limit = query.number(request, "limit", least=1, most=MAX_LIMIT) or DEFAULT_LIMIT
        as_csv = wants_csv(request)
        with self._turns.taken(reader):
            rows = await self._asked().leaderboard(metric, stat, _filter(request), limit=limit)
        if as_csv:
            return tagged(request, csv_answer(rows, RANK_COLUMNS, name=f"leaderboard-{metric}-{stat}.csv"))
        return tagged(request, json_answer(200, {"metric": metric, "stat": stat, "runs": rows}))

    async def compare(self, request: web.Request) -> web.Response:
        """GET /v1/benchmarks/compare."""
        reader = self._who(request)
        query.check_parameters(request, ("a", "b"))
        one, other = (run_uid(field, request.query.get(field, "")) for field in ("a", "b"))
        with self._turns.taken(reader):
            return json_answer(200, await self._asked().compare(one, other))

    def _who(self, request: web.Request) -> Sender | None:
        """Who asks; None over TCP, with the token shown. Raises Refused."""
        reader = self._gate.local_peer(request)
        if reader is None:
            self._token.check(request)
        return reader

    def _asked(self) -> BenchmarkReader:
        if self._runs is None:
            raise query.no_database()
        return self._runs


def shown_to(reader: Sender | None, run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as this reader may see it; `hidden` names what is left out of its details."""
    details = run["details"]
    if reader is not None and (reader.trusted or reader.is_user(details["uid"])):
        return {**run, "hidden": []}
    return {
        **run,
        "details": {name: value for name, value in details.items() if name not in PRIVATE},
        "hidden": [name for name in PRIVATE if name in details],
    }


def _filter(request: web.Request) -> RunFilter:
    """The runs that are wanted. Raises Refused, InvalidEvent."""
    sort = query.name(request, "sort") or "-started_at"
    if not _SORT.fullmatch(sort):
        raise query.invalid(
            "sort", f"must be a column, or a metric with its statistic, and may begin with -, not {sort[:64]!r}"
        )
    return RunFilter(
        **{name: query.text(request, name) for name in NAMES},
        user_name=query.text(request, "user"),
        since_us=_moment(request, "since"),
        until_us=_moment(request, "until"),
        sort=sort,
    )


def _moment(request: web.Request, field: str) -> int | None:
    """A time, µs since the epoch. Raises Refused, InvalidEvent."""
    text = request.query.get(field)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a + that nobody encoded is a space in an address
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise query.invalid(field, f"must be a time with its zone, such as 2026-11-21T08:00:00Z, not {text[:40]!r}")
    return check_time_us(field, (moment - _EPOCH) // timedelta(microseconds=1))

"""Where reported benchmark runs are settled and judged."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrail.adapters.postgres.benchmark_folding import BENCHMARK_LOCK_CLASS
from jobtrail.adapters.postgres.benchmark_window import window_use
from jobtrail.adapters.postgres.pool import session, transaction
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.values import Row, encode, to_datetime
from jobtrail.domain.benchmarks.report import JobClaim, Status
from jobtrail.domain.benchmarks.settling import (
    CandidateRun,
    HistoryRun,
    LastValidRun,
    Settlement,
    UnsettledRun,
    Verdict,
    WindowUse,
)

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection, Pool

_claims = msgspec.json.Decoder(tuple[JobClaim, ...])
_gates = msgspec.json.Decoder(dict[str, float])


class PostgresBenchmarks:
    """A BenchmarkStore on a PostgreSQL pool. Every method raises StoreUnavailable.

    All that write take the lock of the reports, so that a report, a settlement and a verdict never wait for each other
    in a circle. A run with a larger share of failed requests than `max_error_ratio` is never the last valid one.
    """

    def __init__(self, pool: Pool, *, timeout_seconds: float, max_error_ratio: float = 0.01) -> None:
        self._pool = pool
        self._timeout = timeout_seconds
        self._max_error_ratio = max_error_ratio

    async def unsettled(self, *, limit: int) -> Sequence[UnsettledRun]:
        """Runs whose links or energy are open: those never looked at, then those looked at longest ago, oldest first.

        So runs whose jobs never become known do not keep the others waiting. None is older than a week here.
        """
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            rows = await connection.fetch(SQL["benchmark_unsettled"], limit)
            claims = {row["run_uid"]: _claims.decode(row["claims"]) for row in rows}
            wanted = sorted({(claim.job_id, claim.cluster or "") for held in claims.values() for claim in held})
            found = await connection.fetch(
                SQL["benchmark_candidates"],
                [cluster or None for _, cluster in wanted],
                [job_id for job_id, _ in wanted],
            )
        candidates: dict[str, list[CandidateRun]] = defaultdict(list)
        for row in found:
            candidates[row["job_id"]].append(CandidateRun(**row))
        return [_unsettled(row, claims[row["run_uid"]], candidates) for row in rows]

    async def window_use(self, run: CandidateRun, *, started_us: int, ended_us: int) -> WindowUse:
        """What is known of a job's run over a window."""
        async with session(self._pool, self._timeout) as connection:
            return await window_use(connection, run, started_us=started_us, ended_us=ended_us)

    async def settle(self, run_uid: str, settlement: Settlement) -> None:
        """Replace links, energies and what follows from them; nothing for a run that is not held."""
        async with transaction(self._pool, self._timeout) as connection:
            await connection.execute(SQL["jobs_lock"], BENCHMARK_LOCK_CLASS, [0])
            reasons = (settlement.open_reason, settlement.energy_invalid_reason)
            if await connection.fetchval(SQL["benchmark_settle"], run_uid, *reasons) is None:
                return
            await connection.execute(SQL["benchmark_settlement_clear"], run_uid)
            await connection.execute(SQL["benchmark_links_write"], encode(_link_rows(run_uid, settlement)))
            energies = [{"run_uid": run_uid, **_energy_columns(one)} for one in settlement.energies]
            await connection.execute(SQL["benchmark_energies_write"], encode(energies))
            await connection.execute(SQL["benchmark_metrics_write"], encode(_number_rows(run_uid, settlement)))
            await connection.execute(SQL["benchmark_count_in"], run_uid)
            await connection.execute(SQL["benchmark_unjudge_new_numbers"], run_uid)

    async def unjudged(self, *, limit: int) -> Sequence[str]:
        """Uids of ok runs without verdicts, and of those whose own numbers or history have changed; oldest first."""
        async with session(self._pool, self._timeout) as connection:
            rows = await connection.fetch(SQL["benchmark_unjudged"], limit)
        return [row["run_uid"] for row in rows]

    async def history(self, run_uid: str, *, limit: int) -> Sequence[HistoryRun]:
        """The run last, before it the latest `limit` ok runs that count with its fingerprint, which holds recipe and
        model, oldest first; the pinned one among them however old it is. Empty for a run that is not held."""
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            place = await connection.fetchrow(SQL["benchmark_place"], run_uid)
            if place is None:
                return []
            series = (place["fingerprint"], place["ended_at"], run_uid)
            rows = list(await connection.fetch(SQL["benchmark_history"], *series, limit))
            rows += await connection.fetch(SQL["benchmark_history_pinned"], *series)
            runs = {row["run_uid"]: row for row in [*rows, place]}
            uids = list(runs)
            numbers = await connection.fetch(SQL["benchmark_numbers"], uids)
            verdicts = await connection.fetch(SQL["benchmark_verdicts_of"], uids)
            references = await connection.fetch(SQL["benchmark_references"], uids)
        parts = _Parts(numbers, verdicts, references)
        return [parts.run(row) for row in sorted(runs.values(), key=lambda row: (row["ended_us"], row["run_uid"]))]

    async def gates(self, run_uid: str) -> dict[tuple[str, str], float]:
        """The least relative change that counts, by the (metric, stat) its recipe gates on; empty for the defaults."""
        async with session(self._pool, self._timeout) as connection:
            held = await connection.fetchval(SQL["benchmark_gates"], run_uid)
        return {} if held is None else {_split(name): least for name, least in _gates.decode(held).items()}

    async def write_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Replace the verdicts of these runs' metrics; their runs are judged then."""
        rows = encode([msgspec.structs.asdict(verdict) for verdict in verdicts])
        async with transaction(self._pool, self._timeout) as connection:
            await connection.execute(SQL["jobs_lock"], BENCHMARK_LOCK_CLASS, [0])
            await connection.execute(SQL["benchmark_verdicts_write"], rows)
            await connection.execute(SQL["benchmark_judged"], sorted({verdict.run_uid for verdict in verdicts}))

    async def last_valid_runs(self, *, ended_after_us: int, limit: int) -> Sequence[LastValidRun]:
        """The last valid run of each recipe, model and hardware of a cluster, newest first."""
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            rows = await connection.fetch(
                SQL["benchmark_last_valid"], to_datetime(ended_after_us), self._max_error_ratio, limit
            )
            uids = [row["run_uid"] for row in rows]
            numbers = await _by_run(connection, SQL["benchmark_own_numbers"], uids)
            energies = await _by_run(connection, SQL["benchmark_energies_of"], uids)
            verdicts = await _by_run(connection, SQL["benchmark_verdicts_of"], uids)
        return [
            _last_valid(row, numbers[row["run_uid"]], energies[row["run_uid"]], verdicts[row["run_uid"]])
            for row in rows
        ]


async def _by_run(connection: Connection, query: str, uids: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in await connection.fetch(query, uids):
        found[row["run_uid"]].append(row)
    return found


def _unsettled(row: Any, claims: Sequence[JobClaim], candidates: dict[str, list[CandidateRun]]) -> UnsettledRun:
    known = {
        (run.cluster, run.job_id, run.run): run
        for claim in claims
        for run in candidates[claim.job_id]
        if claim.cluster in (None, run.cluster)
    }
    return UnsettledRun(
        run_uid=row["run_uid"],
        started_us=row["started_us"],
        ended_us=row["ended_us"],
        status=Status(row["status"]),
        claims=tuple(claims),
        candidates=tuple(known.values()),
        windows=tuple(zip(row["begins_us"], row["ends_us"], strict=True)),
        output_tokens=row["output_tokens"],
        user_name=row["user_name"],
        from_job=row["from_job"],
        by_root=row["uid"] == 0,
        received_us=row["received_us"],
    )


def _link_rows(run_uid: str, settlement: Settlement) -> list[Row]:
    return [
        {
            "run_uid": run_uid,
            "position": position,
            "role": link.claim.role,
            "link_state": link.state,
            "link_source": link.claim.source,
            "cluster_name": link.cluster or link.claim.cluster,
            "job_id": link.claim.job_id,
            "run": link.run,
            "reason": link.reason,
            "step_id": link.claim.step_id,
            "node_list": link.claim.node_list,
        }
        for position, link in enumerate(settlement.links)
    ]


def _energy_columns(energy: Any) -> Row:
    columns: Row = msgspec.structs.asdict(energy)
    columns["time_window"] = columns.pop("window")  # a word of SQL's own
    return columns


def _number_rows(run_uid: str, settlement: Settlement) -> list[Row]:
    return [
        {"run_uid": run_uid, "repeat": 0, "metric": metric, "stat": stat, "value": value, "settled": True}
        for metric, stat, value in settlement.measurements
        if math.isfinite(value)
    ]


def _split(name: str) -> tuple[str, str]:
    metric, _, stat = name.partition(".")
    return metric, stat


class _Parts:
    """What belongs to the runs of a history, by run."""

    def __init__(self, numbers: Sequence[Any], verdicts: Sequence[Any], references: Sequence[Any]) -> None:
        self._values: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
        self._repeats: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
        self._verdicts: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
        for row in numbers:  # in order of repeats
            key = (row["metric"], row["stat"])
            if row["repeat"] == 0:
                self._values[row["run_uid"]][key] = row["value"]
            else:
                self._repeats[row["run_uid"]][key].append(row["value"])
        for row in verdicts:
            self._verdicts[row["run_uid"]][row["metric"], row["stat"]] = row["verdict"]
        self._references = {row["run_uid"]: row for row in references}

    def run(self, row: Any) -> HistoryRun:
        run_uid: str = row["run_uid"]
        reference = self._references.get(run_uid)
        return HistoryRun(
            run_uid=run_uid,
            ended_us=row["ended_us"],
            status=Status(row["status"]),
            values=self._values[run_uid],
            repeats={key: tuple(values) for key, values in self._repeats[run_uid].items()},
            verdicts=self._verdicts[run_uid],
            error_rate=row["error_rate"],
            counts=row.get("counts", True),  # of those before it only runs that count are asked for
            accepted=reference is not None and reference["accepted"],
            pinned=reference is not None and reference["pinned"],
        )


def _last_valid(row: Any, numbers: Sequence[Any], energies: Sequence[Any], verdicts: Sequence[Any]) -> LastValidRun:
    judged = [one for one in verdicts if not one["advisory"] and one["verdict"] != "insufficient"]
    regressions: dict[str, bool] = {}
    changes: dict[str, float] = {}
    for one in judged:
        metric = one["metric"]
        regressions[metric] = regressions.get(metric, False) or one["verdict"] == "regression"
        change = one["relative_change"]
        if change is not None and abs(change) >= abs(changes.get(metric, 0.0)):
            changes[metric] = change
    return LastValidRun(
        cluster=row["cluster"],
        recipe=row["recipe"],
        model=row["model"],
        hardware=row["hardware"],
        ended_us=row["ended_us"],
        values={(one["metric"], one["stat"]): one["value"] for one in numbers},
        energies={(one["domain"], one["time_window"]): one["joules"] for one in energies},
        regressions=regressions,
        baseline_ratios={metric: 1 + change for metric, change in changes.items()},
        runs_by_status=msgspec.json.decode(row["runs_by_status"], type=dict[str, int]),
    )

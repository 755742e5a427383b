"""What is known of a job's run over a window of time: its energy samples, and what may have disturbed it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.values import EPOCH, Row
from jobtrail.domain.benchmarks.settling import CandidateRun, EnergySample, WindowUse

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection

# nvmlClocksEventReasons of nvml.h: heat, and hardware that protects itself or its supply. Not among them: `gpu_idle`;
# `applications_clocks_setting`, `display_clock_setting` and `sync_boost`, which somebody set; `sw_power_cap`, which is
# how a GPU at work keeps to its power limit: most are at it whenever they are busy, and the limit is kept with the run.
THROTTLES = ("hw_power_brake_slowdown", "hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown")
_AFTER = timedelta(seconds=1)  # what holds clocks down at the look that ends a window held them down in it
_FACTOR = ("pue", "emission_factor_grams_per_kwh", "emission_factor_source", "emission_factor_year")
Held = frozenset[tuple[str, str]]  # node and GPU


async def window_use(connection: Connection, run: CandidateRun, *, started_us: int, ended_us: int) -> WindowUse:
    """Samples inside the window and, of each node, the last before and the first after it; where GPUs and CPUs were not
    read at the same looks, one for each. Empty for a run that is not stored.

    `throttled` are reasons of THROTTLES, of any GPU of the run. `shared` are GPUs that other runs held or used at a
    look in the window, or held in it as their own reports say. PUE and factor are those of the usage that the run
    reported, and while it has reported none those that its samples name; None where several were used.
    """
    key, window = (run.cluster, run.job_id, run.run), (_time(started_us), _time(ended_us))
    known = await connection.fetchrow(SQL["benchmark_window_run"], *key)
    if known is None:
        return WindowUse()
    rows: list[Row] = [dict(row) for row in await connection.fetch(SQL["benchmark_window_samples"], *key, *window)]
    reported = await connection.fetch(SQL["benchmark_window_gpus"], *key)
    held = frozenset((row["node"], row["gpu_id"]) for row in reported) | _held(rows, "gpu_ids")
    factor = {name: known[name] for name in _FACTOR}
    if known["pue"] is None:
        factor = _common(rows)
    nodes = tuple(known["nodes"])
    ended_on = {row["node"] for row in rows if row["sampled_at"] >= window[1]}
    return WindowUse(
        nodes=nodes,
        samples=tuple(map(_sample, rows)),
        throttled=await _throttled(connection, held | _held(rows, "board_ids"), *window),
        shared=await _shared(connection, key, held, rows, *window),
        has_gpus=known["has_gpus"] or bool(held),
        pue=factor["pue"],
        factor_grams_per_kwh=factor["emission_factor_grams_per_kwh"],
        factor_source=factor["emission_factor_source"],
        factor_year=factor["emission_factor_year"],
        is_over=known["is_over"],
        complete=bool(nodes) and ended_on.issuperset(nodes),
    )


async def _throttled(connection: Connection, held: Held, started: datetime, ended: datetime) -> tuple[str, ...]:
    found = await connection.fetch(
        SQL["benchmark_window_throttled"], *_pairs(held), started, ended + _AFTER, list(THROTTLES)
    )
    return tuple(row["reason"] for row in found)


async def _shared(
    connection: Connection,
    key: tuple[str, str, int],
    held: Held,
    rows: Sequence[Row],
    started: datetime,
    ended: datetime,
) -> tuple[str, ...]:
    found = await connection.fetch(SQL["benchmark_window_shared"], *key, *_pairs(held), started, ended)
    inside = [row for row in rows if started <= row["sampled_at"] <= ended + _AFTER]
    seen = {gpu_id for _, gpu_id in _held(inside, "shared_gpu_ids")}
    return tuple(sorted(seen.union(row["gpu_id"] for row in found)))


def _held(rows: Iterable[Row], column: str) -> Held:
    return frozenset((row["node"], gpu_id) for row in rows for gpu_id in row[column] or ())


def _pairs(held: Held) -> tuple[list[str], list[str]]:
    pairs = sorted(held)
    return [node for node, _ in pairs], [gpu_id for _, gpu_id in pairs]


def _common(rows: Iterable[Row]) -> dict[str, Any]:
    """What all samples name alike; nothing where they differ."""
    told = {tuple(row[name] for name in _FACTOR) for row in rows}
    return dict(zip(_FACTOR, told.pop(), strict=True)) if len(told) == 1 else dict.fromkeys(_FACTOR)


def _sample(row: Row) -> EnergySample:
    return EnergySample(
        node=row["node"],
        time_us=(row["sampled_at"] - EPOCH) // timedelta(microseconds=1),
        gpu_microjoules=_millionths(row["gpu_joules"]),
        cpu_microjoules=_millionths(row["cpu_joules"]),
        dram_microjoules=_millionths(row["dram_joules"]),
        covered_us=_millionths(row["covered_seconds"]),
        gpu_method=row["gpu_method"],
    )


def _millionths(number: float | None) -> int | None:
    return None if number is None else round(number * 1e6)


def _time(time_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=time_us)

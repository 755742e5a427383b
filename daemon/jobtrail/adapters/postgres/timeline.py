"""The time lines of a run, thinned out by the database: however long it ran, a few hundred points of each come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrail.adapters.postgres.statements import SQL
from jobtrail.core.ports import Row
from jobtrail.core.query_ports import JobDetail
from jobtrail.domain.events import EventKind
from jobtrail.domain.job_report_timeline import (
    MOST_GPUS,
    MOST_NODES,
    EnergyPoint,
    EnergyTimeline,
    GpuPoint,
    GpuTimeline,
    Mark,
    NodePoint,
    NodeTimeline,
    Timeline,
    points_of_a_line,
)

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection

MOST_EVENTS = 500  # of the trail, the newest
MOST_MARKS = 60
# What a reader wants to see on a time line; usage is what the lines are.
_SHOWN = {
    EventKind.JOB_STARTED: "started",
    EventKind.JOB_FOUND: "found running",
    EventKind.JOB_FINISHED: "ended",
    EventKind.JOB_CLOSED: "end inferred",
    EventKind.SLURM_REPORTED: "Slurm",
}


async def read_timeline(connection: Connection, detail: JobDetail, now: datetime) -> Timeline:
    """The lines of a run up to its end, or to `now` of one that goes on; nothing of one that did not start."""
    job = detail.job
    begin: datetime | None = job["start_time"]
    if begin is None:
        return Timeline(seconds=0.0, bucket_seconds=0.0)
    end: datetime = max(job["end_time"] or now, begin + timedelta(seconds=1))
    key = (job["cluster_name"], job["job_id"])
    nodes = _extremes(detail.nodes, "cpu_seconds", MOST_NODES)
    gpus = _extremes(detail.gpus, "busy_seconds", MOST_GPUS)
    openers = [row["ref"] for row in await connection.fetch(SQL["timeline_openers"], *key, job["run"])]
    points = points_of_a_line(len(nodes), len(gpus))
    names = [node["node"] for node in nodes]
    window = (*key, openers, begin, end)
    of_nodes = await connection.fetch(SQL["timeline_nodes"], *window, points, names)
    of_gpus = await connection.fetch(
        SQL["timeline_gpus"], *window, points, [gpu["node"] for gpu in gpus], [gpu["gpu_id"] for gpu in gpus]
    )
    of_energy = await connection.fetch(SQL["timeline_energy"], *window, points, names)
    errors = await connection.fetch(SQL["timeline_gpu_errors"], *window)
    events = await connection.fetch(SQL["trail_show"], job["job_id"], job["run"], job["cluster_name"], MOST_EVENTS)
    marks = sorted([*_events(events, begin), *_errors(errors, begin)], key=lambda mark: mark.seconds)
    return Timeline(
        seconds=(end - begin).total_seconds(),
        bucket_seconds=(end - begin).total_seconds() / points,
        nodes=tuple(NodeTimeline(node=key[0], points=_points(rows, NodePoint)) for key, rows in _by(of_nodes, "node")),
        gpus=tuple(
            GpuTimeline(node=key[0], gpu_id=key[1], points=_points(rows, GpuPoint))
            for key, rows in _by(of_gpus, "node", "gpu_id")
        ),
        energy=tuple(
            EnergyTimeline(component=key[0], points=_points(rows, EnergyPoint))
            for key, rows in _by(of_energy, "component")
        ),
        marks=tuple(marks[:MOST_MARKS]),
        nodes_total=len(detail.nodes),
        gpus_total=len(detail.gpus),
    )


def _extremes(rows: Sequence[Row], column: str, most: int) -> Sequence[Row]:
    """At most so many: where there are more, those with the most and those with the least."""
    if len(rows) <= most:
        return rows
    ordered = sorted(rows, key=lambda row: row[column] or 0.0)
    return [*ordered[: most // 2], *ordered[-(most - most // 2) :]]


def _by(rows: Iterable[Any], *names: str) -> Iterable[tuple[tuple[Any, ...], Iterable[Any]]]:
    """Rows in order, those with the same values together."""
    pick = itemgetter(*names)
    for key, group in groupby(rows, key=pick):
        yield (key if len(names) > 1 else (key,)), group


def _points(rows: Iterable[Any], kind: type[Any]) -> tuple[Any, ...]:
    names = kind.__struct_fields__
    return tuple(msgspec.convert({name: row[name] for name in names}, kind) for row in rows)


def _events(rows: Iterable[Any], begin: datetime) -> Iterable[Mark]:
    for row in rows:
        what = _SHOWN.get(row["event_kind"])
        if what is None:
            continue
        event = msgspec.json.decode(row["event"]) if row["event"] else {}
        state = (event.get("slurm") or {}).get("state")
        yield Mark(
            seconds=max(0.0, (row["changed_at"] - begin).total_seconds()),
            what=f"{what}: {state}" if state else what,
            by=row["changed_by"],
            node=row["node"],
        )


def _errors(rows: Iterable[Any], begin: datetime) -> Iterable[Mark]:
    for row in rows:
        yield Mark(
            seconds=max(0.0, (row["sampled_at"] - begin).total_seconds()),
            what=f"GPU {row['gpu_id']}: error {row['code']}",
            by="driver",
            node=row["node"],
        )

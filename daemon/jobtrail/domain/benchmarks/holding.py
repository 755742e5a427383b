"""What a store must know of a report to hold it: whether it can, whether it is the same, and whose job ran it."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import msgspec

from jobtrail.domain.benchmarks.metrics import METRICS
from jobtrail.domain.benchmarks.recipe import Gate
from jobtrail.domain.benchmarks.report import BenchmarkReport, Role
from jobtrail.domain.events import BENCHMARK_KINDS, Event, EventKind

_encoder = msgspec.json.Encoder(order="sorted")


def content_sha256(report: BenchmarkReport) -> str:
    """SHA-256, in hex, of what the reporter wrote, without what the daemon added."""
    told = msgspec.structs.replace(report, uid=None, user_name=None, from_job=False)
    return hashlib.sha256(_encoder.encode(told)).hexdigest()


def precedence(event: Event) -> tuple[bool, int, str]:
    """Of several events with the same report the smallest counts: one from inside the job, then the earliest."""
    assert event.benchmark is not None
    return not event.benchmark.from_job, event.time_us, event.event_id


def refusal(event: Event) -> str | None:
    """Why an event about benchmarks cannot be applied; None if it can."""
    if event.kind is EventKind.BASELINE_DECIDED:
        if event.baseline is None:
            return f"an event of kind {event.kind} must have `baseline`"
        return _bad_uid("baseline", event.baseline.run_uid)
    if event.benchmark is None:
        return f"an event of kind {event.kind} must have `benchmark`"
    if event.benchmark.ended_us < event.benchmark.started_us:
        return "benchmark.ended_us lies before benchmark.started_us"
    return _bad_uid("benchmark", event.benchmark.run_uid)


def _bad_uid(field: str, run_uid: str) -> str | None:
    """Why a uid cannot be held: a UUID has several spellings, and two of them must not be two runs."""
    try:
        spelling = str(uuid.UUID(run_uid))
    except ValueError:
        return f"{field}.run_uid {run_uid!r} is no UUID"
    return None if spelling == run_uid else f"{field}.run_uid {run_uid!r} must be written {spelling}"


def job_of(event: Event) -> str | None:
    """The public id of the job an event is about: the one it names, else the benchmark's, that of the server first."""
    if event.job_id is not None or event.benchmark is None:
        return event.job_id
    claims = sorted(event.benchmark.jobs, key=lambda claim: claim.role is Role.CLIENT)
    return claims[0].job_id if claims else None


def is_about_benchmarks(event: Event) -> bool:
    """Whether the event is about no run of a job."""
    return event.kind in BENCHMARK_KINDS


def gates_of(body: dict[str, Any]) -> dict[tuple[str, str], float]:
    """The least relative change that counts, by the (metric, stat) that a recipe's body gates on.

    A metric alone means the statistics by which the vocabulary judges it, or its one number. What is no gate is left
    out: a body may come from anybody.
    """
    named = body.get("gate")
    found: dict[tuple[str, str], float] = {}
    for name, value in (named if isinstance(named, dict) else {}).items():
        metric, _, stat = name.partition(".")
        try:
            gate = msgspec.convert(value, Gate)
        except msgspec.ValidationError:
            continue
        if metric in METRICS:
            for one in [stat] if stat else METRICS[metric].gates or ("value",):
                found[metric, one] = gate.min_rel
    return found

"""The rows of the benchmark tables that follow from the events alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from jobtrail.adapters.postgres.values import Row, to_datetime
from jobtrail.domain.benchmarks.holding import content_sha256, gates_of
from jobtrail.domain.benchmarks.report import BenchmarkReport, Hardware, Repeat
from jobtrail.domain.benchmarks.settling import LinkState
from jobtrail.domain.benchmarks.summary import RunSummary, summarise, values_of
from jobtrail.domain.benchmarks.window_energy import Span
from jobtrail.domain.events import Event


class ReportRows(msgspec.Struct, frozen=True):
    """What one reported run is in the tables."""

    run: Row
    recipe: Row | None
    claims: list[Row]
    metrics: list[Row]


def report_rows(event: Event) -> ReportRows:
    """The rows of an event that reports a run."""
    report = event.benchmark
    assert report is not None
    summary = summarise(report)
    return ReportRows(
        run={
            "run_uid": report.run_uid,
            **_identity_columns(report, summary),
            **_hardware_columns(report.hardware),
            **_result_columns(report, summary),
            **_evidence_columns(report),
            **event_columns(event),
            "counts": not report.jobs,
        },
        recipe=_recipe_row(event, report),
        claims=_claim_rows(report),
        metrics=_metric_rows(report, summary),
    )


def event_columns(event: Event) -> Row:
    """The columns that say who reported the run and when: they may differ between two events with one report."""
    report = event.benchmark
    assert report is not None
    return {
        "cluster_name": event.cluster,
        "node": event.node,
        "uid": report.uid,
        "user_name": report.user_name,
        "from_job": report.from_job,
        "event_id": event.event_id,
        "reported_at": to_datetime(event.time_us),
    }


def decision_row(event: Event) -> Row:
    """The row of an event that tells a decision."""
    decided = event.baseline
    assert decided is not None
    return {
        "run_uid": decided.run_uid,
        "event_id": event.event_id,
        "decision": decided.decision,
        "decided_at": to_datetime(event.time_us),
        "decided_by": decided.by,
        "reason": event.note,
    }


def _identity_columns(report: BenchmarkReport, summary: RunSummary) -> Row:
    recipe, parts = report.recipe, summary.fingerprint_parts
    return {
        "recipe_name": recipe and recipe.name,
        "recipe_sha256": recipe and recipe.sha256,
        "mode": report.mode,
        "tool": parts.get("tool"),
        "tool_version": parts.get("tool_version"),
        "model": parts.get("model"),
        "model_revision": report.model_revision,
        "parameters": report.parameters,
        "fingerprint": summary.fingerprint,
        "fingerprint_without_version": summary.fingerprint_without_version,
        "fingerprint_parts": parts,
        "hardware": summary.hardware,
    }


def _hardware_columns(hardware: Hardware) -> Row:
    return {
        "gpu_model": hardware.gpu_model,
        "gpu_count": hardware.gpu_count,
        "mig_profile": hardware.mig_profile,
        "driver_version": hardware.driver_version,
        "cpu_model": hardware.cpu_model,
        "cpu_count": hardware.cpu_count,
        "gpus": hardware.gpus,
        "power_limit_watts": hardware.power_limit_watts,
        "max_clock_mhz": hardware.max_clock_mhz,
    }


def _result_columns(report: BenchmarkReport, summary: RunSummary) -> Row:
    gates = {} if report.recipe is None else gates_of(report.recipe.body)
    return {
        "started_at": to_datetime(report.started_us),
        "ended_at": to_datetime(report.ended_us),
        "status": summary.status,
        "invalid_reason": summary.reason,
        "error_rate": summary.error_rate,
        "repeats": len(report.repeats),
        "measured": _multirange(summary.windows),
        "output_tokens": summary.output_tokens,
        "server_output_tokens": report.server_output_tokens,
        "token_count_source": summary.token_count_source,
        "notes": summary.notes,
        "gates": {f"{metric}.{stat}": least for (metric, stat), least in gates.items()},
    }


def _multirange(windows: Sequence[Span]) -> str:
    """Windows as PostgreSQL writes a tstzmultirange."""
    ranges = (f"[{to_datetime(begin)},{to_datetime(end)})" for begin, end in windows)
    return "{" + ",".join(ranges) + "}"


def _evidence_columns(report: BenchmarkReport) -> Row:
    return {
        "claims": report.jobs,
        "argv": report.argv,
        "files": report.files,
        "raw": [_without_numbers(repeat) for repeat in report.repeats],
        "report_sha256": content_sha256(report),
    }


def _without_numbers(repeat: Repeat) -> Repeat:
    """A repeat without what is in benchmark_metric."""
    if repeat.result is None:
        return repeat
    return msgspec.structs.replace(repeat, result=msgspec.structs.replace(repeat.result, measurements=()))


def _recipe_row(event: Event, report: BenchmarkReport) -> Row | None:
    recipe = report.recipe
    if recipe is None:
        return None
    return {
        "name": recipe.name,
        "sha256": recipe.sha256,
        "version": recipe.version,
        "body": recipe.body,
        "first_reported_at": to_datetime(event.time_us),
        "first_event_id": event.event_id,
    }


def _claim_rows(report: BenchmarkReport) -> list[Row]:
    return [
        {
            "run_uid": report.run_uid,
            "position": position,
            "role": claim.role,
            "link_state": LinkState.PENDING,
            "link_source": claim.source,
            "cluster_name": claim.cluster,
            "job_id": claim.job_id,
            "step_id": claim.step_id,
            "node_list": claim.node_list,
        }
        for position, claim in enumerate(report.jobs)
    ]


def _metric_rows(report: BenchmarkReport, summary: RunSummary) -> list[Row]:
    own = {(one.metric, one.stat): one.value for one in summary.measurements}
    rows = _numbers(report.run_uid, 0, own)
    for number, repeat in enumerate(report.repeats, start=1):
        result = repeat.result
        if result is not None and result.requests_completed != 0 and result.invalid_reason is None:
            rows += _numbers(report.run_uid, number, values_of(result))
    return rows


def _numbers(run_uid: str, repeat: int, values: dict[tuple[str, str], float]) -> list[Row]:
    known: dict[str, Any] = {"run_uid": run_uid, "repeat": repeat, "settled": False}
    return [{**known, "metric": metric, "stat": stat, "value": value} for (metric, stat), value in values.items()]

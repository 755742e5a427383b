"""Colours, thresholds and links that all dashboards share, so that one colour means one thing everywhere."""

from __future__ import annotations

GOOD, WARN, BAD, PLAIN, MUTED = "green", "orange", "red", "blue", "#8e8e8e"

Steps = tuple[tuple[float | None, str], ...]
"""Colours by the value from which they hold; the first has None."""

NEUTRAL: Steps = ((None, PLAIN),)
NONE_IS_GOOD: Steps = ((None, GOOD), (1, BAD))
NONE_IS_BETTER: Steps = ((None, GOOD), (1, WARN))
FULL_PERCENT: Steps = ((None, GOOD), (80, WARN), (95, BAD))
USED_PERCENT: Steps = ((None, BAD), (25, WARN), (60, GOOD))  # of what was allocated: little is waste
USED_RATIO: Steps = ((None, BAD), (0.25, WARN), (0.6, GOOD))
COVERED_RATIO: Steps = ((None, WARN), (0.9, GOOD))  # below, a number should not be compared with others
TEMPERATURE: Steps = ((None, GOOD), (80, WARN), (90, BAD))

COMPONENTS = {"gpu": "purple", "cpu": "blue", "dram": "yellow"}
JOB_STATES = {
    "pending": "yellow", "running": "blue", "ended": MUTED, "completed": GOOD, "failed": BAD, "cancelled": WARN,
}  # fmt: skip
NODE_STATES = {
    "idle": GOOD, "mixed": "blue", "allocated": "dark-blue", "draining": WARN, "drained": "dark-orange", "down": BAD,
    "error": "dark-red", "unknown": MUTED, "future": "light-blue",
}  # fmt: skip
VERDICTS = {
    "ok": GOOD, "improvement": "dark-green", "suspect_improvement": "light-green", "insufficient": MUTED,
    "suspect": WARN, "regression": BAD,
}  # fmt: skip
JOB_VERDICTS = {
    "completed": GOOD, "failed": BAD, "out_of_memory": "dark-red", "timeout": WARN, "cancelled": "yellow",
    "node_fail": "purple", "preempted": "light-blue", "killed_by_signal": "dark-orange", "requeued": "blue",
    "unknown": MUTED,
}  # fmt: skip
ACTORS = {
    "slurm-prolog": "blue", "slurm-epilog": "dark-blue", "slurm-controller": "purple", "collector": MUTED,
    "reconciler": WARN, "api": BAD, "cli": "dark-red",
}  # fmt: skip
LIMIT, USED, ALLOCATED = BAD, "blue", MUTED

_CHOSEN = "${cluster:queryparam}"
_SOURCES = "${prometheus:queryparam}&${postgresql:queryparam}"


def job_link(job: str = "job_id", cluster: str = "cluster_name", *, times: bool = True) -> str:
    """Address of the job of a table's row; with `times` the row has columns from_ms and to_ms, and it opens on them."""
    shown = "from=${__data.fields.from_ms}&to=${__data.fields.to_ms}" if times else "${__url_time_range}"
    named = f"var-job=${{__data.fields.{job}}}&var-cluster=${{__data.fields.{cluster}}}"
    return f"/d/jobtrail-job?{named}&{_SOURCES}&{shown}"


def job_label_link() -> str:
    """Address of the job of a series with the label job_id, of the cluster that is chosen."""
    return f"/d/jobtrail-job?var-job=${{__field.labels.job_id}}&{_CHOSEN}&{_SOURCES}&${{__url_time_range}}"


def node_link(cluster: str) -> str:
    """Address of the node of a table's row; `cluster` is the column that says of which, or none says it."""
    of = f"&var-cluster=${{__data.fields.{cluster}}}" if cluster else ""
    return f"/d/jobtrail-node?var-node=${{__data.fields.node}}{of}&{_SOURCES}&${{__url_time_range}}"


def node_label_link(*, chosen: bool = False) -> str:
    """Address of the node of a series with the labels node and cluster; with `chosen` of the one cluster chosen."""
    of = _CHOSEN if chosen else "var-cluster=${__field.labels.cluster}"
    return f"/d/jobtrail-node?var-node=${{__field.labels.node}}&{of}&{_SOURCES}&${{__url_time_range}}"


def account_link(column: str = "account") -> str:
    """Address of the account of a table's row."""
    return f"/d/jobtrail-accounts?var-account=${{__data.fields.{column}}}&{_SOURCES}&${{__url_time_range}}"


def benchmark_link(column: str = "recipe") -> str:
    """Address of the recipe of a table's row."""
    return f"/d/jobtrail-benchmarks?var-recipe=${{__data.fields.{column}}}&{_SOURCES}&${{__url_time_range}}"


def audit_link(column: str = "job_id") -> str:
    """Address of the trail of a table's job."""
    return f"/d/jobtrail-audit?var-job=${{__data.fields.{column}}}&{_SOURCES}&${{__url_time_range}}"

"""How many rows each question of docs/sql.md may look at in any large table: those it answers with, unless named here.

A query that looks at more has lost its index. The counts are of what the question itself is about.
"""

from __future__ import annotations

_JOBS_30_DAYS = "SELECT count(*) FROM jobs WHERE end_time > now() - interval '30 days'"
_EVENTS_7_DAYS = (
    "SELECT 2 * count(*) FROM audit_log WHERE stored_at > now() - interval '7 days'"  # and those before them
)
_CHAINS = "SELECT 2 * count(*) FROM audit_chain"

# Beginning of the title -> a statement that counts.
SCOPES = {
    "Usage by user of the last 30 days": _JOBS_30_DAYS,
    "Queue time by partition": "SELECT count(*) FROM jobs WHERE start_time > now() - interval '30 days'",
    "Out-of-memory kills of the last week": (
        "SELECT count(*) FROM jobs WHERE verdict = 'out_of_memory' AND end_time > now() - interval '7 days'"
    ),
    "Ended jobs of which nobody": "SELECT count(*) FROM jobs WHERE state = 'ended'",
    "Jobs of the last 30 days whose numbers": _JOBS_30_DAYS,
    "How complete the figures": _JOBS_30_DAYS,
    "What was known of a job": "SELECT count(*) FROM audit_log WHERE job_id = 'slurm-123'",
    "What a node did between two times: what it recorded": (
        "SELECT count(*) FROM audit_log WHERE changed_at BETWEEN now() - interval '2 days' AND now() - interval '1 day'"
    ),
    "What a node did between two times: its jobs": (
        "SELECT count(*) FROM job_nodes WHERE node = 'n007' AND ended_at > now() - interval '2 days'"
    ),
    "Gaps in the trail": _EVENTS_7_DAYS,
    "Links that do not hold": _EVENTS_7_DAYS,
    # Whether a number is missing anywhere is only known when every number was seen: all of the key, none of the table.
    "Gaps in the whole trail": "SELECT count(*) FROM audit_log",
    "Chains whose end is missing": _CHAINS,
    "Chains that fell silent": _CHAINS,
    "Nodes that began another chain": _CHAINS,
    "Top wasters": _JOBS_30_DAYS,
    "The jobs of the last 30 days that wasted": _JOBS_30_DAYS,
    "GPUs that are held": "SELECT count(*) FROM gpu_samples WHERE sampled_at > now() - interval '1 hour'",
    "Jobs that run now and have used less": "SELECT count(*) FROM jobs WHERE state = 'running'",
    "GPU hours of the last week": "SELECT count(*) FROM jobs WHERE end_time > now() - interval '7 days'",
    "Energy and emissions of the last month": (
        "SELECT count(*) FROM jobs WHERE end_time >= date_trunc('month', now()) - interval '1 month'"
        " AND end_time < date_trunc('month', now())"
    ),
    "The last year month by month": "SELECT count(*) FROM jobs",
    "GPU errors of the last week": "SELECT count(*) FROM job_gpus WHERE errors IS NOT NULL",  # errors are rare
    "Most output tokens per joule": "SELECT count(*) FROM benchmark_run",  # the best of all there ever were
    "Regressions of this month": "SELECT count(*) FROM benchmark_verdict WHERE verdict = 'regression'",
    "Benchmarks of one user": (
        "SELECT (SELECT count(*) FROM jobs WHERE user_name = 'alice')"
        " + (SELECT count(*) FROM benchmark_run WHERE user_name = 'alice')"
    ),
    "Everything about the job of one benchmark": "SELECT 25",  # one job's events and GPUs, in one row
}

# Beginning of the title -> large tables that it may read from end to end: its answer is of nearly all their rows.
WHOLE = {"The last year month by month": {"jobs"}}


def scope_of(title: str) -> str | None:
    """The statement that counts what a question is about; None where that is its answer."""
    return next((count for beginning, count in SCOPES.items() if title.startswith(beginning)), None)


def whole_of(title: str) -> set[str]:
    """Tables that a question may read from end to end."""
    return next((tables for beginning, tables in WHOLE.items() if title.startswith(beginning)), set())

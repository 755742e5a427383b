"""Benchmarks: how results went, what was judged a regression, and who leads."""

from __future__ import annotations

from grafana.src import looks
from grafana.src.frame import Annotation, Variable, dashboard, from_sql, sources
from grafana.src.panels import HALF, QUARTER, THIRD, WHOLE, Column, Panel, lines, listing, number, states
from grafana.src.queries import now, over_time, rows, series
from grafana_foundation_sdk.models.dashboard import Dashboard

NONE = "No valid run of the chosen in this time"
NO_GAUGE = "No valid run of the chosen in the last benchmarks.stale_days"
NO_ENERGY = "No run whose energy was measured well enough"
LABELS = 'recipe=~"${recipe:regex}",hardware=~"${hardware:regex}"'

_CLUSTERS = "SELECT DISTINCT cluster_name FROM benchmark_run ORDER BY cluster_name LIMIT 1000"
_RECIPES = (
    "SELECT DISTINCT recipe_name FROM benchmark_run WHERE recipe_name IS NOT NULL ORDER BY recipe_name LIMIT 1000"
)
_HARDWARE = """
    SELECT hardware AS __value,
           concat_ws(' · ', hardware, min(model), max(gpu_count)::text || ' x ' || min(gpu_model),
           min(cpu_model)) AS __text
    FROM benchmark_run WHERE recipe_name IN (${recipe:sqlstring})
    GROUP BY hardware ORDER BY max(started_at) DESC LIMIT 1000
"""
_CHOSEN = (
    "b.recipe IN (${recipe:sqlstring}) AND b.hardware IN (${hardware:sqlstring}) AND $__timeFilter(b.started_at)"
    " AND b.cluster_name IN (${cluster:sqlstring})"
)

VERDICTS = f"""
    SELECT b.started_at, b.recipe, b.model, b.hardware, v.metric, v.stat, v.verdict, v.relative_change,
           v.min_detectable,
           v.baseline_n, v.confirmed_by, v.advisory, b.job_id, b.cluster_name, b.run_uid::text AS run_uid,
           (extract(epoch FROM b.started_at) * 1000)::bigint::text AS from_ms,
           (extract(epoch FROM b.ended_at) * 1000)::bigint::text AS to_ms
    FROM benchmark_run_summary b
    JOIN benchmark_verdict v USING (run_uid)
    WHERE {_CHOSEN}
    ORDER BY b.started_at DESC, v.advisory, v.metric LIMIT 300
"""  # noqa: S608 - constants of this module
RUNS = f"""
    SELECT b.started_at, b.recipe, b.model, b.hardware, b.status, b.verdict, b.output_tokens_per_second,
           b.ttft_p50_seconds,
           b.tpot_p50_seconds, b.error_ratio, b.output_tokens_per_joule, b.energy_coverage_ratio, b.user_name, b.job_id,
           b.cluster_name, b.link_state, b.pinned, b.accepted,
           coalesce(b.invalid_reason, b.energy_invalid_reason, b.open_reason) AS note, b.run_uid::text AS run_uid,
           (extract(epoch FROM b.started_at) * 1000)::bigint::text AS from_ms,
           (extract(epoch FROM b.ended_at) * 1000)::bigint::text AS to_ms
    FROM benchmark_run_summary b
    WHERE {_CHOSEN}
    ORDER BY b.started_at DESC LIMIT 300
"""  # noqa: S608 - constants of this module
FASTEST = """
    SELECT * FROM (
        SELECT DISTINCT ON (b.model, b.gpu_model, b.gpu_count, b.cpu_model)
               b.model, b.gpu_model, b.gpu_count, b.cpu_model, b.recipe, b.output_tokens_per_second, b.ttft_p50_seconds,
               b.tool_version, b.started_at
        FROM benchmark_run_summary b
        WHERE b.recipe IN (${recipe:sqlstring}) AND b.cluster_name IN (${cluster:sqlstring})
          AND b.status = 'ok' AND coalesce(b.error_ratio, 0) <= 0.01
          AND b.output_tokens_per_second IS NOT NULL
        ORDER BY b.model, b.gpu_model, b.gpu_count, b.cpu_model, b.output_tokens_per_second DESC
    ) AS best
    ORDER BY output_tokens_per_second DESC LIMIT 100
"""
THRIFTIEST = """
    SELECT * FROM (
        SELECT DISTINCT ON (b.model, b.gpu_model, b.gpu_count, b.cpu_model)
               b.model, b.gpu_model, b.gpu_count, b.cpu_model, b.recipe, b.output_tokens_per_joule,
               b.output_tokens_per_second, b.emissions_grams_per_million_output_tokens, b.energy_coverage_ratio,
               b.energy_invalid_reason, b.started_at
        FROM benchmark_run_summary b
        WHERE b.recipe IN (${recipe:sqlstring}) AND b.cluster_name IN (${cluster:sqlstring})
          AND b.status = 'ok' AND coalesce(b.error_ratio, 0) <= 0.01
          AND b.output_tokens_per_joule IS NOT NULL AND b.energy_coverage_ratio >= 0.9
        ORDER BY b.model, b.gpu_model, b.gpu_count, b.cpu_model, b.output_tokens_per_joule DESC
    ) AS best
    ORDER BY output_tokens_per_joule DESC LIMIT 100
"""
DECISIONS = """
    SELECT d.decided_at AS time, concat_ws(' ', d.decided_by, d.decision, left(d.run_uid::text, 8), d.reason) AS text,
           d.decision AS tags
    FROM benchmark_decision d
    JOIN benchmark_run b USING (run_uid)
    WHERE b.recipe_name IN (${recipe:sqlstring}) AND b.cluster_name IN (${cluster:sqlstring})
      AND $__timeFilter(d.decided_at)
    ORDER BY d.decided_at LIMIT 500
"""


def _trend(column: str) -> str:
    return f"""
        SELECT b.started_at AS time, concat_ws(' ', b.cluster_name, b.recipe, b.hardware) AS metric, b.{column} AS value
        FROM benchmark_run_summary b
        WHERE {_CHOSEN} AND b.status = 'ok' AND b.{column} IS NOT NULL
        ORDER BY b.started_at LIMIT 10000
    """  # noqa: S608 - constants of this module


def _judged() -> str:
    """Verdicts as their places in looks.VERDICTS, from 1: Grafana's series hold numbers only."""
    words = ", ".join(f"'{word}'" for word in looks.VERDICTS)
    return f"""
        SELECT b.started_at AS time, concat_ws(' ', b.cluster_name, b.recipe, b.hardware) AS metric,
               array_position(ARRAY[{words}], b.verdict) AS value
        FROM benchmark_run_summary b
        WHERE {_CHOSEN} AND b.verdict IS NOT NULL
        ORDER BY b.started_at LIMIT 10000
    """  # noqa: S608 - constants of this module


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "benchmarks", "Benchmarks", "How results went, which runs were judged slower, and what is fastest and "
        "thriftiest.",
        variables=(*sources(), _several("cluster", "Cluster", _CLUSTERS),
                   _several("recipe", "Recipe", _RECIPES), _several("hardware", "Hardware", _HARDWARE)),
        panels=(*_numbers(), *_trends()),
        rows={"Leaderboards": _leaders(), "Verdicts and runs": _tables(), "The last valid run": _last()},
        annotations=(Annotation("Accepted and pinned", DECISIONS, "green"),), past="now-30d", refresh="15m",
    )  # fmt: skip


def _several(name: str, label: str, statement: str) -> Variable:
    return from_sql(name, label, statement, several=True, listed=True)  # in PromQL and in SQL


def _numbers() -> tuple[Panel, ...]:
    return (
        number(
            "Regressions", "Recipes, models and hardware whose last valid run is a confirmed regression of some metric "
            "(hpc_benchmark_regression).",
            now(f"count(max by (cluster, recipe, model, hardware) (hpc_benchmark_regression{{{LABELS}}}) == 1)"
                f" or 0 * count(hpc_benchmark_regression{{{LABELS}}})"),
            unit="short", absent="Nothing judged: fewer than five earlier runs", steps=looks.NONE_IS_GOOD,
        ),
        number(
            "Worst against baseline", "Output tokens per second of the last valid run, over the median of the runs "
            "before it; the lowest of the chosen.",
            now(f'min(hpc_benchmark_baseline_ratio{{{LABELS},metric="output_token_throughput"}})'),
            unit="percentunit", absent="Nothing judged: fewer than five earlier runs",
            steps=((None, "red"), (0.9, "orange"), (0.95, "green")),
        ),
        number(
            "Failed and invalid runs", "On record, with the same labels as a valid run.",
            now(f'sum(hpc_benchmark_runs{{{LABELS},status!="ok"}}) or 0 * sum(hpc_benchmark_runs{{{LABELS}}})'),
            unit="short", absent=NO_GAUGE, steps=looks.NONE_IS_BETTER,
        ),
        number(
            "Requests that failed", "Of the last valid run; the highest of the chosen.",
            now(f"max(hpc_benchmark_error_ratio{{{LABELS}}})"), unit="percentunit", absent=NO_GAUGE,
            steps=((None, "green"), (0.001, "orange"), (0.01, "red")),
        ),
        number(
            "Best tokens per joule", "Output tokens over the energy of the job's components, of the last valid runs.",
            now(f"max(hpc_benchmark_output_tokens_per_joule{{{LABELS}}})"), unit="suffix: tok/J", absent=NO_ENERGY,
            decimals=2,
        ),
        number(
            "Newest run", "How long ago the newest valid run ended.",
            now(f"time() - max(hpc_benchmark_last_run_timestamp_seconds{{{LABELS}}})"), unit="dtdurations",
            absent=NO_GAUGE,
        ),
    )  # fmt: skip


def _trends() -> tuple[Panel, ...]:
    def trend(title: str, description: str, column: str, unit: str, absent: str = NONE) -> Panel:
        told = f"{description} One point a valid run; one line holds only runs that may be compared."
        return lines(title, told, series(_trend(column)), unit=unit, absent=absent, width=THIRD)

    return (
        trend("Output tokens per second", "Tokens that came out of the model.", "output_tokens_per_second",
              "suffix: tok/s"),
        trend("Time to first token, median", "From a request until its first token.", "ttft_p50_seconds", "s"),
        trend("Time per output token, median", "Of each request, after its first token.", "tpot_p50_seconds", "s"),
        states("Worst verdict of each run", "Of its gates, against the runs before it: suspect becomes "
               "regression when the next run confirms it.", series(_judged()), absent="No run was judged in this time",
               colours=looks.VERDICTS, width=THIRD),
        trend("Output tokens per joule", "Tokens over the energy of GPUs, CPU packages and memory of the job that "
              "served.",
              "output_tokens_per_joule", "suffix: tok/J", NO_ENERGY),
        trend("Time to first token, 99th percentile", "Tails are noisy: they are told and never judged alone.",
              "ttft_p99_seconds", "s"),
    )  # fmt: skip


def _leaders() -> tuple[Panel, ...]:
    ran_on = (
        Column("model", "string", "Model"),
        Column("gpu_model", "string", "GPU"),
        Column("gpu_count", "short", "GPUs"),
        Column("cpu_model", "string", "CPU"),
        Column("recipe", "string", "Recipe", link=looks.benchmark_link()),
    )
    return (
        listing(
            "Fastest", "The best valid run of each model on each hardware, of all time. Recipes differ: compare "
            "within one.",
            rows(FASTEST),
            columns=(*ran_on, Column("output_tokens_per_second", "suffix: tok/s", "Output"),
                     Column("ttft_p50_seconds", "s", "First token, median"), Column("tool_version", "string",
                     "Version"),
                     Column("started_at", "dateTimeAsIso", "When")),
            absent="No valid run of the chosen recipes", width=HALF,
        ),
        listing(
            "Thriftiest", "The most tokens per joule: the best valid run of each model on each hardware, of which nine "
            "tenths of the energy or more were measured.",
            rows(THRIFTIEST),
            columns=(*ran_on, Column("output_tokens_per_joule", "suffix: tok/J", "Tokens per joule"),
                     Column("output_tokens_per_second", "suffix: tok/s", "Output"),
                     Column("emissions_grams_per_million_output_tokens", "massg", "CO2e per million tokens"),
                     Column("energy_coverage_ratio", "percentunit", "Measured", steps=looks.COVERED_RATIO),
                     Column("energy_invalid_reason", "string", "Why not to trust it"),
                     Column("started_at", "dateTimeAsIso", "When")),
            absent=NO_ENERGY, width=HALF,
        ),
    )  # fmt: skip


def _tables() -> tuple[Panel, ...]:
    hidden = (Column("from_ms", "string", hidden=True), Column("to_ms", "string", hidden=True))
    return (
        listing(
            "Verdicts", "Each judged metric of each run. Change is against the median of the baseline; a change "
            "smaller than Detectable could not be told from noise. Advisory: told, and no part of the run's verdict.",
            rows(VERDICTS),
            columns=(
                Column("started_at", "dateTimeAsIso", "When"),
                Column("recipe", "string", "Recipe", link=looks.benchmark_link()),
                Column("model", "string", "Model"),
                Column("hardware", "string", "Hardware"),
                Column("metric", "string", "Metric"),
                Column("stat", "string", "Of it"),
                Column("verdict", "string", "Verdict", colours=looks.VERDICTS),
                Column("relative_change", "percentunit", "Change"),
                Column("min_detectable", "percentunit", "Detectable"),
                Column("baseline_n", "short", "Baseline runs"),
                Column("confirmed_by", "string", "Confirmed by"),
                Column("advisory", "bool_yes_no", "Advisory"),
                Column("job_id", "string", "Job", link=looks.job_link()),
                Column("cluster_name", "string", "Cluster"),
                Column("run_uid", "string", "Run"),
                *hidden,
            ),
            absent="No run of the chosen was judged in this time", width=WHOLE, height=10,
        ),
        listing(
            "Runs", "Every run, valid or not, with the job that served it (view benchmark_run_summary).", rows(RUNS),
            columns=(
                Column("started_at", "dateTimeAsIso", "When"),
                Column("recipe", "string", "Recipe", link=looks.benchmark_link()),
                Column("model", "string", "Model"),
                Column("hardware", "string", "Hardware"),
                Column("status", "string", "Status"),
                Column("verdict", "string", "Verdict", colours=looks.VERDICTS),
                Column("output_tokens_per_second", "suffix: tok/s", "Output"),
                Column("ttft_p50_seconds", "s", "First token, median"),
                Column("tpot_p50_seconds", "s", "Per token, median"),
                Column("error_ratio", "percentunit", "Failed requests"),
                Column("output_tokens_per_joule", "suffix: tok/J", "Tokens per joule"),
                Column("energy_coverage_ratio", "percentunit", "Energy measured", steps=looks.COVERED_RATIO),
                Column("user_name", "string", "User"),
                Column("job_id", "string", "Job", link=looks.job_link()),
                Column("cluster_name", "string", "Cluster"),
                Column("link_state", "string", "Link"),
                Column("pinned", "bool_yes_no", "Pinned"),
                Column("accepted", "bool_yes_no", "Accepted"),
                Column("note", "string", "Note"),
                Column("run_uid", "string", "Run"),
                *hidden,
            ),
            absent="No run of the chosen in this time", width=WHOLE, height=10,
        ),
    )  # fmt: skip


def _last() -> tuple[Panel, ...]:
    def gauge(title: str, description: str, name: str, legend: str, unit: str, absent: str = NO_GAUGE) -> Panel:
        asked = over_time(f"hpc_benchmark_{name}{{{LABELS}}}", legend)
        return lines(title, description, asked, unit=unit, absent=absent, width=QUARTER)

    ran = "{{cluster}} {{recipe}} {{hardware}}"
    return (
        gauge("Total tokens per second", "Tokens that went in and came out.", "total_tokens_per_second", ran,
              "suffix: tok/s"),
        gauge("Requests per second", "Requests that succeeded.", "requests_per_second", ran, "reqps"),
        gauge("Goodput", "Requests within the bounds that the recipe sets.", "goodput_requests_per_second", ran,
              "reqps",
              "The recipe sets no bounds"),
        gauge("Request latency", "Of whole requests, by quantile.", "request_latency_seconds", ran + " {{quantile}}",
              "s"),
        gauge("Between two tokens", "Gaps of all requests together, by quantile.", "inter_token_latency_seconds",
              ran + " {{quantile}}", "s"),
        gauge("Energy", "Energy of the job that served: of the benchmark's own time, and of the whole job.",
              "energy_joules", ran + " {{domain}} {{window}}", "joule", NO_ENERGY),
        gauge("CO2e per million tokens", "CO2 equivalents with PUE, by a million output tokens.",
              "emissions_grams_per_million_output_tokens", ran, "massg", "No energy, or no emission factor"),
        gauge("Against baseline", "The last valid run over the median of the runs before it; 1 is equal.",
              "baseline_ratio", ran + " {{metric}}", "percentunit", "Nothing judged: fewer than five earlier runs"),
    )  # fmt: skip

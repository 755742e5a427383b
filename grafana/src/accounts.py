"""Users and accounts: what they used, how well, with how much energy and what it emitted."""

from __future__ import annotations

from grafana.src import choices, looks
from grafana.src.frame import dashboard, sources
from grafana.src.panels import HALF, WHOLE, Column, Panel, lines, listing, number
from grafana.src.queries import rows, series
from grafana_foundation_sdk.models.dashboard import Dashboard

NO_JOBS = "No job of the chosen started in this time"
UNMEASURED = "Unknown: none of these jobs has a number"

_CHOSEN = """
    FROM job_efficiency e
    JOIN job_energy g USING (cluster_name, job_id, run)
    WHERE $__timeFilter(e.start_time)
      AND ('*' IN (${cluster:sqlstring}) OR e.cluster_name IN (${cluster:sqlstring}))
      AND ('*' IN (${account:sqlstring}) OR e.account IN (${account:sqlstring}))
      AND ('*' IN (${user:sqlstring}) OR e.user_name IN (${user:sqlstring}))
"""
# CPU time used, of the CPU time that jobs of which both are known held while they were not suspended.
_CPU = """sum(e.cpu_seconds) FILTER (WHERE e.cpus_measured * e.active_seconds > 0)
    / nullif(sum(e.cpus_measured * e.active_seconds) FILTER (WHERE e.cpu_seconds IS NOT NULL), 0)"""
# Likewise: partitioned GPUs do not tell how busy they are.
_GPU = """sum(e.gpu_efficiency * e.gpu_seconds)
    / nullif(sum(e.gpu_seconds) FILTER (WHERE e.gpu_efficiency IS NOT NULL), 0)"""
_MEASURED = f"""{_CPU} AS cpu_used, {_GPU} AS gpu_busy,
    sum(e.cpus_allocated * e.elapsed_seconds) / 3600 AS cpu_hours, sum(e.gpu_seconds) / 3600 AS gpu_hours,
    sum(g.energy_joules) / 3.6e6 AS kwh, sum(g.emissions_grams) AS grams,
    count(*) FILTER (WHERE g.energy_joules IS NULL) AS without_energy"""


def _chosen(columns: str, rest: str = "") -> str:
    return f"SELECT {columns} {_CHOSEN} {rest}"


def _by_day(value: str) -> str:
    """A number of each account by the time at which its jobs started."""
    columns = (
        f"$__timeGroupAlias(e.start_time, $__interval), coalesce(e.account, 'no account') AS metric, {value} AS value"
    )
    return _chosen(columns, "GROUP BY 1, 2 ORDER BY 1")


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "accounts", "Users and accounts", "What users and accounts used, how well they used it, and with how much "
        "energy.",
        variables=(*sources(), choices.clusters(), choices.accounts(), choices.users()),
        panels=(*_numbers(), *_tables(), *_times()), rows={"Jobs to look at": _jobs()}, past="now-30d", refresh="15m",
    )  # fmt: skip


def _numbers() -> tuple[Panel, ...]:
    return (
        number("Jobs", "Jobs that started in the time range.", rows(_chosen("nullif(count(*), 0) AS jobs")),
               unit="short",
               absent=NO_JOBS),
        number("CPU used", "CPU time used, of the CPU time held while jobs were not suspended.",
               rows(_chosen(f"{_CPU} AS cpu_used")),
               unit="percentunit", absent=UNMEASURED, steps=looks.USED_RATIO),
        number("GPU busy", "Time in which kernels ran, of the time for which GPUs were held and looked at.",
               rows(_chosen(f"{_GPU} AS gpu_busy")), unit="percentunit", absent="No GPU was held",
               steps=looks.USED_RATIO),
        number("GPU time", "Time for which GPUs were held, as far as they were looked at.",
               rows(_chosen("sum(e.gpu_seconds) / 3600 AS gpu_hours")), unit="h", absent="No GPU was held"),
        number("Energy", "Of the jobs' GPUs, CPU packages and memory, as far as measured. Jobs without a number "
               "count as nothing here: the table says how many they are.",
               rows(_chosen("sum(g.energy_joules) / 3.6e6 AS kwh")), unit="kwatth", absent=UNMEASURED),
        number("Emissions", "CO2 equivalents of that energy, with PUE and the factor that was set when the jobs ran.",
               rows(_chosen("sum(g.emissions_grams) AS grams")), unit="massg",
               absent="Unknown: no energy or no emission factor"),
    )  # fmt: skip


def _measured() -> tuple[Column, ...]:
    return (
        Column("jobs", "short", "Jobs"),
        Column("failed", "short", "Failed"),
        Column("cpu_hours", "h", "CPU time held"),
        Column("cpu_used", "percentunit", "CPU used", steps=looks.USED_RATIO),
        Column("gpu_hours", "h", "GPU time held"),
        Column("gpu_busy", "percentunit", "GPU busy", steps=looks.USED_RATIO),
        Column("kwh", "kwatth", "Energy"),
        Column("grams", "massg", "CO2e"),
        Column("without_energy", "short", "Jobs without energy"),
    )


def _tables() -> tuple[Panel, ...]:
    counts = "count(*) AS jobs, count(*) FILTER (WHERE e.state = 'failed') AS failed"
    described = "Of the jobs that started in the time range (views job_efficiency and job_energy). "
    return (
        listing(
            "By account", described + "Efficiencies are of all the account's jobs together, not a mean of jobs.",
            rows(_chosen(f"e.account, {counts}, {_MEASURED}", "GROUP BY e.account ORDER BY cpu_hours DESC NULLS LAST "
                 "LIMIT 200")),
            columns=(Column("account", "string", "Account", link=looks.account_link()), *_measured()),
            absent=NO_JOBS, width=HALF,
        ),
        listing(
            "By user", described + "Efficiencies are of all the user's jobs together, not a mean of jobs.",
            rows(_chosen(f"e.user_name, {counts}, {_MEASURED}",
                         "GROUP BY e.user_name ORDER BY cpu_hours DESC NULLS LAST LIMIT 200")),
            columns=(Column("user_name", "string", "User"), *_measured()), absent=NO_JOBS, width=HALF,
        ),
    )  # fmt: skip


def _times() -> tuple[Panel, ...]:
    held = "sum(e.cpus_allocated * e.elapsed_seconds) / 3600"
    return (
        lines("CPU time held by account", "Of jobs by when they started.", series(_by_day(held)), unit="h",
              absent=NO_JOBS,
              bars=True),
        lines("Energy by account", "Of jobs by when they started, as far as measured.",
              series(_by_day("sum(g.energy_joules) / 3.6e6")), unit="kwatth", absent=UNMEASURED, bars=True),
        lines("Emissions by account", "CO2 equivalents of jobs by when they started.",
              series(_by_day("sum(g.emissions_grams)")), unit="massg",
                     absent="Unknown: no energy or no emission factor",
              bars=True),
        lines("How jobs ended", "Verdicts of jobs by when they started.",
              series(_chosen("$__timeGroupAlias(e.start_time, $__interval), coalesce(e.verdict, e.state) AS metric,"
                             " count(*) AS value", "GROUP BY 1, 2 ORDER BY 1")),
              unit="short", absent=NO_JOBS, bars=True, colours={**looks.JOB_STATES, **looks.JOB_VERDICTS}),
    )  # fmt: skip


def _jobs() -> tuple[Panel, ...]:
    wasted = "e.cpus_measured * e.active_seconds - e.cpu_seconds"
    times = """coalesce((extract(epoch FROM e.start_time) * 1000)::bigint::text, 'now-6h') AS from_ms,
        coalesce((extract(epoch FROM e.end_time) * 1000)::bigint::text, 'now') AS to_ms"""
    named = (
        Column("job_id", "string", "Job", link=looks.job_link()),
        Column("cluster_name", "string", "Cluster"),
        Column("user_name", "string", "User"),
        Column("account", "string", "Account", link=looks.account_link()),
    )
    columns = "e.job_id, e.cluster_name, e.user_name, e.account"
    hidden = (Column("from_ms", "string", hidden=True), Column("to_ms", "string", hidden=True))
    return (
        listing(
            "Most CPU time held and not used", "CPU time held while the job was not suspended, less CPU time used.",
            rows(_chosen(f"{columns}, e.state, ({wasted}) / 3600 AS wasted_hours, e.cpu_efficiency, {times}",
                         f"AND e.cpu_seconds IS NOT NULL AND e.cpus_measured > 0 ORDER BY {wasted} DESC LIMIT 50")),
            columns=(*named, Column("state", "string", "State", colours=looks.JOB_STATES),
                     Column("wasted_hours", "h", "Not used"),
                     Column("cpu_efficiency", "percentunit", "CPU used", steps=looks.USED_RATIO), *hidden),
            absent="No job of which CPU time and allocation are known", width=HALF,
        ),
        listing(
            "Most memory asked for and not used", "Memory limit less the peak.",
            rows(_chosen(f"{columns}, e.memory_limit_bytes, e.memory_peak_bytes, e.memory_efficiency, {times}",
                         "AND e.memory_efficiency IS NOT NULL"
                         " ORDER BY e.memory_limit_bytes - e.memory_peak_bytes DESC LIMIT 50")),
            columns=(*named, Column("memory_limit_bytes", "bytes", "Limit"), Column("memory_peak_bytes", "bytes",
            "Peak"),
                     Column("memory_efficiency", "percentunit", "Peak of limit", steps=looks.USED_RATIO), *hidden),
            absent="No job of which limit and peak are known", width=HALF,
        ),
        listing(
            "Most energy", "Of the components that were measured. Below 0.9 measured, do not compare.",
            rows(_chosen(f"{columns}, g.energy_joules, g.energy_method, g.energy_coverage_ratio, g.emissions_grams,"
                         f" {times}",
                         "AND g.energy_joules IS NOT NULL ORDER BY g.energy_joules DESC LIMIT 50")),
            columns=(*named, Column("energy_joules", "joule", "Energy"), Column("energy_method", "string",
            "Measured by"),
                     Column("energy_coverage_ratio", "percentunit", "Measured", steps=looks.COVERED_RATIO),
                     Column("emissions_grams", "massg", "CO2e"), *hidden),
            absent="No job has energy", width=WHOLE,
        ),
    )  # fmt: skip

"""The cluster: what runs, what waits, and which nodes are missing."""

from __future__ import annotations

from grafana.src import choices, looks
from grafana.src.frame import dashboard, sources
from grafana.src.looks import ALLOCATED, LIMIT, USED
from grafana.src.panels import QUARTER, THIRD, WHOLE, Column, Panel, lines, listing, number, ranking
from grafana.src.queries import now, over_time, rows
from grafana_foundation_sdk.models.dashboard import Dashboard

NO_SERVER = "Unknown: no daemon in the role server answers from its database"
NO_SLURM = "Unknown: slurmrestd is not set up or does not answer"
NO_JOBS = "No job is being measured"

OUT_OF_SERVICE = """
    SELECT cluster_name, node, state, array_to_string(state_flags, ', ') AS flags, reason, state_changed_at, updated_at
    FROM nodes
    WHERE (state IN ('down', 'error', 'unknown') OR state_flags && ARRAY['drain', 'not_responding'])
      AND cluster_name IN (${cluster:sqlstring})
    ORDER BY state_changed_at DESC LIMIT 200
"""
RUNNING = """
    SELECT e.job_id, e.cluster_name, e.user_name, e.account, e.partition, e.start_time, e.cpus_allocated,
           e.cpu_efficiency, e.memory_efficiency, e.gpus_allocated, e.gpu_efficiency,
           coalesce((extract(epoch FROM e.start_time) * 1000)::bigint::text, 'now-6h') AS from_ms, 'now' AS to_ms
    FROM job_efficiency e
    WHERE e.state = 'running' AND e.cluster_name IN (${cluster:sqlstring})
    ORDER BY e.start_time DESC NULLS LAST LIMIT 200
"""
ENDED_BADLY = """
    SELECT j.job_id, j.cluster_name, j.user_name, j.account, j.verdict, j.exit_code, j.exit_signal, j.end_time,
           coalesce((extract(epoch FROM j.start_time) * 1000)::bigint::text, 'now-6h') AS from_ms,
           coalesce((extract(epoch FROM j.end_time) * 1000)::bigint::text, 'now') AS to_ms
    FROM jobs j
    WHERE $__timeFilter(j.start_time) AND j.state = 'failed' AND j.cluster_name IN (${cluster:sqlstring})
    ORDER BY j.start_time DESC LIMIT 200
"""

TOTAL_CPUS = "sum(max by (cluster, node) (hpc_node_total_cpus))"
TOTAL_MEMORY = "sum(max by (cluster, node) (hpc_node_total_memory_bytes))"


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "cluster", "Cluster", "What runs, what waits, what it uses, and which nodes are missing.",
        variables=(*sources(), choices.scraped_clusters()), panels=(*_numbers(), *_times()),
        rows={"Jobs and accounts": (*_jobs(), *_job_tables()), "Nodes out of service": _nodes()},
    )  # fmt: skip


def _numbers() -> tuple[Panel, ...]:
    return (
        number(
            "Running jobs", "Jobs that run now, by the database of each cluster's servers; of all clusters in it "
            "(hpc_job_state_total).",
            now('max by (cluster) (hpc_job_state_total{state="running"})', "{{cluster}}"),
            unit="short", absent=NO_SERVER,
        ),
        number(
            "Pending jobs", "The length of Slurm's queue where slurmrestd tells it, else the jobs on record that wait.",
            now('max by (cluster) (hpc_job_state_total{state="pending"})', "{{cluster}}"),
            unit="short", absent=NO_SERVER,
        ),
        number(
            "Nodes in service", "Nodes that take jobs or run them: Slurm's states idle, mixed and allocated.",
            now('count(max by (cluster, node) (hpc_node_state{state=~"idle|mixed|allocated"}))'
                " or 0 * count(hpc_node_state)"),
            unit="short", absent=NO_SLURM, steps=((None, "red"), (1, "green")),
        ),
        number(
            "Nodes out of service", "Nodes that are down, draining, drained, in error or unknown to slurmctld. The "
            "table below says since when and why.",
            now('count(max by (cluster, node) (hpc_node_state{state!~"idle|mixed|allocated|future"}))'
                " or 0 * count(hpc_node_state)"),
            unit="short", absent=NO_SLURM, steps=looks.NONE_IS_BETTER,
        ),
        number(
            "CPUs allocated", "CPUs that jobs hold, of those Slurm has configured. Held is not used: see the panel "
            "below.",
            now("100 * sum(max by (cluster, node) (hpc_node_cpus_allocated))"
                " / sum(max by (cluster, node) (hpc_node_total_cpus) and on (cluster, node) hpc_node_cpus_allocated)"),
            unit="percent", absent=NO_SLURM, decimals=0,
        ),
        number(
            "GPUs allocated", "GPUs that jobs hold, of those Slurm has configured.",
            now("100 * sum(max by (cluster, node) (hpc_node_gpus_allocated))"
                " / (sum(max by (cluster, node) (hpc_node_gpus)) > 0)"),
            unit="percent", absent="No GPUs configured, or slurmrestd does not answer", decimals=0,
        ),
    )  # fmt: skip


def _times() -> tuple[Panel, ...]:
    return (
        lines(
            "Running and pending jobs", "How many jobs run and how many wait, as each cluster's servers tell it "
            "(hpc_job_state_total): of all clusters of their database.",
            over_time('max by (cluster, state) (hpc_job_state_total{state=~"running|pending"})',
                      "{{cluster}} {{state}}"),
            unit="short", absent=NO_SERVER, width=THIRD, colours=looks.JOB_STATES,
        ),
        lines(
            "Nodes by state", "Every node once, by Slurm's base state; draining and drained take no new jobs.",
            over_time("sum by (state) (max by (cluster, node, state) (hpc_node_state))", "{{state}}"),
            unit="short", absent=NO_SLURM, width=THIRD, stack=True, colours=looks.NODE_STATES,
        ),
        lines(
            "CPUs: there, allocated, used", "The gap between allocated and used is CPU time that jobs hold and leave "
            "idle. Used is measured in the jobs' cgroups (hpc_job_cpu_seconds_total).",
            over_time(TOTAL_CPUS, "there"),
            over_time("sum(max by (cluster, node) (hpc_node_cpus_allocated))", "allocated", "B"),
            over_time("sum(rate(hpc_job_cpu_seconds_total[$__rate_interval]))", "used by jobs", "C"),
            unit="short", absent=NO_JOBS, width=THIRD, limits=("there",),
            colours={"there": LIMIT, "allocated": ALLOCATED, "used by jobs": USED},
        ),
        lines(
            "Memory: there, allocated, used", "Used is what the jobs' cgroups are charged with, page cache included.",
            over_time(TOTAL_MEMORY, "there"),
            over_time("sum(max by (cluster, node) (hpc_node_memory_allocated_bytes))", "allocated", "B"),
            over_time("sum(hpc_job_memory_usage_bytes)", "used by jobs", "C"),
            unit="bytes", absent=NO_JOBS, width=THIRD, limits=("there",),
            colours={"there": LIMIT, "allocated": ALLOCATED, "used by jobs": USED},
        ),
        lines(
            "GPUs: there, allocated, with a process", "With a process: some process of the job has the GPU open "
            "(hpc_job_gpus_active). The gap to allocated is what the GPU dashboard lists.",
            over_time("sum(max by (cluster, node) (hpc_node_gpus))", "there"),
            over_time("sum(hpc_job_gpus_allocated)", "allocated", "B"),
            over_time("sum(hpc_job_gpus_active)", "with a process", "C"),
            unit="short", absent="No GPUs configured and none held", width=THIRD, limits=("there",),
            colours={"there": LIMIT, "allocated": ALLOCATED, "with a process": USED},
        ),
        lines(
            "Power of running jobs", "Energy of the jobs' GPUs, CPU packages and memory by time. Power supplies, "
            "fans and disks are not in it, and what could not be measured is missing, not 0.",
            over_time("sum by (component) (rate(hpc_job_energy_joules_total[$__rate_interval]))", "{{component}}"),
            unit="watt", absent="No energy counter could be read", width=THIRD, stack=True, colours=looks.COMPONENTS,
        ),
    )  # fmt: skip


def _jobs() -> tuple[Panel, ...]:
    return (
        ranking(
            "CPUs held by account", "CPUs allocated to running jobs; the ten largest.",
            now("topk(10, sum by (account) (hpc_job_cpus_allocated"
                " * on (instance, job_id, node) group_left (account) hpc_job_info))", "{{account}}"),
            unit="short", absent=NO_JOBS, width=QUARTER,
        ),
        ranking(
            "CPU use by partition", "CPU time used by running jobs, of the CPUs they hold; of jobs whose use is known "
            "and that Slurm has not suspended.",
            now("100 * sum by (partition) (sum by (instance, job_id, node)"
                " (rate(hpc_job_cpu_seconds_total[$__rate_interval]))"
                " * on (instance, job_id, node) group_left (partition) hpc_job_info)"
                " / sum by (partition) (hpc_job_cpus_allocated"
                " * on (instance, job_id, node) group_left (partition) hpc_job_info"
                " and on (instance, job_id, node) rate(hpc_job_cpu_seconds_total[$__rate_interval])"
                " unless on (cluster, job_id) hpc_job_suspended)",
                "{{partition}}"),
            unit="percent", absent=NO_JOBS, width=QUARTER, high=100, steps=looks.USED_PERCENT,
        ),
        lines(
            "Out-of-memory kills", "Processes that the kernel killed in jobs' cgroups in each step.",
            over_time("sum by (cluster, node) (increase(hpc_job_oom_kills_total[$__rate_interval]))",
                      "{{cluster}} {{node}}"),
            unit="short", absent="No job is being measured, or this kernel does not count kills", width=12, bars=True,
            link=looks.node_label_link(),
        ),
    )  # fmt: skip


def _job_tables() -> tuple[Panel, ...]:
    return (
        listing(
            "Jobs that run now", "The newest 200 of the view job_efficiency; efficiency is up to each job's last "
            "sample.",
            rows(RUNNING),
            columns=(
                Column("job_id", "string", "Job", link=looks.job_link()),
                Column("cluster_name", "string", "Cluster"),
                Column("user_name", "string", "User"),
                Column("account", "string", "Account", link=looks.account_link()),
                Column("partition", "string", "Partition"),
                Column("start_time", "dateTimeAsIso", "Started"),
                Column("cpus_allocated", "short", "CPUs"),
                Column("cpu_efficiency", "percentunit", "CPU used", steps=looks.USED_RATIO),
                Column("memory_efficiency", "percentunit", "Memory peak of limit"),
                Column("gpus_allocated", "short", "GPUs"),
                Column("gpu_efficiency", "percentunit", "GPU busy", steps=looks.USED_RATIO),
                Column("from_ms", "string", hidden=True),
                Column("to_ms", "string", hidden=True),
            ),
            absent="No job runs",
        ),
        listing(
            "Jobs that failed", "Of the jobs that started in the time range, those in state failed, with the "
            "verdict: out of memory, timeout, node failure and so on.",
            rows(ENDED_BADLY),
            columns=(
                Column("job_id", "string", "Job", link=looks.job_link()),
                Column("cluster_name", "string", "Cluster"),
                Column("user_name", "string", "User"),
                Column("account", "string", "Account", link=looks.account_link()),
                Column("verdict", "string", "Verdict", colours=looks.JOB_VERDICTS),
                Column("exit_code", "none", "Exit code"),
                Column("exit_signal", "none", "Signal"),
                Column("end_time", "dateTimeAsIso", "Ended"),
                Column("from_ms", "string", hidden=True),
                Column("to_ms", "string", hidden=True),
            ),
            absent="No job that started in this time failed",
        ),
    )  # fmt: skip


def _nodes() -> tuple[Panel, ...]:
    return (
        listing(
            "Which nodes, since when and why", "Nodes that are down, in error, drained or silent, with the reason "
            "their administrator or slurmctld gave. As of Told; if that is long ago, Slurm has not answered since.",
            rows(OUT_OF_SERVICE),
            columns=(
                Column("cluster_name", "string", "Cluster"),
                Column("node", "string", "Node", link=looks.node_link("cluster_name")),
                Column("state", "string", "State", colours=looks.NODE_STATES),
                Column("flags", "string", "Flags"),
                Column("reason", "string", "Reason"),
                Column("state_changed_at", "dateTimeAsIso", "Since"),
                Column("updated_at", "dateTimeAsIso", "Told"),
            ),
            absent="All nodes are in service, or slurmrestd is not set up", width=WHOLE,
        ),
    )  # fmt: skip

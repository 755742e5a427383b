"""All GPUs: those that are held and idle first, then how the others are used and how they are."""

from __future__ import annotations

from grafana.src import choices, looks
from grafana.src.frame import choice, dashboard, sources
from grafana.src.panels import HALF, QUARTER, THIRD, WHOLE, Column, Panel, lines, listing, number
from grafana.src.queries import now, over_time, rows, rows_now
from grafana_foundation_sdk.models.dashboard import Dashboard

NO_GPU = "No GPU is being watched"
NO_HOLDER = "No running job holds a GPU"
BY_NODE = "{{cluster}} {{node}}"
BY_GPU = "{{cluster}} {{node}} {{gpu_id}}"

# A GPU's jobs are named by hpc_job_info; boards, unlike instances of partitioned ones, have no parent.
IDLE = """
    (hpc_job_gpu_idle_seconds > $idle)
    * on (instance, job_id, node) group_left (user, account, partition, cluster) hpc_job_info
"""
WASTED = """
    SELECT j.user_name, j.account, count(DISTINCT (j.cluster_name, j.job_id, j.run)) AS jobs,
           sum(g.observed_seconds) / 3600 AS gpu_hours, sum(g.unused_seconds) / 3600 AS unused_hours,
           sum(g.busy_seconds) / nullif(sum(g.observed_seconds) FILTER (WHERE g.busy_seconds IS NOT NULL), 0) AS busy
    FROM jobs j
    JOIN job_gpus g USING (cluster_name, job_id, run)
    WHERE $__timeFilter(j.start_time) AND g.observed_seconds IS NOT NULL
      AND j.cluster_name IN (${cluster:sqlstring})
    GROUP BY j.user_name, j.account
    ORDER BY unused_hours DESC NULLS LAST LIMIT 100
"""
ERRORS = """
    SELECT g.cluster_name, g.node, g.gpu_id, e.code, sum(e.times::bigint) AS times, count(*) AS runs,
           max(n.started_at) AS last_run_began
    FROM job_gpus g
    JOIN job_nodes n USING (cluster_name, job_id, run, node)
    CROSS JOIN LATERAL jsonb_each_text(g.errors) AS e (code, times)
    WHERE g.errors IS NOT NULL AND coalesce(n.ended_at, now()) >= $__timeFrom() AND n.started_at <= $__timeTo()
      AND g.cluster_name IN (${cluster:sqlstring})
    GROUP BY g.cluster_name, g.node, g.gpu_id, e.code
    ORDER BY times DESC LIMIT 200
"""
MISMATCHES = """
    SELECT g.job_id, g.cluster_name, g.node, g.gpu_id, j.user_name, g.attribution_mismatch, g.updated_at,
           coalesce((extract(epoch FROM j.start_time) * 1000)::bigint::text, 'now-6h') AS from_ms,
           coalesce((extract(epoch FROM j.end_time) * 1000)::bigint::text, 'now') AS to_ms
    FROM jobs j
    JOIN job_gpus g USING (cluster_name, job_id, run)
    WHERE $__timeFilter(j.start_time) AND g.attribution_mismatch IS NOT NULL
      AND j.cluster_name IN (${cluster:sqlstring})
    ORDER BY g.updated_at DESC LIMIT 200
"""


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "gpus", "GPU fleet", "Which GPUs are held and idle, how the others are used, and which are ill.",
        variables=(*sources(), choices.scraped_clusters(),
                   choice("idle", "Idle for", {"600": "10 minutes", "300": "5 minutes", "1200": "20 minutes"})),
        panels=(*_numbers(), *_idle(), *_use()),
        rows={"Health": _health(), "All GPUs": _inventory()},
    )  # fmt: skip


def _numbers() -> tuple[Panel, ...]:
    return (
        number(
            "Held and idle", "GPUs that a job holds and that did nothing for the chosen part of the idle window (30 "
            "minutes unless gpu.idle_window_seconds says else).",
            now("count(hpc_job_gpu_idle_seconds > $idle) or 0 * count(hpc_job_gpu_idle_seconds)"),
            unit="short", absent=NO_HOLDER, steps=looks.NONE_IS_BETTER,
        ),
        number(
            "Held without a process", "GPUs allocated on which the job has no process now.",
            now("sum(clamp_min(hpc_job_gpus_allocated - on (instance, job_id, node) hpc_job_gpus_active, 0))"),
            unit="short", absent=NO_HOLDER, steps=looks.NONE_IS_BETTER,
        ),
        number(
            "Held", "GPUs of running jobs, of all GPUs that daemons see; partitioned ones count as one.",
            now('100 * count(hpc_node_gpu_jobs > 0 and on (instance, node, gpu_id) hpc_node_gpu_info{parent_gpu_id=""})'
                ' / count(hpc_node_gpu_info{parent_gpu_id=""}) or 0 * count(hpc_node_gpu_info{parent_gpu_id=""})'),
            unit="percent", absent=NO_GPU, decimals=0,
        ),
        number(
            "Mean utilisation", "Of all GPUs that tell it, held or not.",
            now("avg(hpc_node_gpu_utilization_percent)"), unit="percent", absent=NO_GPU, decimals=0,
        ),
        number(
            "Allocated and not found", "GPUs that Slurm gave to jobs and that the daemon does not find on the node: "
            "see rows unresolved:… in job_gpus.",
            now("sum(hpc_job_gpus_unresolved)"), unit="short", absent=NO_HOLDER, steps=looks.NONE_IS_GOOD,
        ),
        number(
            "Used by another", "Jobs' GPUs with evidence that another job's process was on them, or this job's on "
            "another's.",
            now("sum(hpc_job_gpu_mismatches)"), unit="short", absent=NO_HOLDER, steps=looks.NONE_IS_GOOD,
        ),
    )  # fmt: skip


def _idle() -> tuple[Panel, ...]:
    return (
        listing(
            "Held and idle, the longest first", "GPUs that did nothing of a job's for at least the chosen time. Idle "
            "time that nobody saw is not counted.",
            rows_now(IDLE),
            columns=(
                Column("Value", "dtdurations", "Idle for"),
                Column("job_id", "string", "Job", link=looks.job_link(cluster="cluster", times=False)),
                Column("cluster", "string", "Cluster"),
                Column("user", "string", "User"),
                Column("account", "string", "Account", link=looks.account_link()),
                Column("partition", "string", "Partition"),
                Column("node", "string", "Node", link=looks.node_link("cluster")),
                Column("gpu_id", "string", "GPU"),
                Column("gpu_vendor", "string", "Vendor"),
            ),
            absent="No GPU that is held is idle for so long", width=HALF, sort="Value",
        ),
        listing(
            "GPU hours not used, by user", "Of the jobs that started in the time range: hours for which GPUs were "
            "held, and in how many of them no process was on the GPU (table job_gpus).",
            rows(WASTED),
            columns=(
                Column("user_name", "string", "User"),
                Column("account", "string", "Account", link=looks.account_link()),
                Column("jobs", "short", "Jobs"),
                Column("gpu_hours", "h", "Held"),
                Column("unused_hours", "h", "Not used"),
                Column("busy", "percentunit", "Busy", steps=looks.USED_RATIO),
            ),
            absent="No job that started in this time held a GPU", width=HALF,
        ),
    )  # fmt: skip


def _use() -> tuple[Panel, ...]:
    return (
        lines(
            "GPUs held, and with a process", "The gap is GPUs that nobody else can use and nobody uses.",
            over_time("sum(hpc_job_gpus_allocated)", "held"),
            over_time("sum(hpc_job_gpus_active)", "with a process", "B"),
            unit="short", absent=NO_HOLDER, width=THIRD,
            colours={"held": looks.ALLOCATED, "with a process": looks.USED},
        ),
        lines(
            "Utilisation by node", "Mean of each node's GPUs.", over_time("hpc_node_gpu_usage_percent", BY_NODE),
            unit="percent", absent=NO_GPU, width=THIRD, high=100, link=looks.node_label_link(),
        ),
        lines(
            "Power of all GPUs", "Power drawn, by node. Partitioned GPUs count once.",
            over_time("sum by (cluster, node) (hpc_node_gpu_power_watts)", BY_NODE),
            unit="watt", absent="No GPU tells its power", width=THIRD, stack=True, link=looks.node_label_link(),
        ),
        lines(
            "How deeply GPUs are used", "Mean of all GPUs that have these counters: multiprocessors active, tensor "
            "cores active, memory bandwidth used.",
            over_time("avg(hpc_node_gpu_sm_active_percent)", "multiprocessors"),
            over_time("avg(hpc_node_gpu_tensor_active_percent)", "tensor cores", "B"),
            over_time("avg(hpc_node_gpu_dram_active_percent)", "memory bandwidth", "C"),
            unit="percent", absent="No GPU has profiling counters that may be read", width=HALF, high=100,
        ),
        lines(
            "GPU memory by node", "Memory in use on each node's GPUs, of all there is.",
            over_time("100 * sum by (cluster, node) (hpc_node_gpu_memory_used_bytes)"
                      " / sum by (cluster, node) (hpc_node_gpu_memory_total_bytes)", BY_NODE),
            unit="percent", absent=NO_GPU, width=HALF, high=100, link=looks.node_label_link(),
        ),
    )  # fmt: skip


def _health() -> tuple[Panel, ...]:
    uncorrected = "sum by (cluster, node, gpu_id) (increase(hpc_node_gpu_ecc_uncorrected_total[$__rate_interval]))"
    return (
        lines("Temperature", "The hottest GPU of each node.",
              over_time("max by (cluster, node) (hpc_node_gpu_temperature_celsius)", BY_NODE), unit="celsius",
              absent=NO_GPU,
              width=QUARTER, steps=looks.TEMPERATURE, link=looks.node_label_link()),
        lines("Clocks held down while busy", "GPUs that compute for more than half of the time while something holds "
              "their clocks down: heat, a power limit, or a setting.",
              over_time("sum by (cluster, node) (hpc_node_gpu_throttled * on (cluster, instance, node, gpu_id)"
                        " (hpc_node_gpu_utilization_percent > bool 50))", BY_NODE),
              unit="short", absent="No GPU tells whether it is throttled", width=QUARTER, link=looks.node_label_link()),
        lines("Held back by heat", "GPUs whose clocks heat holds down, by node.",
              over_time("sum by (cluster, node) (hpc_node_gpu_thermally_throttled)", BY_NODE), unit="short",
              absent="No GPU tells whether it is throttled", width=QUARTER, link=looks.node_label_link()),
        lines("Driver errors", "Errors that the driver told in each step, by code; for NVIDIA, XIDs.",
              over_time("sum by (instance, gpu_id, code) (increase(jobtrail_gpu_errors_total[$__rate_interval]))",
                        "{{instance}} {{gpu_id}} {{code}}"),
              unit="short", absent="None since the daemons started", width=QUARTER, bars=True),
        lines("Uncorrected memory errors", "Errors of GPU memory that could not be corrected, in each step.",
              over_time(uncorrected, BY_GPU), unit="short", absent="No GPU with ECC", width=QUARTER, bars=True,
              link=looks.node_label_link()),
        lines("Rows waiting to be remapped", "GPUs that need a reset before their broken memory rows are replaced.",
              over_time("sum by (cluster, node) (hpc_node_gpu_remapped_rows_pending)", BY_NODE), unit="short",
              absent="No GPU that remaps rows", width=QUARTER, link=looks.node_label_link()),
        listing(
            "Driver errors of jobs", "Errors that the driver told while a job held the GPU, by code; for NVIDIA, XIDs "
            "(table job_gpus).",
            rows(ERRORS),
            columns=(
                Column("cluster_name", "string", "Cluster"),
                Column("node", "string", "Node", link=looks.node_link("cluster_name")),
                Column("gpu_id", "string", "GPU"),
                Column("code", "string", "Code"),
                Column("times", "short", "Times"),
                Column("runs", "short", "Runs"),
                Column("last_run_began", "dateTimeAsIso", "Last run began"),
            ),
            absent="No driver error in this time", width=HALF,
        ),
        listing(
            "GPUs used by a job that does not hold them", "Evidence by the driver's list of processes.",
            rows(MISMATCHES),
            columns=(
                Column("job_id", "string", "Job", link=looks.job_link()),
                Column("cluster_name", "string", "Cluster"),
                Column("user_name", "string", "User"),
                Column("node", "string", "Node", link=looks.node_link("cluster_name")),
                Column("gpu_id", "string", "GPU"),
                Column("attribution_mismatch", "string", "Evidence"),
                Column("updated_at", "dateTimeAsIso", "Told"),
                Column("from_ms", "string", hidden=True),
                Column("to_ms", "string", hidden=True),
            ),
            absent="None in this time", width=HALF,
        ),
    )  # fmt: skip


def _inventory() -> tuple[Panel, ...]:
    labelled = "on (instance, node, gpu_id) group_left (name, minor, parent_gpu_id, driver_version) hpc_node_gpu_info"
    return (
        listing(
            "All GPUs", "Every GPU and instance that a daemon sees, with how many jobs hold it.",
            rows_now(f"hpc_node_gpu_jobs * {labelled}"),
            columns=(
                Column("cluster", "string", "Cluster"),
                Column("node", "string", "Node", link=looks.node_link("cluster")),
                Column("gpu_id", "string", "GPU"),
                Column("gpu_vendor", "string", "Vendor"),
                Column("name", "string", "Model"),
                Column("minor", "string", "Device file"),
                Column("parent_gpu_id", "string", "Part of"),
                Column("driver_version", "string", "Driver"),
                Column("Value", "short", "Jobs"),
            ),
            absent=NO_GPU, width=WHOLE,
        ),
        lines(
            "PCIe", "Received and sent over PCIe, by node.",
            over_time("sum by (cluster, node) (hpc_node_gpu_pcie_receive_bytes_per_second)", f"{BY_NODE} received"),
            over_time("sum by (cluster, node) (hpc_node_gpu_pcie_transmit_bytes_per_second)", f"{BY_NODE} sent", "B"),
            unit="binBps", absent="No GPU tells it", width=WHOLE, link=looks.node_label_link(),
        ),
    )  # fmt: skip

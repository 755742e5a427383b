"""One node: how busy it is, and with whose jobs."""

from __future__ import annotations

from grafana.src import choices, looks
from grafana.src.frame import dashboard, from_labels, sources
from grafana.src.panels import THIRD, WHOLE, Column, Panel, lines, listing, number
from grafana.src.queries import CLUSTER, now, over_time, rows
from grafana_foundation_sdk.models.dashboard import Dashboard

SILENT = "No daemon on this node has told it"
NO_GPU = "This node has no GPU that tells it"
NO_JOB = "No job is being measured here"
BY_GPU = "{{gpu_id}}"

JOBS = """
    SELECT n.job_id, n.cluster_name, n.run, j.user_name, j.account, j.state, n.started_at, n.ended_at, n.cpus,
           n.cpu_seconds, n.memory_peak_bytes, n.gpu_busy_seconds / nullif(n.gpu_seconds, 0) AS gpu_busy,
           n.energy_joules, n.coverage_ratio,
           coalesce((extract(epoch FROM n.started_at) * 1000)::bigint::text, 'now-6h') AS from_ms,
           coalesce((extract(epoch FROM n.ended_at) * 1000)::bigint::text, 'now') AS to_ms
    FROM job_nodes n
    JOIN jobs j USING (cluster_name, job_id, run)
    WHERE n.node = ${node:sqlstring} AND n.cluster_name = ${cluster:sqlstring} AND n.started_at <= $__timeTo()
      AND (n.ended_at IS NULL OR n.ended_at >= $__timeFrom())
    ORDER BY n.started_at DESC LIMIT 200
"""
SLURM = """
    SELECT cluster_name, state, array_to_string(state_flags, ', ') AS flags, reason, cpus_allocated, cpus,
           gpus_allocated,
           gpus, state_changed_at, boot_time, slurmd_version, updated_at
    FROM nodes WHERE node = ${node:sqlstring} AND cluster_name = ${cluster:sqlstring}
    ORDER BY cluster_name
"""


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "node", "Node", "One node: how busy it is, with whose jobs, and how its GPUs are.",
        variables=(*sources(), choices.scraped_cluster(),
                   from_labels("node", "Node", f"hpc_node_job_count{{{CLUSTER}}}")),
        panels=(*_numbers(), *_times()), rows={"GPUs": _gpus(), "Jobs and Slurm's word": _tables()},
    )  # fmt: skip


def _numbers() -> tuple[Panel, ...]:
    return (
        number(
            "Jobs", "Jobs that run on the node now.", now('max(hpc_node_job_count{node="$node"})'),
            unit="short", absent=SILENT,
        ),
        number(
            "CPU", "CPU time of everything on the node between the last two looks, of all CPUs.",
            now('max(hpc_node_cpu_usage_percent{node="$node"})'), unit="percent", absent=SILENT, decimals=0,
        ),
        number(
            "Memory", "Memory not available to new processes, of the node's memory.",
            now('100 * max(hpc_node_memory_usage_bytes{node="$node"}) / '
                'max(hpc_node_total_memory_bytes{node="$node"})'),
            unit="percent", absent=SILENT, decimals=0, steps=looks.FULL_PERCENT,
        ),
        number(
            "Load per CPU", "Load average of one minute over the CPUs; well above 1 more runs than there are CPUs.",
            now('max(hpc_node_cpu_load{node="$node"}) / max(hpc_node_total_cpus{node="$node"})'),
            unit="short", absent=SILENT, decimals=2, steps=((None, "green"), (1.2, "orange"), (2, "red")),
        ),
        number(
            "GPU use", "Mean utilisation of the node's GPUs at the last look.",
            now('max(hpc_node_gpu_usage_percent{node="$node"})'), unit="percent", absent=NO_GPU, decimals=0,
        ),
        number(
            "Power of jobs", "Energy that the node's jobs use, by time: GPUs, CPU packages and memory, as far as "
            "measured.",
            now('sum(rate(hpc_job_energy_joules_total{node="$node"}[$__rate_interval]))'),
            unit="watt", absent="No job here has an energy counter", decimals=0,
        ),
    )  # fmt: skip


def _times() -> tuple[Panel, ...]:
    by_job = looks.job_label_link()
    return (
        lines(
            "CPU by job", "CPUs that each job keeps busy, from its cgroup.",
            over_time('sum by (job_id) (rate(hpc_job_cpu_seconds_total{node="$node"}[$__rate_interval]))',
                      "{{job_id}}"),
            unit="short", absent=NO_JOB, width=THIRD, stack=True, link=by_job,
        ),
        lines(
            "Memory by job", "Memory charged to each job, page cache included.",
            over_time('sum by (job_id) (hpc_job_memory_usage_bytes{node="$node"})', "{{job_id}}"),
            unit="bytes", absent=NO_JOB, width=THIRD, stack=True, link=by_job,
        ),
        lines(
            "Power by job", "Energy of each job's part of the hardware by time.",
            over_time('sum by (job_id) (rate(hpc_job_energy_joules_total{node="$node"}[$__rate_interval]))',
                      "{{job_id}}"),
            unit="watt", absent="No job here has an energy counter", width=THIRD, stack=True, link=by_job,
        ),
        lines(
            "CPU and load", "CPU use of the whole node, and the load average over its CPUs.",
            over_time('max(hpc_node_cpu_usage_percent{node="$node"})', "CPU"),
            over_time('100 * max(hpc_node_cpu_load{node="$node"}) / max(hpc_node_total_cpus{node="$node"})',
                      "load per CPU", "B"),
            unit="percent", absent=SILENT, width=THIRD, colours={"CPU": looks.USED, "load per CPU": looks.ALLOCATED},
        ),
        lines(
            "Memory of the node", "Memory not available to new processes, beside what there is.",
            over_time('max(hpc_node_total_memory_bytes{node="$node"})', "there"),
            over_time('max(hpc_node_memory_usage_bytes{node="$node"})', "used", "B"),
            unit="bytes", absent=SILENT, width=THIRD, limits=("there",), colours={"there": looks.LIMIT,
            "used": looks.USED},
        ),
        lines(
            "Jobs' input and output", "Read from and written to block devices; network file systems are not in it.",
            over_time('sum(rate(hpc_job_io_read_bytes_total{node="$node"}[$__rate_interval]))', "read"),
            over_time('sum(rate(hpc_job_io_write_bytes_total{node="$node"}[$__rate_interval]))', "written", "B"),
            unit="binBps", absent="No job is being measured, or the io controller is off", width=THIRD,
        ),
    )  # fmt: skip


def _gpus() -> tuple[Panel, ...]:
    def gpu(title: str, description: str, name: str, unit: str, **more: object) -> Panel:
        expression = f'{name}{{node="$node"}}'
        known: dict[str, object] = {"unit": unit, "absent": NO_GPU, "width": THIRD, **more}
        return lines(title, description, over_time(expression, BY_GPU), **known)  # type: ignore[arg-type]

    return (
        gpu("GPU utilisation", "Time in which any kernel ran on each GPU.", "hpc_node_gpu_utilization_percent",
            "percent",
            high=100),
        gpu("GPU memory", "Memory in use on each GPU.", "hpc_node_gpu_memory_used_bytes", "bytes"),
        gpu("GPU power", "Power drawn by each GPU.", "hpc_node_gpu_power_watts", "watt",
            absent="No GPU here tells its power"),
        gpu("GPU temperature", "Temperature of each GPU.", "hpc_node_gpu_temperature_celsius", "celsius",
            steps=looks.TEMPERATURE),
        gpu("SM clock", "Clock of the multiprocessors; it falls when the GPU is throttled, or idle.",
            "hpc_node_gpu_sm_clock_hertz", "hertz"),
        lines(
            "NVLink", "Received and sent over NVLink by each GPU.",
            over_time('rate(hpc_node_gpu_nvlink_receive_bytes_total{node="$node"}[$__rate_interval])',
                      f"{BY_GPU} received"),
            over_time('rate(hpc_node_gpu_nvlink_transmit_bytes_total{node="$node"}[$__rate_interval])',
                      f"{BY_GPU} sent",
                      "B"),
            unit="binBps", absent="No GPU here has NVLink, or the driver does not tell", width=THIRD,
        ),
    )  # fmt: skip


def _tables() -> tuple[Panel, ...]:
    return (
        listing(
            "Jobs on this node", "Runs that were on the node in the time range, with what they used here.", rows(JOBS),
            columns=(
                Column("job_id", "string", "Job", link=looks.job_link()),
                Column("cluster_name", "string", "Cluster"),
                Column("run", "none", "Run"),
                Column("user_name", "string", "User"),
                Column("account", "string", "Account", link=looks.account_link()),
                Column("state", "string", "State", colours=looks.JOB_STATES),
                Column("started_at", "dateTimeAsIso", "Started here"),
                Column("ended_at", "dateTimeAsIso", "Ended here"),
                Column("cpus", "short", "CPUs"),
                Column("cpu_seconds", "dtdurations", "CPU time"),
                Column("memory_peak_bytes", "bytes", "Memory peak"),
                Column("gpu_busy", "percentunit", "GPU busy", steps=looks.USED_RATIO),
                Column("energy_joules", "joule", "Energy"),
                Column("coverage_ratio", "percentunit", "Measured", steps=looks.COVERED_RATIO),
                Column("from_ms", "string", hidden=True),
                Column("to_ms", "string", hidden=True),
            ),
            absent="No job was on this node in this time", width=WHOLE,
        ),
        listing(
            "What Slurm says of the node", "State, reason and allocation as slurmctld last told them (table nodes).",
            rows(SLURM),
            columns=(
                Column("cluster_name", "string", "Cluster"),
                Column("state", "string", "State", colours=looks.NODE_STATES),
                Column("flags", "string", "Flags"),
                Column("reason", "string", "Reason"),
                Column("cpus_allocated", "short", "CPUs allocated"),
                Column("cpus", "short", "CPUs"),
                Column("gpus_allocated", "short", "GPUs allocated"),
                Column("gpus", "short", "GPUs"),
                Column("state_changed_at", "dateTimeAsIso", "Since"),
                Column("boot_time", "dateTimeAsIso", "Booted"),
                Column("slurmd_version", "string", "slurmd"),
                Column("updated_at", "dateTimeAsIso", "Told"),
            ),
            absent="Slurm has not named this node: slurmrestd is not set up", width=WHOLE, height=5,
        ),
    )  # fmt: skip

"""One job: what it is, how it ended, what it used of what it held."""

from __future__ import annotations

from grafana.src import choices, looks
from grafana.src import job_queries as sql
from grafana.src.frame import Annotation, dashboard, sources
from grafana.src.job_tables import tables
from grafana.src.panels import QUARTER, THIRD, Column, Panel, lines, listing, number
from grafana.src.queries import over_time, rows, series
from grafana_foundation_sdk.models.dashboard import Dashboard

NOT_SEEN = "Nothing in this time: the job did not run, was shorter than a scrape, or Prometheus no longer has it"
NO_GPU = "The job holds no GPU, or the driver does not tell this"


def _of_job(expression: str) -> str:
    """A vector with the labels job_id and node, of the job of the chosen cluster alone: others reuse ids and names."""
    return f'{expression} * on (instance, job_id, node) group_left () hpc_job_info{{cluster="$cluster",job_id="$job"}}'


def _level(name: str) -> str:
    return _of_job(f'{name}{{job_id="$job"}}')


def _rate(name: str) -> str:
    return _of_job(f'rate({name}{{job_id="$job"}}[$__rate_interval])')


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "job", "Job", "One job: what it is, how it ended, and what it used of what it held.",
        variables=(*sources(), choices.cluster(), choices.users(), choices.accounts(), choices.job()),
        panels=(_facts(), *_numbers(), *_times()),
        rows={"GPUs": _gpus(), "CPU and processes": _more(), "Trail, runs, nodes and GPUs": tables(),
              "Samples (PostgreSQL)": _samples()},
        annotations=(Annotation("Audit trail", sql.EVENTS, "purple"),),
    )  # fmt: skip


def _facts() -> Panel:
    return listing(
        "What it is", "The job's newest run, as nodes and Slurm described it (table jobs).", rows(sql.FACTS),
        columns=(
            Column("job_name", "string", "Name"),
            Column("user_name", "string", "User"),
            Column("account", "string", "Account", link=looks.account_link()),
            Column("partition", "string", "Partition"),
            Column("qos", "string", "QoS"),
            Column("submit_time", "dateTimeAsIso", "Submitted"),
            Column("start_time", "dateTimeAsIso", "Started"),
            Column("elapsed_seconds", "dtdurations", "Ran for"),
            Column("time_limit_seconds", "dtdurations", "Time limit"),
            Column("nodes_reporting", "short", "Nodes measured"),
            Column("nodes_total", "short", "of"),
            Column("cpus_allocated", "short", "CPUs"),
            Column("gpus_allocated", "short", "GPUs"),
            Column("memory_peak_bytes", "bytes", "Memory peak"),
            Column("memory_limit_bytes", "bytes", "of"),
        ),
        absent="No such job on record in this cluster", height=4,
    )  # fmt: skip


def _numbers() -> tuple[Panel, ...]:
    def of(title: str, description: str, column: str, view: str, unit: str, absent: str, steps: looks.Steps) -> Panel:
        asked = rows(sql.newest(column, view))
        return number(title, description, asked, unit=unit, absent=absent, steps=steps)

    return (
        of("CPU used", "CPU time used, of CPUs held times the time for which the job was not suspended (view "
           "job_efficiency), up to the last sample.",
           "j.cpu_efficiency", "job_efficiency", "percentunit", "Unknown: no CPU time or no allocation",
           looks.USED_RATIO),
        of("Memory peak of limit", "Highest memory use, of the limit. Near 100 % the job may be killed; far below, "
           "others could have used it. Of nodes with different limits, the one nearest to its own.",
           "j.memory_efficiency", "job_efficiency", "percentunit", "Unknown: no limit, or not measured",
           ((None, "orange"), (0.4, "green"), (0.9, "orange"), (0.98, "red"))),
        of("GPU busy", "Time in which kernels ran, of the time for which the job's GPUs were looked at.",
           "j.gpu_efficiency", "job_efficiency", "percentunit", "No GPU held", looks.USED_RATIO),
        of("Energy", "Energy of the job's GPUs, CPU packages and memory, as far as they were measured.",
           "j.energy_joules", "job_energy", "joule", "Unknown: nothing could be measured", looks.NEUTRAL),
        of("Emissions", "CO2 equivalents: that energy, times PUE, times the grid's factor.", "j.emissions_grams",
           "job_energy", "massg", "Unknown: no energy or no emission factor", looks.NEUTRAL),
        of("Measured", "The part of the job's time, over its nodes, that the numbers cover. Below 0.9 do not compare.",
           "j.coverage_ratio", "jobs", "percentunit", "Known when the job has ended", looks.COVERED_RATIO),
    )  # fmt: skip


def _times() -> tuple[Panel, ...]:
    return (
        lines(
            "CPU used and held", "CPUs kept busy on each node, and CPUs allocated there. The gap is idle.",
            over_time("sum by (node) (" + _rate("hpc_job_cpu_seconds_total") + ")", "{{node}} used"),
            over_time(_level("hpc_job_cpus_allocated"), "{{node}} held", "B"),
            unit="short", absent=NOT_SEEN, width=THIRD, link=looks.node_label_link(chosen=True),
        ),
        lines(
            "Memory and limit", "Memory charged to the job on each node, page cache included, below its limit.",
            over_time(_level("hpc_job_memory_usage_bytes"), "{{node}} used"),
            over_time(_level("hpc_job_memory_peak_bytes"), "{{node}} peak", "B"),
            over_time(_level("hpc_job_memory_limit_bytes"), "{{node}} limit", "C"),
            unit="bytes", absent=NOT_SEEN, width=THIRD, link=looks.node_label_link(chosen=True),
        ),
        lines(
            "Power", "Energy of the job's parts of the hardware by time. Components that could not be measured are "
            "missing, not 0.",
            over_time("sum by (component) (" + _rate("hpc_job_energy_joules_total") + ")", "{{component}}"),
            unit="watt", absent="No energy counter of the job could be read in this time", width=THIRD, stack=True,
            colours=looks.COMPONENTS,
        ),
        lines(
            "Input and output", "Read from and written to block devices; network file systems are not in it.",
            over_time(_rate("hpc_job_io_read_bytes_total"), "{{node}} read"),
            over_time(_rate("hpc_job_io_write_bytes_total"), "{{node}} written", "B"),
            unit="binBps", absent="No block device was used, or the io controller is off", width=THIRD,
            link=looks.node_label_link(chosen=True),
        ),
        lines(
            "Pressure", "Part of the time in which some (or all, full) of the job's tasks waited for CPU, memory or "
            "disk: pressure stall information of its cgroup.",
            over_time(_rate("hpc_job_pressure_seconds_total"), "{{node}} {{resource}} {{kind}}"),
            unit="percentunit", absent="cgroup v1, or a kernel without pressure stall information", width=THIRD,
            steps=((None, "blue"), (0.2, "orange")), link=looks.node_label_link(chosen=True),
        ),
    )  # fmt: skip


def _gpus() -> tuple[Panel, ...]:
    def gpu(title: str, description: str, name: str, unit: str, **more: object) -> Panel:
        known: dict[str, object] = {"unit": unit, "absent": NO_GPU, "width": QUARTER, **more}
        asked = over_time(_level(f"hpc_job_gpu_device_{name}"), "{{node}} {{gpu_id}}")
        return lines(title, description, asked, link=looks.node_label_link(chosen=True), **known)  # type: ignore[arg-type]

    return (
        gpu("GPU utilisation", "Time in which any kernel ran on each GPU; it says nothing of how much of the GPU it "
            "used.",
            "utilization_percent", "percent", high=100),
        gpu("Multiprocessors active", "Multiprocessors with work, mean of all: how much of the GPU is used.",
            "sm_active_percent", "percent", high=100),
        gpu("Tensor cores", "Time in which tensor cores worked.", "tensor_active_percent", "percent", high=100),
        gpu("GPU memory bandwidth", "Bandwidth in use, of the most there can be.", "dram_active_percent", "percent",
            high=100),
        gpu("GPU memory", "Memory in use on each GPU.", "memory_used_bytes", "bytes"),
        gpu("GPU power", "Power drawn by each GPU.", "power_watts", "watt", absent="No GPU of the job tells its power"),
        gpu("GPU temperature", "Temperature of each GPU.", "temperature_celsius", "celsius", steps=looks.TEMPERATURE),
        lines(
            "GPUs held and used", "GPUs allocated, and those on which the job has a process.",
            over_time(_level("hpc_job_gpus_allocated"), "{{node}} held"),
            over_time(_level("hpc_job_gpus_active"), "{{node}} with a process", "B"),
            unit="short", absent="The job holds no GPU", width=QUARTER, link=looks.node_label_link(chosen=True),
        ),
    )  # fmt: skip


def _more() -> tuple[Panel, ...]:
    return (
        lines(
            "CPU time by mode", "CPUs busy with the program (user) and with the kernel for it (system).",
            over_time("sum by (mode) (" + _rate("hpc_job_cpu_seconds_total") + ")", "{{mode}}"),
            unit="short", absent=NOT_SEEN, width=THIRD, stack=True,
        ),
        lines(
            "CPU throttled", "Part of the time for which a CPU quota held the job back.",
            over_time(_rate("hpc_job_cpu_throttled_seconds_total"), "{{node}}"),
            unit="percentunit", absent="The job has no CPU quota, or did not run", width=THIRD,
            link=looks.node_label_link(chosen=True),
        ),
        lines(
            "Processes and threads", "At each sample.",
            over_time(_level("hpc_job_processes"), "{{node}} processes"),
            over_time(_level("hpc_job_threads"), "{{node}} threads", "B"),
            unit="short", absent=NOT_SEEN, width=THIRD, link=looks.node_label_link(chosen=True),
        ),
        lines(
            "What memory is used for", "Anonymous memory, page cache, and shared memory with tmpfs.",
            over_time("sum(" + _level("hpc_job_memory_rss_bytes") + ")", "anonymous"),
            over_time("sum(" + _level("hpc_job_memory_cache_bytes") + ")", "page cache", "B"),
            over_time("sum(" + _level("hpc_job_memory_shmem_bytes") + ")", "shared and tmpfs", "C"),
            unit="bytes", absent=NOT_SEEN, width=THIRD,
        ),
        lines(
            "Out-of-memory kills", "Processes of the job that the kernel killed in each step.",
            over_time(_of_job('increase(hpc_job_oom_kills_total{job_id="$job"}[$__rate_interval])'), "{{node}}"),
            unit="short", absent=NOT_SEEN, width=THIRD, bars=True, link=looks.node_label_link(chosen=True),
        ),
        lines(
            "Emissions so far", "CO2 equivalents of the job so far.",
            over_time("sum(" + _level("hpc_job_emissions_grams_total") + ")", "CO2 equivalents"),
            unit="massg", absent="No energy was measured, or no emission factor is set", width=THIRD,
        ),
    )  # fmt: skip


def _samples() -> tuple[Panel, ...]:
    gone = "No sample in this time: the job did not run, or its samples are older than sampling.retention_days"
    return (
        lines("CPU by sample", "CPU of the allocated CPUs at every look of the daemon, also of jobs too short for a "
              "scrape.",
              series(sql.SAMPLED_CPU), unit="percent", absent=gone, width=THIRD),
        lines("Memory by sample", "Memory at every look of the daemon, also of jobs too short for a scrape.",
              series(sql.SAMPLED_MEMORY), unit="bytes", absent=gone, width=THIRD),
        lines("GPU utilisation by sample", "Utilisation at every look, of GPUs that this job alone held.",
              series(sql.SAMPLED_GPU), unit="percent", absent=f"{NO_GPU}; or no sample in this time", width=THIRD),
    )  # fmt: skip

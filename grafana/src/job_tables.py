"""The tables of the dashboard of a job."""

from __future__ import annotations

from grafana.src import job_queries as sql
from grafana.src import looks
from grafana.src.panels import Column, Panel, listing
from grafana.src.queries import rows


def tables() -> tuple[Panel, ...]:
    """Trail, runs, nodes, GPUs and benchmarks of the job."""
    return (_trail(), _runs(), _nodes(), _gpus(), _benchmarks())


def _trail() -> Panel:
    return listing(
        "What was recorded, and by whom", "The audit trail of the job, the newest first; its events but checkpoints "
        "are the marks on the time lines (view job_audit_events).",
        rows(sql.TRAIL),
        columns=(
            Column("changed_at", "dateTimeAsIso", "When"),
            Column("event_kind", "string", "What"),
            Column("change_type", "string", "Change"),
            Column("changed_by", "string", "By", colours=looks.ACTORS),
            Column("source", "string", "Source"),
            Column("node", "string", "Node", link=looks.node_link("")),
            Column("run", "none", "Run"),
            Column("state_after", "string", "State after", colours=looks.JOB_STATES),
            Column("note", "string", "Note"),
            Column("unapplied", "string", "Why it changed nothing"),
        ),
        absent="Nothing is recorded of this job",
    )  # fmt: skip


def _runs() -> Panel:
    return listing(
        "How it ended", "Every run of the job: a requeued one has several. Confirmed: somebody who knows has said "
        "so. The evidence is what each source told.",
        rows(sql.RUNS),
        columns=(
            Column("run", "none", "Run", width=60),
            Column("state", "string", "State", colours=looks.JOB_STATES),
            Column("verdict", "string", "Verdict", colours=looks.JOB_VERDICTS),
            Column("state_confirmed", "bool_yes_no", "Confirmed"),
            Column("outcome_source", "string", "Told by"),
            Column("exit_code", "none", "Exit code"),
            Column("exit_signal", "none", "Signal"),
            Column("derived_exit_code", "none", "Steps' exit code"),
            Column("reason", "string", "Reason"),
            Column("start_time", "dateTimeAsIso", "Started"),
            Column("end_time", "dateTimeAsIso", "Ended"),
            Column("end_inferred", "bool_yes_no", "End inferred"),
            Column("restart_count", "none", "Restarts"),
            Column("evidence", "string", "Evidence"),
        ),
        absent="No such job on record in this cluster", height=6,
    )  # fmt: skip


def _nodes() -> Panel:
    return listing(
        "Nodes", "What the job used on each node, in total up to the last checkpoint (table job_nodes).",
        rows(sql.NODES),
        columns=(
            Column("run", "none", "Run", width=60),
            Column("node", "string", "Node", link=looks.node_link("")),
            Column("started_at", "dateTimeAsIso", "Started"),
            Column("ended_at", "dateTimeAsIso", "Ended"),
            Column("cpus", "short", "CPUs"),
            Column("cpu_seconds", "dtdurations", "CPU time"),
            Column("throttled_seconds", "dtdurations", "Throttled"),
            Column("memory_peak_bytes", "bytes", "Memory peak"),
            Column("oom_kills", "short", "OOM kills", steps=looks.NONE_IS_GOOD),
            Column("io_read_bytes", "bytes", "Read"),
            Column("io_write_bytes", "bytes", "Written"),
            Column("energy_joules", "joule", "Energy"),
            Column("coverage_ratio", "percentunit", "Measured", steps=looks.COVERED_RATIO),
            Column("absent", "string", "Not measured, and why"),
        ),
        absent="No node has reported this job",
    )  # fmt: skip


def _gpus() -> Panel:
    return listing(
        "GPUs", "What the job had of each GPU. Not used: no process of the job was on it. Errors are the driver's, for "
        "NVIDIA XIDs. Another's use: evidence that another job was on it (table job_gpus).",
        rows(sql.GPUS),
        columns=(
            Column("run", "none", "Run", width=60),
            Column("node", "string", "Node", link=looks.node_link("")),
            Column("gpu_id", "string", "GPU"),
            Column("name", "string", "Model"),
            Column("observed_seconds", "dtdurations", "Looked at for"),
            Column("busy", "percentunit", "Busy", steps=looks.USED_RATIO),
            Column("unused_seconds", "dtdurations", "Not used"),
            Column("memory_peak_bytes", "bytes", "Memory peak"),
            Column("memory_total_bytes", "bytes", "of"),
            Column("energy_joules", "joule", "Energy"),
            Column("energy_method", "string", "Measured by"),
            Column("errors", "string", "Errors"),
            Column("attribution_mismatch", "string", "Another's use"),
        ),
        absent="The job held no GPU",
    )  # fmt: skip


def _benchmarks() -> Panel:
    return listing(
        "Benchmarks in this job", "Benchmark runs that are linked to the job (view benchmark_run_summary).",
        rows(sql.BENCHMARKS),
        columns=(
            Column("recipe", "string", "Recipe", link=looks.benchmark_link()),
            Column("model", "string", "Model"),
            Column("status", "string", "Status"),
            Column("verdict", "string", "Verdict", colours=looks.VERDICTS),
            Column("started_at", "dateTimeAsIso", "Started"),
            Column("output_tokens_per_second", "suffix: tok/s", "Output"),
            Column("ttft_p50_seconds", "s", "First token, median"),
            Column("output_tokens_per_joule", "suffix: tok/J", "Tokens per joule"),
            Column("total_joules", "joule", "Energy"),
            Column("energy_invalid_reason", "string", "Why not to trust the energy"),
        ),
        absent="No benchmark ran in this job", height=5,
    )  # fmt: skip

"""One job for people: why it ended, what speaks for that, what it used, and how much of the job the figures cover."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from jobtrail.cli.output import UNKNOWN, duration, energy, moment, size
from jobtrail.core.ports import Row
from jobtrail.core.query_ports import JobDetail
from jobtrail.domain.efficiency import OPEN_STATES, cpu_use
from jobtrail.domain.phrases import counted
from jobtrail.domain.states import State

NODE_COLUMNS = ("node", "started", "ended", "cpu", "peak memory", "samples", "covered")
BENCHMARK_COLUMNS = ("benchmark", "recipe", "model", "role", "status", "")
GPU_COLUMNS = ("node", "gpu", "model", "busy", "unused", "peak memory", "energy", "")
_SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "slurmdbd": "Slurm's accounting",
        "slurmctld": "Slurm's controller",
        "sacct": "sacct",
        "controller_hook": "the controller's hook",
        "epilog": "the epilog",
        "sender": "its sender",
    }
)


def is_outcome_unknown(job: Row) -> bool:
    """Whether the run is over and nobody who knows has said how."""
    return job["state"] == State.ENDED and not job["state_confirmed"]


def exit_text(job: Row) -> str:
    """Exit code or signal."""
    if job["exit_signal"] is not None:
        return f"signal {job['exit_signal']}"
    return UNKNOWN if job["exit_code"] is None else str(job["exit_code"])


def ran_seconds(job: Row) -> float | None:
    """Wall seconds so far of a running job, in all of an ended one; None when an end of it is unknown."""
    start: datetime | None = job["start_time"]
    end: datetime | None = datetime.now(UTC) if job["state"] in OPEN_STATES else job["end_time"]
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())


def facts(detail: JobDetail) -> Iterator[tuple[str, str]]:
    """Name and value of each line."""
    job = detail.job
    yield "job", f"{job['job_id']} run {job['run']} in cluster {job['cluster_name']}"
    yield "name", job["job_name"] or UNKNOWN
    if job["array_job_id"] is not None:
        yield "array", f"task {_known(job['array_task_id'])} of {job['array_job_id']}"
    if job["het_leader_job_id"] is not None:
        yield "part of", f"{job['het_leader_job_id']}, component {_known(job['het_job_offset'])}"
    yield "user", f"{job['user_name'] or UNKNOWN}, account {job['account'] or UNKNOWN}"
    yield "where", f"{', '.join(job['nodes'] or ()) or UNKNOWN}, partition {job['partition'] or UNKNOWN}"
    if job["submit_time"] is not None:
        yield "submitted", moment(job["submit_time"])
    yield "started", moment(job["start_time"]) + (" or before: found running then" if job["start_inferred"] else "")
    open_words = "still running" if job["state"] == State.RUNNING else "not started"
    yield "ended", open_words if job["state"] in OPEN_STATES else ended(job, "end_time")
    yield "ran", duration(ran_seconds(job)) + _suspended(job)
    yield "outcome", outcome(job)
    yield from _usage(job, detail.nodes)
    yield "correlation", job["correlation_id"]


def _usage(job: Row, nodes: Sequence[Row]) -> Iterator[tuple[str, str]]:
    cpu, use = job["cpu_seconds"], cpu_use(job, nodes)
    efficiency = "" if use.ratio is None else f", {100 * use.ratio:.0f} % of {counted(use.cpus or 0, 'CPU')}"
    limit = "" if job["memory_limit_bytes"] is None else f" of a limit of {size(job['memory_limit_bytes'])}"
    if not limit and job["memory_requested_bytes"] is not None:
        limit = f"; requested for the whole job: {size(job['memory_requested_bytes'])}"
    kills = f", out-of-memory kills: {job['oom_kills']}" if job["oom_kills"] else ""
    yield "cpu", f"{duration(cpu)}{efficiency}{_source(job, 'cpu')}"
    yield "peak memory", f"{size(job['memory_peak_bytes'])}{limit}{kills}{_source(job, 'memory_peak')}"
    yield "read, written", f"{size(job['io_read_bytes'])}, {size(job['io_write_bytes'])}"
    yield "coverage", _coverage(job)
    yield from _gpu_usage(job)
    yield from _energy(job)


def _gpu_usage(job: Row) -> Iterator[tuple[str, str]]:
    """Of a run that had GPUs: how busy they were, and for how long none of its processes was on them."""
    seen, unused = job["gpu_seconds"], job["gpu_unused_seconds"]
    if seen is None and not job["gpus_allocated"]:
        return
    mean = job["gpu_utilization_mean_percent"]
    busy = UNKNOWN if mean is None else f"{mean:.0f} % busy"
    idle = f", {duration(unused)} of {duration(seen)} without a process of the job" if seen and unused else ""
    yield "gpus", f"{_known(job['gpus_allocated'])}: {busy}, peak memory {size(job['gpu_memory_peak_bytes'])}{idle}"


def _energy(job: Row) -> Iterator[tuple[str, str]]:
    if job["energy_joules"] is None:
        return
    names = (("energy_gpu_joules", "GPU"), ("energy_cpu_joules", "CPU"), ("energy_dram_joules", "memory"))
    parts = ", ".join(f"{label} {energy(job[name])}" for name, label in names if job[name] is not None)
    covered, grams = job["energy_coverage_ratio"], job["emissions_grams"]
    of_run = "" if covered is None else f", measured over {100 * covered:.0f} % of the run"
    emitted = "" if grams is None else f", {grams:.3g} g CO2e"
    yield "energy", f"{energy(job['energy_joules'])} ({parts}{of_run}){emitted}"


def _known(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _suspended(job: Row) -> str:
    return f", suspended for {duration(job['suspended_seconds'])} of it" if job["suspended_seconds"] else ""


def ended(row: Row, name: str) -> str:
    """The end in column `name` of a row of `jobs` or `job_nodes`; an inferred one is an interval."""
    if not row["end_inferred"]:
        return moment(row[name])
    since = row["end_not_before"]
    return f"by {moment(row[name])} (inferred)" if since is None else (
        f"between {moment(since)} and {moment(row[name])} (inferred)"
    )  # fmt: skip


def outcome(job: Row) -> str:
    """How it ended in words; an epilog's exit code 0 is no proof of success."""
    if job["state"] in OPEN_STATES:
        return f"{job['state']} ({job['raw_state']} in Slurm)" if job["raw_state"] else str(job["state"])
    if is_outcome_unknown(job):
        told = (job["verdict_evidence"] or {}).get("told")
        why = "the epilog reports the same for a success, a cancel and a time limit" if told else "no end was reported"
        return f"ended, outcome unknown: {why}"
    source = _SOURCES.get(job["outcome_source"] or "", job["outcome_source"] or "nobody")
    certainty = f" (confirmed by {source})" if job["state_confirmed"] else f" (by {source}, not confirmed)"
    return f"{job['state']}{_verdict(job)}{_exit(job)}{certainty}"


def _verdict(job: Row) -> str:
    verdict = job["verdict"]
    if verdict is None or verdict == job["state"]:
        return ""
    if verdict == "killed_by_signal":
        return f", killed by signal {_known(job['exit_signal'])}"
    return f", {verdict.replace('_', ' ')}"


def _exit(job: Row) -> str:
    parts = [f", exit code {job['exit_code']}"] if job["exit_code"] is not None else []
    if job["exit_signal"] is not None and job["verdict"] != "killed_by_signal":
        parts.append(f", signal {job['exit_signal']}")
    if job["derived_exit_code"]:
        parts.append(f", highest exit code of a step {job['derived_exit_code']}")
    if job["out_of_memory_step"] and job["verdict"] != "out_of_memory":
        parts.append(", a step ran out of memory")
    return "".join(parts)


def _source(job: Row, name: str) -> str:
    source = (job["usage_sources"] or {}).get(name)
    return f" (by {source.replace('_', ' ')})" if source else ""


def _coverage(job: Row) -> str:
    ratio = job["coverage_ratio"]
    source = (job["usage_sources"] or {}).get("usage", "")
    samples = f"samples: {job['sample_count'] or 0}" + (f" from {source.replace('_', ' ')}" if source else "")
    last = "" if ratio is None else f", last at {100 * ratio:.0f} % of the run"
    total = job["nodes_total"]
    partly = total is not None and (total > 1 or job["nodes_reporting"] < total)
    nodes = f"; usage covers {job['nodes_reporting']} of {counted(total, 'node')}" if partly else ""
    return samples + last + nodes


def node_lines(detail: JobDetail) -> list[tuple[str, ...]]:
    """A row for each node of a run of several; one that never reported has nothing but its name."""
    nodes = {node["node"]: node for node in detail.nodes}
    names = [*nodes, *(name for name in detail.job["nodes"] or () if name not in nodes)]
    if len(names) < 2:
        return []
    return [_node_line(nodes[name]) if name in nodes else (name, *(UNKNOWN,) * 5, "no report") for name in names]


def _node_line(node: Row) -> tuple[str, ...]:
    ratio = node["coverage_ratio"]
    return (
        node["node"],
        moment(node["started_at"]),
        ended(node, "ended_at"),
        duration(node["cpu_seconds"]),
        size(node["memory_peak_bytes"]),
        str(node["sample_count"]),
        UNKNOWN if ratio is None else f"{100 * ratio:.0f} %",
    )


def benchmark_lines(detail: JobDetail) -> list[tuple[str, ...]]:
    """A row for each benchmark that the run ran; `jobtrail bench result` shows one whole."""
    return [
        (
            one["run_uid"][:8],
            one["recipe_name"] or one["tool"] or UNKNOWN,
            one["model"] or UNKNOWN,
            one["role"],
            one["status"],
            one["invalid_reason"] or "",
        )
        for one in detail.benchmarks
    ]


def gpu_lines(detail: JobDetail) -> list[tuple[str, ...]]:
    """A row for each GPU of the run, also for one that no process of it was ever on."""
    return [
        (
            gpu["node"],
            gpu["gpu_id"],
            gpu["name"] or UNKNOWN,
            UNKNOWN if gpu["utilization_mean_percent"] is None else f"{gpu['utilization_mean_percent']:.0f} %",
            duration(gpu["unused_seconds"]),
            size(gpu["memory_peak_bytes"]),
            energy(gpu["energy_joules"]),
            "; ".join(_gpu_notes(gpu)),
        )
        for gpu in detail.gpus
    ]


def _gpu_notes(gpu: Row) -> Iterator[str]:
    if gpu["resolved_by"] is None:
        yield "not found among the node's GPUs"
    if gpu["errors"]:
        yield "errors " + ", ".join(f"{code} x{times}" for code, times in gpu["errors"].items())
    if gpu["attribution_mismatch"]:
        yield gpu["attribution_mismatch"]


def evidence(job: Row) -> Iterator[str]:
    """What each source said, one a line."""
    held: Row = job["verdict_evidence"] or {}
    if told := held.get("told"):
        who = "the sender, who knows" if told.get("confirmed") else "the epilog"
        yield f"{who}, {_when(told)}: {_outcome_words(told.get('outcome') or {})}"
    for origin, word in (held.get("slurm") or {}).items():
        yield f"{_SOURCES.get(origin, origin)}, {_when(word)}: {_slurm_words(word)}"
    if closing := held.get("closing"):
        why = closing["reason"].replace("_", " ")
        yield f"the reconciler: {why}" + (f" ({closing['detail']})" if closing.get("detail") else "")


def _when(said: Row) -> str:
    time = said.get("time")
    return UNKNOWN if time is None else moment(datetime.fromisoformat(time))


def _slurm_words(word: Row) -> str:
    parts = ["+".join([word["state"], *word.get("flags", ())])] if word.get("state") else []
    if word.get("reason") not in (None, "None"):
        parts.append(f"reason {word['reason']}")
    if word.get("outcome"):
        parts.append(_outcome_words(word["outcome"]))
    if word.get("cancelled_by_uid") is not None:
        parts.append(f"cancelled by uid {word['cancelled_by_uid']}")
    parts += [f"{node} {state}" for node, state in (word.get("node_states") or {}).items()]
    if word.get("out_of_memory_step"):
        parts.append("a step ran out of memory")
    return ", ".join(parts) or "facts only"


def _outcome_words(said: Mapping[str, Any]) -> str:
    parts = [
        f"{label} {said[name]}"
        for name, label in (("final_state", "state"), ("exit_code", "exit code"), ("exit_signal", "signal"))
        if said.get(name) is not None
    ]
    if said.get("out_of_memory"):
        parts.append("out of memory")
    return ", ".join(parts) or "no exit status"

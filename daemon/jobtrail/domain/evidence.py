"""What is known about a run, each piece as a clause of a sentence; empty where it is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from jobtrail.domain.job import Job, NodeRun
from jobtrail.domain.phrases import counted, describe_bytes, describe_duration, describe_interval
from jobtrail.domain.slurm import Origin
from jobtrail.domain.usage import SLURM_ACCOUNTING

NEAR_LIMIT_PERCENT = 90
_SECOND = 1_000_000
_CLOSED_BECAUSE: Mapping[str, str] = MappingProxyType(
    {
        "node_rebooted": "the node rebooted",
        "cgroup_gone": "the job's cgroup is gone",
        "process_gone": "the job's process is gone",
        "later_run_began": "a later run of the job began there",
        "ended_in_slurm": "the run is over by Slurm's word",
        "unknown_to_slurm": "Slurm no longer knows the run",
    }
)


def run_time(job: Job) -> str:
    """How long the run went on; empty if that is not known, as when its end was inferred."""
    if job.start_us is None or job.end_us is None or job.end_inferred:
        return ""
    us = max(0, job.end_us - job.start_us)
    if not (job.start_us % _SECOND and job.end_us % _SECOND):  # Slurm's own time, in whole seconds
        us -= us % _SECOND
    return ("at least " if job.start_inferred else "") + describe_duration(us)


def after(job: Job) -> str:
    """` after 12 s`."""
    return f" after {ran}" if (ran := run_time(job)) else ""


def when_stopped(job: Job) -> str:
    """When somebody else ended the run: ` after it had run for 12 s`, ` before it started`."""
    if ran := run_time(job):
        return f" after it had run for {ran}"
    never_started = job.start_us is None and not (job.nodes_started or job.nodes_ended)
    return " before it started" if never_started else ""


def canceller(job: Job) -> str:
    """By whom the job was cancelled, as the best authority that names anybody says."""
    records = sorted((word.record for word in job.words), key=lambda record: tuple(Origin).index(record.origin))
    uid = next((record.cancelled_by_uid for record in records if record.cancelled_by_uid is not None), None)
    if uid is None:
        return ""
    if uid == 0:
        return " by root or Slurm itself (uid 0)"
    facts = job.facts
    if uid != facts.uid:
        return f" by the user with uid {uid}"
    return " by its owner " + (f"{facts.user_name} (uid {uid})" if facts.user_name else f"(uid {uid})")


def memory_seen(job: Job) -> str:
    """The largest use of memory that was seen, against what one node allows."""
    peak, allowed = _peak(job), _allowed(job)
    if peak is None:
        return "" if allowed is None else f"{describe_bytes(allowed[0])} of memory was {allowed[1]}"
    if allowed is not None:
        of = f" of the {describe_bytes(allowed[0])} {allowed[1]}"
    elif (requested := job.facts.memory_requested_bytes) is not None:
        of = f" on one node, with {describe_bytes(requested)} requested for {job.nodes_expected} nodes together"
    else:
        of = ""
    return f"the highest use of memory seen was {describe_bytes(peak)}{of}"


def near_limit(job: Job) -> str:
    """That the memory seen came near to what was allowed; empty if it did not."""
    peak, allowed = _peak(job), _allowed(job)
    if peak is None or allowed is None or peak * 100 < NEAR_LIMIT_PERCENT * allowed[0]:
        return ""
    usage = job.total_usage
    sources = usage.sources if usage is not None else {}
    # memory.max_usage_in_bytes and memory.peak count the page cache, which the kernel gives up before it kills.
    measured = sources.get("memory_peak") != SLURM_ACCOUNTING and "cgroup" in sources.get("usage", "")
    return memory_seen(job) + (", cached files included" if measured else "")


def _peak(job: Job) -> int | None:
    usage = job.total_usage
    return None if usage is None else usage.memory_peak_bytes


def _allowed(job: Job) -> tuple[int, str] | None:
    """Memory that the peak on one node can be set against, and by what right; none if the job has several nodes."""
    facts = job.facts
    if job.nodes_expected > 1:
        return None
    if job.memory_limit_bytes is not None:
        return job.memory_limit_bytes, "allowed"
    return None if facts.memory_requested_bytes is None else (facts.memory_requested_bytes, "requested")


def oom_kills(job: Job) -> str:
    """How many of the job's processes the kernel killed for memory."""
    usage = job.total_usage
    kills = usage.oom_kills if usage is not None else None
    return f"the kernel killed {kills} of its processes for memory" if kills else ""


def inferred_end(job: Job) -> str:
    """When the run ended, where that had to be inferred."""
    return "" if job.end_us is None else describe_interval(job.end_not_before_us, job.end_us)


def silence(job: Job, parts: Sequence[NodeRun]) -> str:
    """That the end was not reported, and what showed that it had come."""
    reported = f"only {job.nodes_told} of {counted(job.nodes_expected, 'node')}" if job.nodes_told else "nobody"
    causes: dict[str, list[str]] = {}
    for part in sorted(parts, key=lambda part: part.node):
        if part.ended_us is None and part.closed_because is not None:
            causes.setdefault(part.closed_because, []).append(part.node)
    if job.closing is not None:
        causes = {job.closing.closing.reason: []}
    said = [_CLOSED_BECAUSE.get(cause, cause) + _names(job, nodes) for cause, nodes in causes.items()]
    return f"{reported} reported the end" + (f": {', '.join(said)}" if said else "")


def _names(job: Job, nodes: Sequence[str]) -> str:
    return f" ({', '.join(nodes)})" if nodes and job.nodes_expected > 1 else ""

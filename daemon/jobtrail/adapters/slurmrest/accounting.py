"""Runs of jobs in slurmdbd (`/slurmdb/<version>/jobs`), v0.0.36 to v0.0.43, as SlurmRecord."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobtrail.adapters.slurmrest.jobs import expanded, job_id_of, node_list_of, public_id, reason_of
from jobtrail.adapters.slurmrest.normal import Fields
from jobtrail.adapters.slurmrest.outcomes import outcome_of_slurmdb
from jobtrail.adapters.slurmrest.states import job_state
from jobtrail.adapters.slurmrest.tres import count_of, gpus_of, memory_bytes, tres_of_list
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import FINAL_STATES, Origin, SlurmRecord

# Before v0.0.40 every job that exited, with whatever code, has return_code 0.
TRUE_EXIT_CODES_SINCE = 40
# Before v0.0.38 `time.start` is when the job became eligible.
TRUE_START_SINCE = 38

UidOf = Callable[[str], int | None]


def slurmdb_record(fields: Fields, *, version: int, uid_of: UidOf) -> SlurmRecord:
    """The run that a slurmdb job object of data version v0.0.`version` describes.

    `uid_of` tells the uid of a user name: slurmdb names who cancelled a job. Raises SlurmAnswerInvalid where id, state
    or times cannot be understood; other unreadable fields are absent and told in `fields.problems`.
    """
    state, flags = _state(fields.section("state"))
    final = state in FINAL_STATES
    times = fields.section("time")
    start = times.time("start") if version >= TRUE_START_SINCE else None
    node_list = node_list_of(fields, "nodes")
    never_started = node_list is None and final
    steps = list(fields.lenient.items("steps"))
    trusted = version >= TRUE_EXIT_CODES_SINCE
    return SlurmRecord(
        origin=Origin.SLURMDBD,
        job_id=job_id_of(fields, "job_id"),
        cluster=fields.lenient.text("cluster"),
        state=state,
        flags=flags,
        reason=reason_of(fields.lenient.section("state"), "reason"),
        submit_time=times.time("submission"),
        start_time=None if never_started else start,
        end_time=times.time("end") if final else None,
        facts=_facts(fields.lenient, node_list),
        outcome=outcome_of_slurmdb(fields, state, trusted=trusted) if final and not never_started else Outcome(),
        cancelled_by_uid=_cancelled_by(fields.lenient, uid_of) if state == "CANCELLED" else None,
        suspended_seconds=times.lenient.number("suspended") if node_list is not None else None,
        cpu_usage_us=fields.lenient.exact("steps", _cpu_usage_us(steps)) if final else None,
        memory_peak_bytes=_memory_peak_bytes(steps),
        out_of_memory_step=any("OUT_OF_MEMORY" in step.words("state") for step in steps),
    )


def _state(fields: Fields) -> tuple[str, tuple[str, ...]]:
    """A run that was taken back into the queue is REQUEUED; v0.0.40 and later write PENDING with the flag REQUEUED.

    To slurmdbd such a run is over: the job's next run is a row of its own.
    """
    state, flags = job_state(fields, "current")
    if state == "PENDING" and "REQUEUED" in flags:
        return "REQUEUED", tuple(flag for flag in flags if flag != "REQUEUED")
    return state, flags


def _facts(fields: Fields, node_list: str | None) -> JobFacts:
    tres = fields.section("tres")
    allocated, requested = tres_of_list(tres.items("allocated")), tres_of_list(tres.items("requested"))
    array, het = fields.section("array"), fields.section("het")
    array_job, array_task_id = array.number("job_id") or None, array.number("task_id")
    het_leader = het.number("job_id") or None
    minutes = fields.section("time").number("limit") or None
    name, partition = fields.text("name"), fields.text("partition")
    if name == "allocation" and partition is None:
        name = None  # slurmdbd's filling, as long as it has heard of the end and not of the start
    return JobFacts(
        user_name=fields.text("user"),
        account=fields.text("account"),
        partition=partition,
        qos=fields.text("qos"),
        job_name=name,
        nodes=expanded(fields, "nodes", node_list),
        node_list=node_list,
        restart_count=fields.number("restart_cnt"),
        work_dir=fields.text("working_directory"),
        comment=fields.section("comment").text("job"),
        reservation=fields.section("reservation").text("name"),
        array_job_id=public_id(array_job) if array_job else None,
        array_task_id=array_task_id if array_job else None,
        het_leader_job_id=public_id(het_leader) if het_leader else None,
        het_job_offset=het.number("job_offset") if het_leader else None,
        time_limit_seconds=fields.exact("time.limit", None if minutes is None else minutes * 60),
        memory_requested_bytes=fields.exact("tres.requested", memory_bytes(requested.get("mem"))),
        cpus_total=count_of(allocated.get("cpu")),
        gpus_total=fields.exact("tres.allocated", gpus_of(allocated)),
    )


def _cancelled_by(fields: Fields, uid_of: UidOf) -> int | None:
    """The uid of who ended the job; up to v0.0.38 and after, slurmdb gives a name, or a number it has no name for."""
    name = fields.text("kill_request_user")
    if name is None:
        return None
    return int(name) if name.isascii() and name.isdigit() and len(name) <= 10 else uid_of(name)


def _cpu_usage_us(steps: Sequence[Fields]) -> int | None:
    """User and system time of all steps, the sum that sacct shows as TotalCPU; a job's own `time.total` stays 0.

    0 of a run that had steps is no measure: accounting of the processes was off, or nothing ran.
    """
    total = 0
    for step in steps:
        spent = step.section("time").section("total")
        total += (spent.number("seconds") or 0) * 1_000_000 + (spent.number("microseconds") or 0)
    return total or None


def _memory_peak_bytes(steps: Sequence[Fields]) -> int | None:
    """The largest MaxRSS of a task. None where Slurm did not look while anything of the job's own ran.

    It samples every 30 s unless told otherwise (slurm.conf(5), JobAcctGatherFrequency) and writes 0 for what it never
    saw. The extern step holds but a `sleep` then, whose size says nothing of the job.
    """
    peaks = {_step_name(step): _max_rss(step) for step in steps}
    own = [peak for name, peak in peaks.items() if peak and not name.endswith("extern")]
    return max((peak for peak in peaks.values() if peak), default=None) if own else None


def _step_name(step: Fields) -> str:
    """The step's id: batch, extern, 0, ...; from v0.0.40 on <job>.batch, and so on."""
    value = step.section("step").raw("id")
    return str(value) if isinstance(value, str | int) else step.path


def _max_rss(step: Fields) -> int | None:
    for item in step.section("tres").section("requested").items("max"):
        if item.text("type") == "mem":
            return item.number("count")
    return None

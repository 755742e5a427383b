"""Jobs of slurmctld (`/slurm/<version>/jobs`), v0.0.36 to v0.0.43, as SlurmRecord."""

from __future__ import annotations

from jobtrail.adapters.slurmrest.normal import Fields
from jobtrail.adapters.slurmrest.outcomes import outcome_of_slurmctld
from jobtrail.adapters.slurmrest.states import job_state
from jobtrail.adapters.slurmrest.tres import MEBIBYTE, count_of, gpus_of, gpus_of_gres, memory_bytes, tres_of_text
from jobtrail.domain.errors import InvalidEvent, SlurmAnswerInvalid
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import FINAL_STATES, PENDING_STATES, Origin, SlurmRecord

_LONGEST_RUN_SECONDS = 0xFFFF_0000  # near 2**32: Slurm's "no limit" (slurm/slurm.h, INFINITE) taken for seconds
# slurmdb's word for a run that never got nodes, and scontrol's.
_NO_NODES = frozenset({"None assigned", "(null)"})


def slurmctld_record(fields: Fields) -> SlurmRecord:
    """The run that slurmctld's job object describes.

    Raises SlurmAnswerInvalid where id, state, times or exit status cannot be understood; of the other fields the
    unreadable ones are absent and told in `fields.problems`.
    """
    state, flags = job_state(fields, "job_state")
    final = state in FINAL_STATES and "COMPLETING" not in flags
    start, end = fields.number("start_time") or None, fields.number("end_time") or None
    node_list = node_list_of(fields, "nodes")
    # One that was cancelled while it waited has one time for its start and its end, and no nodes.
    never_started = node_list is None and final and (start is None or end is None or start >= end)
    if never_started or state in PENDING_STATES or _is_planned(state, start, end):
        start = None
    return SlurmRecord(
        origin=Origin.SLURMCTLD,
        job_id=job_id_of(fields, "job_id"),
        cluster=fields.lenient.text("cluster"),
        state=state,
        flags=flags,
        reason=reason_of(fields.lenient, "state_reason"),
        submit_time=fields.time("submit_time"),
        start_time=fields.checked_time("start_time", start),
        # While a run goes on this is when its time limit ends it, or nonsense where it has none.
        end_time=fields.checked_time("end_time", end) if final else None,
        facts=_facts(fields.lenient, node_list),
        outcome=outcome_of_slurmctld(fields, state) if final and not never_started else Outcome(),
        suspended_seconds=_suspended_seconds(fields.lenient, start),
        array_tasks_pending=fields.lenient.text("array_task_string") if state in PENDING_STATES else None,
    )


def _is_planned(state: str, start: int | None, end: int | None) -> bool:
    """Whether `start` is the plan for the next run: a requeued job's, while the last run's epilogs hide that it waits.

    It has no end then, which without a time limit reads as the start and 2**32 seconds or so.
    """
    return state == "COMPLETING" and (start is None or end is None or end - start > _LONGEST_RUN_SECONDS)


def _facts(fields: Fields, node_list: str | None) -> JobFacts:
    allocated, requested = tres_of_text(fields.text("tres_alloc_str")), tres_of_text(fields.text("tres_req_str"))
    array_task_id = fields.number("array_task_id")
    array_job = fields.number("array_job_id")
    # Of an array whose tasks still wait there is one record for all of them, without a task id.
    in_array = array_task_id is not None or fields.text("array_task_string") is not None
    het_leader = fields.number("het_job_id") or None
    minutes = fields.number("time_limit")
    return JobFacts(
        user_name=fields.text("user_name"),
        uid=fields.number("user_id"),
        gid=fields.number("group_id"),
        account=fields.text("account"),
        partition=fields.text("partition"),
        qos=fields.text("qos"),
        job_name=fields.text("name"),
        nodes=expanded(fields, "nodes", node_list),
        node_list=node_list,
        restart_count=fields.number("restart_cnt"),
        work_dir=fields.text("current_working_directory"),
        comment=fields.text("comment"),
        reservation=fields.text("resv_name"),
        array_job_id=public_id(array_job) if in_array and array_job else None,
        array_task_id=array_task_id,
        het_leader_job_id=public_id(het_leader) if het_leader else None,
        het_job_offset=fields.number("het_job_offset") if het_leader else None,
        time_limit_seconds=fields.exact("time_limit", None if minutes is None else minutes * 60),
        memory_requested_bytes=_memory_requested(fields, requested.get("mem")),
        cpus_total=_cpus_total(fields, allocated.get("cpu"), node_list),
        gpus_total=_gpus_total(fields, gpus_of(allocated)),
    )


def _memory_requested(fields: Fields, of_tres: str | None) -> int | None:
    """What the whole job asked for: its TRES, else memory_per_node × nodes, else memory_per_cpu × CPUs, both MiB."""
    memory = memory_bytes(of_tres)
    if memory is not None:
        return fields.exact("tres_req_str", memory)
    per_node, nodes = fields.number("memory_per_node"), fields.number("node_count")
    if per_node and nodes:
        return fields.exact("memory_per_node", per_node * nodes * MEBIBYTE)
    per_cpu, cpus = fields.number("memory_per_cpu"), fields.number("cpus")
    return fields.exact("memory_per_cpu", per_cpu * cpus * MEBIBYTE) if per_cpu and cpus else None


def _cpus_total(fields: Fields, of_tres: str | None, node_list: str | None) -> int | None:
    """CPUs allocated; `cpus` is what a job asks for until it has nodes."""
    count = fields.exact("tres_alloc_str", count_of(of_tres))
    return count if count is not None or node_list is None else fields.number("cpus")


def _gpus_total(fields: Fields, of_tres: int | None) -> int | None:
    """GPUs allocated; `gres_detail` has one string for each node, and only while the job runs."""
    if of_tres is not None:
        return fields.exact("tres_alloc_str", of_tres)
    counts = [gpus_of_gres(text) for text in fields.words("gres_detail")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _suspended_seconds(fields: Fields, start: int | None) -> int | None:
    """Seconds the run was stopped for, up to the last change between running and suspended.

    `suspend_time` is when that was, `pre_sus_time` for how many seconds the run had run by then; it is 0 when it was
    never suspended (slurm/slurm.h, job_info_t).
    """
    last_change, had_run = fields.number("suspend_time"), fields.number("pre_sus_time")
    if start is None or last_change is None or had_run is None:
        return None
    if last_change == 0:
        return 0
    seconds = last_change - start - had_run
    return seconds if seconds >= 0 else None


def public_id(number: int) -> str:
    """The id under which everybody else knows job `number`."""
    return f"slurm-{number}"


def job_id_of(fields: Fields, name: str) -> str:
    """The public id. Raises SlurmAnswerInvalid when there is none."""
    number = fields.number(name)
    if not number:
        raise fields.unreadable(name, "must be a job's number of 1 or more")
    return public_id(number)


def reason_of(fields: Fields, name: str) -> str | None:
    """StateReason; `None` is Slurm's word for there is none."""
    reason = fields.text(name)
    return None if reason == "None" else reason


def node_list_of(fields: Fields, name: str) -> str | None:
    """A host list as Slurm wrote it; None when the job has no nodes."""
    text = fields.lenient.text(name)
    return None if text in _NO_NODES else text


def expanded(fields: Fields, name: str, node_list: str | None) -> tuple[str, ...] | None:
    """The nodes of a list in order; None for a list that is none, which is told in `fields.problems`."""
    if node_list is None:
        return None
    try:
        return fields.shared.nodes(f"{fields.path}.{name}", node_list)
    except InvalidEvent as error:
        fields.forgive(SlurmAnswerInvalid(error.field, error.reason))
    except SlurmAnswerInvalid as problem:
        fields.forgive(problem)
    return None

"""Reads what sacct(1) printed: rows of runs, each followed by the rows of its steps.

Names of jobs are their users' to choose, with newlines or anything else in them, so neither lines nor a fixed delimiter
can be trusted. The delimiter is therefore one that nobody could know when the job was named, and it also ends each row
(--parsable): a row is so many fields and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from jobtrail.adapters.sacct import values
from jobtrail.domain.errors import InvalidEvent, SlurmAnswerInvalid
from jobtrail.domain.hostlist import expand_nodes
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import Origin, SlurmAnswer, SlurmRecord, Unreadable

REQUIRED = ("JobIDRaw", "JobID", "State", "ExitCode", "Submit", "Start", "End")
OPTIONAL = (
    "Cluster", "User", "UID", "GID", "Account", "Partition", "QOS", "JobName", "NodeList", "Reservation", "Reason",
    "DerivedExitCode", "Suspended", "TimelimitRaw", "ReqTRES", "AllocTRES", "TotalCPU", "MaxRSS",
    "Restarts",  # not yet in Slurm 22.05
    "SLUID",  # from the time of SLURM_JOB_SLUID on, Slurm 25.11
)  # fmt: skip

_ID = re.compile(r"(\d{1,10})(?:\.(.+))?")
_STATE = re.compile(r"([A-Z_]{1,40})(?: by (\d{1,10}))?")
_EXIT = re.compile(r"\d{1,5}:(\d{1,5})")
_ARRAY_TASK = re.compile(r"(\d{1,10})_(\d{1,10})")
_ARRAY_PENDING = re.compile(r"(\d{1,10})_\[(.+)\]")
_HET = re.compile(r"(\d{1,10})\+(\d{1,10})")
_OUT_OF_MEMORY = 125  # Slurm's mark in the place of a signal
_HIGHEST_SIGNAL = 64  # signal(7)

Row = dict[str, str]
Value = TypeVar("Value")


class _Run(msgspec.Struct):
    """A run's row, the rows of its steps, and what could not be read of them."""

    path: str
    number: int
    row: Row
    steps: list[Row]
    complaints: list[Unreadable]

    def read(self, field: str, how: Callable[[str], Value | None], row: Row | None = None) -> Value | None:
        """A value that may be missing without the run being lost; what cannot be read is told."""
        try:
            return how((self.row if row is None else row).get(field, ""))
        except (ValueError, InvalidEvent) as error:
            self.complaints.append(self.complaint(field, str(error)))
            return None

    def complaint(self, field: str, reason: str) -> Unreadable:
        return Unreadable(path=f"{self.path}.{field}", reason=reason, job_id=f"slurm-{self.number}")


def read_answer(text: str, fields: Sequence[str], delimiter: str, wanted: Collection[int]) -> SlurmAnswer:
    """The runs of the `wanted` jobs in what sacct printed.

    Raises SlurmAnswerInvalid when it is not made of whole rows of `fields`.
    """
    unreadable: list[Unreadable] = []
    records = []
    for run in _runs(each_row(text, fields, delimiter), unreadable):
        # Of an array whose id is asked sacct tells every task (sacct(1), --jobs).
        if run.number not in wanted:
            continue
        try:
            records.append(_record(run))
        except ValueError as error:
            run.complaints.append(run.complaint("", str(error)))
        unreadable += run.complaints
    return SlurmAnswer(records=tuple(records), unreadable=tuple(unreadable))


def each_row(text: str, fields: Sequence[str], delimiter: str) -> Iterator[Row]:
    """One row at a time: all of them take many times the room of the text.

    Raises SlurmAnswerInvalid for what is not made of whole rows of `fields`.
    """
    row: list[str] = []
    start = 0
    while (end := text.find(delimiter, start)) >= 0:
        row.append(text[start:end])
        start = end + len(delimiter)
        if len(row) == len(fields):
            row[0] = row[0].removeprefix("\n")
            yield dict(zip(fields, row, strict=True))
            row = []
    if row or text[start:].strip():
        raise SlurmAnswerInvalid("sacct", f"printed rows that do not have {len(fields)} fields")


def _runs(rows: Iterable[Row], unreadable: list[Unreadable]) -> Iterator[_Run]:
    """Runs with their steps. A step does not say of which run of its job it is, but it is printed after it.

    What belongs to no run goes to `unreadable`.
    """
    run: _Run | None = None
    for index, row in enumerate(rows):
        path = f"sacct.rows[{index}]"
        match = _ID.fullmatch(row["JobIDRaw"])
        if match is None:
            unreadable.append(Unreadable(path=f"{path}.JobIDRaw", reason=f"{row['JobIDRaw'][:40]!r} is no job's id"))
        elif match[2] is None:
            if run is not None:
                yield run
            run = _Run(path=path, number=int(match[1]), row=row, steps=[], complaints=[])
        elif run is not None and run.number == int(match[1]):
            run.steps.append(row)
        else:
            unreadable.append(Unreadable(path=path, reason="a step without its job", job_id=f"slurm-{match[1]}"))
    if run is not None:
        yield run


def _record(run: _Run) -> SlurmRecord:
    """Raises ValueError naming the field where the run's identity, state or times cannot be read."""
    state = _STATE.fullmatch(run.row["State"])
    if state is None:
        raise ValueError(f"State must be a job's state, not {run.row['State'][:40]!r}")
    pending = _ARRAY_PENDING.fullmatch(run.row["JobID"])
    suspended = run.read("Suspended", values.microseconds)
    return SlurmRecord(
        origin=Origin.SACCT,
        job_id=f"slurm-{run.number}",
        cluster=values.present(run.row.get("Cluster", "")),
        state=state[1],
        reason=values.present(run.row.get("Reason", "")),
        sluid=values.present(run.row.get("SLUID", "")),
        submit_time=_time(run, "Submit"),
        start_time=_time(run, "Start"),
        end_time=_time(run, "End"),
        facts=_facts(run),
        outcome=_outcome(state[1], run.row["ExitCode"]),
        cancelled_by_uid=None if state[2] is None else int(state[2]),
        suspended_seconds=None if suspended is None else suspended // 1_000_000,
        cpu_usage_us=_cpu_us(run),
        memory_peak_bytes=max((run.read("MaxRSS", values.size_bytes, step) or 0 for step in run.steps), default=0)
        or None,
        out_of_memory_step=_ran_out_of_memory(run),
        array_tasks_pending=None if pending is None else pending[2],
    )


def _time(run: _Run, field: str) -> int | None:
    """A time of the run itself, without which it cannot be told from others: ValueError names the field."""
    try:
        return values.time(run.row[field])
    except ValueError as error:
        raise ValueError(f"{field} {error}") from None


def _outcome(state: str, status: str) -> Outcome:
    """What the exit status tells for sure.

    sacct prints an exit code of 128 or more less 128, so a code above 0 could be one of two; and it says 0:0 of what
    Slurm cancelled. A signal is told as it is.
    """
    match = _EXIT.fullmatch(status)
    signal = int(match[1]) if match is not None else 0
    if state == "COMPLETED" and status == "0:0":
        return Outcome(exit_code=0)
    if state == "OUT_OF_MEMORY":
        return Outcome(out_of_memory=True)
    if state == "FAILED" and 0 < signal <= _HIGHEST_SIGNAL:
        return Outcome(exit_signal=signal)
    return Outcome()


def _cpu_us(run: _Run) -> int | None:
    """CPU time of all steps; None until each has reported, and where accounting gathers none (no process uses no time).

    The row of the run has the sum over its steps to the microsecond before it is printed, and is so better than theirs.
    """
    if run.row["End"] in {"", "Unknown"} or any(step["End"] in {"", "Unknown"} for step in run.steps):
        return None
    return run.read("TotalCPU", values.microseconds) or None


def _ran_out_of_memory(run: _Run) -> bool:
    derived = _EXIT.fullmatch(run.row.get("DerivedExitCode", ""))
    marked = derived is not None and int(derived[1]) == _OUT_OF_MEMORY
    return marked or any(step["State"] == "OUT_OF_MEMORY" for step in run.steps)


def _facts(run: _Run) -> JobFacts:
    row = run.row
    node_list = values.present(row.get("NodeList", ""))
    allocated = row.get("AllocTRES", "")
    task = _ARRAY_TASK.fullmatch(row["JobID"])
    array = task or _ARRAY_PENDING.fullmatch(row["JobID"])
    het = _HET.fullmatch(row["JobID"])
    facts = JobFacts(
        user_name=values.present(row.get("User", "")),
        account=values.present(row.get("Account", "")),
        partition=values.present(row.get("Partition", "")),
        nodes=None if node_list is None else run.read("NodeList", lambda text: expand_nodes("NodeList", text)),
        node_list=node_list,
        reservation=values.present(row.get("Reservation", "")),
        restart_count=run.read("Restarts", values.integer),
        array_job_id=None if array is None else f"slurm-{array[1]}",
        array_task_id=None if task is None else int(task[2]),
        het_leader_job_id=None if het is None else f"slurm-{het[1]}",
        het_job_offset=None if het is None else int(het[2]),
        memory_requested_bytes=run.read("ReqTRES", values.memory_of),
        cpus_total=run.read("AllocTRES", values.cpus_of) if allocated else None,
        gpus_total=run.read("AllocTRES", values.gpus_of) if allocated else None,
    )
    # Of a job whose start slurmdbd has not heard of yet it holds a placeholder, with user id 0 and the name
    # "allocation". It has no partition, which every job has.
    return facts if facts.partition is None else _with_submission(run, facts)


def _with_submission(run: _Run, facts: JobFacts) -> JobFacts:
    """The facts that slurmdbd has from the job's submission."""
    return msgspec.structs.replace(
        facts,
        uid=run.read("UID", values.integer),
        gid=run.read("GID", values.integer),
        qos=values.present(run.row.get("QOS", "")),
        job_name=run.row.get("JobName", "")[: values.MAX_TEXT] or None,
        time_limit_seconds=run.read("TimelimitRaw", values.minutes_as_seconds),
    )

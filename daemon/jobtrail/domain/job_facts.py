"""What is said of a job itself: who, what, where, and how it ended."""

from __future__ import annotations

import msgspec


class JobFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a sender says the job is. Every field is absent (None) when the sender does not know it."""

    user_name: str | None = None
    uid: int | None = None
    gid: int | None = None
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    job_name: str | None = None
    nodes: tuple[str, ...] | None = None  # expanded, in Slurm's order: the first is the batch host
    node_list: str | None = None  # as Slurm wrote it
    cpus: int | None = None  # CPUs allocated on this event's node
    memory_limit_bytes: int | None = None
    gpu_vendor: str | None = None
    gpu_devices: tuple[str, ...] | None = None
    restart_count: int | None = None
    work_dir: str | None = None
    comment: str | None = None
    reservation: str | None = None
    command: tuple[str, ...] | None = None  # local jobs only; never collected from Slurm
    array_job_id: str | None = None  # public id of the array; also that of one of its tasks
    array_task_id: int | None = None
    het_leader_job_id: str | None = None  # public id of the heterogeneous job's first component
    het_job_offset: int | None = None
    time_limit_seconds: int | None = None  # None is also a job without a limit
    memory_requested_bytes: int | None = None  # of the whole job
    cpus_total: int | None = None  # CPUs allocated, all nodes together
    gpus_total: int | None = None  # GPUs allocated, all nodes together


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the job ended, as the sender saw it.

    A Slurm epilog's exit code 0 is no proof of success: cancelled, timed-out and preempted jobs report the same.
    `final_state` is set only by senders that know (a local run's parent, a person).
    """

    exit_code: int | None = None  # 0..255
    exit_signal: int | None = None  # a signal number; never Slurm's out-of-memory mark 125
    out_of_memory: bool = False  # Slurm's mark: wait status 253, printed as 0:125
    raw_status: int | None = None  # wait(2) status as Slurm gave it
    derived_raw_status: int | None = None  # highest wait status of the job's steps
    final_state: str | None = None  # completed | failed | cancelled

"""Which of Slurm's records describes a run, and whether it says anything new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from jobtrail.domain.job import Job
from jobtrail.domain.records import (
    SKEW_US,
    contradicts,
    describes,
    moment_of,
    other_restart,
    other_submission,
    restart_count_of,
    same_submission,
    submit_times,
)
from jobtrail.domain.slurm import Origin, SlurmRecord

CLOCKS_US = 300_000_000  # between two clocks of a cluster: munge refuses credentials that are older (munge(7), TTL)


def record_of(job: Job, records: Iterable[SlurmRecord]) -> SlurmRecord | None:
    """The record among `records` that describes the run `job`; None when none does.

    By SLUID, then by the moment of submission, which Slurm sets anew at each requeue, then by the start that the hooks
    told and the restarts they counted. Where nothing of this is known on both sides: the last record that had started
    when the run began here.
    """
    of_job = [record for record in records if record.job_id == job.job_id]
    for record in of_job:
        if record.sluid is not None and record.sluid == job.sluid:
            return record
    if submit_times(job):
        return next((record for record in of_job if same_submission(job, record)), None)
    for record in of_job:
        if record.start_time is not None and record.start_time == job.slurm_start_time and not record.is_pending:
            return record
    described = _newest_begun(job, [record for record in of_job if describes(job, record)])
    if described is not None or len(of_job) != 1:
        return described
    return of_job[0] if _is_twin(job, of_job[0]) else None


def _is_twin(job: Job, record: SlurmRecord) -> bool:
    """Whether the only record of the job's id is of this run, although a clock differs by minutes.

    Munge takes five minutes between two machines, so Slurm runs with them. Then restarts, nodes and user decide; where
    either side counts no restarts (sacct, hooks before 22.05), nothing does.
    """
    moment = moment_of(job)
    if moment is None or record.start_time is None or record.is_pending or contradicts(job, record):
        return False
    if restart_count_of(job) is None or record.facts.restart_count is None:
        return False
    if not set(job.nodes) & set(record.facts.nodes or ()):
        return False
    uid = job.facts.uid
    if uid is not None and record.facts.uid is not None and uid != record.facts.uid:
        return False
    started, ended = record.start_time * 1_000_000, record.end_time
    return started - CLOCKS_US <= moment and (ended is None or moment <= ended * 1_000_000 + CLOCKS_US)


def _newest_begun(job: Job, records: Sequence[SlurmRecord]) -> SlurmRecord | None:
    """The newest record that had begun when the run was on; where none had, as clocks differ, the oldest."""
    moment = moment_of(job) or 0
    by_age = sorted(records, key=lambda record: (record.start_time or 0, record.submit_time or 0))
    begun = [record for record in by_age if (record.start_time or 0) * 1_000_000 <= moment]
    return begun[-1] if begun else next(iter(by_age), None)


def is_other_run(job: Job, record: SlurmRecord) -> bool:
    """Whether `record` certainly is of another run of the job: submitted, restarted or begun at another time."""
    if other_submission(job, record) or other_restart(job, record.facts.restart_count):
        return True
    if record.start_time is None or record.is_pending or job.begun_us is None or job.begun_inferred:
        return False
    return record.start_time * 1_000_000 > job.begun_us + CLOCKS_US


def is_superseded(job: Job, record: SlurmRecord) -> bool:
    """Whether the record is of a later run than `job`, which therefore was taken back into the queue.

    Told by a higher count of restarts; without counts, of a run that its nodes ended, by a submission after its start.
    """
    if record.job_id != job.job_id:
        return False
    count, told = restart_count_of(job), record.facts.restart_count
    if count is not None and told is not None:
        return told > count and record_of(job, [record]) is None
    if record.submit_time is None or job.told_end_us is None:
        return False
    began_us = job.told_end_us if job.start_us is None else job.start_us
    return record.submit_time * 1_000_000 > began_us + SKEW_US and record_of(job, [record]) is None


def is_news(job: Job, record: SlurmRecord) -> bool:
    """Whether `record` says anything that its origin has not said of the run before."""
    held = next((word.record for word in job.words if word.record.origin is record.origin), None)
    if held is None:
        return True
    if job.end_inferred and record.is_running and record.origin is Origin.SLURMCTLD and not held.is_final:
        return True  # what was inferred is wrong: the same word, said later, takes it back
    held, record = (msgspec.structs.replace(one, node_states={}) for one in (held, record))  # the nodes' present states
    return held != record and not (held.is_final and not record.is_final)

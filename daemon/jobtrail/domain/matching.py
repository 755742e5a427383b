"""Which of Slurm's records describes a run, and whether it says anything new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from jobtrail.domain.job import Job
from jobtrail.domain.records import SKEW_US, describes, moment_of, same_submission, submit_times
from jobtrail.domain.slurm import SlurmRecord


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
    return _newest_begun(job, [record for record in of_job if describes(job, record)])


def _newest_begun(job: Job, records: Sequence[SlurmRecord]) -> SlurmRecord | None:
    """The newest record that had begun when the run was on; where none had, as clocks differ, the oldest."""
    moment = moment_of(job) or 0
    by_age = sorted(records, key=lambda record: (record.start_time or 0, record.submit_time or 0))
    begun = [record for record in by_age if (record.start_time or 0) * 1_000_000 <= moment]
    return begun[-1] if begun else next(iter(by_age), None)


def is_superseded(job: Job, record: SlurmRecord) -> bool:
    """Whether the controller's only record of the job is of a later run: `job` was taken back into the queue."""
    if record.job_id != job.job_id or record_of(job, [record]) is not None:
        return False
    moment = job.told_end_us if job.start_us is None else job.start_us
    if record.submit_time is None or moment is None:
        return False
    return record.submit_time * 1_000_000 + SKEW_US >= moment


def is_news(job: Job, record: SlurmRecord) -> bool:
    """Whether `record` says anything that its origin has not said of the run before."""
    held = next((word.record for word in job.words if word.record.origin is record.origin), None)
    if held is None:
        return True
    held, record = (msgspec.structs.replace(one, node_states={}) for one in (held, record))  # the nodes' present states
    return held != record and not (held.is_final and not record.is_final)

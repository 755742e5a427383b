"""Which of Slurm's records describes a run, and whether it says anything new."""

from __future__ import annotations

from collections.abc import Iterable

from jobtrail.domain.job import Job
from jobtrail.domain.joining import SKEW_US, SLACK_US, same_submission, submit_times
from jobtrail.domain.slurm import SlurmRecord


def record_of(job: Job, records: Iterable[SlurmRecord]) -> SlurmRecord | None:
    """The record among `records` that describes the run `job`; None when none does.

    By SLUID, then by the moment of submission, which Slurm sets anew at each requeue, then by the start that the hooks
    told. Where nothing of this is known on both sides: the last record that had started when the run began here.
    """
    of_job = [record for record in records if record.job_id == job.job_id]
    for record in of_job:
        if record.sluid is not None and record.sluid == job.sluid:
            return record
    if submit_times(job):
        return next((record for record in of_job if same_submission(job, record)), None)
    began = [record for record in of_job if _had_begun(job, record)]
    return max(began, key=lambda record: (record.start_time or 0, record.submit_time or 0), default=None)


def _had_begun(job: Job, record: SlurmRecord) -> bool:
    """Whether the record's run had begun when `job` did, and was not over by then.

    An earlier run of the job that was over just before is told from this one by exact times; where there was none,
    clocks may differ.
    """
    if record.start_time is None or record.is_pending or job.start_us is None:
        return False
    if job.slurm_start_time is not None and abs(record.start_time - job.slurm_start_time) > SKEW_US // 1_000_000:
        return False
    slack_us = SLACK_US if job.run == 1 else 1_000_000
    if record.end_time is not None and record.end_time * 1_000_000 + slack_us < job.start_us:
        return False
    return record.start_time * 1_000_000 <= job.start_us + SKEW_US


def is_superseded(job: Job, record: SlurmRecord) -> bool:
    """Whether the controller's only record of the job is of a later run: `job` was taken back into the queue."""
    if record.job_id != job.job_id or record_of(job, [record]) is not None:
        return False
    if record.submit_time is None or job.start_us is None:
        return False
    return record.submit_time * 1_000_000 + SKEW_US >= job.start_us


def is_news(job: Job, record: SlurmRecord) -> bool:
    """Whether `record` says anything that its origin has not said of the run before."""
    held = next((word.record for word in job.words if word.record.origin is record.origin), None)
    if held is None:
        return True
    return held != record and not (held.is_final and not record.is_final)

"""What one of Slurm's records and a run have in common: whether the one can be of the other."""

from __future__ import annotations

from jobtrail.domain.job import Job
from jobtrail.domain.job_facts import Outcome
from jobtrail.domain.registers import Word
from jobtrail.domain.slurm import Origin, SlurmRecord

# Slurm's times are whole seconds, its clock is another machine's, and an epilog comes after the end it speaks of.
SLACK_US = 120_000_000
SKEW_US = 5_000_000  # between the clocks of a node and of the controller
LATEST_EPILOG_US = 7 * 86_400_000_000  # a node that was away longer than this is taken to be a new one
PROLOG_SLURMCTLD = "prolog_slurmctld"  # source of what PrologSlurmctld says
EPILOG_SLURMCTLD = "epilog_slurmctld"  # and EpilogSlurmctld


def submit_times(job: Job) -> set[int]:
    """The moments of submission that Slurm's words on the run name."""
    return {word.record.submit_time for word in job.words if word.record.submit_time is not None}


def same_submission(job: Job, record: SlurmRecord) -> bool:
    """Whether both were submitted at the same moment, which names the run."""
    return record.submit_time in submit_times(job)


def other_submission(job: Job, record: SlurmRecord) -> bool:
    """Whether both were submitted, and not at the same moment: Slurm sets the time anew at each requeue."""
    return record.submit_time is not None and bool(submit_times(job)) and not same_submission(job, record)


def other_restart(job: Job, restart_count: int | None) -> bool:
    """Whether a prolog of the run counted another number of restarts."""
    told = prolog_restart_count(job)
    return restart_count is not None and told is not None and restart_count != told


def prolog_restart_count(job: Job) -> int | None:
    """The restarts before the run as a prolog counted them; an epilog may already count the next one."""
    if job.first_facts is not None and job.first_facts.facts.restart_count is not None:
        return job.first_facts.facts.restart_count
    hook = controller_hook(job)
    return None if hook is None or told_by_epilog(hook.record) else hook.record.facts.restart_count


def controller_hook(job: Job) -> Word | None:
    """The last word of slurmctld's hooks on the run."""
    return next((word for word in job.words if word.record.origin is Origin.CONTROLLER_HOOK), None)


def told_by_epilog(record: SlurmRecord) -> bool:
    """Whether the controller hook that made the record was EpilogSlurmctld, which alone knows an exit status."""
    return record.outcome != Outcome()


def slurm_starts(job: Job) -> set[int]:
    """The starts of the run in Slurm's seconds: as its hooks were told, else as Slurm's words have it."""
    if job.slurm_start_time is not None:
        return {job.slurm_start_time}
    return {word.record.start_time for word in job.words if word.record.start_time is not None}


def moment_of(job: Job) -> int | None:
    """A moment at which the run was on: its start, else its end, else when the controller's hook told of it."""
    if job.start_us is not None:
        return job.start_us
    if job.told_end_us is not None:
        return job.told_end_us
    hook = controller_hook(job)
    return None if hook is None else hook.stamp.time_us


def begins_after(job: Job, time_us: int) -> bool:
    """Whether Slurm says that the run began after that moment."""
    hook = controller_hook(job)
    began = [start * 1_000_000 for start in slurm_starts(job)]
    if hook is not None and not told_by_epilog(hook.record):
        began.append(hook.stamp.time_us)
    return bool(began) and time_us + SKEW_US < min(began)


def describes(job: Job, record: SlurmRecord) -> bool:
    """Whether the record's run can be `job` by what else is known than submissions: restarts, starts and ends."""
    moment = moment_of(job)
    if record.start_time is None or record.is_pending or moment is None:
        return False
    if other_restart(job, record.facts.restart_count):
        return False
    if job.slurm_start_time is not None and abs(record.start_time - job.slurm_start_time) > SKEW_US // 1_000_000:
        return False
    start_us = record.start_time * 1_000_000
    if start_us > moment + SKEW_US:
        return False
    return record.end_time is None or record.end_time * 1_000_000 + _slack_us(job) >= moment


def _slack_us(job: Job) -> int:
    """How long after a record's end the run can still have been on.

    An epilog and a hook of the controller come after the end. An earlier run of the job that was over just before a
    start is told from this one by exact times; where there was none, clocks may differ.
    """
    if job.start_us is None:
        return SLACK_US
    return SKEW_US if job.run == 1 else 1_000_000

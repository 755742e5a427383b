"""What one of Slurm's records and a run have in common: whether the one can be of the other."""

from __future__ import annotations

from jobtrail.domain.job import Job
from jobtrail.domain.job_facts import Outcome
from jobtrail.domain.registers import CLOCK_SKEW_US, Word
from jobtrail.domain.slurm import Origin, SlurmRecord

# Slurm's times are whole seconds, its clock is another machine's, and an epilog comes after the end it speaks of.
SLACK_US = 120_000_000
SKEW_US = CLOCK_SKEW_US
LATEST_EPILOG_US = 7 * 86_400_000_000  # a node that was away longer than this is taken to be a new one
PROLOG_SLURMCTLD = "prolog_slurmctld"  # source of what PrologSlurmctld says
_AWAITING_NODES = frozenset({"CONFIGURING", "POWER_UP_NODE"})
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
    """Whether the run is known to have been restarted another number of times."""
    told = restart_count_of(job)
    return restart_count is not None and told is not None and restart_count != told


def restart_count_of(job: Job) -> int | None:
    """The restarts before the run as a prolog or a record with the run's start counts them.

    An epilog may already count the next one, and so may slurmctld until the job waits again.
    """
    if job.first_facts is not None and job.first_facts.facts.restart_count is not None:
        return job.first_facts.facts.restart_count
    prologs = [word.record for word in job.words if not told_by_epilog(word.record) or word.record.state is not None]
    told = [record.facts.restart_count for record in prologs if record.state is None or record.start_time is not None]
    return min((count for count in told if count is not None), default=None)


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


def settled_starts(job: Job) -> set[int]:
    """The starts in Slurm's records of the run that stay: one is set anew when nodes were powered up for the job."""
    return {
        word.record.start_time
        for word in job.words
        if word.record.start_time is not None
        and (word.record.is_final or word.record.is_running)
        and not _AWAITING_NODES.intersection((word.record.state, *word.record.flags))
    }


def moment_of(job: Job) -> int | None:
    """A moment at which the run was on: its start, else its end, else when the controller's hook told of it."""
    if job.start_us is not None:
        return job.start_us
    if job.told_end_us is not None:
        return job.told_end_us
    hook = controller_hook(job)
    return None if hook is None else hook.stamp.time_us


def never_began(job: Job) -> bool:
    """Whether Slurm says that the run was over before it had nodes, as one that was cancelled in the queue."""
    final = job.final_word
    if final is None or final.facts.nodes is not None or final.facts.node_list is not None:
        return False
    return moment_of(job) is None


def begins_after(job: Job, time_us: int) -> bool:
    """Whether Slurm says that the run began after that moment."""
    hook = controller_hook(job)
    began = [start * 1_000_000 for start in slurm_starts(job)]
    if hook is not None and not told_by_epilog(hook.record):
        began.append(hook.stamp.time_us)
    return bool(began) and time_us + SKEW_US < min(began)


def contradicts(job: Job, record: SlurmRecord) -> bool:
    """Whether restarts or starts show that the record is of another run than `job`."""
    if other_restart(job, record.facts.restart_count):
        return True
    if record.start_time is None or job.slurm_start_time is None:
        return False
    return abs(record.start_time - job.slurm_start_time) > SKEW_US // 1_000_000


def describes(job: Job, record: SlurmRecord) -> bool:
    """Whether the record's run can be `job` by what else is known than submissions: restarts, starts and ends."""
    moment = moment_of(job)
    if record.start_time is None or record.is_pending or moment is None or contradicts(job, record):
        return False
    count = restart_count_of(job)
    if _waits_for_nodes(job) and count is not None and count == record.facts.restart_count:
        return True
    if record.start_time * 1_000_000 > moment + SKEW_US:
        return False
    return record.end_time is None or record.end_time * 1_000_000 + _slack_us(job) >= moment


def _waits_for_nodes(job: Job) -> bool:
    """Whether all that is known of the run is that PrologSlurmctld ran.

    Nodes may then be powered up for it, and its start be set anew when they are ready.
    """
    hook = controller_hook(job)
    alone = hook is not None and job.words == (hook,) and not told_by_epilog(hook.record)
    return alone and job.begun_us is None and job.told_end_us is None and not job.is_over


def _slack_us(job: Job) -> int:
    """How long after a record's end the run can still have been on.

    An epilog and a hook of the controller come after the end. An earlier run of the job that was over just before a
    start is told from this one by exact times; where there was none, clocks may differ.
    """
    if job.start_us is None:
        return SLACK_US
    return SKEW_US if job.run == 1 else 1_000_000

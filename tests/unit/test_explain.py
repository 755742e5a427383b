"""Why a run ended, word for word: what is said carries the evidence, and nothing that the evidence does not."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.events import Actor, Closing, Event, EventKind, NodeUsage
from jobtrail.domain.explain import explain
from jobtrail.domain.job import Job
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.phrases import describe_bytes, describe_duration, describe_interval
from jobtrail.domain.slurm import FINAL_STATES, PENDING_STATES, RUNNING_STATES, Origin, SlurmRecord
from jobtrail.domain.states import Verdict
from jobtrail.domain.transitions import apply, open_run
from tests.unit.stories import CLUSTER, JOB, SECOND, T0, event, finished, found, started, tell_one, used

BEGAN = SECOND // 4
ENDED = BEGAN + 12 * SECOND + 340_000
MIB = 1 << 20
UNCONFIRMED = " This is the word of the node's epilog, which neither slurmrestd nor sacct has confirmed"
ADA = JobFacts(user_name="ada", uid=1000, nodes=("n1",))


def said(state: str | None, at: int = ENDED + SECOND, *, origin: Origin = Origin.SLURMCTLD, **fields: Any) -> Event:
    """Slurm's word: the run is in `state`."""
    fields.setdefault("facts", ADA)
    record = SlurmRecord(origin=origin, job_id=JOB, state=state, **fields)
    return event(
        EventKind.SLURM_REPORTED, "server", at, f"{origin}/{at}", slurm=record, changed_by=Actor.RECONCILER, run=1
    )


def ended(
    outcome: Outcome | None = None, *words: Event, usage: NodeUsage | None = None, nodes: Sequence[str] = ("n1",)
) -> Job:
    """A run of 12.34 s on `nodes` whose epilogs said `outcome`, by default 0:0, and of which Slurm said `words`."""
    told = [started(node, BEGAN, nodes=nodes) for node in nodes]
    told += [finished(node, ENDED, nodes=nodes, outcome=outcome) for node in nodes]
    if usage is not None:
        told.append(used(nodes[0], ENDED, usage))
    return tell_one([*told, *words]).job


def exited(code: int, **more: Any) -> Outcome:
    return Outcome(exit_code=code, raw_status=code << 8, **more)


def killed(number: int, **more: Any) -> Outcome:
    return Outcome(exit_signal=number, raw_status=number, **more)


def confirmed(state: str, outcome: Outcome | None = None, *, epilog: Outcome | None = None, **fields: Any) -> Job:
    return ended(epilog, said(state, outcome=outcome or Outcome(), **fields))


NEXT_RUN = "the job went back into the queue, and its next run is a row of its own"
OUT_OF_MEMORY = Outcome(out_of_memory=True, raw_status=253)
BY_SIGNAL_15 = ", with SIGTERM (signal 15)."
ENDS = {
    "exit 0": (
        confirmed("COMPLETED", exited(0)),
        "The job ended after 12.34 s with exit code 0.",
    ),
    "exit n": (
        confirmed("FAILED", exited(42), epilog=exited(42)),
        "The job ended after 12.34 s with exit code 42.",
    ),
    "a command that is not there": (
        confirmed("FAILED", exited(127)),
        "The job ended after 12.34 s with exit code 127, which a shell gives for a command that was not found.",
    ),
    "a command that is no program": (
        confirmed("FAILED", exited(126)),
        "The job ended after 12.34 s with exit code 126, which a shell gives for a command that cannot be executed.",
    ),
    "a child with a segmentation fault": (
        confirmed("FAILED", exited(139), epilog=exited(139)),
        "The job ended after 12.34 s with exit code 139, which a shell gives for a command killed by SIGSEGV"
        " (signal 11).",
    ),
    "a step with a segmentation fault": (
        confirmed("FAILED", exited(139, derived_raw_status=11)),
        "The job ended after 12.34 s with exit code 139, which a shell gives for a command killed by SIGSEGV"
        " (signal 11). A step was killed by SIGSEGV (signal 11).",
    ),
    "a batch shell with a segmentation fault": (
        confirmed("FAILED", killed(11), epilog=killed(11)),
        "The job was killed after 12.34 s by SIGSEGV (signal 11), usually an access to memory that is not the"
        " program's.",
    ),
    "a batch shell that aborts": (
        confirmed("FAILED", killed(6)),
        "The job was killed after 12.34 s by SIGABRT (signal 6), by which programs end themselves when they find an"
        " error.",
    ),
    "a batch shell that is killed": (
        confirmed("FAILED", killed(9)),
        "The job was killed after 12.34 s by SIGKILL (signal 9).",
    ),
    "a real-time signal": (
        confirmed("FAILED", killed(40)),
        "The job was killed after 12.34 s by signal 40.",
    ),
    "out of memory": (
        confirmed("OUT_OF_MEMORY", OUT_OF_MEMORY, epilog=OUT_OF_MEMORY),
        "The job ran out of memory after 12.34 s.",
    ),
    "out of memory in a step": (
        confirmed("FAILED", exited(1, derived_raw_status=253)),
        "A step was killed for memory, but the job itself ended after 12.34 s with exit code 1.",
    ),
    "out of memory in a step, swallowed": (
        confirmed("COMPLETED", exited(0), out_of_memory_step=True),
        "A step was killed for memory, but the job itself ended after 12.34 s with exit code 0.",
    ),
    "a failed step, swallowed": (
        confirmed("COMPLETED", exited(0, derived_raw_status=768)),
        "A step ended with exit code 3, but the job itself ended after 12.34 s with exit code 0.",
    ),
    "a killed step, swallowed": (
        confirmed("COMPLETED", exited(0, derived_raw_status=6)),
        "A step was killed by SIGABRT (signal 6), but the job itself ended after 12.34 s with exit code 0.",
    ),
    "a step worse than the script": (
        confirmed("FAILED", exited(4, derived_raw_status=1792)),
        "The job ended after 12.34 s with exit code 4. A step ended with exit code 7.",
    ),
    "a step that is the job": (
        confirmed("FAILED", exited(3, derived_raw_status=768)),
        "The job ended after 12.34 s with exit code 3.",
    ),
    "scancel": (
        confirmed("CANCELLED", killed(15)),
        "The job was cancelled after it had run for 12.34 s" + BY_SIGNAL_15,
    ),
    "scancel, TERM trapped, exit 0": (
        confirmed("CANCELLED", exited(0)),
        "The job was cancelled after it had run for 12.34 s (its exit code was 0).",
    ),
    "scancel, TERM trapped, exit 3": (
        confirmed("CANCELLED", exited(3)),
        "The job was cancelled after it had run for 12.34 s (its exit code was 3).",
    ),
    "scancel --batch --signal=USR1, exit 9": (
        confirmed("FAILED", exited(9), epilog=exited(9)),
        "The job ended after 12.34 s with exit code 9.",
    ),
    "scancel by the owner": (
        confirmed("CANCELLED", killed(15), cancelled_by_uid=1000),
        "The job was cancelled by its owner ada (uid 1000) after it had run for 12.34 s" + BY_SIGNAL_15,
    ),
    "scancel by an owner without a name": (
        tell_one([said("CANCELLED", cancelled_by_uid=7, facts=JobFacts(uid=7), end_time=T0 // SECOND)]).job,
        "The job was cancelled by its owner (uid 7) before it started.",
    ),
    "scancel by root": (
        confirmed("CANCELLED", killed(15), cancelled_by_uid=0),
        "The job was cancelled by root or Slurm itself (uid 0) after it had run for 12.34 s" + BY_SIGNAL_15,
    ),
    "scancel by another, as accounting alone knows": (
        ended(
            None,
            said("CANCELLED", outcome=killed(15)),
            said("CANCELLED", origin=Origin.SACCT, cancelled_by_uid=1001),
        ),
        "The job was cancelled by the user with uid 1001 after it had run for 12.34 s" + BY_SIGNAL_15,
    ),
    "time limit": (
        confirmed("TIMEOUT", killed(15), facts=JobFacts(time_limit_seconds=60)),
        "The job reached its time limit of 1 min: Slurm ended it after 12.34 s" + BY_SIGNAL_15,
    ),
    "time limit, TERM ignored": (
        confirmed("TIMEOUT", killed(9), facts=JobFacts(time_limit_seconds=5400)),
        "The job reached its time limit of 1 h 30 min: Slurm ended it after 12.34 s, with SIGKILL (signal 9).",
    ),
    "time limit that is not known": (
        confirmed("TIMEOUT"),
        "The job reached its time limit: Slurm ended it after 12.34 s.",
    ),
    "deadline": (
        confirmed("DEADLINE", killed(15)),
        "Slurm ended the job at its deadline after it had run for 12.34 s" + BY_SIGNAL_15,
    ),
    "an output file that cannot be opened": (
        confirmed("FAILED", killed(53)),
        "Slurm gave the job's status as 0:53 after 12.34 s, which it does when it could not open the job's output file "
        "or working directory.",
    ),
    "node down": (
        confirmed("NODE_FAIL", epilog=killed(1), node_states={"n2": "down,not_responding", "n1": "mixed"}),
        "The job was ended after 12.34 s because a node of it failed (n2: down,not_responding).",
    ),
    "node down, requeued": (
        confirmed("NODE_FAIL", flags=("REQUEUED",)),
        "The job was ended after 12.34 s because a node of it failed. T" + NEXT_RUN[1:] + ".",
    ),
    "a node that does not boot": (
        confirmed("BOOT_FAIL"),
        "The job was ended after 12.34 s because a node of it did not boot.",
    ),
    "preempted": (
        confirmed("PREEMPTED", killed(15)),
        "The job was preempted after it had run for 12.34 s, with SIGTERM (signal 15): it had to make room for another"
        " job.",
    ),
    "preempted and requeued": (
        confirmed("PREEMPTED", flags=("REQUEUED",)),
        "The job was preempted after it had run for 12.34 s: it had to make room for another job. T"
        + NEXT_RUN[1:]
        + ".",
    ),
    "requeued": (
        confirmed("REQUEUED", flags=("REQUEUED",)),
        "This run was ended after 12.34 s: " + NEXT_RUN + ".",
    ),
    "cancelled while it waited": (
        tell_one(
            [said("CANCELLED", outcome=exited(0), facts=JobFacts(), cancelled_by_uid=0, end_time=T0 // SECOND)]
        ).job,
        "The job was cancelled by root or Slurm itself (uid 0) before it started.",
    ),
    "revoked": (
        tell_one([said("REVOKED", facts=JobFacts(), end_time=T0 // SECOND)]).job,
        "Slurm revoked the job before it started: another cluster of the federation took it.",
    ),
    "launch failed": (
        confirmed("LAUNCH_FAILED"),
        "Slurm could not launch the job.",
    ),
    "failed, with nobody who knows the exit code": (
        confirmed("FAILED", origin=Origin.SACCT, reason="JobLaunchFailure"),
        "The job failed after 12.34 s, but its exit code is not known; Slurm's reason is JobLaunchFailure.",
    ),
    "failed, with no exit code and no reason": (
        confirmed("FAILED", origin=Origin.SACCT),
        "The job failed after 12.34 s, but its exit code is not known.",
    ),
    "completed, as a sender says": (
        ended(Outcome(final_state="completed")),
        "The job completed after 12.34 s.",
    ),
    "failed, as a sender says of exit code 0": (
        ended(Outcome(final_state="failed", exit_code=0)),
        "The sender calls the job failed, though it ended after 12.34 s with exit code 0.",
    ),
    "cancelled, as a sender says": (
        ended(Outcome(final_state="cancelled", exit_signal=2)),
        "The job was cancelled after it had run for 12.34 s, with SIGINT (signal 2).",
    ),
    "a step out of memory of a cancelled job": (
        confirmed("CANCELLED", killed(15), out_of_memory_step=True),
        "The job was cancelled after it had run for 12.34 s, with SIGTERM (signal 15). A step was killed for memory.",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_how_a_confirmed_end_is_told(name: str) -> None:
    job, sentence = ENDS[name]
    assert job.state_confirmed
    assert explain(job) == sentence


def test_every_verdict_is_told() -> None:
    """A verdict without a sentence would be an error in the report of exactly the jobs that need one."""
    told = {job.verdict for job, _ in ENDS.values()} | {ended().verdict}
    assert told == set(Verdict)


def closing(reason: str, before: int, after: int, *, node: str = "n1", whole_run: bool = False) -> Event:
    """That the run is over since some time between `before` and `after`."""
    closed = Closing(reason=reason, not_before_us=T0 + before, whole_run=whole_run)
    return event(EventKind.JOB_CLOSED, node, after, f"closed/{node}/{after}", closing=closed)


NEITHER = "either slurmrestd nor sacct has confirmed"
ZERO = "xit status 0 was reported, but Slurm reports that for cancelled and timed-out jobs too"
UNKNOWN = {
    "exit status 0": (
        ended(),
        f"Outcome unknown: the job ended at 2025-10-09 08:53:32 UTC; e{ZERO}, and n{NEITHER} the outcome.",
    ),
    "no exit status": (
        ended(Outcome()),
        "Outcome unknown: the job ended at 2025-10-09 08:53:32 UTC; no exit status was reported, and"
        f" n{NEITHER} the outcome.",
    ),
    "what Slurm said before": (
        ended(None, said("RUNNING", SECOND)),
        f"Outcome unknown: the job ended at 2025-10-09 08:53:32 UTC; e{ZERO}, and n{NEITHER} the outcome. Slurm's last"
        " word on it was RUNNING.",
    ),
    "a run that Slurm forgot": (
        tell_one([started("n1", BEGAN), closing("unknown_to_slurm", 5 * SECOND, 70 * SECOND, whole_run=True)]).job,
        "Outcome unknown: the job ended on 2025-10-09 between 08:53:25 and 08:54:30 UTC. Nobody reported the end: Slurm"
        f" no longer knows the run; no exit status was reported, and n{NEITHER} the outcome.",
    ),
    "a reason that a later release gives": (
        tell_one([started("n1", BEGAN), closing("power_lost", 0, SECOND // 2, whole_run=True)]).job,
        "Outcome unknown: the job ended at about 2025-10-09 08:53:20 UTC. Nobody reported the end: power_lost; no exit"
        f" status was reported, and n{NEITHER} the outcome.",
    ),
    "nobody says why": (
        tell_one([started("n1", BEGAN), closing("node_rebooted", SECOND, 86_400 * SECOND)]).job,
        "Outcome unknown: the job ended between 2025-10-09 08:53:21 and 2025-10-10 08:53:20 UTC. Nobody reported the"
        f" end; no exit status was reported, and n{NEITHER} the outcome.",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_outcome_is_called_so(name: str) -> None:
    job, sentence = UNKNOWN[name]
    assert not job.state_confirmed
    assert explain(job) == sentence


def test_the_nodes_tell_why_an_end_was_inferred() -> None:
    run = tell_one([started("n1", BEGAN), closing("node_rebooted", 590 * SECOND + 1, 694 * SECOND + 1)])
    assert explain(run.job, list(run.nodes.values())) == (
        "Outcome unknown: the job ended on 2025-10-09 between 09:03:10 and 09:04:55 UTC. Nobody reported the end: the"
        f" node rebooted; no exit status was reported, and n{NEITHER} the outcome."
    )


def test_of_several_nodes_those_that_were_silent_are_named() -> None:
    nodes = ["n1", "n2", "n3", "n4"]
    run = tell_one(
        [
            *(started(node, BEGAN, nodes=nodes) for node in nodes),
            finished("n1", ENDED, nodes=nodes),
            closing("node_rebooted", 20 * SECOND, 80 * SECOND, node="n3"),
            closing("node_rebooted", 20 * SECOND, 90 * SECOND, node="n2"),
            closing("cgroup_gone", 30 * SECOND, 40 * SECOND, node="n4"),
        ]
    )
    assert explain(run.job, list(run.nodes.values())) == (
        "Outcome unknown: the job ended on 2025-10-09 between 08:53:50 and 08:54:50 UTC. Only 1 of 4 nodes reported the"
        f" end: the node rebooted (n2, n3), the job's cgroup is gone (n4); e{ZERO}, and n{NEITHER} the outcome."
    )


def local(*events: Event) -> Job:
    """A job that Slurm knows nothing of, so nothing is said of Slurm."""
    run = open_run(CLUSTER, "local-1", 1)
    for one in events:
        result = apply(run, one)
        run = result.run  # type: ignore[union-attr]
    return run.job


def test_of_a_job_outside_slurm_nothing_is_said_of_slurm() -> None:
    assert explain(local(started("n1", BEGAN), finished("n1", ENDED))) == (
        "Outcome unknown: the job ended at 2025-10-09 08:53:32 UTC; exit status 0 was reported, but no outcome."
    )
    assert explain(local(started("n1", BEGAN), finished("n1", ENDED, outcome=exited(2)))) == (
        "The job ended after 12.34 s with exit code 2."
    )
    gone = local(started("n1", BEGAN), closing("process_gone", BEGAN, ENDED, whole_run=True))
    assert explain(gone) == (
        "Outcome unknown: the job ended on 2025-10-09 between 08:53:20 and 08:53:33 UTC. Nobody reported the end: the"
        " job's process is gone; no exit status was reported."
    )


def test_an_end_without_any_time_is_not_given_one() -> None:
    job = Job(cluster_name=CLUSTER, job_id=JOB, run=1, correlation_id="", nodes_started=1, nodes_ended=1)
    assert explain(job) == "Outcome unknown: nobody knows when the job ended."


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (exited(1), "The job ended after 12.34 s with exit code 1."),
        (OUT_OF_MEMORY, "The job ran out of memory after 12.34 s."),
        (killed(9), "The job was killed after 12.34 s by SIGKILL (signal 9)."),
    ],
)
def test_the_word_of_an_epilog_alone_is_called_so(outcome: Outcome, sentence: str) -> None:
    assert explain(ended(outcome)) == f"{sentence}{UNCONFIRMED}."


def test_a_hangup_that_only_the_epilog_tells_may_be_a_failed_node() -> None:
    assert explain(ended(killed(1))) == (
        f"The job was killed after 12.34 s by SIGHUP (signal 1).{UNCONFIRMED}; it may tell SIGHUP of a failed node as"
        " well."
    )


def test_a_verdict_on_a_run_whose_end_was_inferred_gives_the_interval_and_no_run_time() -> None:
    closed = closing("cgroup_gone", SECOND, 5 * SECOND, whole_run=True)
    job = tell_one([started("n1", BEGAN), closed, said("FAILED", outcome=exited(1))]).job
    assert explain(job) == (
        "The job ended with exit code 1. The end was on 2025-10-09 between 08:53:21 and 08:53:25 UTC, by inference, as"
        " nobody reported the end: the job's cgroup is gone."
    )
    job = tell_one([started("n1", BEGAN), said("CANCELLED")]).job
    assert explain(job) == "The job was cancelled."


OPEN = {
    "nobody told anything": (
        open_run(CLUSTER, JOB, 1).job,
        "Nobody has reported a start of the job yet.",
    ),
    "waiting": (
        tell_one([said("PENDING", reason="Priority")]).job,
        "The job has not started: Slurm says PENDING (reason: Priority).",
    ),
    "held": (
        tell_one([said("REQUEUE_HOLD")]).job,
        "The job has not started: Slurm says REQUEUE_HOLD.",
    ),
    "running": (
        tell_one([started("n1", BEGAN)]).job,
        "The job is running since 2025-10-09 08:53:20 UTC.",
    ),
    "running, as Slurm says without a start": (
        tell_one([said("RUNNING")]).job,
        "The job is running.",
    ),
    "found": (
        tell_one([found("n1", BEGAN)]).job,
        "The job is running; it was found running at 2025-10-09 08:53:20 UTC.",
    ),
    "running, though Slurm says that it waits": (
        tell_one([started("n1", BEGAN), said("PENDING", reason="BeginTime")]).job,
        "The job is running since 2025-10-09 08:53:20 UTC; yet Slurm says PENDING (reason: BeginTime).",
    ),
    "suspended": (
        tell_one([started("n1", BEGAN), said("SUSPENDED")]).job,
        "The job is suspended: it holds its nodes, but its processes are stopped.",
    ),
    "completing": (
        tell_one([started("n1", BEGAN), said("CANCELLED", flags=("COMPLETING",))]).job,
        "The job is ending: Slurm says CANCELLED, but is not done with it yet.",
    ),
    "on one of two nodes": (
        tell_one([started("n1", BEGAN, nodes=["n1", "n2"]), finished("n1", ENDED, nodes=["n1", "n2"])]).job,
        "The job is running since 2025-10-09 08:53:20 UTC. 1 of its 2 nodes ended their part.",
    ),
    "with processes killed for memory": (
        tell_one([started("n1", BEGAN), used("n1", SECOND, NodeUsage(oom_kills=2), final=False)]).job,
        "The job is running since 2025-10-09 08:53:20 UTC. The kernel killed 2 of its processes for memory.",
    ),
}


@pytest.mark.parametrize("name", OPEN)
def test_a_run_that_is_not_over_says_so(name: str) -> None:
    job, sentence = OPEN[name]
    assert job.end_us is None
    assert explain(job) == sentence


REQUESTED = JobFacts(memory_requested_bytes=60 * MIB, nodes=("n1",))
ALLOWED = JobFacts(memory_limit_bytes=60 * MIB, memory_requested_bytes=50 * MIB, nodes=("n1",))
TWO_NODES = JobFacts(memory_requested_bytes=120 * MIB, nodes=("n1", "n2"))
RAN_OUT = "The job ran out of memory after 12.34 s"


@pytest.mark.parametrize(
    ("facts", "usage", "evidence"),
    [
        (ADA, None, ""),
        (ADA, NodeUsage(memory_peak_bytes=1536 * MIB), ": the highest use of memory seen was 1.5 GiB"),
        (REQUESTED, None, ": 60 MiB of memory was requested"),
        (
            REQUESTED,
            NodeUsage(memory_peak_bytes=60 * MIB, oom_kills=1),
            ": the highest use of memory seen was 60 MiB of the 60 MiB requested, and the kernel killed 1 of its"
            " processes for memory",
        ),
        (
            ALLOWED,
            NodeUsage(memory_peak_bytes=59 * MIB, oom_kills=0),
            ": the highest use of memory seen was 59 MiB of the 60 MiB allowed",
        ),
        (
            TWO_NODES,
            NodeUsage(memory_peak_bytes=60 * MIB),
            ": the highest use of memory seen was 60 MiB on one node, with 120 MiB requested for 2 nodes together",
        ),
    ],
)
def test_memory_that_ran_out_is_told_with_what_is_known(
    facts: JobFacts, usage: NodeUsage | None, evidence: str
) -> None:
    job = ended(OUT_OF_MEMORY, said("OUT_OF_MEMORY", facts=facts), usage=usage, nodes=facts.nodes or ())
    assert explain(job) == f"{RAN_OUT}{evidence}."


@pytest.mark.parametrize(
    ("facts", "peak_mib", "sources", "hint"),
    [
        (REQUESTED, 53, {}, ""),
        (REQUESTED, 54, {}, " The highest use of memory seen was 54 MiB of the 60 MiB requested."),
        (
            REQUESTED,
            60,
            {"usage": "cgroup_v2"},
            " The highest use of memory seen was 60 MiB of the 60 MiB requested, cached files included.",
        ),
        (TWO_NODES, 120, {}, ""),
        (ADA, 120, {}, ""),
    ],
)
def test_memory_near_its_limit_is_told(facts: JobFacts, peak_mib: int, sources: dict[str, str], hint: str) -> None:
    usage = NodeUsage(memory_peak_bytes=peak_mib * MIB, sources=sources)
    job = ended(None, said("COMPLETED", outcome=exited(0), facts=facts), usage=usage, nodes=facts.nodes or ())
    assert explain(job) == f"The job ended after 12.34 s with exit code 0.{hint}"


def test_memory_as_accounting_saw_it_counts_no_cached_files() -> None:
    word = said("FAILED", origin=Origin.SACCT, facts=REQUESTED, memory_peak_bytes=58 * MIB, cpu_usage_us=1)
    usage = NodeUsage(memory_peak_bytes=MIB, sources={"usage": "cgroup_v1"})
    assert explain(ended(exited(1), word, usage=usage)) == (
        "The job ended after 12.34 s with exit code 1. The highest use of memory seen was 58 MiB of the 60 MiB"
        " requested."
    )


def test_processes_killed_for_memory_are_told_of_any_end() -> None:
    job = ended(None, said("FAILED", outcome=exited(137)), usage=NodeUsage(oom_kills=3))
    assert explain(job) == (
        "The job ended after 12.34 s with exit code 137, which a shell gives for a command killed by SIGKILL"
        " (signal 9). The kernel killed 3 of its processes for memory."
    )


@pytest.mark.parametrize(
    ("start", "end", "ran"),
    [
        (0, 12_340_000, "12 s"),  # a start in whole seconds is Slurm's: there are no finer ones
        (0, 400_000, "less than 1 s"),
        (1, 400_001, "0.40 s"),
    ],
)
def test_a_run_time_is_as_fine_as_the_times_it_comes_from(start: int, end: int, ran: str) -> None:
    job = tell_one([started("n1", start), finished("n1", end, outcome=exited(1))]).job
    assert explain(job).startswith(f"The job ended after {ran} with exit code 1.")


def test_a_run_that_was_found_ran_at_least_since_then() -> None:
    job = tell_one([found("n1", BEGAN), finished("n1", ENDED, outcome=exited(1))]).job
    assert explain(job).startswith("The job ended after at least 12.34 s with exit code 1.")


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "less than 1 s"),
        (4_999, "less than 0.01 s"),
        (177_100, "0.18 s"),
        (340_000, "0.34 s"),
        (59_994_999, "59.99 s"),
        (59_999_999, "1 min"),
        (61_600_000, "1 min 2 s"),
        (60 * SECOND, "1 min"),
        (3_723 * SECOND + 1, "1 h 2 min 3 s"),
        (30 * 86_400 * SECOND, "30 d"),
    ],
)
def test_a_duration_in_words(us: int, text: str) -> None:
    assert describe_duration(us) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (MIB - 1, "1 MiB"),
        (512 * MIB, "512 MiB"),
        (1 << 62, "4096 PiB"),
    ],
)
def test_a_size_in_words(size: int, text: str) -> None:
    assert describe_bytes(size) == text


def test_an_interval_without_a_beginning() -> None:
    assert describe_interval(None, T0 + 1) == "by 2025-10-09 08:53:21 UTC"


outcomes = st.builds(
    Outcome,
    exit_code=st.none() | st.integers(0, 255),
    exit_signal=st.none() | st.integers(1, 127),
    out_of_memory=st.booleans(),
    derived_raw_status=st.none() | st.integers(0, 65535),
    final_state=st.none() | st.sampled_from(["completed", "failed", "cancelled"]),
)
records = st.builds(
    said,
    st.none() | st.sampled_from(sorted({*FINAL_STATES, *PENDING_STATES, *RUNNING_STATES})),
    origin=st.sampled_from(Origin),
    outcome=outcomes,
    flags=st.sampled_from([(), ("COMPLETING",), ("REQUEUED",)]),
    reason=st.none() | st.just("Priority"),
    cancelled_by_uid=st.none() | st.integers(0, 2),
    end_time=st.none() | st.just(T0 // SECOND + 20),
    out_of_memory_step=st.booleans(),
)
others = st.sampled_from(
    [
        started("n1", BEGAN, nodes=["n1", "n2"]),
        found("n2", BEGAN),
        closing("node_rebooted", SECOND, ENDED, node="n2"),
        closing("unknown_to_slurm", SECOND, ENDED, whole_run=True),
        used("n1", ENDED, NodeUsage(memory_peak_bytes=MIB, oom_kills=1)),
    ]
)
ends = st.builds(lambda outcome: finished("n1", ENDED, outcome=outcome), outcomes)


@given(st.lists(records | ends | others, max_size=6))
def test_whatever_was_told_there_are_one_or_two_sentences_and_success_is_never_claimed_without_proof(
    events: list[Event],
) -> None:
    run = open_run(CLUSTER, JOB, 1)
    for one in events:
        run = apply(run, one).run  # type: ignore[union-attr]
    text = explain(run.job, list(run.nodes.values()))
    assert text[0].isupper()
    assert text.endswith(".")
    assert text.count(". ") <= 1
    assert ("outcome unknown" in text.lower()) == (run.job.verdict is Verdict.UNKNOWN)
    if run.job.verdict is Verdict.COMPLETED:
        assert run.job.state_confirmed

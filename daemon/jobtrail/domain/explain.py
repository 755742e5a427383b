"""Why a run ended, in a sentence or two for the person whose job it was.

Nothing is said that the evidence does not carry: an end that Slurm has not confirmed is called so, and a limit that is
not known is not named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from jobtrail.domain.evidence import (
    after,
    canceller,
    inferred_end,
    memory_seen,
    near_limit,
    oom_kills,
    silence,
    when_stopped,
)
from jobtrail.domain.job import Job, NodeRun
from jobtrail.domain.phrases import describe_duration, describe_exit_code, describe_moment, describe_signal
from jobtrail.domain.slurm import FINAL_STATES, PENDING_STATES
from jobtrail.domain.states import State, Verdict
from jobtrail.domain.verdicts import Ruling

_SUSPENDED = frozenset({"SUSPENDED", "STOPPED"})
_ENDING = frozenset({*FINAL_STATES, "COMPLETING"})
# The ends that are the job's own: a step that failed is set against them.
_OWN_ENDS = frozenset({Verdict.COMPLETED, Verdict.FAILED, Verdict.KILLED_BY_SIGNAL})
_HINTS: Mapping[int, str] = MappingProxyType(
    {
        4: "usually an instruction that this CPU does not have",
        6: "by which programs end themselves when they find an error",
        7: "usually a mapped file that shrank or vanished",
        8: "usually a division by zero",
        11: "usually an access to memory that is not the program's",
        24: "usually a limit on CPU time (ulimit -t)",
        25: "usually a limit on file size (ulimit -f)",
    }
)
_NEXT_RUN = "the job went back into the queue, and its next run is a row of its own"
_NOT_CONFIRMED = "neither slurmrestd nor sacct has confirmed"


def explain(job: Job, parts: Sequence[NodeRun] = ()) -> str:
    """One or two sentences: how the run ended, or that it waits or runs; then what else bears on it. Times are UTC.

    They are made when somebody asks and stored nowhere, so that other words for the same change no row and no rebuild.

    `parts` are the run's nodes where they are at hand: they know why the end on a node had to be inferred.
    """
    ruling = job.ruling
    if ruling.verdict is None:
        sentence = _waiting(ruling) if ruling.state is State.PENDING else _running(job, ruling)
    else:
        sentence = _ENDED[ruling.verdict](job, ruling)
    notes = [note for note in _notes(job, ruling, parts) if note]
    return " ".join(said[0].upper() + said[1:] + "." for said in (sentence, "; ".join(notes)) if said)


def _waiting(ruling: Ruling) -> str:
    if ruling.raw_state is None:
        return "nobody has reported a start of the job yet"
    return f"the job has not started: {_word(ruling)}"


def _running(job: Job, ruling: Ruling) -> str:
    if ruling.raw_state in _SUSPENDED:
        return "the job is suspended: it holds its nodes, but its processes are stopped"
    if ruling.raw_state in _ENDING:
        return f"the job is ending: {_word(ruling)}, but is not done with it yet"
    doubt = f"; yet {_word(ruling)}" if ruling.raw_state in PENDING_STATES else ""
    if job.start_us is None:
        return f"the job is running{doubt}"
    found = "; it was found running at" if job.start_inferred else " since"
    return f"the job is running{found} {describe_moment(job.start_us)}{doubt}"


def _word(ruling: Ruling) -> str:
    return f"Slurm says {ruling.raw_state}" + (f" (reason: {ruling.reason})" if ruling.reason else "")


def _completed(job: Job, ruling: Ruling) -> str:
    ended = "completed" if ruling.exit_code is None else "ended"
    return f"{_subject(ruling)} {ended}{after(job)}{_with_code(ruling)}"


def _failed(job: Job, ruling: Ruling) -> str:
    if ruling.raw_state == "LAUNCH_FAILED":
        return "Slurm could not launch the job"
    if ruling.exit_code is None:
        reason = f"; Slurm's reason is {ruling.reason}" if ruling.reason else ""
        return f"{_subject(ruling)} failed{after(job)}, but its exit code is not known{reason}"
    if ruling.exit_code == 0:
        return f"the sender calls the job failed, though it ended{after(job)} with exit code 0"
    return f"{_subject(ruling)} ended{after(job)}{_with_code(ruling)}"


def _killed(job: Job, ruling: Ruling) -> str:
    number = ruling.exit_signal or 0
    if number == LAUNCH_MARK and job.job_id.startswith("slurm-"):
        return (
            f"Slurm gave the job's status as 0:{LAUNCH_MARK}{after(job)}, which it does when it could not open the "
            "job's output file or working directory"
        )
    hint = f", {_HINTS[number]}" if number in _HINTS else ""
    return f"{_subject(ruling)} was killed{after(job)} by {describe_signal(number)}{hint}"


def _out_of_memory(job: Job, ruling: Ruling) -> str:
    del ruling
    evidence = [said for said in (memory_seen(job), oom_kills(job)) if said]
    return f"the job ran out of memory{after(job)}" + (f": {', and '.join(evidence)}" if evidence else "")


def _timeout(job: Job, ruling: Ruling) -> str:
    if ruling.raw_state == "DEADLINE":
        return f"Slurm ended the job at its deadline{when_stopped(job)}{_by(job, ruling)}"
    seconds = job.facts.time_limit_seconds
    limit = "" if seconds is None else f" of {describe_duration(seconds * 1_000_000)}"
    return f"the job reached its time limit{limit}: Slurm ended it{after(job)}{_by(job, ruling)}"


def _cancelled(job: Job, ruling: Ruling) -> str:
    if ruling.raw_state == "REVOKED":
        return f"Slurm revoked the job{when_stopped(job)}: another cluster of the federation took it"
    return f"the job was cancelled{canceller(job)}{when_stopped(job)}{_by(job, ruling)}"


def _preempted(job: Job, ruling: Ruling) -> str:
    return f"the job was preempted{when_stopped(job)}{_by(job, ruling)}: it had to make room for another job"


# What slurmd puts in place of a signal when it could not begin a batch script; no program is killed by it in practice.
LAUNCH_MARK = 53
_TROUBLE = frozenset({"down", "fail", "failing", "error", "unknown", "not_responding", "drain"})


def _node_fail(job: Job, ruling: Ruling) -> str:
    failed = "did not boot" if ruling.raw_state == "BOOT_FAIL" else "failed"
    record = job.final_word
    states = record.node_states.items() if record is not None else ()
    # A node that has come back since says nothing of what was wrong with it.
    seen = ", ".join(f"{node}: {state}" for node, state in sorted(states) if _TROUBLE.intersection(state.split(",")))
    return f"the job was ended{after(job)} because a node of it {failed}" + (f" ({seen})" if seen else "")


def _requeued(job: Job, ruling: Ruling) -> str:
    return f"this run was ended{after(job)}{_by(job, ruling)}: {_NEXT_RUN}"


def _unknown(job: Job, ruling: Ruling) -> str:
    if job.end_us is None:
        return "outcome unknown: nobody knows when the job ended"
    if job.end_inferred:
        return f"outcome unknown: the job ended {inferred_end(job)}"
    return f"outcome unknown: the job ended at {describe_moment(job.end_us)}; {_doubt(job, ruling)}"


def _doubt(job: Job, ruling: Ruling) -> str:
    """Why what was reported of the end does not tell the outcome."""
    slurm = job.job_id.startswith("slurm-")
    but = ", but Slurm reports that for cancelled and timed-out jobs too" if slurm else ", but no outcome"
    reported = "no exit status was reported" if ruling.exit_code is None else f"exit status 0 was reported{but}"
    return f"{reported}, and {_NOT_CONFIRMED} the outcome" if slurm else reported


_ENDED: Mapping[Verdict, Callable[[Job, Ruling], str]] = MappingProxyType(
    {
        Verdict.COMPLETED: _completed,
        Verdict.FAILED: _failed,
        Verdict.KILLED_BY_SIGNAL: _killed,
        Verdict.OUT_OF_MEMORY: _out_of_memory,
        Verdict.TIMEOUT: _timeout,
        Verdict.CANCELLED: _cancelled,
        Verdict.PREEMPTED: _preempted,
        Verdict.NODE_FAIL: _node_fail,
        Verdict.REQUEUED: _requeued,
        Verdict.UNKNOWN: _unknown,
    }
)


def _subject(ruling: Ruling) -> str:
    """The job; set against a step of it whose end the job's own hides."""
    step = "a step was killed for memory" if ruling.out_of_memory_step else ""
    if not step and ruling.verdict is Verdict.COMPLETED:
        step = _step_end(ruling)
    return f"{step}, but the job itself" if step else "the job"


def _step_end(ruling: Ruling) -> str:
    """How the worst step ended, where that differs from the job's own end."""
    if ruling.derived_exit_signal not in (None, ruling.exit_signal):
        return f"a step was killed by {describe_signal(ruling.derived_exit_signal or 0)}"
    if ruling.derived_exit_code not in (None, 0, ruling.exit_code):
        return f"a step ended with {describe_exit_code(ruling.derived_exit_code or 0)}"
    return ""


def _with_code(ruling: Ruling) -> str:
    return "" if ruling.exit_code is None else f" with {describe_exit_code(ruling.exit_code)}"


def _by(job: Job, ruling: Ruling) -> str:
    """What ended a run that Slurm stopped; one that never started has no exit status, whatever Slurm shows for it."""
    if job.start_us is None:
        return ""
    if ruling.exit_signal:
        return f", with {describe_signal(ruling.exit_signal)}"
    return "" if ruling.exit_code is None else f" (its exit code was {ruling.exit_code})"


def _notes(job: Job, ruling: Ruling, parts: Sequence[NodeRun]) -> list[str]:
    """What else bears on the end; empty strings for what does not."""
    notes = _steps(ruling)
    if ruling.verdict is not Verdict.OUT_OF_MEMORY:
        notes += [oom_kills(job), near_limit(job)]
    if ruling.verdict is None:
        return [*notes, _nodes_done(job)]
    return [*notes, *_reported(job, ruling, parts), _queue(job, ruling)]


def _steps(ruling: Ruling) -> list[str]:
    """Steps that the first sentence does not name."""
    if ruling.verdict in (None, Verdict.OUT_OF_MEMORY, Verdict.COMPLETED):
        return []
    out_of_memory = ruling.out_of_memory_step and ruling.verdict not in _OWN_ENDS
    worst = _step_end(ruling) if ruling.verdict in _OWN_ENDS else ""
    return ["a step was killed for memory" if out_of_memory else "", worst]


def _nodes_done(job: Job) -> str:
    over, expected = job.nodes_over, job.nodes_expected
    return f"{over} of its {expected} nodes ended their part" if 0 < over < expected else ""


def _reported(job: Job, ruling: Ruling, parts: Sequence[NodeRun]) -> list[str]:
    """Who told the end and who did not."""
    if job.by_people is not None:
        unsaid = f"; nobody said when it ended, {inferred_end(job)}" if job.end_inferred else ""
        return [f"this is people's word, no hook tells of the job{unsaid}"]
    if ruling.verdict is Verdict.UNKNOWN:
        said = f"Slurm's last word on it was {ruling.raw_state}" if ruling.raw_state else ""
        return [silence(job, parts), _doubt(job, ruling), said] if job.end_inferred else [said]
    notes = []
    if job.end_inferred and (when := inferred_end(job)):
        notes.append(f"the end was {when}, by inference, as {silence(job, parts)}")
    if not ruling.confirmed and job.job_id.startswith("slurm-"):
        hangup = "; it may tell SIGHUP of a failed node as well" if ruling.exit_signal == 1 else ""
        notes.append(f"this is the word of the node's epilog, which {_NOT_CONFIRMED}{hangup}")
    return notes


def _queue(job: Job, ruling: Ruling) -> str:
    """That another run of the job follows, where Slurm's final record says so."""
    record = job.final_word
    if record is None or ruling.verdict is Verdict.REQUEUED or "REQUEUED" not in record.flags:
        return ""
    return _NEXT_RUN

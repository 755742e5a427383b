"""What became of a run: weighs what its epilogs, its senders and Slurm itself said.

An epilog alone cannot tell success from a cancel, a time-out, a preemption or a requeue: of all of them it says 0:0. So
a state is confirmed only by Slurm (accounting's row of the run before the controller's memory) or by a sender that
knows, such as the parent of a local job. Exit statuses come from where they are exact: the controller, then the
epilog, then accounting.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jobtrail.domain.job_facts import Outcome
from jobtrail.domain.registers import OutcomeRegister, Word
from jobtrail.domain.slurm import ENDED_BY_SLURM, FINAL_STATES, Origin, SlurmRecord
from jobtrail.domain.states import State, Verdict

OUT_OF_MEMORY_SIGNAL = 125  # Slurm's mark in a wait status (SIG_OOM in its source), no signal of any kernel
_AUTHORITY = tuple(Origin)
_CONTROLLERS = (Origin.SLURMCTLD, Origin.CONTROLLER_HOOK)
_ACCOUNTS = (Origin.SLURMDBD, Origin.SACCT)
# No exit status of the job's own: what Slurm shows there is its mark or that of its own kill.
_NO_STATUS = frozenset({"OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL"})
_SENDERS_STATES = {
    "completed": (State.COMPLETED, Verdict.COMPLETED),
    "failed": (State.FAILED, Verdict.FAILED),
    "cancelled": (State.CANCELLED, Verdict.CANCELLED),
}


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What is held of a run's state and end. `source` says whose word decided: an Origin, `epilog` or `sender`."""

    state: State
    verdict: Verdict | None = None
    confirmed: bool = False
    raw_state: str | None = None  # Slurm's own word
    reason: str | None = None  # Slurm's StateReason
    exit_code: int | None = None
    exit_signal: int | None = None
    derived_exit_code: int | None = None  # highest exit code of the job's steps
    derived_exit_signal: int | None = None
    out_of_memory_step: bool = False
    source: str | None = None


def final_word(words: Sequence[Word]) -> SlurmRecord | None:
    """The final record of the best authority, None while Slurm has confirmed no end."""
    final = [word.record for word in words if word.record.is_final]
    return min(final, key=lambda record: _AUTHORITY.index(record.origin), default=None)


def newest_word(words: Sequence[Word]) -> SlurmRecord | None:
    """The latest record that names a state."""
    stated = [word for word in words if word.record.state is not None]
    return max(stated, key=lambda word: (word.stamp.time_us, word.stamp.event_id)).record if stated else None


def rule(words: Sequence[Word], told: OutcomeRegister | None, *, begun: bool, over: bool) -> Ruling:
    """Weigh a run's `words` of Slurm and what its sender `told` of its end.

    `begun`: some node started it or ended it. `over`: every node ended it, or it was closed by inference.
    """
    final = final_word(words)
    if final is not None:
        ruling = _confirmed(final, words, told)
    elif over:
        ruling = _provisional(told)
    else:
        ruling = _going_on(words, begun=begun)
    if ruling.raw_state is None and (newest := newest_word(words)) is not None:
        ruling = msgspec.structs.replace(ruling, raw_state=newest.state, reason=newest.reason)
    return _with_steps(ruling, words, told)


def _going_on(words: Sequence[Word], *, begun: bool) -> Ruling:
    newest = newest_word(words)
    running = begun or (newest is not None and newest.is_running)
    return Ruling(state=State.RUNNING if running else State.PENDING)


def _provisional(told: OutcomeRegister | None) -> Ruling:
    """The epilog's or the sender's word."""
    outcome = told.outcome if told is not None else Outcome()
    confirmed = told is not None and told.confirmed
    state, verdict = judge(outcome)
    return Ruling(
        state=state,
        verdict=verdict,
        confirmed=confirmed,
        exit_code=outcome.exit_code,
        exit_signal=outcome.exit_signal,
        source=None if told is None else "sender" if confirmed else "epilog",
    )


def judge(outcome: Outcome) -> tuple[State, Verdict]:
    """State and verdict of an ended run. Exit code 0 without a final state stays `ended`: it proves nothing."""
    state, verdict = _SENDERS_STATES.get(outcome.final_state or "", (State.ENDED, Verdict.UNKNOWN))
    if state is State.CANCELLED or state is State.COMPLETED:
        return state, verdict
    if outcome.out_of_memory:
        return State.FAILED, Verdict.OUT_OF_MEMORY
    if outcome.exit_signal:
        return State.FAILED, Verdict.KILLED_BY_SIGNAL
    if outcome.exit_code:
        return State.FAILED, Verdict.FAILED
    return state, verdict


def _confirmed(final: SlurmRecord, words: Sequence[Word], told: OutcomeRegister | None) -> Ruling:
    """Slurm's word."""
    assert final.state is not None
    state, verdict = FINAL_STATES[final.state]
    exit_code, exit_signal = _exit_status(final.state, words, told)
    if verdict is Verdict.FAILED and exit_signal is not None:
        verdict = Verdict.KILLED_BY_SIGNAL
    return Ruling(
        state=state,
        verdict=verdict,
        confirmed=True,
        raw_state=final.state,
        reason=final.reason,
        exit_code=exit_code,
        exit_signal=exit_signal,
        source=str(final.origin),
    )


def _exit_status(state: str, words: Sequence[Word], told: OutcomeRegister | None) -> tuple[int | None, int | None]:
    """Exit code and signal of a run that ended in Slurm's `state`, from the first who tells one that fits the state.

    Of a run that slurmctld ended, only slurmctld's own final record tells a 0 that the job itself returned (it caught
    the signal) from the 0 that everybody else shows for want of a status.
    """
    if state in _NO_STATUS:
        return None, None
    if state == "COMPLETED":
        return 0, None  # "with an exit code of zero" (squeue(1))
    records = {word.record.origin: word.record for word in words}
    outcomes = [records[origin].outcome for origin in _CONTROLLERS if origin in records]
    if state not in ENDED_BY_SLURM and told is not None:
        outcomes.append(told.outcome)
    outcomes += [records[origin].outcome for origin in _ACCOUNTS if origin in records]
    for outcome in outcomes:
        if outcome.exit_signal:
            return None, outcome.exit_signal
        if outcome.exit_code:
            return outcome.exit_code, None
    controller = records.get(Origin.SLURMCTLD)
    own = controller is not None and controller.is_final and controller.state == state and state in ENDED_BY_SLURM
    return (controller.outcome.exit_code if controller is not None and own else None), None


def _with_steps(ruling: Ruling, words: Sequence[Word], told: OutcomeRegister | None) -> Ruling:
    """What the run's steps came to, which its own exit status hides."""
    outcomes = [word.record.outcome for word in words] + ([told.outcome] if told is not None else [])
    statuses = [outcome.derived_raw_status for outcome in outcomes if outcome.derived_raw_status is not None]
    exit_code, exit_signal = split_wait_status(max(statuses, default=0))
    step_out_of_memory = exit_signal == OUT_OF_MEMORY_SIGNAL or any(word.record.out_of_memory_step for word in words)
    return msgspec.structs.replace(
        ruling,
        derived_exit_code=exit_code if statuses else None,
        derived_exit_signal=None if exit_signal == OUT_OF_MEMORY_SIGNAL else exit_signal,
        out_of_memory_step=step_out_of_memory,
    )


def split_wait_status(status: int) -> tuple[int | None, int | None]:
    """Exit code or signal in a wait(2) status: (code, None) or (None, signal)."""
    signal = status & 0x7F
    return (None, signal) if signal else (status >> 8 & 0xFF, None)

"""Exit statuses as slurmrestd writes them.

slurmctld, up to v0.0.39: the status of wait(2), as a number. From v0.0.40 on, and slurmdb always: an object of status,
return_code and signal. Slurm's mark for "killed for memory" is a signal 125 (wait status 253); there is no such signal.
"""

from __future__ import annotations

from jobtrail.adapters.slurmrest.normal import Fields, whole_number
from jobtrail.domain.job_facts import Outcome
from jobtrail.domain.slurm import ENDED_BY_SLURM

OUT_OF_MEMORY_SIGNAL = 125
MAX_WAIT_STATUS = 0xFFFF
# Slurm ended these without the job's doing, and whatever status they bear is none of the job's: 24.11 gives a job that
# lost its node the status 1, which reads as SIGHUP.
_WITHOUT_STATUS = frozenset({"NODE_FAIL", "BOOT_FAIL", "REQUEUED", "REVOKED", "LAUNCH_FAILED"})


def outcome_of_slurmctld(fields: Fields, state: str) -> Outcome:
    """How a finished run ended. Raises SlurmAnswerInvalid for an exit status of unknown shape."""
    derived = wait_status(fields.lenient, "derived_exit_code")
    if state in _WITHOUT_STATUS:
        return Outcome(derived_raw_status=derived)
    status = wait_status(fields, "exit_code")
    raw = None if _is_object(fields) else status
    return _outcome(status, state, raw=raw, derived=derived)


def outcome_of_slurmdb(fields: Fields, state: str, *, trusted: bool) -> Outcome:
    """How a finished run ended. `trusted` is whether this version's exit codes are right (from v0.0.40 on they are).

    slurmdbd keeps no exit status of what Slurm ended itself: it has 0:0 for them.
    """
    if not trusted or state in ENDED_BY_SLURM:
        return Outcome(out_of_memory=state == "OUT_OF_MEMORY")
    derived = wait_status(fields.lenient, "derived_exit_code")
    return _outcome(wait_status(fields, "exit_code"), state, raw=None, derived=derived)


def wait_status(fields: Fields, name: str) -> int | None:
    """The status of wait(2) in either form; the object does not tell whether there was a core dump."""
    value = fields.raw(name)
    if isinstance(value, dict) and "status" in value:
        inner = fields.section(name)
        signal = inner.section("signal").number("id", "signal_id")
        if signal:
            return 0xFD if signal == OUT_OF_MEMORY_SIGNAL else signal & 0x7F
        code = inner.number("return_code")
        return None if code is None else (code & 0xFF) << 8
    status = whole_number(value, f"{fields.path}.{name}")
    if status is not None and status > MAX_WAIT_STATUS:
        raise fields.unreadable(name, f"must be a wait status of 0 to {MAX_WAIT_STATUS}")
    return status


def _is_object(fields: Fields) -> bool:
    value = fields.raw("exit_code")
    return isinstance(value, dict) and "status" in value


def _outcome(status: int | None, state: str, *, raw: int | None, derived: int | None) -> Outcome:
    signal = None if status is None else status & 0x7F
    if signal == OUT_OF_MEMORY_SIGNAL or state == "OUT_OF_MEMORY":
        return Outcome(out_of_memory=True, raw_status=raw, derived_raw_status=derived)
    if status is None:
        return Outcome(derived_raw_status=derived)
    if signal:
        return Outcome(exit_signal=signal, raw_status=raw, derived_raw_status=derived)
    return Outcome(exit_code=status >> 8, raw_status=raw, derived_raw_status=derived)

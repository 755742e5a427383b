"""Job states as slurmrestd writes them, in terms of SlurmRecord.

Up to v0.0.39 `job_state` is one word, the one that squeue shows: while COMPLETING or another flag is set, that hides
the base state. From v0.0.40 on it is an array of the base state and its flags.
"""

from __future__ import annotations

from jobtrail.adapters.slurmrest.normal import Fields

BASE_STATES = frozenset(
    {
        "PENDING", "RUNNING", "SUSPENDED", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED",
        "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY",
    }
)  # fmt: skip
# `enum job_states` and its flags in slurm/slurm.h, as far as squeue and slurmrestd print them.
STATE_FLAGS = frozenset(
    {
        "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESIZING",
        "SIGNALING", "STAGE_OUT", "STOPPED", "RESV_DEL_HOLD", "REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL",
        "POWER_UP_NODE", "UPDATE_DB", "EXPEDITING",
    }
)  # fmt: skip


def job_state(fields: Fields, name: str) -> tuple[str, tuple[str, ...]]:
    """The state and the flags beside it. Raises SlurmAnswerInvalid when there is no state that anybody knows."""
    # slurmdb of old writes `CANCELLED by 1001`, as sacct does.
    words = [fields.shared.text(word.partition(" ")[0].upper()) for word in fields.words(name)]
    known = [word for word in words if word in BASE_STATES] or [word for word in words if word in STATE_FLAGS]
    if not known:
        raise fields.unreadable(name, "holds no job state that Slurm up to 25.11 has")
    return known[0], tuple(word for word in dict.fromkeys(words) if word != known[0])

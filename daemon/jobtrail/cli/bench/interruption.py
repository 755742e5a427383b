"""Why a run was told to end before its time."""

from __future__ import annotations

import signal
from collections.abc import Mapping

NEAR_END_SECONDS = 120  # Slurm sends its signals up to a minute late or early (sbatch(1), --signal)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def why(number: int, environment: Mapping[str, str], *, now_seconds: float) -> str:
    """The reason that a signal stands for, in a job whose environment says when its time is up."""
    name = signal.Signals(number).name
    if number == signal.SIGINT:
        return f"was interrupted ({name})"
    if number == signal.SIGHUP:
        return f"its terminal went away ({name})"
    if "SLURM_JOB_ID" not in environment:
        return f"was told to end ({name})"
    if number in (signal.SIGUSR1, signal.SIGUSR2):
        return f"the job came near to its time limit ({name})"
    end = environment.get("SLURM_JOB_END_TIME", "")  # older Slurm does not say
    if not end.isdecimal():
        return f"the job was cancelled or came to its time limit ({name})"
    if now_seconds >= int(end) - NEAR_END_SECONDS:
        return f"the job came to its time limit ({name})"
    return f"the job was cancelled or preempted ({name})"

"""The states of a run and the verdicts on it."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """State of a run. `ended` means over with an unknown outcome: an epilog alone cannot tell success from a cancel."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """Why a run ended, finer than its state."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAIL = "node_fail"
    PREEMPTED = "preempted"
    KILLED_BY_SIGNAL = "killed_by_signal"
    REQUEUED = "requeued"
    UNKNOWN = "unknown"

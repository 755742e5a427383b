"""What the daemon tells of its node's clock, as typed facts (core/facts.py)."""

from __future__ import annotations

from jobtrail.core.facts import Fact


class ClockStepped(Fact, frozen=True, kw_only=True):
    """The wall clock was set: it moved by `seconds` more than time passed, less than none where it was set back."""

    seconds: float


class ClockCompared(Fact, frozen=True, kw_only=True):
    """This node's clock is `ahead_seconds` ahead of the store's, less than none where it is behind; give or take
    `within_seconds`, as the store looked at its own at some moment of its answer."""

    ahead_seconds: float
    within_seconds: float

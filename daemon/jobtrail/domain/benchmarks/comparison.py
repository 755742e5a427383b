"""Two runs side by side: what changed by how much, whether that is better, and whether it is more than noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from jobtrail.domain.benchmarks.metrics import Direction

# As for a run against its history: so many robust standard deviations of the logarithms; below 1 % noise is not known
# well enough from so few runs.
THRESHOLD = 3.5
LEAST_NOISE = 0.01
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
MIN_REPEATS = 3


class Noise(StrEnum):
    """Where the size of the noise is from."""

    HISTORY = "history"  # the runs before, with the same fingerprint
    REPEATS = "repeats"  # of the two runs; they share a server, so runs differ by more than this


class Side(msgspec.Struct, frozen=True):
    """One run's number: its own value, that of each repeat, and the MAD of the logarithms of the runs before it."""

    value: float
    repeats: Sequence[float] = ()
    history_mad_log: float | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The second run against the first. `detectable` is the relative change from which one is more than noise.

    None: the change where the first is 0, `judgement` of a fact that is neither good nor bad, `significant` where
    nothing says how large the noise is.
    """

    relative_change: float | None = None
    judgement: str | None = None  # better | worse | same
    significant: bool | None = None
    noise: Noise | None = None
    detectable: float | None = None


def compare(one: Side, other: Side, direction: Direction) -> Comparison:
    """Both runs vary, so their difference varies by the root of two more than one does."""
    change = other.value / one.value - 1 if one.value else None
    judgement = _judgement(other.value - one.value, direction)
    deviation, noise = _deviation(one, other)
    if deviation is None or one.value <= 0 or other.value <= 0:
        return Comparison(relative_change=change, judgement=judgement)
    bound = THRESHOLD * math.sqrt(2) * deviation
    return Comparison(
        relative_change=change,
        judgement=judgement,
        significant=abs(math.log(other.value / one.value)) > bound,
        noise=noise,
        detectable=1 - math.exp(-bound),
    )


def _judgement(difference: float, direction: Direction) -> str | None:
    if direction is Direction.NONE:
        return None
    if difference == 0:
        return "same"
    return "better" if (difference > 0) is (direction is Direction.HIGHER) else "worse"


def _deviation(one: Side, other: Side) -> tuple[float | None, Noise | None]:
    """The larger deviation of the logarithms that the runs' histories show, else that of their repeats."""
    known = [side.history_mad_log for side in (one, other) if side.history_mad_log is not None]
    if known:
        return max(MAD_TO_DEVIATION * max(known), LEAST_NOISE), Noise.HISTORY
    if any(len(side.repeats) < MIN_REPEATS or min(side.repeats) <= 0 for side in (one, other)):
        return None, None
    spreads = [statistics.stdev(map(math.log, side.repeats)) for side in (one, other)]
    return max(*spreads, LEAST_NOISE), Noise.REPEATS

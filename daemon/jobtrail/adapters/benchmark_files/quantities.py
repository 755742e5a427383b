"""Numbers of result files: checked, in the unit of their metric, and absent where the tool measured nothing."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from jobtrail.domain.benchmarks.metrics import METRICS, PERCENTILE, Measurement
from jobtrail.domain.errors import UnknownResult

# The most that is believed, in the metric's unit. It only has to tell a number from a broken one.
_MOST = {"s": 10 * 365 * 86_400.0, "token/s": 1e12, "req/s": 1e12, "count": float(2**53), "ratio": 1.0}
_ZERO_IS_A_VALUE = frozenset({"request_goodput"})  # no request met the objective: a rate of 0 that was measured
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US, _LAST_US = 946_684_800_000_000, 4_102_444_800_000_000  # the years 2000 and 2100
_PERCENTILE = re.compile(PERCENTILE)
_PLAIN_NUMBER = re.compile(r"[0-9]{1,2}(\.[0-9]{1,6})?")


def quantity(where: str, value: Any, most: float) -> float | None:
    """A number of the file; None where it is null or not there. Raises UnknownResult, naming the field, for anything
    else than a finite number from 0 to `most`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnknownResult(where, f"must be a number, and is {_kind(value)}")
    number = float(value)
    if not math.isfinite(number) or not 0 <= number <= most:
        raise UnknownResult(where, f"must be a number from 0 to {most:g}, and is {value:g}")
    return number + 0.0  # -0.0 becomes 0.0


def whole(where: str, value: Any) -> int | None:
    """A count; None where it is null or not there. Raises UnknownResult, naming the field."""
    number = quantity(where, value, _MOST["count"])
    if number is None:
        return None
    if not number.is_integer():
        raise UnknownResult(where, f"must be a whole number, and is {number:g}")
    return int(number)


def percentile(text: str) -> str | None:
    """The name of a percentile's statistic from its number, such as p99.9 of 99.90; None where there is none such."""
    if not _PLAIN_NUMBER.fullmatch(text):
        return None
    name = f"p{float(text):.3f}".rstrip("0").rstrip(".")
    return name if name != "p0" and float(name[1:]) == float(text) and _PERCENTILE.fullmatch(name) else None


def utc_microseconds(where: str, value: Any) -> int | None:
    """A time, as seconds since the Unix epoch or as ISO 8601 in UTC, with or without a zone: µs since the epoch."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            raise UnknownResult(where, "must be a time such as 2026-11-21T01:46:06.414958") from None
        aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
        micros = (aware - _EPOCH) // timedelta(microseconds=1)
    else:
        micros = round((quantity(where, value, 1e11) or 0.0) * 1e6)
    if not _FIRST_US <= micros < _LAST_US:
        raise UnknownResult(where, "must be a time between the years 2000 and 2100")
    return micros


class Measured:
    """The measurements of one result as they are found."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], float] = {}

    def add(self, metric: str, where: str, value: Any, *, stat: str = "value", per: float = 1.0) -> float | None:
        """Takes a number that is `per` times the metric's unit, and returns it in that unit; None where it is absent.

        A time of exactly 0 is absent: tools write 0 for what they did not measure. So is a rate of 0, which stands for
        tokens or requests that were not counted. Raises UnknownResult, naming the field.
        """
        unit = METRICS[metric].unit
        said = quantity(where, value, _MOST[unit] * per)
        if said is None:
            return None
        number = said / per
        if number == 0 and not _may_be_zero(metric, unit, stat):
            return None
        self._values[metric, stat] = number
        return number

    def found(self) -> tuple[Measurement, ...]:
        """What was found, without a deviation from a mean that is not there."""
        means = {metric for metric, stat in self._values if stat != "std"}
        return tuple(
            Measurement(metric=metric, value=value, stat=stat)
            for (metric, stat), value in self._values.items()
            if metric in means
        )


def counts(completed: int | None, failed: int | None) -> Measured:
    """The beginning of a result: its requests, and the share that failed where both are known."""
    measured = Measured()
    measured.add("requests_completed", "completed", completed)
    measured.add("requests_failed", "failed", failed)
    if completed and failed is not None:
        measured.add("error_rate", "failed", failed / (completed + failed))
    return measured


def why_nothing(failed: int | None) -> str:
    """Why a result without a completed request says nothing."""
    return f"all {failed} requests failed" if failed else "no request was completed"


def _may_be_zero(metric: str, unit: str, stat: str) -> bool:
    return stat == "std" or unit in {"count", "ratio"} or metric in _ZERO_IS_A_VALUE


def _kind(value: Any) -> str:
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")

"""Whether a run is worse, or better, than those before it: the median and its spread on the logarithmic scale.

A fall is bounded at -100 % on the linear scale and not on the logarithmic one, and one disturbed run moves neither
median nor MAD (the median of absolute deviations from it; 1.4826 MAD estimates the standard deviation of normally
distributed values). One run over the limit proves nothing on a machine that others use: it makes a suspect, which the
next run or a majority of the run's own repeats confirms.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import msgspec

from jobtrail.domain.benchmarks.metrics import METRICS, Direction
from jobtrail.domain.benchmarks.report import Status
from jobtrail.domain.benchmarks.settling import HistoryRun, Verdict

BASELINE_RUNS = 10
LEAST_BASELINE_RUNS = 5
HISTORY_RUNS = 50  # to be asked for: some of them do not count
LIMIT = 3.5  # spreads
LEAST_SPREAD = 0.01  # on the logarithmic scale, about 1 %: a baseline of equal values is no proof of no noise
DEFAULT_MIN_REL = 0.05
MAD_TO_SIGMA = 1.4826
LEAST_REPEATS = 3
BY_REPEATS = "repeats"
TAIL = "p99"
_ROUNDING = 1e-9
_MOST_CHANGE = 700.0  # in logarithms; the exponential of more is no float, and anybody may report any number

Key = tuple[str, str]  # metric and statistic
DEFAULT_GATES: Mapping[Key, float] = {
    (metric.name, stat): DEFAULT_MIN_REL for metric in METRICS.values() for stat in metric.gates
}
_SUSPECTS = {"regression": "suspect", "improvement": "suspect_improvement"}
_CONFIRMED = {suspect: confirmed for confirmed, suspect in _SUSPECTS.items()}


def _log_change(value: float, center: float) -> float:
    return min(max(math.log(value) - center, -_MOST_CHANGE), _MOST_CHANGE)


class _Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a value is held against, on the logarithmic scale. `sign` makes the better direction positive."""

    median: float
    spread: float
    mad: float
    min_rel: float
    sign: int

    def is_over(self, value: float, center: float) -> int:
        """1 where the value is better than the center by more than noise, -1 where it is worse, else 0."""
        change = _log_change(value, center)
        far = abs(change) / self.spread > LIMIT and abs(math.expm1(change)) >= self.min_rel - _ROUNDING
        return int(math.copysign(1, change * self.sign)) if far else 0


def judge(
    history: Sequence[HistoryRun], gates: Mapping[Key, float], *, max_error_ratio: float = 1.0
) -> tuple[Verdict, ...]:
    """The verdicts of the last run of `history` (oldest first), and those of the run before that it confirms.

    `gates`: the least relative change by metric and statistic, as the recipe says; empty for the defaults. The 99th
    percentiles of times are judged as well and are advice alone: a single stalled request moves them. A run whose share
    of failed requests is above `max_error_ratio`, or that is linked to none of the jobs it names, is no measure of
    others, and nothing is said of it but that it is not compared: `insufficient`.
    """
    run = history[-1]
    wanted = gates or DEFAULT_GATES
    verdicts: list[Verdict] = []
    for key in _keys(run, wanted, asked_for=bool(gates)):
        series = [one for one in history if _counts(one, key, max_error_ratio)]
        min_rel = wanted.get(key, DEFAULT_MIN_REL)
        if not series or series[-1] is not run:
            verdicts.append(_insufficient(run, key, 0))
            continue
        verdicts += (
            msgspec.structs.replace(verdict, advisory=key not in wanted) for verdict in _of_series(series, key, min_rel)
        )
    return tuple(verdicts)


def _keys(run: HistoryRun, wanted: Mapping[Key, float], *, asked_for: bool) -> list[Key]:
    """What is judged of a run: its gates, those without a value too where a recipe asks for them or nothing else is
    there to say, and its tails."""
    keys = [key for key in wanted if asked_for or key in run.values] or list(wanted)[:1]
    keys += [
        (metric, stat)
        for metric, stat in sorted(run.values)
        if stat == TAIL and (metric, stat) not in wanted and _sign(metric) < 0
    ]
    return keys


def _sign(metric: str) -> int:
    """1 where higher is better, -1 where lower is, 0 for what has no better."""
    known = METRICS.get(metric)
    direction = Direction.NONE if known is None else known.direction
    return {Direction.HIGHER: 1, Direction.LOWER: -1, Direction.NONE: 0}[direction]


def _counts(run: HistoryRun, key: Key, max_error_ratio: float) -> bool:
    is_sound = run.counts and run.status is Status.OK and (run.error_rate or 0.0) <= max_error_ratio
    return is_sound and run.values.get(key, 0.0) > 0


def _of_series(series: Sequence[HistoryRun], key: Key, min_rel: float) -> list[Verdict]:
    """The verdict of the last run, and before it that of its predecessor where the two confirm each other."""
    verdict = _own(series, key, min_rel)
    if verdict.verdict not in _CONFIRMED or len(series) < 2:
        return [verdict]
    run, previous = series[-1], series[-2]
    before = _own(series[:-1], key, min_rel)
    confirmed = _CONFIRMED[verdict.verdict]
    if not previous.accepted and before.verdict in (verdict.verdict, confirmed):
        mutual = [msgspec.structs.replace(verdict, verdict=confirmed, confirmed_by=previous.run_uid)]
        if before.verdict != confirmed:
            mutual.insert(0, msgspec.structs.replace(before, verdict=confirmed, confirmed_by=run.run_uid))
        return mutual
    if run.verdicts.get(key) == confirmed:  # a later run confirmed it before a decision had it judged again
        return [msgspec.structs.replace(verdict, verdict=confirmed)]
    return [verdict]


def _own(series: Sequence[HistoryRun], key: Key, min_rel: float) -> Verdict:
    """What the last run's own numbers say of it; only its own repeats confirm it here."""
    *earlier, run = series
    # A confirmed regression is no standard to measure others by, or a slow slide would become normal.
    sound = [one for one in earlier if one.accepted or one.verdicts.get(key) != "regression"][-BASELINE_RUNS:]
    pinned = next((one for one in reversed(earlier) if one.pinned), None)
    if len(sound) < LEAST_BASELINE_RUNS or (sign := _sign(key[0])) == 0:
        return _with_reference(_insufficient(run, key, len(sound)), pinned, run.values[key])
    limits = _limits([one.values[key] for one in sound], min_rel=min_rel, sign=sign)
    accepted = next((one for one in reversed(earlier) if one.accepted), None)

    def over(value: float) -> int:
        return _over(value, limits, key, accepted=accepted, pinned=pinned)

    value = run.values[key]
    word, confirmed_by = _word(over(value), [over(one) for one in run.repeats.get(key, ()) if one > 0])
    change = _log_change(value, limits.median)
    verdict = Verdict(
        run_uid=run.run_uid,
        metric=key[0],
        stat=key[1],
        verdict=word,
        baseline_n=len(sound),
        median=math.exp(limits.median),
        mad_log=limits.mad,
        z=change / limits.spread,
        relative_change=math.expm1(change),
        min_detectable=max(min_rel, -math.expm1(-LIMIT * limits.spread)),
        confirmed_by=confirmed_by,
    )
    return _with_reference(verdict, pinned, value)


def _limits(values: Sequence[float], *, min_rel: float, sign: int) -> _Limits:
    logs = [math.log(value) for value in values]
    median = statistics.median(logs)
    mad = statistics.median(abs(one - median) for one in logs)
    return _Limits(median=median, spread=max(MAD_TO_SIGMA * mad, LEAST_SPREAD), mad=mad, min_rel=min_rel, sign=sign)


def _over(value: float, limits: _Limits, key: Key, *, accepted: HistoryRun | None, pinned: HistoryRun | None) -> int:
    """1 for better, -1 for worse, 0 for neither. Worse is also what is worse than the pinned run; nothing is worse that
    is as good as the run last accepted as the new normal, unless a later one was pinned."""
    over = limits.is_over(value, limits.median)
    is_excused = accepted is not None and limits.is_over(value, math.log(accepted.values[key])) >= 0
    if over < 0 and is_excused:
        over = 0
    if pinned is not None and limits.is_over(value, math.log(pinned.values[key])) < 0:
        is_newer = accepted is not None and accepted.ended_us > pinned.ended_us
        over = over if is_excused and is_newer else -1
    return over


def _word(over: int, repeats: Sequence[int]) -> tuple[str, str | None]:
    """The verdict's word and what confirms it."""
    if over == 0:
        return "ok", None
    confirmed = "improvement" if over > 0 else "regression"
    if len(repeats) >= LEAST_REPEATS and 2 * repeats.count(over) > len(repeats):
        return confirmed, BY_REPEATS
    return _SUSPECTS[confirmed], None


def _with_reference(verdict: Verdict, pinned: HistoryRun | None, value: float) -> Verdict:
    if pinned is None:
        return verdict
    change = math.expm1(_log_change(value, math.log(pinned.values[verdict.metric, verdict.stat])))
    return msgspec.structs.replace(verdict, reference_uid=pinned.run_uid, reference_change=change)


def _insufficient(run: HistoryRun, key: Key, baseline: int) -> Verdict:
    return Verdict(run_uid=run.run_uid, metric=key[0], stat=key[1], verdict="insufficient", baseline_n=baseline)

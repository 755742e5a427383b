"""The answer to a question about figures over time, from the cells that the store gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from jobtrail.domain.analytics import MAX_CELLS, MAX_GROUPS, METRICS, Dimension, Metric, Question
from jobtrail.domain.errors import InvalidEvent

Number = int | float | None
Keys = tuple[str | None, ...]
Figures = Mapping[tuple[bool, int | None, Keys], Mapping[str, Number]]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one group in one bucket, or in the whole period; each `name` has beside it `name_known`, the number
    of runs that it rests on. `keys` has a place for each Dimension."""

    rank: int  # of the group, from 1
    current: bool  # False: of the period before
    bucket: int | None
    keys: Keys
    figures: Mapping[str, Number]


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A figure, and the number of runs that it rests on, of those that it could. None is unknown, never 0.

    `previous` and what follows are there where that was asked for; None where either is unknown, the percentage also
    where it was 0 before.
    """

    value: Number
    jobs: int
    of: int
    previous: Number | msgspec.UnsetType = msgspec.UNSET
    delta: Number | msgspec.UnsetType = msgspec.UNSET
    delta_percent: float | msgspec.UnsetType | None = msgspec.UNSET


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group's figures; a key that is None is unknown."""

    group: dict[str, str | None]
    values: dict[str, Value]


class BucketFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A time and what there was in it."""

    start: datetime
    end: datetime
    groups: list[Group]


class Analysis(msgspec.Struct, frozen=True, kw_only=True, rename={"begin": "from", "end": "to"}):
    """The answer. `groups_total` counts groups beyond those of top_k too; `totals` are of the whole time."""

    begin: datetime
    end: datetime
    previous_from: datetime | None
    bucket_seconds: int
    by_node: bool
    units: dict[str, str]
    groups_total: int
    totals: list[Group]
    buckets: list[BucketFigures]


def check_size(question: Question, *, groups: int, cells: int) -> None:
    """Raises InvalidEvent where there is more to answer than is allowed; `groups` are all there are."""
    if question.top_k is None and groups > MAX_GROUPS:
        raise InvalidEvent(
            "group_by", f"gives {groups} groups; at most {MAX_GROUPS} are answered: filter, or use top_k"
        )
    shown = groups if question.top_k is None else min(groups, question.top_k.k)
    if cells > MAX_CELLS or (question.fill_gaps and shown * question.buckets > MAX_CELLS):
        raise InvalidEvent(
            "bucket", f"times groups gives more than {MAX_CELLS} values; use larger buckets, filter, or use top_k"
        )


def answer(question: Question, cells: Sequence[Cell], *, groups_total: int) -> Analysis:
    """The answer: groups by rank, buckets in which there is anything, or all of them with gaps filled."""
    figures = {(cell.current, cell.bucket, cell.keys): cell.figures for cell in cells}
    ranks = {cell.keys: cell.rank for cell in cells}
    if not question.group_by:  # all runs together are a group, also where there are none
        ranks, groups_total = {(None,) * len(Dimension): 1}, 1
    found: dict[int, set[Keys]] = {}
    for cell in cells:
        if cell.bucket is not None:
            found.setdefault(cell.bucket, set()).add(cell.keys)

    def groups(bucket: int | None, keys: Iterable[Keys]) -> list[Group]:
        return [_group(question, figures, bucket, one) for one in sorted(keys, key=ranks.__getitem__)]

    shown = {bucket: set(ranks) for bucket in range(question.buckets)} if question.fill_gaps else found
    return Analysis(
        begin=question.begin,
        end=question.end,
        previous_from=question.previous_begin if question.compare_previous else None,
        bucket_seconds=question.bucket.seconds,
        by_node=question.by_node,
        units={metric: METRICS[metric].unit for metric in question.metrics},
        groups_total=groups_total,
        totals=groups(None, ranks),
        buckets=[
            BucketFigures(start=start, end=end, groups=groups(bucket, shown[bucket]))
            for bucket in sorted(shown)
            for start, end in (question.bounds(bucket),)
        ],
    )


def _group(question: Question, figures: Figures, bucket: int | None, keys: Keys) -> Group:
    """What was asked for of one group at one time."""
    told = dict(zip(Dimension, keys, strict=True))
    now, before = (figures.get((current, bucket, keys), {}) for current in (True, False))
    values = {}
    for metric in question.metrics:
        value = _value(metric, now)
        values[str(metric)] = _compared(metric, value, before) if question.compare_previous else value
    return Group(group={str(dimension): told[dimension] for dimension in question.group_by}, values=values)


def _number(metric: Metric, figures: Mapping[str, Number]) -> Number:
    """A figure; where there were no runs, their number is 0 and all else unknown."""
    return figures.get(metric, 0 if METRICS[metric].counts else None)


def _value(metric: Metric, figures: Mapping[str, Number]) -> Value:
    return Value(
        value=_number(metric, figures),
        jobs=int(figures.get(f"{metric}_known") or 0),
        of=int(figures.get(METRICS[metric].basis) or 0),
    )


def _compared(metric: Metric, now: Value, figures: Mapping[str, Number]) -> Value:
    before = _number(metric, figures)
    delta = None if now.value is None or before is None else now.value - before
    return msgspec.structs.replace(
        now,
        previous=before,
        delta=delta,
        delta_percent=None if delta is None or not before else 100 * delta / before,
    )

"""Questions about figures over time: what is refused, and how an answer is put together."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jobtrail.domain.analytics import METRICS, Bucket, Dimension, Metric, Question, TopK, Unit, read_question
from jobtrail.domain.analytics_answer import Cell, answer, check_size
from jobtrail.domain.errors import InvalidEvent

DAY = datetime(2026, 11, 20, tzinfo=UTC)
BODY: dict[str, Any] = {
    "metrics": ["jobs_ended", "cpu_seconds"],
    "from": "2026-11-20T00:00:00Z",
    "to": "2026-11-20T03:30:00+00:00",
    "bucket": {"unit": "hour"},
}
NOBODY = (None,) * len(Dimension)


def asked(**changes: Any) -> Question:
    return read_question(msgspec.json.encode({**BODY, **changes}))


def test_a_question_is_read_with_its_defaults() -> None:
    question = asked()
    assert question.metrics == (Metric.JOBS_ENDED, Metric.CPU_SECONDS)
    assert (question.buckets, question.bucket.seconds, question.by_node) == (4, 3600, False)
    assert question.bounds(0) == (DAY, DAY + timedelta(hours=1))
    assert question.bounds(3) == (DAY + timedelta(hours=3), DAY + timedelta(hours=3, minutes=30))
    assert question.previous_begin == DAY - timedelta(hours=3, minutes=30)


@pytest.mark.parametrize(
    ("unit", "interval", "buckets"),
    [("minute", 15, 14), ("minute", 30, 7), ("hour", 4, 1), ("day", 1, 1), ("week", 2, 1)],
)
def test_time_is_cut_from_its_begin_on(unit: str, interval: int, buckets: int) -> None:
    assert asked(bucket={"unit": unit, "interval": interval}).buckets == buckets


@pytest.mark.parametrize(
    ("changes", "by_node"), [({"filters": {"node": "n1"}}, True), ({"group_by": ["node"]}, True), ({}, False)]
)
def test_a_node_makes_it_parts(changes: dict[str, Any], *, by_node: bool) -> None:
    assert asked(**changes).by_node is by_node


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"metrics": []}, "metrics", "length"),
        ({"metrics": ["jobs"]}, "metrics[0]", "cpu_efficiency"),
        ({"metrics": ["cpu_seconds", "cpu_seconds"]}, "metrics", "twice"),
        ({"group_by": ["user", "user"]}, "group_by", "twice"),
        ({"group_by": ["users"]}, "group_by[0]", "partition"),
        ({"from": "2026-11-20T00:00:00"}, "from", "timezone"),
        ({"from": "1999-11-20T00:00:00Z"}, "from", "2000"),
        ({"to": "2026-11-20T00:00:00Z"}, "to", "after from"),
        ({"to": "2036-11-21T00:00:00Z"}, "to", "3653 days"),
        ({"to": "2026-11-25T00:00:00Z", "bucket": {"unit": "minute"}}, "bucket", "7200 buckets; at most 5000"),
        ({"bucket": {"unit": "year"}}, "bucket.unit", "minute, hour, day, week"),
        ({"bucket": {"unit": "day", "interval": 0}}, "bucket.interval", ">= 1"),
        ({"filters": {"user": "a\x00b"}}, "filters.user", "control characters"),
        ({"filters": {"nodes": "n1"}}, "filters", "nodes"),
        ({"top_k": {"metric": "cpu_seconds", "k": 3}}, "top_k", "group_by"),
        ({"top_k": {"metric": "cpu_seconds", "k": 501}, "group_by": ["user"]}, "top_k.k", "500"),
        ({"more": 1}, "body", "more"),
    ],
)
def test_a_wrong_question_is_named_with_what_is_allowed(changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        asked(**changes)
    assert refused.value.field == field
    assert says in refused.value.reason


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidEvent) as refused:
        read_question(body)
    assert refused.value.field == "body"


def test_every_metric_is_defined() -> None:
    assert set(METRICS) == set(Metric)
    assert {unit.value for unit in Unit} == {"minute", "hour", "day", "week"}


def question(**fields: Any) -> Question:
    wanted = {
        "metrics": (Metric.JOBS_ENDED, Metric.CPU_SECONDS),
        "begin": DAY,
        "end": DAY + timedelta(hours=3),
        "bucket": Bucket(unit=Unit.HOUR),
    }
    return Question(**{**wanted, **fields})


def cell(user: str | None, bucket: int | None, ended: int, seconds: float | None, **fields: Any) -> Cell:
    figures = {
        "of_ended": ended, "jobs_ended": ended, "jobs_ended_known": ended, "cpu_seconds": seconds,
        "cpu_seconds_known": 0 if seconds is None else 1,
    }  # fmt: skip
    told = {"current": True, "rank": 1, **fields}
    return Cell(bucket=bucket, keys=(user, *NOBODY[1:]), figures=figures, **told)


def test_each_figure_tells_what_it_rests_on_and_the_unknown_is_not_0() -> None:
    told = answer(question(), [cell(None, None, 3, 7.5), cell(None, 2, 3, None)], groups_total=1)
    assert msgspec.to_builtins(told.totals) == [
        {"group": {}, "values": {
            "jobs_ended": {"value": 3, "jobs": 3, "of": 3}, "cpu_seconds": {"value": 7.5, "jobs": 1, "of": 3},
        }}
    ]  # fmt: skip
    (bucket,) = told.buckets
    assert (bucket.start, bucket.end) == (DAY + timedelta(hours=2), DAY + timedelta(hours=3))
    assert msgspec.to_builtins(bucket.groups[0].values["cpu_seconds"]) == {"value": None, "jobs": 0, "of": 3}
    assert (told.previous_from, told.units, told.groups_total) == (
        None, {"jobs_ended": "jobs", "cpu_seconds": "seconds"}, 1,
    )  # fmt: skip
    encoded = msgspec.json.decode(msgspec.json.encode(told))
    assert (encoded["from"], encoded["to"]) == ("2026-11-20T00:00:00Z", "2026-11-20T03:00:00Z")


def test_gaps_are_filled_with_every_group_in_order_of_rank() -> None:
    cells = [
        cell("ada", None, 1, 1.0, rank=2), cell("eve", None, 1, 9.0, rank=1), cell("ada", 0, 1, 1.0, rank=2),
        cell("eve", 2, 1, 9.0, rank=1),
    ]  # fmt: skip
    by_user = question(group_by=(Dimension.USER,), fill_gaps=True)
    told = answer(by_user, cells, groups_total=2)
    assert [[group.group["user"] for group in bucket.groups] for bucket in told.buckets] == [["eve", "ada"]] * 3
    middle = told.buckets[1].groups[0].values
    assert [(value.value, value.jobs, value.of) for value in middle.values()] == [(0, 0, 0), (None, 0, 0)]
    sparse = answer(question(group_by=(Dimension.USER,)), cells, groups_total=2)
    assert [[group.group for group in bucket.groups] for bucket in sparse.buckets] == [
        [{"user": "ada"}], [{"user": "eve"}],
    ]  # fmt: skip
    assert [bucket.start.hour for bucket in sparse.buckets] == [0, 2]


def test_without_runs_there_is_an_answer_all_the_same() -> None:
    assert answer(question(), [], groups_total=0).buckets == []
    assert len(answer(question(fill_gaps=True), [], groups_total=0).buckets) == 3


def test_all_runs_together_are_a_group_also_where_there_are_none() -> None:
    """No jobs is 0 jobs: a line over time does not vanish with the last of them."""
    told = answer(question(fill_gaps=True), [], groups_total=0)
    nothing = {"group": {}, "values": {
        "jobs_ended": {"value": 0, "jobs": 0, "of": 0}, "cpu_seconds": {"value": None, "jobs": 0, "of": 0},
    }}  # fmt: skip
    assert msgspec.to_builtins(told.totals) == [nothing]
    assert [msgspec.to_builtins(bucket.groups) for bucket in told.buckets] == [[nothing]] * 3
    assert told.groups_total == 1
    assert answer(question(group_by=(Dimension.USER,), fill_gaps=True), [], groups_total=0).totals == []


@pytest.mark.parametrize(
    ("now", "before", "told"),
    [
        ((3, 6.0), (2, 4.0), {"previous": 4.0, "delta": 2.0, "delta_percent": 50.0}),
        ((3, None), (2, 4.0), {"previous": 4.0, "delta": None, "delta_percent": None}),
        ((3, 6.0), (2, None), {"previous": None, "delta": None, "delta_percent": None}),
        ((3, 6.0), (2, 0.0), {"previous": 0.0, "delta": 6.0, "delta_percent": None}),
    ],
)
def test_each_figure_stands_beside_that_of_the_period_before(
    now: tuple[int, float | None], before: tuple[int, float | None], told: dict[str, float | None]
) -> None:
    cells = [cell(None, 1, *now), cell(None, 1, *before, current=False)]
    (bucket,) = answer(question(compare_previous=True), cells, groups_total=1).buckets
    values = msgspec.to_builtins(bucket.groups[0].values)
    assert {name: values["cpu_seconds"][name] for name in told} == told
    assert (values["jobs_ended"]["delta"], values["jobs_ended"]["delta_percent"]) == (1, 50.0)


def test_what_was_there_before_alone_is_shown_as_gone() -> None:
    cells = [cell(None, 1, 4, 2.0, current=False)]
    told = answer(question(compare_previous=True), cells, groups_total=1)
    values = msgspec.to_builtins(told.buckets[0].groups[0].values)
    assert (values["jobs_ended"]["value"], values["jobs_ended"]["delta_percent"]) == (0, -100.0)
    assert (values["cpu_seconds"]["value"], values["cpu_seconds"]["delta"]) == (None, None)
    assert told.previous_from == DAY - timedelta(hours=3)


TOP = {"group_by": (Dimension.USER,), "top_k": TopK(metric=Metric.CPU_SECONDS, k=5)}


@pytest.mark.parametrize(
    ("fields", "groups", "cells", "field"),
    [
        ({"group_by": (Dimension.USER,)}, 501, 9, "group_by"),
        ({}, 1, 50_001, "bucket"),
        ({"fill_gaps": True, "bucket": Bucket(unit=Unit.MINUTE)}, 400, 9, "bucket"),
        ({"fill_gaps": True, "bucket": Bucket(unit=Unit.MINUTE), **TOP}, 400, 9, None),
        (TOP, 5000, 9, None),
        ({}, 500, 50_000, None),
    ],
)
def test_what_is_too_much_to_answer_is_refused(
    fields: dict[str, Any], groups: int, cells: int, field: str | None
) -> None:
    if field is None:
        check_size(question(**fields), groups=groups, cells=cells)
        return
    with pytest.raises(InvalidEvent) as refused:
        check_size(question(**fields), groups=groups, cells=cells)
    assert refused.value.field == field

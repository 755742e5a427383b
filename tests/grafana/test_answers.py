"""Every expression and statement of the dashboards is answered by a real Prometheus and a real PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.grafana import macros
from tests.grafana.macros import Everything, Value
from tests.grafana.shipped import DASHBOARDS, Question, questions, variables
from tests.grafana.world import World, world

RATE_INTERVAL = "15s"
ALL = Everything("'*'")
MUST_BE_EMPTY = {"Missing events", "Events that changed nothing"}
NEVER_FILLED = {
    # Only Slurm's controller and accounting tell these, and the jobs here are of hooks and of `jobtrail exec`.
    "How it ended: derived_exit_code", "How it ended: reason", "How it ended: restart_count",
    "What it is: job_name", "What it is: submit_time", "What it is: time_limit_seconds",
    # No job ended by a signal, and local ones have no account.
    "How it ended: exit_signal", "Jobs that failed: exit_signal", "Jobs that failed: account",
    # Nothing is wrong: no node is drained with a reason, and every event changed its job.
    "What Slurm says of the node: reason", "What was recorded, and by whom: note",
    "What was recorded, and by whom: unapplied",
    # No person made or changed a job here.
    "Who changed what: person",
}  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> Iterator[World]:
    """One cluster for all of them."""
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def values(seen: World) -> dict[str, Value]:
    """What is chosen on the dashboards: everything where that can be chosen."""
    _, hardware = seen.rows("SELECT DISTINCT hardware FROM benchmark_run")
    return {
        "cluster": "lab", "user": ALL, "account": ALL, "job": "slurm-7", "node": "n1", "idle": "1", "actor": ALL,
        "recipe": ("chat",), "hardware": tuple(row[0] for row in hardware),
    }  # fmt: skip


def chosen(question: Question, values: dict[str, Value]) -> dict[str, Value]:
    """The values on this dashboard: of variables with an "All" of their own, that one."""
    every = {name for name, one in variables(DASHBOARDS[question.dashboard]).items() if one.get("allValue")}
    return {**values, **dict.fromkeys(every, ALL)}


def statement(question: Question, values: dict[str, Value], seen: World) -> str:
    """The SQL that PostgreSQL gets."""
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (seen.begin, seen.end))
    return macros.sql(question.target["rawSql"], values, begin, end, interval_seconds=60)


@pytest.mark.parametrize("question", [pytest.param(one, id=one.name) for one in questions("expr")])
def test_promql(question: Question, seen: World, values: dict[str, Value]) -> None:
    expression = macros.promql(question.target["expr"], chosen(question, values), rate_interval=RATE_INTERVAL)
    if question.target.get("instant"):
        found = seen.prometheus.now(expression, seen.end)
    else:
        found = seen.prometheus.over_time(expression, seen.begin, seen.end)
    assert found, f"no answer: {expression}"
    named = set(re.findall(r"\{\{(\w+)\}\}", question.target.get("legendFormat", "")))
    for one in found:
        # A label that Prometheus does not have is an empty one: no name would tell these series apart.
        assert named - {"account", "partition"} <= one["metric"].keys(), f"{expression} has no such labels"
    if question.columns:
        labels = {label for one in found for label in one["metric"]}
        assert set(question.columns) - {"Value", "parent_gpu_id"} <= labels


@pytest.mark.parametrize("question", [pytest.param(one, id=one.name) for one in questions("rawSql")])
def test_sql(question: Question, seen: World, values: dict[str, Value]) -> None:
    names: list[str] = []
    rows: list[tuple[Any, ...]] = []
    for job in ("slurm-7", "slurm-6"):
        here = {**values, "job": job}
        names, found = seen.rows(statement(question, chosen(question, here), seen))
        rows += found
    if question.columns:
        assert names == list(question.columns) or set(question.columns) <= set(names)
    elif question.target["format"] == "time_series":
        assert names == ["time", "metric", "value"]
        numbers = [row[2] for row in rows if row[2] is not None]
        assert numbers
        # Grafana makes series of numbers alone: a word would be one more part of a series' name.
        assert all(isinstance(one, int | float | Decimal) for one in numbers)
        assert all(isinstance(row[1], str) for row in rows)
    else:
        assert len(names) == 1
        assert [row for row in rows if row[0] is not None], "no number"
    assert bool(rows) == (question.panel not in MUST_BE_EMPTY), "no answer"


_FORGED = """
    INSERT INTO audit_log (chain_id, seq, event_id, kind, prev_hash, commitment, row_hash, changed_at, received_at,
                           changed_by, cluster_name, job_id, node, unapplied)
    SELECT '00000000-0000-4000-8000-000000000001', seq, gen_random_uuid(), 'checkpoint', sha256(seq::text::bytea),
           sha256('x'), sha256('y'), min(c.updated_at), min(c.updated_at), 'collector', 'lab', 'slurm-7', 'n9',
           'the run is over'
    FROM audit_chain c, unnest(ARRAY[1, 4]) AS seq GROUP BY seq
"""


def test_sql_of_what_must_not_happen(seen: World, values: dict[str, Value]) -> None:
    """Missing events and events without effect: nothing here brings them about, so rows are forged and taken back."""
    asked = {one.panel: one for one in questions("rawSql") if one.panel in MUST_BE_EMPTY}
    assert asked.keys() == MUST_BE_EMPTY
    for question in asked.values():
        names, found = seen.rows(statement(question, chosen(question, values), seen), _FORGED)
        rows = [dict(zip(names, row, strict=True)) for row in found]
        if question.panel == "Missing events":
            assert [(row["node"], row["first_missing"], row["last_missing"]) for row in rows] == [("n9", 2, 3)]
        else:
            assert {(row["job_id"], row["unapplied"]) for row in rows} == {("slurm-7", "the run is over")}
        assert set(question.columns) <= set(names)
    (gaps,) = (one for one in questions("rawSql") if one.panel == "Gaps")
    assert seen.rows(statement(gaps, chosen(gaps, values), seen))[1] == [(0,)]
    assert seen.rows(statement(gaps, chosen(gaps, values), seen), _FORGED)[1] == [(1,)]


def test_a_choice_narrows_what_is_shown(seen: World, values: dict[str, Value]) -> None:
    """Every statement with a choice of several, asked for some of them: it says no more than it does of all."""
    some: dict[str, Value] = {
        "cluster": ("lab", "it's"), "user": ("ben",), "account": ("biology", "none"), "actor": ("slurm-prolog", "api"),
    }  # fmt: skip
    shown = {}
    for question in questions("rawSql"):
        if any(f"${{{name}:" in question.target["rawSql"] for name in ("user", "account", "actor")):
            every = seen.rows(statement(question, chosen(question, values), seen))[1]
            jobs = {"job": ("slurm-7", "slurm-8")}
            fewer = seen.rows(statement(question, {**values, **some, **jobs}, seen))[1]
            assert len(fewer) <= len(every)
            place = 1 if question.panel == "Who changed what" else 0
            shown[question.panel] = [row[place] for row in fewer]
    assert shown["By account"] == ["biology"]
    assert shown["By user"] == ["ben"]
    assert set(shown["Who changed what"]) == {"slurm-7", "slurm-8"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_offer_what_there_is(name: str, seen: World, values: dict[str, Value]) -> None:
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (seen.begin, seen.end))
    wanted = {
        "cluster": "lab", "user": "ben", "account": "biology", "job": "slurm-7", "node": "n1", "actor": "reconciler",
        "recipe": "chat", "hardware": values["hardware"][0],  # type: ignore[index]
    }  # fmt: skip
    every = dict.fromkeys(("user", "account"), ALL)
    for variable in DASHBOARDS[name]["templating"]["list"]:
        if variable["type"] != "query":
            continue
        query = variable["query"]
        if isinstance(query, dict):
            asked = macros.promql(query["query"], values, rate_interval=RATE_INTERVAL)
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", asked)
            assert found is not None
            offered = seen.prometheus.label_values(found[2], found[1])
        else:
            asked = macros.sql(query, {**values, **every}, begin, end, interval_seconds=60)
            offered = [row[0] for row in seen.rows(asked)[1]]
        assert wanted[variable["name"]] in offered


def test_columns_of_tables_are_filled(seen: World, values: dict[str, Value]) -> None:
    """A column that is empty in every row is one nobody needs, or a wrong name: those here are known."""
    empty = set()
    for question in questions("rawSql"):
        if not question.columns or question.panel in MUST_BE_EMPTY:
            continue
        filled: set[str] = set()
        for job in ("slurm-7", "slurm-6"):
            names, rows = seen.rows(statement(question, chosen(question, {**values, "job": job}), seen))
            filled |= {name for place, name in enumerate(names) if any(row[place] is not None for row in rows)}
        empty |= {f"{question.panel}: {column}" for column in question.columns if column not in filled}
    assert empty == NEVER_FILLED, "\n".join(sorted(empty ^ NEVER_FILLED))

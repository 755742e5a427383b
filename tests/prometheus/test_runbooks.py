"""What the runbooks tell people to type is there: commands, queries, metrics."""

from __future__ import annotations

import re
import shlex

import psycopg
import pytest
from typer.main import get_command

from jobtrail.cli.commands import application
from jobtrail.config import Config
from tests.docs.test_configuration_documented import keys
from tests.docs.test_metrics_documented import documented
from tests.prometheus.shipped import RECORDED, RUNBOOKS, selectors, series_name

OF_PROMETHEUS = frozenset({"up", "ALERTS", "prometheus_sd_http_failures_total"})
SETTINGS = dict(keys(Config()))


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", RUNBOOKS, re.M | re.S)


COMMANDS = sorted(
    {line for block in blocks("sh") for line in block.splitlines() if line.startswith("jobtrail ")}
    | set(re.findall(r"`(jobtrail [a-z][^`]*)`", RUNBOOKS))
)
QUERIES = [query for block in blocks("sql") for query in block.split(";\n") if query.strip()]
EXPRESSIONS = sorted({line for block in blocks("promql") for line in block.splitlines()})


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_a_runbook_is_one(line: str) -> None:
    """Down to its options; what it would do is not done."""
    words = shlex.split(line)[1:]
    command = get_command(application)
    context = command.make_context("jobtrail", [], resilient_parsing=True)
    while words and hasattr(command, "get_command"):
        name = words.pop(0)
        inner = command.get_command(context, name)
        assert inner is not None, f"no command {name}"
        command = inner
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
    command.make_context("it", words)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_a_runbook_runs_for_those_who_read(database: str, query: str) -> None:
    with psycopg.connect(database) as connection:
        of_auditors = any(name in query for name in ("audit_conflict", "security_events"))
        connection.execute(b"SET ROLE jobtrail_auditor" if of_auditors else b"SET ROLE jobtrail_reader")
        assert connection.execute(query.encode()).description


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_of_a_runbook_is_about_metrics_there_are(expression: str) -> None:
    told = {name.removesuffix("_total") for name in documented()}
    for selector in selectors(expression):
        name = series_name(selector)
        stem = re.sub(r"_(total|sum|count)$", "", name)
        assert name in RECORDED or name in OF_PROMETHEUS or name in documented() or stem in told, name


def test_a_setting_of_a_runbook_is_one() -> None:
    sections = {key.partition(".")[0] for key in SETTINGS if "." in key}
    named = {name for name in re.findall(r"`(\w+\.\w+)`", RUNBOOKS) if name.partition(".")[0] in sections}
    assert len(named) > 10
    assert named <= SETTINGS.keys()

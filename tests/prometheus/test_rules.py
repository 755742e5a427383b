"""Rules: accepted by Prometheus, about metrics there are, each with unit tests, a runbook and labels."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

from jobtrail.adapters.telemetry import GPU_VENDORS, QUESTIONS, REJECT_REASONS
from tests.docs.test_metrics_documented import Families, documented, exposed_by_jobs, exposed_by_the_daemon
from tests.prometheus.shipped import (
    ALERTS,
    RECORDED,
    RULES,
    RUNBOOKS,
    UNIT_TESTS,
    read,
    rules,
    run,
    selectors,
    series_name,
)
from tests.requirements import require_tool

OF_PROMETHEUS = frozenset({"up"})
OF_TARGETS = frozenset({"job", "instance", "cluster", "node"})
WHY = "whether Prometheus accepts the rules stays unchecked"
EXPRESSIONS = {rule.get("alert", rule.get("record")): rule["expr"] for rule in rules()}
NAMES = sorted({series_name(one) for text in EXPRESSIONS.values() for one in selectors(text)})


@functools.cache
def families() -> tuple[Families, Families]:
    """What the daemon's sources put on /metrics, and what docs/metrics.md tells of."""
    return {**exposed_by_jobs(), **exposed_by_the_daemon()}, documented()


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_promtool_accepts_the_rules(path: Any) -> None:
    assert "SUCCESS" in run(require_tool("promtool", WHY), "check", "rules", path)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_the_unit_tests_of_rules_pass(path: Any) -> None:
    assert "SUCCESS" in run(require_tool("promtool", WHY), "test", "rules", path)


@pytest.mark.parametrize("name", [name for name in NAMES if ":" not in name and name not in OF_PROMETHEUS])
def test_a_metric_of_a_rule_is_documented_and_on_the_page(name: str) -> None:
    """No alert waits for what nobody exports, and no selector asks for a label that the metric has not."""
    known, told = families()
    assert name in known, "no family of that name is on /metrics"
    assert told[name] == known[name]
    for rule, text in EXPRESSIONS.items():
        for selector in selectors(text):
            if selector.name == name:
                asked = {matcher.name for matcher in selector.matchers.matchers}
                assert asked <= known[name][1] | OF_TARGETS, f"{rule} asks {name} for {asked}"


def test_a_recorded_series_of_a_rule_is_recorded() -> None:
    """An alert or a rule on a series that no recording rule makes would be silent for ever."""
    assert {name for name in NAMES if ":" in name} <= RECORDED.keys()
    assert len(RECORDED) + len(ALERTS) == len(list(rules())), "a name comes twice"


@pytest.mark.parametrize("record", RECORDED)
def test_a_recorded_name_is_level_metric_operations(record: str) -> None:
    level, metric, operation = record.split(":")
    assert level in {"job_node", "job_node_gpu", "job", "user", "account", "node", "cluster"}
    assert re.fullmatch(r"hpc_(job|node)_[a-z_]+", metric)
    assert re.fullmatch(r"[a-z0-9_]+", operation)


def test_words_in_selectors_are_words_of_the_daemon() -> None:
    """A misspelt reason would never match."""
    allowed = {
        "reason": set(REJECT_REASONS), "question": set(QUESTIONS), "gpu_vendor": set(GPU_VENDORS),
        "parent_gpu_id": {""}, "job": {"jobtrail"},
    }  # fmt: skip
    seen = set()
    for text in EXPRESSIONS.values():
        for selector in selectors(text):
            for matcher in selector.matchers.matchers:
                if matcher.name in allowed:
                    seen.add(matcher.name)
                    assert set(matcher.value.split("|")) <= allowed[matcher.name], f"{selector}"
    assert {"reason", "job"} <= seen


@pytest.mark.parametrize("record", RECORDED)
def test_a_recording_rule_has_a_unit_test(record: str) -> None:
    tested = [one for path in UNIT_TESTS for group in read(path)["tests"] for one in group.get("promql_expr_test", [])]
    assert any(one["expr"] == record and one["exp_samples"] for one in tested)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tested_where_it_fires_and_where_it_does_not(alert: str) -> None:
    """Not firing counts only beside series that the alert looks at, or that what it looks at is made of."""
    fires, rests = 0, 0
    for path in UNIT_TESTS:
        for group in read(path)["tests"]:
            given = {series["series"].partition("{")[0] for series in group["input_series"]}
            for test in group.get("alert_rule_test", []):
                if test["alertname"] == alert:
                    fires += bool(test["exp_alerts"]) and all(one["exp_annotations"] for one in test["exp_alerts"])
                    rests += not test["exp_alerts"] and bool(_made_of(ALERTS[alert]["expr"]) & given)
    assert fires >= 1
    assert rests >= 1


def _made_of(expression: str) -> set[str]:
    """Metrics that an expression looks at, through recording rules as well."""
    found: set[str] = set()
    for selector in selectors(expression):
        name = series_name(selector)
        found |= _made_of(RECORDED[name]["expr"]) if name in RECORDED else {name}
    return found


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_for_whom_since_when_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert alert.startswith("Jobtrail")
    assert rule["labels"].keys() == {"severity", "audience"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["labels"]["audience"] in {"operators", "user"}
    assert re.fullmatch(r"[0-9]+[mh]", rule["for"])
    told = rule["annotations"]
    assert told.keys() == {"summary", "description", "runbook_url"}
    assert len(told["summary"]) <= 120
    assert not told["summary"].endswith(".")
    assert told["description"].endswith(".")
    assert told["runbook_url"] == f"{{{{ $externalLabels.runbooks }}}}#{alert.lower()}"
    if rule["labels"]["audience"] == "user":
        assert "$labels.user" in told["summary"], "mail goes by that label"


def test_every_alert_has_a_runbook_and_no_other_is_there() -> None:
    """The anchor of a heading is the heading in small letters."""
    assert re.findall(r"^## (Jobtrail\w+)$", RUNBOOKS, re.M) == list(ALERTS), "in the order of the rules"


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbook_tells_the_severity_how_to_look_and_what_to_do(alert: str) -> None:
    section = RUNBOOKS.partition(f"## {alert}\n")[2].partition("\n## ")[0]
    labels = ALERTS[alert]["labels"]
    assert section.lstrip().startswith(f"{labels['severity']}, to {labels['audience']}")
    for part in ("**Meaning.**", "**Look.**", "**Do.**"):
        assert part in section, part
    assert "```" in section, "exact commands"

"""The configurations of Prometheus and Alertmanager: accepted, and mail goes where it should."""

from __future__ import annotations

import shlex

import pytest

from tests.prometheus.shipped import ALERTS, DIRECTORY, read, run
from tests.requirements import require_tool

FILE = "alertmanager.yml"
CONFIG = read(DIRECTORY / FILE)


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-static.yml"])
def test_promtool_accepts_the_configuration(name: str) -> None:
    told = run(require_tool("promtool", "whether Prometheus accepts its configuration stays unchecked"), "check",
               "config", name)  # fmt: skip
    assert "SUCCESS: 2 rule files found" in told


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-static.yml"])
def test_rules_find_what_they_go_by(name: str) -> None:
    """The job's name, labels that are the page's own, and the base of the runbooks, which no alert carries on."""
    config = read(DIRECTORY / name)
    (scrape,) = config["scrape_configs"]
    assert (scrape["job_name"], scrape["honor_labels"]) == ("jobtrail", True)
    assert set(config["global"]["external_labels"]) == {"runbooks"}
    assert config["alerting"]["alert_relabel_configs"] == [{"regex": "runbooks", "action": "labeldrop"}]


def test_amtool_accepts_the_configuration() -> None:
    told = run(require_tool("amtool", "whether Alertmanager accepts its configuration stays unchecked"),
               "check-config", FILE)  # fmt: skip
    assert "SUCCESS" in told


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("severity=warning audience=user user=ada", "users"),
        ("severity=warning audience=user", "nobody"),
        ("severity=critical audience=operators", "pager"),
        ("severity=warning audience=operators", "operators"),
        ("severity=info audience=operators user=ada", "operators"),
        ("severity=warning", "operators"),
    ],
)
def test_alerts_go_by_audience_and_severity(labels: str, receiver: str) -> None:
    amtool = require_tool("amtool", "who is told of an alert stays unchecked")
    told = run(amtool, "config", "routes", "test", f"--config.file={FILE}", *shlex.split(labels))
    assert told.split() == [receiver]


def test_inhibitions_speak_of_alerts_there_are() -> None:
    named = {
        name
        for rule in CONFIG["inhibit_rules"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
        for name in matcher.partition("=")[2].lstrip("~").strip('"').split("|")
    }
    assert named <= ALERTS.keys()
    assert len(named) >= 8

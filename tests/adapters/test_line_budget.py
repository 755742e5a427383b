"""Refusals do not fill the log, and are all counted."""

import io

from jobtrail.adapters.log_lines import configure_logging
from jobtrail.adapters.telemetry import Telemetry
from jobtrail.adapters.telemetry.line_budget import LINES, SECONDS, LineBudget
from jobtrail.core.facts import EventRejected


def test_a_kind_has_its_lines_each_minute() -> None:
    now = 100.0
    budget = LineBudget(lambda: now)
    assert [budget.take("timeout") for _ in range(LINES + 2)] == [True] * LINES + [False] * 2
    assert budget.take("busy")
    now += SECONDS
    assert budget.take("timeout")


def test_what_is_not_told_is_counted() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    telemetry = Telemetry()
    for _ in range(1000):
        telemetry.observe(EventRejected(reason="timeout", detail="the request head was not complete in time"))
    assert len(stream.getvalue().splitlines()) == LINES
    assert b'jobtrail_events_rejected_total{reason="timeout"} 1000.0' in telemetry.render()

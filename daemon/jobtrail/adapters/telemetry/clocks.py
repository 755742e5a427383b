"""Figures of the node's clock: when it was set, and how far it is from the store's."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobtrail.adapters.telemetry.handlers import Handlers
from jobtrail.core.clocks import facts


class ClockFigures(Collector):
    """Counts steps; shows the last one, and the last comparison, once there was one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._step: float | None = None
        self._ahead: float | None = None
        self._steps = Counter(
            "jobtrail_clock_steps", "How often the wall clock was set, by half a second or more.", registry=registry
        )
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Nothing to announce: the families are there once they have a value."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """What is known."""
        if self._step is not None:
            name, text = "jobtrail_clock_last_step_seconds", "How far the wall clock was set the last time."
            yield GaugeMetricFamily(name, text, value=self._step)
        if self._ahead is not None:
            name, text = "jobtrail_clock_skew_seconds", "How far this node's clock is ahead of the store's."
            yield GaugeMetricFamily(name, text, value=self._ahead)

    def stepped(self, fact: facts.ClockStepped) -> None:
        """Count it."""
        self._steps.inc()
        self._step = fact.seconds

    def compared(self, fact: facts.ClockCompared) -> None:
        """Show it."""
        self._ahead = fact.ahead_seconds


HANDLERS: Handlers[ClockFigures] = {
    facts.ClockStepped: (ClockFigures.stepped, logging.WARNING, "the clock was set"),
    facts.ClockCompared: (ClockFigures.compared, logging.DEBUG, "clock compared with the store's"),
}

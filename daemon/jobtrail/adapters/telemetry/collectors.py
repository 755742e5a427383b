"""Figures that are read when the page is made, and what is left off the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobtrail.core.ports import SpoolStatus


class SpoolFigures(Collector):
    """The spool's figures, as the spool holds them in memory when the page is rendered."""

    def __init__(self, status: Callable[[], SpoolStatus], time_us: Callable[[], int]) -> None:
        self._status = status
        self._time_us = time_us

    def describe(self) -> Iterator[Metric]:
        """Nothing to announce: without this the registry would ask for the status when it is made."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The spool's families; the age is absent while nothing waits."""
        status = self._status()
        durable = float(status.durability == "disk")
        yield GaugeMetricFamily("jobtrail_spool_depth", "Events that are not forwarded yet.", value=status.depth)
        yield GaugeMetricFamily("jobtrail_spool_bytes", "Size of the spool.", value=status.bytes_used)
        yield GaugeMetricFamily(
            "jobtrail_spool_limit_bytes", "Size at which events are refused.", value=status.bytes_limit
        )
        yield GaugeMetricFamily("jobtrail_spool_durable", "1 on a disk, 0 on a file system in memory.", value=durable)
        yield CounterMetricFamily(
            "jobtrail_spool_purged_early",
            "Forwarded events that gave way before their time.",
            value=status.purged_early,
        )
        aside = GaugeMetricFamily(
            "jobtrail_spool_files_set_aside", "Files of earlier chains kept beside the spool.", labels=("why",)
        )
        aside.add_metric(("ended",), status.files_ended)
        aside.add_metric(("damaged",), status.files_damaged)
        yield aside
        if status.oldest_unforwarded_us is not None:
            age = max(0, self._time_us() - status.oldest_unforwarded_us) / 1e6
            name = "jobtrail_spool_oldest_unforwarded_age_seconds"
            yield GaugeMetricFamily(name, "Age of the oldest event that is not forwarded yet.", value=age)


class WithoutCreated(Collector):
    """A registry without the `_created` samples: this text format has no use for them, and they double the page."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """The registry's families."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

"""Figures of what becomes of reported benchmarks."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry

from jobtrail.adapters.telemetry.handlers import Handlers, counter
from jobtrail.adapters.telemetry.words import BENCHMARK_LINKS, VERDICTS, one_of
from jobtrail.core import facts


class BenchmarkFigures:
    """Counts facts about benchmarks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._benchmarks_settled = counter(
            registry,
            "benchmark_runs_settled",
            "Runs of benchmarks whose jobs and energy are settled.",
            "link",
            BENCHMARK_LINKS,
        )
        self._benchmark_verdicts = counter(
            registry, "benchmark_verdicts", "New verdicts on gated metrics of benchmarks.", "verdict", VERDICTS
        )
        self._benchmark_refusals = counter(
            registry, "benchmark_refusals", "Results of benchmarks' runs that the database did not take."
        )
        self._benchmark_failures = counter(
            registry, "benchmark_settle_failures", "Turns in which nothing was settled: the database was away."
        )
        self._benchmark_shed = counter(
            registry, "benchmark_series_shed", "Benchmarks left off this page by benchmarks.max_series."
        )


HANDLERS: Handlers[BenchmarkFigures] = {
    facts.BenchmarkSettled: (
        lambda of, fact: of._benchmarks_settled.labels(one_of(BENCHMARK_LINKS, fact.link)).inc(),
        logging.INFO, "benchmark settled",
    ),
    facts.BenchmarkJudged: (
        lambda of, fact: of._benchmark_verdicts.labels(one_of(VERDICTS, fact.verdict)).inc(),
        logging.INFO, "benchmark judged",
    ),
    facts.BenchmarkRefused: (
        lambda of, _: of._benchmark_refusals.inc(), logging.ERROR, "database refuses what became of a benchmark",
    ),
    facts.BenchmarksNotSettled: (
        lambda of, _: of._benchmark_failures.inc(), logging.WARNING, "benchmarks not settled",
    ),
    facts.BenchmarkSeriesShed: (
        lambda of, fact: of._benchmark_shed.inc(fact.series),
        logging.WARNING, "cap on series of benchmarks reached",
    ),
}  # fmt: skip

"""Figures of the looks at jobs, of what was written of them, and of regular chores."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter, Histogram

from jobtrail.adapters.telemetry.handlers import TICK_BUCKETS, Handlers, counter
from jobtrail.adapters.telemetry.words import FOUND_BY, MISS_REASONS, OTHER, READER_REASONS, READERS, one_of
from jobtrail.core import facts


class SampleFigures:
    """Counts facts about measuring jobs and keeping the samples."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._samples = counter(registry, "samples", "Looks at jobs, with or without a reading.")
        self._misses = counter(
            registry, "sample_misses", "Looks that gave no reading.", "reason", (*MISS_REASONS, OTHER)
        )
        self._reader_errors = Counter(
            "jobtrail_reader_errors", "Readers that failed as a whole.", ("reader", "reason"), registry=registry
        )
        self._written = counter(registry, "samples_written", "Samples stored in the database.")
        self._thinned = counter(registry, "samples_thinned", "Samples given up so that others reach further back.")
        self._dropped = counter(
            registry, "samples_dropped", "Samples given up: the database was away too long or refused."
        )
        self._partitions = counter(
            registry, "partitions", "Days of samples made and dropped.", "change", ("made", "dropped")
        )
        self._security_removed = counter(
            registry, "security_events_removed", "Events of who was turned away that were removed for their age."
        )
        self._chore_failures = counter(registry, "chore_failures", "Regular chores on the database that failed.")
        self._tick = Histogram(
            "jobtrail_tick_seconds", "Time of one look at all jobs that were due.", buckets=TICK_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._adopted = counter(registry, "jobs_adopted", "Running jobs found at start.", "found_by", FOUND_BY)

    def _sampled(self, fact: facts.JobSampled) -> None:
        self._samples.inc(fact.readings)
        self._tick.observe(fact.seconds)

    def _source_failed(self, fact: facts.SampleSourceFailed) -> None:
        reason = READER_REASONS.get(fact.reason.partition(":")[0], OTHER)
        self._reader_errors.labels(READERS.get(fact.source, OTHER), reason).inc()

    def _partitions_kept(self, fact: facts.PartitionsKept) -> None:
        self._partitions.labels("made").inc(fact.created)
        self._partitions.labels("dropped").inc(fact.dropped)


def _nothing(_: SampleFigures, __: facts.Fact) -> None:
    """The figure is on the page from elsewhere: the board itself counts the jobs it sheds."""


HANDLERS: Handlers[SampleFigures] = {
    facts.JobSampled: (SampleFigures._sampled, logging.DEBUG, "jobs sampled"),
    facts.ReadingMissed: (
        lambda of, fact: of._misses.labels(one_of(MISS_REASONS, fact.reason)).inc(),
        logging.DEBUG, "job gave no reading",
    ),
    facts.SampleSourceFailed: (SampleFigures._source_failed, logging.ERROR, "reader failed"),
    facts.SamplesWritten: (lambda of, fact: of._written.inc(fact.rows), logging.DEBUG, "samples written"),
    facts.SamplesThinned: (lambda of, fact: of._thinned.inc(fact.rows), logging.WARNING, "samples thinned out"),
    facts.SamplesDropped: (lambda of, fact: of._dropped.inc(fact.rows), logging.WARNING, "samples dropped"),
    facts.JobAdopted: (
        lambda of, fact: of._adopted.labels(one_of(FOUND_BY, fact.found_by)).inc(),
        logging.INFO, "running job found at start",
    ),
    facts.SeriesShed: (_nothing, logging.WARNING, "cap on jobs reached: job has no series"),
    facts.PartitionsKept: (SampleFigures._partitions_kept, logging.INFO, "days of samples made and dropped"),
    facts.SecurityPruned: (
        lambda of, fact: of._security_removed.inc(fact.rows), logging.INFO, "old security events removed",
    ),
    facts.ChoreFailed: (lambda of, _: of._chore_failures.inc(), logging.WARNING, "chore not done"),
}  # fmt: skip

"""Figures of events: taken, refused, forwarded, and those who were turned away."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter

from jobtrail.adapters.telemetry.handlers import Handlers, counter
from jobtrail.adapters.telemetry.words import (
    DROP_REASONS,
    FORWARD_REASONS,
    KINDS,
    MISFITS,
    OTHER,
    REJECT_REASONS,
    SECURITY_WHATS,
    forward_reason,
    one_of,
)
from jobtrail.core import facts


class EventFigures:
    """Counts facts about events on their way from hooks and users to the store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._received = counter(registry, "events_received", "Events durably held.", "kind", KINDS)
        self._deduplicated = counter(registry, "events_deduplicated", "Events that came again and were already held.")
        self._rejected = counter(registry, "events_rejected", "Requests refused.", "reason", (*REJECT_REASONS, OTHER))
        self._security = counter(
            registry,
            "security_events",
            "Those who were turned away and should not have come.",
            "what",
            (*SECURITY_WHATS, OTHER),
        )
        self._taken = counter(registry, "incoming_taken", "Events taken up from files that hooks had left.")
        self._quarantined = counter(registry, "incoming_quarantined", "Files of the spool directory that are no event.")
        self._drops = counter(
            registry, "benchmark_files_taken", "Reports of benchmarks taken up from files users had left."
        )
        self._no_drops = counter(registry,
            "benchmark_files_refused", "Files users had left that are no report, removed.", "reason",
            (*DROP_REASONS, OTHER),
        )  # fmt: skip
        self._forwarded = counter(registry, "events_forwarded", "Events stored in the database.")
        self._replayed = counter(registry, "events_replayed", "Events sent that the database already held.")
        self._conflicts = counter(registry, "forward_conflicts", "Events the database holds with another hash.")
        self._refused = counter(registry, "projection_refused", "Events in the trail that could not change their job.")
        self._forward_failures = Counter(
            "jobtrail_forward_failures", "Tries to reach the database that failed.", ("of", "reason"),
            registry=registry,
        )  # fmt: skip
        for reason in (*FORWARD_REASONS, OTHER):
            self._forward_failures.labels("events", reason)
            self._forward_failures.labels("samples", reason)
        self._gaps = counter(registry, "gaps_recorded", "Events in the trail about what was given up for want of room.")
        self._given_up = counter(
            registry,
            "chains_given_up",
            "Chains that did not fit the database's copy: a new one began.",
            "reason",
            MISFITS,
        )

    def _accepted(self, fact: facts.EventAccepted) -> None:
        if fact.duplicate:
            self._deduplicated.inc()
        else:
            self._received.labels(one_of(KINDS, fact.kind)).inc()

    def _batch_forwarded(self, fact: facts.EventsForwarded) -> None:
        self._forwarded.inc(fact.stored)
        self._replayed.inc(fact.replayed)

    def _forward_failed(self, fact: facts.ForwardFailed) -> None:
        of = "samples" if fact.reason.startswith("samples: ") else "events"
        self._forward_failures.labels(of, forward_reason(fact.reason)).inc()


HANDLERS: Handlers[EventFigures] = {
    facts.EventAccepted: (EventFigures._accepted, logging.INFO, "event accepted"),
    facts.EventRejected: (
        lambda of, fact: of._rejected.labels(one_of(REJECT_REASONS, fact.reason)).inc(),
        logging.WARNING, "event rejected",
    ),
    facts.SecurityNoticed: (
        lambda of, fact: of._security.labels(one_of(SECURITY_WHATS, fact.what)).inc(),
        logging.WARNING, "turned away",
    ),
    facts.IncomingTaken: (lambda of, _: of._taken.inc(), logging.INFO, "event taken from the spool directory"),
    facts.IncomingQuarantined: (
        lambda of, _: of._quarantined.inc(), logging.ERROR, "file in the spool directory is no event",
    ),
    facts.DroppedReportTaken: (lambda of, _: of._drops.inc(), logging.INFO, "benchmark's report taken from a file"),
    facts.DroppedReportRefused: (
        lambda of, fact: of._no_drops.labels(one_of(DROP_REASONS, fact.reason)).inc(),
        logging.WARNING, "file among the reports of benchmarks is none, and was removed",
    ),
    facts.EventsForwarded: (EventFigures._batch_forwarded, logging.DEBUG, "events forwarded"),
    facts.ForwardFailed: (EventFigures._forward_failed, logging.WARNING, "database not reached"),
    facts.ForwardConflict: (
        lambda of, _: of._conflicts.inc(), logging.ERROR, "database holds another event under this sequence number",
    ),
    facts.ProjectionRefused: (
        lambda of, _: of._refused.inc(), logging.ERROR, "event is in the trail and could not change its job",
    ),
    facts.ChainGivenUp: (
        lambda of, fact: of._given_up.labels(one_of(MISFITS, fact.reason)).inc(),
        logging.CRITICAL, "the database's copy of this node's chain is another: a new chain begins",
    ),
    facts.GapRecorded: (lambda of, _: of._gaps.inc(), logging.WARNING, "what was given up is on record"),
}  # fmt: skip

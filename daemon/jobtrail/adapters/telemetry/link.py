"""The figures of the link between nodes and servers, at both of its ends."""

from __future__ import annotations

import logging
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from jobtrail.adapters.telemetry.handlers import Handlers
from jobtrail.adapters.telemetry.words import (
    LINK_CONTRADICTIONS,
    LINK_OUTCOMES,
    LINK_SUBJECTS,
    OTHER,
    one_of,
)
from jobtrail.core import facts

SERVED_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
STATUSES = ("200", "400", "401", "403", "408", "409", "413", "415", "422", "429", "503")


class LinkFigures:
    """What a node asked of servers, and what a server answered nodes."""

    def __init__(self, registry: CollectorRegistry, time_us: Callable[[], int]) -> None:
        self._time_us = time_us
        self._target = Gauge(
            "jobtrail_forward_target_info", "Where this daemon's events go.", ("target",), registry=registry
        )
        self._asked = Counter(
            "jobtrail_link_requests", "What this node asked of servers.", ("what", "outcome"), registry=registry
        )
        self._sent = Counter("jobtrail_link_sent_bytes", "Bodies sent to servers, as packed.", registry=registry)
        self._last = Gauge(
            "jobtrail_link_last_answer_timestamp_seconds", "When a server last took what it was asked.", ("server",),
            registry=registry,
        )  # fmt: skip
        self._served = Counter(
            "jobtrail_nodes_served", "Answers to nodes that forward here.", ("what", "status"), registry=registry
        )
        self._rows = Counter(
            "jobtrail_nodes_served_rows", "Events, samples and runs in what nodes forwarded and was taken.", ("what",),
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "jobtrail_nodes_served_seconds", "Time to answer a node.", buckets=SERVED_BUCKETS, registry=registry
        )
        self._contradicted = Counter(
            "jobtrail_node_contradictions", "Nodes that spoke in another node's name, refused.", ("what",),
            registry=registry,
        )  # fmt: skip
        for what in LINK_SUBJECTS:
            self._rows.labels(what)
            for outcome in LINK_OUTCOMES:
                self._asked.labels(what, outcome)
        for what in LINK_CONTRADICTIONS:
            self._contradicted.labels(what)

    def target(self, target: str) -> None:
        """Show where events go."""
        self._target.labels(target).set(1)

    def asked(self, fact: facts.ServerAsked) -> None:
        """Count what this node asked. A server that refuses the content has still answered."""
        self._asked.labels(one_of(LINK_SUBJECTS, fact.what), one_of(LINK_OUTCOMES, fact.outcome)).inc()
        self._sent.inc(fact.sent_bytes)
        if fact.outcome in {"ok", "gap", "refused"}:
            self._last.labels(fact.server).set(self._time_us() / 1e6)

    def served(self, fact: facts.NodeServed) -> None:
        """Count an answer to a node."""
        what = one_of(LINK_SUBJECTS, fact.what)
        self._served.labels(what, one_of(STATUSES, str(fact.status))).inc()
        self._seconds.observe(fact.seconds)
        if fact.status == 200:
            self._rows.labels(what).inc(fact.rows)

    def contradicted(self, fact: facts.NodeContradicted) -> None:
        """Count a node that spoke in another's name."""
        self._contradicted.labels(one_of((*LINK_CONTRADICTIONS, OTHER), fact.what)).inc()


HANDLERS: Handlers[LinkFigures] = {
    facts.ServerAsked: (LinkFigures.asked, logging.DEBUG, "server asked"),
    facts.NodeServed: (LinkFigures.served, logging.DEBUG, "node answered"),
    facts.NodeContradicted: (
        LinkFigures.contradicted, logging.WARNING, "node spoke in another node's name, refused",
    ),
}  # fmt: skip

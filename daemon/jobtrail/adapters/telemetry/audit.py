"""Figures of the sealed trail. What Prometheus scrapes here is itself a witness: it keeps number and root over time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobtrail.adapters.telemetry.handlers import Handlers
from jobtrail.adapters.telemetry.words import FINDINGS, OTHER, VERIFICATIONS, WITNESS_PROBLEMS, one_of
from jobtrail.core.trail import facts


class AuditFigures(Collector):
    """Counts facts about sealing, verifying and witnessing; shows the newest checkpoint with its age."""

    def __init__(self, registry: CollectorRegistry, time_us: Callable[[], int]) -> None:
        self._time_us = time_us
        self._seen: facts.CheckpointSeen | None = None
        self._failures = Counter(
            "jobtrail_audit_seal_failures", "Turns in which nothing was sealed, or a checkpoint not kept.",
            registry=registry,
        )  # fmt: skip
        self._sealed = Counter(
            "jobtrail_audit_rows_sealed", "Rows of the trail that checkpoints of this daemon cover.", registry=registry
        )
        self._turn = Gauge(
            "jobtrail_audit_seal_turn_timestamp_seconds", "When this daemon, as the leader, last sealed what was new.",
            registry=registry,
        )  # fmt: skip
        self._verified = Gauge(
            "jobtrail_audit_last_verified_timestamp_seconds", "When the trail was last recomputed without a finding.",
            ("kind",), registry=registry,
        )  # fmt: skip
        self._verify_failures = Counter(
            "jobtrail_audit_verify_failures", "Verifications with findings, and those that could not be done.",
            registry=registry,
        )  # fmt: skip
        self._findings = Counter(
            "jobtrail_audit_findings", "Rows and checkpoints that are not what they were.", ("code",), registry=registry
        )
        for code in (*FINDINGS, OTHER):
            self._findings.labels(code)
        self._mismatches = Counter(
            "jobtrail_audit_witness_mismatches", "Checkpoints that contradict this node's own chain or memory.",
            ("problem",), registry=registry,
        )  # fmt: skip
        for problem in (*WITNESS_PROBLEMS, OTHER):
            self._mismatches.labels(problem)
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Nothing to announce: the families are there once a checkpoint is."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The newest checkpoint that is known here; nothing before the first."""
        if self._seen is None:
            return
        age = max(0, self._time_us() - self._seen.sealed_us) / 1e6
        yield GaugeMetricFamily(
            "jobtrail_audit_checkpoint_number", "Number of the newest checkpoint known here.", value=self._seen.number
        )
        info = GaugeMetricFamily(
            "jobtrail_audit_checkpoint_info",
            "First digits of that checkpoint's own hash and of its root.",
            labels=("number", "digest", "root"),
        )
        info.add_metric((str(self._seen.number), self._seen.digest, self._seen.root), 1)
        yield info
        yield GaugeMetricFamily("jobtrail_audit_anchor_age_seconds", "Age of that checkpoint.", value=age)

    def seen(self, fact: facts.CheckpointSeen) -> None:
        """Show another checkpoint."""
        self._seen = fact

    def sealed(self, fact: facts.CheckpointSealed) -> None:
        """Count its rows."""
        self._sealed.inc(fact.rows)

    def seal_turn(self, _: facts.SealTurn) -> None:
        """Note the time."""
        self._turn.set(self._time_us() / 1e6)

    def seal_failed(self, _: facts.SealFailed) -> None:
        """Count it."""
        self._failures.inc()

    def broken(self, fact: facts.TrailBroken) -> None:
        """Count it by its code."""
        self._findings.labels(one_of(FINDINGS, fact.code)).inc()

    def verified(self, fact: facts.TrailVerified) -> None:
        """Note the time of a verification without findings, count one with."""
        if fact.findings:
            self._verify_failures.inc()
        else:
            self._verified.labels(one_of(VERIFICATIONS, fact.kind)).set(self._time_us() / 1e6)

    def verify_failed(self, _: facts.VerifyFailed) -> None:
        """Count it."""
        self._verify_failures.inc()

    def mismatch(self, fact: facts.WitnessMismatch) -> None:
        """Count it by its kind."""
        self._mismatches.labels(one_of(WITNESS_PROBLEMS, fact.problem)).inc()


HANDLERS: Handlers[AuditFigures] = {
    facts.CheckpointSeen: (AuditFigures.seen, logging.DEBUG, "newest checkpoint seen"),
    facts.CheckpointSealed: (AuditFigures.sealed, logging.INFO, "checkpoint sealed"),
    facts.SealTurn: (AuditFigures.seal_turn, logging.DEBUG, "nothing is left to be sealed"),
    facts.SealFailed: (AuditFigures.seal_failed, logging.WARNING, "trail not sealed"),
    facts.TrailBroken: (AuditFigures.broken, logging.ERROR, "the trail is not what it was"),
    facts.TrailVerified: (AuditFigures.verified, logging.INFO, "trail verified"),
    facts.VerifyFailed: (AuditFigures.verify_failed, logging.WARNING, "trail not verified"),
    facts.WitnessMismatch: (
        AuditFigures.mismatch, logging.ERROR, "the database's checkpoint contradicts what this node knows",
    ),
}  # fmt: skip

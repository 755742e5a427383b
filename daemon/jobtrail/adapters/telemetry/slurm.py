"""Figures of what Slurm is asked and told."""

from __future__ import annotations

import logging
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from jobtrail.adapters.telemetry.handlers import Handlers, counter
from jobtrail.adapters.telemetry.words import CLOSINGS, COMMENT_RESULTS, ORIGINS, QUESTIONS, one_of
from jobtrail.core import facts


class SlurmFigures:
    """Counts facts about Slurm and its accounting."""

    def __init__(self, registry: CollectorRegistry, time_us: Callable[[], int]) -> None:
        self._time_us = time_us
        self._ask_failures = counter(
            registry, "slurm_failures", "Questions Slurm did not answer.", "question", QUESTIONS
        )
        self._unreadable = counter(registry, "slurm_records_unreadable", "Records of Slurm's answers not understood.")
        self._answers = Gauge(
            "jobtrail_slurm_last_answer_timestamp_seconds", "When Slurm last answered.", ("question",),
            registry=registry,
        )  # fmt: skip
        self._reconciled = counter(registry, "runs_reconciled", "Slurm's words on runs, recorded.", "origin", ORIGINS)
        self._closed = counter(
            registry, "runs_closed", "Runs closed whose end nobody had reported.", "reason", CLOSINGS
        )
        self._comments = counter(
            registry, "admin_comments", "AdminComments of runs seen to.", "result", COMMENT_RESULTS
        )
        self._comments_refused = counter(
            registry, "admin_comment_failures", "Tries in which Slurm's accounting took no AdminComment."
        )

    def _slurm_answered(self, fact: facts.SlurmAnswered) -> None:
        self._answers.labels(one_of(QUESTIONS, fact.question)).set(self._time_us() / 1e6)


HANDLERS: Handlers[SlurmFigures] = {
    facts.SlurmAnswered: (SlurmFigures._slurm_answered, logging.DEBUG, "Slurm answered"),
    facts.SlurmAskFailed: (
        lambda of, fact: of._ask_failures.labels(one_of(QUESTIONS, fact.question)).inc(),
        logging.WARNING, "Slurm did not answer",
    ),
    facts.SlurmRecordUnreadable: (
        lambda of, _: of._unreadable.inc(), logging.WARNING, "a record of Slurm's answer is not understood",
    ),
    facts.RunReconciled: (
        lambda of, fact: of._reconciled.labels(one_of(ORIGINS, fact.origin)).inc(),
        logging.DEBUG, "Slurm's word on a run recorded",
    ),
    facts.RunClosed: (
        lambda of, fact: of._closed.labels(one_of(CLOSINGS, fact.reason)).inc(),
        logging.WARNING, "run closed whose end nobody had reported",
    ),
    facts.AdminCommentDone: (
        lambda of, fact: of._comments.labels(one_of(COMMENT_RESULTS, fact.result)).inc(),
        logging.DEBUG, "AdminComment seen to",
    ),
    facts.AdminCommentsRefused: (
        lambda of, _: of._comments_refused.inc(), logging.WARNING, "no AdminComment written",
    ),
}  # fmt: skip

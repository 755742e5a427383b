"""Figures of the looks at GPUs."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from jobtrail.adapters.telemetry.handlers import TICK_BUCKETS, Handlers, counter
from jobtrail.adapters.telemetry.words import GPU_ABSENT_REASONS, GPU_MISMATCHES, GPU_PROBLEMS, GPU_VENDORS, one_of
from jobtrail.core import facts


class GpuFigures:
    """Counts facts about GPUs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gpu_failures = Counter(
            "jobtrail_gpu_look_failures", "Looks that gave nothing of a vendor's GPUs.", ("gpu_vendor", "reason"),
            registry=registry,
        )  # fmt: skip
        self._gpu_absent = Counter(
            "jobtrail_gpu_values_absent", "Values that cannot be read, each counted once of a GPU and reason.",
            ("gpu_vendor", "reason"), registry=registry,
        )  # fmt: skip
        self._gpu_errors = Counter(
            "jobtrail_gpu_errors", "Errors of GPUs that the driver told.", ("gpu_vendor", "gpu_id", "code"),
            registry=registry,
        )  # fmt: skip
        self._gpu_look = Histogram(
            "jobtrail_gpu_look_seconds", "Time of one look at all GPUs of a vendor.", ("gpu_vendor",),
            buckets=TICK_BUCKETS, registry=registry,
        )  # fmt: skip
        help_text = "Jobs with a process on a GPU they do not hold, each counted once of a GPU."
        self._gpu_mismatches = counter(registry, "gpu_mismatches", help_text, "kind", GPU_MISMATCHES)

    def _gpu_errors_told(self, fact: facts.GpuErrorsTold) -> None:
        self._gpu_errors.labels(one_of(GPU_VENDORS, fact.vendor), fact.gpu_id, str(fact.code)).inc(fact.times)


def _gpu_labels(fact: facts.GpuLookFailed | facts.GpuValueAbsent, reasons: Iterable[str]) -> tuple[str, str]:
    return one_of(GPU_VENDORS, fact.vendor), one_of(reasons, fact.reason.partition(":")[0])


HANDLERS: Handlers[GpuFigures] = {
    facts.GpusLooked: (
        lambda of, fact: of._gpu_look.labels(one_of(GPU_VENDORS, fact.vendor)).observe(fact.seconds),
        logging.DEBUG, "GPUs looked at",
    ),
    facts.GpuLookFailed: (
        lambda of, fact: of._gpu_failures.labels(*_gpu_labels(fact, GPU_PROBLEMS)).inc(),
        logging.WARNING, "GPUs not read",
    ),
    facts.GpuValueAbsent: (
        lambda of, fact: of._gpu_absent.labels(*_gpu_labels(fact, GPU_ABSENT_REASONS)).inc(),
        logging.DEBUG, "a value of a GPU cannot be read",
    ),
    facts.GpuErrorsTold: (GpuFigures._gpu_errors_told, logging.WARNING, "the driver told errors of a GPU"),
    facts.GpuMismatch: (
        lambda of, fact: of._gpu_mismatches.labels(one_of(GPU_MISMATCHES, fact.kind)).inc(),
        logging.WARNING, "a job's process is on a GPU the job does not hold",
    ),
}  # fmt: skip

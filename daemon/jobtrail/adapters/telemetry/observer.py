"""The daemon about itself: each fact becomes one log line and one figure."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest

import jobtrail
from jobtrail.adapters.telemetry import audit, benchmarks, clocks, events, gpus, link, samples, slurm
from jobtrail.adapters.telemetry.collectors import SpoolFigures, WithoutCreated
from jobtrail.adapters.telemetry.handlers import Figures, Handlers
from jobtrail.adapters.telemetry.line_budget import LineBudget
from jobtrail.adapters.telemetry.words import REJECT_REASONS, ROUTINE, one_of
from jobtrail.core import facts
from jobtrail.core.ports import SpoolStatus

LOGGER = "jobtrail"
SERVER_NOT_REACHED = "server not reached"


def _wall_clock_us() -> int:
    return time.time_ns() // 1_000


def _bound(
    handlers: Handlers[Figures], figures: Figures
) -> Iterator[tuple[type[Any], tuple[Callable[[Any], None], int, str]]]:
    for fact, (count, level, message) in handlers.items():
        yield fact, (partial(count, figures), level, message)


class Telemetry:
    """The observer of all facts, and the page of the daemon's own figures."""

    def __init__(self, *, time_us: Callable[[], int] = _wall_clock_us) -> None:
        self.registry = CollectorRegistry()
        self._page = WithoutCreated(self.registry)
        self._time_us = time_us
        self._refusal_lines = LineBudget(time.monotonic)
        self._listeners: list[facts.Observer] = []
        self._to_servers = False
        self._not_reached = False  # whether the last batch failed
        self._log = structlog.stdlib.get_logger(LOGGER)
        self._stdlib_log = logging.getLogger(LOGGER)
        ProcessCollector(registry=self.registry)
        self._link = link.LinkFigures(self.registry, time_us)
        self._handlers = dict(
            (
                *_bound(events.HANDLERS, events.EventFigures(self.registry)),
                *_bound(samples.HANDLERS, samples.SampleFigures(self.registry)),
                *_bound(slurm.HANDLERS, slurm.SlurmFigures(self.registry, time_us)),
                *_bound(gpus.HANDLERS, gpus.GpuFigures(self.registry)),
                *_bound(benchmarks.HANDLERS, benchmarks.BenchmarkFigures(self.registry)),
                *_bound(audit.HANDLERS, audit.AuditFigures(self.registry, time_us)),
                *_bound(clocks.HANDLERS, clocks.ClockFigures(self.registry)),
                *_bound(link.HANDLERS, self._link),
            )
        )
        build = Gauge("jobtrail_build_info", "Version of the daemon.", ("version", "python"), registry=self.registry)
        build.labels(jobtrail.__version__, platform.python_version()).set(1)

    def watch_spool(self, status: Callable[[], SpoolStatus]) -> None:
        """Show the spool's figures; `status` must not block."""
        self.registry.register(SpoolFigures(status, self._time_us))

    def forwards_to(self, target: str | None) -> None:
        """Show where events go; None: nowhere."""
        if target is not None:
            self._link.target(target)
            self._to_servers = target.startswith(("https://", "http://"))

    def started(self, **details: object) -> None:
        """The daemon takes events now."""
        self._log.info("started", version=jobtrail.__version__, **details)

    def warn(self, message: str, **details: object) -> None:
        """Something an administrator should know and no fact counts."""
        self._log.warning(message, **details)

    def note(self, message: str, **details: object) -> None:
        """Something good to know and nothing to do about."""
        self._log.info(message, **details)

    def render(self) -> bytes:
        """The daemon's own families in text format 0.0.4. Reads memory, and /proc/self for the process_ families."""
        return generate_latest(self._page)

    def tell_too(self, listener: facts.Observer) -> None:
        """Have `listener` told of each fact as well."""
        self._listeners.append(listener)

    def observe(self, fact: facts.Fact) -> None:
        """Count a fact and log it."""
        for listener in self._listeners:
            listener(fact)
        count, level, message = self._handlers[type(fact)]
        count(fact)
        if self._to_servers and isinstance(fact, facts.ForwardFailed):
            message = SERVER_NOT_REACHED
        level = self._level_after_failure(fact, _level(fact, level))
        if isinstance(fact, facts.EventRejected) and not self._refusal_lines.take(one_of(REJECT_REASONS, fact.reason)):
            level = logging.DEBUG
        if self._stdlib_log.isEnabledFor(level):
            self._log.log(level, message, **msgspec.structs.asdict(fact))

    def _level_after_failure(self, fact: facts.Fact, level: int) -> int:
        """The first batch that arrives after some that did not is told to everybody: it says that this is over."""
        if isinstance(fact, facts.ForwardFailed):
            self._not_reached = True
        elif isinstance(fact, facts.EventsForwarded) and self._not_reached:
            self._not_reached = False
            return logging.INFO
        return level


def _level(fact: facts.Fact, level: int) -> int:
    """The log's level of a fact: a hook's retry and the collector's own events are for those who ask for detail."""
    if isinstance(fact, facts.NodeServed):
        return logging.WARNING if fact.status in {400, 401, 403, 413, 415, 422} else level
    if isinstance(fact, facts.EventAccepted) and (fact.duplicate or fact.kind in ROUTINE):
        return logging.DEBUG
    if (
        isinstance(fact, facts.GpuLookFailed | facts.BenchmarksNotSettled | facts.AdminCommentsRefused)
        and fact.repeated
    ):
        return logging.DEBUG
    if isinstance(fact, facts.BenchmarkJudged) and fact.verdict == "regression":
        return logging.WARNING
    if isinstance(fact, facts.AdminCommentDone) and fact.result == "failed":
        return logging.WARNING
    return level

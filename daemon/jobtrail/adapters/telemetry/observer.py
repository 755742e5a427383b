"""The daemon about itself: each fact becomes one log line and one figure."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

import jobtrail
from jobtrail.adapters.telemetry.audit import HANDLERS as AUDIT_HANDLERS
from jobtrail.adapters.telemetry.audit import AuditFigures
from jobtrail.adapters.telemetry.clocks import HANDLERS as CLOCK_HANDLERS
from jobtrail.adapters.telemetry.clocks import ClockFigures
from jobtrail.adapters.telemetry.collectors import SpoolFigures, WithoutCreated
from jobtrail.adapters.telemetry.line_budget import LineBudget
from jobtrail.adapters.telemetry.link_figures import LinkFigures
from jobtrail.adapters.telemetry.words import (
    BENCHMARK_LINKS,
    CLOSINGS,
    COMMENT_RESULTS,
    DROP_REASONS,
    FORWARD_REASONS,
    FOUND_BY,
    GPU_ABSENT_REASONS,
    GPU_MISMATCHES,
    GPU_PROBLEMS,
    GPU_VENDORS,
    KINDS,
    MISFITS,
    MISS_REASONS,
    ORIGINS,
    OTHER,
    QUESTIONS,
    READER_REASONS,
    READERS,
    REJECT_REASONS,
    ROUTINE,
    SECURITY_WHATS,
    VERDICTS,
    forward_reason,
    one_of,
)
from jobtrail.core import facts
from jobtrail.core.ports import SpoolStatus

LOGGER = "jobtrail"
SERVER_NOT_REACHED = "server not reached"
TICK_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.0)


def _wall_clock_us() -> int:
    return time.time_ns() // 1_000


class Telemetry:
    """The observer of all facts, and the page of the daemon's own figures."""

    def __init__(self, *, time_us: Callable[[], int] = _wall_clock_us) -> None:
        self.registry = CollectorRegistry()
        self._page = WithoutCreated(self.registry)
        self._time_us = time_us
        self._refusal_lines = LineBudget(time.monotonic)
        self._listeners: list[facts.Observer] = []
        self._to_servers = False
        self._log = structlog.stdlib.get_logger(LOGGER)
        self._stdlib_log = logging.getLogger(LOGGER)
        ProcessCollector(registry=self.registry)
        self._make_event_figures()
        self._make_sample_figures()
        self._make_slurm_figures()
        self._make_gpu_figures()
        self._make_benchmark_figures()
        self._audit = AuditFigures(self.registry, time_us)
        self._clocks = ClockFigures(self.registry)
        self._link = LinkFigures(self.registry)
        build = Gauge("jobtrail_build_info", "Version of the daemon.", ("version", "python"), registry=self.registry)
        build.labels(jobtrail.__version__, platform.python_version()).set(1)

    def _counter(self, name: str, help_text: str, label: str = "", values: Iterable[str] = ()) -> Counter:
        """A counter; every value of its label is there from the start, so that the first increase shows as one."""
        counter = Counter(f"jobtrail_{name}", help_text, (label,) if label else (), registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def _make_event_figures(self) -> None:
        self._received = self._counter("events_received", "Events durably held.", "kind", KINDS)
        self._deduplicated = self._counter("events_deduplicated", "Events that came again and were already held.")
        self._rejected = self._counter("events_rejected", "Requests refused.", "reason", (*REJECT_REASONS, OTHER))
        self._security = self._counter(
            "security_events", "Those who were turned away and should not have come.", "what", (*SECURITY_WHATS, OTHER)
        )
        self._taken = self._counter("incoming_taken", "Events taken up from files that hooks had left.")
        self._quarantined = self._counter("incoming_quarantined", "Files of the spool directory that are no event.")
        self._drops = self._counter(
            "benchmark_files_taken", "Reports of benchmarks taken up from files users had left."
        )
        self._no_drops = self._counter(
            "benchmark_files_refused", "Files users had left that are no report, removed.", "reason",
            (*DROP_REASONS, OTHER),
        )  # fmt: skip
        self._forwarded = self._counter("events_forwarded", "Events stored in the database.")
        self._replayed = self._counter("events_replayed", "Events sent that the database already held.")
        self._conflicts = self._counter("forward_conflicts", "Events the database holds with another hash.")
        self._refused = self._counter("projection_refused", "Events in the trail that could not change their job.")
        self._adopted = self._counter("jobs_adopted", "Running jobs found at start.", "found_by", FOUND_BY)
        self._forward_failures = Counter(
            "jobtrail_forward_failures", "Tries to reach the database that failed.", ("of", "reason"),
            registry=self.registry,
        )  # fmt: skip
        for reason in (*FORWARD_REASONS, OTHER):
            self._forward_failures.labels("events", reason)
            self._forward_failures.labels("samples", reason)

    def _make_sample_figures(self) -> None:
        self._samples = self._counter("samples", "Looks at jobs, with or without a reading.")
        self._misses = self._counter("sample_misses", "Looks that gave no reading.", "reason", (*MISS_REASONS, OTHER))
        self._reader_errors = Counter(
            "jobtrail_reader_errors", "Readers that failed as a whole.", ("reader", "reason"), registry=self.registry
        )
        self._written = self._counter("samples_written", "Samples stored in the database.")
        self._thinned = self._counter("samples_thinned", "Samples given up so that others reach further back.")
        self._gaps = self._counter("gaps_recorded", "Events in the trail about what was given up for want of room.")
        self._given_up = self._counter(
            "chains_given_up", "Chains that did not fit the database's copy: a new one began.", "reason", MISFITS
        )
        self._dropped = self._counter("samples_dropped", "Samples given up: the database was away too long or refused.")
        self._partitions = self._counter(
            "partitions", "Days of samples made and dropped.", "change", ("made", "dropped")
        )
        self._chore_failures = self._counter("chore_failures", "Regular chores on the database that failed.")
        self._tick = Histogram(
            "jobtrail_tick_seconds", "Time of one look at all jobs that were due.", buckets=TICK_BUCKETS,
            registry=self.registry,
        )  # fmt: skip

    def _make_slurm_figures(self) -> None:
        self._ask_failures = self._counter("slurm_failures", "Questions Slurm did not answer.", "question", QUESTIONS)
        self._unreadable = self._counter("slurm_records_unreadable", "Records of Slurm's answers not understood.")
        self._answers = Gauge(
            "jobtrail_slurm_last_answer_timestamp_seconds", "When Slurm last answered.", ("question",),
            registry=self.registry,
        )  # fmt: skip
        self._reconciled = self._counter("runs_reconciled", "Slurm's words on runs, recorded.", "origin", ORIGINS)
        self._closed = self._counter("runs_closed", "Runs closed whose end nobody had reported.", "reason", CLOSINGS)
        self._comments = self._counter("admin_comments", "AdminComments of runs seen to.", "result", COMMENT_RESULTS)
        self._comments_refused = self._counter(
            "admin_comment_failures", "Tries in which Slurm's accounting took no AdminComment."
        )

    def _make_gpu_figures(self) -> None:
        self._gpu_failures = Counter(
            "jobtrail_gpu_look_failures", "Looks that gave nothing of a vendor's GPUs.", ("gpu_vendor", "reason"),
            registry=self.registry,
        )  # fmt: skip
        self._gpu_absent = Counter(
            "jobtrail_gpu_values_absent", "Values that cannot be read, each counted once of a GPU and reason.",
            ("gpu_vendor", "reason"), registry=self.registry,
        )  # fmt: skip
        self._gpu_errors = Counter(
            "jobtrail_gpu_errors", "Errors of GPUs that the driver told.", ("gpu_vendor", "gpu_id", "code"),
            registry=self.registry,
        )  # fmt: skip
        self._gpu_look = Histogram(
            "jobtrail_gpu_look_seconds", "Time of one look at all GPUs of a vendor.", ("gpu_vendor",),
            buckets=TICK_BUCKETS, registry=self.registry,
        )  # fmt: skip
        help_text = "Jobs with a process on a GPU they do not hold, each counted once of a GPU."
        self._gpu_mismatches = self._counter("gpu_mismatches", help_text, "kind", GPU_MISMATCHES)

    def _make_benchmark_figures(self) -> None:
        self._benchmarks_settled = self._counter(
            "benchmark_runs_settled", "Runs of benchmarks whose jobs and energy are settled.", "link", BENCHMARK_LINKS
        )
        self._benchmark_verdicts = self._counter(
            "benchmark_verdicts", "New verdicts on gated metrics of benchmarks.", "verdict", VERDICTS
        )
        self._benchmark_refusals = self._counter(
            "benchmark_refusals", "Results of benchmarks' runs that the database did not take."
        )
        self._benchmark_failures = self._counter(
            "benchmark_settle_failures", "Turns in which nothing was settled: the database was away."
        )
        self._benchmark_shed = self._counter(
            "benchmark_series_shed", "Benchmarks left off this page by benchmarks.max_series."
        )

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
        if (audit := AUDIT_HANDLERS.get(type(fact))) is not None:
            of_audit, level, message = audit
            of_audit(self._audit, fact)
        elif (clocks := CLOCK_HANDLERS.get(type(fact))) is not None:
            of_clocks, level, message = clocks
            of_clocks(self._clocks, fact)
        else:
            count, level, message = _HANDLERS[type(fact)]
            count(self, fact)
        if self._to_servers and isinstance(fact, facts.ForwardFailed):
            message = SERVER_NOT_REACHED
        level = _level(fact, level)
        if isinstance(fact, facts.EventRejected) and not self._refusal_lines.take(one_of(REJECT_REASONS, fact.reason)):
            level = logging.DEBUG
        if self._stdlib_log.isEnabledFor(level):
            self._log.log(level, message, **msgspec.structs.asdict(fact))

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

    def _sampled(self, fact: facts.JobSampled) -> None:
        self._samples.inc(fact.readings)
        self._tick.observe(fact.seconds)

    def _source_failed(self, fact: facts.SampleSourceFailed) -> None:
        reason = READER_REASONS.get(fact.reason.partition(":")[0], OTHER)
        self._reader_errors.labels(READERS.get(fact.source, OTHER), reason).inc()

    def _gpu_errors_told(self, fact: facts.GpuErrorsTold) -> None:
        self._gpu_errors.labels(one_of(GPU_VENDORS, fact.vendor), fact.gpu_id, str(fact.code)).inc(fact.times)

    def _slurm_answered(self, fact: facts.SlurmAnswered) -> None:
        self._answers.labels(one_of(QUESTIONS, fact.question)).set(self._time_us() / 1e6)

    def _partitions_kept(self, fact: facts.PartitionsKept) -> None:
        self._partitions.labels("made").inc(fact.created)
        self._partitions.labels("dropped").inc(fact.dropped)


def _gpu_labels(fact: facts.GpuLookFailed | facts.GpuValueAbsent, reasons: Iterable[str]) -> tuple[str, str]:
    return one_of(GPU_VENDORS, fact.vendor), one_of(reasons, fact.reason.partition(":")[0])


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


def _nothing(_: Telemetry, __: facts.Fact) -> None:
    """The figure is on the page from elsewhere: the board itself counts the jobs it sheds."""


# fact → what counts it, its level in the log, its line
_HANDLERS: Mapping[type[facts.Fact], tuple[Callable[[Telemetry, Any], None], int, str]] = MappingProxyType(
    {
        facts.EventAccepted: (Telemetry._accepted, logging.INFO, "event accepted"),
        facts.EventRejected: (
            lambda t, fact: t._rejected.labels(one_of(REJECT_REASONS, fact.reason)).inc(),
            logging.WARNING, "event rejected",
        ),
        facts.SecurityNoticed: (
            lambda t, fact: t._security.labels(one_of(SECURITY_WHATS, fact.what)).inc(),
            logging.WARNING, "turned away",
        ),
        facts.IncomingTaken: (lambda t, _: t._taken.inc(), logging.INFO, "event taken from the spool directory"),
        facts.IncomingQuarantined: (
            lambda t, _: t._quarantined.inc(), logging.ERROR, "file in the spool directory is no event",
        ),
        facts.DroppedReportTaken: (lambda t, _: t._drops.inc(), logging.INFO, "benchmark's report taken from a file"),
        facts.DroppedReportRefused: (
            lambda t, fact: t._no_drops.labels(one_of(DROP_REASONS, fact.reason)).inc(),
            logging.WARNING, "file among the reports of benchmarks is none, and was removed",
        ),
        facts.EventsForwarded: (Telemetry._batch_forwarded, logging.DEBUG, "events forwarded"),
        facts.ForwardFailed: (Telemetry._forward_failed, logging.WARNING, "database not reached"),
        facts.ForwardConflict: (
            lambda t, _: t._conflicts.inc(), logging.ERROR, "database holds another event under this sequence number",
        ),
        facts.ProjectionRefused: (
            lambda t, _: t._refused.inc(), logging.ERROR, "event is in the trail and could not change its job",
        ),
        facts.JobSampled: (Telemetry._sampled, logging.DEBUG, "jobs sampled"),
        facts.ReadingMissed: (
            lambda t, fact: t._misses.labels(one_of(MISS_REASONS, fact.reason)).inc(),
            logging.DEBUG, "job gave no reading",
        ),
        facts.SampleSourceFailed: (Telemetry._source_failed, logging.ERROR, "reader failed"),
        facts.SamplesWritten: (lambda t, fact: t._written.inc(fact.rows), logging.DEBUG, "samples written"),
        facts.SamplesThinned: (lambda t, fact: t._thinned.inc(fact.rows), logging.WARNING, "samples thinned out"),
        facts.GapRecorded: (lambda t, _: t._gaps.inc(), logging.WARNING, "what was given up is on record"),
        facts.ChainGivenUp: (
            lambda t, fact: t._given_up.labels(one_of(MISFITS, fact.reason)).inc(),
            logging.CRITICAL, "the database's copy of this node's chain is another: a new chain begins",
        ),
        facts.SamplesDropped: (lambda t, fact: t._dropped.inc(fact.rows), logging.WARNING, "samples dropped"),
        facts.JobAdopted: (
            lambda t, fact: t._adopted.labels(one_of(FOUND_BY, fact.found_by)).inc(),
            logging.INFO, "running job found at start",
        ),
        facts.SeriesShed: (_nothing, logging.WARNING, "cap on jobs reached: job has no series"),
        facts.PartitionsKept: (Telemetry._partitions_kept, logging.INFO, "days of samples made and dropped"),
        facts.SlurmAnswered: (Telemetry._slurm_answered, logging.DEBUG, "Slurm answered"),
        facts.SlurmAskFailed: (
            lambda t, fact: t._ask_failures.labels(one_of(QUESTIONS, fact.question)).inc(),
            logging.WARNING, "Slurm did not answer",
        ),
        facts.SlurmRecordUnreadable: (
            lambda t, _: t._unreadable.inc(), logging.WARNING, "a record of Slurm's answer is not understood",
        ),
        facts.RunReconciled: (
            lambda t, fact: t._reconciled.labels(one_of(ORIGINS, fact.origin)).inc(),
            logging.DEBUG, "Slurm's word on a run recorded",
        ),
        facts.RunClosed: (
            lambda t, fact: t._closed.labels(one_of(CLOSINGS, fact.reason)).inc(),
            logging.WARNING, "run closed whose end nobody had reported",
        ),
        facts.AdminCommentDone: (
            lambda t, fact: t._comments.labels(one_of(COMMENT_RESULTS, fact.result)).inc(),
            logging.DEBUG, "AdminComment seen to",
        ),
        facts.AdminCommentsRefused: (
            lambda t, _: t._comments_refused.inc(), logging.WARNING, "no AdminComment written",
        ),
        facts.GpusLooked: (
            lambda t, fact: t._gpu_look.labels(one_of(GPU_VENDORS, fact.vendor)).observe(fact.seconds),
            logging.DEBUG, "GPUs looked at",
        ),
        facts.GpuLookFailed: (
            lambda t, fact: t._gpu_failures.labels(*_gpu_labels(fact, GPU_PROBLEMS)).inc(),
            logging.WARNING, "GPUs not read",
        ),
        facts.GpuValueAbsent: (
            lambda t, fact: t._gpu_absent.labels(*_gpu_labels(fact, GPU_ABSENT_REASONS)).inc(),
            logging.DEBUG, "a value of a GPU cannot be read",
        ),
        facts.GpuErrorsTold: (Telemetry._gpu_errors_told, logging.WARNING, "the driver told errors of a GPU"),
        facts.GpuMismatch: (
            lambda t, fact: t._gpu_mismatches.labels(one_of(GPU_MISMATCHES, fact.kind)).inc(),
            logging.WARNING, "a job's process is on a GPU the job does not hold",
        ),
        facts.BenchmarkSettled: (
            lambda t, fact: t._benchmarks_settled.labels(one_of(BENCHMARK_LINKS, fact.link)).inc(),
            logging.INFO, "benchmark settled",
        ),
        facts.BenchmarkJudged: (
            lambda t, fact: t._benchmark_verdicts.labels(one_of(VERDICTS, fact.verdict)).inc(),
            logging.INFO, "benchmark judged",
        ),
        facts.BenchmarkRefused: (
            lambda t, _: t._benchmark_refusals.inc(), logging.ERROR, "database refuses what became of a benchmark",
        ),
        facts.BenchmarksNotSettled: (
            lambda t, _: t._benchmark_failures.inc(), logging.WARNING, "benchmarks not settled",
        ),
        facts.BenchmarkSeriesShed: (
            lambda t, fact: t._benchmark_shed.inc(fact.series),
            logging.WARNING, "cap on series of benchmarks reached",
        ),
        facts.ChoreFailed: (lambda t, _: t._chore_failures.inc(), logging.WARNING, "chore not done"),
        facts.ServerAsked: (
            lambda t, fact: t._link.asked(fact, t._time_us() / 1e6), logging.DEBUG, "server asked",
        ),
        facts.NodeServed: (lambda t, fact: t._link.served(fact), logging.DEBUG, "node answered"),
        facts.NodeContradicted: (
            lambda t, fact: t._link.contradicted(fact), logging.WARNING, "node spoke in another node's name, refused",
        ),
    }
)  # fmt: skip

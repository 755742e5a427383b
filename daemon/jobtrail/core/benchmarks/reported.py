"""Reports of benchmarks become events: checked, with the kernel's word about who sent them, and within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from jobtrail.core.benchmarks.ports import Reporter
from jobtrail.core.benchmarks.shares import ReportShares
from jobtrail.core.ports import Clock, EventIntake, Receipt, SpoolStatus
from jobtrail.domain.benchmarks.report import BaselineDecision, BenchmarkReport, LinkSource, report_event_id
from jobtrail.domain.benchmarks.submitted import read_report
from jobtrail.domain.errors import InvalidEvent, SpoolFull
from jobtrail.domain.events import Actor, Event, EventKind, request_digest

SOURCE = "bench"
DIGEST_NAME = "benchmark"  # stands in the digest where that of a hook's event has the hook
FOR_HOOKS = 0.1  # of the spool: what anybody may send leaves that much for the events of jobs


class ReportedBenchmarks:
    """Takes reports and decisions of people into the intake.

    `owner_of_run(cluster, job_id)` is the uid of a run that is open on this node; `user_name_of` may block.
    """

    def __init__(
        self,
        intake: EventIntake,
        *,
        owner_of_run: Callable[[str, str], int | None],
        user_name_of: Callable[[int], str | None],
        spool_status: Callable[[], SpoolStatus],
        clock: Clock,
        node: str,
        cluster: str,
        local_cluster: str,
    ) -> None:
        self._intake = intake
        self._owner_of_run = owner_of_run
        self._user_name_of = user_name_of
        self._spool_status = spool_status
        self._clock = clock
        self._node = node
        self._cluster = cluster
        self._local_cluster = local_cluster
        self._shares = ReportShares(clock)

    def admit(self, reporter: Reporter) -> None:
        """Take one report off a user's share. Raises TooManyReports, SpoolFull."""
        status = self._spool_status()
        if status.bytes_used > (1 - FOR_HOOKS) * status.bytes_limit:
            raise SpoolFull(status.bytes_limit)
        if not reporter.trusted:
            self._shares.book(reporter.uid)

    async def take(self, body: bytes, reporter: Reporter, *, by: Actor, event_id: str | None = None) -> Receipt:
        """Record the report in `body`. Raises InvalidEvent, EventConflict, SpoolFull, SpoolBroken."""
        if not reporter.trusted:
            self._shares.charge(reporter.uid, len(body))
        # In a thread: a mebibyte takes tens of milliseconds, in which no hook would be answered.
        report = await asyncio.to_thread(read_report, body, now_us=self._clock.time_us())
        expected = report_event_id(report.run_uid, body)
        if event_id not in (None, expected):
            raise InvalidEvent(
                "Jobtrail-Event-Id", f"must be {expected}, which these bytes of this run give, or absent"
            )
        name = await asyncio.to_thread(self._user_name_of, reporter.uid)
        report = msgspec.structs.replace(
            report, uid=reporter.uid, user_name=name, from_job=self._is_from_job(report, reporter.uid)
        )
        event = self._event(
            EventKind.BENCHMARK_RECORDED, expected, cluster=self._cluster_of(report), by=by, source=SOURCE
        )
        event = msgspec.structs.replace(event, benchmark=report)
        return await self._intake.accept(event, request_digest(DIGEST_NAME, "", body))

    async def decide(
        self, decision: BaselineDecision, *, event_id: str, by: Actor, source: str, note: str | None
    ) -> Receipt:
        """Record a person's decision about a run. Raises EventConflict, SpoolFull, SpoolBroken."""
        cluster = self._cluster or self._local_cluster
        event = self._event(EventKind.BASELINE_DECIDED, event_id, cluster=cluster, by=by, source=source)
        event = msgspec.structs.replace(event, baseline=decision, note=note)
        said = msgspec.json.encode([decision, note], order="sorted")
        return await self._intake.accept(event, request_digest("baseline", "", said))

    def _event(self, kind: EventKind, event_id: str, *, cluster: str, by: Actor, source: str) -> Event:
        return Event(
            kind=kind,
            event_id=event_id,
            time_us=self._clock.time_us(),
            cluster=cluster,
            job_id=None,
            node=self._node,
            changed_by=by,
            source=source,
        )

    def _is_from_job(self, report: BenchmarkReport, uid: int) -> bool:
        """Whether every job that the manifest names runs here and now, as the sender: one forged among true ones must
        not be believed with them."""
        claims = [claim for claim in report.jobs if claim.source is LinkSource.MANIFEST]
        return bool(claims) and all(
            self._owner_of_run(claim.cluster or self._default_cluster(claim.job_id), claim.job_id) == uid
            for claim in claims
        )

    def _cluster_of(self, report: BenchmarkReport) -> str:
        claimed = (claim.cluster or self._default_cluster(claim.job_id) for claim in report.jobs)
        return self._cluster or next(filter(None, claimed), "") or self._local_cluster

    def _default_cluster(self, job_id: str) -> str:
        return self._local_cluster if job_id.startswith("local-") else self._cluster

"""Handler of GET /v1/jobs/{id}/report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.readers import may_read
from jobtrail.adapters.http.refusals import forbidden, json_answer
from jobtrail.adapters.http.senders import Gate
from jobtrail.adapters.http.tokens import Door
from jobtrail.adapters.http.turns import Turns
from jobtrail.adapters.http.wishes import prefers
from jobtrail.core.ports import Clock
from jobtrail.core.query_ports import JobDetail, JobReader
from jobtrail.domain.job_ids import parse_job_id
from jobtrail.domain.job_report import JobReport
from jobtrail.domain.job_report_making import make_report
from jobtrail.domain.job_report_timeline import Timeline

PARAMETERS = ("run", "cluster")
ALLOWED_ID = "must be slurm-N, local-N, or N for slurm-N, N being a whole number from 1"
_OUTCOME = (
    "state", "verdict", "state_confirmed", "outcome_source", "raw_state", "reason", "exit_code", "exit_signal",
    "derived_exit_code", "derived_exit_signal", "out_of_memory_step",
)  # fmt: skip


class HtmlPages(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a report a page. `policy` is its Content-Security-Policy: its own style and nothing else."""

    render: Callable[[JobReport, Timeline, datetime], str]
    policy: str


class Reports:
    """Tells how a job ended and how well it used what it had, to those whom it concerns.

    Over TCP nobody is known, on a loopback port as little as elsewhere: who asks shows a token. On a Unix socket the
    kernel names who asks: root and Slurm's user read of every job, other users of their own.
    """

    def __init__(
        self,
        jobs: JobReader | None,
        *,
        gate: Gate,
        token: Door,
        turns: Turns,
        clock: Clock,
        pages: HtmlPages | None = None,
    ) -> None:
        """Without `pages`, JSON is all there is."""
        self._jobs = jobs
        self._clock = clock
        self._pages = pages
        self._gate = gate
        self._token = token
        self._turns = turns

    async def report(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/{id}/report."""
        reader = self._gate.local_peer(request)
        if reader is None:
            self._token.check(request)
        job_id = request.match_info["id"]
        parse_job_id(job_id)
        query.check_parameters(request, PARAMETERS)
        run = query.number(request, "run", least=1, most=query.LAST_RUN)
        cluster = query.name(request, "cluster")
        if self._jobs is None:
            raise query.no_database()
        with self._turns.taken(reader):
            detail = await self._jobs.show_job(job_id, run=run, cluster=cluster)
            if reader is not None and not may_read(reader, detail.job):
                raise forbidden(
                    f"uid {reader.uid} may read only their own jobs; {detail.job['job_id']} is of another user"
                )
            now = datetime.fromtimestamp(self._clock.time_us() / 1_000_000, tz=UTC)
            if self._pages is None or not prefers(request, "text/html"):
                return json_answer(200, report(detail, summary_of(detail, now)), {"Vary": "Accept"})
            timeline = await self._jobs.job_timeline(detail, now=now)
            # Thousands of points become text: not in the loop that takes the hooks' events.
            page = await asyncio.to_thread(self._pages.render, summary_of(detail, now), timeline, now)
        return web.Response(text=page, content_type="text/html", charset="utf-8", headers=self._headers(self._pages))

    @staticmethod
    def _headers(pages: HtmlPages) -> dict[str, str]:
        return {
            "Content-Security-Policy": pages.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "private, no-store",
            "Vary": "Accept",
        }


def summary_of(detail: JobDetail, now: datetime) -> JobReport:
    """What the report says, figures worked out."""
    return make_report(
        detail.job,
        sentence=detail.sentence,
        nodes=detail.nodes,
        gpus=detail.gpus,
        other_runs=detail.other_runs,
        now=now,
    )


def report(detail: JobDetail, summary: JobReport) -> dict[str, Any]:
    """The answer's body: the sentence and the figures first, then the rows they rest on."""
    job = detail.job
    return {
        "job_id": job["job_id"],
        "cluster_name": job["cluster_name"],
        "run": job["run"],
        "sentence": detail.sentence,
        "outcome": {**{name: job[name] for name in _OUTCOME}, "evidence": job["verdict_evidence"]},
        "summary": summary,
        "efficiency": detail.efficiency,
        "sources": {
            "outcome": job["outcome_source"], "usage": job["usage_sources"] or {}, "absent": job["usage_absent"] or {}
        },
        "job": job,
        "nodes": detail.nodes,
        "gpus": detail.gpus,
        "benchmarks": detail.benchmarks,
        "other_runs": [{"cluster_name": cluster, "run": run} for cluster, run in detail.other_runs],
    }  # fmt: skip

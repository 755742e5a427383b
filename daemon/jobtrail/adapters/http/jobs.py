"""Handlers of GET /v1/jobs, GET /v1/jobs/{id} and GET /v1/jobs/{id}/metrics."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.csv_page import csv_answer, wants_csv
from jobtrail.adapters.http.etags import tagged
from jobtrail.adapters.http.readers import Readers
from jobtrail.adapters.http.refusals import json_answer
from jobtrail.core.ports import Clock
from jobtrail.core.query_ports import JOB_COLUMNS, JobFilter, JobQueries, SampleReader, SampleWindow
from jobtrail.domain.job_ids import parse_job_id
from jobtrail.domain.states import State

STATES = tuple(State)
LIST_PARAMETERS = (
    "state", "user", "account", "partition", "node", "cluster", "since", "until", "limit", "offset", "format"
)  # fmt: skip
SHOW_PARAMETERS = ("run", "cluster")
METRICS_PARAMETERS = ("run", "cluster", "start_time", "end_time", "limit", "step")
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MAX_OFFSET = 10_000_000
DEFAULT_SAMPLES, MAX_SAMPLES = 1000, 10_000
MAX_STEP_SECONDS = 86_400


class Jobs:
    """Tells of jobs to those whom they concern."""

    def __init__(
        self, jobs: JobQueries | None, samples: SampleReader | None, *, readers: Readers, clock: Clock
    ) -> None:
        self._jobs = jobs
        self._samples = samples
        self._readers = readers
        self._clock = clock

    async def jobs(self, request: web.Request) -> web.Response:
        """GET /v1/jobs. Users who are not trusted are told of their own, whatever else they ask for."""
        reader = self._readers.reader(request)
        query.check_parameters(request, LIST_PARAMETERS)
        state = query.name(request, "state")
        if state is not None and state not in STATES:
            raise query.invalid("state", f"must be one of {', '.join(STATES)}, not {state[:32]!r}")
        account = query.name(request, "account")
        wanted = JobFilter(
            state=state,
            **{field: query.name(request, field) for field in ("user", "account", "partition", "node", "cluster")},
            since=query.moment(request, "since"),
            until=query.moment(request, "until"),
            uid=reader.uid_of(account),
        )
        limit = query.number(request, "limit", least=1, most=MAX_LIMIT) or DEFAULT_LIMIT
        offset = query.number(request, "offset", least=0, most=MAX_OFFSET) or 0
        as_csv = wants_csv(request)
        with self._readers.turn(reader):
            page = await self._asked().list_jobs(wanted, limit=limit, offset=offset)
            if as_csv:  # a thousand rows of ninety columns: not in the loop that takes the hooks' events
                answer = await asyncio.to_thread(csv_answer, page.jobs, JOB_COLUMNS, name="jobs.csv", total=page.total)
            else:
                answer = json_answer(200, {"jobs": page.jobs, "total": page.total})
        return tagged(request, answer)

    async def show(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/{id}."""
        reader = self._readers.reader(request)
        job_id, run, cluster = _which(request, SHOW_PARAMETERS)
        with self._readers.turn(reader):
            detail = await self._asked().show_job(job_id, run=run, cluster=cluster)
        reader.check_may_read(detail.job)
        others = [{"cluster_name": name, "run": other} for name, other in detail.other_runs]
        return tagged(request, json_answer(200, {**detail.job, "sentence": detail.sentence, "other_runs": others}))

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/{id}/metrics."""
        reader = self._readers.reader(request)
        job_id, run, cluster = _which(request, METRICS_PARAMETERS)
        window = _window(request)
        if self._samples is None:
            raise query.no_database()
        with self._readers.turn(reader):
            job = (await self._asked().show_job(job_id, run=run, cluster=cluster)).job
            reader.check_may_read(job)
            now = datetime.fromtimestamp(self._clock.time_us() / 1_000_000, tz=UTC)
            found = await self._samples.job_samples(job, window, now=now)
        body = {
            **{name: job[name] for name in ("job_id", "cluster_name", "run")},
            "start_time": found.start_time,
            "end_time": found.end_time,
            "step_seconds": window.step_seconds,
            "samples": found.samples,
            "gpu_samples": found.gpu_samples,
            "truncated": found.truncated,
        }
        return tagged(request, json_answer(200, body))

    def _asked(self) -> JobQueries:
        if self._jobs is None:
            raise query.no_database()
        return self._jobs


def _which(request: web.Request, parameters: tuple[str, ...]) -> tuple[str, int | None, str | None]:
    """The job, its run and its cluster. Raises Refused, InvalidEvent."""
    job_id = request.match_info["id"]
    parse_job_id(job_id)
    query.check_parameters(request, parameters)
    return job_id, query.number(request, "run", least=1, most=query.LAST_RUN), query.name(request, "cluster")


def _window(request: web.Request) -> SampleWindow:
    """Which samples. Raises Refused, InvalidEvent."""
    begin, end = query.moment(request, "start_time"), query.moment(request, "end_time")
    if begin is not None and end is not None and end <= begin:
        raise query.invalid("end_time", "must be after start_time")
    return SampleWindow(
        start_time=begin,
        end_time=end,
        limit=query.number(request, "limit", least=1, most=MAX_SAMPLES) or DEFAULT_SAMPLES,
        step_seconds=query.number(request, "step", least=1, most=MAX_STEP_SECONDS),
    )

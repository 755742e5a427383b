"""A client of the REST API, for scripts and notebooks.

    async with Client(socket="/run/jobtrail/poke.sock") as jobtrail:
        page = await jobtrail.jobs(state="failed", limit=10)

Over a Unix socket the kernel says who asks; over TCP it takes the token of http.read_token_file. Every method raises
ApiError for an answer that is no 2xx and Unreachable where there is none. Times need a zone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from jobtrail.client_rows import (
    AuditEvent,
    AuditEvents,
    BenchmarkPage,
    Job,
    JobMetrics,
    JobPage,
    JobShown,
    Leaderboard,
    NodePage,
    Report,
    Row,
    Written,
)
from jobtrail.domain.analytics import Question
from jobtrail.domain.analytics_answer import Analysis
from jobtrail.domain.errors import JobtrailError

T = TypeVar("T")
OK, CREATED = 200, 201
Word = str | int | datetime | None
PAGE = 500  # rows a question where all are asked for


class ApiError(JobtrailError):
    """The API said no. `code` is its word, such as not_found; `field` what of the question is wrong, where it says."""

    def __init__(self, status: int, code: str, message: str, field: str | None) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message
        self.field = field


class Unreachable(JobtrailError):
    """Nobody answered, not in time, or somebody who is not Jobtrail."""


class Author(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes: the name goes on record as it is, beside what the daemon knows of who sent it.

    `correlation_id`, a UUID, is kept with each change. `event_id`, a UUID, makes a change that is sent again the same.
    """

    changed_by: str
    source: str = "client"  # what it is written with: small letters, digits, _ and -
    correlation_id: str | None = None
    event_id: str | None = None

    def headers(self) -> dict[str, str]:
        """As the API wants them."""
        named = {
            "X-Changed-By": self.changed_by,
            "X-Source": self.source,
            "X-Correlation-Id": self.correlation_id,
            "Jobtrail-Event-Id": self.event_id,
        }
        return {name: value for name, value in named.items() if value is not None}


class _Details(msgspec.Struct):
    field: str | None = None


class _Problem(msgspec.Struct):
    error: str
    message: str
    details: _Details


class Client:
    """Asks one daemon. To be entered with `async with`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        socket: str | None = None,
        token: str | None = None,
        timeout_seconds: float = 30.0,
    ) -> None:
        """With a `socket`, that path is asked whatever `url` says of a host."""
        self._url = url.rstrip("/")
        self._socket = socket
        self._headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = None if self._socket is None else aiohttp.UnixConnector(self._socket)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def jobs(self, **wanted: Word) -> JobPage:
        """A page of runs: state, user, account, partition, node, cluster, since, until, limit, offset."""
        return await self._get("/v1/jobs", JobPage, wanted)

    async def all_jobs(self, **wanted: Word) -> AsyncIterator[Job]:
        """All runs that match, page by page. Jobs that begin meanwhile may let one come twice."""
        offset, total = 0, 1
        while offset < total:
            page = await self.jobs(**wanted, limit=PAGE, offset=offset)
            for job in page.jobs:
                yield job
            offset, total = offset + PAGE, page.total

    async def job(self, job_id: str, *, run: int | None = None, cluster: str | None = None) -> JobShown:
        """One run, the newest unless `run` names one."""
        return await self._get(_job(job_id), JobShown, {"run": run, "cluster": cluster})

    async def create_job(self, by: Author, **fields: Any) -> Written:
        """Keep a job by hand: job_id, cluster_name, and the fields of `amend_job`. Raises ApiError where the id is
        taken."""
        return await self._write("POST", "/v1/jobs", Written, by, fields)

    async def amend_job(
        self, job_id: str, by: Author, *, run: int | None = None, cluster: str | None = None, **fields: Any
    ) -> Written:
        """Change what is said of a job, by the names of the columns: user_name, account, partition, qos, job_name,
        comment, work_dir, nodes, cpus_allocated, gpus_allocated, memory_limit_bytes, time_limit_seconds, state,
        exit_code, exit_signal, submit_time, start_time, end_time. None takes back what was said; of a job that is no
        manual one, account and comment alone."""
        return await self._write("PATCH", _job(job_id), Written, by, fields, {"run": run, "cluster": cluster})

    async def withdraw_job(self, job_id: str, by: Author, *, cluster: str | None = None) -> Written:
        """Take a manual job back. Its trail stays."""
        return await self._write("DELETE", _job(job_id), Written, by, None, {"cluster": cluster})

    async def add_samples(
        self, job_id: str, by: Author, samples: list[Row], *, run: int | None = None, cluster: str | None = None
    ) -> int:
        """Keep samples of a job, rows as `metrics` gives them with `sampled_at`; how many. Sent twice, they are kept
        twice."""
        words: dict[str, Word] = {"run": run, "cluster": cluster}
        answer = await self._write("POST", _job(job_id, "/metrics"), dict[str, int], by, {"samples": samples}, words)
        return answer["stored"]

    async def report(self, job_id: str, *, run: int | None = None, cluster: str | None = None) -> Report:
        """How a job ended, why, and how well it used what it had."""
        return await self._get(_job(job_id, "/report"), Report, {"run": run, "cluster": cluster})

    async def metrics(self, job_id: str, **wanted: Word) -> JobMetrics:
        """Samples of a run: run, cluster, start_time, end_time, limit, step (seconds)."""
        return await self._get(_job(job_id, "/metrics"), JobMetrics, wanted)

    async def job_audit(self, job_id: str, **wanted: Word) -> list[AuditEvent]:
        """What happened to a job, oldest first: run, cluster, limit."""
        return (await self._get(_job(job_id, "/audit"), AuditEvents, wanted)).events

    async def audit(self, **wanted: Word) -> AuditEvents:
        """A page of the trail, newest first: since, until, changed_by, correlation_id, limit, cursor."""
        return await self._get("/v1/audit", AuditEvents, wanted)

    async def all_audit(self, **wanted: Word) -> AsyncIterator[AuditEvent]:
        """All events that match, newest first, page by page."""
        cursor: str | None = None
        while True:
            page = await self.audit(**wanted, limit=PAGE, cursor=cursor)
            for event in page.events:
                yield event
            cursor = page.next_cursor
            if cursor is None:
                return

    async def nodes(self, **wanted: Word) -> NodePage:
        """Nodes: state, partition, cluster, limit, offset."""
        return await self._get("/v1/nodes", NodePage, wanted)

    async def benchmark_runs(self, **wanted: Word) -> BenchmarkPage:
        """A page of runs of benchmarks: recipe, model, status, tool, job_id, user, hardware, verdict, since, until,
        sort, limit, offset."""
        return await self._get("/v1/benchmarks/runs", BenchmarkPage, wanted)

    async def benchmark_run(self, uid: str) -> Row:
        """One run of a benchmark, with its numbers, repeats, links, energies and verdicts."""
        return await self._get(f"/v1/benchmarks/runs/{quote(uid, safe='')}", Row, {})

    async def leaderboard(self, **wanted: Word) -> Leaderboard:
        """The best runs: metric, stat, recipe, model, hardware, limit."""
        return await self._get("/v1/benchmarks/leaderboard", Leaderboard, wanted)

    async def compare(self, one: str, other: str) -> Row:
        """Two runs of benchmarks side by side."""
        return await self._get("/v1/benchmarks/compare", Row, {"a": one, "b": other})

    async def analytics(self, question: Question) -> Analysis:
        """Figures of many runs over time."""
        return await self._answer("POST", "/v1/analytics/query", Analysis, {}, msgspec.json.encode(question))

    async def _write(
        self,
        method: str,
        path: str,
        kind: type[T],
        by: Author,
        fields: dict[str, Any] | None,
        words: dict[str, Word] | None = None,
    ) -> T:
        body = None if fields is None else msgspec.json.encode(fields)
        return await self._answer(method, path, kind, words or {}, body, by.headers())

    async def _get(self, path: str, kind: type[T], words: dict[str, Word]) -> T:
        return await self._answer("GET", path, kind, words, None)

    async def _answer(
        self,
        method: str,
        path: str,
        kind: type[T],
        words: dict[str, Word],
        body: bytes | None,
        headers: dict[str, str] | None = None,
    ) -> T:
        if self._session is None:
            raise RuntimeError("enter the client with `async with` before asking")
        params = {name: _word(value) for name, value in words.items() if value is not None}
        try:
            async with self._session.request(
                method, self._url + path, params=params, data=body, headers=headers
            ) as response:
                status, answer = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            where = self._socket or self._url
            raise Unreachable(f"no daemon answers on {where}: {error or 'not in time'}") from error
        try:
            if status not in (OK, CREATED):
                problem = msgspec.json.decode(answer, type=_Problem)
                raise ApiError(status, problem.error, problem.message, problem.details.field)
            return msgspec.json.decode(answer, type=kind)
        except msgspec.MsgspecError as error:
            raise Unreachable(f"what answers on {self._socket or self._url} is not Jobtrail: {error}") from error


def _job(job_id: str, part: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{part}"


def _word(value: Any) -> str:
    """A value as it stands in an address."""
    return value.isoformat() if isinstance(value, datetime) else str(value)

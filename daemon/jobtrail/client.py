"""A client of the REST API, for scripts and notebooks.

    async with Client(socket="/run/jobtrail/poke.sock") as jobtrail:
        page = await jobtrail.jobs(state="failed", limit=10)

Over a Unix socket the kernel says who asks; over TCP it takes the token of http.read_token_file. Every method raises
ApiError for an answer that is no 2xx and Unreachable where there is none. Times need a zone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from jobtrail.client_calls import ApiError, Caller, Unreachable, Word
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

__all__ = ["ApiError", "Author", "Client", "Unreachable"]

T = TypeVar("T")
PAGE = 500  # rows a question where all are asked for


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


class Client(Caller):
    """Asks one daemon. To be entered with `async with`."""

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

    async def report_page(self, job_id: str, *, run: int | None = None, cluster: str | None = None) -> bytes:
        """The report as one page of HTML, with the job's time lines."""
        words, headers = {"run": run, "cluster": cluster}, {"Accept": "text/html"}
        answer = await self.call("GET", _job(job_id, "/report"), words=words, headers=headers)
        self.check(answer)
        return answer.body

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

    async def decide(self, uid: str, decision: str, *, note: str | None = None) -> Row:
        """Make a benchmark's run a reference for others, or no longer: accept, pin, unpin. The event's receipt."""
        body = {"decision": decision, **({} if note is None else {"note": note})}
        path = f"/v1/benchmarks/runs/{quote(uid, safe='')}/decisions"
        return await self.ask("POST", path, Row, body=msgspec.json.encode(body))

    async def leaderboard(self, **wanted: Word) -> Leaderboard:
        """The best runs: metric, stat, recipe, model, hardware, limit."""
        return await self._get("/v1/benchmarks/leaderboard", Leaderboard, wanted)

    async def compare(self, one: str, other: str) -> Row:
        """Two runs of benchmarks side by side."""
        return await self._get("/v1/benchmarks/compare", Row, {"a": one, "b": other})

    async def analytics(self, question: Question) -> Analysis:
        """Figures of many runs over time."""
        return await self.ask("POST", "/v1/analytics/query", Analysis, body=msgspec.json.encode(question))

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
        return await self.ask(method, path, kind, words=words or {}, body=body, headers=by.headers())

    async def _get(self, path: str, kind: type[T], words: Mapping[str, Word]) -> T:
        return await self.ask("GET", path, kind, words=words)


def _job(job_id: str, part: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{part}"

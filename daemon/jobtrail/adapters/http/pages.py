"""Handlers of what is asked: health, metrics, the API's own description."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from importlib import resources

import msgspec
import yaml
from aiohttp import web

from jobtrail.adapters.http.refusals import json_answer
from jobtrail.core.ports import Health

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REST = 3  # times as long as a page took to make it is the newest one
LOOK = "Jobtrail-Look"  # who sends it only looks: figures of ended jobs are kept for a few scrapes, which it is not
INDEX = """Jobtrail

GET  /metrics       what runs on this node, for Prometheus
GET  /health        whether the daemon can do its work, in JSON
GET  /readyz        the same for probes: 200 or 503
GET  /healthz       200 while the daemon lives
GET  /openapi.json  the description of this API

From the database:
GET  /v1/nodes             nodes with state and load
GET  /v1/prometheus/targets  where Prometheus finds the daemons (http_sd)
GET  /v1/jobs, /v1/jobs/{id}, /v1/jobs/{id}/{metrics,audit}, /v1/audit  jobs, samples, the trail; as the report
POST /v1/analytics/query   figures of many jobs over time; as the report
GET  /v1/jobs/{id}/report  how a job ended and what it used; over TCP with the token of http.read_token_file
GET  /v1/benchmarks/{runs,runs/{uid},leaderboard,compare}  results of benchmarks; over TCP with the same token
GET  /v1/security/events   who was turned away; with the scope admin over TCP

On the Unix socket also:
POST /v1/hooks/slurm/{prolog,epilog,prolog-slurmctld,epilog-slurmctld}
POST /v1/events/{job-started,job-finished}
POST /v1/benchmarks/runs, /v1/benchmarks/runs/{uid}/decisions
POST /v1/jobs, PATCH and DELETE /v1/jobs/{id}, POST /v1/jobs/{id}/metrics  jobs kept by hand

Over TCP, with a token:
POST /v1/hooks/slurm/{prolog-slurmctld,epilog-slurmctld}
POST /v1/benchmarks/runs/{uid}/decisions, and what is written of /v1/jobs, with that of http.write_token_file

Over TCP, of nodes that forward to servers:
GET  /v1/chains/{chain_id}/head; POST /v1/chains/{chain_id}/batches, /v1/samples/{jobs,gpus,energy}, /v1/runs/over

On the socket for all users:
POST /v1/hooks/slurm/task-epilog
GET  /v1/jobs, /v1/jobs/{id}, /v1/jobs/{id}/{report,metrics,audit}, /v1/audit of one's own jobs
GET and POST /v1/benchmarks/...
POST, PATCH and DELETE on /v1/jobs of one's own jobs kept by hand
"""


class Pages:
    """Reads only; nothing here waits on the database, a disk or a counter."""

    def __init__(
        self,
        *,
        metrics: Callable[[], bytes],
        scraped: Callable[[], None],
        health: Callable[[], Health],
        warnings: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._warnings = warnings
        self._page = b""
        self._page_ends = float("-inf")
        self._metrics = metrics
        self._scraped = scraped
        self._health = health

    async def index(self, _: web.Request) -> web.Response:
        """GET /."""
        return web.Response(text=INDEX)

    async def alive(self, _: web.Request) -> web.Response:
        """GET /healthz."""
        return web.Response(text="ok\n")

    async def ready(self, _: web.Request) -> web.Response:
        """GET /readyz."""
        health = self._health()
        text = "ok\n" if health.ready else "".join(f"{problem}\n" for problem in health.problems) or "not ready\n"
        return web.Response(status=200 if health.ready else 503, text=text)

    async def health(self, _: web.Request) -> web.Response:
        """GET /health."""
        health = self._health()
        body = {
            "status": "ok" if health.ready else "unavailable",
            "problems": health.problems,
            "warnings": (*self._warnings(), *health.warnings),
            "details": health.details,
        }
        return json_answer(200 if health.ready else 503, body)

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        page = self._made()
        if request.method == "GET" and LOOK not in request.headers:
            self._scraped()
        return web.Response(body=page, headers={"Content-Type": METRICS_TYPE})

    def _made(self) -> bytes:
        """The page, made anew unless that was just now: whoever asks without end has a quarter of a core at most."""
        began = time.monotonic()
        if began >= self._page_ends:
            self._page = self._metrics()
            ended = time.monotonic()
            self._page_ends = ended + REST * (ended - began)
        return self._page

    async def openapi(self, _: web.Request) -> web.Response:
        """GET /openapi.json."""
        return web.Response(body=await asyncio.to_thread(openapi_json), content_type="application/json")


@functools.cache
def openapi_json() -> bytes:
    """The description of the API, as JSON. Blocking: it is read from the package's files the first time."""
    text = resources.files("jobtrail.adapters.http").joinpath("openapi.yaml").read_text(encoding="utf-8")
    return msgspec.json.encode(yaml.safe_load(text)) + b"\n"

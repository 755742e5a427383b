"""What is answered about benchmarks, as routes."""

from __future__ import annotations

import re

from aiohttp import web

from jobtrail.adapters.http.benchmark_posts import BenchmarkPosts
from jobtrail.adapters.http.benchmark_reads import BenchmarkReads
from jobtrail.adapters.http.senders import Gate
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.adapters.http.tokens import Door
from jobtrail.adapters.http.turns import Turns
from jobtrail.core.benchmarks.ports import BenchmarkIntake, BenchmarkReader

RUNS = "/v1/benchmarks/runs"
DECISIONS = re.compile(rf"{RUNS}/[^/]+/decisions")


class Benchmarks:
    """Results are read wherever jobs are. Reports are taken on Unix sockets, where the kernel names who sends them;
    decisions there too, and over TCP from who shows the token for writing."""

    def __init__(
        self,
        intake: BenchmarkIntake | None,
        runs: BenchmarkReader | None,
        *,
        gate: Gate,
        read_token: Door,
        write_token: Door,
        turns: Turns,
        settings: HttpSettings,
    ) -> None:
        self._reads = BenchmarkReads(runs, gate=gate, token=read_token, turns=turns)
        self._posts = BenchmarkPosts(intake, runs, gate=gate, token=write_token, settings=settings)

    def reading_routes(self) -> list[web.RouteDef]:
        """On every listener."""
        return [
            web.get(RUNS, self._reads.runs),
            web.get(f"{RUNS}/{{uid}}", self._reads.run),
            web.get("/v1/benchmarks/leaderboard", self._reads.leaderboard),
            web.get("/v1/benchmarks/compare", self._reads.compare),
        ]

    def writing_routes(self) -> list[web.RouteDef]:
        """On the Unix sockets."""
        return [
            web.post(RUNS, self._posts.report),
            web.post(f"{RUNS}/{{uid}}/decisions", self._posts.decision),
        ]

    def remote_writing_routes(self) -> list[web.RouteDef]:
        """Over TCP."""
        return [web.post(f"{RUNS}/{{uid}}/decisions", self._posts.decision)]

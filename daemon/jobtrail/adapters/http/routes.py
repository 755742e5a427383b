"""Which request is answered by whom: the routes of each listener, and the services behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web

from jobtrail.adapters.http.access import Access, ScopeDoor
from jobtrail.adapters.http.archive import Archives
from jobtrail.adapters.http.benchmarks import Benchmarks
from jobtrail.adapters.http.chains import Chains
from jobtrail.adapters.http.delegation import Delegation
from jobtrail.adapters.http.link_security import LinkSecurity
from jobtrail.adapters.http.looks import Looks
from jobtrail.adapters.http.manual import ManualJobRoutes
from jobtrail.adapters.http.named_tokens import Scope
from jobtrail.adapters.http.node_identity import NodeIdentity, NoNodes
from jobtrail.adapters.http.nodes import Nodes
from jobtrail.adapters.http.ownership import OwnerOfRun, Ownership
from jobtrail.adapters.http.pages import Pages
from jobtrail.adapters.http.pokes import DecodePoke, Pokes, poke_settings
from jobtrail.adapters.http.posts import CONTROLLER_HOOKS, Posts
from jobtrail.adapters.http.reports import HtmlPages, Reports
from jobtrail.adapters.http.security_reads import SecurityReads
from jobtrail.adapters.http.senders import Gate
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.adapters.http.targets import Targets
from jobtrail.adapters.http.tokens import TokenFile
from jobtrail.adapters.http.turns import Turns
from jobtrail.core.access.ports import SecurityReader
from jobtrail.core.benchmarks.ports import BenchmarkIntake, BenchmarkReader
from jobtrail.core.facts import Observer
from jobtrail.core.link.protocol import ForwardedTo
from jobtrail.core.manual.ports import JobKeeper
from jobtrail.core.ports import Clock, EventIntake, Health, HookDecoder, JobPokes
from jobtrail.core.query_ports import Archive, JobReader, NodeReader
from jobtrail.core.target_ports import TargetReader


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What requests are handed to. Where one is None, its endpoints say why they have nothing to give."""

    intake: EventIntake
    decode_hook: HookDecoder
    metrics: Callable[[], bytes]
    scraped: Callable[[], None]
    health: Callable[[], Health]
    owner_of_run: OwnerOfRun
    pokes: JobPokes | None = None
    decode_poke: DecodePoke | None = None
    looks: JobPokes | None = None
    jobs: JobReader | None = None
    archive: Archive | None = None
    report_pages: HtmlPages | None = None
    nodes: NodeReader | None = None
    targets: TargetReader | None = None
    benchmark_intake: BenchmarkIntake | None = None
    benchmarks: BenchmarkReader | None = None
    job_keeper: JobKeeper | None = None
    security: SecurityReader | None = None
    forwarded_to: ForwardedTo | None = None
    node_identity: NodeIdentity | None = None


class Routes:
    """The routes of all listeners."""

    def __init__(
        self,
        services: Services,
        *,
        access: Access,
        hook_token: TokenFile,
        tell: Observer,
        clock: Clock,
        settings: HttpSettings,
    ) -> None:
        delegation = Delegation(settings.readers_group, settings.account_readers)
        gate = Gate(settings.trusted_uids, local_scheduler=settings.local_scheduler, delegation=delegation)
        self._posts = _posts(services, gate, hook_token, clock, settings)
        self._pokes = _pokes(services, gate, settings)
        self._looks = Looks(services.looks, gate=gate, clock=clock)
        self._pages = Pages(
            metrics=services.metrics, scraped=services.scraped, health=services.health, warnings=access.warnings
        )
        self._nodes = Nodes(services.nodes)
        self._targets = Targets(services.targets, port=settings.target_port)
        reading, writing = ScopeDoor(access, Scope.READ), ScopeDoor(access, Scope.WRITE)
        turns = Turns()
        self._reports = Reports(
            services.jobs, gate=gate, token=reading, turns=turns, clock=clock, pages=services.report_pages
        )
        self._archives = Archives(
            services.archive, gate=gate, token=reading, turns=turns, clock=clock, settings=settings
        )
        self._benchmarks = Benchmarks(
            services.benchmark_intake,
            services.benchmarks,
            gate=gate,
            read_token=reading,
            write_token=writing,
            turns=turns,
            settings=settings,
        )
        self._manual = ManualJobRoutes(services.job_keeper, gate=gate, token=writing, settings=settings)
        self._security = SecurityReads(services.security, gate=gate, admin=ScopeDoor(access, Scope.ADMIN))
        identity = services.node_identity or NoNodes()
        self._chains = Chains(services.forwarded_to, identity=identity, tell=tell)
        self._nodes_security = LinkSecurity(services.forwarded_to, identity=identity, tell=tell)

    def reading(self) -> list[web.RouteDef]:
        """What is answered on both listeners."""
        pages = self._pages
        return [
            web.get("/", pages.index),
            web.get("/health", pages.health),
            web.get("/healthz", pages.alive),
            web.get("/readyz", pages.ready),
            web.get("/metrics", pages.metrics),
            web.get("/openapi.json", pages.openapi),
            web.get("/v1/nodes", self._nodes.nodes),
            web.get("/v1/prometheus/targets", self._targets.targets),
            self._report_route(),
            *self._archives.routes(),
            *self._benchmarks.reading_routes(),
            *self._security.routes(),
        ]

    def writing(self) -> list[web.RouteDef]:
        """What is answered on the Unix socket alone."""
        posts = self._posts
        return [
            web.post("/v1/hooks/slurm/{hook}", posts.hook),
            web.post("/v1/events/job-started", posts.job_started),
            web.post("/v1/events/job-finished", posts.job_finished),
            *self._benchmarks.writing_routes(),
            *self._manual.routes(),
            *self._looks.routes(),
        ]

    def remote_writing(self) -> list[web.RouteDef]:
        """What is answered over TCP to those who show the token."""
        return [
            web.post(f"/v1/hooks/slurm/{{hook:{'|'.join(CONTROLLER_HOOKS)}}}", self._posts.controller_hook),
            *self._benchmarks.remote_writing_routes(),
            *self._manual.routes(),
            *self._chains.routes(),
            *self._nodes_security.routes(),
        ]

    def on_poke_socket(self) -> list[web.RouteDef]:
        """What is answered on the socket that is open to all users; nothing where there is none."""
        if self._pokes is None:
            return []
        return [
            web.post("/v1/hooks/slurm/task-epilog", self._pokes.task_epilog),
            self._report_route(),
            *self._archives.routes(),
            *self._benchmarks.reading_routes(),
            *self._benchmarks.writing_routes(),
            *self._manual.routes(),
            *self._looks.routes(),
        ]

    def _report_route(self) -> web.RouteDef:
        return web.get("/v1/jobs/{id}/report", self._reports.report)


def _posts(services: Services, gate: Gate, token: TokenFile, clock: Clock, settings: HttpSettings) -> Posts:
    return Posts(
        intake=services.intake,
        decode_hook=services.decode_hook,
        gate=gate,
        token=token,
        ownership=Ownership(
            services.owner_of_run, proc_root=Path(settings.proc_root), cgroup_root=Path(settings.cgroup_root)
        ),
        clock=clock,
        settings=settings,
    )


def _pokes(services: Services, gate: Gate, settings: HttpSettings) -> Pokes | None:
    if services.pokes is None or services.decode_poke is None or not settings.poke_socket:
        return None
    return Pokes(pokes=services.pokes, decode=services.decode_poke, gate=gate, settings=poke_settings(settings))

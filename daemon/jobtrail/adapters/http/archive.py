"""What is answered about stored jobs, as routes."""

from __future__ import annotations

from aiohttp import web

from jobtrail.adapters.http.analytics import PATH, Analytics
from jobtrail.adapters.http.audit_reads import AuditReads
from jobtrail.adapters.http.jobs import Jobs
from jobtrail.adapters.http.readers import Readers
from jobtrail.adapters.http.senders import Gate
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.adapters.http.tokens import Door
from jobtrail.adapters.http.turns import Turns
from jobtrail.core.ports import Clock
from jobtrail.core.query_ports import Archive


class Archives:
    """Jobs, their samples and their trail, wherever jobs are told of."""

    def __init__(
        self,
        archive: Archive | None,
        *,
        gate: Gate,
        token: Door,
        turns: Turns,
        clock: Clock,
        settings: HttpSettings,
    ) -> None:
        """Without an archive, every question is answered with why there is none."""
        readers = Readers(gate=gate, token=token, turns=turns)
        jobs = None if archive is None else archive.jobs
        self._jobs = Jobs(jobs, None if archive is None else archive.samples, readers=readers, clock=clock)
        figures = None if archive is None else archive.analytics
        self._analytics = Analytics(figures, readers=readers, settings=settings)
        self._audit = AuditReads(jobs, None if archive is None else archive.trail, readers=readers)

    def routes(self) -> list[web.RouteDef]:
        """On every listener."""
        return [
            web.get("/v1/jobs", self._jobs.jobs),
            web.get("/v1/jobs/{id}", self._jobs.show),
            web.get("/v1/jobs/{id}/metrics", self._jobs.metrics),
            web.get("/v1/jobs/{id}/audit", self._audit.of_job),
            web.get("/v1/audit", self._audit.trail),
            web.post(PATH, self._analytics.answer),
        ]

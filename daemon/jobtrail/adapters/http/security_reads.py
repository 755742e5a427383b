"""Handler of GET /v1/security/events."""

from __future__ import annotations

from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.refusals import Note, forbidden, json_answer
from jobtrail.adapters.http.senders import Gate
from jobtrail.adapters.http.tokens import Door
from jobtrail.core.access.ports import SecurityReader

PARAMETERS = ("since", "limit")
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000


class SecurityReads:
    """Tells who was turned away, to who looks after the daemon: root and Slurm's user, over TCP the scope admin."""

    def __init__(self, events: SecurityReader | None, *, gate: Gate, admin: Door) -> None:
        self._events = events
        self._gate = gate
        self._admin = admin

    def routes(self) -> list[web.RouteDef]:
        """On the socket of the hooks and over TCP."""
        return [web.get("/v1/security/events", self.events)]

    async def events(self, request: web.Request) -> web.Response:
        """GET /v1/security/events."""
        sender = self._gate.local_peer(request)
        if sender is None:
            self._admin.check(request)
        elif not sender.trusted:
            message = f"uid {sender.uid} may not read this; root and Slurm's user may"
            raise forbidden(message, Note("wrong_scope", f"uid {sender.uid}"))
        query.check_parameters(request, PARAMETERS)
        since = query.moment(request, "since")
        limit = query.number(request, "limit", least=1, most=MAX_LIMIT) or DEFAULT_LIMIT
        if self._events is None:
            raise query.no_database()
        return json_answer(200, {"events": await self._events.security_events(since=since, limit=limit)})

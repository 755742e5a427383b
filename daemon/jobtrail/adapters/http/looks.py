"""Handler of POST /v1/jobs/{id}/look."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.pokes import check_outcome
from jobtrail.adapters.http.refusals import json_answer
from jobtrail.adapters.http.reports import ALLOWED_ID
from jobtrail.adapters.http.senders import Gate
from jobtrail.core.ports import Clock, JobPokes

_ID = re.compile(r"(?P<kind>(local|slurm)-)?(?P<number>[1-9][0-9]{0,15})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Looks:
    """Has all that is measured of a job read and written down now, for its own user: a moment to count from or up to.

    On the Unix sockets alone, where the kernel names who asks.
    """

    def __init__(self, looks: JobPokes | None, *, gate: Gate, clock: Clock) -> None:
        self._looks = looks
        self._gate = gate
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """What is answered on the Unix sockets; nothing where no job runs."""
        return [] if self._looks is None else [web.post("/v1/jobs/{id}/look", self.look)]

    async def look(self, request: web.Request) -> web.Response:
        """POST /v1/jobs/{id}/look. What stands in the body is not read."""
        assert self._looks is not None
        sender = self._gate.poke_sender(request)
        said = _ID.fullmatch(request.match_info["id"])
        if said is None:
            raise query.invalid("id", f"{ALLOWED_ID}, not {request.match_info['id'][:64]!r}")
        query.check_parameters(request, ())
        job_id = f"{said['kind'] or 'slurm-'}{said['number']}"
        check_outcome(await self._looks.poke(job_id, sender.uid), job_id, sender.uid)
        time = _EPOCH + timedelta(microseconds=self._clock.time_us())
        return json_answer(200, {"job_id": job_id, "time": time, "looked": True})

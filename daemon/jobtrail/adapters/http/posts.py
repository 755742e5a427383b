"""Handlers of what is sent: hooks' environments and JSON events."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from aiohttp import web

from jobtrail.adapters.http import event_json
from jobtrail.adapters.http.bodies import read_body
from jobtrail.adapters.http.headers import EVENT_ID, EVENT_TIME, event_id, event_time_us, one_header
from jobtrail.adapters.http.ownership import Ownership
from jobtrail.adapters.http.refusals import json_answer, unknown_hook
from jobtrail.adapters.http.senders import Gate, Sender
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.adapters.http.tokens import TokenFile
from jobtrail.core.ports import Clock, EventIntake, HookDecoder
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import Event, request_digest

CONTROLLER_HOOKS = ("prolog-slurmctld", "epilog-slurmctld")
HOOKS = ("prolog", "epilog", *CONTROLLER_HOOKS)


class Posts:
    """Decodes what comes in and passes it to the intake."""

    def __init__(
        self,
        *,
        intake: EventIntake,
        decode_hook: HookDecoder,
        gate: Gate,
        token: TokenFile,
        ownership: Ownership,
        clock: Clock,
        settings: HttpSettings,
    ) -> None:
        self._intake = intake
        self._decode_hook = decode_hook
        self._gate = gate
        self._token = token
        self._ownership = ownership
        self._clock = clock
        self._settings = settings

    async def hook(self, request: web.Request) -> web.Response:
        """POST /v1/hooks/slurm/{hook}."""
        self._gate.hook_sender(request)
        return await self._hook(request, HOOKS)

    async def controller_hook(self, request: web.Request) -> web.Response:
        """POST /v1/hooks/slurm/{hook} over TCP: slurmctld may run where no daemon does."""
        self._token.check(request)
        return await self._hook(request, CONTROLLER_HOOKS)

    async def _hook(self, request: web.Request, known: tuple[str, ...]) -> web.Response:
        hook = request.match_info["hook"]
        if hook not in known:
            raise unknown_hook(hook, known)
        identity, time_text = _required(request, EVENT_ID), _required(request, EVENT_TIME)
        canonical, time_us = event_id(identity), event_time_us(time_text)
        body = await read_body(request, self._settings)
        event = self._decode_hook(hook, body, event_id=canonical, time_us=time_us)
        return await self._accept(event, request_digest(hook, time_text, body))

    async def job_started(self, request: web.Request) -> web.Response:
        """POST /v1/events/job-started."""
        return await self._event(
            request,
            "job-started",
            lambda body, envelope: event_json.started_event(
                event_json.parse(event_json.JobStarted, body), envelope, self._settings
            ),
        )

    async def job_finished(self, request: web.Request) -> web.Response:
        """POST /v1/events/job-finished."""
        return await self._event(
            request,
            "job-finished",
            lambda body, envelope: event_json.finished_event(
                event_json.parse(event_json.JobFinished, body), envelope, self._settings
            ),
        )

    async def _event(
        self, request: web.Request, kind: str, make: Callable[[bytes, event_json.Envelope], Event]
    ) -> web.Response:
        sender = self._gate.event_sender(request)
        identity, time_text = one_header(request, EVENT_ID), one_header(request, EVENT_TIME)
        canonical = str(uuid.uuid4()) if identity is None else event_id(identity)
        time_us = None if time_text is None else event_time_us(time_text)
        body = await read_body(request, self._settings)
        envelope = await self._envelope(canonical, time_us, sender)
        event = make(body, envelope)
        self._ownership.check(sender, event)
        return await self._accept(event, request_digest(kind, time_text or "", body))

    async def _envelope(self, identity: str, header_time_us: int | None, sender: Sender) -> event_json.Envelope:
        return event_json.Envelope(
            event_id=identity,
            header_time_us=header_time_us,
            now_us=self._clock.time_us(),
            sender=sender,
            sender_name=await sender.user_name(),
        )

    async def _accept(self, event: Event, digest: bytes) -> web.Response:
        receipt = await self._intake.accept(event, digest)
        answer = {"event_id": receipt.event_id, "seq": receipt.seq, "durability": receipt.durability}
        return json_answer(200 if receipt.duplicate else 201, answer)


def _required(request: web.Request, name: str) -> str:
    value = one_header(request, name)
    if value is None:
        raise InvalidEvent(name, "is missing from the request's headers")
    return value

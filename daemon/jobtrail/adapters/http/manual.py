"""Handlers of what people write of jobs: POST, PATCH and DELETE on /v1/jobs, and samples that they send."""

from __future__ import annotations

import re
import uuid

import msgspec
from aiohttp import web

from jobtrail.adapters.http import job_json, query
from jobtrail.adapters.http.access import WHO
from jobtrail.adapters.http.bodies import read_body
from jobtrail.adapters.http.headers import EVENT_ID, event_id, one_header
from jobtrail.adapters.http.refusals import Refused, json_answer
from jobtrail.adapters.http.senders import Gate, Sender
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.adapters.http.tokens import Door
from jobtrail.adapters.http.turns import Turns
from jobtrail.core.manual.ports import Author, Done, JobKeeper, Which
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import Actor
from jobtrail.domain.job_ids import parse_job_id

CHANGED_BY, SOURCE, CORRELATION_ID = "X-Changed-By", "X-Source", "X-Correlation-Id"
WRITE_SETTING = "http.write_token_file"
CLI_SOURCE = "cli"  # how `jobtrail jobs` signs
PATHS = re.compile(r"/v1/jobs(/[^/]+(/metrics)?)?")
MOST_AT_ONCE = 8  # users who are being answered
BODY_SECONDS = 5.0  # also on the users' socket, whose pokes are a few numbers
MAX_BODY_BYTES = 1_048_576
_SOURCE = re.compile(r"[a-z0-9_-]{1,32}")
_PERSON = re.compile(r"[\x21-\x7e]{1,255}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class ManualJobRoutes:
    """On a Unix socket the kernel says who sends: root and Slurm's user may change every job, other users keep manual
    jobs of their own. Over TCP it takes the scope for writing."""

    def __init__(self, keeper: JobKeeper | None, *, gate: Gate, token: Door, settings: HttpSettings) -> None:
        self._keeper = keeper
        self._gate = gate
        self._token = token
        self._limits = msgspec.structs.replace(
            settings, max_body_bytes=MAX_BODY_BYTES, body_timeout_seconds=BODY_SECONDS
        )
        self._turns = Turns(most=MOST_AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        """On every listener."""
        return [
            web.post("/v1/jobs", self.create),
            web.patch("/v1/jobs/{id}", self.amend),
            web.delete("/v1/jobs/{id}", self.withdraw),
            web.post("/v1/jobs/{id}/metrics", self.samples),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """POST /v1/jobs."""
        sender, author = self._author(request)
        query.check_parameters(request, ())
        keeper = self._keeping()
        with self._turns.taken(sender):
            body = job_json.parse(job_json.NewJob, await self._body(request))
            if body.cluster_name:
                job_json.check_name("cluster_name", body.cluster_name)
            claims = msgspec.structs.replace(job_json.claims(body), retracted=())
            done = await keeper.create(Which(job_id=body.job_id, cluster=body.cluster_name or None), claims, author)
        place = {"Location": f"/v1/jobs/{done.job_id}"}
        return json_answer(200 if done.receipt.duplicate else 201, _told(done), place)

    async def amend(self, request: web.Request) -> web.Response:
        """PATCH /v1/jobs/{id}."""
        sender, author = self._author(request)
        which, keeper = _which(request), self._keeping()
        with self._turns.taken(sender):
            claims = job_json.claims(job_json.parse(job_json.JobFields, await self._body(request)))
            if claims == type(claims)():
                raise InvalidEvent("body", "says nothing; name at least one field")
            done = await keeper.amend(which, claims, author)
        return json_answer(200, _told(done))

    async def withdraw(self, request: web.Request) -> web.Response:
        """DELETE /v1/jobs/{id}."""
        sender, author = self._author(request)
        which, keeper = _which(request), self._keeping()
        with self._turns.taken(sender):
            if await self._body(request):
                raise InvalidEvent("body", "must be empty")
            return json_answer(200, _told(await keeper.withdraw(which, author)))

    async def samples(self, request: web.Request) -> web.Response:
        """POST /v1/jobs/{id}/metrics."""
        sender, author = self._author(request)
        which, keeper = _which(request), self._keeping()
        with self._turns.taken(sender):
            posted = job_json.posted(job_json.parse(job_json.Samples, await self._body(request)))
            return json_answer(201, {"stored": await keeper.add_samples(which, posted, author)})

    async def _body(self, request: web.Request) -> bytes:
        return await read_body(request.clone(client_max_size=self._limits.max_body_bytes), self._limits)

    def _author(self, request: web.Request) -> tuple[Sender | None, Author]:
        """Who speaks; the sender is None over TCP. Raises Refused, InvalidEvent."""
        if self._gate.local_peer(request) is not None:
            sender = self._gate.poke_sender(request)
            return sender, _signed(request, f"uid:{sender.uid}", sender)
        self._token.check(request)
        return None, _signed(request, f"token:{_token_name(request)}", None)

    def _keeping(self) -> JobKeeper:
        if self._keeper is None:
            raise Refused(503, "unavailable", "unavailable", "this daemon keeps no jobs by hand")
        return self._keeper


def _signed(request: web.Request, sent_by: str, sender: Sender | None) -> Author:
    person, source = one_header(request, CHANGED_BY), one_header(request, SOURCE)
    if person is None or not _PERSON.fullmatch(person):
        raise InvalidEvent(CHANGED_BY, "must name who makes the change: 1 to 255 visible characters of ASCII")
    if source is None or not _SOURCE.fullmatch(source):
        raise InvalidEvent(SOURCE, "must name what the change is made with: 1 to 32 small letters, digits, _ and -")
    identity, request_id = one_header(request, EVENT_ID), one_header(request, CORRELATION_ID)
    if request_id is not None and not _UUID.fullmatch(request_id):
        raise InvalidEvent(CORRELATION_ID, "must be a UUID such as 6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21")
    return Author(
        person=person,
        sent_by=sent_by,
        uid=None if sender is None else sender.uid,
        trusted=sender is None or sender.trusted,
        by=Actor.CLI if source == CLI_SOURCE else Actor.API,
        source=source,
        event_id=str(uuid.uuid4()) if identity is None else event_id(identity),
        request_id=None if request_id is None else request_id.lower(),
    )


def _token_name(request: web.Request) -> str:
    """The name of the token that was shown; that of the setting where it has none of its own."""
    who = request.get(WHO)
    return WRITE_SETTING if who is None or " " in who.name else str(who.name)


def _which(request: web.Request) -> Which:
    job_id = parse_job_id(request.match_info["id"])
    query.check_parameters(request, ("run", "cluster"))
    return Which(
        job_id=request.match_info["id"] if job_id.array_task is not None else job_id.job_id,
        run=query.number(request, "run", least=1, most=query.LAST_RUN),
        cluster=query.name(request, "cluster"),
    )


def _told(done: Done) -> dict[str, object]:
    return {
        "job_id": done.job_id,
        "cluster_name": done.cluster,
        "run": done.run,
        "event_id": done.receipt.event_id,
        "seq": done.receipt.seq,
        "durability": done.receipt.durability,
        "stored": done.stored,
    }

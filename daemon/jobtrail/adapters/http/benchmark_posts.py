"""Handlers of what is sent of benchmarks: reports of runs, and what people decide about them."""

from __future__ import annotations

import re
import uuid
from typing import Annotated

import msgspec
from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.bodies import read_body
from jobtrail.adapters.http.headers import EVENT_ID, event_id, one_header
from jobtrail.adapters.http.refusals import Refused, forbidden, json_answer
from jobtrail.adapters.http.run_uids import run_uid
from jobtrail.adapters.http.senders import Gate, Sender
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.adapters.http.tokens import Door
from jobtrail.adapters.http.turns import Turns
from jobtrail.core.benchmarks.ports import BenchmarkIntake, BenchmarkReader, Reporter
from jobtrail.core.ports import Receipt, Row
from jobtrail.domain.benchmarks.report import BaselineDecision, Decision, Status
from jobtrail.domain.benchmarks.submitted import MAX_REPORT_BYTES
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import Actor

MOST_AT_ONCE = 8  # users whose reports are being read
BODY_SECONDS = 5.0  # also on the users' socket, whose pokes are a few numbers
MAX_DECISION_BYTES = 16_384
CHANGED_BY, SOURCE = "X-Changed-By", "X-Source"
_SOURCE = re.compile(r"[a-z0-9_-]{1,32}")
_PERSON = re.compile(r"[\x21-\x7e]{1,255}")


class DecisionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/benchmarks/runs/{uid}/decisions."""

    decision: Decision
    note: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None


class BenchmarkPosts:
    """Takes from local users, whom the kernel names. Whose run it is decides nothing at the report, which is a claim;
    a decision about a run is its own user's, root's and Slurm's, and over TCP that of who shows the token."""

    def __init__(
        self,
        intake: BenchmarkIntake | None,
        runs: BenchmarkReader | None,
        *,
        gate: Gate,
        token: Door,
        settings: HttpSettings,
    ) -> None:
        self._intake = intake
        self._runs = runs
        self._gate = gate
        self._token = token
        self._report_limits = msgspec.structs.replace(
            settings, max_body_bytes=MAX_REPORT_BYTES, body_timeout_seconds=BODY_SECONDS
        )
        self._decision_limits = msgspec.structs.replace(settings, max_body_bytes=MAX_DECISION_BYTES)
        self._turns = Turns(most=MOST_AT_ONCE)

    async def report(self, request: web.Request) -> web.Response:
        """POST /v1/benchmarks/runs."""
        sender = self._gate.poke_sender(request)
        intake, reporter = self._taking(), _reporter(sender)
        identity = one_header(request, EVENT_ID)
        named = None if identity is None else event_id(identity)
        with self._turns.taken(sender):
            intake.admit(reporter)
            limits = self._report_limits
            body = await read_body(request.clone(client_max_size=limits.max_body_bytes), limits)
            return _answer(await intake.take(body, reporter, by=Actor.API, event_id=named))

    async def decision(self, request: web.Request) -> web.Response:
        """POST /v1/benchmarks/runs/{uid}/decisions."""
        sender, by, source = await self._decider(request)
        intake, uid = self._taking(), run_uid("uid", request.match_info["uid"])
        identity = one_header(request, EVENT_ID)
        canonical = str(uuid.uuid4()) if identity is None else event_id(identity)
        if self._runs is None:
            raise query.no_database()
        with self._turns.taken(sender):
            intake.admit(Reporter(uid=0, trusted=True) if sender is None else _reporter(sender))
            limits = self._decision_limits
            wanted = _decision(await read_body(request.clone(client_max_size=limits.max_body_bytes), limits))
            run = await self._runs.show_run(uid)
            if sender is not None and not sender.trusted and not sender.is_user(run["details"]["uid"]):
                raise forbidden(f"uid {sender.uid} may decide only about their own runs; {uid} is of another user")
            _check_decidable(run, wanted.decision)
            decision = BaselineDecision(run_uid=run["run_uid"], decision=wanted.decision, by=by)
            receipt = await intake.decide(decision, event_id=canonical, by=Actor.API, source=source, note=wanted.note)
        return _answer(receipt)

    async def _decider(self, request: web.Request) -> tuple[Sender | None, str, str]:
        """Who decides: the sender, None over TCP; a name for the trail, and the word for what they use.

        On a Unix socket the kernel says who it is; over TCP the headers do, which must be there. Raises Refused.
        """
        source = one_header(request, SOURCE)
        if self._gate.local_peer(request) is not None:
            sender = self._gate.poke_sender(request)
            return sender, await sender.user_name(), _source("bench" if source is None else source)
        self._token.check(request)
        person = one_header(request, CHANGED_BY)
        if person is None or not _PERSON.fullmatch(person):
            raise InvalidEvent(CHANGED_BY, "must name who decides: 1 to 255 visible characters of ASCII")
        return None, person, _source(source or "")

    def _taking(self) -> BenchmarkIntake:
        if self._intake is None:
            raise Refused(503, "unavailable", "unavailable", "this daemon takes no reports of benchmarks")
        return self._intake


def _reporter(sender: Sender) -> Reporter:
    return Reporter(uid=sender.uid, trusted=sender.trusted)


def _source(text: str) -> str:
    if not _SOURCE.fullmatch(text):
        raise InvalidEvent(SOURCE, "must be 1 to 32 small letters, digits, _ and -")
    return text


def _check_decidable(run: Row, decision: Decision) -> None:
    """Raise InvalidEvent where a decision would have no effect: no run is held against one that is not ok."""
    if decision is not Decision.UNPIN and run["status"] != Status.OK:
        raise InvalidEvent("decision", f"{decision} is for runs that are ok; {run['run_uid']} is {run['status']}")


def _decision(body: bytes) -> DecisionBody:
    """Raises InvalidEvent naming the field."""
    try:
        parsed = msgspec.json.decode(body, type=DecisionBody)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        field = place.strip(".`") or "body"
        allowed = f"; decision is one of {', '.join(Decision)}, note a text of 1 to 1024 characters"
        raise InvalidEvent(field, problem.replace("`", "")[:300] + allowed) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent("body", f"must be JSON in UTF-8: {error}") from error
    if parsed.note is not None and "\0" in parsed.note:
        raise InvalidEvent("note", "must not contain a NUL character")
    return parsed


def _answer(receipt: Receipt) -> web.Response:
    answer = {"event_id": receipt.event_id, "seq": receipt.seq, "durability": receipt.durability}
    return json_answer(200 if receipt.duplicate else 201, answer)

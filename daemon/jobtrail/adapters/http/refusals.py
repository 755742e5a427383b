"""Every way to say no: one table from errors to statuses, one shape of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from jobtrail.core.facts import EventRejected
from jobtrail.domain.errors import (
    EventConflict,
    InvalidEvent,
    JobConflict,
    JobtrailError,
    NotAllowed,
    NotFound,
    SpoolBroken,
    SpoolFull,
    TooManyReports,
)

MAX_DETAIL = 300
SPOOL_BROKEN_RETRY_SECONDS = 5


class Note(msgspec.Struct, frozen=True):
    """What of a refusal goes on record: the kind of event, and under which name somebody came, where that is known."""

    what: str
    who: str = ""


class Refused(JobtrailError):
    """A request that gets no 2xx. `reason` is the word it is counted under, `code` the one the client reads."""

    def __init__(
        self,
        status: int,
        code: str,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        note: Note | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})
        self.note = note

    def fact(self) -> EventRejected:
        """What the daemon tells about it."""
        return EventRejected(reason=self.reason, detail=self.message[:MAX_DETAIL], noticed=self.note is not None)

    def answer(self) -> web.Response:
        """The HTTP answer."""
        body = {"error": self.code, "message": self.message, "details": self.details}
        return json_answer(self.status, body, self.headers)


def json_answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with a JSON body."""
    return web.Response(
        status=status, body=msgspec.json.encode(body) + b"\n", headers=headers, content_type="application/json"
    )


def forbidden(message: str, note: Note | None = None) -> Refused:
    """403."""
    return Refused(403, "forbidden", "forbidden", message, note=note)


def unauthorized(message: str, *, asks: str = "Bearer", note: Note | None = None) -> Refused:
    """401, asking for a token (RFC 6750) or what else `asks` names."""
    return Refused(401, "unauthorized", "forbidden", message, headers={"WWW-Authenticate": asks}, note=note)


def too_large(limit_bytes: int) -> Refused:
    """413."""
    message = f"the body is larger than {limit_bytes} bytes"
    return Refused(413, "invalid_request", "too_large", message, details={"limit_bytes": limit_bytes})


def too_slow(seconds: float) -> Refused:
    """408."""
    return Refused(408, "invalid_request", "timeout", f"the body was not complete after {seconds:g} s")


def unknown_hook(hook: str, known: tuple[str, ...]) -> Refused:
    """404 for a hook nobody decodes."""
    message = f"there is no hook {hook[:64]!r}; known hooks are {', '.join(known)}"
    return Refused(404, "not_found", "unknown_hook", message, details={"field": "hook", "known": known})


def encoded_body(encoding: str) -> Refused:
    """415: an encoded body could be far larger than what was sent."""
    message = f"Content-Encoding {encoding[:32]!r} is not accepted; send the body as it is"
    return Refused(415, "invalid_request", "unsupported", message, details={"field": "Content-Encoding"})


def malformed_request(explanation: str) -> Refused:
    """400 for what is not HTTP."""
    return Refused(400, "invalid_request", "invalid", f"not a well-formed HTTP/1.1 request: {explanation[:MAX_DETAIL]}")


def refusal(error: JobtrailError | web.HTTPException) -> Refused:
    """The table: what each foreseen error is answered with."""
    match error:
        case Refused():
            return error
        case InvalidEvent():
            return Refused(400, "validation_error", "invalid", str(error), details={"field": error.field})
        case NotFound():
            return Refused(404, "not_found", "unsupported", str(error))
        case NotAllowed():
            return forbidden(str(error))
        case JobConflict() | EventConflict():
            field = error.field if isinstance(error, JobConflict) else "Jobtrail-Event-Id"
            return Refused(409, "conflict", "conflict", str(error), details={"field": field})
        case TooManyReports():
            retry = {"Retry-After": str(error.retry_after_seconds)}
            return Refused(429, "too_many_requests", "busy", str(error), headers=retry)
        case SpoolFull():
            retry = {"Retry-After": str(error.retry_after_seconds)}
            return Refused(503, "unavailable", "spool_full", str(error), headers=retry)
        case SpoolBroken():
            retry = {"Retry-After": str(SPOOL_BROKEN_RETRY_SECONDS)}
            return Refused(503, "unavailable", "spool_broken", f"the spool has failed: {error}", headers=retry)
        case web.HTTPNotFound():
            return Refused(404, "not_found", "unsupported", "there is nothing here; GET / lists the endpoints")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return Refused(
                405, "invalid_request", "unsupported", f"only {allowed} is answered here", headers={"Allow": allowed}
            )
        case web.HTTPException():
            return Refused(error.status, "invalid_request", "invalid", error.reason)
        case _:
            return Refused(503, "unavailable", "unavailable", str(error), headers={"Retry-After": "5"})


INTERNAL = Refused(500, "internal_error", "internal", "the daemon made a mistake; its log says which")

"""What a server's answer means to a node."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping

import msgspec

from jobtrail.core.link.protocol import Problem
from jobtrail.domain.errors import ChainGap, JobtrailError, StoreRefused, StoreUnavailable

MAX_WORDS = 300
_problems = msgspec.json.Decoder(Problem)


class RowsRefused(StoreRefused):
    """Some rows of a body were refused, by their places; the others may be sent again."""

    def __init__(self, message: str, rows: frozenset[int]) -> None:
        super().__init__(message)
        self.rows = rows


def refused(server: str, status: int, headers: Mapping[str, str], body: bytes) -> tuple[str, JobtrailError]:
    """The outcome, in one word of ServerAsked, and the error that any answer but 200 is told as.

    What is refused for its content is a server's own word: a balancer's answers are none, so they never cost an event.
    """
    problem = _problem(body)
    if problem is not None:
        if status == 409 and isinstance(head := problem.details.get("head_seq"), int):
            return "gap", ChainGap(head)
        if status == 403 and (rows := _rows(problem.details.get("rows"))):
            return "refused", RowsRefused(f"{server}: {problem.message}", rows)
        if status == 422 or (status == 403 and problem.details.keys() & {"seq", "row"}):
            return "refused", StoreRefused(f"{server}: {problem.message}")
    if status == 413:  # also a balancer's: less at a time may pass
        return "refused", StoreRefused(f"{server}: {_words(status, problem)}")
    if status in {401, 403}:
        message = f"the server {server} does not let this node in: {_words(status, problem)}"
        return "denied", StoreUnavailable(message, retry_after_seconds=retry_after(headers))
    if status == 429 or status >= 500:
        busy = status == 429 or (problem is not None and problem.details.get("reason") == "busy")
        message = f"the server {server} cannot take it now: {_words(status, problem)}"
        error = StoreUnavailable(message, retry_after_seconds=retry_after(headers), turned_away=busy)
        return "busy" if busy else "unavailable", error
    message = f"{server} does not answer as a server of this node's version does: {_words(status, problem)}"
    return "odd", StoreUnavailable(message)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, section 10.2.3): a number, or a date; None without a usable one."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _rows(told: object) -> frozenset[int]:
    """Places of rows in a server's answer; none where it names none."""
    return frozenset(place for place in told if isinstance(place, int)) if isinstance(told, list) else frozenset()


def _problem(body: bytes) -> Problem | None:
    try:
        return _problems.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _words(status: int, problem: Problem | None) -> str:
    return f"HTTP {status}" if problem is None else f"{problem.message[:MAX_WORDS]} (HTTP {status})"

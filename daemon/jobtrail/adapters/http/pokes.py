"""The socket that every user may connect to, and the one thing that can be caused there."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from jobtrail.adapters.http.bodies import read_body
from jobtrail.adapters.http.refusals import Refused, forbidden, json_answer
from jobtrail.adapters.http.senders import Gate
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.core.ports import JobPokes, PokeAnswer

MODE = 0o666
DecodePoke = Callable[[bytes], str]


def poke_settings(settings: HttpSettings) -> HttpSettings:
    """Limits of that socket: a poke is a few numbers, sent at once."""
    return msgspec.structs.replace(
        settings.local,
        max_body_bytes=4096,
        header_timeout_seconds=min(1.0, settings.header_timeout_seconds),
        body_timeout_seconds=min(1.0, settings.body_timeout_seconds),
        answer_timeout_seconds=min(1.0, settings.answer_timeout_seconds),
    )


class Pokes:
    """Has a job looked at while its last task is held up by the answer. Writes nothing down."""

    def __init__(self, *, pokes: JobPokes, decode: DecodePoke, gate: Gate, settings: HttpSettings) -> None:
        self._pokes = pokes
        self._decode = decode
        self._gate = gate
        self._settings = settings

    async def task_epilog(self, request: web.Request) -> web.Response:
        """POST /v1/hooks/slurm/task-epilog."""
        sender = self._gate.poke_sender(request)
        job_id = self._decode(await read_body(request, self._settings))
        check_outcome(await self._pokes.poke(job_id, sender.uid), job_id, sender.uid)
        return json_answer(200, {"job_id": job_id, "looked": True})


def check_outcome(outcome: PokeAnswer, job_id: str, uid: int) -> None:
    """Raises Refused where a job was not looked at."""
    match outcome:
        case PokeAnswer.LOOKED:
            return
        case PokeAnswer.TOO_SOON:
            message = f"{job_id} was looked at just now"
            raise Refused(429, "too_many_requests", "busy", message, headers={"Retry-After": "1"})
        case PokeAnswer.BUSY:
            message = "too many jobs are being looked at, or the counters take too long to answer"
            raise Refused(503, "unavailable", "busy", message, headers={"Retry-After": "1"})
        case PokeAnswer.NOT_YOURS:
            raise forbidden(f"uid {uid} has no job {job_id} that runs on this node")

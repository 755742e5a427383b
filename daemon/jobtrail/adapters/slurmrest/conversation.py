"""Questions to slurmrestd in the version it knows, and answers that are answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from jobtrail.adapters.slurmrest.answers import (
    MAX_ERROR_TEXT,
    Envelope,
    ServerError,
    open_envelope,
    release_of,
    server_errors,
)
from jobtrail.adapters.slurmrest.auth import TokenSource
from jobtrail.adapters.slurmrest.exchange import MAX_ANSWER_BYTES, Exchange, Reply, Unreachable
from jobtrail.adapters.slurmrest.failures import (
    failure,
    may_tell_denied,
    may_tell_unknown_job,
    tells_denied,
    tells_nothing_there,
)
from jobtrail.adapters.slurmrest.settings import RestSettings, version_number
from jobtrail.adapters.slurmrest.versions import Versions
from jobtrail.core.ports import Clock
from jobtrail.domain.errors import SlurmAnswerInvalid, SlurmDenied, SlurmError, SlurmUnavailable

_NO_PARAMETERS: Mapping[str, str] = {}


class Conversation:
    """Asks, finds the version, and tells failures apart."""

    def __init__(
        self, settings: RestSettings, tokens: TokenSource, *, clock: Clock, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> None:
        self._clock = clock
        self._tokens = tokens
        self._exchange = Exchange(settings, tokens, max_answer_bytes=max_answer_bytes)
        self._versions = Versions(self._exchange, configured=settings.version)
        self._release: str | None = None

    async def close(self) -> None:
        """Close the connections."""
        await self._exchange.close()

    async def version(self) -> int:
        """The data version that the next question is asked in: 40 is v0.0.40. Raises as `ask` does."""
        return version_number(await self._versions.current())

    async def ask(
        self, part: str, question: str, parameters: Mapping[str, str] = _NO_PARAMETERS
    ) -> tuple[int, Envelope]:
        """Ask `part`, slurm or slurmdb, and return the answer with its data version.

        What it knows nothing of gives an answer without jobs. Raises SlurmUnavailable, SlurmDenied, SlurmAnswerInvalid,
        and SlurmHasNone where slurmrestd has no part slurmdb.
        """
        version, reply = await self._reply(part, question, parameters)
        # In a thread, as all decoding: an answer can be as large as the cluster.
        envelope = await asyncio.to_thread(_envelope, reply)
        self._watch_release(envelope)
        errors = server_errors(envelope)
        if tells_nothing_there(errors) or (may_tell_unknown_job(errors) and await self._is_up(version)):
            envelope.jobs = []
        elif reply.status != 200 or errors:
            raise await self._failure(part, version, question, reply, errors)
        return version_number(version), envelope

    async def _reply(self, part: str, question: str, parameters: Mapping[str, str]) -> tuple[str, Reply]:
        version = await self._versions.current()
        reply = await self._get(f"/{part}/{version}/{question}", parameters)
        if reply.status == 404 and not reply.is_json:
            # It no longer knows this version, or never knew this part of it.
            self._versions.forget()
            other = await self._versions.current()
            if other != version:
                version, reply = other, await self._get(f"/{part}/{other}/{question}", parameters)
        return version, reply

    async def _get(self, path: str, parameters: Mapping[str, str]) -> Reply:
        try:
            return await self._exchange.get(path, parameters)
        except Unreachable:
            self._versions.forget()
            raise

    def _watch_release(self, envelope: Envelope) -> None:
        """A server of another release was started meanwhile: it may know a newer version."""
        release = release_of(envelope)
        if release is not None and self._release not in {None, release}:
            self._versions.forget()
        self._release = release or self._release

    async def _is_up(self, version: str) -> bool:
        """Whether slurmctld answers slurmrestd."""
        reply = await self._get(f"/slurm/{version}/ping", _NO_PARAMETERS)
        return reply.status == 200

    async def _failure(
        self, part: str, version: str, question: str, reply: Reply, errors: Sequence[ServerError]
    ) -> SlurmError:
        """What to raise. Where a bad token and a slurmctld that is down look alike, find out which it is."""
        path = f"/{part}/{version}/{question}"
        text = "" if reply.is_json else reply.body[:MAX_ERROR_TEXT].decode(errors="replace")
        problem = failure(self._exchange.where, path, reply.status, errors, text)
        if not self._tokens.is_used or not may_tell_denied(reply.status, errors):
            return type(problem)(self._tokens.redacted(str(problem)))
        expired = self._tokens.expired_at(self._clock.time_us() / 1_000_000)
        if expired is not None:
            return SlurmDenied(f"{problem}; the token ended at {expired} (Unix seconds)")
        if await self._slurmdb_refuses(version):
            return SlurmDenied(f"{problem}; slurmdbd says that it refuses the token")
        return SlurmUnavailable(f"{problem}; slurmctld is down, or refuses the token")

    async def _slurmdb_refuses(self, version: str) -> bool:
        """Whether slurmdbd refuses the token too: it says so, which slurmctld's part does not before 23.02."""
        try:
            reply = await self._get(f"/slurmdb/{version}/jobs", {"step": "1", "skip_steps": "true"})
            return tells_denied(server_errors(_envelope(reply)))
        except SlurmDenied:
            return True
        except SlurmError:
            return False


def _envelope(reply: Reply) -> Envelope:
    """The answer's parts. What is no answer but a failure may be no JSON: then its text is the error."""
    if reply.status == 200:
        return open_envelope(reply.body)
    try:
        return open_envelope(reply.body) if reply.is_json else Envelope()
    except SlurmAnswerInvalid:
        return Envelope()

"""What servers take from nodes that hold no database login: batches of their chains, samples, a question about runs.

Nothing is kept here between two requests, so any server may take any of them: where a chain goes on is what the store
says, and a batch that comes again is compared with what is held.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
from aiohttp import web

from jobtrail.adapters.http.connection import Connection
from jobtrail.adapters.http.link_bodies import decoded, read_packed
from jobtrail.adapters.http.link_room import Place, Room
from jobtrail.adapters.http.node_identity import NodeIdentity
from jobtrail.adapters.http.refusals import Note, Refused, json_answer, refusal
from jobtrail.adapters.http.sample_rights import Sampled, SampleRights
from jobtrail.core.facts import NodeContradicted, NodeServed, Observer
from jobtrail.core.link.protocol import (
    BATCHES_PATH,
    ENERGY_SAMPLES_PATH,
    GPU_SAMPLES_PATH,
    HEAD_PATH,
    JOB_SAMPLES_PATH,
    MAX_EVENTS,
    MAX_ROWS,
    MAX_TARGETS,
    OVER_RUNS_PATH,
    EnergySamples,
    EventBatch,
    ForwardedTo,
    GpuSamples,
    JobSamples,
    RunsAsked,
    RunsOver,
)
from jobtrail.core.link.scope import Overstepped, overstepped
from jobtrail.core.ports import TRAIL_ONLY
from jobtrail.domain.errors import ChainGap, JobtrailError, StoreRefused

LINK_PREFIXES = ("/v1/chains/", "/v1/samples/", OVER_RUNS_PATH)
IDLE_SECONDS = 75.0  # nodes keep a connection for a minute; making one anew costs both sides a TLS handshake
MOST_OWNERS = 50_000
_CHAIN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_batches = msgspec.msgpack.Decoder(EventBatch)
_job_samples = msgspec.msgpack.Decoder(JobSamples)
_gpu_samples = msgspec.msgpack.Decoder(GpuSamples)
_energy_samples = msgspec.msgpack.Decoder(EnergySamples)
_runs_asked = msgspec.msgpack.Decoder(RunsAsked)
Body = TypeVar("Body")


class _Asked:
    """One request of a node, as far as it is known."""

    def __init__(self, request: web.Request, what: str) -> None:
        self.request = request
        self.what = what
        self.node = ""
        self.rows = 0


class Chains:
    """The server's end of the node link. Without a store to hand on to, it sends every node away."""

    def __init__(self, to: ForwardedTo | None, *, identity: NodeIdentity, tell: Observer) -> None:
        self._to = to
        self._identity = identity
        self._tell = tell
        self._room = Room(1 if to is None else to.at_a_time)
        self._rights = None if to is None else SampleRights(to.parts, to.allowed)
        self._owners: dict[str, str] = {}

    def routes(self) -> list[web.RouteDef]:
        """What is answered over TCP to nodes."""
        return [
            web.get(HEAD_PATH, self._served("head", self._head)),
            web.post(BATCHES_PATH, self._served("events", self._batch)),
            web.post(JOB_SAMPLES_PATH, self._served("job_samples", self._job_samples)),
            web.post(GPU_SAMPLES_PATH, self._served("gpu_samples", self._gpu_samples)),
            web.post(ENERGY_SAMPLES_PATH, self._served("energy_samples", self._energy_samples)),
            web.post(OVER_RUNS_PATH, self._served("over_runs", self._over_runs)),
        ]

    def _served(
        self, what: str, answer: Callable[[_Asked, ForwardedTo], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """A handler that finds out who asks, and tells what came of it."""

        async def handle(request: web.Request) -> web.Response:
            asked, began = _Asked(request, what), time.monotonic()
            status, detail = 200, ""
            try:
                asked.node = await self._identity.of(request)
                if isinstance(request.protocol, Connection):
                    request.protocol.idle_for(IDLE_SECONDS)
                if self._to is None:
                    raise Refused(503, "unavailable", "unavailable", "this daemon is no server with a database")
                return await answer(asked, self._to)
            except JobtrailError as error:
                refused = _refusal(error)
                status, detail = refused.status, refused.message[:300]
                raise refused from error
            finally:
                seconds = time.monotonic() - began
                self._tell(
                    NodeServed(
                        node=asked.node, what=what, status=status, rows=asked.rows, seconds=seconds, detail=detail
                    )
                )

        return handle

    async def _head(self, asked: _Asked, to: ForwardedTo) -> web.Response:
        """GET /v1/chains/{chain_id}/head."""
        chain_id = _chain_id(asked.request)
        with self._room.place(asked.node):
            async with self._room.turn():
                await self._check_owner(asked, to, chain_id)
                head = await to.events.head(chain_id)
        return json_answer(200, head)

    async def _batch(self, asked: _Asked, to: ForwardedTo) -> web.Response:
        """POST /v1/chains/{chain_id}/batches."""
        chain_id = _chain_id(asked.request)
        with self._room.place(asked.node) as place:
            batch = await _read(asked, place, _batches)
            asked.rows = _bounded("events", len(batch.events), MAX_EVENTS)
            if any(row.chain_id != chain_id for row in batch.events):
                raise StoreRefused(f"a batch sent to chain {chain_id} holds events of another one")
            if batch.trail_only and len(batch.events) > 1:
                raise StoreRefused("events for the trail alone are sent one by one, each for a reason of its own")
            beyond = overstepped(batch.events, asked.node, to.allowed)
            if beyond is not None and not batch.trail_only:
                # It changes nothing. The node keeps it in its own trail, where it shows.
                raise self._overstepping(asked, beyond)
            async with self._room.turn():
                await self._check_owner(asked, to, chain_id)
                why = _why(beyond) if batch.trail_only else None
                report = await to.events.store(batch.events, node=asked.node, trail_only=why)
        return json_answer(200, report)

    async def _job_samples(self, asked: _Asked, to: ForwardedTo) -> web.Response:
        """POST /v1/samples/jobs."""
        with self._room.place(asked.node) as place:
            rows = (await _read(asked, place, _job_samples)).rows
            self._check_rows(asked, "sample", [row.node for row in rows], MAX_ROWS)
            async with self._room.turn():
                await self._check_jobs(asked, [Sampled(row.cluster, row.job_id, row.reading.time_us) for row in rows])
                await to.samples.write(rows)
        return json_answer(200, {"rows": asked.rows})

    async def _gpu_samples(self, asked: _Asked, to: ForwardedTo) -> web.Response:
        """POST /v1/samples/gpus."""
        with self._room.place(asked.node) as place:
            rows = (await _read(asked, place, _gpu_samples)).rows
            self._check_rows(asked, "sample", [row.node for row in rows], MAX_ROWS)
            async with self._room.turn():
                await self._check_jobs(asked, [Sampled(row.cluster, row.job_id, row.reading.time_us) for row in rows])
                await to.gpu_samples.write_gpus(rows)
        return json_answer(200, {"rows": asked.rows})

    async def _energy_samples(self, asked: _Asked, to: ForwardedTo) -> web.Response:
        """POST /v1/samples/energy."""
        with self._room.place(asked.node) as place:
            rows = (await _read(asked, place, _energy_samples)).rows
            self._check_rows(asked, "sample", [row.sample.node for row in rows], MAX_ROWS)
            async with self._room.turn():
                await self._check_jobs(asked, [Sampled(row.cluster, row.job_id, row.sample.time_us) for row in rows])
                await to.energy_samples.write_energy(rows)
        return json_answer(200, {"rows": asked.rows})

    async def _over_runs(self, asked: _Asked, to: ForwardedTo) -> web.Response:
        """POST /v1/runs/over."""
        with self._room.place(asked.node) as place:
            targets = (await _read(asked, place, _runs_asked)).targets
            self._check_rows(asked, "run", [target.node for target in targets], MAX_TARGETS)
            async with self._room.turn():
                over = await to.over_runs.over(targets)
        return json_answer(200, RunsOver(runs=over))

    async def _check_owner(self, asked: _Asked, to: ForwardedTo, chain_id: str) -> None:
        """Raises Refused when the chain is another node's. One that the store does not know is whoever's begins it."""
        owner = self._owners.get(chain_id)
        if owner is None:
            owner = await to.owners.owner(chain_id)
            if owner is None:
                return
            if len(self._owners) >= MOST_OWNERS:
                self._owners.pop(next(iter(self._owners)))
            self._owners[chain_id] = owner
        if owner != asked.node:
            raise self._contradiction(asked, "chain", owner, {})

    def _check_rows(self, asked: _Asked, what: str, nodes: list[str], most: int) -> None:
        asked.rows = _bounded(f"{what}s", len(nodes), most)
        for number, node in enumerate(nodes):
            if node != asked.node:
                raise self._contradiction(asked, what, node, {"row": number})

    async def _check_jobs(self, asked: _Asked, samples: Sequence[Sampled]) -> None:
        """Raises Refused for samples that cannot be of this node, naming all of them: it sends the others again."""
        found = {} if self._rights is None else await self._rights.problems(samples, asked.node)
        if found:
            first = min(found)
            details = {"row": first, "rows": sorted(found)}
            raise self._forged(asked, "sample", asked.node, found[first], details)

    def _contradiction(self, asked: _Asked, what: str, claimed: str, details: Mapping[str, object]) -> Refused:
        """403 for what is said in another node's name, and the word of it for the record."""
        return self._forged(asked, what, claimed, f"is of node {claimed[:256]!r}", details)

    def _overstepping(self, asked: _Asked, beyond: Overstepped) -> Refused:
        """403 for an event that is not the node's to send."""
        return self._forged(asked, "event", beyond.claimed, beyond.problem, {"seq": beyond.seq})

    def _forged(self, asked: _Asked, what: str, claimed: str, problem: str, details: Mapping[str, object]) -> Refused:
        peer = asked.request.remote or ""
        self._tell(NodeContradicted(node=asked.node, claimed=claimed[:256], what=what, peer=peer))
        message = f"node {asked.node!r} sends this {what}, which {problem}"
        return Refused(403, "forbidden", "identity", message, details=details, note=Note("forged_node", asked.node))


def _why(beyond: Overstepped | None) -> str:
    """What the trail says of an event that only it is to hold, in the server's own words and not the node's."""
    return TRAIL_ONLY if beyond is None else f"not this node's to say: the event {beyond.problem}"


async def _read(asked: _Asked, place: Place, decoder: msgspec.msgpack.Decoder[Body]) -> Body:
    return decoded(decoder, await read_packed(asked.request, place.hold))


def _chain_id(request: web.Request) -> str:
    chain_id = request.match_info["chain_id"]
    if not _CHAIN_ID.fullmatch(chain_id):
        message = "a chain's id is a UUID in lower case, such as 6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21"
        raise Refused(400, "validation_error", "invalid", message, details={"field": "chain_id"})
    return chain_id


def _bounded(what: str, count: int, most: int) -> int:
    if count > most:
        message = f"there are {count} {what} in the body; send {most} at a time"
        raise Refused(413, "invalid_request", "too_large", message, details={"limit_rows": most})
    return count


def _refusal(error: JobtrailError) -> Refused:
    """The table of what only this link answers; the rest is answered as everywhere."""
    match error:
        case ChainGap():
            return Refused(409, "conflict", "gap", str(error), details={"head_seq": error.head_seq})
        case StoreRefused():
            return Refused(422, "validation_error", "refused", str(error))
        case _:
            return refusal(error)

"""Handlers of GET /v1/jobs/{id}/audit and GET /v1/audit: what happened, and by whom."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Sequence
from datetime import timedelta

import msgspec
from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.etags import tagged
from jobtrail.adapters.http.readers import Reader, Readers
from jobtrail.adapters.http.refusals import json_answer
from jobtrail.core.ports import Row
from jobtrail.core.query_ports import AuditFilter, AuditPlace, JobQueries, TrailReader
from jobtrail.domain.errors import NotFound
from jobtrail.domain.events import BENCHMARK_KINDS
from jobtrail.domain.job_ids import parse_job_id

JOB_PARAMETERS = ("run", "cluster", "limit")
PARAMETERS = ("since", "until", "changed_by", "correlation_id", "limit", "cursor")
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
_CURSOR = re.compile(r"[A-Za-z0-9_-]{1,200}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class AuditReads:
    """Tells of the trail. Reports of benchmarks that name a job are left out for its user: they may be of others."""

    def __init__(self, jobs: JobQueries | None, trail: TrailReader | None, *, readers: Readers) -> None:
        self._jobs = jobs
        self._trail = trail
        self._readers = readers

    async def of_job(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/{id}/audit. A user who is not trusted is told of one run, since a job id may come again."""
        reader = self._readers.reader(request)
        job_id = request.match_info["id"]
        parse_job_id(job_id)
        query.check_parameters(request, JOB_PARAMETERS)
        run = query.number(request, "run", least=1, most=query.LAST_RUN)
        cluster = query.name(request, "cluster")
        limit = query.number(request, "limit", least=1, most=MAX_LIMIT) or DEFAULT_LIMIT
        if self._jobs is None:
            raise query.no_database()
        with self._readers.turn(reader):
            if reader.only_uid is not None:
                job = await self._jobs.held_run(job_id, run=run, cluster=cluster)
                reader.check_may_read({"uid": job.facts.uid, "account": job.facts.account, "job_id": job.job_id})
                job_id, run, cluster = job.job_id, job.run, job.cluster_name
            events = await self._jobs.audit_log(job_id, run=run, cluster=cluster, limit=limit)
        if not events:
            raise NotFound(f"nothing is on record of job {job_id}")
        return tagged(request, json_answer(200, {"events": _for(reader, events)}))

    async def trail(self, request: web.Request) -> web.Response:
        """GET /v1/audit."""
        reader = self._readers.reader(request)
        query.check_parameters(request, PARAMETERS)
        wanted = AuditFilter(
            since=query.moment(request, "since"),
            until=query.moment(request, "until"),
            changed_by=query.name(request, "changed_by"),
            correlation_id=_uuid(request, "correlation_id"),
            uid=reader.only_uid,
        )
        limit = query.number(request, "limit", least=1, most=MAX_LIMIT) or DEFAULT_LIMIT
        after = _place(request)
        if self._trail is None:
            raise query.no_database()
        with self._readers.turn(reader):
            page = await self._trail.trail(wanted, limit=limit, after=after)
        following = None if page.following is None else cursor(page.following)
        return tagged(request, json_answer(200, {"events": page.events, "next_cursor": following}))


def cursor(place: AuditPlace) -> str:
    """A place as text for an address."""
    told = ((place.changed_at - query.EPOCH) // timedelta(microseconds=1), place.chain_id, place.seq)
    return base64.urlsafe_b64encode(msgspec.json.encode(told)).decode().rstrip("=")


def _place(request: web.Request) -> AuditPlace | None:
    """The place in `cursor`. Raises Refused for what was not made here."""
    text = request.query.get("cursor")
    if text is None:
        return None
    try:
        if not _CURSOR.fullmatch(text):
            raise ValueError(text)
        told = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        time_us, chain_id, seq = msgspec.json.decode(told, type=tuple[int, uuid.UUID, int])
        if not 0 <= seq < 2**63:
            raise ValueError(text)
        at = query.EPOCH + timedelta(microseconds=time_us)
    except (ValueError, OverflowError, binascii.Error, msgspec.DecodeError) as error:
        raise query.invalid("cursor", "must be the next_cursor of an answer before") from error
    return AuditPlace(changed_at=at, chain_id=str(chain_id), seq=seq)


def _uuid(request: web.Request, field: str) -> str | None:
    text = request.query.get(field)
    if text is not None and not _UUID.fullmatch(text):
        raise query.invalid(field, f"must be a UUID such as 6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21, not {text[:64]!r}")
    return text


def _for(reader: Reader, events: Sequence[Row]) -> Sequence[Row]:
    if reader.only_uid is None:
        return events
    return [event for event in events if event["event_kind"] not in BENCHMARK_KINDS]

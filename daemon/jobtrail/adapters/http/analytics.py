"""Handler of POST /v1/analytics/query."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.bodies import read_body
from jobtrail.adapters.http.readers import Readers
from jobtrail.adapters.http.refusals import json_answer
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.core.query_ports import AnalyticsReader
from jobtrail.domain.analytics import MAX_QUESTION_BYTES, read_question

PATH = "/v1/analytics/query"
BODY_SECONDS = 5.0  # also on the users' socket, whose pokes are a few numbers


class Analytics:
    """Answers questions about figures of many runs. It is posted because it is long; nothing is written."""

    def __init__(self, figures: AnalyticsReader | None, *, readers: Readers, settings: HttpSettings) -> None:
        self._figures = figures
        self._readers = readers
        self._limits = msgspec.structs.replace(
            settings, max_body_bytes=MAX_QUESTION_BYTES, body_timeout_seconds=BODY_SECONDS
        )

    async def answer(self, request: web.Request) -> web.Response:
        """POST /v1/analytics/query. Users who are not trusted are told of their own runs."""
        reader = self._readers.reader(request)
        query.check_parameters(request, ())
        with self._readers.turn(reader):
            body = await read_body(request.clone(client_max_size=MAX_QUESTION_BYTES), self._limits)
            question = read_question(body)
            if self._figures is None:
                raise query.no_database()
            analysis = await self._figures.analyse(question, uid=reader.uid_of(question.filters.account))
            # Tens of thousands of figures become text: not in the loop that takes the hooks' events.
            return await asyncio.to_thread(json_answer, 200, analysis)

"""Handler of GET /v1/nodes."""

from __future__ import annotations

from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.etags import tagged
from jobtrail.adapters.http.refusals import json_answer
from jobtrail.core.query_ports import NodeFilter, NodeReader

PARAMETERS = ("state", "partition", "cluster", "limit", "offset")
DEFAULT_LIMIT, MAX_LIMIT = 1000, 10_000
MAX_OFFSET = 10_000_000


class Nodes:
    """What the database holds of the clusters' nodes. They are no secret: every user of Slurm may ask sinfo."""

    def __init__(self, nodes: NodeReader | None) -> None:
        self._nodes = nodes

    async def nodes(self, request: web.Request) -> web.Response:
        """GET /v1/nodes."""
        query.check_parameters(request, PARAMETERS)
        state = query.name(request, "state")
        wanted = NodeFilter(
            state=None if state is None else state.lower(),
            partition=query.name(request, "partition"),
            cluster=query.name(request, "cluster"),
        )
        limit = query.number(request, "limit", least=1, most=MAX_LIMIT)
        offset = query.number(request, "offset", least=0, most=MAX_OFFSET)
        if self._nodes is None:
            raise query.no_database()
        found = await self._nodes.list_nodes(wanted, limit=limit or DEFAULT_LIMIT, offset=offset or 0)
        return tagged(request, json_answer(200, found))

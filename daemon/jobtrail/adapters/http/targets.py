"""Handler of GET /v1/prometheus/targets.

Prometheus takes the whole list each time and keeps the one before when the answer is no 200
(https://prometheus.io/docs/prometheus/latest/http_sd/). So nothing is paged, and what is not known is refused: an empty
list would end the scraping of every node.
"""

from __future__ import annotations

from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.refusals import Refused, json_answer
from jobtrail.core.target_ports import ScrapeTarget, TargetFilter, TargetReader

PARAMETERS = ("cluster", "partition")


class Targets:
    """Where Prometheus finds the daemons. Open like the nodes, which every user of Slurm may list."""

    def __init__(self, targets: TargetReader | None, *, port: int) -> None:
        """`port`: that on which the nodes' daemons listen; 0 is unknown."""
        self._targets = targets
        self._port = port

    async def targets(self, request: web.Request) -> web.Response:
        """GET /v1/prometheus/targets."""
        query.check_parameters(request, PARAMETERS)
        wanted = TargetFilter(cluster=query.name(request, "cluster"), partition=query.name(request, "partition"))
        if self._targets is None:
            raise query.no_database()
        if self._port == 0:
            message = "the port of the nodes' daemons is unknown: set metrics.target_port, or an http.port other than 0"
            raise Refused(503, "unavailable", "unavailable", message)
        return json_answer(200, [_group(one, self._port) for one in await self._targets.targets(wanted)])


def _group(target: ScrapeTarget, port: int) -> dict[str, object]:
    """One target with labels that Prometheus shows to relabelling only.

    As labels of its series they would rename the page's own `node`, and begin every series anew when the state changes.
    """
    told = {
        "cluster": target.cluster,
        "node": target.node,
        "state": target.state,
        "flags": _listed(target.flags),
        "partitions": _listed(target.partitions),
    }
    labels = {f"__meta_jobtrail_{name}": value for name, value in told.items() if value}
    return {"targets": [f"{target.node}:{port}"], "labels": labels}


def _listed(words: tuple[str, ...]) -> str:
    """With a comma before and after each, so that a pattern finds one whole: `.*,gpu,.*`."""
    return f",{','.join(words)}," if words else ""

"""All dashboards, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from grafana.src import accounts, audit, benchmarks, cluster, gpus, health, job, node
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

DIRECTORY = Path(__file__).parents[1] / "dashboards"

DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "cluster": cluster.build,
    "job": job.build,
    "node": node.build,
    "gpus": gpus.build,
    "accounts": accounts.build,
    "benchmarks": benchmarks.build,
    "audit": audit.build,
    "health": health.build,
}


def rendered() -> dict[str, bytes]:
    """The content of each file by its name; the same from the same source."""
    return {
        f"{name}.json": (json.dumps(build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n").encode()
        for name, build in DASHBOARDS.items()
    }

"""Rows of a job as a reader gives them: every column is there, and not known unless a test says so."""

import re
from typing import Any

from jobtrail.adapters.postgres.statements import SQL
from jobtrail.core.query_ports import JobDetail


def _columns(query: str) -> list[str]:
    selected = SQL[query].partition("SELECT")[2].partition("FROM")[0]
    return [name for name in re.findall(r"\w+", selected) if name != "projection"]


def job_row(**known: Any) -> dict[str, Any]:
    """A row of `jobs`: slurm-7, the first run, on no node that is known."""
    defaults = {
        "cluster_name": "c1", "job_id": "slurm-7", "run": 1, "state": "completed", "verdict": "completed",
        "state_confirmed": True, "start_inferred": False, "end_inferred": False, "out_of_memory_step": False,
        "nodes_started": 1, "nodes_ended": 1, "nodes_reporting": 1, "nodes_total": 1, "sample_count": 0,
    }  # fmt: skip
    return _row("job_show", defaults, known)


def node_row(node: str = "n1", **known: Any) -> dict[str, Any]:
    """A row of `job_nodes`."""
    defaults = {"cluster_name": "c1", "job_id": "slurm-7", "run": 1, "node": node, "sample_count": 10}
    limit = known.pop("memory_limit_bytes", None)  # of the node's usage, which the table has no column for
    row = _row("job_nodes_show", {**defaults, "start_inferred": False, "end_inferred": False}, known)
    return {**row, "memory_limit_bytes": limit}


def gpu_row(gpu_id: str = "GPU-a", **known: Any) -> dict[str, Any]:
    """A row of `job_gpus`."""
    return _row("job_gpus_show", {"node": "n1", "gpu_id": gpu_id, "vendor": "nvidia", "resolved_by": "uuid"}, known)


def _row(query: str, defaults: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    columns = _columns(query)
    assert not {*defaults, *known} - {*columns}, "a column that the query does not have"
    return {name: known.get(name, defaults.get(name)) for name in columns}


def detail(job: dict[str, Any], sentence: str = "The job completed.", **fields: Any) -> JobDetail:
    """What a reader shows of a run."""
    given: dict[str, Any] = {"efficiency": {}, "nodes": [], "gpus": [], "benchmarks": [], "other_runs": [], **fields}
    return JobDetail(job=job, sentence=sentence, **given)

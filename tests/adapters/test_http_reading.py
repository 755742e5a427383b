"""What is read of nodes and jobs: filters, reports, wrong questions, and who may read of whose jobs."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jobtrail.core.query_ports import JobDetail, NodeFilter, NodeList
from jobtrail.domain.errors import NotFound, StoreUnavailable
from jobtrail.domain.job_report_timeline import NodePoint, NodeTimeline, Timeline
from tests.adapters.test_http_pokes import poke
from tests.adapters.test_http_senders import OVERFLOW_UID, SLURM_UID, STRANGER_UID, reachable, send_as
from tests.adapters.test_http_tokens import TOKEN, write
from tests.job_rows import gpu_row, job_row, node_row
from tests.served_api import Answer, Served, served

__all__ = ["reachable"]
OUTCOME = {
    "state": "failed", "verdict": "out_of_memory", "state_confirmed": True, "outcome_source": "slurmctld",
    "raw_state": "OUT_OF_MEMORY", "reason": None, "exit_code": None, "exit_signal": None, "derived_exit_code": None,
    "derived_exit_signal": None, "out_of_memory_step": True,
}  # fmt: skip
JOB = job_row(
    run=2, uid=STRANGER_UID, verdict_evidence={"oom_kills": 1}, usage_sources={"cpu": "slurm_accounting"}, **OUTCOME,
)  # fmt: skip
NODE, GPU = node_row(), gpu_row(utilization_mean_percent=50.0)
EFFICIENCY = {"cpu_efficiency": 0.5, "coverage_ratio": 0.9, "nodes_reporting": 1, "nodes_total": 2}


class ScriptedJobs:
    """A JobReader that holds one job."""

    def __init__(self) -> None:
        self.job: dict[str, Any] = dict(JOB)
        self.problem: Exception | None = None
        self.asked: list[tuple[str, int | None, str | None]] = []

    async def show_job(self, job_id: str, *, run: int | None = None, cluster: str | None = None) -> JobDetail:
        self.asked.append((job_id, run, cluster))
        if self.problem is not None:
            raise self.problem
        return JobDetail(
            job=self.job,
            sentence="The job ran out of memory.",
            efficiency=EFFICIENCY,
            nodes=[NODE],
            gpus=[GPU],
            benchmarks=[{"run_uid": "u"}],
            other_runs=[("c1", 1)],
        )

    async def job_timeline(self, detail: JobDetail, *, now: datetime) -> Timeline:
        assert now.tzinfo is not None
        points = tuple(NodePoint(seconds=at, cpu_percent=50.0) for at in (1.0, 2.0))
        return Timeline(seconds=60.0, bucket_seconds=1.0, nodes=(NodeTimeline(node="n1", points=points),))


class ScriptedNodes:
    """A NodeReader that holds one node."""

    def __init__(self) -> None:
        self.asked: list[tuple[NodeFilter, int, int]] = []

    async def list_nodes(self, wanted: NodeFilter, *, limit: int, offset: int) -> NodeList:
        self.asked.append((wanted, limit, offset))
        return NodeList(nodes=[{"node": "n1", "state": "idle"}], total=1)


@pytest.fixture
def jobs() -> ScriptedJobs:
    return ScriptedJobs()


@pytest.fixture
def nodes() -> ScriptedNodes:
    return ScriptedNodes()


@pytest.fixture
async def api(tmp_path: Path, jobs: ScriptedJobs, nodes: ScriptedNodes) -> AsyncIterator[Served]:
    file = tmp_path / "read.token"
    write(file, TOKEN)
    async with served(
        tmp_path, jobs=jobs, nodes=nodes, trusted_uids=frozenset({SLURM_UID}), read_token_file=str(file)
    ) as one:
        yield one


async def ask(api: Served, way: str, path: str) -> Answer:
    """A question by one who may read everything: over TCP with the token, on a socket as the tests' own user."""
    if way == "tcp":
        return await api.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"}, tcp=True)
    return await poke(api, path, b"", "GET") if way == "users" else await api.request("GET", path)


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    ("question", "wanted", "limit", "offset"),
    [
        ("", NodeFilter(), 1000, 0),
        ("?state=DOWN&partition=gpu", NodeFilter(state="down", partition="gpu"), 1000, 0),
        ("?cluster=c1&limit=10000&offset=20", NodeFilter(cluster="c1"), 10_000, 20),
    ],
)
async def test_nodes_are_listed(
    api: Served, nodes: ScriptedNodes, question: str, wanted: NodeFilter, limit: int, offset: int, *, tcp: bool
) -> None:
    answer = await api.request("GET", f"/v1/nodes{question}", tcp=tcp)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"nodes": [{"node": "n1", "state": "idle"}], "total": 1}
    assert nodes.asked == [(wanted, limit, offset)]


@pytest.mark.parametrize("way", ["hooks", "users", "tcp"])
async def test_a_report_tells_outcome_efficiency_sources_and_rows(api: Served, jobs: ScriptedJobs, way: str) -> None:
    answer = await ask(api, way, "/v1/jobs/7/report?run=2&cluster=c1")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    told = answer.json()
    summary = told.pop("summary")
    assert told == {
        "job_id": "slurm-7", "cluster_name": "c1", "run": 2, "sentence": "The job ran out of memory.",
        "outcome": {**OUTCOME, "evidence": {"oom_kills": 1}}, "efficiency": EFFICIENCY,
        "sources": {"outcome": "slurmctld", "usage": {"cpu": "slurm_accounting"}, "absent": {}},
        "job": JOB, "nodes": [NODE], "gpus": [GPU], "benchmarks": [{"run_uid": "u"}],
        "other_runs": [{"cluster_name": "c1", "run": 1}],
    }  # fmt: skip
    assert (summary["sentence"], summary["verdict"]) == ("The job ran out of memory.", "out_of_memory")
    assert [note["rule"] for note in summary["advice"]["notes"]] == ["out_of_memory", "ran_before"]
    assert jobs.asked == [("7", 2, "c1")]


@pytest.mark.parametrize("accept", ["text/html", "text/html,application/xhtml+xml,*/*;q=0.8"])
async def test_a_browser_gets_the_report_as_a_page(api: Served, accept: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": accept}
    answer = await api.request("GET", "/v1/jobs/7/report", headers=headers, tcp=True)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = answer.body.decode()
    assert page.startswith("<!DOCTYPE html>")
    assert "The job ran out of memory." in page
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (answer.headers["cache-control"], answer.headers["vary"]) == ("private, no-store", "Accept")


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html;q=0.1, application/json", "text/html;q=x"])
async def test_who_does_not_ask_for_a_page_gets_json(api: Served, accept: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": accept}
    answer = await api.request("GET", "/v1/jobs/7/report", headers=headers, tcp=True)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")


async def test_a_refusal_is_json_for_browsers_too(api: Served) -> None:
    answer = await api.request("GET", "/v1/jobs/7/report", headers={"Accept": "text/html"}, tcp=True)
    assert (answer.status, answer.json()["error"]) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("path", "field", "allowed"),
    [
        ("/v1/jobs/0/report", "id", "slurm-N, local-N"),
        ("/v1/jobs/slurm-/report", "id", "slurm-N, local-N"),
        ("/v1/jobs/%00/report", "id", "slurm-N, local-N"),
        ("/v1/jobs/7%0A/report", "id", "slurm-N, local-N"),
        ("/v1/jobs/%D9%A7/report", "id", "slurm-N, local-N"),  # an Arabic digit
        ("/v1/jobs/7/report?run=0", "run", "from 1 to 2147483647"),
        ("/v1/jobs/7/report?run=2147483648", "run", "from 1 to 2147483647"),
        ("/v1/jobs/7/report?run=", "run", "whole number"),
        ("/v1/jobs/7/report?cluster=a%20b", "cluster", "visible characters"),
        ("/v1/jobs/7/report?rum=1", "rum", "cluster, run"),
        ("/v1/nodes?state=a&state=b", "state", "once"),
        ("/v1/nodes?state=%00", "state", "visible characters"),
        ("/v1/nodes?partition=", "partition", "visible characters"),
        ("/v1/nodes?limit=10001", "limit", "from 1 to 10000"),
        ("/v1/nodes?limit=0", "limit", "from 1 to 10000"),
        ("/v1/nodes?offset=-1", "offset", "from 0"),
        ("/v1/nodes?node=n1", "node", "cluster, limit, offset, partition, state"),
    ],
)
async def test_a_wrong_question_is_answered_with_the_allowed_form(
    api: Served, jobs: ScriptedJobs, nodes: ScriptedNodes, path: str, field: str, allowed: str
) -> None:
    answer = await ask(api, "tcp", path)
    assert (answer.status, answer.json()["error"]) == (400, "validation_error")
    assert answer.json()["details"] == {"field": field}
    assert allowed in answer.json()["message"]
    assert (jobs.asked, nodes.asked) == ([], [])


async def test_a_job_that_is_not_stored_is_404(api: Served, jobs: ScriptedJobs) -> None:
    jobs.problem = NotFound("no job slurm-8 is stored")
    answer = await ask(api, "tcp", "/v1/jobs/8/report")
    assert (answer.status, answer.json()["error"]) == (404, "not_found")
    assert answer.json()["message"] == "no job slurm-8 is stored"


async def test_a_database_that_does_not_answer_is_503(api: Served, jobs: ScriptedJobs) -> None:
    jobs.problem = StoreUnavailable("the database did not answer in time")
    answer = await ask(api, "users", "/v1/jobs/8/report")
    assert (answer.status, answer.json()["error"], answer.headers["retry-after"]) == (503, "unavailable", "5")


@pytest.mark.parametrize("path", ["/v1/nodes", "/v1/jobs/7/report"])
async def test_without_a_database_there_is_nothing_to_tell(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as api:
        answer = await api.request("GET", path)
    assert (answer.status, answer.json()["error"]) == (503, "unavailable")
    assert "database.url" in answer.json()["message"]


@pytest.mark.parametrize(
    ("uid", "owner", "status"),
    [
        (STRANGER_UID, STRANGER_UID, 200),
        (STRANGER_UID, STRANGER_UID + 1, 403),
        (STRANGER_UID, 0, 403),
        (STRANGER_UID, None, 403),
        (OVERFLOW_UID, OVERFLOW_UID, 403),
        (SLURM_UID, STRANGER_UID, 200),
    ],
)
async def test_on_the_socket_users_read_of_their_own_jobs(
    reachable: Path,
    api: Served,
    jobs: ScriptedJobs,
    uid: int,
    owner: int | None,
    status: int,
) -> None:
    """The kernel's word about the reader decides; who is unknown here is nobody's owner."""
    jobs.job["uid"] = owner
    answer = await send_as(uid, api, "/v1/jobs/7/report", b"", {}, method="GET")
    assert answer.status == status
    if status == 403:
        assert answer.json()["error"] == "forbidden"
        assert b"out of memory" not in answer.body


async def test_nodes_are_for_everybody(reachable: Path, api: Served) -> None:
    assert (await send_as(STRANGER_UID, api, "/v1/nodes", b"", {}, method="GET")).status == 200

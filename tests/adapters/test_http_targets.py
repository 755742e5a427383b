"""Where Prometheus finds the daemons: what the list holds, and when there is none."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobtrail.core.target_ports import ScrapeTarget, TargetFilter
from jobtrail.domain.errors import StoreUnavailable
from tests.adapters.test_http_pokes import poke
from tests.adapters.test_http_senders import STRANGER_UID, reachable, send_as
from tests.served_api import served

__all__ = ["reachable"]
PATH = "/v1/prometheus/targets"
WHOLE = ScrapeTarget(
    node="n1", cluster="c1", state="mixed", flags=("drain", "planned"), partitions=("batch", "gpu")
)  # fmt: skip
BARE = ScrapeTarget(node="n2")


class ScriptedTargets:
    """A TargetReader that holds two nodes, or fails."""

    def __init__(self) -> None:
        self.asked: list[TargetFilter] = []
        self.held: Sequence[ScrapeTarget] = (WHOLE, BARE)
        self.problem: Exception | None = None

    async def targets(self, wanted: TargetFilter) -> Sequence[ScrapeTarget]:
        self.asked.append(wanted)
        if self.problem is not None:
            raise self.problem
        return self.held


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("", TargetFilter()),
        ("?cluster=c1&partition=gpu", TargetFilter(cluster="c1", partition="gpu")),
    ],
)
async def test_each_node_is_a_target_with_what_is_known_of_it(
    tmp_path: Path, question: str, wanted: TargetFilter, *, tcp: bool
) -> None:
    held = ScriptedTargets()
    async with served(tmp_path, targets=held, target_port=9100) as api:
        answer = await api.request("GET", PATH + question, tcp=tcp)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body) == [
        {
            "targets": ["n1:9100"],
            "labels": {
                "__meta_jobtrail_cluster": "c1",
                "__meta_jobtrail_node": "n1",
                "__meta_jobtrail_state": "mixed",
                "__meta_jobtrail_flags": ",drain,planned,",
                "__meta_jobtrail_partitions": ",batch,gpu,",
            },
        },
        {"targets": ["n2:9100"], "labels": {"__meta_jobtrail_node": "n2"}},
    ]
    assert held.asked == [wanted]


async def test_where_no_node_matches_the_list_is_empty(tmp_path: Path) -> None:
    held = ScriptedTargets()
    held.held = ()
    async with served(tmp_path, targets=held, target_port=9100) as api:
        answer = await api.request("GET", PATH)
    assert (answer.status, json.loads(answer.body)) == (200, [])


async def test_everybody_may_ask_as_of_nodes(reachable: Path) -> None:
    async with served(reachable, targets=ScriptedTargets(), target_port=9100) as api:
        assert (await send_as(STRANGER_UID, api, PATH, b"", {}, method="GET")).status == 200
        assert (await poke(api, PATH, b"", "GET")).status == 404, "the users' socket is for what is theirs"


@pytest.mark.parametrize(
    ("question", "field", "allowed"),
    [
        ("?node=n1", "node", "cluster, partition"),
        ("?cluster=a&cluster=b", "cluster", "once"),
        ("?partition=", "partition", "visible characters"),
    ],
)
async def test_a_wrong_question_names_the_allowed_form(tmp_path: Path, question: str, field: str, allowed: str) -> None:
    held = ScriptedTargets()
    async with served(tmp_path, targets=held, target_port=9100) as api:
        answer = await api.request("GET", PATH + question)
    assert (answer.status, answer.json()["details"]) == (400, {"field": field})
    assert allowed in answer.json()["message"]
    assert held.asked == []


async def test_what_is_not_known_is_refused_and_never_an_empty_list(tmp_path: Path) -> None:
    """Prometheus keeps its targets on any answer but 200; an empty list would end their scraping."""
    held = ScriptedTargets()
    held.problem = StoreUnavailable("the database did not answer in time")
    async with served(tmp_path, targets=held, target_port=9100) as api:
        answer = await api.request("GET", PATH)
    assert (answer.status, answer.json()["error"], answer.headers["retry-after"]) == (503, "unavailable", "5")
    async with served(tmp_path, target_port=9100) as api:
        answer = await api.request("GET", PATH)
    assert answer.status == 503
    assert "database.url" in answer.json()["message"]
    async with served(tmp_path, targets=ScriptedTargets()) as api:
        answer = await api.request("GET", PATH)
    assert answer.status == 503
    assert "metrics.target_port" in answer.json()["message"]

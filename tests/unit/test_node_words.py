"""What a node may say through a server: of itself, and what its own daemon sees."""

from typing import Any

import msgspec
import pytest

from jobtrail.core.link.scope import NODES_KINDS, Allowed, Overstepped, overstepped
from jobtrail.domain.claims import made_id
from jobtrail.domain.events import Actor, Closing, Event, EventKind, encode
from jobtrail.domain.slurm import Origin, SlurmRecord
from jobtrail.domain.states import State
from tests.chains import T0, ChainWriter


def of_kind(kind: EventKind, **fields: Any) -> ChainWriter:
    writer = ChainWriter("n1")
    writer.event(kind, "slurm-1", 0, **fields)
    return writer


def problem_of(writer: ChainWriter, **allowed: frozenset[str]) -> str | None:
    found = overstepped(writer.rows, writer.node, Allowed(**allowed))
    return None if found is None else found.problem


def test_the_first_event_of_another_node_is_found() -> None:
    writer, other = ChainWriter("n1"), ChainWriter("n2", chain_id="6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21")
    writer.whole_job("slurm-1")
    assert overstepped(writer.rows, "n1") is None
    assert overstepped(writer.rows, "n2") == Overstepped(1, "n1", "is of node 'n1'")
    other.started("slurm-1")
    assert overstepped([*writer.rows, *other.rows], "n1") == Overstepped(1, "n2", "is of node 'n2'")


@pytest.mark.parametrize("payload", [b"\xff", b"[]", b'{"node":7}', b"", b'{"node":"n1"}', b'{"node":"n1","kind":"x"}'])
def test_bytes_that_are_no_event_speak_for_nobody(payload: bytes) -> None:
    writer = ChainWriter("n1")
    writer.raw(payload)
    assert overstepped(writer.rows, "n1") is None


def test_values_in_values_without_end_are_no_nodes_word() -> None:
    writer = ChainWriter("n1")
    writer.raw(b'{"node":"n1","more":' + b"[" * 5000 + b"]" * 5000 + b"}")
    assert overstepped(writer.rows, "n1") == Overstepped(1, "", "holds values in values without end")


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind not in NODES_KINDS])
def test_what_servers_people_and_the_store_say_is_no_nodes_word(kind: EventKind) -> None:
    assert problem_of(of_kind(kind)) == f"is of kind {kind}, which no node sends"


@pytest.mark.parametrize("kind", sorted(NODES_KINDS - {EventKind.JOB_CREATED}))
def test_what_a_node_sees_is_its_word(kind: EventKind) -> None:
    assert problem_of(of_kind(kind)) is None


def test_a_row_is_of_its_events_kind() -> None:
    writer = ChainWriter("n1")
    writer.raw(of_kind(EventKind.GAP).rows[0].payload, kind="payload_erased")
    assert problem_of(writer) == "is of kind gap in a row of kind 'payload_erased'"


@pytest.mark.parametrize(("whole", "problem"), [(False, None), (True, "closes a whole run")])
def test_a_node_closes_its_own_part(whole: bool, problem: str | None) -> None:
    found = problem_of(
        of_kind(EventKind.JOB_CLOSED, closing=Closing(reason="cgroup_gone", not_before_us=T0, whole_run=whole))
    )
    assert found is None if problem is None else problem in str(found)


@pytest.mark.parametrize("origin", list(Origin))
def test_of_slurms_parts_its_hooks_alone_speak_through_a_node(origin: Origin) -> None:
    found = problem_of(of_kind(EventKind.SLURM_REPORTED, slurm=SlurmRecord(origin=origin, job_id="slurm-1")))
    expected = None if origin is Origin.CONTROLLER_HOOK else f"is the word of {origin}, which a node does not ask"
    assert found == expected


@pytest.mark.parametrize("kind", [EventKind.JOB_STARTED, EventKind.JOB_FINISHED, EventKind.JOB_CLOSED])
def test_a_node_is_no_reconciler(kind: EventKind) -> None:
    found = problem_of(of_kind(kind, by=Actor.RECONCILER))
    assert found == "is said by reconciler, and a node does not ask Slurm"


CLUSTERS = frozenset({"lab", "local"})


@pytest.mark.parametrize("kind", sorted(NODES_KINDS - {EventKind.JOB_CREATED}))
def test_a_node_names_the_clusters_of_its_site(kind: EventKind) -> None:
    for cluster in ("lab", "local", "lab2", "Lab", ""):
        writer = ChainWriter("n1", cluster=cluster)
        writer.event(kind, "slurm-1", 0)
        expected = None if cluster in CLUSTERS else f"is of cluster {cluster!r}, which is none of link.clusters"
        assert problem_of(writer, clusters=CLUSTERS) == expected
        assert problem_of(writer) is None


def test_a_chain_may_begin_before_the_cluster_is_known() -> None:
    """And benchmarks, which are about no run of a job, are of a cluster all the same."""
    for kind, fine in ((EventKind.CHAIN_STARTED, True), (EventKind.GAP, True), (EventKind.BENCHMARK_RECORDED, False)):
        writer = ChainWriter("n1", cluster="c1")
        writer.event(kind, None, 0)
        assert (problem_of(writer, clusters=CLUSTERS) is None) is fine


@pytest.mark.parametrize(("cluster", "fine"), [(None, True), ("lab", True), ("other", False)])
def test_slurms_record_is_of_the_sites_cluster_too(cluster: str | None, fine: bool) -> None:
    record = SlurmRecord(origin=Origin.CONTROLLER_HOOK, job_id="slurm-1", cluster=cluster)
    writer = ChainWriter("n1", cluster="lab")
    writer.event(EventKind.SLURM_REPORTED, "slurm-1", 0, slurm=record)
    assert (problem_of(writer, clusters=CLUSTERS) is None) is fine


@pytest.mark.parametrize(
    ("kind", "by"),
    [(EventKind.SLURM_REPORTED, Actor.SLURM_CONTROLLER), (EventKind.SLURM_REPORTED, Actor.COLLECTOR),
     (EventKind.JOB_FINISHED, Actor.SLURM_CONTROLLER)],
)  # fmt: skip
def test_slurmctld_speaks_through_its_own_machines(kind: EventKind, by: Actor) -> None:
    controllers = frozenset({"ctl1", "ctl2"})
    for node, fine in (("ctl1", True), ("ctl2", True), ("n1", False), ("ctl", False)):
        writer = ChainWriter(node)
        writer.event(kind, "slurm-1", 0, by)
        expected = None if fine else "is slurmctld's word, and the node is none of link.controllers"
        assert problem_of(writer, controllers=controllers) == expected
        assert problem_of(writer) is None


def test_a_node_that_is_no_controller_speaks_of_itself() -> None:
    writer = ChainWriter("n1")
    writer.whole_job("slurm-1")
    assert problem_of(writer, controllers=frozenset({"ctl"}), clusters=frozenset({"c1"})) is None


def test_a_kind_of_a_later_release_is_of_no_effect_and_of_no_cluster() -> None:
    writer = ChainWriter("n1")
    writer.raw(b'{"node":"n1","kind":"of_tomorrow","cluster":"far","job_id":"slurm-1"}')
    assert problem_of(writer, clusters=CLUSTERS) is None


def test_without_a_database_a_job_is_made_under_the_name_that_follows_from_the_request() -> None:
    event_id = "6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21"
    for job_id, fine in ((made_id(event_id), True), ("manual-a", False)):
        event = Event(
            kind=EventKind.JOB_CREATED, event_id=event_id, time_us=T0, cluster="c1", job_id=job_id, node="n1",
            changed_by=Actor.API, source="api",
        )  # fmt: skip
        writer = ChainWriter("n1")
        writer.raw(encode(event), kind=event.kind, event_id=event_id)
        assert (problem_of(writer) is None) is fine


def test_no_field_is_held_to_more_than_the_events_own_type() -> None:
    """Else bytes could be an event to the store and none to this check."""
    whole = of_kind(
        EventKind.JOB_CLOSED,
        closing=Closing(reason="cgroup_gone", not_before_us=T0),
        slurm=SlurmRecord(origin=Origin.SACCT, job_id="x"),
    ).rows[0]
    tree = msgspec.json.decode(whole.payload)
    for name in ("event_id", "job_id", "closing", "slurm", "kind", "node"):
        for value in (None, 7, "x", [], {}, True, State.RUNNING):
            payload = msgspec.json.encode({**tree, name: value})
            writer = ChainWriter("n1")
            writer.raw(payload, kind=EventKind.JOB_CLOSED)
            try:
                msgspec.json.decode(payload, type=Event)
            except msgspec.ValidationError:
                continue
            assert overstepped(writer.rows, "n2") is not None

"""What was taken for a run's end, and later signs of life: the run goes on, in whatever order they come."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage
from jobtrail.domain.explain import explain
from jobtrail.domain.job import Job, Run
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.records import SKEW_US
from jobtrail.domain.registers import NodeClosing
from jobtrail.domain.slurm import Origin
from jobtrail.domain.states import State
from jobtrail.domain.transitions import Changed, apply
from tests.unit.stories import SECOND, T0, closed, event, finished, reported, started, tell_one, used

TWO = ("n1", "n2")
KEY: dict[str, Any] = {"slurm_start_time": T0 // SECOND}
PROLOG = started("n1", 0, nodes=["n1"], **KEY)
OTHER = started("n2", 0, nodes=TWO, **KEY)


def unknown(at: int) -> Event:
    """The comparison with Slurm closes the run, `at` seconds after its start."""
    return closed("ctl", at * SECOND, run=1, reason="unknown_to_slurm")


def gone(at: int, node: str = "n1", **more: Any) -> Event:
    return closed(node, at * SECOND, opened_by=PROLOG.event_id if node == "n1" else OTHER.event_id, **KEY, **more)


def word(at: int, state: str = "RUNNING", origin: Origin = Origin.SLURMCTLD, **more: Any) -> Event:
    return reported(origin, at * SECOND, run=1, state=state, **more)


def sampled(at: int, *, final: bool = False) -> Event:
    usage = NodeUsage(cpu_usage_us=5, sample_count=9, last_sample_us=T0 + at * SECOND, last_alive_us=T0 + at * SECOND)
    return used("n1", at * SECOND, usage, final=final, opened_by=PROLOG.event_id, **KEY)


def looked_at(at: int) -> Event:
    """A sample of a cgroup that stayed when its processes had gone."""
    usage = NodeUsage(cpu_usage_us=5, sample_count=9, last_sample_us=T0 + at * SECOND, last_alive_us=T0 + SECOND)
    return used("n1", at * SECOND, usage, final=True, opened_by=PROLOG.event_id, **KEY)


def epilog(at: int, node: str = "n1", nodes: Sequence[str] = ("n1",)) -> Event:
    return finished(node, at * SECOND, nodes=nodes, **KEY)


def in_every_order(begun: Sequence[Event], *told: Event) -> Job:
    """The run's job after `told`, which must be the same for every order of them."""
    runs = [tell_one([*begun, *order]) for order in permutations(told)]
    assert all(run == runs[0] for run in runs)
    return runs[0].job


@pytest.mark.parametrize(
    ("told", "state", "end"),
    [
        ([unknown(100)], State.ENDED, 100),
        ([unknown(100), word(200)], State.RUNNING, None),
        ([unknown(100), word(200, "SUSPENDED")], State.RUNNING, None),
        ([unknown(100), word(200, "CANCELLED", flags=("COMPLETING",))], State.RUNNING, None),
        ([unknown(100), word(200, origin=Origin.SACCT)], State.RUNNING, None),
        ([unknown(100), word(200, "PENDING")], State.ENDED, 100),
        ([unknown(100), word(100)], State.ENDED, 100),
        ([unknown(100), word(90)], State.ENDED, 100),
        ([unknown(100), sampled(200)], State.RUNNING, None),
        ([unknown(100), sampled(200, final=True)], State.RUNNING, None),
        ([unknown(100), sampled(100)], State.ENDED, 100),
        ([unknown(100), word(200), unknown(300)], State.ENDED, 300),
        ([unknown(100), sampled(200), unknown(300), unknown(400)], State.ENDED, 300),
        ([unknown(100), sampled(200), unknown(300), word(400)], State.RUNNING, None),
        ([unknown(100), word(200), word(250, "COMPLETED", end_time=240)], State.COMPLETED, 240),
        ([unknown(100), word(200), epilog(230)], State.ENDED, 230),
        ([gone(100)], State.ENDED, 100),
        ([gone(100), sampled(100, final=True)], State.ENDED, 100),
        ([gone(100), sampled(200)], State.RUNNING, None),
        ([gone(100), looked_at(200)], State.ENDED, 100),
        ([unknown(100), looked_at(200)], State.ENDED, 100),
        ([gone(100), sampled(200), gone(300)], State.ENDED, 300),
        ([gone(100), sampled(200), epilog(300)], State.ENDED, 300),
        ([gone(100), word(200)], State.RUNNING, None),
        ([gone(100), word(200, origin=Origin.SACCT)], State.RUNNING, None),
        ([gone(100), word(200, "COMPLETING")], State.ENDED, 100),
        ([gone(100), word(90)], State.ENDED, 100),
        ([gone(100), word(200), gone(300)], State.ENDED, 300),
        ([gone(100), unknown(150), word(200)], State.RUNNING, None),
        ([gone(100), unknown(150), sampled(200)], State.RUNNING, None),
    ],
)
def test_an_inferred_end_is_taken_back_by_later_life(told: list[Event], state: State, end: int | None) -> None:
    """And what people read does not say that the job ended then."""
    job = in_every_order([PROLOG], *told)
    assert (job.state, job.end_us) == (state, None if end is None else T0 + end * SECOND)
    assert job.is_over is (end is not None)
    if end is None:
        assert job.awaits in ("facts", "end")
        assert " ended" not in explain(job)


def test_a_node_that_is_seen_to_live_again_has_its_whole_window() -> None:
    """And is counted among those that ended only while it is."""
    seen = [PROLOG, gone(100), sampled(200)]
    run = tell_one(seen)
    part = run.nodes["n1"]
    assert (part.over_us, part.closed_us, part.closed_not_before_us, part.closed_because) == (None, None, None, None)
    assert (run.job.nodes_ended, run.job.closed_on, run.job.window_us) == (0, (), 0)
    ended = tell_one([*seen, epilog(300)])
    assert (ended.nodes["n1"].over_us, ended.job.window_us) == (T0 + 300 * SECOND, 300 * SECOND)
    assert (ended.job.nodes_ended, ended.job.nodes_told, ended.job.told_on) == (1, 1, ("n1",))
    assert (ended.job.end_inferred, ended.job.closed_on) == (False, ())


@pytest.mark.parametrize(
    ("spoken", "runs_on"),
    [
        (word(56), True),
        (word(56, "SUSPENDED"), True),
        (word(55), False),
        (word(56, "COMPLETING"), False),
        (word(56, "FAILED", flags=("COMPLETING",)), False),
        (word(56, "RUNNING", flags=("STAGE_OUT",)), False),
        (word(56, "PENDING"), False),
        (word(999, origin=Origin.SLURMDBD), False),
    ],
)
def test_the_controllers_later_word_holds_a_run_open_whose_nodes_all_told_an_end(spoken: Event, runs_on: bool) -> None:
    """Accounting may lag behind, and clocks differ by SKEW_US."""
    assert SKEW_US == 5 * SECOND
    job = in_every_order([PROLOG], epilog(50), spoken)
    assert job.is_over is not runs_on
    assert (job.state is State.RUNNING) is runs_on


def of(*nodes: str) -> dict[str, Any]:
    return {"start_time": 0, "facts": JobFacts(nodes=nodes)}


@pytest.mark.parametrize(
    ("told", "state", "end"),
    [
        ([epilog(50, "n2", TWO)], State.RUNNING, None),
        ([epilog(50, "n2", ["n1"]), word(51, **of("n1"))], State.RUNNING, None),
        ([epilog(50, "n2", TWO), word(49, **of("n1"))], State.RUNNING, None),
        ([epilog(50, "n2", TWO), word(999, **of("n1"))], State.RUNNING, None),
        ([gone(50, "n2"), word(49, **of("n1"))], State.RUNNING, None),
        ([epilog(50, "n2", TWO), word(49, **of("n1")), epilog(90)], State.ENDED, 90),
        ([epilog(50, "n2", TWO), word(49, **of("n1")), gone(90)], State.ENDED, 90),
        ([epilog(50, "n2", TWO), word(49, **of("n1")), word(70, "FAILED", origin=Origin.SLURMDBD, end_time=69)],
         State.FAILED, 69),
    ],
)  # fmt: skip
def test_a_job_that_gave_a_node_back_goes_on(told: list[Event], state: State, end: int | None) -> None:
    """`scontrol update NumNodes`: that node runs its epilog, and Slurm then lists the others only."""
    job = in_every_order([started("n1", 0, nodes=TWO, **KEY), OTHER], *told)
    assert (job.state, job.end_us) == (state, None if end is None else T0 + end * SECOND)
    assert job.end_inferred is (gone(90) in told)
    if end is None:
        assert "1 of its 1" not in explain(job)


def test_what_an_earlier_release_stored_of_closings_still_holds() -> None:
    """It kept the one that counts, and of nodes what follows from it."""
    run = tell_one([PROLOG, gone(100), unknown(150)])
    parts = {"n1": msgspec.structs.replace(run.nodes["n1"], closings=())}
    old = Run(job=msgspec.structs.replace(run.job, closings=(), closed_on=()), nodes=parts)
    later = apply(old, word(90))
    assert isinstance(later, Changed)
    assert (later.run.job.is_over, later.run.job.closings) == (True, run.job.closings)
    seen = apply(later.run, sampled(120))
    assert isinstance(seen, Changed)
    assert seen.run.nodes["n1"].closings == (NodeClosing(T0 + 100 * SECOND, T0, "cgroup_gone"),)
    assert (seen.run.job.nodes_ended, seen.run.job.is_over) == (0, True)
    older = apply(Run(job=old.job, nodes={"n1": msgspec.structs.replace(parts["n1"], closed_not_before_us=None)}),
                  sampled(120))  # fmt: skip
    assert isinstance(older, Changed)
    assert older.run.nodes["n1"].closings == (NodeClosing(T0 + 100 * SECOND, T0 + 100 * SECOND, "cgroup_gone"),)


moments = st.integers(1, 12).map(lambda number: number * 10)


@given(st.data())
def test_ends_and_signs_of_life_converge_in_every_order(data: st.DataObject) -> None:
    """Of two nodes, with closings of both kinds, samples, words of Slurm, epilogs and a sender's word."""
    made = [
        unknown, gone, sampled, word, lambda at: gone(at, "n2"), lambda at: epilog(at, "n2", TWO),
        lambda at: epilog(at, "n1", TWO), lambda at: word(at, "COMPLETING"), lambda at: word(at, **of("n1")),
        lambda at: word(at, origin=Origin.SLURMDBD, **of("n1", "n2")),
        lambda at: event(EventKind.JOB_FINISHED, "n1", at * SECOND, f"api {at}", changed_by=Actor.API,
                         outcome=Outcome(final_state="failed"), **KEY),
    ]  # fmt: skip
    chosen = data.draw(st.lists(st.tuples(st.sampled_from(made), moments), max_size=7))
    told = list({one.event_id: one for one in (make(at) for make, at in chosen)}.values())
    begun = [started("n1", 0, nodes=TWO, **KEY), OTHER]
    expected = tell_one([*begun, *told])
    again = [*data.draw(st.permutations(told)), *data.draw(st.lists(st.sampled_from([*begun, *told]), max_size=3))]
    assert tell_one([*begun, *again]) == expected
    parts = expected.nodes.values()
    assert expected.job.nodes_ended == sum(part.over_us is not None for part in parts)
    assert expected.job.told_on == tuple(sorted(part.node for part in parts if part.ended_us is not None))

"""What the projection of a run says of itself: facts, usage, whether it is over, what is still to be asked."""

from typing import Any

import msgspec
import pytest

from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage
from jobtrail.domain.job import Job, NodeRun, Run
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import Origin
from jobtrail.domain.states import State
from jobtrail.domain.transitions import Changed, Rejected, apply, open_run
from tests.unit.stories import (
    JOB,
    SECOND,
    T0,
    closed,
    event,
    finished,
    found,
    hooked,
    reported,
    started,
    tell_one,
    used,
)

TWO = ("n1", "n2")


def job(*events: Event) -> Job:
    return tell_one(events).job


def word(origin: Origin, state: str | None = "COMPLETED", at: int = 9 * SECOND, **more: Any) -> Event:
    return reported(origin, at, f"{origin} {at} {more}", state=state, run=1, **more)


def test_the_controllers_facts_count_most_and_the_epilogs_least() -> None:
    """slurmctld, slurmdbd, sacct, slurmctld's hook, prolog, epilog: each fills in what those before leave out."""
    names = ("user_name", "account", "partition", "qos", "job_name", "comment", "work_dir")

    def facts(of: str, count: int) -> JobFacts:
        return JobFacts(**dict.fromkeys(names[:count], of))

    events = [
        started("n1", 0, facts=facts("prolog", 5)),
        event(EventKind.JOB_FINISHED, "n1", 5, facts=facts("epilog", 6), outcome=Outcome(exit_code=0)),
        hooked("prolog", 0, facts=facts("hook", 4)),
        word(Origin.SACCT, facts=facts("sacct", 3)),
        word(Origin.SLURMDBD, facts=facts("slurmdbd", 2)),
        word(Origin.SLURMCTLD, facts=facts("slurmctld", 1)),
    ]
    known = job(*events).facts
    assert [getattr(known, name) for name in names] == [
        "slurmctld", "slurmdbd", "sacct", "hook", "prolog", "epilog", None
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prolog", "epilog", "controller", "expected"),
    [(0, 1, 1, 0), (None, 1, 0, 0), (None, 1, None, 1), (None, None, 2, 2), (None, None, None, None), (1, 1, 1, 1)],
)
def test_restarts_are_what_the_lowest_count_says(
    prolog: int | None, epilog: int | None, controller: int | None, expected: int | None
) -> None:
    """Once a job is requeued, its epilog and slurmctld may count the next restart already."""
    events = [
        started("n1", 0, facts=JobFacts(restart_count=prolog)),
        event(EventKind.JOB_FINISHED, "n1", 5, facts=JobFacts(restart_count=epilog)),
        word(Origin.SLURMCTLD, facts=JobFacts(restart_count=controller)),
    ]
    assert job(*events).facts.restart_count == expected


def test_the_nodes_are_the_first_list_that_is_told() -> None:
    assert job(started("n1", 0)).nodes == ()
    assert job(started("n1", 0, nodes=["n1"])).nodes == ("n1",)
    later = word(Origin.SLURMDBD, facts=JobFacts(nodes=TWO))
    assert job(started("n1", 0, nodes=["n1"]), later).nodes == TWO
    assert job(started("n1", 0, nodes=["n1"]), word(Origin.SLURMDBD)).nodes == ("n1",)


@pytest.mark.parametrize(("state", "flags"), [("COMPLETING", ()), ("CANCELLED", ("COMPLETING",))])
def test_the_nodes_that_still_complete_are_not_those_of_the_run(state: str, flags: tuple[str, ...]) -> None:
    """slurmctld lists only them in COMPLETING, and counts only their CPUs."""
    left = JobFacts(
        nodes=("n2",), node_list="n2", cpus_total=2, gpus_total=1, memory_requested_bytes=5, qos="high", uid=7
    )
    known = job(started("n1", 0, nodes=TWO), word(Origin.SLURMCTLD, state, flags=flags, facts=left))
    assert (known.nodes, known.nodes_expected) == (TWO, 2)
    assert (known.facts.qos, known.facts.uid) == ("high", 7)
    alone = job(word(Origin.SLURMCTLD, state, flags=flags, facts=left)).facts
    assert (alone.nodes, alone.node_list, alone.cpus_total, alone.gpus_total) == (None, None, None, None)
    assert alone.memory_requested_bytes is None
    assert job(word(Origin.SLURMCTLD, "RUNNING", facts=left)).facts.cpus_total == 2


def test_how_many_nodes_have_to_end_the_run() -> None:
    """Those it lists, else those that began it, else one."""
    assert job(used("n1", 0, NodeUsage())).nodes_expected == 1
    assert job(started("n1", 0), started("n2", 0)).nodes_expected == 2
    assert job(started("n1", 0, nodes=("n1", "n2", "n3"))).nodes_expected == 3


def test_a_run_is_over_when_all_nodes_slurm_a_sender_or_an_inference_say_so() -> None:
    begun = [started("n1", 0, nodes=TWO), finished("n1", 5, nodes=TWO)]
    assert not job(*begun).is_over
    prolog = started("n2", 0, nodes=TWO)
    for last in (
        [finished("n2", 5, nodes=TWO)],
        [prolog, closed("n2", 9, opened_by=prolog.event_id)],
        [word(Origin.SACCT, "CANCELLED")],
        [closed("ctl", 9, run=1)],
        [finished("n1", 6, nodes=TWO, outcome=Outcome(final_state="failed"), changed_by=Actor.API)],
    ):
        over = job(*begun, *last)
        assert over.is_over
        assert over.state not in (State.PENDING, State.RUNNING)
        assert over.end_us is not None or over.ruling.source == "sacct"
    for other in ([word(Origin.SLURMCTLD, "RUNNING")], [word(Origin.SLURMCTLD, "FAILED", flags=("COMPLETING",))]):
        assert not job(*begun, *other).is_over


USAGE = NodeUsage(cpu_usage_us=500, sample_count=3, sources={"usage": "cgroup_v1"})
ESTIMATE = NodeUsage(cpu_usage_us=500, sources={"cpu": "parent_counter_shared_by_2"})


def test_what_slurm_is_still_to_be_asked() -> None:
    begun, ended = started("n1", 0, nodes=["n1"]), finished("n1", 5, nodes=["n1"])
    confirmed = word(Origin.SLURMCTLD, end_time=5)
    mine = used("n1", 6, USAGE)
    assert job(begun).awaits == "facts"
    assert job(begun, hooked("prolog", 0)).awaits == "facts"
    assert job(begun, word(Origin.SLURMCTLD, "RUNNING")).awaits == "end"
    assert job(begun, ended, mine).awaits == "outcome"
    assert job(begun, closed("ctl", 9, run=1)).awaits == "outcome"
    assert job(begun, ended, confirmed).awaits == "usage"
    assert job(begun, ended, confirmed, used("n1", 6, NodeUsage(sample_count=1))).awaits == "usage"
    assert job(begun, ended, confirmed, used("n1", 6, ESTIMATE)).awaits == "usage"
    assert job(begun, ended, confirmed, mine).awaits is None
    told = word(Origin.SACCT, end_time=5, cpu_usage_us=7)
    assert job(begun, ended, confirmed, used("n1", 6, ESTIMATE), told).awaits is None
    running = word(Origin.SACCT, "RUNNING", cpu_usage_us=7)
    assert job(begun, ended, confirmed, used("n1", 6, ESTIMATE), running).awaits == "usage"
    never = reported(Origin.SLURMDBD, 5, state="CANCELLED", end_time=5)
    assert job(never).awaits is None, "it used nothing"
    two = [started(node, 0, nodes=TWO) for node in TWO]
    assert job(*two, confirmed, mine).awaits == "usage"
    assert job(*two, confirmed, mine, used("n2", 6, USAGE)).awaits is None


def test_nobody_asks_slurm_about_local_jobs() -> None:
    assert msgspec.structs.replace(job(started("n1", 0)), job_id="local-1").awaits is None


def test_the_total_is_completed_by_accounting_of_an_ended_run() -> None:
    """An estimate gives way to it, of several nodes the one that reported is less than all, absent is all it knows."""
    begun = [started(node, 0, nodes=TWO) for node in TWO]
    plain = job(*begun, used("n1", 6, USAGE))
    assert plain.total_usage == plain.usage
    assert job(*begun).total_usage is None
    for mine, told, expected, source in (
        ([], 700, 700, "slurm_accounting"),
        ([], 0, 0, "slurm_accounting"),
        ([used("n1", 6, ESTIMATE)], 300, 300, "slurm_accounting"),
        ([used("n1", 6, ESTIMATE)], 0, 500, "parent_counter_shared_by_2"),
        ([used("n1", 6, USAGE)], 700, 700, "slurm_accounting"),
        ([used("n1", 6, USAGE)], 400, 500, None),
        ([used("n1", 6, USAGE)], 500, 500, None),
    ):
        total = job(*begun, *mine, word(Origin.SLURMDBD, cpu_usage_us=told)).total_usage
        assert total is not None
        assert (total.cpu_usage_us, total.sources.get("cpu")) == (expected, source)
    running = job(*begun, used("n1", 6, ESTIMATE), word(Origin.SLURMDBD, "RUNNING", cpu_usage_us=1))
    assert running.total_usage == running.usage


def test_the_best_accounting_is_used() -> None:
    """slurmdbd's before sacct's; one without a CPU time does not count."""
    both = [word(Origin.SACCT, cpu_usage_us=1), word(Origin.SLURMDBD, cpu_usage_us=2)]
    for events in (both, both[::-1]):
        record = job(*events).accounted
        assert record is not None
        assert record.cpu_usage_us == 2
    record = job(both[0], word(Origin.SLURMDBD)).accounted
    assert record is not None
    assert record.origin is Origin.SACCT
    assert job(word(Origin.SLURMDBD)).accounted is None


def test_the_submission_is_slurms() -> None:
    assert job(started("n1", 0)).submit_time is None
    told = job(started("n1", 0), word(Origin.SLURMDBD, submit_time=3), word(Origin.SACCT))
    assert told.submit_time == T0 // SECOND + 3


@pytest.mark.parametrize(
    ("ended", "closed_at", "over"), [(5, None, 5), (None, 7, 7), (5, 7, 5), (9, 7, 7), (None, None, None)]
)
def test_a_nodes_part_is_over_when_told_or_seen_before(
    ended: int | None, closed_at: int | None, over: int | None
) -> None:
    assert NodeRun(node="n1", ended_us=ended, closed_us=closed_at).over_us == over


def test_an_inferred_end_lies_between_two_moments() -> None:
    """Of a node, of all nodes, of the run as a whole; a told end is exact."""
    prolog, other = started("n1", 0, nodes=TWO), started("n2", 0, nodes=TWO)
    first = closed("n1", 50, opened_by=prolog.event_id, not_before=20)
    earlier = closed("n1", 40, "again", opened_by=prolog.event_id, not_before=10, reason="a_reason")
    told = finished("n2", 30, nodes=TWO)
    whole = closed("ctl", 90, run=1, not_before=25)
    part = tell_one([prolog, first, earlier]).nodes["n1"]
    assert (part.closed_us, part.closed_not_before_us, part.closed_because) == (T0 + 40, T0 + 20, "a_reason")
    for events, end, not_before in (
        ([prolog, other, first, told], 50, 30),
        ([prolog, other, first, closed("n2", 60, opened_by=other.event_id, not_before=45)], 60, 45),
        ([prolog, other, whole], 90, 25),
        ([prolog, other, told, whole], 90, 30),
        ([prolog, other, whole, closed("ctl", 91, run=1, not_before=80)], 90, 25),
        ([prolog, other, closed("ctl", 91, run=1, not_before=80), whole], 90, 25),
    ):
        run = job(*events)
        assert (run.end_us, run.end_inferred, run.end_not_before_us) == (T0 + end, True, T0 + not_before)
    exact = job(prolog, other, whole, told, finished("n1", 31, nodes=TWO))
    assert (exact.end_us, exact.end_inferred, exact.end_not_before_us) == (T0 + 31, False, None)
    assert job(prolog, other, whole, word(Origin.SACCT, end_time=1)).end_us == T0 + SECOND


def test_the_start_is_the_prologs_else_slurms_else_when_it_was_found() -> None:
    """A job cancelled before it ran has none, whatever accounting gives."""
    running = word(Origin.SLURMCTLD, "RUNNING", start_time=0, facts=JobFacts(nodes=("n1",)))
    never = word(Origin.SLURMDBD, "CANCELLED", start_time=9, end_time=9)
    for events, start, inferred in (
        ([started("n1", 5)], 5, False),
        ([started("n1", 5), running], 5, False),
        ([found("n1", 5)], 5, True),
        ([found("n1", 5), running], 0, False),
        ([running], 0, False),
        ([running, word(Origin.SLURMDBD, start_time=1, facts=JobFacts(node_list="n1"))], 0, False),
        ([never], None, False),
        ([word(Origin.SLURMDBD, "CANCELLED", start_time=9, facts=JobFacts(node_list="n1"))], 9 * SECOND, False),
        ([word(Origin.SLURMCTLD, "PENDING", start_time=9)], None, False),
        ([word(Origin.SLURMCTLD, "RUNNING")], None, False),
    ):
        run = job(*events)
        assert (run.start_us, run.start_inferred) == (None if start is None else T0 + start, inferred), events


def test_of_each_origin_the_final_word_counts_else_the_latest() -> None:
    for states, kept in (
        ((("RUNNING", 1), ("SUSPENDED", 2)), "SUSPENDED"),
        ((("COMPLETED", 1), ("RUNNING", 2)), "COMPLETED"),
        ((("COMPLETED", 1), ("FAILED", 2)), "FAILED"),
    ):
        words = [word(Origin.SLURMCTLD, state, at) for state, at in states]
        for order in (words, words[::-1]):
            assert [one.record.state for one in job(*order).words] == [kept]


def test_what_a_closing_or_a_word_must_hold() -> None:
    """Such an event changes no run; the trail keeps it."""
    run = open_run("c1", JOB, 1)
    for kind, lacking in ((EventKind.JOB_CLOSED, "closing"), (EventKind.SLURM_REPORTED, "slurm")):
        result = apply(run, event(kind, "n1", 0))
        assert isinstance(result, Rejected)
        assert lacking in result.reason


def test_a_projection_of_an_earlier_release_still_decodes_and_grows() -> None:
    """It has none of Slurm's words and inferred ends, and told its start and end as such."""
    old = {
        "job": {
            "cluster_name": "c1", "job_id": JOB, "run": 1, "correlation_id": "x", "state": "running", "verdict": None,
            "state_confirmed": False, "slurm_start_time": None, "sluid": None, "start_us": T0, "end_us": T0 + 5,
            "start_inferred": True, "nodes_started": 2, "nodes_ended": 1, "nodes_reporting": 0, "window_us": 5,
            "cpus_allocated": 4, "last_facts": None, "outcome": None, "usage": None,
            "first_facts": {"stamp": [0, T0, "a"], "facts": {"nodes": ["n1", "n2"]}},
        },
        "nodes": {"n2": {"node": "n2", "started_us": T0 + 1, "ended_us": None, "opened_by": "b", "found": False}},
    }  # fmt: skip
    run = msgspec.json.decode(msgspec.json.encode(old), type=Run)
    assert (run.job.is_over, run.job.awaits, run.job.state) == (False, "facts", State.RUNNING)
    result = apply(run, finished("n2", 3, nodes=TWO))
    assert isinstance(result, Changed)
    after = result.run.job
    assert (after.start_us, after.start_inferred, after.begun_us) == (T0, True, T0)
    assert (after.end_us, after.end_inferred, after.nodes_told, after.state) == (T0 + 5, False, 2, State.ENDED)
    assert after.window_us == 5 + 2

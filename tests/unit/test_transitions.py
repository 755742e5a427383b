"""State, verdict and identity of a run."""

import uuid
from typing import Any

import msgspec
import pytest

from jobtrail.domain.events import Actor, EventKind, NodeUsage
from jobtrail.domain.job import Run
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.states import State, Verdict
from jobtrail.domain.transitions import RUN_NAMESPACE, Changed, Duplicate, Rejected, apply, open_run
from jobtrail.domain.verdicts import judge
from tests.unit.stories import CLUSTER, JOB, SECOND, T0, event, finished, found, started, tell, tell_one, used

SLURM_KEY: dict[str, Any] = {"slurm_start_time": 1_760_000_000}


@pytest.mark.parametrize(
    ("outcome", "state", "verdict"),
    [
        (Outcome(exit_code=0), State.ENDED, Verdict.UNKNOWN),
        (Outcome(), State.ENDED, Verdict.UNKNOWN),
        (Outcome(exit_code=1), State.FAILED, Verdict.FAILED),
        (Outcome(exit_code=255), State.FAILED, Verdict.FAILED),
        (Outcome(exit_signal=11), State.FAILED, Verdict.KILLED_BY_SIGNAL),
        (Outcome(exit_code=1, exit_signal=9), State.FAILED, Verdict.KILLED_BY_SIGNAL),
        (Outcome(out_of_memory=True, raw_status=253), State.FAILED, Verdict.OUT_OF_MEMORY),
        (Outcome(exit_code=0, final_state="completed"), State.COMPLETED, Verdict.COMPLETED),
        (Outcome(exit_signal=15, final_state="cancelled"), State.CANCELLED, Verdict.CANCELLED),
        (Outcome(final_state="failed"), State.FAILED, Verdict.FAILED),
        (Outcome(exit_code=3, final_state="failed"), State.FAILED, Verdict.FAILED),
        (Outcome(exit_signal=9, final_state="failed"), State.FAILED, Verdict.KILLED_BY_SIGNAL),
        (Outcome(out_of_memory=True, final_state="failed"), State.FAILED, Verdict.OUT_OF_MEMORY),
    ],
)
def test_the_verdict_of_each_outcome(outcome: Outcome, state: State, verdict: Verdict) -> None:
    """Exit code 0 in an epilog proves nothing: cancelled and timed-out jobs get it too. A final state is believed."""
    assert judge(outcome) == (state, verdict)
    run = tell_one([started("n1", 0), finished("n1", SECOND, outcome=outcome)])
    assert (run.job.state, run.job.verdict) == (state, verdict)
    assert run.job.state_confirmed is (outcome.final_state is not None)


def test_a_run_goes_from_pending_over_running_to_ended() -> None:
    """And what is not known on the way is absent."""
    assert open_run(CLUSTER, JOB, 1).job.state is State.PENDING
    only_usage = tell_one([used("n1", 0, NodeUsage(cpu_usage_us=1))])
    assert (only_usage.job.state, only_usage.job.start_us, only_usage.job.verdict) == (State.PENDING, None, None)
    running = tell_one([started("n1", 0)])
    assert (running.job.state, running.job.start_us, running.job.end_us) == (State.RUNNING, T0, None)
    assert (running.job.verdict, running.job.usage, running.job.window_us) == (None, None, 0)
    ended = tell_one([started("n1", 0), finished("n1", 5 * SECOND)])
    assert (ended.job.state, ended.job.end_us, ended.job.window_us) == (State.ENDED, T0 + 5 * SECOND, 5 * SECOND)


def test_a_run_of_several_nodes_ends_with_the_last_that_its_list_names() -> None:
    """Also where a node runs no prolog, and whoever is first."""
    names = ["n1", "n2", "n3"]
    told = [started("n1", 0, nodes=names), started("n2", 1, nodes=names)]
    for node in ("n3", "n1"):
        told.append(finished(node, SECOND, nodes=names))
        assert tell_one(told).job.state is State.RUNNING
    told.append(finished("n2", 2 * SECOND, nodes=names))
    job = tell_one(told).job
    assert (job.state, job.nodes_started, job.nodes_ended, job.end_us) == (State.ENDED, 2, 3, T0 + 2 * SECOND)


def test_the_batch_hosts_word_on_the_outcome_wins_over_earlier_ones() -> None:
    """Every node's epilog reports; the first node of the list ran the batch script."""
    names = ["n1", "n2"]
    first = finished("n2", 1, nodes=names, outcome=Outcome(exit_code=9))
    batch = finished("n1", 2, nodes=names, outcome=Outcome(exit_code=3))
    for order in ([first, batch], [batch, first]):
        outcome = tell_one([started("n1", 0, nodes=names), *order]).job.outcome
        assert outcome is not None
        assert outcome.outcome.exit_code == 3


def test_a_confirmed_end_is_not_undone_by_an_epilog() -> None:
    """Whoever knows the final state is believed, before or after the epilog's exit code 0, and without all nodes."""
    names = ["n1", "n2"]
    word = finished("n1", 9, nodes=names, outcome=Outcome(final_state="cancelled"), changed_by=Actor.API)
    epilog = finished("n1", 5, "epilog", nodes=names)
    for order in ([word, epilog], [epilog, word]):
        job = tell_one([started("n1", 0, nodes=names), *order]).job
        assert (job.state, job.verdict, job.state_confirmed) == (State.CANCELLED, Verdict.CANCELLED, True)


def test_an_epilog_alone_makes_an_ended_run_without_a_beginning() -> None:
    """`salloc` that ran nothing: the run is over, its beginning and window are unknown."""
    job = tell_one([finished("n1", 5)]).job
    assert (job.state, job.start_us, job.nodes_started, job.window_us) == (State.ENDED, None, 0, 0)
    assert job.facts.account == "lab"


def test_an_end_before_its_beginning_is_inferred() -> None:
    """The node's clock was set back in between: no duration is negative, and nobody claims to know this one."""
    told = [started("n1", 60 * SECOND, slurm_start_time=T0 // SECOND), finished("n1", 2, slurm_start_time=T0 // SECOND)]
    job = tell_one(told).job
    assert (job.state, job.start_us, job.end_us) == (State.ENDED, T0 + 60 * SECOND, T0 + 60 * SECOND)
    assert (job.end_inferred, job.end_not_before_us) == (True, T0 + 2)


def test_a_found_job_begins_when_it_was_found_and_says_so() -> None:
    """A prolog that turns up corrects it."""
    job = tell_one([found("n1", 50)]).job
    assert (job.state, job.start_us, job.start_inferred) == (State.RUNNING, T0 + 50, True)
    job = tell_one([found("n1", 50), started("n1", 7)]).job
    assert (job.start_us, job.start_inferred, job.nodes_started) == (T0 + 7, False, 1)
    assert job.facts.user_name == "ada"


def test_facts_come_from_the_start_and_where_it_is_silent_from_the_end() -> None:
    facts = tell_one([started("n1", 0), finished("n1", 5)]).job.facts
    assert (facts.user_name, facts.account, facts.partition, facts.cpus) == ("ada", "lab", None, None)


def test_cpus_add_up_over_nodes_and_a_repeat_adds_nothing() -> None:
    names = ["n1", "n2"]
    share = [
        started(node, at, nodes=None, facts=JobFacts(cpus=cpus, nodes=tuple(names)))
        for at, (node, cpus) in enumerate([("n1", 4), ("n2", 2)])
    ]
    run = tell_one([*share, share[0]])
    assert (run.job.cpus_allocated, run.nodes["n1"].cpus, run.nodes["n2"].cpus) == (6, 4, 2)
    assert tell_one([started("n1", 0, facts=JobFacts())]).job.cpus_allocated is None


def test_the_same_job_id_again_is_a_new_run() -> None:
    """A requeued job, in order and without any key of Slurm's: two runs, numbered in order of their beginning."""
    told = [started("n1", 0, "a"), finished("n1", 10, "b"), started("n1", 20, "c"), finished("n1", 35, "d")]
    runs = tell(told)
    assert [(run.job.run, run.job.window_us) for run in runs] == [(1, 10), (2, 15)]


def test_two_starts_on_a_node_without_an_end_between_are_two_runs() -> None:
    """The end of the first was lost; the second must not be mistaken for it."""
    runs = tell([started("n1", 0, "a"), started("n1", 20, "b"), finished("n1", 35, "c")])
    assert [(run.job.state, run.job.start_us) for run in runs] == [(State.RUNNING, T0), (State.ENDED, T0 + 20)]


def test_an_end_is_that_of_the_run_its_opener_names() -> None:
    """The node's spool knows which run it closed, whatever the clock says."""
    first, second = started("n1", 0, "a"), started("n1", 20, "b")
    runs = tell([first, second, finished("n1", 35, "c", opened_by=first.event_id)])
    assert [run.job.state for run in runs] == [State.ENDED, State.RUNNING]


def test_usage_is_never_taken_for_another_opened_run() -> None:
    """Usage of a run whose start never reached the store makes a run of its own instead of spoiling its neighbour."""
    other = started("n1", 20, "b")
    stray = used("n1", 30, NodeUsage(cpu_usage_us=5), opened_by=str(uuid.UUID(int=1)))
    assert [run.job.usage for run in tell([other, stray])] == [None, stray.usage]


def test_a_clock_that_was_set_back_still_ends_the_run() -> None:
    """The end lies before the start: the window is 0, never negative, and nothing runs for ever."""
    job = tell_one([started("n1", 100), finished("n1", 40)]).job
    assert (job.state, job.window_us) == (State.ENDED, 0)


def test_a_node_whose_clock_is_behind_joins_the_older_of_two_runs_it_has_not_told_of() -> None:
    """It delivers its own chain in order, so its first word is about the first run."""
    names = ["n1", "n2"]
    batch = [
        started("n1", 100, "a", nodes=names),
        finished("n1", 200, "b", nodes=names),
        started("n1", 300, "c", nodes=names),
    ]
    runs = tell([*batch, started("n2", 99, "d", nodes=names)])
    assert [sorted(run.nodes) for run in runs] == [["n1", "n2"], ["n1"]]


def test_an_end_before_the_nodes_start_is_that_of_an_older_run_that_awaits_one() -> None:
    """The older run's prolog never ran there."""
    names = ["n1", "n2"]
    told = [
        started("n2", 10, "a", nodes=names),
        finished("n2", 60, "b", nodes=names),
        started("n1", 100, "c", nodes=names),
    ]
    runs = tell([*told[:2], msgspec.structs.replace(told[2], slurm_start_time=5)])
    assert len(runs) == 1, "without its own word run one is still open to the node"
    other = tell([*told[:2], started("n2", 90, "d", nodes=names), told[2], finished("n1", 50, "e", nodes=names)])
    assert [(run.job.state, sorted(run.nodes)) for run in other] == [
        (State.ENDED, ["n1", "n2"]), (State.RUNNING, ["n1", "n2"])
    ]  # fmt: skip


def test_a_found_job_belongs_to_the_run_that_was_on_when_it_was_found() -> None:
    """Also when its word comes after both runs were told whole."""
    told = [started("n1", 0, "a"), finished("n1", 10, "b"), started("n1", 20, "c"), finished("n1", 35, "d")]
    guess = found("n1", 5)
    runs = tell([*told, guess])
    assert [run.nodes["n1"].also_opened_by for run in runs] == [(guess.event_id,), ()]


def test_without_a_list_of_nodes_a_start_before_the_end_is_in_the_run() -> None:
    """And one after it begins the next."""
    told = [started("n1", 0), finished("n1", 50)]
    assert len(tell([*told, started("n2", 40)])) == 1
    assert len(tell([*told, started("n2", 60)])) == 2


def test_slurms_keys_tell_runs_apart_even_where_times_would_join_them() -> None:
    """The same start second with another SLUID is another run; so is another start second of an open run."""
    one, two = started("n1", 0, "a", sluid="s1", **SLURM_KEY), started("n1", 1, "b", sluid="s2", **SLURM_KEY)
    assert [run.job.sluid for run in tell([one, two])] == ["s1", "s2"]
    late_end = finished("n1", 9, "c", slurm_start_time=1)
    assert len(tell([started("n1", 0, **SLURM_KEY), late_end])) == 2


def test_a_node_the_list_does_not_name_is_not_in_the_run() -> None:
    """A requeued job may run on other nodes while the first run's last epilog is still to come."""
    runs = tell([started("n1", 0, nodes=["n1", "n2"]), started("n3", 50, nodes=["n3"])])
    assert [run.job.facts.nodes for run in runs] == [("n1", "n2"), ("n3",)]
    assert len(tell([started("n1", 0, nodes=["n1", "n2"]), used("n3", 1, NodeUsage(cpu_usage_us=1))])) == 2


def test_an_event_that_adds_nothing_is_a_duplicate() -> None:
    prolog = started("n1", 0)
    first = apply(open_run(CLUSTER, JOB, 1), prolog, created=True)
    assert isinstance(first, Changed)
    assert first.created
    again = apply(first.run, prolog)
    assert again == Duplicate(first.run)
    more = apply(first.run, finished("n1", 5))
    assert isinstance(more, Changed)
    assert not more.created


def test_an_event_about_the_chain_is_rejected() -> None:
    """The trail keeps it; no run changes."""
    result = apply(open_run(CLUSTER, JOB, 1), event(EventKind.CHAIN_STARTED, "n1", 0))
    assert isinstance(result, Rejected)
    assert "chain_started" in result.reason


def test_a_comment_written_to_slurm_changes_no_run_and_begins_none() -> None:
    begun = apply(open_run(CLUSTER, JOB, 1), started("n1", 0), created=True)
    assert isinstance(begun, Changed)
    written = event(EventKind.COMMENT_WRITTEN, "server", 5, run=1, note="jobtrail: completed")
    assert apply(begun.run, written) == Duplicate(begun.run)
    alone = apply(open_run(CLUSTER, JOB, 1), written, created=True)
    assert isinstance(alone, Rejected)
    lacking = apply(begun.run, event(EventKind.COMMENT_WRITTEN, "server", 5, run=1))
    assert isinstance(lacking, Rejected)
    assert "note" in lacking.reason


def test_events_without_facts_outcome_or_usage_are_taken_as_saying_nothing() -> None:
    of_hooks = [EventKind.JOB_STARTED, EventKind.JOB_FOUND, EventKind.CHECKPOINT, EventKind.JOB_FINISHED]
    told = [event(kind, "n1", at) for at, kind in enumerate([*of_hooks, EventKind.USAGE_RECORDED])]
    run = tell_one(msgspec.structs.replace(one, slurm_start_time=1) for one in told)
    assert run.job.facts == JobFacts()
    assert run.job.usage == NodeUsage()


def test_the_correlation_id_follows_from_the_key_alone() -> None:
    """So every writer and every rebuild gives all events of a run the same one, and each run another."""
    ids = {
        (cluster, job, number): open_run(cluster, job, number).job.correlation_id
        for cluster in ("c1", "c2")
        for job in ("slurm-1", "slurm-11")
        for number in (1, 11)
    }
    assert len(set(ids.values())) == len(ids)
    assert ids["c1", "slurm-1", 11] == str(uuid.uuid5(RUN_NAMESPACE, "c1/slurm-1/11"))
    told = [started("n1", 0, "a"), finished("n1", 10, "b"), started("n1", 20, "c"), finished("n1", 35, "d")]
    seen = [[run.job.correlation_id for run in tell(told[:count])] for count in range(1, 5)]
    assert seen[1] == seen[0]
    assert seen[3] == seen[2]
    assert seen[2][0] == seen[0][0]
    assert seen[2][1] != seen[2][0]


def test_run_identity_is_pinned() -> None:
    """A changed namespace would give every run of every database a new correlation id."""
    assert open_run("c1", "slurm-123", 1).job.correlation_id == "912a0f0e-1d1d-5213-905c-197543a166f4"


def test_a_run_holds_only_parts_at_hand() -> None:
    """The rules look at the event's own node alone, so a store need not load the other nodes of a large job."""
    names = ["n1", "n2"]
    whole = tell_one([started("n1", 0, nodes=names), started("n2", 1, nodes=names)])
    at_hand = Run(job=whole.job, nodes={"n2": whole.nodes["n2"]})
    end = finished("n2", 50, nodes=names)
    with_all, with_one = apply(whole, end), apply(at_hand, end)
    assert isinstance(with_all, Changed)
    assert isinstance(with_one, Changed)
    assert with_all.run.job == with_one.run.job

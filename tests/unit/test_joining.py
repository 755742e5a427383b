"""Which run an event belongs to when nodes are away, jobs are requeued, ids come again and Slurm speaks first."""

from itertools import permutations
from typing import Any

import pytest

from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage
from jobtrail.domain.job import Run
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.records import LATEST_EPILOG_US, SKEW_US, SLACK_US
from jobtrail.domain.slurm import Origin
from jobtrail.domain.states import State, Verdict
from tests.unit.stories import (
    SECOND,
    T0,
    closed,
    event,
    finished,
    found,
    hooked,
    reported,
    started,
    tell,
    tell_one,
    used,
)

HOUR, MONTH = 3600 * SECOND, 30 * 86_400 * SECOND
TWO = ("n1", "n2")


def key(second: int) -> dict[str, Any]:
    return {"slurm_start_time": T0 // SECOND + second}


def final(
    state: str, start: int, end: int, origin: Origin = Origin.SLURMDBD, *, nodes: tuple[str, ...] = ("n1",), **more: Any
) -> Event:
    """Slurm's last word on a run; it names no run but by its times."""
    facts = JobFacts(nodes=nodes, restart_count=more.pop("restart_count", None))
    name = f"{origin} {state} {start}"
    times = {"submit_time": start - 1, "start_time": start, "end_time": end}
    return reported(origin, (end + 30) * SECOND, name, state=state, facts=facts, **times, **more)


def ends_of(runs: list[Run]) -> list[tuple[State, dict[str, int | None]]]:
    """State of each run, oldest first, and when its nodes' parts were over in µs after T0."""
    ordered = sorted(runs, key=lambda run: run.job.start_us or run.job.end_us or 0)
    return [(run.job.state, {name: _after(part.over_us) for name, part in run.nodes.items()}) for run in ordered]


def _after(time_us: int | None) -> int | None:
    return None if time_us is None else time_us - T0


def test_a_node_that_never_reports_does_not_keep_a_run_open() -> None:
    """Slurm's word ends it; the end is Slurm's where it is later than what the other nodes told."""
    told = [started("n1", 0, nodes=TWO), started("n2", 0, nodes=TWO), finished("n1", 10 * SECOND, nodes=TWO)]
    assert tell_one(told).job.state is State.RUNNING
    for end, expected in ((10, 10 * SECOND), (60, 60 * SECOND), (9, 10 * SECOND)):
        job = tell_one([*told, final("COMPLETED", 0, end, nodes=TWO)]).job
        assert (job.state, _after(job.end_us), job.end_inferred) == (State.COMPLETED, expected, False)
        assert (job.nodes_told, job.nodes_ended, job.nodes_expected) == (1, 1, 2)


def test_the_end_all_nodes_told_is_finer_than_slurms() -> None:
    """Whole seconds are Slurm's resolution, and slurmctld that was away gives the time when it was back."""
    told = [started("n1", 0), finished("n1", 10 * SECOND + 300)]
    for end in (9, 10, 217):
        assert _after(tell_one([*told, final("COMPLETED", 0, end)]).job.end_us) == 10 * SECOND + 300


@pytest.mark.parametrize(("late", "expected"), [(120, 130 * SECOND), (121, 10 * SECOND), (7200, 10 * SECOND)])
def test_the_end_is_not_the_late_epilogs(late: int, expected: int) -> None:
    """A node that was away tells its end when its slurmd is back; the run was over when Slurm says."""
    told = [started("n1", 0), finished("n1", (10 + late) * SECOND)]
    assert _after(tell_one([*told, final("NODE_FAIL", 0, 10)]).job.end_us) == expected


def test_a_job_shorter_than_slurms_second_does_not_end_before_it_began() -> None:
    job = tell_one([started("n1", 300_000), final("COMPLETED", 0, 0)]).job
    assert (_after(job.start_us), _after(job.end_us)) == (300_000, 300_000)


@pytest.mark.parametrize("first", [started("n1", 0), finished("n1", 10), started("n1", 0, **key(0))])
@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_job_id_that_comes_again_months_later_is_a_new_run(first: Event, node: str) -> None:
    """On the same node, where the old run's epilog was lost, and on another; with a prolog, without, or found."""
    old = [first, final("COMPLETED", 0, 10)]
    for new in (
        started(node, MONTH, "new", nodes=[node]),
        finished(node, MONTH, "new", nodes=[node]),
        found(node, MONTH, "new"),
        started(node, MONTH, "new", nodes=[node], **key(MONTH // SECOND)),
        hooked("prolog", MONTH, "new"),
        hooked("prolog", MONTH, "new", start_time=MONTH // SECOND),
        final("COMPLETED", MONTH // SECOND, MONTH // SECOND + 5),
    ):
        assert len(tell([*old, new])) == 2, new


def test_a_found_job_is_not_the_one_that_was_closed_on_its_node() -> None:
    """The node was rebooted, the run closed; what the daemon finds then is another run of the same id."""
    prolog = started("n1", 0)
    told = [prolog, closed("n1", 50, opened_by=prolog.event_id, reason="node_rebooted")]
    assert len(tell([*told, found("n1", 51)])) == 2
    assert len(tell([*told, found("n1", 50)])) == 1
    assert len(tell([prolog, found("n1", 51)])) == 1


@pytest.mark.parametrize("late", [1, 10, 119, 120, 3600, LATEST_EPILOG_US // SECOND - 11])
def test_an_epilog_without_prolog_after_slurm_closed_the_run_is_that_runs(late: int) -> None:
    """n2 ran no prolog (PrologFlags unset); n1 told its end and Slurm confirmed it before n2's epilog came."""
    batch = [started("n1", 0, nodes=TWO), finished("n1", 10 * SECOND, nodes=TWO), final("COMPLETED", 0, 10, nodes=TWO)]
    epilog = finished("n2", (10 + late) * SECOND, nodes=TWO)
    for order in ([*batch, epilog], [*batch, epilog, epilog], [batch[0], batch[2], epilog, batch[1]]):
        run = tell_one(order)
        assert (run.job.state, run.job.nodes_told) == (State.COMPLETED, 2)


def test_a_late_epilog_of_other_nodes_users_or_long_after_is_another_runs() -> None:
    """What it says of the job shows that it is not the run that was closed."""
    facts = JobFacts(nodes=TWO, uid=7)
    batch = [
        started("n1", 0, facts=facts),
        finished("n1", 10 * SECOND, nodes=TWO),
        final("COMPLETED", 0, 10, nodes=TWO),
    ]

    def epilog(at: int, facts: JobFacts | None, **more: Any) -> Event:
        return event(EventKind.JOB_FINISHED, "n2", at, facts=facts, outcome=Outcome(exit_code=0), **more)

    assert len(tell([*batch, epilog(HOUR, facts)])) == 1
    assert len(tell([*batch, epilog(HOUR, JobFacts(nodes=TWO))])) == 1
    assert len(tell([*batch, epilog(10 * SECOND + LATEST_EPILOG_US, facts)])) == 1
    for other in (
        epilog(10 * SECOND + LATEST_EPILOG_US + 1, facts),
        epilog(HOUR, JobFacts(nodes=TWO, uid=8)),
        epilog(HOUR, JobFacts(nodes=("n2",), uid=7)),
        epilog(HOUR, JobFacts(uid=7)),
        epilog(HOUR, None),
        epilog(HOUR, facts, changed_by=Actor.API),
    ):
        assert len(tell([*batch, other])) == 2, other


def test_an_epilog_after_the_end_slurm_told_is_exact_to_the_slack() -> None:
    """Without a node's own word on the end, nor a node list, Slurm's whole seconds and KillWait have to do."""
    told = [started("n1", 0), final("COMPLETED", 0, 10, nodes=())]
    for at, runs in ((10 * SECOND + SLACK_US, 1), (10 * SECOND + SLACK_US + 1, 2)):
        assert len(tell([*told, finished("n2", at)])) == runs


@pytest.mark.parametrize("keys", [{}, key(0)])
@pytest.mark.parametrize("end", [10 * SECOND, 10 * SECOND + 3 * HOUR])
def test_a_run_slurm_told_of_first_is_joined_by_its_late_hooks(keys: dict[str, Any], end: int) -> None:
    """The run's own node was offline, its hooks' events come hours later, in either order, once or twice."""
    word = final("COMPLETED", 0, 10)
    prolog, epilog = started("n1", 400, nodes=["n1"], **keys), finished("n1", end, nodes=["n1"], **keys)
    for opening in (word, reported(Origin.SLURMCTLD, 2 * SECOND, state="RUNNING", start_time=0, submit_time=-1)):
        for order in (
            [prolog, epilog],
            [prolog, prolog, epilog, epilog],
            [epilog, prolog] if keys or end < HOUR else [],
        ):
            run = tell_one([opening, *order, word])
            assert (run.job.state, run.job.nodes_told) == (State.COMPLETED, 1 if order else 0)
            assert _after(run.job.start_us) == (400 if order else 0)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_node_that_died_is_closed_failed_and_late(order: tuple[int, ...]) -> None:
    """The closing of its part, Slurm's NODE_FAIL and, when the slurmd is back, the epilog: one run in every order."""
    prolog = started("n1", 0)
    after = [
        closed("n1", 40 * SECOND, opened_by=prolog.event_id, reason="node_rebooted", not_before=20 * SECOND),
        final("NODE_FAIL", 0, 38),
        finished("n1", 2 * HOUR, nodes=["n1"]),
    ]
    run = tell_one([prolog, *(after[index] for index in order)])
    job, part = run.job, run.nodes["n1"]
    assert (job.state, job.verdict, job.state_confirmed) == (State.FAILED, Verdict.NODE_FAIL, True)
    assert (_after(job.end_us), job.end_inferred, job.nodes_ended) == (38 * SECOND, False, 1)
    assert (_after(part.over_us), job.window_us, part.closed_because) == (40 * SECOND, 40 * SECOND, "node_rebooted")


def test_a_dead_nodes_late_epilog_is_not_the_next_runs() -> None:
    """The job was requeued to another node meanwhile; and once more to the same node."""
    first = started("n1", 0, "a", nodes=["n1"])
    away = [first, closed("n1", 40 * SECOND, opened_by=first.event_id), final("NODE_FAIL", 0, 38)]
    late = finished("n1", HOUR, "late", nodes=["n1"])
    elsewhere = [started("n3", 50 * SECOND, nodes=["n3"]), finished("n3", 70 * SECOND, nodes=["n3"])]
    expected = [(State.FAILED, {"n1": 40 * SECOND}), (State.ENDED, {"n3": 70 * SECOND})]
    for told in ([*away, *elsewhere, late], [*away, elsewhere[0], late, elsewhere[1]]):
        assert ends_of(tell(told)) == expected
    again = [*away, late, started("n1", 2 * HOUR, "b", nodes=["n1"]), finished("n1", 3 * HOUR, "c", nodes=["n1"])]
    assert [run.nodes["n1"].ended_us for run in tell(again)] == [T0 + HOUR, T0 + 3 * HOUR]


def test_an_epilog_of_a_run_open_on_its_node_is_that_runs_for_a_week() -> None:
    """Unless nobody ever closed it: then nothing speaks against it."""
    told = [started("n1", 0, nodes=["n1"])]
    at = 10 * SECOND + LATEST_EPILOG_US
    assert len(tell([*told, finished("n1", at + 1, nodes=["n1"])])) == 1
    told.append(final("COMPLETED", 0, 10))
    assert len(tell([*told, finished("n1", at, nodes=["n1"])])) == 1
    assert len(tell([*told, finished("n1", at + 1, nodes=["n1"])])) == 2
    word = finished("n1", at + 1, nodes=["n1"], changed_by=Actor.API, outcome=Outcome(final_state="failed"))
    assert len(tell([*told, word])) == 1


def counted(one: Event, count: int) -> Event:
    facts = JobFacts(nodes=("n1",), restart_count=count)
    return event(one.kind, one.node, one.time_us - T0, f"{one.event_id}c", facts=facts, outcome=one.outcome)


def hook_stories(*, keys: bool, counts: bool) -> list[list[Event]]:
    """A requeued job's two runs on one node: PrologSlurmctld, prolog, EpilogSlurmctld, epilog."""
    runs = []
    for number in range(2):
        begin = 20 * number
        start = begin if keys else None
        extra = key(begin) if keys else {}
        facts, next_facts = (JobFacts(restart_count=n if counts else None) for n in (number, 1))
        prolog = started(
            "n1", begin * SECOND + 50_000, facts=JobFacts(nodes=("n1",), restart_count=facts.restart_count), **extra
        )
        runs.append(
            [
                hooked("prolog", begin * SECOND + 10_000, start_time=start, facts=facts),
                prolog,
                hooked("epilog", (begin + 10) * SECOND, start_time=start, facts=next_facts),
                finished("n1", (begin + 13) * SECOND, nodes=["n1"], **extra),
            ]
        )
    return runs


@pytest.mark.parametrize("keys", [False, True], ids=["22.05", "23.02"])
@pytest.mark.parametrize("counts", [False, True], ids=["no counts", "counts"])
def test_controllers_hooks_find_their_run_of_a_requeued_job(keys: bool, counts: bool) -> None:
    """PrologSlurmctld before and after the node's prolog, EpilogSlurmctld before and after its epilog."""
    first, second = hook_stories(keys=keys, counts=counts)
    for order in permutations(range(4)):
        if not keys and (order.index(1) > order.index(3) or order.index(0) > order.index(2) or order.index(2) == 0):
            continue
        told = [*(first[index] for index in order), *(second[index] for index in order)]
        runs = tell(told)
        assert ends_of(runs) == [(State.ENDED, {"n1": 13 * SECOND}), (State.ENDED, {"n1": 33 * SECOND})], order
        for run, story in zip(sorted(runs, key=lambda run: run.job.start_us or 0), (first, second), strict=True):
            assert [word.stamp.event_id for word in run.job.words] == [story[2].event_id], order


def test_the_next_runs_prolog_slurmctld_may_come_while_the_last_run_is_open() -> None:
    """The node's epilog is on its way; the restarts, or where they are unknown the times, tell them apart."""
    for counts in (True, False):
        first, second = hook_stories(keys=False, counts=counts)
        runs = tell([*first[:2], second[0], first[3], *second[1:]])
        assert [len(run.nodes) for run in runs] == [1, 1]
        assert ends_of(runs) == [(State.ENDED, {"n1": 13 * SECOND}), (State.ENDED, {"n1": 33 * SECOND})]


def test_nodes_that_had_to_be_powered_up_set_the_start_anew() -> None:
    """PrologSlurmctld ran when the job got its nodes; the start that nodes and Slurm tell then is minutes later."""
    facts = JobFacts(nodes=("n1",), restart_count=0)
    hook = hooked("prolog", SECOND, start_time=0, facts=facts)
    old_hook = hooked("prolog", SECOND, facts=facts)
    prolog = started("n1", 180 * SECOND, facts=facts, **key(180))
    old_prolog = started("n1", 180 * SECOND, facts=facts)
    epilog = finished("n1", 200 * SECOND, nodes=["n1"], **key(180))
    ended = hooked("epilog", 200 * SECOND, start_time=180, facts=facts)
    word = final("COMPLETED", 180, 200, restart_count=0)
    for order in permutations([hook, prolog, word]):
        run = tell_one([*order, epilog, ended, hook])
        assert (run.job.state, run.job.slurm_start_time) == (State.COMPLETED, T0 // SECOND + 180)
    for old_order in permutations([old_hook, old_prolog, word]):
        assert tell_one(old_order).job.state is State.COMPLETED
    requeued = started("n1", 180 * SECOND, facts=JobFacts(nodes=("n1",), restart_count=1), **key(180))
    for two in ([hook, requeued], [requeued, hook]):
        assert len(tell(two)) == 2
    assert len(tell([prolog, hooked("prolog", 190 * SECOND, start_time=190, facts=facts)])) == 2
    unknown = started("n1", 180 * SECOND, facts=JobFacts(nodes=("n1",)), **key(180))
    for two in ([hook, unknown], [unknown, hook]):
        assert len(tell(two)) == 2


def test_each_of_slurmctlds_hooks_runs_once_for_each_run() -> None:
    """A second one is the next run's; the same one again is the same."""
    for hook in ("prolog", "epilog"):
        one, again = hooked(hook, 0, "a"), hooked(hook, SECOND, "b")
        assert len(tell([one, again, one, again])) == 2
    both = [hooked("prolog", 0), hooked("epilog", 5 * SECOND)]
    for order in (both, both[::-1]):
        assert len(tell([*order, *order])) == 1


def test_a_hooks_word_of_a_run_that_began_later_or_ended_before_is_not_this_ones() -> None:
    """Slurm 22.05: by the times alone, as exact as clocks of two machines are."""
    begun, ended = started("n1", 100 * SECOND, nodes=["n1"]), finished("n1", 200 * SECOND, nodes=["n1"])
    for at, runs in ((0, 1), (100 * SECOND + SKEW_US, 1), (100 * SECOND + SKEW_US + 1, 2)):
        assert len(tell([begun, hooked("prolog", at)])) == runs
    assert len(tell([started("n1", SECOND), finished("n1", 2 * SECOND), hooked("prolog", 2 * SECOND)])) == 1
    assert len(tell([started("n1", SECOND), finished("n1", 2 * SECOND), hooked("prolog", 2 * SECOND + 1)])) == 2
    for at, runs in ((100 * SECOND - SKEW_US, 1), (100 * SECOND - SKEW_US - 1, 2)):
        assert len(tell([begun, hooked("epilog", at)])) == runs
    for at, runs in ((200 * SECOND + SLACK_US, 1), (200 * SECOND + SLACK_US + 1, 2)):
        assert len(tell([begun, ended, hooked("epilog", at)])) == runs
    for at, runs in ((200 * SECOND - SLACK_US, 1), (200 * SECOND - SLACK_US - 1, 2), (200 * SECOND + SLACK_US + 1, 2)):
        assert len(tell([ended, hooked("epilog", at)])) == runs


def test_no_node_begins_a_run_after_slurmctlds_epilog_of_it() -> None:
    """So a prolog after it is the next run's; an epilog after it is still this one's."""
    hook = hooked("epilog", 10 * SECOND)
    for at, runs in ((10 * SECOND + SKEW_US, 1), (10 * SECOND + SKEW_US + 1, 2)):
        assert len(tell([hook, started("n1", at)])) == runs
        assert len(tell([hook, found("n1", at)])) == runs
    assert len(tell([hook, finished("n1", 60 * SECOND)])) == 1


def test_what_happened_before_slurm_began_the_run_is_of_an_earlier_one() -> None:
    """Which nobody had told of yet."""
    running = reported(Origin.SLURMCTLD, 102 * SECOND, state="RUNNING", start_time=100, submit_time=90)
    for opening in (running, hooked("prolog", 100 * SECOND)):
        for at, runs in ((100 * SECOND - SKEW_US, 1), (100 * SECOND - SKEW_US - 1, 2)):
            assert len(tell([opening, started("n1", at)])) == runs
            assert len(tell([opening, finished("n1", at)])) == runs
    prolog = started("n1", 100 * SECOND - SKEW_US)
    assert len(tell([running, prolog, finished("n1", 90 * SECOND)])) == 1, "a clock that was set back"


def test_a_start_that_slurm_has_settled_tells_keyed_hooks_apart() -> None:
    """While nodes are powered up it may yet change."""
    for state, flags, runs in (
        ("RUNNING", (), 2),
        ("COMPLETED", (), 2),
        ("RUNNING", ("CONFIGURING",), 1),
        ("RUNNING", ("POWER_UP_NODE",), 1),
        ("CONFIGURING", (), 1),
    ):
        facts = JobFacts(nodes=("n1",))
        word = reported(Origin.SLURMCTLD, 3 * SECOND, state=state, flags=flags, start_time=0, facts=facts)
        assert len(tell([word, started("n1", 6 * SECOND, **key(6))])) == runs, state
        assert len(tell([word, started("n1", 5 * SECOND, **key(5))])) == 1


def test_a_prolog_counts_the_restarts_right() -> None:
    """So it tells runs apart that times and nodes would join: n2's late prolog is of the first run."""

    def prolog(node: str, at: int, count: int | None) -> Event:
        return started(node, at, facts=JobFacts(nodes=TWO, restart_count=count))

    assert len(tell([prolog("n1", 20 * SECOND, 1), prolog("n2", 21 * SECOND, 0)])) == 2
    assert len(tell([prolog("n1", 20 * SECOND, 1), prolog("n2", 21 * SECOND, 1)])) == 1
    assert len(tell([prolog("n1", 20 * SECOND, 1), prolog("n2", 21 * SECOND, None)])) == 1
    epilog = event(EventKind.JOB_FINISHED, "n1", 30 * SECOND, facts=JobFacts(nodes=TWO, restart_count=2))
    assert len(tell([prolog("n1", 20 * SECOND, 1), epilog])) == 1


def test_slurms_records_go_to_the_run_they_describe() -> None:
    """By SLUID, submission, start or, where only times are known, the first run that began from the start on."""
    runs = [
        started("n1", 30_500_000, "a"), finished("n1", 33_900_000, "b"),
        started("n1", 37_200_000, "c"), finished("n1", 45_500_000, "d"),
    ]  # fmt: skip
    first, second = final("REQUEUED", 30, 33), final("FAILED", 37, 45)
    for order in permutations([first, second]):
        states = [run.job.ruling.raw_state for run in tell([*runs, *order])]
        assert states == ["REQUEUED", "FAILED"]
    within_skew = [started("n1", 30_500_000, "a"), started("n1", 34_200_000, "c")]
    assert [run.job.ruling.raw_state for run in tell([*within_skew, final("FAILED", 34, 45)])] == [None, "FAILED"]
    behind = [started("n1", 27_500_000, "a"), started("n1", 34_200_000, "c")]
    assert [run.job.ruling.raw_state for run in tell([*behind, final("REQUEUED", 30, 33)])] == ["REQUEUED", None]
    assert [run.job.ruling.raw_state for run in tell([behind[0], final("REQUEUED", 30, 33)])] == ["REQUEUED"]


def test_a_sluid_names_the_run_whatever_the_times_say() -> None:
    one, two = started("n1", 0, "a", sluid="s1"), started("n1", 20, "b", sluid="s2")
    word = reported(Origin.SLURMDBD, 99, state="TIMEOUT", start_time=900, end_time=999, sluid="s1")
    assert [run.job.ruling.raw_state for run in tell([one, two, word])] == ["TIMEOUT", None]
    assert len(tell([one, two, reported(Origin.SLURMDBD, 99, state="TIMEOUT", start_time=0, sluid="s3")])) == 3


def test_a_word_that_names_its_run_is_of_that_run() -> None:
    """The reconciler read its number in the store."""
    told = [started("n1", 0, "a"), finished("n1", 10, "b"), started("n1", 20, "c")]
    word = reported(Origin.SLURMCTLD, 99, state="REQUEUED", run=1)
    closing = closed("ctl", 99, run=2, reason="unknown_to_slurm")
    runs = tell([*told, word, closing])
    assert [run.job.verdict for run in runs] == [Verdict.REQUEUED, Verdict.UNKNOWN]
    assert [run.job.end_us for run in runs] == [T0 + 10, T0 + 99]


def test_a_job_cancelled_in_the_queue_is_a_run_of_its_own() -> None:
    """Also of a job whose first run was requeued, be it known yet or not."""
    first = [started("n1", 0, nodes=["n1"]), finished("n1", 2, nodes=["n1"])]
    never = reported(Origin.SLURMDBD, 60 * SECOND, state="CANCELLED", submit_time=3, end_time=14)
    for told in ([*first, final("REQUEUED", 0, 0), never], [*first, never], [never, *first], [never]):
        runs = tell(told)
        assert len(runs) == (1 if told == [never] else 2)
        [cancelled] = [run.job for run in runs if run.job.ruling.raw_state == "CANCELLED"]
        assert (cancelled.start_us, cancelled.end_us, cancelled.nodes_started) == (None, T0 + 14 * SECOND, 0)


def test_usage_that_came_before_everything_else_is_of_the_run_that_follows() -> None:
    """Nothing tells when its run was on, so anything that is not over may be it."""
    usage = used("n1", 5, NodeUsage(cpu_usage_us=1))
    running = reported(Origin.SLURMCTLD, 9, state="RUNNING", start_time=0)
    for one in (running, hooked("prolog", 0), started("n1", 0)):
        assert len(tell([usage, one])) == 1
    assert len(tell([usage, final("COMPLETED", 0, 9)])) == 2
    keyed = used("n1", 5, NodeUsage(cpu_usage_us=1), **key(100))
    assert len(tell([keyed, running])) == 2
    assert len(tell([keyed, hooked("prolog", 100 * SECOND, start_time=100)])) == 1
    assert len(tell([used("n1", 5, NodeUsage()), started("n2", 0), hooked("prolog", 0)])) == 1
    stray = used("n1", 5, NodeUsage(cpu_usage_us=1), opened_by="unknown")
    assert [len(run.job.words) for run in tell([started("n1", 0), stray, running])] == [1, 0]


def test_an_end_told_twice_is_one_end() -> None:
    """Also where the node's prolog never ran, and while the next run is open there."""
    told = [
        started("n1", 0, "a", nodes=TWO),
        finished("n2", 11 * SECOND, "b", nodes=TWO),
        finished("n1", 11 * SECOND, "c", nodes=TWO),
    ]
    next_run = started("n1", 13 * SECOND, "d", nodes=TWO)
    runs = tell([*told, next_run, told[1], told[2]])
    assert [sorted(run.nodes) for run in runs] == [["n1", "n2"], ["n1"]]
    assert [run.job.nodes_told for run in runs] == [2, 0]


def test_a_record_of_another_submission_is_another_runs_though_the_times_fit() -> None:
    told = [started("n1", 0), reported(Origin.SLURMCTLD, 5, state="RUNNING", start_time=0, submit_time=-9, run=1)]
    assert len(tell([*told, final("COMPLETED", 0, 9)])) == 2
    assert len(tell([*told, reported(Origin.SACCT, 6, state="FAILED", start_time=0, submit_time=-9)])) == 1


def test_a_record_without_a_start_begins_no_run_that_is_on() -> None:
    """It waits, or was cancelled while it waited; only slurmctld's hook tells of a beginning without a start."""
    for state, runs in (("PENDING", 2), ("CANCELLED", 2), (None, 1)):
        assert len(tell([started("n1", 0), reported(Origin.SLURMCTLD, SECOND, state=state)])) == runs


def test_restarts_are_known_from_slurms_records_where_no_prolog_counted_them() -> None:
    """A record with the run's start counts right."""
    plain = started("n1", 10 * SECOND, facts=JobFacts(nodes=TWO))
    hook = hooked("prolog", 10 * SECOND, facts=JobFacts(restart_count=0))
    running = reported(
        Origin.SLURMCTLD, 11 * SECOND, state="RUNNING", start_time=10, run=1, facts=JobFacts(restart_count=0)
    )
    completing = reported(Origin.SLURMCTLD, 11 * SECOND, state="COMPLETING", run=1, facts=JobFacts(restart_count=1))
    ended = hooked("epilog", 11 * SECOND, facts=JobFacts(restart_count=1))
    for word, runs in ((hook, 2), (running, 2), (completing, 1), (ended, 1)):
        for count, expected in ((0, 1 if runs == 2 else None), (1, runs), (None, 1)):
            other = started("n2", 10 * SECOND, facts=JobFacts(nodes=TWO, restart_count=count))
            if expected is not None:
                assert len(tell([plain, word, other])) == expected, (word, count)
    assert len(tell([hook, event(EventKind.JOB_STARTED, "n1", 10 * SECOND)])) == 1


def test_an_earlier_start_of_prolog_slurmctld_is_the_runs_only_with_the_same_restarts() -> None:
    """Against a start that Slurm has settled; a later one never is."""
    for count, at, runs in ((0, 0, 1), (1, 0, 2), (None, 0, 2), (0, 186, 2), (0, 185, 1)):
        word = reported(
            Origin.SLURMCTLD, 181 * SECOND, state="RUNNING", start_time=180,
            facts=JobFacts(nodes=("n1",), restart_count=0),
        )  # fmt: skip
        hook = hooked("prolog", at * SECOND, start_time=at, facts=JobFacts(restart_count=count))
        assert len(tell([word, hook])) == runs, (count, at)


def test_the_earliest_that_slurm_says_of_the_start_bounds_it() -> None:
    running = reported(Origin.SLURMCTLD, 102 * SECOND, state="RUNNING", start_time=100)
    told = [running, hooked("prolog", 103 * SECOND)]
    assert len(tell(told)) == 1
    assert len(tell([*told, started("n1", 95 * SECOND)])) == 1
    assert len(tell([*told, started("n1", 95 * SECOND - 1)])) == 2
    epilog = finished("n1", 96 * SECOND)
    person = finished("n1", 90 * SECOND, changed_by=Actor.API, outcome=Outcome(final_state="failed"))
    assert len(tell([running, epilog, person])) == 1, "the node told of it already"


def test_a_run_that_had_nodes_began_whatever_else_is_unknown() -> None:
    """Its record has no start, or the names of its nodes could not be read."""
    for facts, runs in ((JobFacts(), 2), (JobFacts(node_list="n[1-2"), 1), (JobFacts(nodes=("n1",)), 1)):
        word = reported(Origin.SLURMDBD, 60 * SECOND, state="CANCELLED", end_time=14, facts=facts)
        assert len(tell([word, started("n1", 0)])) == runs


def test_a_run_of_which_only_an_end_is_told_is_over() -> None:
    """No prolog of its other node may ever come; where one does, or Slurm says that it runs, that node is awaited."""
    nodes = ["n1", "n2"]
    epilog, prolog = finished("n2", 10 * SECOND, nodes=nodes), started("n1", 0, nodes=nodes)
    alone = tell_one([epilog]).job
    assert (alone.state, alone.end_us, alone.awaits) == (State.ENDED, T0 + 10 * SECOND, "outcome")
    spoken = reported(Origin.SLURMCTLD, 5 * SECOND, state="RUNNING", start_time=0)
    for other in (prolog, spoken):
        for order in ([epilog, other], [other, epilog]):
            assert tell_one(order).job.state is State.RUNNING
    for late, runs in ((110, 1), (140, 2)):
        assert len(tell([epilog, started("n1", late * SECOND, nodes=nodes)])) == runs


def test_an_epilog_without_prolog_is_of_the_run_that_ended_about_then() -> None:
    """One that began only just before, by clocks that differ, is not it; one that began minutes later cannot be."""
    nodes = ["n1", "n2"]
    first = [started("n1", 0, "a", nodes=nodes), finished("n1", 10 * SECOND, nodes=nodes)]
    second = started("n1", 12 * SECOND, "b", nodes=nodes)
    for at, run in ((9, 1), (13, 1), (18, 2), (60, 2)):
        runs = tell([*first, second, finished("n2", at * SECOND, nodes=nodes)])
        assert [one.job.run for one in runs if "n2" in one.nodes] == [run], at
    for at, count in ((100, 1), (600, 2)):
        late = started("n1", at * SECOND, nodes=nodes)
        assert len(tell([late, finished("n2", 10 * SECOND, nodes=nodes)])) == count

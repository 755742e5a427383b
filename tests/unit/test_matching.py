"""Which of Slurm's records describes a run, and which are news."""

from typing import Any

import msgspec
import pytest

from jobtrail.domain.events import Event, NodeUsage
from jobtrail.domain.job import Job
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.matching import is_news, is_other_run, is_superseded, record_of
from jobtrail.domain.records import SKEW_US, SLACK_US
from jobtrail.domain.slurm import Origin, SlurmRecord
from tests.unit.stories import JOB, SECOND, T0, closed, finished, found, hooked, reported, started, tell, tell_one, used

BASE = T0 // SECOND


def record(state: str, start: int | None, end: int | None = None, **more: Any) -> SlurmRecord:
    """A record of slurmctld; times are seconds after T0."""
    times = {"start_time": start, "end_time": end, "submit_time": more.pop("submit", None)}
    absolute = {name: None if value is None else BASE + value for name, value in times.items()}
    fields: dict[str, Any] = {"origin": Origin.SLURMCTLD, "job_id": JOB, **more}
    return SlurmRecord(state=state, **absolute, **fields)


def job(*events: Event) -> Job:
    return tell_one(events).job


def test_the_sluid_decides() -> None:
    one = record("COMPLETED", 900, sluid="s1")
    other = record("COMPLETED", 0, sluid="s2")
    assert record_of(job(started("n1", 0, sluid="s1")), [other, one]) is one
    assert record_of(job(started("n1", 0)), [other, one]) is other
    assert record_of(job(started("n1", 0)), [msgspec.structs.replace(one, job_id="slurm-8")]) is None


def test_then_the_submission() -> None:
    """Slurm sets it anew at each requeue, so what was submitted at another time is another run."""
    run = job(started("n1", 0), reported(Origin.SLURMDBD, 5, state="RUNNING", submit_time=-9, start_time=0))
    right, wrong = record("REQUEUED", 50, submit=-9), record("COMPLETED", 0, submit=-8)
    assert record_of(run, [wrong, right]) is right
    assert record_of(run, [wrong]) is None


def test_then_the_start_that_hooks_were_told() -> None:
    run = job(started("n1", 300 * SECOND, slurm_start_time=BASE))
    exact, near, far = record("COMPLETED", 0, 400), record("COMPLETED", 1, 400), record("COMPLETED", 6, 400)
    assert record_of(run, [near, exact]) is exact
    assert record_of(run, [near]) is near
    assert record_of(run, [record("COMPLETED", 5, 400)]) is not None
    assert record_of(run, [far]) is None
    assert record_of(run, [record("PENDING", 0)]) is None
    assert record_of(job(started("n1", 0)), [record("RUNNING", None)]) is None


def test_then_the_restarts_and_the_times() -> None:
    """Two runs of a requeued job, four seconds apart: each gets its own record."""
    first, second = record("REQUEUED", 30, 33), record("FAILED", 34, 45)
    for at, mine in (
        (30_500_000, first),
        (33_999_999, first),
        (34_000_000, second),
        (27_000_000, first),
        (36 * SECOND, second),
    ):
        for records in ([first, second], [second, first]):
            assert record_of(job(started("n1", at)), records) is mine
    one = job(started("n1", 33 * SECOND, facts=JobFacts(restart_count=0)))
    assert record_of(one, [record("RUNNING", 33, facts=JobFacts(restart_count=1))]) is None
    assert record_of(one, [record("RUNNING", 33, facts=JobFacts(restart_count=0))]) is not None
    assert record_of(one, [record("RUNNING", 33)]) is not None
    unknown = job(started("n1", 33 * SECOND))
    assert record_of(unknown, [record("RUNNING", 33, facts=JobFacts(restart_count=1))]) is not None


def test_records_with_one_start_are_told_by_their_submission() -> None:
    """The newer one was submitted later."""
    older, newer = record("REQUEUED", 30, submit=1), record("FAILED", 30, submit=2)
    assert record_of(job(started("n1", 31 * SECOND)), [newer, older]) is newer


@pytest.mark.parametrize(("at", "fits"), [(-SKEW_US, True), (-SKEW_US - 1, False), (0, True), (10 * SECOND, True)])
def test_a_run_begins_with_its_record(at: int, fits: bool) -> None:
    """A prolog on a node whose clock is behind may seem to come before."""
    assert (record_of(job(started("n1", at)), [record("RUNNING", 0)]) is not None) is fits


@pytest.mark.parametrize(
    ("number", "at", "fits"),
    [
        (1, 9 * SECOND + SKEW_US, True),
        (1, 9 * SECOND + SKEW_US + 1, False),
        (2, 10 * SECOND, True),
        (2, 10 * SECOND + 1, False),
    ],
)
def test_a_run_does_not_begin_after_its_records_end(number: int, at: int, fits: bool) -> None:
    """Where an earlier run is known, to the second; else clocks may differ."""
    run = msgspec.structs.replace(job(started("n1", at)), run=number)
    assert (record_of(run, [record("COMPLETED", 0, 9)]) is not None) is fits


@pytest.mark.parametrize(
    ("at", "fits"), [(9 * SECOND + SLACK_US, True), (9 * SECOND + SLACK_US + 1, False), (-SKEW_US, True)]
)
def test_a_run_of_which_only_the_end_was_told_has_a_record(at: int, fits: bool) -> None:
    """`salloc` that ran nothing: epilogs and no prolog. The epilog waits for processes that are slow to die."""
    for run in (job(finished("n1", at)), job(hooked("epilog", at))):
        assert (record_of(run, [record("COMPLETED", 0, 9)]) is not None) is fits
    both = [record("REQUEUED", 0, 9), record("FAILED", 12, 20)]
    assert record_of(job(finished("n1", 10 * SECOND)), both) is both[0]
    assert record_of(job(finished("n1", 21 * SECOND)), both) is both[1]


def test_a_run_of_which_nobody_told_when_it_was_on_has_no_record() -> None:
    assert record_of(job(used("n1", 5, NodeUsage(cpu_usage_us=1))), [record("COMPLETED", 0, 9)]) is None
    assert record_of(job(started("n1", 0)), []) is None


def test_a_run_that_waits_for_nodes_to_be_powered_up_has_the_record_with_a_later_start() -> None:
    """Where PrologSlurmctld counted the same restarts, and nothing else is known of the run."""
    facts = JobFacts(restart_count=0)
    later = record("RUNNING", 180, facts=facts)
    hook = hooked("prolog", 0, start_time=0, facts=facts)
    assert record_of(job(hook), [later]) is later
    for other in (
        job(hooked("prolog", 0)),
        job(started("n1", 0, facts=facts)),
        job(hook, started("n1", 0)),
        job(hook, finished("n1", 0)),
        job(hooked("epilog", 0, start_time=0, facts=facts)),
        job(hook, reported(Origin.SACCT, 9, state="RUNNING", facts=facts, run=1)),
    ):
        assert record_of(other, [later]) is None
    assert record_of(job(hook), [record("RUNNING", 180)]) is None
    assert record_of(job(hook), [record("RUNNING", 180, facts=JobFacts(restart_count=1))]) is None
    assert record_of(job(hooked("prolog", 0)), [record("RUNNING", 180)]) is None


@pytest.mark.parametrize(("submit", "superseded"), [(16, True), (15, False), (3, False), (60, True)])
def test_a_run_that_ended_is_superseded_by_a_later_submission(submit: int, superseded: bool) -> None:
    """slurmctld knows only the newest run of a job; SubmitTime is that of the requeue, which precedes the epilog."""
    waiting = record("PENDING", None, submit=submit)
    begun = started("n1", 10 * SECOND)
    assert is_superseded(job(begun, finished("n1", 20 * SECOND)), waiting) is superseded
    assert is_superseded(job(finished("n1", 10 * SECOND)), waiting) is superseded
    assert not is_superseded(job(begun), waiting), "a run that goes on is not taken back for a clock's sake"


@pytest.mark.parametrize(("count", "superseded"), [(0, False), (1, True), (2, True)])
def test_a_higher_count_of_restarts_supersedes_also_a_run_that_nobody_ended(count: int, superseded: bool) -> None:
    run = job(started("n1", 0, facts=JobFacts(restart_count=0)))
    assert is_superseded(run, record("PENDING", None, facts=JobFacts(restart_count=count))) is superseded


@pytest.mark.parametrize(
    ("skewed", "matches"),
    [
        ({}, True),
        ({"uid": None}, True),
        ({"uid": 1001}, False),
        ({"nodes": ("n2",)}, False),
        ({"nodes": None}, False),
        ({"restart_count": 1}, False),
        ({"restart_count": None}, False),
    ],
)
@pytest.mark.parametrize("ahead", [-290, -7, 8, 290])
def test_the_only_record_is_the_runs_although_clocks_differ_by_minutes(
    skewed: dict[str, Any], matches: bool, ahead: int
) -> None:
    """Where nodes, user and restarts agree; munge takes five minutes between two clocks."""
    facts = JobFacts(uid=1000, nodes=("n1",), restart_count=0)
    run = job(started("n1", ahead * SECOND, facts=facts))
    known = msgspec.structs.replace(facts, **skewed)
    one = record("COMPLETED", 0, 2, facts=known)
    assert (record_of(run, [one]) is one) is matches


def test_a_clock_is_not_a_day_behind_and_two_records_are_told_apart_by_time() -> None:
    facts = JobFacts(nodes=("n1",), restart_count=0)
    one = record("FAILED", 0, 2, facts=facts)
    for start, matches in ((-301, False), (-300, True), (302, True), (303, False)):
        assert (record_of(job(started("n1", start * SECOND, facts=facts)), [one]) is one) is matches
    run = job(started("n1", 8 * SECOND, facts=facts))
    assert record_of(run, [one, record("PENDING", None, submit=60, facts=facts)]) is None
    assert record_of(run, [record("PENDING", None, submit=60, facts=facts)]) is None
    assert record_of(job(used("n1", 5, NodeUsage())), [one]) is None
    counted = job(started("n1", 8 * SECOND, facts=JobFacts(nodes=("n1",))))
    assert record_of(counted, [one]) is None, "hooks before 22.05 count no restarts"
    assert record_of(job(started("n1", -290 * SECOND, facts=facts)), [record("RUNNING", 0, facts=facts)]) is not None


@pytest.mark.parametrize(
    ("told", "other"),
    [
        (record("RUNNING", 0), False),
        (record("RUNNING", 300), False),
        (record("RUNNING", 301), True),
        (record("PENDING", 900), False),
        (record("RUNNING", None), False),
        (record("RUNNING", 0, facts=JobFacts(restart_count=1)), True),
    ],
)
def test_what_certainly_is_another_run(told: SlurmRecord, other: bool) -> None:
    assert is_other_run(job(started("n1", 0, facts=JobFacts(restart_count=0))), told) is other


def test_a_guessed_or_unknown_start_tells_no_runs_apart_and_a_submission_does() -> None:
    assert not is_other_run(job(found("n1", 0)), record("RUNNING", 301))
    assert not is_other_run(job(finished("n1", 0)), record("RUNNING", 301))
    known = job(reported(Origin.SLURMCTLD, 5, state="RUNNING", start_time=0, submit_time=-5))
    assert is_other_run(known, record("RUNNING", 0, submit=-4))
    assert not is_other_run(known, record("RUNNING", 0, submit=-5))


def test_a_run_is_not_superseded_by_itself_nor_by_what_tells_no_submission() -> None:
    run = job(started("n1", 0))
    assert not is_superseded(run, record("RUNNING", 0, submit=5))
    assert not is_superseded(run, record("PENDING", None))
    assert not is_superseded(run, record("PENDING", None, submit=5, job_id="slurm-8"))
    assert not is_superseded(job(used("n1", 5, NodeUsage())), record("PENDING", None, submit=5))


def test_news_is_what_an_origin_has_not_said_of_the_run_yet() -> None:
    """And what is no longer final is old, whenever it comes."""
    running, ended = record("RUNNING", 0), record("COMPLETED", 0, 9)
    fresh = job(started("n1", 0))
    assert is_news(fresh, running)
    held = tell([started("n1", 0), reported(Origin.SLURMCTLD, 5, state="RUNNING", start_time=0, run=1)])[0].job
    assert not is_news(held, running)
    assert is_news(held, ended)
    assert is_news(held, msgspec.structs.replace(running, origin=Origin.SACCT))
    over = tell([started("n1", 0), reported(Origin.SLURMCTLD, 5, state="COMPLETED", start_time=0, end_time=9, run=1)])[
        0
    ].job
    assert not is_news(over, ended)
    assert not is_news(over, running)
    assert is_news(over, msgspec.structs.replace(ended, reason="NonZeroExitCode"))


def test_the_same_running_word_is_news_after_an_end_that_was_only_inferred() -> None:
    """Slurm's silence closed the run; that Slurm says again what it said before takes the end back."""
    running = record("RUNNING", 0)
    told = [started("n1", 0), reported(Origin.SLURMCTLD, 5, state="RUNNING", start_time=0, run=1)]
    over = tell([*told, closed("n1", 900 * SECOND, run=1)])[0].job
    assert over.end_inferred
    assert is_news(over, running)
    pending = [started("n1", 0), reported(Origin.SLURMCTLD, 5, state="PENDING", run=1)]
    waiting = tell([*pending, closed("n1", 900 * SECOND, run=1)])[0].job
    assert not is_news(waiting, record("PENDING", None))

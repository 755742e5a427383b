"""Whose word on a part of a job counts once Slurm has named the job's nodes."""

from typing import Any

import msgspec
import pytest

from jobtrail.domain.belonging import is_elsewhere, refused_part, refused_until
from jobtrail.domain.events import LATEST_US, Event, EventKind, NodeUsage
from jobtrail.domain.job import Run
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.joining import choose_run
from jobtrail.domain.slurm import Origin
from tests.unit.stories import SECOND, T0, closed, finished, found, hooked, reported, started, tell, used

KEY = T0 // SECOND  # SLURM_JOB_START_TIME of the run
USAGE = NodeUsage(cpu_usage_us=5)


def word(*nodes: str, state: str = "RUNNING", origin: Origin = Origin.SLURMCTLD, **fields: Any) -> Event:
    known = {"start_time": 0, "submit_time": -5, **fields}
    return reported(origin, 3 * SECOND, state=state, facts=JobFacts(nodes=nodes or None, restart_count=0), **known)


def running(*more: Event, nodes: tuple[str, ...] = ("n1",)) -> list[Run]:
    """A job that began on n1, of which Slurm then said on which nodes it is."""
    facts = JobFacts(nodes=("n1",), restart_count=0)
    return tell([started("n1", 0, "p", facts=facts, slurm_start_time=KEY), word(*nodes), *more])


def why(runs: list[Run], event: Event) -> str | None:
    return refused_part(runs, choose_run(runs, event), event)


@pytest.mark.parametrize(
    "event",
    [
        started("n9", 5 * SECOND),
        started("n9", 5 * SECOND, slurm_start_time=KEY),
        started("n9", 5 * SECOND, facts=JobFacts(nodes=("n9",), restart_count=0)),
        found("n9", 5 * SECOND),
        finished("n9", 5 * SECOND),
        finished("n9", 5 * SECOND, slurm_start_time=KEY),
        used("n9", 5 * SECOND, USAGE),
        used("n9", 5 * SECOND, USAGE, final=False, opened_by="elsewhere"),
        used("n9", 5 * SECOND, USAGE, run=1),
        closed("n9", 5 * SECOND),
    ],
)
def test_a_node_that_slurm_does_not_name_has_no_part(event: Event) -> None:
    assert why(running(), event) == "Slurm says that run 1 of the job is on n1, and not on n9"
    assert why(tell([started("n1", 0, "p", slurm_start_time=KEY)]), event) is None  # nobody said so yet


@pytest.mark.parametrize("origin", [Origin.SLURMCTLD, Origin.SLURMDBD, Origin.SACCT])
def test_it_is_slurms_own_word_that_counts(origin: Origin) -> None:
    runs = tell([started("n1", 0, "p", slurm_start_time=KEY), word("n1", "n2", origin=origin)])
    assert why(runs, started("n2", SECOND, slurm_start_time=KEY)) is None
    assert why(runs, started("n3", SECOND, slurm_start_time=KEY)) is not None


def test_what_comes_through_a_node_names_nobody_and_excludes_nobody() -> None:
    """Anybody's hook could: a node that slurmctld's hook alone does not name may begin its part."""
    hook = hooked("prolog", -SECOND, start_time=0, facts=JobFacts(nodes=("n1", "n2")))
    claim = started("n9", SECOND, slurm_start_time=KEY)
    assert why(tell([started("n1", 0, "p", slurm_start_time=KEY), hook]), claim) is None
    by_hook = started("n2", SECOND, slurm_start_time=KEY)
    assert why(running(hooked("prolog", 4 * SECOND, facts=JobFacts(nodes=("n1", "n2")))), by_hook) is not None


@pytest.mark.parametrize(("state", "flags"), [("COMPLETING", ()), ("RUNNING", ("COMPLETING",)), ("PENDING", ())])
def test_a_record_that_may_name_other_nodes_than_the_runs_excludes_nobody(state: str, flags: tuple[str, ...]) -> None:
    """slurmctld counts the nodes that are still completing; of a job that waits those it may get."""
    runs = tell([started("n1", 0, "p", slurm_start_time=KEY), word("n1", state=state, flags=flags)])
    assert why(runs, started("n2", SECOND, slurm_start_time=KEY)) is None


def test_a_node_that_was_given_back_has_had_its_part() -> None:
    """Known by its own part, or by the list in the other nodes' prologs and epilogs."""
    late = finished("n2", 9 * SECOND, slurm_start_time=KEY)
    begun = tell([started("n2", 0, "p", slurm_start_time=KEY), word("n1")])
    assert why(begun, late) is None
    for other in (
        started("n1", 0, "q", nodes=("n1", "n2"), slurm_start_time=KEY),
        finished("n1", SECOND, nodes=("n1", "n2"), slurm_start_time=KEY),
    ):
        assert why(tell([other, word("n1")]), late) is None
        assert why(tell([other, word("n1")]), msgspec.structs.replace(late, node="n3")) is not None


@pytest.mark.parametrize(
    "event",
    [
        started("n9", 5 * SECOND, facts=JobFacts(nodes=("n9",), restart_count=1)),
        started("n9", 5 * SECOND, slurm_start_time=KEY + 60),
        finished("n9", 70 * SECOND, slurm_start_time=KEY + 60),
        started("n9", -10 * SECOND),
    ],
)
def test_a_job_may_begin_anew_elsewhere_before_anybody_says_so(event: Event) -> None:
    """By a later start, by a count of restarts; or it is an earlier run, of which nothing is known."""
    assert why(running(), event) is None


def test_slurms_unique_id_tells_runs_apart() -> None:
    runs = tell([started("n1", 0, "p", sluid="s1"), word("n1")])
    assert why(runs, started("n9", SECOND, sluid="s2")) is None
    assert why(runs, started("n9", SECOND, sluid="s1")) is not None


def test_after_its_end_a_job_may_begin_anew() -> None:
    over = running(word("n1", state="COMPLETED", end_time=20))
    assert why(over, started("n9", 10 * SECOND)) is not None
    assert why(over, started("n9", 21 * SECOND)) is None


def test_a_run_of_which_nothing_but_slurms_word_is_known_is_held_against_others() -> None:
    runs = tell([word("n1", start_time=None)])
    assert runs[0].job.start_us is None
    assert why(runs, started("n9", SECOND)) is not None


def test_what_follows_a_beginning_needs_one_run_that_may_be_the_nodes() -> None:
    """A second run that Slurm said nothing of yet may be anybody's."""
    other = started("n5", 100 * SECOND, "q", facts=JobFacts(nodes=("n5",), restart_count=1))
    runs = running(other)
    assert len(runs) == 2
    follows = used("n9", 101 * SECOND, USAGE)
    assert refused_part(runs[:1], None, follows) is not None
    assert refused_part(runs, None, follows) is None
    assert refused_part([], None, follows) is None


def test_what_is_of_no_node_is_not_held_to_it() -> None:
    whole = closed("n9", 5 * SECOND, run=1)
    assert whole.closing is not None
    whole = msgspec.structs.replace(whole, closing=msgspec.structs.replace(whole.closing, whole_run=True))
    assert why(running(), whole) is None
    assert why(running(), word("n7")) is None
    assert refused_part(running(), None, msgspec.structs.replace(whole, kind=EventKind.GAP, closing=None)) is None


def test_many_nodes_are_told_in_short() -> None:
    runs = running(nodes=("n1", "n2", "n3", "n4", "n5"))
    assert (
        why(runs, started("n9", SECOND))
        == "Slurm says that run 1 of the job is on n1, n2, n3 and 2 more, and not on n9"
    )


def test_samples_are_refused_while_all_that_is_known_of_the_job_is_elsewhere() -> None:
    job = running()[0].job
    over = running(word("n1", state="COMPLETED", end_time=20))[0].job
    assert refused_until([], "n9") is None
    assert refused_until([(job, False)], "n1") is None
    assert refused_until([(job, False)], "n9") == LATEST_US
    assert refused_until([(over, False)], "n9") == over.end_us
    assert refused_until([(over, False), (job, False)], "n9") == LATEST_US
    assert refused_until([(over, False), (job, True)], "n9") is None
    assert is_elsewhere(job, "n9", has_part=False)
    assert not is_elsewhere(job, "n9", has_part=True)

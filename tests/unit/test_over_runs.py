"""When a run is over as the store knows, and which runs it is asked about."""

import pytest

from jobtrail.core.runs.over_runs import Over, may_be_over, over_by
from jobtrail.core.runs.sight import Sight
from jobtrail.domain.job import Job
from jobtrail.domain.records import SKEW_US
from jobtrail.domain.slurm import Origin
from tests.unit.runs import T0, open_run
from tests.unit.stories import SECOND, closed, finished, reported, started, tell_one


def job(*events: object) -> Job:
    return tell_one([started("n1", 0, nodes=["n1"]), *events]).job  # type: ignore[list-item]


def word(state: str, *, end: int | None = None) -> object:
    return reported(Origin.SLURMDBD, 90 * SECOND, run=1, state=state, start_time=0, end_time=end, submit_time=-1)


def test_slurms_final_word_says_when() -> None:
    """To the second, and by another machine's clock."""
    over = over_by(job(word("TIMEOUT", end=60)))
    assert over == Over(
        reason="ended_in_slurm", latest_us=T0 + 60 * SECOND + SKEW_US, detail="Slurm says TIMEOUT (slurmdbd)"
    )


def test_a_final_word_without_an_end_leaves_what_nodes_told() -> None:
    assert over_by(job(word("FAILED"))) is None
    over = over_by(job(word("FAILED"), finished("n1", 50 * SECOND)))
    assert over is not None
    assert over.latest_us == T0 + 50 * SECOND


def test_a_closing_of_the_whole_run_counts_until_slurm_speaks() -> None:
    closing = closed("n1", 600 * SECOND, reason="unknown_to_slurm", not_before=500 * SECOND, run=1)
    over = over_by(job(closing))
    assert over == Over(reason="unknown_to_slurm", latest_us=T0 + 600 * SECOND, detail="")
    over = over_by(job(closing, word("COMPLETED", end=60)))
    assert over is not None
    assert over.reason == "ended_in_slurm"


def test_a_run_that_goes_on_or_that_only_its_nodes_ended_is_not_over_by_slurm() -> None:
    assert over_by(job(word("RUNNING"))) is None
    assert over_by(job(finished("n1", 50 * SECOND))) is None


@pytest.mark.parametrize(
    ("sight", "asked"),
    [
        (None, False),
        (Sight(), True),
        (Sight(seen_us=T0), False),
        (Sight(seen_us=T0, empty=True), True),
        (Sight(seen_us=T0, gone_us=T0 + 1), True),
    ],
    ids=["not watched", "nothing can be read", "alive", "no process left", "gone"],
)
def test_the_store_is_asked_about_runs_that_are_not_seen_alive(sight: Sight | None, asked: bool) -> None:
    assert may_be_over(open_run(), sight, begun_before_us=T0 + 1) is asked
    assert not may_be_over(open_run(), sight, begun_before_us=T0)

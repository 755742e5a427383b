"""A later run of a job on a node shows that the run before it is over."""

import msgspec
import pytest

from jobtrail.core.ports import OpenRun
from jobtrail.core.runs.succession import REASON, end_of_replaced
from jobtrail.domain.events import Actor, EventKind, NodeUsage
from tests.unit.runs import T0, open_run
from tests.unit.stories import SECOND, closed, finished, started, tell


def run(at: int, *, name: str = "a", start: int | None = None, sluid: str | None = None, **more: object) -> OpenRun:
    """A run that began `at` seconds after T0, with Slurm's keys."""
    one = open_run(started_us=T0 + at * SECOND)
    target = msgspec.structs.replace(one.target, ref=f"ref-{name}", sluid=sluid)
    return msgspec.structs.replace(one, target=target, slurm_start_time=start, **more)


def test_the_end_names_its_run_in_every_way_and_lies_before_the_next_start() -> None:
    event = end_of_replaced(run(0, start=100, sluid="s1"), run(60, name="b", start=160, sluid="s2"), event_id="e")
    assert event is not None
    assert (event.kind, event.event_id, event.changed_by) == (EventKind.JOB_CLOSED, "e", Actor.COLLECTOR)
    assert (event.cluster, event.job_id, event.node, event.opened_by) == ("c1", "slurm-a", "n1", "ref-a")
    assert (event.slurm_start_time, event.sluid) == (100, "s1")
    assert event.time_us == T0 + 60 * SECOND
    assert event.closing is not None
    assert (event.closing.reason, event.closing.not_before_us, event.closing.whole_run) == (REASON, T0, False)
    assert "ref-b" in event.closing.detail


@pytest.mark.parametrize(("start", "latest"), [(60, 60), (20, 50)])
def test_it_lies_after_the_last_sample(start: int, latest: int) -> None:
    """Also where the clock was set back between the two runs."""
    usage = NodeUsage(sample_count=1, last_sample_us=T0 + 50 * SECOND)
    event = end_of_replaced(run(0, usage=usage), run(start, name="b"), event_id="e")
    assert event is not None
    assert event.closing is not None
    assert (event.closing.not_before_us, event.time_us) == (T0 + 50 * SECOND, T0 + latest * SECOND)


@pytest.mark.parametrize(
    ("earlier", "later", "closes"),
    [
        (run(0), run(60), True),
        (run(0, start=100), run(60), True),
        (run(0), run(60, start=100), True),
        (run(0, start=100), run(60, start=100), False),
        (run(0, sluid="s1"), run(60, sluid="s1"), False),
        (run(0, start=100, sluid="s1"), run(60, start=100, sluid="s2"), True),
        (run(0, start=100, sluid="s1"), run(60, start=100), False),
        (run(0, found=True), run(60), False),
    ],
)
def test_one_run_whose_start_is_told_twice_goes_on(earlier: OpenRun, later: OpenRun, closes: bool) -> None:
    """The store takes both starts for one run then, and an end would be that of the run that goes on."""
    assert (end_of_replaced(earlier, later, event_id="e") is not None) is closes


@pytest.mark.parametrize("keys", [(None, None), (100, 160)])
def test_the_stores_run_ends_as_inferred_and_a_late_epilog_replaces_that(keys: tuple[int | None, int | None]) -> None:
    first = started("n1", 0, "first", slurm_start_time=keys[0])
    second = started("n1", 60 * SECOND, "second", slurm_start_time=keys[1])
    over = closed("n1", 60 * SECOND, reason=REASON, opened_by=first.event_id, slurm_start_time=keys[0])
    runs = tell([first, second, over])
    assert [(one.job.run, one.job.is_over, one.job.end_inferred) for one in runs] == [
        (1, True, True),
        (2, False, False),
    ]
    runs = tell([first, second, over, finished("n1", 55 * SECOND, slurm_start_time=keys[0])])
    assert [(one.job.is_over, one.job.end_inferred) for one in runs] == [(True, False), (False, False)]
    assert runs[0].job.end_us == first.time_us + 55 * SECOND

"""What /metrics shows: live jobs, ended ones for a grace of two scrapes, never more than the cap."""

import pytest

from jobtrail.core.runs.board import GRACE_SECONDS, Board, JobGpus
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.samples import Reading
from tests.unit.runs import T0, open_run

READING = Reading(time_us=T0, source="cgroup_v2", cpu_usage_us=5)
USAGE = NodeUsage(cpu_usage_us=5)


def test_an_ended_job_stays_for_two_scrapes() -> None:
    """So that its last values are in at least one scrape of each of two Prometheus servers."""
    board = Board(max_jobs=5)
    board.open(open_run("a"))
    board.scraped(0)
    board.scraped(1)
    board.end("ref-a", T0 + 9, now=2)
    assert board.live_jobs() == 0
    board.scraped(3)
    assert board.jobs["ref-a"].ended_us == T0 + 9
    board.scraped(4)
    assert board.jobs == {}


def test_an_ended_job_goes_after_two_minutes_without_scrapes() -> None:
    """At the next expiry or the next scrape, whichever is first; the living stay."""
    for leave in (Board.expire, Board.scraped):
        board = Board(max_jobs=5)
        board.open(open_run("a"))
        board.open(open_run("b"))
        board.end("ref-a", T0, now=10)
        leave(board, 10 + GRACE_SECONDS - 0.1)
        assert set(board.jobs) == {"ref-a", "ref-b"}
        leave(board, 10 + GRACE_SECONDS)
        assert set(board.jobs) == {"ref-b"}


def test_jobs_beyond_the_cap_are_counted_and_not_shown() -> None:
    board = Board(max_jobs=2)
    for name in ("a", "b", "c", "a"):
        board.open(open_run(name))
    assert (set(board.jobs), board.shed_jobs_total, board.live_jobs()) == ({"ref-a", "ref-b"}, 1, 3)
    board.update("ref-c", READING, None, USAGE)
    board.miss("ref-c")
    board.end("ref-c", T0, now=0)
    assert (set(board.jobs), board.live_jobs()) == ({"ref-a", "ref-b"}, 2)


def test_the_last_values_of_an_ended_job_do_not_change() -> None:
    """A reading that comes in late belongs to nobody; a second end is none."""
    board = Board(max_jobs=2)
    board.open(open_run("a"))
    board.update("ref-a", READING, 50.0, USAGE)
    board.end("ref-a", T0 + 1, now=0)
    board.update("ref-a", Reading(time_us=T0 + 2, source="x"), 1.0, NodeUsage())
    board.miss("ref-a")
    board.end("ref-a", T0 + 5, now=50)
    entry = board.jobs["ref-a"]
    assert (entry.reading, entry.cpu_percent, entry.usage, entry.ended_us) == (READING, 50.0, USAGE, T0 + 1)
    assert entry.remove_at == GRACE_SECONDS


def test_a_job_that_cannot_be_read_shows_totals_and_no_old_levels() -> None:
    board = Board(max_jobs=2)
    board.open(open_run("a"))
    board.update("ref-a", READING, 50.0, USAGE)
    board.miss("ref-a")
    entry = board.jobs["ref-a"]
    assert (entry.reading, entry.cpu_percent, entry.usage) == (None, None, USAGE)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (JobGpus(usage=NodeUsage(cpu_usage_us=1)), False),
        (JobGpus(usage=NodeUsage(), unresolved=0), True),
        (JobGpus(usage=NodeUsage(energy_cpu_microjoules=0)), True),
        (JobGpus(usage=NodeUsage(energy_gpu_microjoules=0)), True),
        (JobGpus(usage=NodeUsage(energy_dram_microjoules=0)), True),
    ],
)
def test_whether_there_is_anything_to_show_of_gpus_and_energy(gpus: JobGpus, expected: bool) -> None:
    """A job that holds no GPU and of whose energy nothing is known has no such lines."""
    assert gpus.is_known is expected

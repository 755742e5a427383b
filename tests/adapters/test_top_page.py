"""What `jobtrail top` makes of a page of metrics."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from jobtrail.cli.top_page import ORDERS, JobLine, NodeNow, in_order, read, shown
from jobtrail.domain.errors import StoreUnavailable

GOLDEN = Path(__file__).parents[1] / "fixtures" / "metrics" / "golden.prom"
GIB = 1 << 30


def text(now: NodeNow, width: int = 80, **options: object) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(shown(now, width=width, **options))  # type: ignore[arg-type]
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_page_the_daemon_gives_becomes_a_line_for_each_job() -> None:
    now = read(GOLDEN.read_bytes())
    assert (now.node, now.cpu_percent, now.memory_bytes) == ("n1", 12.5, 16 * GIB)
    jobs = {job.job_id: job for job in now.jobs}
    assert list(jobs) == ["slurm-1", "slurm-2", "slurm-3", "local-4"]
    three = jobs["slurm-3"]
    assert (three.user, three.account, three.gpus, three.gpus_active, three.gpu_percent) == ("carol", None, 2, 1, 70)
    assert (three.gpu_watts, three.memory_limit_bytes, three.sample_age_seconds) == (312.345, 4 * GIB, 10)
    one = jobs["slurm-1"]
    assert (one.cpu_percent, one.cpus, one.partition, one.gpus, one.gpu_watts) == (37.5, 4, "batch", 0, None)
    assert (jobs["slurm-2"].cpu_percent, jobs["slurm-2"].memory_bytes) == (None, None)


def test_what_is_not_known_is_not_nought() -> None:
    (line,) = [line for line in text(read(GOLDEN.read_bytes()), 100) if line.startswith("slurm-2")]
    assert line.split() == ["slurm-2", "bob", "1", "-", "-", "-", "-", "-", "-", "1:40", "0s"]


@pytest.mark.parametrize("page", [b"", b"<html>", b"up 1\n", b"# TYPE x gauge\nx{ 1\n", b"\xff"])
def test_what_is_no_page_of_ours_is_refused(page: bytes) -> None:
    with pytest.raises(StoreUnavailable, match="what answers"):
        read(page)


JOBS = tuple(
    JobLine(
        job_id=f"local-179522528179{number:04d}", cluster="c", user="a-very-long-user-name", cpus=128.0,
        cpu_percent=100.0 - number, memory_bytes=1023.9 * GIB, memory_limit_bytes=1023.9 * GIB, gpus=8.0,
        gpus_active=8.0, gpu_percent=100.0, gpu_watts=5600.0 + number, runtime_seconds=8.0e5 + number,
        sample_age_seconds=15.0,
    )
    for number in range(40)
)  # fmt: skip


@pytest.mark.parametrize(
    ("width", "columns"), [(30, "JOB CPU%"), (40, "JOB CPU% MEMORY"), (60, "JOB USER CPU% MEMORY GPU% RAN")]
)
def test_a_narrow_terminal_has_fewer_columns_and_those_whole(width: int, columns: str) -> None:
    lines = text(NodeNow(node="n1", cpu_percent=12.5, memory_bytes=GIB, jobs=JOBS), width)
    assert max(map(len, lines)) <= width
    assert lines[2].split() == columns.split()
    assert lines[3].startswith(JOBS[0].job_id)
    assert "…" not in "".join(lines[2:])


@pytest.mark.parametrize("height", [1, 2, 3, 6])
def test_a_daemon_that_is_gone_is_told_of_before_figures_that_are_old(height: int) -> None:
    """However low the terminal is: what no longer fits must not be the warning."""
    lines = text(NodeNow(node="n1", jobs=JOBS), height=height, problem="no daemon answers on x")
    assert lines[0] == "not current: no daemon answers on x"
    assert len(lines) <= max(2, height)


@pytest.mark.parametrize("width", [80, 90, 200])
def test_the_widest_line_fits(width: int) -> None:
    lines = text(NodeNow(node="n1", jobs=JOBS), width)
    assert max(map(len, lines)) <= width
    assert len(lines) == 3 + len(JOBS)
    assert all("…" not in line for line in lines)
    assert ("AGE" in lines[2]) == (width >= 90)


def test_as_many_jobs_as_fit_are_shown_and_the_rest_is_counted() -> None:
    lines = text(NodeNow(node="n1", jobs=JOBS), height=24, problem="no daemon answers on " + "x" * 200)
    assert len(lines) <= 24
    assert lines[0].startswith("not current: no daemon answers on")
    assert lines[-1] == "21 more"


def test_a_hostile_user_name_moves_no_cursor() -> None:
    lines = text(NodeNow(node="n1", jobs=(JobLine(job_id="slurm-1", cluster="c", user="\x1b[2Jx[red]"),)))
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(("order", "first"), [("cpu", 0), ("memory", 0), ("gpu", 0), ("power", 39), ("time", 39)])
def test_each_order_puts_the_most_first_and_the_unknown_last(order: str, first: int) -> None:
    nothing = JobLine(job_id="slurm-0", cluster="c")
    jobs = in_order(NodeNow(node="n1", jobs=(nothing, *JOBS)), order).jobs
    assert (jobs[0], jobs[-1]) == (JOBS[first], nothing)
    assert order in {name for name, _ in ORDERS.values()}


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "-"), (59.9, "0:59"), (3599, "59:59"), (3600, "1h00"), (86399, "23h59"), (90000, "1d01h")],
)
def test_a_time_is_told_in_six_characters(seconds: float | None, told: str) -> None:
    lines = text(NodeNow(node="n1", jobs=(JobLine(job_id="slurm-1", cluster="c", runtime_seconds=seconds),)))
    assert lines[3].split()[-1] == told

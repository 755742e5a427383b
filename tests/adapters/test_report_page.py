"""What `jobtrail report` prints of a report, beyond the figures that the page has as well."""

import io
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from jobtrail.cli.report_page import print_report
from jobtrail.domain.job_report_making import make_report
from tests.job_rows import job_row


def printed(other_runs: list[tuple[str, int]], **job: Any) -> str:
    out = io.StringIO()
    made = make_report(
        job_row(**job), sentence="It ended.", nodes=[], gpus=[], other_runs=other_runs, now=datetime.now(UTC)
    )
    print_report(Console(file=out, width=120), made)
    return out.getvalue()


def test_it_says_which_other_runs_have_the_same_id() -> None:
    """A job's number alone does not tell which of two clusters' jobs is meant, nor which of its runs."""
    page = printed([("c2", 1), ("c1", 2), ("c1", 3), ("c1", 4), ("c1", 5)])
    told = "also run 1 in cluster c2, run 2 in cluster c1, run 3 in cluster c1, run 4 in cluster c1 and 1 more"
    assert told in page
    assert "of the same id" not in printed([])
    assert "and 0 more" not in printed([("c2", 1)])


def test_a_job_of_less_than_a_second_has_its_hundredths() -> None:
    begin = datetime(2026, 11, 21, 8, tzinfo=UTC)
    page = printed(
        [], start_time=begin, end_time=begin.replace(microsecond=340_000), cpu_seconds=0.17, cpus_allocated=1
    )
    assert "0.17 s of 0.34 s of CPU time" in page
    assert "ran 0.34 s" in page

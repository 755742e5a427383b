"""What identifies a report."""

from __future__ import annotations

import uuid

from jobtrail.domain.benchmarks.report import report_event_id

RUN = "4a3cf0ce-5e0f-4b5e-8d3a-0d9e2b8a7c11"


def test_the_same_bytes_of_a_run_are_the_same_event() -> None:
    """A report that is sent again, whoever sends it, is known by its id."""
    assert report_event_id(RUN, b"{}") == report_event_id(RUN, b"{}")
    assert uuid.UUID(report_event_id(RUN, b"{}")).version == 5


def test_other_bytes_or_another_run_are_another_event() -> None:
    """Nothing that differs is taken for a repetition."""
    other = "5b3cf0ce-5e0f-4b5e-8d3a-0d9e2b8a7c11"
    assert len({report_event_id(RUN, b"{}"), report_event_id(RUN, b"{ }"), report_event_id(other, b"{}")}) == 3

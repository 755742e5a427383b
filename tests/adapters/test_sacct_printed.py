"""Past jobs in a file that sacct printed: whole rows whatever names hold, and what cannot be read is named."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from jobtrail.adapters.sacct import printed
from jobtrail.adapters.sacct.printed import Batch, read_printed
from jobtrail.domain.errors import InvalidEvent
from tests.adapters.sacct_prints import DELIMITER, FIELDS, Row, job_row, step_row

WITHOUT_NAMES = tuple(name for name in FIELDS if name != "JobName")


def ended(rows: Sequence[Row], fields: Sequence[str] = FIELDS, delimiter: str = DELIMITER) -> str:
    """As --parsable prints."""
    lines = [fields, *([row.get(name, "") for name in fields] for row in rows)]
    return "".join("".join(f"{value}{delimiter}" for value in line) + "\n" for line in lines)


def barred(rows: Sequence[Row], fields: Sequence[str] = WITHOUT_NAMES) -> str:
    """As -P prints."""
    lines = [fields, *([row.get(name, "") for name in fields] for row in rows)]
    return "".join("|".join(line) + "\n" for line in lines)


def read(text: str) -> Batch:
    """All of a small file."""
    (batch,) = read_printed(text)
    return batch


@pytest.mark.parametrize("write", [ended, barred])
def test_jobs_are_read_with_their_steps(write: object) -> None:
    rows = [job_row(7), step_row(7), job_row(8, State="TIMEOUT", ExitCode="0:0")]
    batch = read(ended(rows) if write is ended else barred(rows))
    assert [(one.job_id, one.state, one.memory_peak_bytes) for one in batch.records] == [
        ("slurm-7", "COMPLETED", 225280),
        ("slurm-8", "TIMEOUT", None),
    ]
    assert (batch.complaints, batch.rows) == ((), 3)


@pytest.mark.parametrize("name", ["a|b", "two\nlines", "x\n9|9|COMPLETED|0:0", f"{DELIMITER[:-1]}", "ünï"])
def test_no_name_of_a_job_becomes_another_job(name: str) -> None:
    batch = read(ended([job_row(7, JobName=name), job_row(8)]))
    assert [one.job_id for one in batch.records] == ["slurm-7", "slurm-8"]
    assert batch.records[0].facts.job_name == name
    assert batch.complaints == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1 must be sacct's headings"),
        ("7|7|COMPLETED\n", "line 1 must be sacct's headings"),
        ("JobIDRaw|JobID|State\n", "line 1 sacct was not asked for ExitCode, Submit, Start, End"),
        (barred([], FIELDS), "line 1 JobName is any text its user chose"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        read_printed(text)
    assert f"{refusal.value}".replace(": ", " ").startswith(told)


def test_bad_lines_are_named_and_the_others_read() -> None:
    text = barred([job_row(7), job_row(8, State="??"), job_row(9, Start="2026-01-01T00:00:00")])
    batch = read(text + "half|a line\n")
    assert [one.job_id for one in batch.records] == ["slurm-7"]
    fields = len(WITHOUT_NAMES)
    assert batch.complaints[0] == f"line 5 has 2 fields, not {fields}"
    assert batch.complaints[1].startswith("line 3 State must be a job's state")
    assert batch.complaints[2].startswith("line 4 Start must be a whole number, not '2026-01-01T00:00:00'")


def test_a_file_that_was_cut_off_says_where() -> None:
    text = ended([job_row(7), job_row(8)])
    batch = read(text[: text.rindex("COMPLETED")])
    assert [one.job_id for one in batch.records] == ["slurm-7"]
    assert batch.complaints == (f"row 2 ends in the middle, after 2 of {len(FIELDS)} fields",)


def test_a_long_file_is_read_in_parts_that_keep_jobs_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printed, "JOBS_PER_BATCH", 2)
    rows = [row for number in range(1, 6) for row in (job_row(number), step_row(number))]
    batches = list(read_printed(ended(rows)))
    assert [[one.job_id for one in batch.records] for batch in batches] == [
        ["slurm-1", "slurm-2"],
        ["slurm-3", "slurm-4"],
        ["slurm-5"],
    ]
    assert all(one.memory_peak_bytes == 225280 for batch in batches for one in batch.records)
    assert [batch.rows for batch in batches] == [4, 8, 10]

"""Reads what somebody had sacct(1) print into a file, with a line of headings: past jobs, to be brought in.

Two forms. With a delimiter that nobody could know when jobs were named, which also ends each row (--parsable), any text
is safe. With a bar (-P) a line is a row, so what users choose must not be in it: a name may hold bars and whole lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from jobtrail.adapters.sacct.rows import OPTIONAL, REQUIRED, read_answer
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.slurm import SlurmRecord

JOBS_PER_BATCH = 500
BAR = "|"
CHOSEN_BY_USERS = "JobName"
FIELDS = (*REQUIRED, *(name for name in OPTIONAL if name not in {"Restarts", "SLUID"}))
COMMAND = (
    "SLURM_TIME_FORMAT=%s sacct --allusers --duplicates --noconvert --parsable "
    '--delimiter="<$(od -An -N8 -tx1 /dev/urandom | tr -d " \\n")>" --starttime=2026-01-01 '
    f"--format={','.join(FIELDS)}"
)
"""What prints a file that can be read, for a shell."""

_HEADINGS = re.compile(r"JobIDRaw(<[0-9a-f]{8,64}>|\|)")
_ANY_JOB = range(10**10)


class Batch(msgspec.Struct, frozen=True):
    """Some jobs of the file, what of them could not be read, and how many rows were looked at so far."""

    records: tuple[SlurmRecord, ...]
    complaints: tuple[str, ...]
    rows: int


def read_printed(text: str) -> Iterator[Batch]:
    """The jobs of the text, with their steps, some hundred at a time.

    Raises InvalidEvent when the headings are none, a needed field is missing, or users' text is among bars.
    """
    headings, _, body = text.partition("\n")
    found = _HEADINGS.match(headings)
    if found is None:
        raise InvalidEvent("line 1", "must be sacct's headings, of which JobIDRaw is the first")
    delimiter = found[1]
    fields = headings.removesuffix(delimiter).split(delimiter)
    if missing := [name for name in REQUIRED if name not in fields]:
        raise InvalidEvent("line 1", f"sacct was not asked for {', '.join(missing)}")
    if delimiter == BAR and CHOSEN_BY_USERS in fields:
        raise InvalidEvent("line 1", f"{CHOSEN_BY_USERS} is any text its user chose, which bars do not keep apart")
    rows = _lines(body, len(fields), delimiter) if delimiter == BAR else _ended(body, len(fields), delimiter)
    return _batches(rows, fields, delimiter)


_Row = tuple[str, Sequence[str] | str]  # where it is, and its fields or what is wrong


def _lines(body: str, count: int, delimiter: str) -> Iterator[_Row]:
    for number, line in enumerate(body.splitlines(), start=2):
        if not line.strip():
            continue
        row = line.split(delimiter)
        if len(row) == count + 1 and not row[-1]:
            row.pop()
        yield f"line {number}", row if len(row) == count else f"has {len(row)} fields, not {count}"


def _ended(body: str, count: int, delimiter: str) -> Iterator[_Row]:
    row: list[str] = []
    start = number = 0
    while (end := body.find(delimiter, start)) >= 0:
        row.append(body[start:end])
        start = end + len(delimiter)
        if len(row) == count:
            number += 1
            row[0] = row[0].removeprefix("\n")
            yield f"row {number}", row
            row = []
    if row or body[start:].strip():
        yield f"row {number + 1}", f"ends in the middle, after {len(row)} of {count} fields"


def _batches(rows: Iterator[_Row], fields: Sequence[str], delimiter: str) -> Iterator[Batch]:
    """A job and its steps stay together."""
    held: list[tuple[str, Sequence[str]]] = []
    complaints: list[str] = []
    jobs = seen = 0
    number_at = fields.index("JobIDRaw")
    for place, row in rows:
        seen += 1
        if isinstance(row, str):
            complaints.append(f"{place} {row}")
            continue
        is_job = "." not in row[number_at]
        if is_job and jobs == JOBS_PER_BATCH:
            yield _read(held, fields, delimiter, complaints, seen - 1)
            held, complaints, jobs = [], [], 0
        jobs += is_job
        held.append((place, row))
    yield _read(held, fields, delimiter, complaints, seen)


def _read(
    held: Sequence[tuple[str, Sequence[str]]], fields: Sequence[str], delimiter: str, complaints: list[str], seen: int
) -> Batch:
    text = "\n".join(delimiter.join(row) + delimiter for _, row in held)
    answer = read_answer(text, fields, delimiter, _ANY_JOB)
    for one in answer.unreadable:
        index, _, field = one.path.removeprefix("sacct.rows[").partition("]")
        complaints.append(f"{held[int(index)][0]} {field.removeprefix('.')} {one.reason}".replace("  ", " "))
    return Batch(answer.records, tuple(complaints), seen)

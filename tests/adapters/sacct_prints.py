"""What sacct prints when the daemon asks it: captures of real answers, and rows made up for a test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from jobtrail.adapters.sacct.rows import OPTIONAL, REQUIRED, read_answer
from jobtrail.domain.slurm import SlurmAnswer

FIELDS = (*REQUIRED, *OPTIONAL)
DELIMITER = "<0123456789abcdef>"
CAPTURES = Path(__file__).parents[1] / "fixtures" / "sacct"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")

Row = dict[str, str]


def unix(text: str) -> int:
    """Unix seconds of a time in a capture."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def captured(name: str) -> list[Row]:
    """The rows of a capture (`sacct -D -P`), times as the daemon asks for them."""
    header, *lines = (CAPTURES / f"{name}.txt").read_text(errors="replace").rstrip("\n").split("\n")
    fields = header.split("|")
    rows: list[Row] = []
    pending = ""
    for line in lines:
        # A name with newlines goes over several lines.
        pending += line
        if pending.count("|") < len(fields) - 1:
            pending += "\n"
            continue
        values = [str(unix(value)) if _TIME.fullmatch(value) else value for value in pending.split("|")]
        rows.append(dict(zip(fields, values, strict=True)))
        pending = ""
    return rows


def job_row(number: int = 7, **values: str) -> Row:
    """A run that ended well, with `values` instead of the usual ones."""
    row = {
        "JobIDRaw": str(number), "JobID": str(number), "State": "COMPLETED", "ExitCode": "0:0", "Submit": "1795260227",
        "Start": "1795260228", "End": "1795260231", "Cluster": "lab", "User": "alice", "UID": "1002", "GID": "1003",
        "Account": "physics", "Partition": "debug", "QOS": "normal", "JobName": "sim", "NodeList": "n1",
        "Suspended": "00:00:00", "TimelimitRaw": "90", "ReqTRES": "billing=1,cpu=1,mem=200M,node=1",
        "AllocTRES": "billing=2,cpu=2,mem=200M,node=1", "TotalCPU": "00:03.500",
    }  # fmt: skip
    return {**row, **values}


def step_row(number: int = 7, step: str = "batch", **values: str) -> Row:
    """A step that ended well."""
    row = {"JobIDRaw": f"{number}.{step}", "JobID": f"{number}.{step}", "State": "COMPLETED", "ExitCode": "0:0"}
    return {**row, "Start": "1795260228", "End": "1795260231", "TotalCPU": "00:03.499", "MaxRSS": "225280", **values}


def printed(rows: Sequence[Row], *, fields: Sequence[str] = FIELDS, delimiter: str = DELIMITER) -> str:
    """The rows as `sacct --parsable --delimiter=...` prints them."""
    return "".join("".join(row.get(field, "") + delimiter for field in fields) + "\n" for row in rows)


def read(*rows: Row, wanted: Sequence[int] = (7,)) -> SlurmAnswer:
    """What the reader makes of rows."""
    return read_answer(printed(rows), FIELDS, DELIMITER, frozenset(wanted))

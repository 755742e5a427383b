"""The argument JOB: which forms of a job id the commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.job_ids import parse_job_id


def _checked(text: str) -> str:
    try:
        parse_job_id(text)
    except InvalidEvent as error:
        raise typer.BadParameter(error.reason) from error
    return text


JobId = Annotated[
    str,
    typer.Argument(
        metavar="JOB", callback=_checked, help="slurm-123, 123 (the same), local-4, or 123_7 for task 7 of array 123"
    ),
]

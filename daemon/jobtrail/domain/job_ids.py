"""Job ids as people write them: `123`, `slurm-123`, `local-4`, `manual-import-7`.

A task of an array may be written `123_7`, as squeue(1) has it.
"""

from __future__ import annotations

import re

import msgspec

from jobtrail.domain.claims import MANUAL_FORM, is_manual, is_manual_id
from jobtrail.domain.errors import InvalidEvent

ALLOWED = (
    "must be slurm-N, local-N, N for slurm-N, or N_M for task M of array N, N being a whole number from 1, "
    "or manual-NAME"
)
_FORM = re.compile(r"(?:(?P<kind>slurm|local)-)?(?P<number>[1-9][0-9]{0,15})(?:_(?P<task>[0-9]{1,10}))?")


class JobName(msgspec.Struct, frozen=True):
    """What a job id names. With `array_task`, `job_id` is that of the array, and the task has another of its own."""

    job_id: str
    array_task: int | None = None


def parse_job_id(text: str) -> JobName:
    """What `text` names. Raises InvalidEvent for field `id`, naming the allowed forms."""
    if is_manual(text):
        if not is_manual_id(text):
            raise InvalidEvent("id", f"must be {MANUAL_FORM}, not {text[:64]!r}")
        return JobName(text)
    form = _FORM.fullmatch(text)
    if form is None or (form["kind"] == "local" and form["task"] is not None):
        raise InvalidEvent("id", f"{ALLOWED}, not {text[:64]!r}")
    task = None if form["task"] is None else int(form["task"])
    return JobName(f"{form['kind'] or 'slurm'}-{form['number']}", task)

"""What people claim of a job: the fields of one that they keep by hand, and remarks on one that others tell of."""

from __future__ import annotations

import hashlib
import re

import msgspec

from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.states import State

MANUAL = "manual-"
MANUAL_FORM = "manual-NAME, NAME being 1 to 57 small letters, digits, dots, _ and -, a letter or digit first"
_MANUAL_ID = re.compile(r"manual-[a-z0-9][a-z0-9._-]{0,56}")
# What people may say of a job that Slurm and its hooks, or `jobtrail exec`, tell of. All else is measured or Slurm's.
REMARKS = ("account", "comment")
MAX_NUMBER = 2**53


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one person says at a time; None says nothing of a field. Times in µs since the Unix epoch."""

    user_name: str | None = None
    uid: int | None = None
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    job_name: str | None = None
    comment: str | None = None
    work_dir: str | None = None
    nodes: tuple[str, ...] | None = None
    cpus_total: int | None = None
    gpus_total: int | None = None
    memory_limit_bytes: int | None = None
    time_limit_seconds: int | None = None
    state: State | None = None
    exit_code: int | None = None  # 0..255
    exit_signal: int | None = None
    submit_us: int | None = None
    start_us: int | None = None
    end_us: int | None = None
    retracted: tuple[str, ...] = ()  # fields of which what people said before is taken back


FIELDS = tuple(name for name in Claims.__struct_fields__ if name != "retracted")
_OF_FACTS = tuple(name for name in FIELDS if name in JobFacts.__struct_fields__)


def is_manual(job_id: str | None) -> bool:
    """Whether the job is kept by people alone."""
    return job_id is not None and job_id.startswith(MANUAL)


def is_manual_id(text: str) -> bool:
    """Whether `text` is an id that a manual job may have. None of Slurm's or of `jobtrail exec`'s is one."""
    return _MANUAL_ID.fullmatch(text) is not None


def made_id(event_id: str) -> str:
    """The id of a job whose maker gives none: the same for each repeat of the request, wherever it is sent.

    Of 53 bits, as JSON readers of all languages know exactly: of a million such jobs two have the same with a
    probability of one in 18,000.
    """
    number = int.from_bytes(hashlib.sha256(event_id.encode("utf-8", "surrogatepass")).digest()[:8]) % MAX_NUMBER
    return f"{MANUAL}{number}"


def said_fields(claims: Claims) -> tuple[str, ...]:
    """The fields of which something is said, or taken back."""
    return tuple(name for name in FIELDS if getattr(claims, name) is not None or name in claims.retracted)


def facts_of(claims: Claims) -> JobFacts:
    """What the claims say of the job itself."""
    return JobFacts(**{name: getattr(claims, name) for name in _OF_FACTS})

"""What people may do to jobs through the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Protocol

import msgspec

from jobtrail.core.ports import Receipt, SampleRow
from jobtrail.domain.claims import Claims
from jobtrail.domain.events import Actor
from jobtrail.domain.samples import Reading


class Author(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks. `uid` is the kernel's word; None for one who showed a token instead.

    Who is not trusted may only keep jobs of their own.
    """

    person: str  # in their own word
    sent_by: str  # as the daemon knows
    uid: int | None
    trusted: bool
    by: Actor
    source: str
    event_id: str
    request_id: str | None = None


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """A run as people name it; the newest where no run is named."""

    job_id: str
    run: int | None = None
    cluster: str | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken. `stored`: the database has it; else it will, as soon as it is reached."""

    receipt: Receipt
    job_id: str
    cluster: str
    run: int
    stored: bool


class PostedSample(msgspec.Struct, frozen=True, kw_only=True):
    """One sample that somebody sent, as `reading` says; `node` None is the job's first."""

    reading: Reading
    node: str | None = None
    cpu_percent: float | None = None


class JobKeeper(Protocol):
    """Takes people's word on jobs.

    Raises InvalidEvent, NotAllowed, JobConflict, NotFound, TooManyReports, EventConflict, SpoolFull, SpoolBroken,
    StoreUnavailable.
    """

    async def create(self, wanted: Which, claims: Claims, author: Author) -> Done:
        """Begin to keep a job by hand; an empty `job_id` has one made of the event's id."""
        ...

    async def amend(self, which: Which, claims: Claims, author: Author) -> Done:
        """Change what is said of a job."""
        ...

    async def withdraw(self, which: Which, author: Author) -> Done:
        """Take a manual job back; its trail stays."""
        ...

    async def add_samples(self, which: Which, samples: Sequence[PostedSample], author: Author) -> int:
        """Keep samples of a job; how many. They are of no event, so that the same twice is kept twice."""
        ...


class PostedSampleSink(Protocol):
    """Where samples are kept that somebody sent."""

    async def days(self) -> frozenset[date]:
        """The days (UTC) of which samples can be kept now. Raises StoreUnavailable."""
        ...

    async def write(self, rows: Sequence[SampleRow]) -> int:
        """Store `rows`; how many were taken. Raises StoreUnavailable, StoreRefused."""
        ...

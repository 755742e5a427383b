"""Competing reports of one fact, kept with the stamp that decides between them whatever their order of arrival."""

from __future__ import annotations

import msgspec

from jobtrail.domain.events import Closing
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import SlurmRecord

CLOCK_SKEW_US = 5_000_000  # between the clocks of a node and of the controller


class Stamp(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Orders competing reports of one fact, so that the winner does not depend on their order of arrival."""

    rank: int
    time_us: int
    event_id: str


class FactsRegister(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about the job with the stamp of the report they come from; the smallest stamp wins."""

    stamp: Stamp
    facts: JobFacts


class OutcomeRegister(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome with the stamp of the report it comes from; the smallest stamp wins."""

    stamp: Stamp
    outcome: Outcome
    confirmed: bool


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What one part of Slurm last said of the run; the largest stamp wins, and a final record before any other."""

    stamp: Stamp
    record: SlurmRecord


class ClosingRegister(msgspec.Struct, frozen=True, kw_only=True):
    """That the whole run is over by inference; the stamp's time is the latest end.

    Of several the smallest stamp wins that no evidence of life is later than.
    """

    stamp: Stamp
    closing: Closing


class NodeClosing(msgspec.Struct, frozen=True, order=True, array_like=True):
    """That a node's part of a run is over by inference: the end lies between `not_before_us` and `time_us`."""

    time_us: int
    not_before_us: int
    reason: str

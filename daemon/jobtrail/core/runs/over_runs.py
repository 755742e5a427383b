"""Runs that go on here and that the central store holds for over: Slurm or the comparison with it said so.

Neither tells the node. Where no cgroup can show it (ProctrackType and TaskPlugin in slurm.conf(5)), and the epilog was
lost, nothing else would ever end the run's sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from jobtrail.core.ports import OpenRun
from jobtrail.core.runs.sight import Sight
from jobtrail.domain.job import Job
from jobtrail.domain.records import SKEW_US
from jobtrail.domain.samples import Target


class Over(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run is over, and by when the node's part of it was."""

    reason: str
    latest_us: int
    detail: str


class OverRuns(Protocol):
    """What the store knows of the ends of runs that a node holds open."""

    async def over(self, targets: Sequence[Target]) -> Mapping[str, Over]:
        """Those of the node's `targets` that are over although the node told no end of its part, by ref.

        Raises StoreUnavailable, StoreRefused.
        """
        ...


def over_by(job: Job) -> Over | None:
    """That the run is over by Slurm's final word, or closed as a whole; None while it is neither."""
    final = job.final_word
    if final is not None:
        told_us = job.end_us if final.end_time is None else final.end_time * 1_000_000 + SKEW_US
        if told_us is None:
            return None
        return Over(reason="ended_in_slurm", latest_us=told_us, detail=f"Slurm says {final.state} ({final.origin})")
    if job.closing is None:
        return None
    closing = job.closing.closing
    return Over(reason=closing.reason, latest_us=job.closing.stamp.time_us, detail=closing.detail)


def may_be_over(run: OpenRun, sight: Sight | None, *, begun_before_us: int) -> bool:
    """Whether the store is worth asking about a run of Slurm: not one that is young, or whose processes were seen."""
    if run.started_us >= begun_before_us or sight is None:
        return False
    return not sight.is_alive

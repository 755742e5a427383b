"""Which samples a node may send: of jobs that run on it, as far as anything else is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jobtrail.core.link.protocol import JobKey, JobParts
from jobtrail.core.link.scope import Allowed

# A part that a node has in a job stays. All else may change with the next event, as when a job begins anew elsewhere.
PART_SECONDS = 600.0
FRESH_SECONDS = 10.0
MOST_KNOWN = 50_000  # parts of nodes in jobs; the oldest give way
OF_SLURM = "slurm-"  # of other jobs Slurm says nothing


class Sampled(NamedTuple):
    """What a sample says it is of. Time in µs since the Unix epoch; a GPU may have had no job, or several."""

    cluster: str | None
    job_id: str | None
    time_us: int


class _Known(NamedTuple):
    until: float  # by the monotonic clock
    refused_until_us: int | None


class SampleRights:
    """Finds samples that contradict what is known. The store is asked once a batch, of jobs not asked about lately."""

    def __init__(self, parts: JobParts, allowed: Allowed, *, now: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._allowed = allowed
        self._now = now
        self._known: dict[tuple[JobKey, str], _Known] = {}

    async def problems(self, samples: Sequence[Sampled], node: str) -> dict[int, str]:
        """Why `node` may not have sent some of `samples`, by their places. Raises StoreUnavailable."""
        found = {}
        for place, sampled in enumerate(samples):
            if (problem := self._allowed.problem_of_cluster(sampled.cluster)) is not None:
                found[place] = problem
        known: Mapping[JobKey, _Known] = {}
        if len(found) < len(samples):
            known = await self._learn({key for sampled in samples if (key := _key(sampled)) is not None}, node)
        for place, sampled in enumerate(samples):
            if place not in found and _is_of_others(sampled, known):
                found[place] = f"is of {(sampled.job_id or '')[:64]!r}, which Slurm says is on other nodes"
        return found

    async def _learn(self, jobs: set[JobKey], node: str) -> Mapping[JobKey, _Known]:
        """What is known of the node's part in all of `jobs`, also of those that are forgotten again at once."""
        now = self._now()
        known = {job: held for job in jobs if (held := self._known.get((job, node))) is not None and held.until >= now}
        asked = sorted(jobs - known.keys())
        if not asked:
            return known
        parts = await self._parts.parts(asked, node)
        for job in asked:
            part = parts.get(job)
            seconds = PART_SECONDS if part is not None and part.has_part else FRESH_SECONDS
            known[job] = _Known(now + seconds, None if part is None else part.refused_until_us)
            self._known.pop((job, node), None)
            self._known[job, node] = known[job]
        while len(self._known) > max(MOST_KNOWN, len(asked)):
            del self._known[next(iter(self._known))]
        return known


def _is_of_others(sampled: Sampled, known: Mapping[JobKey, _Known]) -> bool:
    key = _key(sampled)
    until_us = None if key is None or (held := known.get(key)) is None else held.refused_until_us
    return until_us is not None and sampled.time_us <= until_us


def _key(sampled: Sampled) -> JobKey | None:
    """The job of Slurm's that the sample is of, if any."""
    if sampled.cluster is None or sampled.job_id is None or not sampled.job_id.startswith(OF_SLURM):
        return None
    return sampled.cluster, sampled.job_id

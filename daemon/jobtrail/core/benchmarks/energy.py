"""Fetches what a benchmark's job used, and says what is still awaited of it."""

from __future__ import annotations

from collections.abc import Sequence

from jobtrail.core.benchmarks.ports import BenchmarkStore
from jobtrail.core.ports import Clock
from jobtrail.domain.benchmarks.efficiency import efficiency
from jobtrail.domain.benchmarks.linking import serving_links
from jobtrail.domain.benchmarks.settling import (
    CandidateRun,
    JobLink,
    Settlement,
    UnsettledRun,
    WindowEnergy,
    WindowUse,
)
from jobtrail.domain.benchmarks.window_energy import BENCH, JOB, Window, window_energies

# How long after a job's end its last samples may take into the store: nodes hand them over every few seconds.
GRACE_US = 60_000_000
NOT_LINKED = "the run is linked to no job that served"
# Whatever one of them used is not the energy of the tokens, and samples of several are not added up.
SEVERAL = "several jobs served, so that the energy of none of them is the run's"
AWAITS_SAMPLE = "energy after the end of the benchmark is awaited"
AWAITS_END = "the job still runs: its whole energy is not known yet"
AWAITS_LAST = "the last energy of the job is awaited"


class EnergyOfRuns:
    """Two windows of one job: the benchmark's own loads, with all that follows from them, and the job's whole run.

    A number is given once no sample can change it: when each node has been looked at after the window, or the job has
    been over for long enough that nothing more comes.
    """

    def __init__(self, store: BenchmarkStore, *, clock: Clock, interval_us: int, grace_us: int = GRACE_US) -> None:
        """`interval_us`: how far apart the nodes' looks lie."""
        self._store = store
        self._clock = clock
        self._interval_us = interval_us
        self._grace_us = grace_us

    async def of_run(self, run: UnsettledRun, links: Sequence[JobLink]) -> Settlement:
        """What is known by now, without the links. Raises StoreUnavailable."""
        serving = serving_links(links)
        if len(serving) > 1:
            named = ", ".join(link.claim.job_id for link in serving)
            return Settlement(energy_invalid_reason=f"{SEVERAL}: {named}")
        job = _job(run, serving)
        if job is None:
            return Settlement(energy_invalid_reason=NOT_LINKED)
        window = Window(name=BENCH, start_us=run.started_us, end_us=run.ended_us, spans=run.windows)
        use = await self._store.window_use(job, started_us=run.started_us, ended_us=run.ended_us)
        if not self._is_final(use, job):
            return Settlement(open_reason=AWAITS_SAMPLE)
        energies = window_energies(use, window, interval_us=self._interval_us, begun_us=job.start_us)
        told = efficiency(use, energies, window, status=run.status, output_tokens=run.output_tokens)
        whole, awaited = await self._of_job(job)
        return Settlement(
            energies=(*energies, *whole),
            measurements=told.values,
            energy_invalid_reason=told.reason,
            open_reason=awaited,
        )

    async def _of_job(self, job: CandidateRun) -> tuple[tuple[WindowEnergy, ...], str | None]:
        """Energy of the job's whole run, and what is awaited of it."""
        if job.start_us is None or job.end_us is None:
            return (), None if job.is_over else AWAITS_END
        window = Window(name=JOB, start_us=job.start_us, end_us=job.end_us)
        use = await self._store.window_use(job, started_us=window.start_us, ended_us=window.end_us)
        if not self._is_final(use, job):
            return (), AWAITS_LAST
        return window_energies(use, window, interval_us=self._interval_us, begun_us=job.start_us), None

    def _is_final(self, use: WindowUse, job: CandidateRun) -> bool:
        if use.complete or use.is_over:
            return True
        return job.is_over and job.end_us is not None and self._clock.time_us() >= job.end_us + self._grace_us


def _job(run: UnsettledRun, serving: Sequence[JobLink]) -> CandidateRun | None:
    if not serving:
        return None
    (link,) = serving
    wanted = (link.cluster, link.claim.job_id, link.run)
    return next(one for one in run.candidates if (one.cluster, one.job_id, one.run) == wanted)

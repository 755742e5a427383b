"""One look at all GPUs beside the runs of the same moment: into their books, onto the board, into the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jobtrail.core.facts import GpuMismatch, Observer
from jobtrail.core.gpu.books import EmissionSettings, Held, RunBooks
from jobtrail.core.gpu.ports import GpuSampleRow
from jobtrail.core.gpu.sources import NO_GPUS
from jobtrail.core.runs.board import Board, GpuDevice, JobGpus, NodeGpu
from jobtrail.domain.energy import GPU_MOST_WATTS, Limits
from jobtrail.domain.events import GpuUsage, NodeUsage
from jobtrail.domain.gpu_allocation import GpuAllocation
from jobtrail.domain.gpu_use import Attribution, AttributionMismatch, GpuUse, IdleTracker, JobGpuUse, attribute
from jobtrail.domain.gpus import GpuLook, GpuReading

MISSED_LOOKS = 3  # a time longer than that many intervals was not seen
ENERGY_GPU = "energy_gpu_microjoules"


class Scene:
    """What the last look at the GPUs showed."""

    def __init__(
        self,
        *,
        board: Board,
        add_row: Callable[[GpuSampleRow], None],
        tell: Observer,
        node: str,
        interval_seconds: float,
        idle_window_seconds: float,
        store_apart_seconds: float,
        emissions: EmissionSettings,
    ) -> None:
        self._board = board
        self._add_row = add_row
        self._tell = tell
        self._node = node
        self._emissions = emissions
        self._limits = Limits.of_interval(round(interval_seconds * 1e6), most_watts=GPU_MOST_WATTS)
        self._idle = IdleTracker(window_seconds=idle_window_seconds, max_gap_seconds=MISSED_LOOKS * interval_seconds)
        self._readings: dict[str, GpuReading] = {}
        self._attribution = Attribution(gpus={}, jobs={})
        self._steady_us = 0
        self._store_apart_us = round(store_apart_seconds * 1e6)
        self._stored_us: int | None = None
        self._mismatched: set[tuple[str, str]] = set()  # (ref, gpu_id) told of
        self._apart: Mapping[str, frozenset[str]] = {}  # ref -> runs of another time, at the last look

    def settle(
        self,
        steady_us: int,
        looks: Sequence[GpuLook],
        runs: Mapping[str, RunBooks],
        owners: Mapping[int, str],
    ) -> None:
        """Take one look in. `steady_us` is of a clock that is never set, with which idle time would stand still."""
        readings = [reading for look in looks for reading in look.readings]
        held = {ref: books.allocation or GpuAllocation() for ref, books in runs.items()}
        self._steady_us = steady_us
        self._readings = {reading.gpu.gpu_id: reading for reading in readings}
        self._attribution = attribute(readings, held, owners.get)
        self._idle.observe_all(steady_us, self._attribution)
        self._apart = _apart(runs)
        words = {look.problem for look in looks if look.problem is not None}
        if readings:
            words.discard(NO_GPUS)  # of one vendor, beside those of another
        problems = ", ".join(sorted(words))
        sharers = {ref: self._sharers(ref, runs) for ref in runs}  # before any book goes on
        for ref, books in runs.items():
            self._into_books(books, self._attribution.jobs[ref], problems, sharers[ref])
        for mismatch in self._attribution.mismatches:
            self._note(mismatch, runs)
        self._mismatched = {key for key in self._mismatched if key[0] in runs}
        self._into_store(readings, runs)

    def uses_beside(self, ref: str) -> Mapping[str, GpuUse]:
        """Who holds and who uses each GPU, without those that were over before a run began or began when it was over:
        the last look at a run that ended often finds the next one there already.
        """
        apart = self._apart.get(ref)
        uses = self._attribution.gpus
        return {gpu_id: use.without(apart) for gpu_id, use in uses.items()} if apart else uses

    def _sharers(self, ref: str, runs: Mapping[str, RunBooks]) -> dict[str, int]:
        """How many runs had each of the run's GPUs since the look before: one that is new has nothing of that time."""
        allocation = runs[ref].allocation
        uses = self.uses_beside(ref)
        found = {}
        for gpu_id in allocation.gpu_ids if allocation else ():
            if gpu_id in uses:
                parent = self._readings[gpu_id].gpu.parent_gpu_id
                found[gpu_id] = sum(runs[holder].has_begun(gpu_id, parent) for holder in uses[gpu_id].holders)
        return found

    def show(self, runs: Mapping[str, RunBooks]) -> None:
        """Put what is known now on the board."""
        holders = self._holders()
        self._board.gpus = tuple(
            NodeGpu(reading=reading, jobs=len(holders[gpu_id])) for gpu_id, reading in self._readings.items()
        )
        for ref, books in runs.items():
            use = self._attribution.jobs.get(ref, JobGpuUse(job=ref))
            self._board.update_gpus(ref, self._shown(ref, books, use))

    def _holders(self) -> dict[str, set[str]]:
        """The jobs that hold each GPU; a board is held by those that hold an instance of it."""
        holders = {gpu_id: set(self._attribution.gpus[gpu_id].holders) for gpu_id in self._readings}
        for gpu_id, reading in self._readings.items():
            if reading.gpu.parent_gpu_id in holders:
                holders[reading.gpu.parent_gpu_id] |= holders[gpu_id]
        return holders

    def _into_books(self, books: RunBooks, use: JobGpuUse, problems: str, sharers: Mapping[str, int]) -> None:
        for gpu_id in books.allocation.gpu_ids if books.allocation else ():
            reading = self._readings.get(gpu_id)
            if reading is None:
                continue
            held = Held(
                reading=reading,
                board=self._readings.get(reading.gpu.parent_gpu_id or ""),
                holders=sharers[gpu_id],
                active=True if gpu_id in use.active else False if gpu_id in use.idle else None,
            )
            books.gpu(gpu_id).look(held, self._limits, ended_us=books.ended_us)
            if ENERGY_GPU not in books.absent and "energy_microjoules" in reading.absent:
                books.absent[ENERGY_GPU] = reading.absent["energy_microjoules"]
        if use.allocated and problems:
            books.absent[ENERGY_GPU] = problems

    def _note(self, mismatch: AttributionMismatch, runs: Mapping[str, RunBooks]) -> None:
        """Keep the evidence with the run whose process it is, and with those that hold the GPU."""
        books, gpu_id = runs[mismatch.job], mismatch.gpu_id
        job_id = books.run.target.job_id
        own = books.allocation.gpu_ids if books.allocation else ()
        books.gpu(own[0] if own else gpu_id).note_mismatch(
            f"process {mismatch.pid} of {job_id} was on {gpu_id}, which the job does not hold"
        )
        for ref in mismatch.holders:
            runs[ref].gpu(gpu_id).note_mismatch(f"process {mismatch.pid} of {job_id} was on it")
        if (mismatch.job, gpu_id) not in self._mismatched:
            self._mismatched.add((mismatch.job, gpu_id))
            detail = f"process {mismatch.pid}"
            self._tell(GpuMismatch(job_id=job_id, gpu_id=gpu_id, kind=mismatch.kind, detail=detail))

    def _into_store(self, readings: Sequence[GpuReading], runs: Mapping[str, RunBooks]) -> None:
        """Rows of one GPU lie some time apart, for any user may ask for looks; errors are told by one look alone."""
        is_due = self._stored_us is None or self._steady_us - self._stored_us >= self._store_apart_us
        self._stored_us = self._steady_us if is_due else self._stored_us
        for reading in readings if is_due else [reading for reading in readings if reading.events]:
            holders = self._attribution.gpus[reading.gpu.gpu_id].holders
            if len(holders) > 1:
                holders = tuple(ref for ref in holders if runs[ref].ended_us is None)
            target = runs[holders[0]].run.target if len(holders) == 1 else None
            self._add_row(
                GpuSampleRow(
                    node=self._node,
                    reading=reading,
                    cluster=None if target is None else target.cluster,
                    job_id=None if target is None else target.job_id,
                    ref=None if target is None else target.ref,
                )
            )

    def _shown(self, ref: str, books: RunBooks, use: JobGpuUse) -> JobGpus:
        usage = books.usage(NodeUsage(), self._emissions)
        if not use.allocated:
            return JobGpus(usage=usage)
        by_id = {gpu.gpu_id: gpu for gpu in usage.gpus}
        devices = tuple(
            self._device(ref, self._readings[gpu_id], by_id)
            for gpu_id in (books.allocation.gpu_ids if books.allocation else ())
            if gpu_id in self._readings
        )
        percents = [one.reading.utilization_percent for one in devices]
        known = [percent for percent in percents if percent is not None]
        return JobGpus(
            usage=usage,
            devices=devices,
            active=None if use.unknown or use.unresolved else len(use.active),
            unresolved=use.unresolved,
            mismatches=sum(gpu.mismatch is not None for gpu in usage.gpus),
            usage_percent=sum(known) / len(known) if known else None,
        )

    def _device(self, ref: str, reading: GpuReading, usages: Mapping[str, GpuUsage]) -> GpuDevice:
        gpu_id = reading.gpu.gpu_id
        idle = self._idle.idle(self._steady_us, ref, gpu_id)
        return GpuDevice(
            reading=reading,
            usage=usages.get(gpu_id, GpuUsage(gpu_id=gpu_id)),
            idle_seconds=None if idle is None else idle.idle_seconds,
        )


def _apart(runs: Mapping[str, RunBooks]) -> dict[str, frozenset[str]]:
    """The runs that were never open at the same time as another, by its ref; only those that have any."""
    found: dict[str, set[str]] = {}
    for gone, ended_us in [(ref, books.ended_us) for ref, books in runs.items() if books.ended_us is not None]:
        for ref, books in runs.items():
            if ref != gone and books.run.started_us >= ended_us:
                found.setdefault(ref, set()).add(gone)
                found.setdefault(gone, set()).add(ref)
    return {ref: frozenset(others) for ref, others in found.items()}

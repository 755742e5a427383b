"""Which run holds which GPUs of this node, kept while the run is open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from jobtrail.core.gpu.books import RunBooks
from jobtrail.core.gpu.ports import GresReader
from jobtrail.domain.gpu_allocation import GpuAllocation, HookValues, ResolvedGpu, Via, allocate
from jobtrail.domain.gpus import Gpu, GpuLook, GpuReading
from jobtrail.domain.gres import GresConf

REREAD_SECONDS = 60.0  # Slurm's files are read again that often, while a run's GPUs are not all known
_NOTHING = HookValues()
_NOT_READ = GresConf(problem="Slurm's files are not read yet")

Place = tuple[str, str]  # a node's name, and where its slurm.conf is


class _Read(msgspec.Struct, frozen=True):
    """What Slurm's files said, and when they were read, in monotonic seconds."""

    conf: GresConf
    at: float


class Holders:
    """Finds a run's GPUs once, by what its hook said; those of a run nobody spoke of, by its processes.

    What was found stays: gres.conf may change, a running job's GPUs do not.
    """

    def __init__(self, gres: GresReader) -> None:
        self._gres = gres
        self._read_files: dict[Place, _Read] = {}
        self._known: dict[str, tuple[Gpu, ...]] = {}  # vendor -> its GPUs at the last look that saw any

    def note(self, looks: Iterable[GpuLook]) -> None:
        """Remember which GPUs there are."""
        for look in looks:
            if look.readings:
                self._known[look.vendor] = tuple(reading.gpu for reading in look.readings)

    def wanted(self, runs: Iterable[RunBooks], now: float) -> frozenset[Place]:
        """Whose files are to be read for these runs."""
        places = {_place(books) for books in runs if _is_to_be_found(books)}
        return frozenset(
            place
            for place in places
            if place not in self._read_files or now - self._read_files[place].at >= REREAD_SECONDS
        )

    def read(self, places: Iterable[Place]) -> dict[Place, GresConf]:
        """What Slurm's files say. Blocking."""
        return {place: self._gres(*place) for place in places}

    def settle(
        self,
        runs: Iterable[RunBooks],
        confs: Mapping[Place, GresConf],
        now: float,
        *,
        readings: Iterable[GpuReading] = (),
        owners: Mapping[int, str] | None = None,
    ) -> None:
        """Find the GPUs of the runs that lack them. `owners` has the run of each process on a GPU."""
        self._read_files |= {place: _Read(conf, now) for place, conf in confs.items()}
        gpus = [gpu for known in self._known.values() for gpu in known]
        for books in runs:
            hook = books.run.gpu_hook
            if hook is None:
                books.allocation = _by_processes(books, readings, owners or {})
            elif _is_to_be_found(books) or books.allocation is None:
                held = self._read_files.get(_place(books))
                books.allocation = allocate(hook, _NOT_READ if held is None else held.conf, gpus)
                for found in books.allocation.resolved:
                    gpu = next(gpu for gpu in gpus if gpu.gpu_id == found.gpu_id)
                    books.gpu(found.gpu_id).describe(gpu, found.via)


def names_gpus(books: RunBooks) -> bool:
    """Whether the run's hook said that it has any GPU."""
    return books.run.gpu_hook not in (None, _NOTHING)


def _is_to_be_found(books: RunBooks) -> bool:
    return names_gpus(books) and (books.allocation is None or not books.allocation.complete)


def _place(books: RunBooks) -> Place:
    return books.run.target.node, books.run.slurm_conf or ""


def _by_processes(books: RunBooks, readings: Iterable[GpuReading], owners: Mapping[int, str]) -> GpuAllocation:
    """The GPUs on which a process of the run was ever seen; of a partitioned board, its instances."""
    looked = list(readings)
    boards = {reading.gpu.parent_gpu_id for reading in looked}
    found = {} if books.allocation is None else {gpu.gpu_id: gpu for gpu in books.allocation.resolved}
    for reading in looked:
        gpu = reading.gpu
        if gpu.gpu_id in found or gpu.gpu_id in boards:
            continue
        pids = [process.pid for process in reading.processes or ()]
        pid = next((pid for pid in pids if owners.get(pid) == books.run.target.ref), None)
        if pid is not None:
            evidence = f"process {pid} of the run was on it"
            found[gpu.gpu_id] = ResolvedGpu(gpu_id=gpu.gpu_id, via=Via.PROCESSES, asked="", evidence=evidence)
            books.gpu(gpu.gpu_id).describe(gpu, Via.PROCESSES)
    return GpuAllocation(resolved=tuple(found.values()))

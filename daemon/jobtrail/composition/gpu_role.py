"""The part of the composition that reads GPUs and energy on this node."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from jobtrail.adapters.amdgpu import AmdGpuSource
from jobtrail.adapters.gres_conf import read_gres_conf
from jobtrail.adapters.nvml.source import NvmlGpus
from jobtrail.adapters.procfs import NodeProc, ProcessPlacesReader
from jobtrail.adapters.rapl import RaplEnergy
from jobtrail.config import Config
from jobtrail.core.energy.node import NodeEnergy
from jobtrail.core.facts import Observer
from jobtrail.core.gpu.books import EmissionSettings
from jobtrail.core.gpu.ports import EnergySampleRow, EnergySampleSink, GpuSampleRow, GpuSampleSink
from jobtrail.core.gpu.sources import NO_GPUS
from jobtrail.core.gpu.watch import GpuRhythm, GpuWatch
from jobtrail.core.ports import Clock, GpuSource
from jobtrail.core.runs.board import Board
from jobtrail.core.runs.sampler import Sampler
from jobtrail.core.sample_buffer import SampleBuffer
from jobtrail.core.waiting import Backoff
from jobtrail.domain.emissions import read_factor
from jobtrail.domain.gpus import GpuLook
from jobtrail.domain.gres import GresConf

AMD = "0x1002"  # the vendor's number on the PCI bus
MOST_ROWS = 5_000  # of GPUs, waiting for the store: 10 minutes of 8 GPUs at a second each


class GpuParts(msgspec.Struct, frozen=True, kw_only=True):
    """What reads GPUs and energy, and what its rows wait in."""

    watch: GpuWatch
    buffer: SampleBuffer[GpuSampleRow]
    energy_buffer: SampleBuffer[EnergySampleRow]


class WhereThere:
    """A GpuSource that is asked only where its driver is. Implements GpuSource."""

    def __init__(self, vendor: str, source: GpuSource, is_there: Callable[[], bool]) -> None:
        self._vendor = vendor
        self._source = source
        self._is_there = is_there

    async def look(self) -> GpuLook:
        """One look, or the word that there is nothing to look at."""
        if not self._is_there():
            return GpuLook(vendor=self._vendor, time_us=time.time_ns() // 1_000, problem=NO_GPUS)
        return await self._source.look()

    async def close(self) -> None:
        """Let the driver go."""
        await self._source.close()


class _GpuRows:
    """A row sink that writes to `gpu_samples`."""

    def __init__(self, sink: GpuSampleSink) -> None:
        self._sink = sink

    async def write(self, rows: Sequence[GpuSampleRow]) -> int:
        """Store `rows`; how many were taken. Raises StoreUnavailable."""
        return await self._sink.write_gpus(rows)


class _EnergyRows:
    """A row sink that writes to `energy_samples`."""

    def __init__(self, sink: EnergySampleSink) -> None:
        self._sink = sink

    async def write(self, rows: Sequence[EnergySampleRow]) -> int:
        """Store `rows`; how many were taken. Raises StoreUnavailable."""
        return await self._sink.write_energy(rows)


def make_gpu_parts(
    config: Config,
    *,
    sampler: Sampler,
    board: Board,
    sink: GpuSampleSink | None,
    energy_sink: EnergySampleSink | None,
    clock: Clock,
    tell: Observer,
) -> GpuParts | None:
    """The watch over GPUs and energy, None where neither is to be read; it accompanies the sampler."""
    sources = _sources(config)
    root, proc = Path(config.gpu.root), Path(config.sampling.proc_root)
    if "node" not in config.roles or not (sources or config.energy.rapl):
        return None
    seconds = config.gpu.interval_seconds
    energy = NodeEnergy(
        RaplEnergy(root / "sys", clock_us=clock.time_us),
        NodeProc(proc, clock_us=clock.time_us),
        interval_us=round(seconds * 1e6),
    )
    buffer = SampleBuffer(
        None if sink is None else _GpuRows(sink),
        clock=clock,
        tell=tell,
        backoff=Backoff(),
        max_rows=MOST_ROWS,
        series_of=lambda row: (row.reading.gpu.gpu_id, row.ref),
    )
    energy_buffer = SampleBuffer(
        None if energy_sink is None else _EnergyRows(energy_sink),
        clock=clock,
        tell=tell,
        backoff=Backoff(),
        series_of=lambda row: row.ref,
    )
    watch = GpuWatch(
        sources=sources,
        energy=energy if config.energy.rapl else None,
        places=ProcessPlacesReader(proc),
        gres=_gres_reader(config),
        counters=sampler,
        board=board,
        add_row=buffer.add,
        add_energy_row=energy_buffer.add,
        clock=clock,
        tell=tell,
        node=config.node_name,
        rhythm=GpuRhythm(interval_seconds=seconds, idle_window_seconds=config.gpu.idle_window_seconds),
        emissions=EmissionSettings(factor=read_factor(config.energy.emission_factor), pue=config.energy.pue),
    )
    sampler.accompany(watch)
    return GpuParts(watch=watch, buffer=buffer, energy_buffer=energy_buffer)


def _sources(config: Config) -> list[GpuSource]:
    root, asked, seconds = Path(config.gpu.root), config.gpu.vendors, config.gpu.deadline_seconds
    library = Path(config.gpu.library_directory) if config.gpu.library_directory else None
    nvidia = NvmlGpus(root=root, library_directory=library, deadline_seconds=seconds)
    amd = AmdGpuSource(root / "sys", deadline_seconds=seconds)
    if asked == "auto":
        return [
            WhereThere("nvidia", nvidia, functools.partial(nvidia_is_there, root)),
            WhereThere("amd", amd, functools.partial(amd_is_there, root)),
        ]
    named: dict[str, GpuSource] = {"nvidia": nvidia, "amd": amd}
    return [source for vendor, source in named.items() if asked != "none" and vendor in asked]


def nvidia_is_there(root: Path) -> bool:
    """Whether NVIDIA's driver is loaded: its control device (in a container that alone), or its entry in /proc."""
    return (root / "dev/nvidiactl").exists() or (root / "proc/driver/nvidia/version").exists()


def amd_is_there(root: Path) -> bool:
    """Whether a card of AMD's is among those of the kernel's graphics drivers."""
    directory = root / "sys/class/drm"
    try:
        cards = [path for path in directory.iterdir() if path.name.startswith("card") and "-" not in path.name]
    except OSError:
        return False
    return any(_vendor(card) == AMD for card in cards)


def _vendor(card: Path) -> str | None:
    try:
        return (card / "device/vendor").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _gres_reader(config: Config) -> Callable[[str, str], GresConf]:
    """Reads Slurm's files: those of the settings, else those beside the hook's SLURM_CONF, else in the usual places."""
    if not config.gpu.gres_conf:
        return lambda node, slurm_conf: read_gres_conf(node=node, slurm_conf=slurm_conf)
    named = str(Path(config.gpu.gres_conf).parent)
    return lambda node, _: read_gres_conf(node=node, directories=(named,))

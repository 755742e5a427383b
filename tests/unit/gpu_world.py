"""A watch over GPUs on a bench: GPUs that draw power, counters of a package, and a sampler with jobs that burn CPU."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from jobtrail.core.energy.node import NodeEnergy
from jobtrail.core.gpu.books import EmissionSettings
from jobtrail.core.gpu.ports import EnergySampleRow, GpuSampleRow, ProcessPlace
from jobtrail.core.gpu.watch import GpuRhythm, GpuWatch
from jobtrail.core.ports import GpuSource, OpenRun
from jobtrail.core.runs.board import JobGpus
from jobtrail.core.runs.sampler import Rhythm
from jobtrail.domain.energy import EnergyCounter, EnergyReading
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.gpu_allocation import HookValues
from jobtrail.domain.gpus import Gpu, GpuLook, GpuProcess, GpuReading
from jobtrail.domain.gres import GresConf, GresLine
from jobtrail.domain.samples import NodeReading
from tests.fakes import FakeClock
from tests.unit import moved_time
from tests.unit.runs import open_run
from tests.unit.sampling import Bench

CONF = GresConf(
    source="/etc/slurm/gres.conf", lines=(GresLine(where="1", gpus=(("/dev/nvidia1",), ("/dev/nvidia0",))),)
)
VALUES = frozenset(GpuReading.__struct_fields__) - {"gpu", "time_us", "events", "absent"}
PLACES = ("GPU-b", "GPU-a")  # what Slurm's places 0 and 1 are


def gpu(name: str, minor: int, **more: Any) -> Gpu:
    """GPU-<name>."""
    return Gpu(gpu_id=f"GPU-{name}", vendor="nvidia", minor=minor, index=minor, name="H100", **more)


class Gpus:
    """A GpuSource whose GPUs draw `watts`; what else they give is in `values`."""

    def __init__(self, clock: FakeClock, *gpus: Gpu) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self.gpus = {one.gpu_id: one for one in gpus}
        self.watts: dict[str, int] = dict.fromkeys(self.gpus, 100)
        self.values: dict[str, dict[str, Any]] = {
            one: {"utilization_percent": 0.0, "processes": ()} for one in self.gpus
        }
        self.problem: str | None = None
        self.slow_seconds = 0.0
        self.looks: list[float] = []
        self.closed = False

    def use(self, gpu_id: str, percent: float, *pids: int) -> None:
        """Processes on a GPU, and how busy it is."""
        self.values[gpu_id] |= {
            "utilization_percent": percent, "processes": tuple(GpuProcess(pid=pid) for pid in pids)
        }  # fmt: skip

    async def look(self) -> GpuLook:
        self.looks.append(self._clock.monotonic())
        await asyncio.sleep(self.slow_seconds)
        now_us = self._clock.time_us()
        if self.problem is not None:
            return GpuLook(vendor="nvidia", time_us=now_us, problem=self.problem, detail="a sentence")
        return GpuLook(vendor="nvidia", time_us=now_us, readings=tuple(map(self._reading, self.gpus)), seconds=0.01)

    def _reading(self, gpu_id: str) -> GpuReading:
        energy = round((self._clock.monotonic() - self._began) * 1e6) * self.watts[gpu_id]
        values = {"energy_microjoules": energy, **self.values[gpu_id]}
        lacking = {name: "not_supported" for name in VALUES if values.get(name) is None}
        absent = lacking | values.pop("absent", {})
        return GpuReading(gpu=self.gpus[gpu_id], time_us=self._clock.time_us(), absent=absent, **values)

    async def close(self) -> None:
        self.closed = True


class Packages:
    """An EnergySource of one package that draws 60 W, and its memory, which draws 6."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self.absent: dict[str, str] | None = None
        self.dram = True

    def read_energy(self) -> EnergyReading:
        if self.absent is not None:
            return EnergyReading(time_us=self._clock.time_us(), absent=self.absent)
        passed_us = round((self._clock.monotonic() - self._began) * 1e6)
        found = [EnergyCounter(component="package", name="package-0", microjoules=1 + passed_us * 60)]
        if self.dram:
            found.append(EnergyCounter(component="dram", name="package-0/dram", microjoules=1 + passed_us * 6))
        absent = {} if self.dram else {"dram": "no RAPL dram zone"}
        return EnergyReading(time_us=self._clock.time_us(), counters=tuple(found), absent=absent)


class BusyNode:
    """A NodeSource of a node that is busy with `cpus` CPUs."""

    def __init__(self, clock: FakeClock, cpus: float | None = 2) -> None:
        self._clock = clock
        self.cpus = cpus

    def read_node(self) -> NodeReading:
        busy = None if self.cpus is None else round(self._clock.monotonic() * 1e6 * self.cpus)
        return NodeReading(time_us=self._clock.time_us(), cpu_busy_us=busy)


class Places:
    """A ProcessPlaces: process n00 and those after it are of job n."""

    failing = False

    def places_of(self, pids: Iterable[int]) -> dict[int, ProcessPlace]:
        if self.failing:
            raise RuntimeError("broken")
        return {pid: ProcessPlace(cgroups=(f"/slurm/uid_1001/job_{pid // 100}",)) for pid in pids if pid >= 100}


class GpuBench(Bench):
    """A sampler and a watch that accompanies it. Job `7` is slurm-7; `gpus` are its places."""

    def __init__(
        self,
        *gpus: Gpu,
        energy: bool = False,
        emissions: EmissionSettings | None = None,
        rhythm: Rhythm | None = None,
        idle_window_seconds: float = 1800.0,
        files_seconds: float = 0.5,
        others: Sequence[GpuSource] = (),
    ) -> None:
        super().__init__(rhythm)
        self.gpus = Gpus(self.clock, *(gpus or (gpu("a", 0), gpu("b", 1))))
        self.packages, self.busy = Packages(self.clock), BusyNode(self.clock)
        self.places = Places()
        self.conf = CONF
        self.conf_reads: list[tuple[str, str]] = []
        self.conf_opens, self.conf_fails = threading.Event(), False
        self.conf_opens.set()
        self.gpu_rows: list[GpuSampleRow] = []
        self.energy_rows: list[EnergySampleRow] = []
        self.node_energy = NodeEnergy(self.packages, self.busy, interval_us=15_000_000) if energy else None
        self.watch = GpuWatch(
            sources=[self.gpus, *others],
            energy=self.node_energy,
            places=self.places,
            gres=self._read_conf,
            counters=self.sampler,
            board=self.board,
            add_row=self.gpu_rows.append,
            add_energy_row=self.energy_rows.append,
            clock=self.clock,
            tell=self.facts,
            node="n1",
            rhythm=GpuRhythm(
                interval_seconds=15.0, idle_window_seconds=idle_window_seconds, files_seconds=files_seconds
            ),
            emissions=emissions or EmissionSettings(),
        )
        self.sampler.accompany(self.watch)

    def _read_conf(self, node: str, slurm_conf: str) -> GresConf:
        self.conf_reads.append((node, slurm_conf))
        self.conf_opens.wait(timeout=30)
        if self.conf_fails:
            raise RuntimeError("broken")
        return self.conf

    def job(
        self, name: str, gpus: str | None = None, *, usage: NodeUsage | None = None, hook: bool = True, **more: Any
    ) -> OpenRun:
        """A job that begins now and burns one CPU."""
        run = open_run(name, started_us=self.clock.time_us(), usage=usage)
        run = msgspec.structs.replace(run, gpu_hook=HookValues(slurm_job_gpus=gpus) if hook else None, **more)
        self.source.start(name)
        self.sampler.opened(run)
        return run

    def over(self, name: str) -> None:
        """The job's processes are gone, and its end is told."""
        self.source.end(name)
        self.close(name)

    def shown(self, name: str) -> JobGpus:
        """What the board shows of the job."""
        shown = self.board.jobs[f"ref-{name}"].gpus
        assert shown is not None
        return shown

    def play(self, scene: Callable[[], Awaitable[None]]) -> None:
        """Play the scene while sampler and watch run; then stop both."""

        async def main() -> None:
            stop = asyncio.Event()
            tasks = [asyncio.create_task(self.sampler.run(stop)), asyncio.create_task(self.watch.run(stop))]
            await asyncio.sleep(0)
            await scene()
            stop.set()
            await asyncio.gather(*tasks)

        moved_time.run(self.clock, main())

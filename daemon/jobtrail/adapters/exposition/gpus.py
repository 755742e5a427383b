"""GPUs on the page: those of jobs, those of the node, and the energy of jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from jobtrail.adapters.exposition.text import Column, Family, Series, SeriesLines, Value, header
from jobtrail.core.runs.board import GpuDevice, JobEntry, JobGpus, NodeGpu
from jobtrail.domain.gpus import GpuReading

DEVICE_LABELS = ("job_id", "node", "gpu_vendor", "gpu_id")
NODE_GPU_LABELS = ("node", "gpu_vendor", "gpu_id")
JOB = ("job_id", "node")

Read = Callable[[GpuReading], Value]
Labels = Mapping[str, str | None]

# Name, meaning, what gives it: of each GPU of a job and of each GPU of the node.
_LEVELS: tuple[tuple[str, str, Read], ...] = (
    ("utilization_percent", "Time in which any kernel ran, before the last look.", lambda r: r.utilization_percent),
    ("memory_utilization_percent", "Time in which memory was read or written.", lambda r: r.memory_utilization_percent),
    ("memory_used_bytes", "Memory in use.", lambda r: r.memory_used_bytes),
    ("memory_total_bytes", "Memory of the GPU.", lambda r: r.gpu.memory_total_bytes),
    ("power_watts", "Power drawn.", lambda r: _thousandth(r.power_milliwatts)),
    ("temperature_celsius", "Temperature of the GPU.", lambda r: r.temperature_celsius),
    ("sm_active_percent", "Multiprocessors with work, mean of all and of the time since the look before.",
     lambda r: r.sm_active_percent),
    ("sm_occupancy_percent", "Warps resident, of the most there can be.", lambda r: r.sm_occupancy_percent),
    ("tensor_active_percent", "Time in which tensor cores worked.", lambda r: r.tensor_active_percent),
    ("fp64_active_percent", "Time in which FP64 units worked.", lambda r: r.fp64_active_percent),
    ("fp32_active_percent", "Time in which FP32 units worked.", lambda r: r.fp32_active_percent),
    ("fp16_active_percent", "Time in which FP16 units worked.", lambda r: r.fp16_active_percent),
    ("dram_active_percent", "Bandwidth of memory in use, of the most there can be.", lambda r: r.dram_active_percent),
)  # fmt: skip
# Of the GPUs of the node alone.
_NODE_LEVELS: tuple[tuple[str, str, Read], ...] = (
    ("power_limit_watts", "Power the GPU may draw.", lambda r: _thousandth(r.power_limit_milliwatts)),
    ("memory_temperature_celsius", "Temperature of the memory.", lambda r: r.memory_temperature_celsius),
    ("sm_clock_hertz", "Clock of the multiprocessors.", lambda r: r.sm_clock_hertz),
    ("memory_clock_hertz", "Clock of the memory.", lambda r: r.memory_clock_hertz),
    ("throttled", "1 while something holds the clocks down, also for want of work; 0 while they run freely.",
     lambda r: None if r.throttle_reasons is None else int(bool(r.throttle_reasons))),
    ("thermally_throttled", "1 while heat holds the clocks down, else 0.", lambda r: _is_hot(r.throttle_reasons)),
    ("pcie_receive_bytes_per_second", "Received over PCIe.", lambda r: r.pcie_receive_bytes_per_second),
    ("pcie_transmit_bytes_per_second", "Sent over PCIe.", lambda r: r.pcie_transmit_bytes_per_second),
    ("remapped_rows_pending", "1 while rows of memory wait for a reset to be remapped.",
     lambda r: None if r.remapped_rows_pending is None else int(r.remapped_rows_pending)),
)  # fmt: skip
_NODE_COUNTERS: tuple[tuple[str, str, Read], ...] = (
    ("energy_joules_total", "Energy used since the driver was loaded.",
     lambda r: _millionth(r.energy_microjoules)),
    ("nvlink_receive_bytes_total", "Received over NVLink.", lambda r: r.nvlink_receive_bytes),
    ("nvlink_transmit_bytes_total", "Sent over NVLink.", lambda r: r.nvlink_transmit_bytes),
    ("ecc_corrected_total", "Errors of memory that were corrected.", lambda r: r.ecc_corrected),
    ("ecc_uncorrected_total", "Errors of memory that could not be corrected.", lambda r: r.ecc_uncorrected),
    ("remapped_rows_corrected_total", "Rows of memory remapped for errors that could be corrected.",
     lambda r: r.remapped_rows_corrected),
    ("remapped_rows_uncorrected_total", "Rows of memory remapped for errors that could not be corrected.",
     lambda r: r.remapped_rows_uncorrected),
)  # fmt: skip

JOB_GPU_FAMILIES: tuple[Family, ...] = (
    Family("hpc_job_gpu_usage_percent", "gauge", "Mean utilisation of the job's GPUs at the last look.",
           ("job_id", "user", "node"), (Series("percent"),)),
    Family("hpc_job_gpus_active", "gauge", "GPUs of the job on which it has a process.", JOB, (Series("active"),)),
    Family("hpc_job_gpus_unresolved", "gauge", "GPUs allocated to the job that are not found on this node.", JOB,
           (Series("unresolved"),)),
    Family("hpc_job_gpu_mismatches", "gauge", "GPUs on which the job and another got in each other's way.", JOB,
           (Series("mismatches"),)),
    Family("hpc_job_energy_joules_total", "counter", "Energy of the job's parts of the hardware.", JOB,
           tuple(
               Series(f"energy_{part}", (("component", part),), microseconds=True) for part in ("gpu", "cpu", "dram"))),
    Family("hpc_job_emissions_grams_total", "counter", "CO2 equivalents of the job's energy.", JOB,
           (Series("emissions", microseconds=True),)),
)  # fmt: skip
DEVICE_FAMILIES: tuple[Family, ...] = (
    *(Family(f"hpc_job_gpu_device_{name}", "gauge", text, DEVICE_LABELS, (Series(name),)) for name, text, _ in _LEVELS),
    Family("hpc_job_gpu_device_energy_joules_total", "counter", "Energy the job used on the GPU.", DEVICE_LABELS,
           (Series("energy", microseconds=True),)),
    Family("hpc_job_gpu_idle_seconds", "gauge", "Time in the sliding window in which the job left the GPU idle.",
           DEVICE_LABELS, (Series("idle"),)),
)  # fmt: skip
NODE_GPU_FAMILIES: tuple[Family, ...] = (
    Family("hpc_node_gpu_usage_percent", "gauge", "Mean utilisation of the node's GPUs at the last look.", ("node",),
           (Series("node_percent"),)),
    Family("hpc_node_gpu_info", "gauge", "What the GPU is: always 1, the labels tell.",
           (*NODE_GPU_LABELS, "name", "minor", "pci_bus_id", "parent_gpu_id", "driver_version"), (Series("one"),)),
    Family("hpc_node_gpu_jobs", "gauge", "Jobs that hold the GPU, or an instance of it.", NODE_GPU_LABELS,
           (Series("jobs"),)),
    *(Family(f"hpc_node_gpu_{name}", "gauge", text, NODE_GPU_LABELS, (Series(name),))
      for name, text, _ in (*_LEVELS, *_NODE_LEVELS)),
    *(Family(f"hpc_node_gpu_{name}", "counter", text, NODE_GPU_LABELS, (Series(name),))
      for name, text, _ in _NODE_COUNTERS),
)  # fmt: skip
GPU_FAMILIES = (*JOB_GPU_FAMILIES, *DEVICE_FAMILIES, *NODE_GPU_FAMILIES)


class _Table:
    """Families with the same things in them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = [(header(family), [SeriesLines(family, s) for s in family.series]) for family in families]
        self._keys: Sequence[object] | None = None

    def render(
        self, keys: Sequence[object], labels: Callable[[], Sequence[Labels]], columns: Mapping[str, Column]
    ) -> Iterable[bytes]:
        """The pieces of the text of each family that has a series. `labels` are made anew when `keys` change."""
        if not keys:
            return
        if keys != self._keys:
            self._keys, things = keys, labels()
            for _, series in self._families:
                for one in series:
                    one.relabel(things)
        for head, series in self._families:
            lines = [one.render(columns) for one in series]
            if any(lines):
                yield head
                yield from lines
                yield b"\n"


class GpuTable:
    """The families of GPUs and energy."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._jobs = _Table(JOB_GPU_FAMILIES)
        self._devices = _Table(DEVICE_FAMILIES)
        self._one_node = _Table(NODE_GPU_FAMILIES[:1])
        self._gpus = _Table(NODE_GPU_FAMILIES[1:])

    def render(self, jobs: Mapping[str, JobEntry], gpus: Sequence[NodeGpu]) -> Iterable[bytes]:
        """The pieces of the text. Of a job that runs again while its last run is in grace, the newer is shown."""
        known = {
            ref: (entry, held) for ref, entry in jobs.items() if (held := entry.gpus) is not None and held.is_known
        }
        refs = {(entry.run.target.job_id, entry.run.target.node): ref for ref, (entry, _) in known.items()}
        shown = known if len(refs) == len(known) else {ref: known[ref] for ref in refs.values()}
        yield from self._jobs.render(
            list(shown),
            lambda: [_of_job(entry) for entry, _ in shown.values()],
            _of_jobs([g for _, g in shown.values()]),
        )
        devices = [(ref, device) for ref, (_, gpus_of) in shown.items() for device in gpus_of.devices]
        yield from self._devices.render(
            [(ref, device.reading.gpu) for ref, device in devices],
            lambda: [{**_of_job(shown[ref][0]), **_of_gpu(device.reading)} for ref, device in devices],
            _of_devices([device for _, device in devices]),
        )
        if gpus:
            boards = [gpu.reading.utilization_percent for gpu in gpus if gpu.reading.gpu.parent_gpu_id is None]
            told = [percent for percent in boards if percent is not None]
            mean: Value = sum(told) / len(told) if told else None
            yield from self._one_node.render([""], lambda: [{"node": self._node}], {"node_percent": [mean]})
        yield from self._gpus.render(
            [gpu.reading.gpu for gpu in gpus],
            lambda: [{"node": self._node, **_of_gpu(gpu.reading)} for gpu in gpus],
            _of_gpus(gpus),
        )


def _of_job(entry: JobEntry) -> dict[str, str | None]:
    target = entry.run.target
    return {"job_id": target.job_id, "user": entry.run.user_name, "node": target.node}


def _of_gpu(reading: GpuReading) -> dict[str, str | None]:
    gpu = reading.gpu
    return {
        "gpu_vendor": gpu.vendor,
        "gpu_id": gpu.gpu_id,
        "name": gpu.name,
        "minor": None if gpu.minor is None else str(gpu.minor),
        "pci_bus_id": gpu.pci_bus_id,
        "parent_gpu_id": gpu.parent_gpu_id,
        "driver_version": gpu.driver_version,
    }


def _of_jobs(jobs: Sequence[JobGpus]) -> dict[str, Column]:
    return {
        "percent": [job.usage_percent for job in jobs],
        "active": [job.active for job in jobs],
        "unresolved": [job.unresolved for job in jobs],
        "mismatches": [job.mismatches for job in jobs],
        "energy_gpu": [job.usage.energy_gpu_microjoules for job in jobs],
        "energy_cpu": [job.usage.energy_cpu_microjoules for job in jobs],
        "energy_dram": [job.usage.energy_dram_microjoules for job in jobs],
        "emissions": [job.usage.emissions_micrograms for job in jobs],
    }


def _of_devices(devices: Sequence[GpuDevice]) -> dict[str, Column]:
    columns: dict[str, Column] = {name: [read(one.reading) for one in devices] for name, _, read in _LEVELS}
    columns["energy"] = [one.usage.energy_microjoules for one in devices]
    columns["idle"] = [one.idle_seconds for one in devices]
    return columns


def _of_gpus(gpus: Sequence[NodeGpu]) -> dict[str, Column]:
    levels = (*_LEVELS, *_NODE_LEVELS, *_NODE_COUNTERS)
    columns: dict[str, Column] = {name: [read(gpu.reading) for gpu in gpus] for name, _, read in levels}
    return {**columns, "one": [1] * len(gpus), "jobs": [gpu.jobs for gpu in gpus]}


def _is_hot(reasons: tuple[str, ...] | None) -> Value:
    return None if reasons is None else int(any("thermal" in reason for reason in reasons))


def _thousandth(value: int | None) -> Value:
    return None if value is None else value / 1_000


def _millionth(value: int | None) -> Value:
    return None if value is None else value / 1_000_000

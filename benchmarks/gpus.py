"""What reading 8 GPUs costs, on the tests' driver library, beside a bare loop over the same calls in one process.

The library does nothing but look its answers up, so this is the cost of the reader alone; `scripts/check_gpu` gives
that of a real driver.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fake_nvml import FakeDriver, library

from benchmarks.figures import Figure, at_most
from jobtrail.adapters.nvml.source import NvmlGpus

GPUS = 8
ROUNDS = 7
LOOKS = 10
PAUSE_SECONDS = 0.11  # as in REFERENCE; less than a tenth of a second gives no profiling set
EVERY_SECONDS = 1.0
STEADY_SECONDS = 20
TARGET_SHARE = 1.0  # percent of a core at one look a second
TARGET_MB = 20.0

# The calls one look makes, by pynvml alone: no second process, no marks, no readings, nothing kept.
REFERENCE = """
import sys, time
import pynvml as n

FIELDS = [(n, 0) for n in (185, 190, 83, 82, 5, 6, 142, 143, 144)] + [(139, 0xFFFFFFFF), (138, 0xFFFFFFFF)]
METRICS = (2, 3, 5, 11, 12, 13, 10, 21, 20)
n.nvmlInit()
handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
events = n.nvmlEventSetCreate()
samples = {i: [n.nvmlGpmSampleAlloc(), n.nvmlGpmSampleAlloc()] for i in range(len(handles))}
question = n.c_nvmlGpmMetricsGet_t()
question.version = 1
for i, handle in enumerate(handles):
    n.nvmlGpmSampleGet(handle, samples[i][0])

def look():
    n.nvmlDeviceGetCount()
    try:
        n.nvmlEventSetWait_v2(events, 0)
    except n.NVMLError_Timeout:
        pass
    for i, handle in enumerate(handles):
        n.nvmlDeviceGetMigMode(handle)
        n.nvmlDeviceGetFieldValues(handle, FIELDS)
        n.nvmlDeviceGetUtilizationRates(handle)
        n.nvmlDeviceGetMemoryInfo(handle, n.nvmlMemory_v2)
        n.nvmlDeviceGetTemperature(handle, 0)
        n.nvmlDeviceGetClockInfo(handle, 1)
        n.nvmlDeviceGetClockInfo(handle, 2)
        n.nvmlDeviceGetCurrentClocksEventReasons(handle)
        n.nvmlDeviceGetComputeRunningProcesses_v3(handle)
        n.nvmlDeviceGetMPSComputeRunningProcesses_v3(handle)
        n.nvmlGpmSampleGet(handle, samples[i][1])
        question.numMetrics = len(METRICS)
        question.sample1, question.sample2 = samples[i]
        for metric, number in zip(question.metrics, METRICS):
            metric.metricId = number
        n.nvmlGpmMetricsGet(question)
        samples[i].reverse()

for line in sys.stdin:
    for _ in range(int(line)):
        look()
        time.sleep(0.11)
    print("done", flush=True)
"""


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a process with one thread, in ns (Documentation/scheduler/sched-stats.rst of the kernel)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Reference:
    """The bare loop, running and asked for a round at a time."""

    def __init__(self, driver: FakeDriver) -> None:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(driver.directory)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", REFERENCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def round(self) -> float:
        """CPU µs of one look."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = _cpu_seconds(self._process.pid)
        self._process.stdin.write(f"{LOOKS}\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise RuntimeError("the reference ended")
        return (_cpu_seconds(self._process.pid) - before) * 1e6 / LOOKS

    def close(self) -> None:
        """Let it end."""
        self._process.communicate("")


async def _cpu_us(gpus: NvmlGpus, looks: int, every_seconds: float) -> tuple[float, float]:
    """CPU µs of one look in the reader, and in the daemon that asks for it."""
    assert gpus.child_pid is not None
    reader, own = _cpu_seconds(gpus.child_pid), _own()
    for _ in range(looks):
        look = await gpus.look()
        if look.problem is not None or len(look.readings) != GPUS:
            raise RuntimeError(f"a look gave {len(look.readings)} GPUs: {look.problem} {look.detail}")
        await asyncio.sleep(every_seconds)
    return (_cpu_seconds(gpus.child_pid) - reader) * 1e6 / looks, (_own() - own) * 1e6 / looks


async def _measure(driver: FakeDriver) -> list[Figure]:
    gpus = NvmlGpus(root=driver.root, library_directory=driver.directory)
    reference = Reference(driver)
    bare, readers, daemons = [], [], []
    try:
        await gpus.look()
        for turn in range(ROUNDS + 1):
            figures = (reference.round(), *await _cpu_us(gpus, LOOKS, PAUSE_SECONDS))
            if turn:  # the first warms up
                for series, figure in zip((bare, readers, daemons), figures, strict=True):
                    series.append(figure)
        began = time.monotonic()
        reader, daemon = await _cpu_us(gpus, STEADY_SECONDS, EVERY_SECONDS)
        share = (reader + daemon) * STEADY_SECONDS / 1e4 / (time.monotonic() - began)
        status = Path(f"/proc/{gpus.child_pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024 / 1e6
    finally:
        reference.close()
        await gpus.close()
    floor = statistics.median(bare) / GPUS
    bare_loop = "the same calls in a bare loop of pynvml"
    return [
        Figure(
            what=f"a look at {GPUS} GPUs, CPU of the reader per GPU",
            value=statistics.median(readers) / GPUS,
            unit="µs",
            reference=bare_loop,
            reference_value=floor,
        ),
        Figure(
            what=f"a look at {GPUS} GPUs, CPU of reader and daemon per GPU",
            value=(statistics.median(readers) + statistics.median(daemons)) / GPUS,
            unit="µs",
            reference=bare_loop,
            reference_value=floor,
        ),
        Figure(
            what=f"{GPUS} GPUs looked at every second, CPU of reader and daemon",
            value=share,
            unit="% of a core",
            target=f"< {TARGET_SHARE:g} %",
            met=at_most(TARGET_SHARE, share),
        ),
        Figure(
            what=f"reader of {GPUS} GPUs, resident memory",
            value=resident,
            unit="MB",
            target=f"≤ {TARGET_MB:g} MB",
            met=at_most(TARGET_MB, resident),
        ),
    ]


def measure() -> list[Figure]:
    """CPU of a look in the reader and in the daemon, interleaved with the reference; one a second; and memory."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        sys.exit("benchmarks.gpus: the driver library is built by a C compiler: install gcc")
    with tempfile.TemporaryDirectory(prefix="jobtrail-gpus-") as directory:
        return asyncio.run(_measure(FakeDriver(Path(directory), library(compiler), gpus=GPUS)))

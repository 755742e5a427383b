"""A driver that does as it is told: a libnvidia-ml.so.1 made with gcc, and the script it reads at every call.

The library is loaded by the real nvidia-ml-py in the real child. Its script is a file of lines `key value` beside it,
replaced as a whole, and read again whenever it has changed:

    driver_version T, count N, generation N     the node; with another generation the driver was reloaded
    gpu.N.uuid, .name, .minor, .bus_id, .temperature, .clock.1, .field.<number>.<scope>, .gpm.<metric>, .processes …
    gpu.N.mig 1, gpu.N.mig.M.uuid …             partitioned, and what its instance M has
    gpu.N.lost 1                                it fell off the bus
    xid.S N CODE GI CI                          the event number S, told once
    error.<function>[.<gpu>] CODE               fails; hang.… SECONDS hangs; abort.… 1 crashes
    timestamp µs                                when fields were counted, if not now
    chatter BYTES                               what is printed at every call that is about no GPU
    log 1                                       every call is written to the file `calls`

A number may be `base@rate`: it grows by `rate` a second. What the script leaves out is "not supported".
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pynvml

ALL_LINKS = 0xFFFFFFFF
WHOLE = 0xFFFFFFFF
_SOURCES = Path(__file__).parent


@functools.cache
def library(compiler: str, *, old: bool = False) -> Path:
    """The built library: `old` is one of before 2021, without the functions that came later."""
    target = Path(tempfile.mkdtemp(prefix="fake-nvml-")) / "libnvidia-ml.so.1"
    sources = [str(_SOURCES / name) for name in ("nvml.c", "script.c")]
    flags = [
        "-shared",
        "-fPIC",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fvisibility=hidden",
        "-Wl,-soname,libnvidia-ml.so.1",
    ]
    command = [compiler, *flags, *(["-DOLD_DRIVER"] if old else []), "-o", str(target), *sources, "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


def field(number: int, scope: int = 0) -> str:
    """The name of a field's value in the script."""
    return f"field.{number}.{scope}"


def board(index: int) -> dict[str, object]:
    """A GPU as a Hopper is, with values of which no two are alike."""
    step = index * 1000
    return {
        "uuid": f"GPU-{index:08x}-0000-0000-0000-000000000000",
        "name": "NVIDIA H100 80GB HBM3",
        "minor": index,
        "bus_id": f"00000000:{index + 16:02X}:00.0",
        "memory_total": 85_520_809_984,
        "memory_used": 1_048_576 * (index + 1),
        "memory_reserved": 7_000_000,
        "utilization": 10 + index % 80,
        "memory_utilization": 5 + index % 80,
        "temperature": 30 + index % 50,
        "clock.1": 1980 - index,
        "clock.2": 2619 - index,
        "throttle": 0,
        "event_types": 0x0B,
        "processes": "",
        "mps": "",
        "mig": 0,
        "gpm": 1,
        field(pynvml.NVML_FI_DEV_POWER_AVERAGE): 100_000 + step,
        field(pynvml.NVML_FI_DEV_POWER_CURRENT_LIMIT): 700_000 + step,
        field(pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION): 5_000_000_000 + step,
        field(pynvml.NVML_FI_DEV_MEMORY_TEMP): 40 + index % 50,
        field(pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, ALL_LINKS): 1_000_000 + step,
        field(pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, ALL_LINKS): 2_000_000 + step,
        field(pynvml.NVML_FI_DEV_ECC_SBE_AGG_TOTAL): 3 + step,
        field(pynvml.NVML_FI_DEV_ECC_DBE_AGG_TOTAL): 1 + step,
        field(pynvml.NVML_FI_DEV_REMAPPED_COR): 4 + step,
        field(pynvml.NVML_FI_DEV_REMAPPED_UNC): 2 + step,
        field(pynvml.NVML_FI_DEV_REMAPPED_PENDING): index % 2,
        **metrics(index),
    }


def metrics(index: int) -> dict[str, object]:
    """The profiling set of a GPU or instance."""
    return {
        f"gpm.{pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL}": 90.5 - index / 8,
        f"gpm.{pynvml.NVML_GPM_METRIC_SM_UTIL}": 81.25 - index / 8,
        f"gpm.{pynvml.NVML_GPM_METRIC_SM_OCCUPANCY}": 42.5 - index / 8,
        f"gpm.{pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL}": 63.75 - index / 8,
        f"gpm.{pynvml.NVML_GPM_METRIC_FP64_UTIL}": 0.0,
        f"gpm.{pynvml.NVML_GPM_METRIC_FP32_UTIL}": 12.5,
        f"gpm.{pynvml.NVML_GPM_METRIC_FP16_UTIL}": 6.25,
        f"gpm.{pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL}": 33.5,
        f"gpm.{pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC}": 1.5,
        f"gpm.{pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC}": 2.25,
    }


class FakeDriver:
    """A node with the fake driver: `root` has its device file, `directory` its library and script."""

    def __init__(self, directory: Path, built: Path, *, gpus: int = 1) -> None:
        self.root = directory / "root"
        self.directory = directory / "lib"
        self._script: dict[str, object] = {"driver_version": "575.57.08"}
        self._calls_read = 0  # bytes of the log of calls
        (self.root / "dev").mkdir(parents=True)
        (self.root / "dev/nvidiactl").touch()
        self.directory.mkdir()
        shutil.copy(built, self.directory / "libnvidia-ml.so.1")
        self.set(count=gpus)
        for index in range(gpus):
            self.gpu(index, **board(index))

    def set(self, **values: object) -> None:
        """Change the script; a key's dots are given as two underscores, None takes a key out."""
        self.put({name.replace("__", "."): value for name, value in values.items()})

    def put(self, values: dict[str, object]) -> None:
        """Change the script by its own keys; None takes a key out."""
        self._script.update(values)
        self._script = {key: value for key, value in self._script.items() if value is not None}
        new = self.directory / "script.new"
        new.write_text("".join(f"{key} {value}\n" for key, value in self._script.items()), encoding="utf-8")
        os.replace(new, self.directory / "script")

    def gpu(self, index: int, **values: object) -> None:
        """Change values of a GPU."""
        self.put({f"gpu.{index}.{name}": value for name, value in values.items()})

    def instance(self, index: int, number: int, **values: object) -> None:
        """Change values of an instance of a GPU."""
        self.put({f"gpu.{index}.mig.{number}.{name}": value for name, value in values.items()})

    def without(self, beginning: str) -> None:
        """Take all keys that begin so out of the script."""
        self.put({key: None for key in self._script if key.startswith(beginning)})

    def calls(self) -> list[tuple[str, int]]:
        """The calls made since `log` was set or they were last asked for, each with the GPU it was about, or -1.

        The file stays, and only whole lines are taken: the driver makes it before it writes to it, so that whoever
        removed what they have read would now and then remove a call that they have not.
        """
        try:
            new = (self.directory / "calls").read_bytes()[self._calls_read :]
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._calls_read += len(whole)
        return [(name, int(gpu)) for name, gpu in (line.split() for line in whole.decode("ascii").splitlines())]

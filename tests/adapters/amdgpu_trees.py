"""A /sys of AMD cards, laid out as the kernel's: classes link to devices, attributes are small files."""

import os
import struct
from pathlib import Path

from jobtrail.domain.gpus import GpuReading

EDGE_CARD = {
    "gpu_busy_percent": "37\n",
    "mem_busy_percent": "12\n",
    "mem_info_vram_used": "1073741824\n",
    "mem_info_vram_total": "68702699520\n",
    "product_name": "AMD INSTINCT MI250 (MCM) OAM AC MBA\n",
    "unique_id": "9246d3b5c11d2f21\n",
    "pp_dpm_sclk": "0: 500Mhz\n1: 1700Mhz *\n",
    "pp_dpm_mclk": "0: 400Mhz\n1: 1600Mhz *\n",
    "ras/umc_err_count": "ue: 1\nce: 20\nde: 4\n",
    "ras/gfx_err_count": "ue: 2\nce: 3\n",
    "ras/features": "feature mask: 0x1\n",
    "power/runtime_status": "active\n",
}
EDGE_SENSORS = {
    "name": "amdgpu\n",
    "power1_average": "251000000\n",
    "power1_input": "260000000\n",
    "power1_cap": "500000000\n",
    "temp1_input": "45000\n",
    "temp1_label": "edge\n",
    "temp2_input": "52500\n",
    "temp2_label": "junction\n",
    "temp3_input": "61000\n",
    "temp3_label": "mem\n",
    "freq1_input": "1685000000\n",
    "freq1_label": "sclk\n",
    "freq2_input": "1600000000\n",
    "freq2_label": "mclk\n",
}


class Sys:
    """A tree that a test changes while a source reads it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.drm = root / "class" / "drm"
        self.drm.mkdir(parents=True)
        self.kfd = root / "class" / "kfd" / "kfd"

    def put(
        self,
        number: int,
        bus_id: str,
        *,
        minor: int | None = None,
        files: dict[str, str] | None = None,
        sensors: dict[str, str] | None = None,
        vendor: str = "0x1002",
        driver: str = "amdgpu",
    ) -> Path:
        """A card; returns its device's directory."""
        device = self.root / "devices" / "pci0000:00" / bus_id
        (device / "drm" / f"card{number}").mkdir(parents=True)
        (device / "drm" / f"renderD{128 + number if minor is None else minor}").mkdir()
        write(device, {"vendor": f"{vendor}\n", "device": "0x740f\n"})
        write(device, {"uevent": f"DRIVER={driver}\nPCI_CLASS=38000\nPCI_SLOT_NAME={bus_id}\nMODALIAS=x\n"})
        write(device, EDGE_CARD if files is None else files)
        write(device / "hwmon" / f"hwmon{number + 3}", EDGE_SENSORS if sensors is None else sensors)
        card = self.drm / f"card{number}"
        card.mkdir()
        (card / "device").symlink_to(device)
        (self.drm / f"card{number}-DP-1").mkdir()
        return device

    def put_process(self, pid: int, **bytes_by_gpu_id: int) -> None:
        """A process of the compute driver, with what it holds of each card: `gpu_7=…` for gpu_id 7."""
        home = self.kfd / "proc" / str(pid)
        write(home, {"pasid": "32768\n"})
        for gpu_id, used in bytes_by_gpu_id.items():
            write(home, {f"vram_{gpu_id.removeprefix('gpu_')}": f"{used}\n"})

    def put_nodes(self, **minors: int) -> None:
        """The compute driver's topology: a processor, and cards by gpu_id."""
        nodes = self.kfd / "topology" / "nodes"
        write(nodes / "0", {"gpu_id": "0\n", "properties": "cpu_cores_count 64\ndrm_render_minor 0\n"})
        for at, (gpu_id, minor) in enumerate(minors.items(), start=1):
            content = f"cpu_cores_count 0\ndrm_render_minor {minor}\nunique_id 1\n"
            write(nodes / str(at), {"gpu_id": f"{gpu_id.removeprefix('gpu_')}\n", "properties": content})


def write(directory: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)


def gpu_metrics(version: tuple[int, int], size: int, offset: int, steps: int) -> bytes:
    """A table as the driver makes it: all ones, then its head and what is known."""
    table = bytearray(b"\xff" * size)
    struct.pack_into("<HBB", table, 0, size, *version)
    struct.pack_into("<Q", table, offset, steps)
    return bytes(table)


def make_hang(path: Path) -> None:
    """A file whose open does not return, until `release`: a FIFO that nobody writes to."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def release(path: Path) -> None:
    """Let a reader that hangs at `path` go on with an empty file."""
    os.close(os.open(path, os.O_WRONLY))


def values(reading: GpuReading) -> dict[str, object]:
    """The values there are, by name."""
    names = set(reading.__struct_fields__) - {"gpu", "time_us", "absent", "events"}
    return {name: value for name in sorted(names) if (value := getattr(reading, name)) is not None}

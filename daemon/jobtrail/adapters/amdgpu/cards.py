"""Which AMD cards a node has: /sys/class/drm/card<N> bound to amdgpu, and what does not change about each.

Connectors (`card0-DP-1`) are not cards. The partitions of an MI300 in a mode other than SPX have card nodes of their
own that belong to no PCI device; the whole board is read by the card that does.
"""

from __future__ import annotations

import re

import msgspec

from jobtrail.adapters.amdgpu.files import count, names, read, text
from jobtrail.domain.gpus import Gpu

VENDOR = "amd"
_PCI_VENDOR = "0x1002"
_CARD = re.compile(r"card(\d+)", re.ASCII)
_RENDER = re.compile(r"renderD(\d+)", re.ASCII)
_BUS_ID = re.compile(r"[0-9a-fA-F]{4,}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]", re.ASCII)


class Card(msgspec.Struct, frozen=True):
    """A card: what it is, its device directory in sysfs, and that of its sensors, where it has one."""

    gpu: Gpu
    device: str
    hwmon: str | None


def find_cards(sys: str) -> list[Card]:
    """The node's AMD cards in the driver's order. None of these files asks the hardware anything."""
    drm = f"{sys}/class/drm"
    numbers = sorted(int(match[1]) for name in names(drm) if (match := _CARD.fullmatch(name)))
    found: list[Card] = []
    for number in numbers:
        card = _card(sys, f"{drm}/card{number}/device", len(found))
        if card is not None:
            found.append(card)
    return found


def _card(sys: str, device: str, index: int) -> Card | None:
    if text(f"{device}/vendor") != _PCI_VENDOR:
        return None
    uevent = _uevent(device)
    bus_id = uevent.get("PCI_SLOT_NAME", "")
    if uevent.get("DRIVER") != "amdgpu" or not _BUS_ID.fullmatch(bus_id):
        return None
    gpu = Gpu(
        gpu_id=bus_id.lower(),
        vendor=VENDOR,
        minor=_render_minor(device),
        index=index,
        pci_bus_id=bus_id.lower(),
        name=text(f"{device}/product_name") or _name_by_ids(device),
        memory_total_bytes=_memory_total(device),
        driver_version=text(f"{sys}/module/amdgpu/version"),
    )
    return Card(gpu, device, _hwmon(device))


def _uevent(device: str) -> dict[str, str]:
    lines = (text(f"{device}/uevent") or "").splitlines()
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def _render_minor(device: str) -> int | None:
    minors = [int(match[1]) for name in names(f"{device}/drm") if (match := _RENDER.fullmatch(name))]
    return minors[0] if len(minors) == 1 else None


def _name_by_ids(device: str) -> str | None:
    """Only server cards tell a product name; else the PCI id, which https://pci-ids.ucw.cz/ translates."""
    pci_id = text(f"{device}/device")
    return f"AMD {_PCI_VENDOR}:{pci_id}" if pci_id else None


def _memory_total(device: str) -> int | None:
    try:
        return count(read(f"{device}/mem_info_vram_total"))
    except OSError:
        return None


def _hwmon(device: str) -> str | None:
    """The directory of the card's own sensors: its name is amdgpu, whatever its number."""
    for name in names(f"{device}/hwmon"):
        if text(f"{device}/hwmon/{name}/name") == "amdgpu":
            return f"{device}/hwmon/{name}"
    return None

"""Processes that compute on AMD cards, by the compute driver's own list: /sys/class/kfd/kfd.

`proc/<pid>/vram_<gpu_id>` is what a process holds of a card's memory (drivers/gpu/drm/amd/amdkfd/kfd_process.c makes it
for every card that the process may use, with 0 for those it does not).
`topology/nodes/<n>/gpu_id` and `properties` tell which card has which gpu_id. Process ids are
those of the host. Programs that use a card for graphics alone are not in the list.
"""

from __future__ import annotations

from jobtrail.adapters.amdgpu.files import NO_SUCH_FILE, count, names, read, text
from jobtrail.domain.gpus import GpuProcess

ByMinor = dict[int, tuple[GpuProcess, ...]]

_VRAM = "vram_"


def read_processes(sys: str) -> ByMinor | str:
    """The processes of each card, by the minor of its render node; or the reason why that is not told."""
    kfd = f"{sys}/class/kfd/kfd"
    minors = _minors(f"{kfd}/topology/nodes")
    if not minors:
        return f"{kfd}: {NO_SUCH_FILE}"
    found: dict[int, list[GpuProcess]] = {minor: [] for minor in minors.values()}
    for pid in names(f"{kfd}/proc"):
        if not (pid.isascii() and pid.isdecimal()):
            continue
        for name in names(f"{kfd}/proc/{pid}"):
            minor = minors.get(name.removeprefix(_VRAM)) if name.startswith(_VRAM) else None
            used = _used(f"{kfd}/proc/{pid}/{name}") if minor is not None else None
            if minor is not None and used:
                found[minor].append(GpuProcess(pid=int(pid), memory_used_bytes=used))
    return {minor: tuple(sorted(processes, key=lambda one: one.pid)) for minor, processes in found.items()}


def _used(path: str) -> int | None:
    try:
        return count(read(path))
    except OSError:
        return None  # the process has ended meanwhile


def _minors(nodes: str) -> dict[str, int]:
    """gpu_id -> minor of the render node. Nodes that are processors have the gpu_id 0."""
    minors: dict[str, int] = {}
    for node in names(nodes):
        gpu_id = text(f"{nodes}/{node}/gpu_id")
        lines = (text(f"{nodes}/{node}/properties") or "").splitlines()
        properties = {key: value for key, _, value in (line.partition(" ") for line in lines)}
        minor = count(properties.get("drm_render_minor", "").encode())
        if gpu_id and gpu_id != "0" and minor:
            minors[gpu_id] = minor
    return minors

"""The device files that give access to instances of partitioned GPUs, as the driver numbers them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from jobtrail.domain.gpus import Gpu, GpuReading

MIG_MINORS = "proc/driver/nvidia-caps/mig-minors"
# `gpu0/gi1/access 12` is of a GPU instance, `gpu0/gi1/ci0/access 13` of a compute instance in it; gpu<minor>.
_LINE = re.compile(r"gpu([0-9]{1,4})/gi([0-9]{1,4})(?:/ci([0-9]{1,4}))?/access ([0-9]{1,9})", re.ASCII)

Instance = tuple[int, int, int | None]  # minor of the board, GPU instance, compute instance


class Capabilities:
    """Adds to instances the minor numbers of /dev/nvidia-caps/nvidia-cap<minor>, through which a job is let in.

    Slurm's gres.conf may name instances by these files alone (MultipleFiles). The list is fixed for a release of the
    driver, and read again when there are other instances than before.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / MIG_MINORS
        self._of: frozenset[str] = frozenset()
        self._minors: dict[Instance, int] = {}

    def complete(self, readings: Iterable[GpuReading]) -> tuple[GpuReading, ...]:
        """`readings`, those of instances with the minor numbers of their capabilities."""
        given = tuple(readings)
        instances = frozenset(one.gpu.gpu_id for one in given if one.gpu.parent_gpu_id is not None)
        if instances != self._of:
            self._of, self._minors = instances, _read(self._path) if instances else {}
        if not self._minors:
            return given
        return tuple(msgspec.structs.replace(one, gpu=self._named(one.gpu)) for one in given)

    def _named(self, gpu: Gpu) -> Gpu:
        if None in (gpu.minor, gpu.gpu_instance, gpu.compute_instance):
            return gpu
        outer = (gpu.minor or 0, gpu.gpu_instance or 0)
        minors = (self._minors.get((*outer, None)), self._minors.get((*outer, gpu.compute_instance)))
        if None in minors:
            return gpu
        return msgspec.structs.replace(gpu, capability_minors=tuple(minor for minor in minors if minor is not None))


def _read(path: Path) -> dict[Instance, int]:
    """The list; empty where it cannot be read, as in a container."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    found = filter(None, (_LINE.fullmatch(line) for line in text.splitlines()))
    return {(int(one[1]), int(one[2]), None if one[3] is None else int(one[3])): int(one[4]) for one in found}

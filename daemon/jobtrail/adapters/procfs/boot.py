"""The node's present life, from /proc."""

from __future__ import annotations

import uuid
from pathlib import Path

from jobtrail.adapters.procfs.fields import line


def read_boot_id(root: Path = Path("/proc")) -> str | None:
    """The kernel's id of its present life (random(4), boot_id); None where it cannot be read."""
    try:
        return str(uuid.UUID((root / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()))
    except (OSError, ValueError):
        return None


def read_boot_time_us(root: Path = Path("/proc")) -> int | None:
    """When the node booted, µs since the Unix epoch (btime of proc_stat(5)); None where it cannot be read.

    The kernel counts back from now, so when the clock is set, this moves with it.
    """
    try:
        data = (root / "stat").read_bytes()
    except OSError:
        return None
    seconds = line(b"\n" + data, b"\nbtime ")
    return None if seconds is None else seconds * 1_000_000

"""File systems to break: ext4 in a file for power cuts and full disks, tmpfs of a few mebibytes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.requirements import require_root, require_tool, unmet

MIB = 1024 * 1024


class LoopDisk:
    """An ext4 file system in a file, mounted.

    `cut` takes what a power cut would leave of it: the file below, which holds what was flushed and what the kernel
    happened to write, and not what is only in the page cache above. `commit=60` keeps the journal from flushing what
    nobody asked to flush.
    """

    def __init__(self, directory: Path, size_mib: int = 192) -> None:
        require_root("mount file systems to cut their power")
        for tool in ("mkfs.ext4", "mount", "umount"):
            require_tool(tool, "what a power cut leaves")
        self._directory = directory
        self._cuts = 0
        self.image = directory / "disk.img"
        self.mounted = directory / "disk"
        self.mounted.mkdir()
        with self.image.open("wb") as file:
            file.truncate(size_mib * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)
        mount(["-o", "loop,commit=60", str(self.image)], self.mounted, "power cuts")

    def cut(self) -> Path:
        """The file below, as it is now; whoever writes must have been stopped."""
        self._cuts += 1
        copied = self._directory / f"cut-{self._cuts}.img"
        subprocess.run(["cp", "--sparse=always", str(self.image), str(copied)], check=True)
        return copied

    def reboot_with(self, image: Path) -> None:
        """Go on with `image` in the place of the disk; ext4 replays its journal."""
        unmount(self.mounted)
        self.image.unlink()
        self.image = image
        mount(["-o", "loop,commit=60", str(image)], self.mounted, "power cuts")

    def close(self) -> None:
        """Unmount it."""
        unmount(self.mounted)


@contextmanager
def small_file_system(directory: Path, kind: str, size_mib: int) -> Iterator[Path]:
    """A mounted `tmpfs` or `ext4` of so many mebibytes."""
    if kind == "ext4":
        disk = LoopDisk(directory, size_mib)
        try:
            yield disk.mounted
        finally:
            disk.close()
        return
    require_root("mount a small file system")
    place = directory / "disk"
    place.mkdir()
    mount(["-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs"], place, "full file systems")
    try:
        yield place
    finally:
        unmount(place)


def mount(arguments: list[str], place: Path, what: str) -> None:
    """Mount, or leave the test where this machine cannot."""
    done = subprocess.run(["mount", *arguments, str(place)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        unmet(f"nothing can be mounted here ({done.stderr.strip()}): {what} cannot be tried")


def unmount(place: Path) -> None:
    """Unmount what is mounted there."""
    if os.path.ismount(place):
        subprocess.run(["umount", str(place)], check=True)

"""A cgroup of one's own for a local job, where the user may make one.

cgroup v1: a directory under each of the controllers that count (cpuacct, cpu, memory, pids, blkio), at
`<controller>/jobtrail/<name>`. cgroup v2: `jobtrail/<name>` below the root (as root) or below the caller's own cgroup
where it was delegated (cgroups(7), "Delegation").
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

V1_CONTROLLERS = ("cpuacct", "cpu", "memory", "pids", "blkio")
V1_NEEDED = frozenset({"cpuacct", "memory"})
PARENT = "jobtrail"


class OwnCgroup(msgspec.Struct, frozen=True, kw_only=True):
    """Directories made for one job; `path` is what the daemon is told."""

    path: str
    directories: tuple[Path, ...]

    def enter(self) -> None:
        """Move the calling process into the cgroup. Raises OSError. Safe between fork and exec."""
        for directory in self.directories:
            descriptor = os.open(directory / "cgroup.procs", os.O_WRONLY)
            try:
                os.write(descriptor, b"0")
            finally:
                os.close(descriptor)

    def remove(self) -> bool:
        """Remove the directories; False when processes the job left behind keep one of them busy."""
        free = True
        for directory in self.directories:
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                free = False
        return free


class NoCgroup(msgspec.Struct, frozen=True):
    """Why no cgroup could be made."""

    reason: str


def make(root: Path, name: str) -> OwnCgroup | NoCgroup:
    """A new cgroup called `name`, or the reason why there is none."""
    try:
        return _make_v2(root, name) if (root / "cgroup.controllers").exists() else _make_v1(root, name)
    except PermissionError:
        return NoCgroup("this user may not make one")
    except OSError as error:
        return NoCgroup(f"{error.filename or root}: {error.strerror}")


def _make_v1(root: Path, name: str) -> OwnCgroup | NoCgroup:
    present = {controller: root / controller for controller in V1_CONTROLLERS if (root / controller).is_dir()}
    if missing := sorted(V1_NEEDED - present.keys()):
        return NoCgroup(f"{root} has no controller {' and no '.join(missing)}")
    made: list[Path] = []
    try:
        # One directory per hierarchy: co-mounted controllers (cpu,cpuacct) are links to the same place.
        for directory in {path.resolve(): None for path in present.values()}:
            own = directory / PARENT / name
            own.mkdir(parents=True)
            made.append(own)
    except OSError:
        for own in made:
            own.rmdir()
        raise
    return OwnCgroup(path=f"/{PARENT}/{name}", directories=tuple(made))


def _make_v2(root: Path, name: str) -> OwnCgroup | NoCgroup:
    parent = root / PARENT
    if not os.access(root, os.W_OK):
        parent = _own_v2(root) / PARENT
        if not os.access(parent.parent, os.W_OK):
            return NoCgroup(f"{parent.parent} is not delegated to this user")
    parent.mkdir(exist_ok=True)
    for directory in (parent.parent, parent):
        _enable_controllers(directory)
    own = parent / name
    own.mkdir()
    return OwnCgroup(path=f"/{own.relative_to(root)}", directories=(own,))


def _own_v2(root: Path) -> Path:
    line = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()[-1]
    return root / line.split(":", 2)[2].lstrip("/")


def _enable_controllers(directory: Path) -> None:
    """Pass on what can be passed on; a controller that cannot leaves its values absent, which is no failure."""
    available = (directory / "cgroup.controllers").read_text(encoding="ascii").split()
    for controller in ("cpu", "memory", "io", "pids"):
        if controller in available:
            with suppress(OSError):
                (directory / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")

"""The spool's directory: whose it is, who holds it, what it lies on, and the space kept in reserve in it."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from jobtrail.domain.errors import ConfigError, SpoolBroken

# A flush on these is no proof: the bytes are in memory (tmpfs, ramfs, the upper layer of a diskless node's overlay) or
# with a server whose own promise we cannot see.
VOLATILE_TYPES = frozenset(
    {
        "tmpfs",
        "ramfs",
        "rootfs",
        "overlay",
        "aufs",
        "nfs",
        "nfs4",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "cifs",
        "smb3",
        "9p",
        "virtiofs",
        "wekafs",
        "panfs",
        "pvfs2",
        "orangefs",
        "afs",
        "smbfs",
    }
)
MOUNTINFO = Path("/proc/self/mountinfo")
MIB = 1024 * 1024


class Durability(msgspec.Struct, frozen=True):
    """What an acknowledgement may claim, `disk` or `volatile`, and why."""

    level: str
    note: str


def durability_of(directory: Path, mountinfo: Path = MOUNTINFO) -> Durability:
    """Judge by the type of the file system that `directory` lies on.

    The type comes from mountinfo (proc(5)) because os.statvfs has no f_type. Of several mounts on one directory the
    last one listed is the one in sight.
    """
    real = os.path.realpath(directory)
    best, kind = "", None
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        return Durability("volatile", f"the type of the file system is unknown: {mountinfo}: {error.strerror}")
    for line in lines:
        left, _, right = line.partition(" - ")
        mount_point = _unescape(left.split(" ")[4])
        if len(mount_point) >= len(best) and _lies_in(real, mount_point):
            best, kind = mount_point, right.split(" ")[0]
    if kind is None:
        return Durability("volatile", f"{mountinfo} lists no file system for {real}")
    if kind in VOLATILE_TYPES or kind.startswith("fuse"):
        return Durability("volatile", f"{real} is on {kind} (mounted at {best}), where a flush is no proof")
    return Durability("disk", f"{real} is on {kind} (mounted at {best})")


def _unescape(text: str) -> str:
    """Undo the octal escapes of blank, tab, newline and backslash (proc(5), mountinfo)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _lies_in(path: str, mount_point: str) -> bool:
    return path == mount_point or path.startswith(mount_point.rstrip("/") + "/")


class SpoolDirectory:
    """A directory that belongs to this process alone, from `claim` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "spool.db"
        self.used_before = False
        self._lock: int | None = None
        self._seen: dict[Path, tuple[int, int]] = {}

    def claim(self) -> None:
        """Create it where missing, check that nobody else can reach into it, and lock it. Raises ConfigError."""
        try:
            self._create()
            self._check()
            self._take_lock()
        except OSError as error:
            raise ConfigError(str(self.path), f"cannot be used as the spool directory: {error.strerror}") from error

    def _create(self) -> None:
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o700, parents=True)
            sync_directory(self.path.parent)

    def _check(self) -> None:
        status = self.path.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise ConfigError(str(self.path), "is a symbolic link; the spool must be a real directory")
        if not stat.S_ISDIR(status.st_mode):
            raise ConfigError(str(self.path), "is not a directory")
        if status.st_uid != os.geteuid():
            raise ConfigError(
                str(self.path), f"belongs to uid {status.st_uid}; it must belong to the daemon's uid {os.geteuid()}"
            )
        if status.st_mode & 0o022:
            mode = stat.S_IMODE(status.st_mode)
            raise ConfigError(str(self.path), f"has mode {mode:04o}, so others can write into it; use 0700")
        if self.database.is_symlink():
            raise ConfigError(str(self.database), "is a symbolic link; it must be a regular file")

    def _take_lock(self) -> None:
        path = self.path / "lock"
        self.used_before = path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConfigError(
                str(self.path), f"is in use by the process with pid {holder}; each daemon needs a spool of its own"
            ) from error
        with suppress(OSError):  # a full disk must not keep the daemon from starting: the pid is for people
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def release(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_in_place(self) -> None:
        """Raise SpoolBroken when the open database is no longer the one that a restart would find here.

        SQLite goes on writing to a file that was deleted or replaced, and its flushes go on succeeding.
        """
        for path in (self.database, self.path / "spool.db-wal"):
            try:
                status = path.stat()
            except OSError as error:
                raise SpoolBroken(f"{path} has gone while the daemon uses it: {error.strerror}") from error
            now = (status.st_dev, status.st_ino)
            if self._seen.setdefault(path, now) != now:
                raise SpoolBroken(f"{path} was replaced while the daemon uses it")

    def count_set_aside(self, word: str) -> int:
        """Files of earlier chains that are kept here under `word`: `ended` or `corrupt`, without their logs."""
        return sum(not path.name.endswith(("-wal", ".replacement")) for path in self.path.glob(f"spool.db.{word}-*"))

    def is_low(self, wanted_bytes: int = MIB) -> bool:
        """Whether the file system has less than `wanted_bytes` left."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize < wanted_bytes


class Ballast:
    """Space set aside for the day the file system is full: in WAL mode even a DELETE must first write."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self.size_bytes = max(MIB, min(16 * MIB, limit_bytes // 16))
        self.held = False

    def restore(self) -> bool:
        """Set the space aside unless it is already; whether it is."""
        if not self.held:
            self.held = self._allocate()
        return self.held

    def _allocate(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self.size_bytes)
        except OSError:  # ENOSPC, EDQUOT: what little was got must not be kept
            self._path.unlink()
            return False
        finally:
            os.close(descriptor)
        return True

    def release(self) -> None:
        """Give the space to SQLite."""
        self._path.unlink(missing_ok=True)
        self.held = False


def sync_directory(path: Path) -> None:
    """Make renames and new names in `path` survive a power cut (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Takes up the reports of benchmarks that people left as files while the daemon did not answer.

Anybody may put a file there and nobody but root may list the directory (mode 1733, sticky; chmod(2)). So what lies
there is opened without following links and without waiting (O_NOFOLLOW, O_NONBLOCK; open(2)), taken only where it is a
plain file with one name, and speaks for the user who owns it. What is no report is removed, with a reason that is told:
whoever made it has their own copy, and left there it would be looked at for ever.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from jobtrail.core.benchmarks.ports import BenchmarkIntake, Reporter
from jobtrail.core.facts import ChoreFailed, DroppedReportRefused, DroppedReportTaken, Observer
from jobtrail.domain.benchmarks.submitted import MAX_REPORT_BYTES
from jobtrail.domain.errors import ConfigError, EventConflict, InvalidEvent, SpoolFull, TooManyReports
from jobtrail.domain.events import Actor

SETTING = "benchmarks.drop_directory"
MODE = 0o1733
RESCAN_SECONDS = 30.0
SOON_SECONDS = 1.0  # between two looks, and where something was left for later
UNFINISHED_SECONDS = 10.0  # a file without a report in it may still be written while it is younger
ABANDONED_SECONDS = 3600.0
EACH_USER = 20  # files of one user in one look
OVERFLOW_UID = 65534  # user_namespaces(7): stands for any user who is unknown here

_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json")

Reason = Literal[
    "no_report", "conflict", "not_regular", "linked", "too_large", "name", "unreadable", "owner", "abandoned"
]


class Arrivals(Protocol):
    """Set when something was put into a directory; `works` is false where nothing will ever set it."""

    works: bool

    def clear(self) -> None: ...

    async def wait(self) -> object: ...


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the directory."""

    name: str
    uid: int
    inode: int
    mode: int
    links: int
    size_bytes: int
    age_seconds: float


class _No(Exception):
    """Why an entry is no report."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class BenchmarkDrop:
    """The directory. `watch` gives what tells of new files in it; they are looked for twice a minute all the same."""

    def __init__(
        self,
        directory: Path,
        *,
        intake: BenchmarkIntake,
        tell: Observer,
        watch: Callable[[Path], AbstractContextManager[Arrivals]],
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._intake = intake
        self._tell = tell
        self._watch = watch
        self._now_seconds = now_seconds
        self._left: set[int] = set()  # inodes of directories that are not empty: told once and left alone

    async def run(self, stop: asyncio.Event) -> None:
        """Take up files as they appear, until `stop`. Raises ConfigError, SpoolBroken."""
        await asyncio.to_thread(self.prepare)
        with self._watch(self._directory) as arrived:
            while not stop.is_set():
                arrived.clear()
                began = time.monotonic()
                again_seconds = await self._take_or_tell()
                # However many files there are and however often one is added, looking takes a twentieth of the time.
                await _first_of(stop, timeout_seconds=max(SOON_SECONDS, 20 * (time.monotonic() - began)))
                if not stop.is_set() and again_seconds > SOON_SECONDS:
                    await _first_of(stop, arrived, timeout_seconds=again_seconds)

    def prepare(self) -> None:
        """Make the directory if its parent is there. Blocking. Raises ConfigError when it cannot be used."""
        try:
            if not os.path.lexists(self._directory):
                self._directory.mkdir(mode=0o700)
                self._directory.chmod(MODE)  # mkdir(2) leaves the sticky bit and the umask's bits out
            with self._opened():
                pass
        except OSError as error:
            raise ConfigError(SETTING, f"{self._directory} cannot be used: {error.strerror}") from error

    async def _take_or_tell(self) -> float:
        """Take up what lies there; in how many seconds to look again."""
        try:
            left = await self.take_all()
        except SpoolFull as full:
            return float(full.retry_after_seconds)
        except (OSError, ConfigError) as error:  # gone, or the disk is read-only: what lies there stays there
            self._tell(ChoreFailed(reason=f"{self._directory} cannot be worked through: {error}"))
            return RESCAN_SECONDS
        return SOON_SECONDS if left else RESCAN_SECONDS

    async def take_all(self) -> bool:
        """Take up what lies there now, oldest first; whether something was left for soon.

        Raises ConfigError, SpoolFull, SpoolBroken, OSError.
        """
        await asyncio.to_thread(self.prepare)
        found, more = await asyncio.to_thread(self._look)
        busy: set[int] = set()  # users who have had their share
        for entry in found:
            if entry.uid not in busy and not await self._take_one(entry):
                busy.add(entry.uid)
                more = True
        return more

    async def _take_one(self, entry: Found) -> bool:
        """Take up one file, or remove it; whether its user may have more taken now."""
        reporter = Reporter(uid=entry.uid, trusted=entry.uid in (0, os.geteuid()))
        try:
            _check(entry)
            self._intake.admit(reporter)
            body = await asyncio.to_thread(self._read, entry)
            if body is None:
                return True
            try:
                receipt = await self._intake.take(body, reporter, by=Actor.CLI)
            except InvalidEvent as error:
                if entry.age_seconds < UNFINISHED_SECONDS:
                    return False
                raise _No("no_report", str(error)) from error
            except EventConflict as error:
                raise _No("conflict", str(error)) from error
        except TooManyReports:
            return False
        except _No as no:
            await asyncio.to_thread(self._remove, entry)
            self._tell(DroppedReportRefused(name=entry.name[:64], uid=entry.uid, reason=no.reason, detail=no.detail))
            return True
        await asyncio.to_thread(self._remove, entry)
        self._tell(DroppedReportTaken(name=entry.name, uid=entry.uid, event_id=receipt.event_id))
        return True

    def _look(self) -> tuple[list[Found], bool]:
        """Some files of each user, oldest first, and whether there are more. Of those being written only old ones."""
        oldest: dict[int, list[tuple[float, str, Found]]] = {}
        more, left = False, set()
        now = self._now_seconds()
        with self._opened() as directory, os.scandir(directory) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # its user has just renamed it
                    continue
                found = _found(entry.name, status, now)
                if found.inode in self._left and stat.S_ISDIR(found.mode):
                    left.add(found.inode)
                    continue
                if entry.name.startswith(".") and found.age_seconds < ABANDONED_SECONDS:
                    continue
                theirs = oldest.setdefault(found.uid, [])
                item = (found.age_seconds, found.name, found)
                if len(theirs) < EACH_USER:
                    heapq.heappush(theirs, item)
                else:
                    heapq.heappushpop(theirs, item)
                    more = True
        self._left = left
        taken = sorted((item for theirs in oldest.values() for item in theirs), reverse=True)
        return [found for _, _, found in taken], more

    def _read(self, entry: Found) -> bytes | None:
        """The content of a plain file; None where it is gone or cannot be read just now. Raises _No."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        with self._opened() as directory:
            try:
                descriptor = os.open(entry.name, flags, dir_fd=directory)
            except PermissionError as error:
                raise _No("unreadable", "the daemon may not read it; it must be readable for others") from error
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, a socket: put there since
                    raise _No("not_regular", "is not a regular file") from error
                return None
        try:
            _check(_found(entry.name, os.fstat(descriptor), self._now_seconds()), owner=entry.uid)
            content = b""
            while len(content) <= MAX_REPORT_BYTES and (part := os.read(descriptor, MAX_REPORT_BYTES + 1)):
                content += part
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if len(content) > MAX_REPORT_BYTES:
            raise _No("too_large", f"is longer than {MAX_REPORT_BYTES} bytes")
        return content

    def _remove(self, entry: Found) -> None:
        """Remove what was looked at, not what its user may have put in its place meanwhile."""
        with self._opened() as directory:
            try:
                if os.stat(entry.name, dir_fd=directory, follow_symlinks=False).st_ino != entry.inode:
                    return
                if stat.S_ISDIR(entry.mode):
                    os.rmdir(entry.name, dir_fd=directory)
                else:
                    os.unlink(entry.name, dir_fd=directory)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                self._left.add(entry.inode)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The directory, if it is the one that is meant. Raises ConfigError, OSError."""
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if status.st_uid not in (0, os.geteuid()):
                raise ConfigError(SETTING, f"{self._directory} must belong to root or to the daemon's user")
            if stat.S_IMODE(status.st_mode) != MODE:
                mode = f"{stat.S_IMODE(status.st_mode):04o}"
                raise ConfigError(SETTING, f"{self._directory} has mode {mode}; it must be {MODE:04o}")
            yield descriptor
        finally:
            os.close(descriptor)


def _found(name: str, status: os.stat_result, now_seconds: float) -> Found:
    return Found(
        name=name,
        uid=status.st_uid,
        inode=status.st_ino,
        mode=status.st_mode,
        links=status.st_nlink,
        size_bytes=status.st_size,
        age_seconds=now_seconds - status.st_ctime,  # which, other than the time of its content, nobody can set
    )


def _check(entry: Found, *, owner: int | None = None) -> None:
    """Raises _No for what is no plain file of a known user under a name that reports have."""
    if not stat.S_ISREG(entry.mode):
        raise _No("not_regular", "is not a regular file")
    if entry.name.startswith("."):
        raise _No("abandoned", "was abandoned half written")
    if not _NAME.fullmatch(entry.name):
        raise _No("name", "must be named like 6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21.json")
    if entry.links != 1:
        raise _No("linked", f"has {entry.links} names; a file with another name may be another user's")
    if entry.uid == OVERFLOW_UID or owner not in (None, entry.uid):
        raise _No("owner", f"belongs to uid {entry.uid}, who may be anybody")
    if entry.size_bytes > MAX_REPORT_BYTES:
        raise _No("too_large", f"is longer than {MAX_REPORT_BYTES} bytes")


async def _first_of(*waits: asyncio.Event | Arrivals, timeout_seconds: float) -> None:
    """Return when one of `waits` is set or the time is up."""
    tasks = [asyncio.ensure_future(wait.wait()) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

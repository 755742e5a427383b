"""Takes up the events that hooks left as files in `<spool>/incoming` while the daemon did not answer.

A file holds three NUL-terminated records, JOBTRAIL_HOOK=, JOBTRAIL_EVENT_ID= and JOBTRAIL_EVENT_TIME=, then exactly the
body of the post that failed. Its name has a dot in front until it is on disk. New files are announced by inotify(7),
called through ctypes: the watchfiles package was measured at 20 ms and 2.5 MB to import, one more thread, and 20
wake-ups a second while nothing happens.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import re
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import msgspec

from jobtrail.core.facts import ChoreFailed, IncomingQuarantined, IncomingTaken, Observer
from jobtrail.domain.errors import ConfigError, EventConflict, InvalidEvent, SpoolFull
from jobtrail.domain.events import check_time_us

MAX_BYTES = 2 * 1024 * 1024
RESCAN_SECONDS = 30.0
BLIND_RESCAN_SECONDS = 2.0  # where inotify cannot be had
ABANDONED_SECONDS = 3600.0

_HEADER = re.compile(rb"JOBTRAIL_HOOK=([^\0]*)\0JOBTRAIL_EVENT_ID=([^\0]*)\0JOBTRAIL_EVENT_TIME=([^\0]*)\0")
_TIME = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?")
_IN_MOVED_TO = 0x80  # linux/inotify.h


class Take(Protocol):
    """Brings one event in. `time_text` is the time exactly as the hook wrote it."""

    def __call__(self, hook: str, body: bytes, *, event_id: str, time_us: int, time_text: str) -> Awaitable[None]:
        """Raises InvalidEvent, EventConflict, SpoolFull, SpoolBroken."""
        ...


class HookFile(msgspec.Struct, frozen=True):
    """An event as a hook left it."""

    hook: str
    event_id: str
    time_text: str
    time_us: int
    body: bytes


class IncomingDirectory:
    """The directory of one spool. `run` and `take_all` may be called side by side; files are taken one at a time.

    Beside root and the daemon's own user, the `trusted_uids` may leave files: slurmctld's hooks run as SlurmUser.
    """

    def __init__(
        self,
        spool: Path,
        *,
        take: Take,
        tell: Observer,
        trusted_uids: frozenset[int] = frozenset(),
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._incoming = spool / "incoming"
        self._quarantine = spool / "quarantine"
        self._take = take
        self._tell = tell
        self._trusted_uids = trusted_uids
        self._now_seconds = now_seconds
        self._turn = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        """Take up files as they appear, until `stop`. Raises ConfigError, SpoolBroken."""
        await asyncio.to_thread(self._prepare)
        with watched(self._incoming) as arrived:
            while not stop.is_set():
                arrived.clear()
                try:
                    await self._take_waiting()
                except SpoolFull as full:
                    await _first_of(stop.wait(), timeout_seconds=full.retry_after_seconds)
                except OSError as error:  # a file vanished or the disk is read-only: what lies there stays there
                    self._tell(ChoreFailed(reason=f"{self._incoming} cannot be worked through: {error}"))
                    await _first_of(stop.wait(), timeout_seconds=BLIND_RESCAN_SECONDS)
                else:
                    seconds = RESCAN_SECONDS if arrived.works else BLIND_RESCAN_SECONDS
                    await _first_of(stop.wait(), arrived.wait(), timeout_seconds=seconds)

    async def take_all(self) -> None:
        """Take up what lies there now, oldest first, as far as the spool has room. Raises ConfigError, SpoolBroken."""
        with suppress(SpoolFull, OSError):  # `run` comes back to it, and tells
            await self._take_waiting()

    async def _take_waiting(self) -> None:
        taken = False
        async with self._turn:
            try:
                for path in await asyncio.to_thread(self._waiting):
                    taken |= await self._take_one(path)
            finally:
                if taken:
                    await asyncio.to_thread(_sync_directory, self._incoming)

    async def _take_one(self, path: Path) -> bool:
        try:
            found = await asyncio.to_thread(_read_if_possible, path, self._trusted_uids)
            if found is None:
                return False
            await self._take(
                found.hook, found.body, event_id=found.event_id, time_us=found.time_us, time_text=found.time_text
            )
        except (InvalidEvent, EventConflict) as error:
            await self._put_aside(path, str(error))
            return False
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self._tell(IncomingTaken(event_id=found.event_id, name=path.name))
        return True

    async def _put_aside(self, path: Path, reason: str) -> None:
        await asyncio.to_thread(self._move_to_quarantine, path)
        self._tell(IncomingQuarantined(name=path.name, reason=reason))

    def _move_to_quarantine(self, path: Path) -> None:
        name, number = path.name.lstrip("."), 0
        target = self._quarantine / (name or "unnamed")
        while os.path.lexists(target):
            number += 1
            target = self._quarantine / f"{name}.{number}"
        path.rename(target)
        _sync_directory(self._quarantine)
        _sync_directory(self._incoming)

    def _waiting(self) -> list[Path]:
        """The files to take up, by age. Unfinished ones count once nobody can be writing them any more."""
        self._prepare()
        found: list[tuple[int, str]] = []
        with os.scandir(self._incoming) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # a hook has just renamed it
                    status = entry.stat(follow_symlinks=False)
                    unfinished = entry.name.startswith(".")
                    if not unfinished or self._now_seconds() - status.st_mtime > ABANDONED_SECONDS:
                        found.append((status.st_mtime_ns, entry.name))
        return [self._incoming / name for _, name in sorted(found)]

    def _prepare(self) -> None:
        for directory in (self._incoming, self._quarantine):
            try:
                directory.mkdir(mode=0o700, exist_ok=True)
                status = directory.lstat()
            except OSError as error:
                raise ConfigError(str(directory), f"cannot be used: {error.strerror}") from error
            if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()):
                raise ConfigError(str(directory), "must be a directory that belongs to root or to the daemon's user")


def _read_if_possible(path: Path, trusted_uids: frozenset[int]) -> HookFile | None:
    """The event in `path`; None when it is gone or cannot be read just now (EMFILE, EIO): the next scan tries again."""
    try:
        return read_hook_file(path, trusted_uids)
    except PermissionError as error:
        raise InvalidEvent(path.name, f"cannot be read: {error.strerror}") from error
    except OSError:
        return None


def read_hook_file(path: Path, trusted_uids: frozenset[int] = frozenset()) -> HookFile:
    """The event in `path`. Raises InvalidEvent when it is none, OSError when it cannot be read just now."""
    if path.name.startswith(".") and path.name.endswith(".part"):
        raise InvalidEvent(path.name, "was abandoned half written")
    content, written_us = _read_safely(path, trusted_uids)
    match = _HEADER.match(content)
    if match is None:
        raise InvalidEvent(path.name, "does not begin with JOBTRAIL_HOOK=, JOBTRAIL_EVENT_ID= and JOBTRAIL_EVENT_TIME=")
    body = content[match.end() :]
    if not body.endswith(b"\0"):
        raise InvalidEvent(path.name, "is cut off: its last record has no NUL at its end")
    hook, event_id, time_text = (part.decode("utf-8", "replace") for part in match.groups())
    return HookFile(hook, event_id, time_text, _time_us(time_text, written_us), body)


def _read_safely(path: Path, trusted_uids: frozenset[int]) -> tuple[bytes, int]:
    """The content of a regular file of root's, our own or a trusted user's, and when it was written (µs)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link; a socket
            raise InvalidEvent(path.name, "is not a regular file") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidEvent(path.name, "is not a regular file")
        if status.st_uid not in {0, os.geteuid(), *trusted_uids}:
            raise InvalidEvent(
                path.name, f"belongs to uid {status.st_uid}; only root, the daemon's user and Slurm's may leave one"
            )
        if status.st_size > MAX_BYTES:
            raise InvalidEvent(path.name, f"is longer than {MAX_BYTES} bytes")
        return _read_whole(descriptor), status.st_mtime_ns // 1000
    finally:
        os.close(descriptor)


def _read_whole(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, MAX_BYTES):
        parts.append(part)
    return b"".join(parts)


def _time_us(text: str, written_us: int) -> int:
    """The event's time, µs. A node without date(1) writes none: then the file's own time is the nearest to it."""
    if text == "":
        return written_us
    match = _TIME.fullmatch(text)
    if match is None:
        raise InvalidEvent("JOBTRAIL_EVENT_TIME", "must be Unix seconds with up to nine decimals")
    seconds, fraction = int(match[1]), (match[2] or "").ljust(6, "0")[:6]
    return check_time_us("JOBTRAIL_EVENT_TIME", seconds * 1_000_000 + int(fraction))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Arrivals(asyncio.Event):
    """Set when something was put into the directory; `works` is false where nothing will ever set it."""

    works = True


@contextmanager
def watched(directory: Path) -> Iterator[Arrivals]:
    """What tells of files that are renamed into `directory`, while the context lasts."""
    arrived = Arrivals()
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:  # EMFILE: more instances than fs.inotify.max_user_instances
        arrived.works = False
        yield arrived
        return
    loop = asyncio.get_running_loop()

    def note() -> None:
        with suppress(BlockingIOError):
            os.read(descriptor, 65536)
        arrived.set()

    try:
        arrived.works = libc.inotify_add_watch(descriptor, os.fsencode(directory), _IN_MOVED_TO) >= 0
        loop.add_reader(descriptor, note)
        yield arrived
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _first_of(*waits: Awaitable[object], timeout_seconds: float) -> None:
    """Return when one of `waits` is done or the time is up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

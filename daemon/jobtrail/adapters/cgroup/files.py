"""Counter files of one cgroup directory: kept open, read with pread, and parsed only where a value is wanted.

A kernel file of a cgroup answers ENODEV once its cgroup is removed (kernfs), so a descriptor may be kept for the
cgroup's life. A plain file of a copied tree would go on giving its last content after it was deleted; it is told by
its size, which is 0 for every cgroup file, and is opened anew each time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

import msgspec

Values = dict[str, int]
Absent = dict[str, str]
Parse = Callable[[bytes, Values, Absent], None]

NO_SUCH_FILE = "no such file"
NOT_UNDERSTOOD = "not understood"
GONE_ERRORS = frozenset({errno.ENOENT, errno.ENODEV, errno.ENOTDIR})
DENIED_ERRORS = frozenset({errno.EACCES, errno.EPERM})

_CHUNK = 16_384
_COMPLETE_BELOW = 3_072
_LARGEST = 32 << 20
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Planned(msgspec.Struct, frozen=True):
    """A file to read and the values it gives. `missing` is the reason for them when there is no such file."""

    name: str
    fields: tuple[str, ...]
    parse: Parse
    missing: str = NO_SUCH_FILE


class OpenFiles:
    """Counts the descriptors kept open. Files beyond `limit` are opened and closed at each read instead."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept = 0

    def keep_directory(self, path: str) -> int:
        """A descriptor of a directory, or -1 when the budget is spent. Raises OSError."""
        if self.kept >= self.limit:
            return -1
        fd = os.open(path, _OPEN | os.O_DIRECTORY)
        self.kept += 1
        return fd


def error_name(error: OSError) -> str:
    """`EACCES`, `EMFILE`, …: short, and the same on every node."""
    if error.errno == errno.ENOENT:
        return NO_SUCH_FILE
    return errno.errorcode.get(error.errno or 0, "unknown error")


def read_whole(fd: int) -> bytes:
    """A file's content from its start. Raises OSError (EFBIG beyond 32 MiB).

    Kernel seq_files hand out lists in pieces of about a page, each at least a page less one line; a shorter piece is
    the last one. That spares most files the second read that only finds their end.
    """
    data = os.pread(fd, _CHUNK, 0)
    if len(data) < _COMPLETE_BELOW:
        return data
    pieces = [data]
    size = len(data)
    while data:
        data = os.pread(fd, _CHUNK, size)
        pieces.append(data)
        size += len(data)
        if size > _LARGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return b"".join(pieces)


def read_path(path: str) -> bytes:
    """As read_whole, opening and closing the file. Raises OSError."""
    fd = os.open(path, _OPEN)
    try:
        return read_whole(fd)
    finally:
        os.close(fd)


def read_from(directory_fd: int, name: str) -> bytes:
    """As read_path, for a file in an open directory. Raises OSError."""
    fd = os.open(name, _OPEN, dir_fd=directory_fd)
    try:
        return read_whole(fd)
    finally:
        os.close(fd)


class CounterFile:
    """One file, kept open where that is safe and the budget allows. Raises OSError where it cannot be read."""

    __slots__ = ("_budget", "fd", "fields", "parse", "path")

    def __init__(self, path: str, fields: tuple[str, ...], parse: Parse, budget: OpenFiles) -> None:
        self.path = path
        self.fields = fields
        self.parse = parse
        self._budget = budget
        self.fd = -1

    def open(self) -> None:
        """Open the file, to learn whether it can be read; keep the descriptor if it may be kept."""
        self.close()
        fd = os.open(self.path, _OPEN)
        if self._budget.kept < self._budget.limit and os.fstat(fd).st_size == 0:
            self._budget.kept += 1
            self.fd = fd
        else:
            os.close(fd)

    def read(self) -> bytes:
        """The content now."""
        return read_whole(self.fd) if self.fd >= 0 else read_path(self.path)

    def close(self) -> None:
        """Let the descriptor go."""
        if self.fd >= 0:
            os.close(self.fd)
            self._budget.kept -= 1
            self.fd = -1


class CounterSet:
    """The planned files of one cgroup directory, for as long as that very directory lives."""

    def __init__(self, path: str, plan: Sequence[Planned], budget: OpenFiles) -> None:
        """Raises OSError when there is no such directory."""
        self.path = path
        self._plan = plan
        self._budget = budget
        self._identity = _identity(path)
        self._files: list[CounterFile] = []
        self._absent: Absent = {}
        self._unopened: list[Planned] = list(plan)
        self.look_again()

    def look_again(self) -> None:
        """Try the files that could not be opened so far: a controller may be enabled later."""
        unopened, self._unopened = self._unopened, []
        for planned in unopened:
            file = CounterFile(f"{self.path}/{planned.name}", planned.fields, planned.parse, self._budget)
            try:
                file.open()
            except OSError as error:
                self._give_up(planned, error)
                continue
            self._files.append(file)
            for field in planned.fields:
                self._absent.pop(field, None)

    def _give_up(self, planned: Planned, error: OSError) -> None:
        self._unopened.append(planned)
        reason = planned.missing if error.errno == errno.ENOENT else error_name(error)
        self._absent.update(dict.fromkeys(planned.fields, reason))

    def read(self, values: Values, absent: Absent) -> bool:
        """Add this directory's values, and reasons for those it lacks. False when the directory is gone."""
        if self._absent:
            absent.update(self._absent)
        for file in self._files:
            try:
                data = file.read()
            except OSError as error:
                if not self.alive():
                    return False
                absent.update(dict.fromkeys(file.fields, error_name(error)))
                self._reopen(file)
                continue
            file.parse(data, values, absent)
        return bool(self._files) or self.alive()

    def read_field(self, field: str) -> int | None:
        """One value alone; None where it cannot be read."""
        for file in self._files:
            if field in file.fields:
                values: Values = {}
                try:
                    file.parse(file.read(), values, {})
                except OSError:
                    return None
                return values.get(field)
        return None

    def _reopen(self, file: CounterFile) -> None:
        """The next read finds the file open again, or says why not (a pressure file may be switched off and on)."""
        try:
            file.open()
        except OSError:
            file.close()

    def alive(self) -> bool:
        """Whether the directory is still the one that was opened, not a later one of the same name."""
        try:
            return _identity(self.path) == self._identity
        except OSError as error:
            return error.errno not in GONE_ERRORS

    def close(self) -> None:
        """Let all descriptors go."""
        for file in self._files:
            file.close()


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    return status.st_dev, status.st_ino

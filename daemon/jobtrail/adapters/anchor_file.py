"""Checkpoints in a file to which lines are only ever added: one of JSON each, flushed to the disk.

The lines are what `scripts/verify_trail.py` reads as anchors, be they of a server's file or of a node's.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from jobtrail.domain.checkpoints import Checkpoint, Sealed

TAIL_BYTES = 65_536


class AnchorFile:
    """An AnchorLog in a file. `keep_lines`: of a node's, which has no room for ever; a server's grows, as it should."""

    def __init__(self, path: Path, *, keep_lines: int | None = None) -> None:
        self._path = path
        self._keep = keep_lines
        self._lines: int | None = None

    async def last(self) -> Sealed | None:
        """The last whole line; None when there is none. Raises OSError."""
        return await asyncio.to_thread(self._last)

    async def append(self, sealed: Sealed) -> None:
        """Add a line and flush it. Raises OSError."""
        await asyncio.to_thread(self._append, line(sealed))

    def _last(self) -> Sealed | None:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                tail = file.read()
        except FileNotFoundError:
            return None
        for text in reversed(tail.splitlines()):
            if (found := parse(text)) is not None:
                return found
        return None

    def _append(self, text: bytes) -> None:
        created = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # a power cut in the last write
            whole = (b"\n" if torn else b"") + text
            if os.write(descriptor, whole) != len(whole):  # write(2): a disk that is nearly full takes a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if created:
            _sync_directory(self._path.parent)
        if self._keep is not None:
            self._shorten(self._keep)

    def _shorten(self, keep: int) -> None:
        """Keep the newest lines only, by a new file in the old one's place, when there are twice as many."""
        if self._lines is None:
            with self._path.open("rb") as file:
                self._lines = sum(1 for _ in file)
        else:
            self._lines += 1
        if self._lines <= 2 * keep:
            return
        newest = self._path.read_bytes().splitlines(keepends=True)[-keep:]
        fresh = self._path.with_name(f"{self._path.name}.new")
        with fresh.open("wb") as file:
            file.writelines(newest)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        _sync_directory(self._path.parent)
        self._lines = keep


def line(sealed: Sealed) -> bytes:
    """A checkpoint as a line: numbers, hashes in hexadecimal, the checkpoint's own hash as `digest`."""
    checkpoint = sealed.checkpoint
    fields: dict[str, Any] = {
        "number": checkpoint.number,
        "previous": checkpoint.previous.hex(),
        "root": checkpoint.root.hex(),
        "leaf_count": checkpoint.leaf_count,
        "total_rows": checkpoint.total_rows,
        "time_us": checkpoint.time_us,
        "digest": checkpoint.digest().hex(),
        "signature": None if sealed.signature is None else sealed.signature.hex(),
        "key_id": sealed.key_id,
    }
    return msgspec.json.encode(fields) + b"\n"


def parse(text: bytes) -> Sealed | None:
    """The checkpoint in a line; None for a line that is none, or whose digest is not its own."""
    try:
        fields = msgspec.json.decode(text)
        checkpoint = Checkpoint(
            number=fields["number"],
            previous=bytes.fromhex(fields["previous"]),
            root=bytes.fromhex(fields["root"]),
            leaf_count=fields["leaf_count"],
            total_rows=fields["total_rows"],
            time_us=fields["time_us"],
        )
        if checkpoint.digest().hex() != fields["digest"]:
            return None
        signature = fields["signature"]
        return Sealed(
            checkpoint=checkpoint,
            signature=None if signature is None else bytes.fromhex(signature),
            key_id=fields["key_id"],
        )
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return None


def read_all(path: Path) -> Iterator[Sealed]:
    """All checkpoints of a file. Raises OSError."""
    with path.open("rb") as file:
        for text in file:
            if (found := parse(text)) is not None:
                yield found


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

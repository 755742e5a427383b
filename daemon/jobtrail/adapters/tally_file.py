"""What was given up and is not on record yet, in a file of one sector that is written over in its place: where the disk
is full, which is when most is given up, it needs no more room than it has."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec

from jobtrail.core.trail.gap_ports import Tally

SIZE = 512  # bytes; disks write a sector of so many as a whole or not at all
DIGEST = 32


class TallyFile:
    """A TallyLog in a file: the SHA-256 of the rest, then JSON, then spaces."""

    def __init__(self, path: Path, *, clock_us: Callable[[], int]) -> None:
        self._path = path
        self._clock_us = clock_us

    async def read(self) -> Tally | None:
        """The tally; None where there is no file. Raises OSError.

        A file that is no tally was damaged: something was noted there, and nobody knows how much. So its tally is empty
        and says that more was given up, since the file was last written.
        """
        return await asyncio.to_thread(self._read)

    async def write(self, tally: Tally) -> None:
        """Write it over the other, flushed. Raises OSError, also where it is too large, which no tally is."""
        await asyncio.to_thread(self._write, msgspec.json.encode(tally))

    def _read(self) -> Tally | None:
        try:
            whole = self._path.read_bytes()
            written_us = self._path.stat().st_mtime_ns // 1000
        except FileNotFoundError:
            return None
        text = whole[DIGEST:]
        try:
            if hashlib.sha256(text).digest() != whole[:DIGEST]:
                raise ValueError("another digest")
            return msgspec.json.decode(text, type=Tally)
        except (msgspec.DecodeError, ValueError):
            at_us = min(written_us, self._clock_us())
            return Tally(event_id=str(uuid.uuid4()), since_us=at_us, noted_us=at_us, shed={}, goes_on=True)

    def _write(self, text: bytes) -> None:
        if len(text) > SIZE - DIGEST:
            raise OSError(f"a tally of {len(text)} bytes")
        padded = text.ljust(SIZE - DIGEST)
        created = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            os.pwrite(descriptor, hashlib.sha256(padded).digest() + padded, 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if created:
            _sync_directory(self._path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

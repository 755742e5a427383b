"""Attributes of sysfs: read whole, and understood as numbers.

A file is opened for each look. What costs is the driver's work behind it (a message to the card's firmware, about a
millisecond); an open file would spare some microseconds and go on naming a card that was removed.
"""

from __future__ import annotations

import errno
import os
import re

NO_SUCH_FILE = "no such file"
NOT_UNDERSTOOD = "not understood"
NO_ANSWER = "no answer within the deadline"
NOT_REACHED = "another card gave no answer"

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
_LARGEST_FILE = 65_536  # a binary attribute; ordinary ones are a page at most
_LARGEST = 2**63 - 1  # what a bigint column holds
_CODE = re.compile(r"\bE[A-Z0-9]{2,}$|unknown error$", re.ASCII)  # how errno names an error


def worded(reason: str) -> str:
    """A reason with the word by which it is counted before it, as `not_supported: no such file`."""
    if reason in {NO_ANSWER, NOT_REACHED}:
        word = "timeout"
    elif any(code in reason for code in ("EACCES", "EPERM")):
        word = "no_permission"
    elif any(code in reason for code in ("ENODEV", "ENXIO")):
        word = "lost"
    elif NOT_UNDERSTOOD in reason or _CODE.search(reason):
        word = "unknown"
    else:
        word = "not_supported"
    return f"{word}: {reason}"


def reason_of(error: OSError) -> str:
    """`EACCES`, `EBUSY`, …: short, and the same on every node."""
    if error.errno == errno.ENOENT:
        return NO_SUCH_FILE
    return errno.errorcode.get(error.errno or 0, "unknown error")


def read(path: str) -> bytes:
    """An attribute's content. Raises OSError."""
    fd = os.open(path, _OPEN)
    try:
        return os.read(fd, _LARGEST_FILE)
    finally:
        os.close(fd)


def text(path: str) -> str | None:
    """A word or line, without blanks around it; None where there is none."""
    try:
        return read(path).decode("utf-8", "replace").strip() or None
    except OSError:
        return None


def names(path: str) -> list[str]:
    """What a directory holds, sorted; nothing where it cannot be listed."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries)
    except OSError:
        return []


def count(data: bytes) -> int | None:
    """A non-negative whole number of at most 63 bits, else None."""
    digits = data.strip()
    if digits.isdigit() and len(digits) < 20 and int(digits) <= _LARGEST:
        return int(digits)
    return None


def whole(data: bytes) -> int | None:
    """As count, and negative ones too: a temperature can be."""
    digits = data.strip()
    if digits.startswith(b"-"):
        value = count(digits[1:])
        return None if value is None else -value
    return count(digits)

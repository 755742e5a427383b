"""Numbers and reasons from files of /proc."""

from __future__ import annotations

import errno
import os
import time

US_PER_TICK = 1_000_000 // os.sysconf("SC_CLK_TCK")
LARGEST = 2**63 - 1  # what a bigint column holds
NOT_UNDERSTOOD = "not understood"


def wall_clock_us() -> int:
    """µs since the Unix epoch."""
    return time.time_ns() // 1_000


def number(digits: bytes) -> int | None:
    """A non-negative count of at most 63 bits, else None."""
    if digits.isdigit() and len(digits) < 20:
        value = int(digits)
        return value if value <= LARGEST else None
    return None


def reason_of(error: OSError) -> str:
    """`EACCES`, `EISDIR`, …: short, and the same on every node."""
    return "no such file" if error.errno == errno.ENOENT else errno.errorcode.get(error.errno or 0, "unknown error")


def line(data: bytes, key: bytes) -> int | None:
    """The number after `key`, up to the end of its line; None where it is missing or cut short."""
    at = data.find(key)
    end = data.find(b"\n", at + 1)
    return None if at < 0 or end < 0 else number(data[at + len(key) : end].strip())


def kib(data: bytes, key: bytes) -> int | None:
    """A `Key:   123 kB` line in bytes."""
    at = data.find(b"\n" + key + b":")
    end = data.find(b" kB\n", at + 1)
    if at < 0 or end < 0:
        return None
    value = number(data[at + len(key) + 2 : end].strip())
    return None if value is None or value > LARGEST >> 10 else value << 10

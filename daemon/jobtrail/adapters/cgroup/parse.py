"""Parsers of cgroup files: bytes in, planned values out; what is not there or not understood gets a reason.

Formats: cgroup-v1/{cpuacct,memory,blkio-controller}.rst, cgroup-v2.rst and accounting/psi.rst of the kernel's
documentation. Every line the kernel writes ends in a newline, so a number without one was cut short and is refused.
"""

from __future__ import annotations

import os

from jobtrail.adapters.cgroup.files import NOT_UNDERSTOOD, Absent, Parse, Values

UNLIMITED = "unlimited"
_LARGEST = 2**63 - 1  # what a bigint column holds
_UNLIMITED_FROM = 2**62  # v1 prints PAGE_COUNTER_MAX pages in bytes: 2^63 less one page, whatever the page size
_US_PER_TICK = 1_000_000 // os.sysconf("SC_CLK_TCK")


def number(digits: bytes) -> int | None:
    """A non-negative count of at most 63 bits, else None."""
    if digits.isdigit() and len(digits) < 20:
        value = int(digits)
        if value <= _LARGEST:
            return value
    return None


def single(field: str, *, divide_by: int = 1) -> Parse:
    """A file that holds one number."""

    def parse(data: bytes, values: Values, absent: Absent) -> None:
        value = number(data[:-1]) if data.endswith(b"\n") else None
        if value is None:
            absent[field] = NOT_UNDERSTOOD
        else:
            values[field] = value // divide_by

    return parse


def limit(field: str) -> Parse:
    """A file that holds a number of bytes, or `max`, or a number so large that it means no limit."""

    def parse(data: bytes, values: Values, absent: Absent) -> None:
        value = number(data[:-1]) if data.endswith(b"\n") else None
        if data == b"max\n" or (value is not None and value >= _UNLIMITED_FROM):
            absent[field] = UNLIMITED
        elif value is None:
            absent[field] = NOT_UNDERSTOOD
        else:
            values[field] = value

    return parse


def keyed(*wanted: tuple[str, str, int], missing: str) -> Parse:
    """A file of `key number` lines; `wanted` are (field, key, divide by), `missing` is the reason for no such key."""
    plan = tuple((field, b"\n" + key.encode() + b" ", len(key) + 2, divide_by) for field, key, divide_by in wanted)

    def parse(data: bytes, values: Values, absent: Absent) -> None:
        data = b"\n" + data
        find = data.find
        for field, key, length, divide_by in plan:
            at = find(key)
            if at < 0:
                absent[field] = missing
                continue
            at += length
            value = number(data[at : find(b"\n", at)]) if find(b"\n", at) > 0 else None
            if value is None:
                absent[field] = NOT_UNDERSTOOD
            else:
                values[field] = value // divide_by

    return parse


def ticks(user: str, system: str) -> Parse:
    """v1 `cpuacct.stat`: user and system in USER_HZ ticks, given in µs."""
    split = keyed((user, "user", 1), (system, "system", 1), missing="no such key")

    def parse(data: bytes, values: Values, absent: Absent) -> None:
        split(data, values, absent)
        for field in (user, system):
            if field in values:
                values[field] *= _US_PER_TICK

    return parse


def pressure(some: str, full: str) -> Parse:
    """Pressure stall information: the `total=` µs of the lines `some` and `full`."""
    plan = ((some, b"some "), (full, b"full "))

    def parse(data: bytes, values: Values, absent: Absent) -> None:
        lines = data.split(b"\n")
        for field, kind in plan:
            absent[field] = f"no {kind.decode().strip()} line"
            for line in lines[:-1]:
                if line.startswith(kind):
                    value = number(line[line.rfind(b"total=") + 6 :]) if b"total=" in line else None
                    if value is None:
                        absent[field] = NOT_UNDERSTOOD
                    else:
                        values[field] = value
                        del absent[field]
                    break

    return parse


def io_stat(read: str, written: str) -> Parse:
    """v2 `io.stat`: rbytes and wbytes summed over devices. An empty file means no device was used: 0."""

    def parse(data: bytes, values: Values, absent: Absent) -> None:
        for field, key in ((read, b"rbytes="), (written, b"wbytes=")):
            total: int | None = 0 if data.endswith(b"\n") or not data else None
            for word in data.split():
                if total is not None and not _is_device(word) and b"=" not in word:
                    total = None
                if total is not None and word.startswith(key):
                    value = number(word[7:])
                    total = None if value is None else total + value
            _put(field, total, values, absent)

    return parse


def io_service_bytes(read: str, written: str) -> Parse:
    """v1 `blkio.throttle.io_service_bytes_recursive`: `major:minor Read bytes` lines summed over devices."""

    def parse(data: bytes, values: Values, absent: Absent) -> None:
        for field, operation in ((read, b"Read"), (written, b"Write")):
            total: int | None = 0 if data.startswith(b"Total ") or b"\nTotal " in data else None
            for line in data.split(b"\n")[:-1]:
                words = line.split()
                if total is not None and len(words) == 3 and words[1] == operation:
                    value = number(words[2])
                    total = None if value is None else total + value
            _put(field, total, values, absent)

    return parse


def _is_device(word: bytes) -> bool:
    major, colon, minor = word.partition(b":")
    return colon == b":" and major.isdigit() and minor.isdigit()


def _put(field: str, total: int | None, values: Values, absent: Absent) -> None:
    if total is None or total > _LARGEST:
        absent[field] = NOT_UNDERSTOOD
    else:
        values[field] = total

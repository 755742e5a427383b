"""The values that sacct(1) prints, each read into a number or None where it is one of its words for absent."""

from __future__ import annotations

import re

# What sacct prints where there is nothing, in the fields asked.
_ABSENT = frozenset({"", "Unknown", "None", "None assigned", "UNLIMITED", "Partition_Limit", "INVALID", "N/A"})
_DURATION = re.compile(r"(?:(\d{1,9})-)?(?:(\d{1,9}):)?(\d{1,9}):(\d{1,9})(?:\.(\d{1,6}))?")
_SIZE = re.compile(r"(\d{1,30})(?:\.(\d{1,6}))?([KMGTPE]?)")
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_MEBIBYTE = 2**20
MAX_TEXT = 65_536  # characters kept of one text; users choose names
MAX_EXACT_INT = 2**53 - 1
EARLIEST, LATEST = 946_684_800, 4_102_444_800  # Unix seconds: the years 2000 to 2100, in which events lie too


def present(text: str) -> str | None:
    """At most 65,536 characters of the text, None where it stands for nothing."""
    return None if text in _ABSENT else text[:MAX_TEXT]


def integer(text: str) -> int | None:
    """A decimal number. Raises ValueError for anything else that is not a word for absent."""
    if text in _ABSENT:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 16):
        raise ValueError(f"must be a whole number, not {text[:40]!r}")
    return _exact(int(text))


def time(text: str) -> int | None:
    """A time in Unix seconds (SLURM_TIME_FORMAT=%s); 0 and words for absent are none. Raises ValueError for others."""
    value = integer(text)
    if value and not EARLIEST <= value < LATEST:
        raise ValueError(f"must be a time between the years 2000 and 2100, not {text}")
    return value or None


def minutes_as_seconds(text: str) -> int | None:
    """Whole minutes, in seconds. Raises ValueError for other text."""
    minutes = integer(text)
    return None if minutes is None else _exact(minutes * 60)


def microseconds(text: str) -> int | None:
    """A duration as sacct prints it, [days-][hours:]minutes:seconds[.fraction]. Raises ValueError for other text."""
    if text in _ABSENT:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"must be [days-][hours:]minutes:seconds, not {text[:40]!r}")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()[:4])
    return _exact(
        (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000_000 + int((match[5] or "").ljust(6, "0"))
    )


def size_bytes(text: str, *, unit: int = 1) -> int | None:
    """A size; a number without a suffix counts `unit` bytes. Raises ValueError for other text."""
    if text in _ABSENT:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"must be a size such as 256M, not {text[:40]!r}")
    factor = 1024 ** _POWER[match[3]] if match[3] else unit
    return _exact(int(match[1]) * factor + int((match[2] or "").ljust(6, "0")) * factor // 1_000_000)


def resources(text: str) -> dict[str, str]:
    """Trackable resources, `cpu=1,gres/gpu=2,mem=200M` (slurm.conf(5), AccountingStorageTRES), by name."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if any(not (name and equals) for name, equals, _ in pairs):
        raise ValueError(f"must be resources such as cpu=1,mem=200M, not {text[:40]!r}")
    return {name: value for name, _, value in pairs}


def memory_of(text: str) -> int | None:
    """Memory among trackable resources. Slurm counts it in mebibytes; 0 stands for a request without a figure."""
    return size_bytes(resources(text).get("mem", ""), unit=_MEBIBYTE) or None


def gpus_of(text: str) -> int | None:
    """GPUs among trackable resources, None where none are named: a site may not account for them at all."""
    found = resources(text)
    if "gres/gpu" in found:
        return integer(found["gres/gpu"])
    typed = [integer(value) or 0 for name, value in found.items() if name.startswith("gres/gpu:")]
    return _exact(sum(typed)) if typed else None


def cpus_of(text: str) -> int | None:
    """CPUs among trackable resources."""
    return integer(resources(text).get("cpu", ""))


def _exact(value: int) -> int:
    if value > MAX_EXACT_INT:
        raise ValueError("is too large")
    return value

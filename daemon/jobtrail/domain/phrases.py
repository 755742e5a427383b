"""Amounts, times and exit statuses as a person reads them in a sentence."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

_SECOND = 1_000_000
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
# What a POSIX shell returns for a command it could not run (sh(1p), "Exit Status for Commands").
_SHELL_CODES = {126: "a command that cannot be executed", 127: "a command that was not found"}


def describe_duration(us: int) -> str:
    """A time span, as `0.34 s`, `12 s` or `1 h 2 min`. Whole seconds show as such: Slurm's own times have no more."""
    hundredths = (us + 5_000) // 10_000
    if hundredths < 6_000 and us % _SECOND:
        return f"{hundredths / 100:.2f} s" if hundredths else "less than 0.01 s"
    minutes, seconds = divmod((us + _SECOND // 2) // _SECOND, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")) if n]
    return " ".join(parts) or "less than 1 s"


def counted(number: int, noun: str) -> str:
    """A number of things, as `1 node` or `3 nodes`; `noun` is one of them, and takes an s for more or none."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_bytes(n: int) -> str:
    """A size with a binary unit, as `512 MiB` or `1.5 GiB`."""
    amount, unit = float(n), 0
    while round(amount, 1) >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"


def describe_moment(us: int) -> str:
    """A time to the second, as `2025-10-09 08:53:20 UTC`."""
    return f"{_day(us)} {_clock(us)} UTC"


def describe_interval(not_before_us: int | None, not_after_us: int) -> str:
    """When something was that lies between two times, rounded outwards: `on 2025-10-09 between … and … UTC`."""
    latest = -(-not_after_us // _SECOND) * _SECOND
    if not_before_us is None:
        return f"by {describe_moment(latest)}"
    earliest = not_before_us // _SECOND * _SECOND
    if latest - earliest <= _SECOND:
        return f"at about {describe_moment(earliest)}"
    if _day(earliest) == _day(latest):
        return f"on {_day(earliest)} between {_clock(earliest)} and {_clock(latest)} UTC"
    return f"between {_day(earliest)} {_clock(earliest)} and {describe_moment(latest)}"


def _day(us: int) -> str:
    return datetime.fromtimestamp(us // _SECOND, tz=UTC).strftime("%Y-%m-%d")


def _clock(us: int) -> str:
    return datetime.fromtimestamp(us // _SECOND, tz=UTC).strftime("%H:%M:%S")


def describe_signal(number: int) -> str:
    """A signal of Linux, as `SIGTERM (signal 15)`; without a name of its own just the number."""
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


def describe_exit_code(code: int) -> str:
    """An exit code, with what a shell means by it where that is a convention."""
    meant = _SHELL_CODES.get(code)
    if 128 < code <= 128 + signal.SIGRTMAX:
        meant = f"a command killed by {describe_signal(code - 128)}"
    return f"exit code {code}" + (f", which a shell gives for {meant}" if meant else "")

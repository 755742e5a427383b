"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

UNKNOWN = "-"
JOULES_PER_KWH = 3_600_000
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


PIPE_COLUMNS = 220  # where there is no terminal, nothing is to be folded: somebody greps it


def console() -> Console:
    """Standard output; plain text without colours and wide lines when it is not a terminal."""
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Console(width=width, soft_wrap=width is not None, highlight=False)


def error_console() -> Console:
    """Standard error."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode() + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table whose cells show hostile text harmlessly: markup off, control characters escaped."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        made.add_column(column, no_wrap=number == 0)
    for row in rows:
        made.add_row(*(clean(cell) for cell in row))
    return made


def clean(text: str) -> Any:
    """Text safe for a terminal: a job name cannot move the cursor or colour the screen."""
    from rich.text import Text

    return Text("".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text))


def size(value: float | None) -> str:
    """Bytes with a binary unit, as 1.5 GiB."""
    if value is None:
        return UNKNOWN
    amount = float(value)
    for unit in _UNITS:
        if abs(amount) < 1024 or unit == _UNITS[-1]:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable: the last unit takes everything")


def energy(joules: float | None) -> str:
    """Energy as 512 J, 12.5 kJ, or, from a kilowatt-hour on, 1.25 kWh."""
    if joules is None:
        return UNKNOWN
    if joules >= JOULES_PER_KWH:
        return f"{joules / JOULES_PER_KWH:.2f} kWh"
    return f"{joules / 1000:.1f} kJ" if joules >= 1000 else f"{joules:.0f} J"


def duration(seconds: float | None) -> str:
    """A time span, as 4.21 s or 3:25:10."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def moment(value: datetime | None) -> str:
    """A local time to the second."""
    return UNKNOWN if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def from_us(time_us: int) -> datetime:
    """A UTC datetime from µs since the epoch."""
    return datetime.fromtimestamp(time_us / 1e6, tz=UTC)

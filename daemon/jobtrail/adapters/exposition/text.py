"""The text format's parts: families, label sets, lines.

https://prometheus.io/docs/instrumenting/exposition_formats/ describes the format.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Literal

import msgspec

PLAIN_JOBS = 200  # with more jobs on the page its seconds are written with an exponent

Value = int | float | None
Column = Sequence[Value]


class Series(msgspec.Struct, frozen=True):
    """One series of each job: the column its values come from, labels beyond the family's, and µs told as seconds."""

    column: str
    extra: tuple[tuple[str, str], ...] = ()
    microseconds: bool = False


class Family(msgspec.Struct, frozen=True):
    """A metric family. `labels` are those every series of it has.

    Untyped are the gauges whose names dashboards of this field know and Prometheus keeps for others: `promtool check
    metrics` refuses a gauge whose name ends in _total or _count. Untyped claims nothing, and passes.
    """

    name: str
    kind: Literal["counter", "gauge", "untyped"]
    help: str
    labels: tuple[str, ...]
    series: tuple[Series, ...] = ()


_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
encode_values = msgspec.json.Encoder().encode


def label_set(labels: Iterable[tuple[str, str | None]]) -> bytes:
    """`{name="value",…}` for any values; an unknown one is empty, which Prometheus takes for a label not there."""
    pairs = ",".join(f'{name}="{(value or "").translate(_ESCAPES)}"' for name, value in labels)
    return b"{" + pairs.encode("utf-8", "replace") + b"}" if pairs else b""


def header(family: Family) -> bytes:
    """HELP and TYPE, without the last newline."""
    return f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}".encode()


class SeriesLines:
    """The lines of one series of many jobs or nodes. Line beginnings and the last text are kept while they hold."""

    def __init__(self, family: Family, series: Series) -> None:
        self._name = b"\n" + family.name.encode()
        self._labels = family.labels
        self._series = series
        self._starts: list[bytes] = []
        self._held: Column | None = None
        self._text = b""

    def relabel(self, things: Iterable[Mapping[str, str | None]]) -> None:
        """Make the line beginnings anew for `things`, in this order; each gives its labels by name."""
        extra = self._series.extra
        self._starts = [
            self._name + label_set([*((name, thing[name]) for name in self._labels), *extra]) + b" " for thing in things
        ]
        self._held = None

    def render(self, columns: Mapping[str, Column]) -> bytes:
        """Lines, each with a newline before it; a thing without a value has none."""
        column = columns[self._series.column]
        if column != self._held:
            self._held, self._text = column, self._weave(column)
        return self._text

    def _weave(self, column: Column) -> bytes:
        starts = self._starts
        text = self._encode(column)
        if b"null" in text:  # None, and what JSON has no number for: NaN and the infinities
            known = [value is not None and math.isfinite(value) for value in column]
            starts, column = list(compress(starts, known)), list(compress(column, known))
            text = self._encode(column)
        parts = [b""] * (2 * len(starts))
        parts[0::2] = starts
        parts[1::2] = text[1:-1].split(b",") if starts else []
        return b"".join(parts)

    def _encode(self, column: Column) -> bytes:
        """Seconds are written as people write them while people may read the page; of a page for machines, as whole µs
        with an exponent: the same number, exactly, for a third of the time.
        """
        if not self._series.microseconds:
            return encode_values(column)
        if len(column) > PLAIN_JOBS:
            return encode_values(column)[:-1].replace(b",", b"e-6,") + b"e-6]"
        return encode_values([None if value is None else value / 1e6 for value in column])


def small(family: Family, values: Mapping[str, Value]) -> bytes:
    """A family of few series that differ in its one label, if it has one."""
    name = family.name.encode()
    lines = [
        b"\n" + name + label_set((label, key) for label in family.labels) + b" " + encode_values(value)
        for key, value in values.items()
        if value is not None and math.isfinite(value)
    ]
    return b"".join((header(family), *lines, b"\n")) if lines else b""


def ones(family: Family, things: Iterable[Sequence[str]]) -> bytes:
    """A family that is 1 for each of the things; of each the values of its labels, in their order."""
    name = b"\n" + family.name.encode()
    lines = [name + label_set(zip(family.labels, thing, strict=True)) + b" 1" for thing in things]
    return b"".join((header(family), *lines, b"\n")) if lines else b""

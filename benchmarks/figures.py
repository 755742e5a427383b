"""A measured figure beside its reference, and how both are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import msgspec
from rich.console import Console
from rich.table import Table


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One row: what was measured, the reference measured in the same run, and the target of their ratio or value."""

    what: str
    value: float
    unit: str
    reference: str = ""
    reference_value: float | None = None
    target: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        """Value over reference."""
        return None if not self.reference_value else self.value / self.reference_value


def at_most(limit: float, value: float | None) -> bool | None:
    """Whether a target of at most `limit` is met; None when there is no value."""
    return None if value is None else value <= limit


def at_least(limit: float, value: float | None) -> bool | None:
    """Whether a target of at least `limit` is met; None when there is no value."""
    return None if value is None else value >= limit


def show(figures: Iterable[Figure], *, as_json: bool) -> None:
    """Print the figures as a table or as JSON."""
    rows = list(figures)
    if as_json:
        json.dump([{**msgspec.to_builtins(row), "ratio": row.ratio} for row in rows], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    table = Table("what", "figure", "reference", "ratio", "target", "", box=None, pad_edge=False)
    for row in rows:
        reference = "" if row.reference_value is None else f"{row.reference_value:.4g} {row.unit} {row.reference}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        met = {None: "", True: "met", False: "MISSED"}[row.met]
        table.add_row(row.what, f"{row.value:.4g} {row.unit}", reference, ratio, row.target, met)
    Console(width=160).print(table)

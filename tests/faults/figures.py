"""Figures of the fault tests: printed at the end, and one JSON line each in a file that a table is made from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
FULL = os.environ.get("JOBTRAIL_FAULTS") == "full"
_asked: list[bool] = []  # what tests were told of being run in full


def figures_file() -> Path:
    """Where figures go: JOBTRAIL_FAULT_FIGURES, else `.faults/figures.jsonl` in the repository."""
    return Path(os.environ.get("JOBTRAIL_FAULT_FIGURES") or REPOSITORY / ".faults" / "figures.jsonl")


def often(*, quick: int, full: int) -> int:
    """How often a fault is caused: `full` times under `make faults`, `quick` times else."""
    return full if in_full() else quick


def in_full() -> bool:
    """Whether all is to be tried, as under `make faults`. A test that never asks is always run in full."""
    _asked.append(FULL)
    return FULL


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of `values` do not exceed; None where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


@dataclass
class Figures:
    """What one test measured. Numbers add up under one name; what was not measured is not there."""

    id: str  # as in the catalogue: T-01
    test: str
    seed: int
    numbers: dict[str, Any] = field(default_factory=dict)
    _asked_before: int = field(default_factory=lambda: len(_asked))

    def set(self, **numbers: Any) -> None:
        """Note numbers, each under its name."""
        self.numbers.update({name: round(value, 3) if isinstance(value, float) else value
                             for name, value in numbers.items()})  # fmt: skip

    def add(self, **numbers: int) -> None:
        """Add to numbers that begin at 0."""
        for name, value in numbers.items():
            self.numbers[name] = self.numbers.get(name, 0) + value

    def write(self) -> None:
        """Append them to the file."""
        path = figures_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        full = all(_asked[self._asked_before :])
        record = {"id": self.id, "test": self.test, "full": full, "seed": self.seed, **self.numbers}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def line(self) -> str:
        """For the terminal."""
        told = ", ".join(f"{name} {value}" for name, value in self.numbers.items())
        return f"{self.id} seed {self.seed}: {told}"

"""How many lines a kind of refusal may have in the log: whoever can connect can cause them."""

from __future__ import annotations

from collections.abc import Callable

LINES = 60
SECONDS = 60.0


class LineBudget:
    """So many lines a minute of each kind; the figures count what is not told."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._begun: dict[str, float] = {}
        self._lines: dict[str, int] = {}

    def take(self, kind: str) -> bool:
        """Whether there is a line left for `kind`, one of a fixed set of words; it is taken if so."""
        now = self._monotonic()
        if now - self._begun.get(kind, float("-inf")) >= SECONDS:
            self._begun[kind], self._lines[kind] = now, 0
        self._lines[kind] += 1
        return self._lines[kind] <= LINES

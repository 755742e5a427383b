"""What a module of figures offers: for each fact what counts it, its level in the log, and its line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, Counter

TICK_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.0)

Figures = TypeVar("Figures")
Handlers: TypeAlias = dict[type[Any], tuple[Callable[[Figures, Any], None], int, str]]


def counter(
    registry: CollectorRegistry, name: str, help_text: str, label: str = "", values: Iterable[str] = ()
) -> Counter:
    """A counter; every value of its label is there from the start, so that the first increase shows as one."""
    made = Counter(f"jobtrail_{name}", help_text, (label,) if label else (), registry=registry)
    for value in values:
        made.labels(value)
    return made

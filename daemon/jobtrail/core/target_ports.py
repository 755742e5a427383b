"""Which daemons there are to be scraped, as the store knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class TargetFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which daemons to name; None is any."""

    cluster: str | None = None
    partition: str | None = None


class ScrapeTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has, or should have, a daemon. Without a `state`, Slurm has told nothing of it: its daemon has."""

    node: str
    cluster: str | None = None
    state: str | None = None  # Slurm's base state in small letters
    flags: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()


class TargetReader(Protocol):
    """What is held of nodes and of the daemons that wrote of late."""

    async def targets(self, wanted: TargetFilter) -> Sequence[ScrapeTarget]:
        """All that match, by cluster and node. Raises StoreUnavailable."""
        ...

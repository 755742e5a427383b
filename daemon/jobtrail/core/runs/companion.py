"""Who measures more of the same runs beside the sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from jobtrail.core.energy.node import Ended
from jobtrail.core.ports import OpenRun
from jobtrail.domain.events import NodeUsage


class Companion(Protocol):
    """Who measures GPUs and energy of the same runs, and adds what is known of them to the usage that is reported."""

    def opened(self, run: OpenRun) -> None:
        """A run began on this node."""
        ...

    def closed(self, ref: str, ended_us: int) -> None:
        """A run is over; its last measurement comes later."""
        ...

    def so_far(self, ref: str, usage: NodeUsage) -> NodeUsage:
        """The usage of a run that goes on."""
        ...

    async def ended(self, ended: Mapping[str, Ended]) -> None:
        """Measure what runs used that are over. Takes a second at most."""
        ...

    def final(self, ref: str, usage: NodeUsage) -> NodeUsage:
        """The usage of a run that is over; nothing is asked about it any more."""
        ...

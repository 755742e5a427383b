"""The server role's watch over the cluster's nodes: asks Slurm for them at a steady pace, shows and stores them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from jobtrail.core.board import Board
from jobtrail.core.facts import ChoreFailed, Observer, SlurmAnswered, SlurmAskFailed
from jobtrail.core.ports import Clock, NodeStore, SlurmController
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import SlurmError, StoreRefused, StoreUnavailable
from jobtrail.domain.slurm import NodeRecord

STALE_PERIODS = 3


class NodeWatcher:
    """Asks every `seconds`. A store that is away costs the stored rows alone: the board has what Slurm said."""

    def __init__(
        self,
        controller: SlurmController,
        store: NodeStore,
        *,
        board: Board,
        clock: Clock,
        tell: Observer,
        cluster_of: Callable[[], Awaitable[str | None]],
        seconds: float,
    ) -> None:
        """`cluster_of`: the name of the cluster asked; None while it is unknown, and then nothing is stored."""
        self._controller = controller
        self._store = store
        self._board = board
        self._clock = clock
        self._tell = tell
        self._cluster_of = cluster_of
        self._seconds = seconds
        self._stale_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`."""
        while not stop.is_set():
            await self.turn()
            await wait_for_any(stop.wait(), timeout_seconds=self._seconds)

    async def turn(self) -> None:
        """Ask once. What Slurm said three periods ago is no longer shown: values that old say nothing of now."""
        asked_us = self._clock.time_us()
        try:
            told = await self._controller.nodes()
        except SlurmError as error:
            self._tell(SlurmAskFailed(question="nodes", reason=str(error)))
            if self._clock.monotonic() >= self._stale_at:
                self._board.cluster_nodes = None
            return
        self._stale_at = self._clock.monotonic() + STALE_PERIODS * self._seconds
        nodes = tuple({node.name: node for node in told}.values())  # a name twice would spoil page and rows alike
        self._board.cluster_nodes = nodes
        self._tell(SlurmAnswered(question="nodes", records=len(nodes)))
        await self._keep(nodes, asked_us)

    async def _keep(self, nodes: Sequence[NodeRecord], asked_us: int) -> None:
        try:
            if (cluster := await self._cluster_of()) is not None:
                await self._store.write_nodes(cluster, nodes, asked_us=asked_us)
        except (StoreUnavailable, StoreRefused) as error:
            self._tell(ChoreFailed(reason=f"the nodes were not stored: {error}"))

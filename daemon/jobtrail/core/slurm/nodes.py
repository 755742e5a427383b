"""The server role's watch over the cluster's nodes: asks Slurm for them at a steady pace, shows and stores them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from jobtrail.core.facts import ChoreFailed, Observer, SlurmAnswered, SlurmAskFailed
from jobtrail.core.ports import Clock, NodeStore, SlurmController
from jobtrail.core.runs.board import Board
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import SlurmError, StoreRefused, StoreUnavailable
from jobtrail.domain.slurm import NodeRecord

STALE_PERIODS = 3
FOLLOWING_SECONDS = 5.0  # how often who does not lead looks whether it does now


class NodeWatcher:
    """Asks every `seconds`, where this daemon leads; elsewhere it asks and shows nothing.

    A store that is away costs the stored rows alone: who led goes on to ask, and the board has what Slurm said.
    """

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
        leads: Callable[[], Awaitable[bool]],
    ) -> None:
        """`cluster_of`: the name of the cluster asked; None while it is unknown, and then nothing is stored.

        `leads`: whether this daemon, of all that could, is the one that asks; may raise StoreUnavailable.
        """
        self._controller = controller
        self._store = store
        self._board = board
        self._clock = clock
        self._tell = tell
        self._cluster_of = cluster_of
        self._seconds = seconds
        self._leads = leads
        self._leading = self._in_doubt = False
        self._stale_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`."""
        while not stop.is_set():
            await self.turn()
            pause = self._seconds if self._leading else min(self._seconds, FOLLOWING_SECONDS)
            await wait_for_any(stop.wait(), timeout_seconds=pause)

    async def turn(self) -> None:
        """Ask once. What Slurm said three periods ago is no longer shown: values that old say nothing of now."""
        if not await self._is_to_ask():
            self._board.cluster_nodes = None
            return
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

    async def _is_to_ask(self) -> bool:
        """Whether this daemon leads; while the store cannot tell, whether it did. Told once, as it may last."""
        try:
            self._leading = await self._leads()
            self._in_doubt = False
        except StoreUnavailable as error:
            if not self._in_doubt:
                self._tell(ChoreFailed(reason=f"which daemon is to ask for the nodes is not known: {error}"))
            self._in_doubt = True
        return self._leading

    async def _keep(self, nodes: Sequence[NodeRecord], asked_us: int) -> None:
        try:
            if (cluster := await self._cluster_of()) is not None:
                await self._store.write_nodes(cluster, nodes, asked_us=asked_us)
        except (StoreUnavailable, StoreRefused) as error:
            self._tell(ChoreFailed(reason=f"the nodes were not stored: {error}"))

"""Works out what becomes of reported benchmarks: their jobs, the energy of these, verdicts, and what /metrics shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from jobtrail.core.benchmarks.board import BenchmarkBoard
from jobtrail.core.benchmarks.energy import EnergyOfRuns
from jobtrail.core.benchmarks.ports import BenchmarkStore
from jobtrail.core.facts import (
    BenchmarkJudged,
    BenchmarkRefused,
    BenchmarkSeriesShed,
    BenchmarkSettled,
    BenchmarksNotSettled,
    Observer,
)
from jobtrail.core.ports import Clock
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.benchmarks.linking import judge_links
from jobtrail.domain.benchmarks.regression import HISTORY_RUNS, judge
from jobtrail.domain.benchmarks.settling import HistoryRun, JobLink, LinkState, Settlement, UnsettledRun, Verdict
from jobtrail.domain.errors import StoreRefused, StoreUnavailable

DAY_US = 86_400_000_000
MOST_AT_ONCE = 200


class SettlerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and by which limits."""

    seconds: float = 15.0
    max_error_ratio: float = 0.01  # of requests; runs with more failed are not compared
    stale_days: float = 30.0  # gauges of older runs end


class BenchmarkSettler:
    """Settles every `seconds` where this daemon leads; elsewhere it does and shows nothing.

    A store that is away costs the turn, and one run that it does not take costs that run's turn alone.
    """

    def __init__(
        self,
        store: BenchmarkStore,
        *,
        energy: EnergyOfRuns,
        board: BenchmarkBoard,
        clock: Clock,
        tell: Observer,
        leads: Callable[[], Awaitable[bool]],
        settings: SettlerSettings,
    ) -> None:
        """`leads`: whether this daemon, of all that could, is the one that settles; may raise StoreUnavailable."""
        self._store = store
        self._energy = energy
        self._board = board
        self._clock = clock
        self._tell = tell
        self._leads = leads
        self._settings = settings
        self._written: dict[str, Settlement] = {}  # of runs that are still open: what the store has
        self.last_problem: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Settle until `stop`."""
        while not stop.is_set():
            await self.turn()
            await wait_for_any(stop.wait(), timeout_seconds=self._settings.seconds)

    async def turn(self) -> None:
        """Settle what can be, once. While the store is away, /metrics shows what it showed."""
        try:
            if not await self._leads():
                self._board.clear()
                self._written.clear()
                return
            await self._settle_all()
            await self._judge_all()
            await self._show()
            self.last_problem = None
        except StoreUnavailable as error:
            self._tell(BenchmarksNotSettled(reason=str(error), repeated=self.last_problem is not None))
            self.last_problem = str(error)

    async def _settle_all(self) -> None:
        runs = await self._store.unsettled(limit=MOST_AT_ONCE)
        # The store hands out first what was looked at longest ago. Where there is more than it hands out, all have to
        # be written, so that the others get their turn.
        is_all = len(runs) < MOST_AT_ONCE
        self._written = {run.run_uid: self._written[run.run_uid] for run in runs if run.run_uid in self._written}
        for run in runs:
            settlement = await self._settlement(run)
            if is_all and self._written.get(run.run_uid) == settlement:
                continue
            try:
                await self._store.settle(run.run_uid, settlement)
            except StoreRefused as error:
                self._tell(BenchmarkRefused(run_uid=run.run_uid, reason=str(error)))
                continue
            if settlement.open_reason is not None:
                self._written[run.run_uid] = settlement
            else:
                link, reason = _best_link(settlement.links)
                self._tell(BenchmarkSettled(run_uid=run.run_uid, link=link, reason=reason))

    async def _settlement(self, run: UnsettledRun) -> Settlement:
        links = judge_links(run, now_us=self._clock.time_us())
        settlement = msgspec.structs.replace(await self._energy.of_run(run, links), links=links)
        pending = next((link.reason for link in links if link.state is LinkState.PENDING), None)
        return settlement if pending is None else msgspec.structs.replace(settlement, open_reason=pending)

    async def _judge_all(self) -> None:
        for run_uid in await self._store.unjudged(limit=MOST_AT_ONCE):
            history = await self._store.history(run_uid, limit=HISTORY_RUNS)
            if not history or history[-1].run_uid != run_uid:  # it went while we asked
                continue
            gates = await self._store.gates(run_uid)
            verdicts = judge(history, gates, max_error_ratio=self._settings.max_error_ratio)
            try:
                await self._store.write_verdicts(verdicts)
            except StoreRefused as error:
                self._tell(BenchmarkRefused(run_uid=run_uid, reason=str(error)))
                continue
            self._tell_new(verdicts, history)

    def _tell_new(self, verdicts: Sequence[Verdict], history: Sequence[HistoryRun]) -> None:
        held = {run.run_uid: run.verdicts for run in history}
        for one in verdicts:
            if not one.advisory and held[one.run_uid].get((one.metric, one.stat)) != one.verdict:
                self._tell(
                    BenchmarkJudged(
                        run_uid=one.run_uid,
                        metric=one.metric,
                        stat=one.stat,
                        verdict=one.verdict,
                        relative_change=one.relative_change,
                        confirmed_by=one.confirmed_by,
                    )
                )

    async def _show(self) -> None:
        after_us = self._clock.time_us() - round(self._settings.stale_days * DAY_US)
        runs = await self._store.last_valid_runs(ended_after_us=after_us, limit=self._board.wanted)
        if shed := self._board.show([run for run in runs if run.ended_us > after_us]):
            self._tell(BenchmarkSeriesShed(series=shed))


def _best_link(links: Sequence[JobLink]) -> tuple[str, str]:
    """The state of the best link, and why it is no better."""
    for state in (LinkState.LINKED, LinkState.CONFLICT):
        if (link := next((one for one in links if one.state is state), None)) is not None:
            return str(state), link.reason or ""
    return "none", ""

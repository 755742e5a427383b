"""AMD GPUs as a GpuSource: looks made in a thread that can be left behind.

A read of sysfs goes into the driver and can hang there in a way that no signal ends (a card that fell off the bus, a
reset that does not return). So each look has a thread of its own and a deadline. When it passes, the thread is left
where it is and its card counts as stuck: it is not asked again until that read returns, and its values are absent
meanwhile. There is so at most one such thread per card. They are daemon threads, which asyncio.to_thread's are not: the
interpreter does not wait for them when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from jobtrail.adapters.amdgpu.cards import VENDOR, Card, find_cards
from jobtrail.adapters.amdgpu.files import NO_ANSWER, NOT_REACHED
from jobtrail.adapters.amdgpu.processes import read_processes
from jobtrail.adapters.amdgpu.values import read_card, unread
from jobtrail.domain.gpus import GpuLook, GpuReading

NOT_LISTED = "the processes of this card are not listed"


def _wall_clock_us() -> int:
    return time.time_ns() // 1_000


class _Round:
    """One look, in a thread. What it has found so far can be taken from it at any time."""

    def __init__(self, sys: str, stuck: Collection[str], clock_us: Callable[[], int]) -> None:
        self._sys = sys
        self._stuck = frozenset(stuck)
        self._clock_us = clock_us
        self._wake: Callable[[], object] = lambda: None
        self._door = threading.Lock()
        self._asking = ""  # the card that is being read
        self._left = False
        self.cards: list[Card] = []
        self.readings: dict[str, GpuReading] = {}
        self.thread = threading.Thread(target=self._run, name="jobtrail-amdgpu", daemon=True)

    def start(self, wake: Callable[[], object]) -> None:
        """Begin; `wake` is called from the thread when it is through, unless it was left."""
        self._wake = wake
        self.thread.start()

    def leave(self) -> str:
        """Wait no more. Returns the card at which the thread is, which is the last it asks; empty for none."""
        with self._door:
            self._left = True
            return self._asking

    def _goes_on(self, card: str) -> bool:
        with self._door:
            self._asking = card
            return not self._left

    def _run(self) -> None:
        try:
            cards = find_cards(self._sys)
            processes = read_processes(self._sys) if cards else {}
            self.cards = cards
            for card in cards:
                if card.gpu.gpu_id in self._stuck:
                    continue
                if not self._goes_on(card.gpu.gpu_id):
                    return
                using = processes if isinstance(processes, str) else processes.get(card.gpu.minor or -1, NOT_LISTED)
                self.readings[card.gpu.gpu_id] = read_card(card, using, self._clock_us())
        finally:
            if self._goes_on(""):
                with contextlib.suppress(RuntimeError):  # the loop was closed in this moment
                    self._wake()


class AmdGpuSource:
    """GpuSource from sysfs under `root`. A look takes a few milliseconds per card, and never more than its deadline."""

    def __init__(
        self,
        root: Path = Path("/sys"),
        *,
        deadline_seconds: float = 2.0,
        clock_us: Callable[[], int] = _wall_clock_us,
    ) -> None:
        self._sys = str(root)
        self._deadline_seconds = deadline_seconds
        self._clock_us = clock_us
        self._door = asyncio.Lock()
        self._left: dict[str, threading.Thread] = {}  # the card a thread was left at; "" for the search for cards

    @property
    def stuck(self) -> tuple[str, ...]:
        """The cards whose last read has not returned."""
        return tuple(sorted(at for at, thread in self._left.items() if at and thread.is_alive()))

    async def look(self) -> GpuLook:
        """One look at all cards. One that does not answer costs the deadline once, and then nothing. Never raises."""
        async with self._door:
            began, time_us = time.perf_counter(), self._clock_us()
            self._left = {at: thread for at, thread in self._left.items() if thread.is_alive()}
            if "" in self._left:
                return self._nothing(time_us, began)
            one = _Round(self._sys, self._left, self._clock_us)
            await self._run(one)
            readings = tuple(self._reading(one, card, time_us) for card in one.cards)
            if not readings:
                return self._nothing(time_us, began)
            seconds = time.perf_counter() - began
            return GpuLook(vendor=VENDOR, time_us=time_us, readings=readings, seconds=seconds)

    async def close(self) -> None:
        """Nothing is held open between looks, so there is nothing to let go."""

    async def _run(self, one: _Round) -> None:
        """Wait for a round until its deadline; leave its thread behind when it passes, or when nobody waits for it."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        one.start(lambda: loop.call_soon_threadsafe(done.set))
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await done.wait()
        except TimeoutError:
            pass
        finally:
            if not done.is_set():
                self._left[one.leave()] = one.thread

    def _nothing(self, time_us: int, began: float) -> GpuLook:
        """A look that found no card, and why: `hung` or `no_driver`."""
        hangs = "" in self._left
        problem, why = ("hung", NO_ANSWER) if hangs else ("no_driver", "no AMD card that amdgpu drives")
        return GpuLook(
            vendor=VENDOR,
            time_us=time_us,
            problem=problem,
            detail=f"{self._sys}/class/drm: {why}",
            seconds=time.perf_counter() - began,
        )

    def _reading(self, one: _Round, card: Card, time_us: int) -> GpuReading:
        reading = one.readings.get(card.gpu.gpu_id)
        if reading is not None:
            return reading
        return unread(card, NO_ANSWER if card.gpu.gpu_id in self._left else NOT_REACHED, time_us)

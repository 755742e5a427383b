"""NVIDIA GPUs of this node, for the daemon. Nothing here waits for a driver longer than a look may take."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.capabilities import Capabilities
from jobtrail.adapters.nvml.child import Answer, Child, Ended, pynvml_directory
from jobtrail.domain.gpus import GpuLook, GpuReading

VENDOR = "nvidia"
KILLED_SECONDS = 0.5  # a killed process that has not ended by then waits in the kernel
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 300.0
NO_DRIVER_DELAY_SECONDS = 600.0
AVOID_SECONDS = 600.0  # how long a call that hung is left out
STEADY_SECONDS = 60.0  # a reader that lived that long did not fail from the start
REOPEN_SECONDS = 60.0  # a GPU that was lost and reset is found only by an NVML opened afterwards
SLOW_LOOKS = 3  # as many looks in a row that end in no answer end the reader
_RARE = frozenset({words.NO_LIBRARY, words.DRIVER_NOT_LOADED, words.NO_BINDING})


class _NoLook(Exception):
    """Nothing could be read. `problem` is one of `words.PROBLEMS`."""

    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail


class NvmlGpus:
    """NVIDIA GPUs, read through NVML in a child process. Implements GpuSource.

    The child is started when first needed. A look ends after `deadline_seconds`; a child that was in one call for half
    of that is killed, and the call left out for 10 minutes, so that the next look has all the rest. Opening the driver
    may take `start_seconds`, over several looks (without persistence mode it initialises each GPU anew). After a
    failure the child is started again with growing delays, and at once when the driver under `root` (/dev, /proc) has
    changed. As long as the child runs, GPUs can be neither reset nor the driver unloaded: `close` lets them go.
    `library_directory` is where libnvidia-ml.so.1 lies, if not where ld.so(8) looks.
    """

    def __init__(
        self,
        *,
        root: Path = Path("/"),
        library_directory: Path | None = None,
        deadline_seconds: float = 2.0,
        start_seconds: float = 60.0,
        killed_seconds: float = KILLED_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._library_directory = library_directory
        self._deadline_seconds = deadline_seconds
        self._start_seconds = start_seconds
        self._killed_seconds = killed_seconds
        self._monotonic = monotonic
        self._one_at_a_time = asyncio.Lock()
        self._child: Child | None = None
        self._pending: asyncio.Future[Answer] | None = None  # what the child was asked last and has not answered
        self._is_open = False
        self._slow = 0
        self._missing_since: float | None = None  # a GPU is lost or could not be opened
        self._killed: Child | None = None  # and not yet seen to end
        self._failures = 0
        self._not_before = 0.0
        self._why: _NoLook | None = None
        self._driver: str | None = None  # as it was when a reader last failed
        self._avoid: dict[tuple[int, str], float] = {}
        self._last: tuple[GpuReading, ...] = ()
        self._capabilities = Capabilities(root)
        self.started = 0  # readers started so far

    @property
    def child_pid(self) -> int | None:
        """The process id of the reader; None while there is none."""
        return None if self._child is None else self._child.pid

    async def look(self) -> GpuLook:
        """One look at all GPUs, within the deadline; what cannot be read is absent, with the reason. Never raises."""
        async with self._one_at_a_time:
            began = time.monotonic()
            time_us = time.time_ns() // 1000
            try:
                answer = await self._answer(began + self._deadline_seconds)
            except _NoLook as no:
                seconds = time.monotonic() - began
                return GpuLook(vendor=VENDOR, time_us=time_us, problem=no.problem, detail=no.detail, seconds=seconds)
            self._last = (*self._capabilities.complete(answer.readings), *self._unopened(answer, time_us))
            return GpuLook(
                vendor=VENDOR,
                time_us=time_us,
                readings=self._last,
                detail="; ".join(f"GPU {index} cannot be opened: {why}" for index, why in answer.unopened.items())
                or None,
                seconds=time.monotonic() - began,
            )

    async def close(self) -> None:
        """Let the driver go, so that it can be unloaded. A later look begins anew."""
        async with self._one_at_a_time:
            child, self._child, self._pending = self._child, None, None
            self._why = None
            self._failures = 0
            if child is not None:
                self._killed = child
                child.hang_up()
                if not await child.ended(self._deadline_seconds):
                    child.kill()
            if self._killed is not None:
                with contextlib.suppress(_NoLook):
                    await self._bury(self._killed)

    async def _answer(self, deadline: float) -> Answer:
        """The child's answer to a question put now. Raises _NoLook."""
        driver = self._driver_now()
        if driver is None:
            await self._drop()
            raise _NoLook(
                words.NO_DRIVER,
                f"neither {self._root / 'dev/nvidiactl'} nor {self._root / 'proc/driver/nvidia'} is there",
            )
        if self._child is None:
            await self._start(driver)
        assert self._child is not None
        child = self._child
        if self._pending is not None:
            # Opening the driver; or an earlier look, whose values would be old.
            await self._wait(child, self._pending, deadline)
            self._is_open = True
        self._pending = child.ask(look=True, anew=self._is_to_be_opened_anew(), avoid=self._avoided())
        answer = await self._wait(child, self._pending, deadline)
        missing = answer.unopened or any(words.LOST in reading.absent.values() for reading in answer.readings)
        if not missing:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = self._monotonic()
        return answer

    def _is_to_be_opened_anew(self) -> bool:
        now = self._monotonic()
        if self._missing_since is None or now - self._missing_since < REOPEN_SECONDS:
            return False
        self._missing_since = now
        return True

    def _driver_now(self) -> str | None:
        """What tells one life of the driver from another; None where there is no driver."""
        try:
            return (self._root / "proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        except OSError:
            # A container may have the device files alone.
            return "" if (self._root / "dev/nvidiactl").exists() else None

    async def _start(self, driver: str) -> None:
        """Start a child unless the last one failed just now. Raises _NoLook."""
        if self._why is not None and self._monotonic() < self._not_before and driver == self._driver:
            raise _NoLook(self._why.problem, self._why.detail)
        if self._killed is not None:
            await self._bury(self._killed)
        binding = pynvml_directory()
        if binding is None:
            raise self._failed(words.NO_BINDING, "the Python package nvidia-ml-py is not installed", driver)
        try:
            self._child = await Child.start(binding, self._library_directory)
        except OSError as error:
            raise self._failed(words.CRASHED, f"the reader cannot be started: {error}", driver) from error
        self.started += 1
        self._is_open = False
        self._pending = self._child.ask(look=False, anew=False, avoid=self._avoided())

    async def _wait(self, child: Child, asked: asyncio.Future[Answer], deadline: float) -> Answer:
        """What was answered before the deadline. Raises _NoLook, having killed a child that hangs."""
        await asyncio.wait({asked}, timeout=max(0.0, deadline - time.monotonic()))
        if not asked.done():
            raise await self._late(child)
        try:
            answer = asked.result()
        except Ended as ended:
            raise await self._lost(child, words.CRASHED, f"the reader did not answer: {ended}") from None
        self._pending = None
        self._slow = 0
        if answer.problem is not None:
            raise await self._lost(child, answer.problem, answer.detail or answer.problem)
        return answer

    async def _late(self, child: Child) -> _NoLook:
        """What to say when there was no answer in time: a call hangs, or many are slow."""
        call = child.current_call()
        if not self._is_open and time.monotonic() - child.began < self._start_seconds:
            return _NoLook(words.STARTING, f"the driver is being opened, now in {call.name if call else 'no call'}")
        self._slow += 1
        if self._is_open and (call is None or call.seconds < self._deadline_seconds / 2) and self._slow < SLOW_LOOKS:
            return _NoLook(words.SLOW, f"a look at all GPUs takes longer than {self._deadline_seconds:g} s")
        self._slow = 0
        if call is None:
            return await self._lost(child, words.HUNG, f"the reader did not answer within {self._deadline_seconds:g} s")
        if call.gpu is not None or call.name.startswith("nvmlEventSet"):
            self._leave_out(words.NO_GPU if call.gpu is None else call.gpu, call.name)
        of = "" if call.gpu is None else f" of GPU {call.gpu}"
        return await self._lost(child, words.HUNG, f"{call.name}{of} did not return within {call.seconds:.1f} s")

    def _leave_out(self, gpu: int, name: str) -> None:
        """Avoid a call; where another one of the same GPU hung before, avoid them all."""
        again = gpu != words.NO_GPU and any(index == gpu for index, _ in self._avoided())
        self._avoid[(gpu, words.EVERY_CALL if again else name)] = self._monotonic() + AVOID_SECONDS

    def _avoided(self) -> list[tuple[int, str]]:
        now = self._monotonic()
        self._avoid = {key: until for key, until in self._avoid.items() if until > now}
        return list(self._avoid)

    async def _lost(self, child: Child, problem: str, detail: str) -> _NoLook:
        """Be done with a child that failed; returns what to say of it."""
        if time.monotonic() - child.began > STEADY_SECONDS:
            self._failures = 0
        await self._drop()
        return self._failed(problem, detail, self._driver_now() or "")

    def _failed(self, problem: str, detail: str, driver: str) -> _NoLook:
        """Count a failure and set when the next reader may start."""
        self._failures += 1
        delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(self._failures - 1, 20))
        self._not_before = self._monotonic() + (NO_DRIVER_DELAY_SECONDS if problem in _RARE else delay)
        self._driver = driver
        self._why = _NoLook(problem, detail)
        return self._why

    async def _drop(self) -> None:
        """Kill the child, if there is one."""
        child, self._child, self._pending = self._child, None, None
        if child is not None:
            child.kill()
            self._killed = child
            await self._bury(child)

    async def _bury(self, child: Child) -> None:
        """Wait for a killed child. Raises _NoLook while it does not end: another one would only hang beside it."""
        if not await child.ended(self._killed_seconds):
            self._killed = child
            raise _NoLook(words.STUCK, f"the reader, process {child.pid}, was killed and waits in the kernel")
        await child.release()
        self._killed = None

    def _unopened(self, answer: Answer, time_us: int) -> Iterator[GpuReading]:
        """Readings without values of GPUs known from before that cannot be opened now."""
        for index, why in answer.unopened.items():
            boards = [reading.gpu for reading in self._last if _is_board(reading, index)]
            for known in boards:
                absent = dict.fromkeys(words.ALL_VALUES, why)
                yield GpuReading(gpu=known, time_us=time_us, absent=absent)


def _is_board(reading: GpuReading, index: int) -> bool:
    return reading.gpu.index == index and reading.gpu.parent_gpu_id is None

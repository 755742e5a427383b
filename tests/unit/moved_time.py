"""An event loop whose time is moved, not waited for.

When nothing is ready to run, a loop sleeps until its next timer. This one moves the fake clock there instead, so a test
of an hour takes milliseconds and the order of events is the same every time. Work for threads is done in place.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tests.fakes import FakeClock

Result = TypeVar("Result")
MAX_STEPS = 100_000


class StuckError(AssertionError):
    """The test waits for something that can never happen, or loops without time passing."""


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock
        self._steps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        self._steps += 1
        if self._steps > MAX_STEPS:
            self._steps = 0  # the loop needs some more turns to cancel its tasks
            raise StuckError(f"still busy after {MAX_STEPS} turns of the loop: a hot loop")
        if not ready:
            if timeout is None:
                raise StuckError("every task waits, and no timer will wake any of them")
            self._clock.advance(timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__(_Selector(clock))
        self._clock = clock
        self.set_default_executor(_InPlace())

    def time(self) -> float:
        return self._clock.monotonic()


class _InPlace(ThreadPoolExecutor):
    """Does the work at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - an executor's duty: the waiter gets it
            future.set_exception(error)
        return future


def run(clock: FakeClock, main: Coroutine[Any, Any, Result]) -> Result:
    """The result of `main`, on a loop whose time is `clock`."""
    with asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        return runner.run(main)

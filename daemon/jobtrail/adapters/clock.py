"""The system's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """Wall time for what people read, steady time for durations (clock_gettime(2))."""

    def time_us(self) -> int:
        """Wall clock, µs since the Unix epoch."""
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

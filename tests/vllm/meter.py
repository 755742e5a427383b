"""A machine's energy counter, for test machines that have none: a file below a root, as Linux shows RAPL."""

from __future__ import annotations

import threading
import time
from pathlib import Path

EVERY_SECONDS = 0.05


class Meter:
    """Counts `watts`, all the time, in <root>/sys/class/powercap/intel-rapl:0 while the `with` block runs."""

    def __init__(self, root: Path, *, watts: float) -> None:
        self._watts = watts
        self._zone = root / "sys" / "class" / "powercap" / "intel-rapl:0"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count, name="meter")
        self._began = self._written = time.monotonic()
        self.oldest_seconds = EVERY_SECONDS
        """The most that the file was ever behind: longer than usual where the machine is busy."""
        self._zone.mkdir(parents=True)
        (self._zone / "name").write_text("package-0\n")
        (self._zone / "max_energy_range_uj").write_text("262143328850\n")
        self._write()

    def _count(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self._write()

    def _write(self) -> None:
        now = time.monotonic()
        self.oldest_seconds = max(self.oldest_seconds, now - self._written)
        self._written = now
        microjoules = round((now - self._began) * self._watts * 1e6)
        new = self._zone.parent / "energy_uj.new"
        new.write_text(f"{microjoules}\n")
        new.replace(self._zone / "energy_uj")  # a reader of the kernel's file never sees a part of a number

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

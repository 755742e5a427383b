"""The watch itself: it must see a daemon that does not answer, and blame none for a machine that is busy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.daemon_process import wait_until
from tests.faults.watch import SLOW_SCRAPE_SECONDS, Watch

BUSY = "import sys\nprint('begun', flush=True)\nwhile True: pass"


def watching(pid: int, place: Path) -> tuple[Watch, socket.socket]:
    """A watch, begun, over a socket that takes connections and never answers."""
    api = place / "api.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(api))
    listener.listen(8)
    watch = Watch(lambda: pid, api, place)
    watch.start()
    return watch, listener


def test_a_daemon_that_does_not_answer_is_seen(place: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    watch, listener = watching(process.pid, place)
    try:
        wait_until(lambda: watch.unanswered, "the watch to see it")
    finally:
        watch.stop()
        listener.close()
        process.kill()
        process.wait()
    assert f"I9: {watch.unanswered} scrapes took more than 2.0 s" in watch.problems(max_bytes=2**30)


def test_one_that_gets_no_processor_is_not_blamed(place: Path) -> None:
    """Ten busy processes share one processor, so the one that is watched had a tenth of the time that passed."""
    pinned = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", BUSY]
    busy = [subprocess.Popen(pinned, stdout=subprocess.PIPE) for _ in range(10)]
    for process in busy:
        assert process.stdout is not None
        process.stdout.readline()
    watch, listener = watching(busy[0].pid, place)
    try:
        long_after = time.monotonic() + 2 * SLOW_SCRAPE_SECONDS + 1
        wait_until(lambda: time.monotonic() > long_after, "time to pass")
        assert watch.unanswered == 0
    finally:
        watch.stop()
        listener.close()
        for process in busy:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

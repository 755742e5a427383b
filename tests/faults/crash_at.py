"""`jobtrail serve` that kills itself when it comes to a given line of its own sources. The sources stay as they are.

Usage: python -m tests.faults.crash_at FILE:LINE[:TIMES]    kill when the line is about to run for the TIMES-th time
       python -m tests.faults.crash_at --record PATH        write each line of the FILES that runs to PATH, once
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from jobtrail.__main__ import main

FILES = tuple(
    f"jobtrail/{name}.py"
    for name in (
        "adapters/spool/journal", "adapters/spool/writer", "adapters/spool/sqlite_spool", "adapters/spool/rows",
        "adapters/spool/runs", "adapters/incoming", "adapters/postgres/sink", "core/forwarder", "core/intake",
    )
)  # fmt: skip


class Crasher:
    """A trace function (sys.settrace) that kills the process at one line."""

    def __init__(self, file: str, line: int, times: int) -> None:
        self._file, self._line, self._left = file, line, times

    def begin(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._step if frame.f_code.co_filename.endswith(self._file) else None

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and frame.f_lineno == self._line:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._step


class Recorder:
    """A trace function that notes which lines run."""

    def __init__(self, path: str) -> None:
        self._seen: set[tuple[str, int]] = set()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def begin(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._step if frame.f_code.co_filename.endswith(FILES) else None

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        file = frame.f_code.co_filename
        if event == "line" and (file, frame.f_lineno) not in self._seen:
            self._seen.add((file, frame.f_lineno))
            short = file[file.rindex("jobtrail/") :]
            os.write(self._descriptor, f"{short}:{frame.f_lineno}\n".encode())
        return self._step


def begin(given: list[str]) -> None:
    if given[0] == "--record":
        tracer: Crasher | Recorder = Recorder(given[1])
    else:
        file, line, *times = given[0].split(":")
        tracer = Crasher(file, int(line), int(times[0]) if times else 1)
    importlib.import_module("jobtrail.app")  # before tracing begins, which would make importing slow
    threading.settrace(tracer.begin)
    sys.settrace(tracer.begin)


if __name__ == "__main__":
    begin(sys.argv[1:])
    sys.argv = ["jobtrail", "serve"]
    sys.exit(main())

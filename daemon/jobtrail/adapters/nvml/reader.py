"""`python -m jobtrail.adapters.nvml.reader PARENT_PID MARKS_FD` answers requests on standard input with looks at GPUs.

A process of its own because a driver can hang or crash whoever calls it. It ends when its standard input does, when its
parent does, and after any answer that says the driver is gone: a new one begins with the library then installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import sys
from typing import Any

from jobtrail.adapters.nvml import words
from jobtrail.adapters.nvml.calls import Calls, DriverGone
from jobtrail.adapters.nvml.session import Session

_PR_SET_PDEATHSIG = 1  # prctl(2)
NICENESS = 5
EXIT_DRIVER_GONE = 3


def main() -> int:
    """Serve until standard input ends; returns the exit status."""
    _die_with_parent()
    with contextlib.suppress(OSError):  # a service may be denied both (systemd.exec(5), SystemCallFilter=~@resources)
        os.nice(NICENESS)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a driver that crashes again and again must fill no disk
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever the driver's library prints must not come between the answers
    marks = mmap.mmap(int(sys.argv[2]), words.MARK_BYTES)
    calls = Calls(marks)
    calls.rest()
    session: Session | None = None
    while (request := _receive()) is not None:
        calls.avoid = frozenset((gpu, name) for gpu, name in request["avoid"])
        try:
            if session is not None and request["anew"]:
                session.close()
                session = None
            if session is None:
                session = Session(calls)
                session.open()
            answer = session.look() if request["look"] else {}
        except DriverGone as gone:
            _send(answers, {"seq": request["seq"], "problem": gone.problem, "detail": gone.detail})
            return EXIT_DRIVER_GONE
        _send(answers, {"seq": request["seq"], **answer})
    if session is not None:
        with contextlib.suppress(DriverGone):
            session.close()
    return 0


def _die_with_parent() -> None:
    """Be killed when the parent ends, even in the middle of a call that hangs."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(0)  # it ended before


def _receive() -> Any:
    """The next request; None at the end of input."""
    head = _read_exactly(words.LENGTH.size)
    if head is None:
        return None
    body = _read_exactly(words.LENGTH.unpack(head)[0])
    return None if body is None else json.loads(body)


def _read_exactly(size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            return None
        data += chunk
    return data


def _send(descriptor: int, answer: dict[str, Any]) -> None:
    body = json.dumps(answer, allow_nan=False).encode()
    rest = memoryview(words.LENGTH.pack(len(body)) + body)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        sys.exit(0)  # the parent is gone

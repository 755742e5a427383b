"""Runs one command, and sees to it that nothing of it outlives whoever started it.

It is started as a plain file, `python -I -S keeper.py SECONDS CMD…`, so it knows only the standard library. Its
standard input is a pipe that nobody writes to: when it closes, because its starter closed it or died, the command is
told to end, and after SECONDS all that is left of it is killed. PR_SET_PDEATHSIG alone would do this for the command,
not for the processes that it started; so the keeper is the "child subreaper" (prctl(2)) of all of them.

It ends as the command ended, once nothing of it is left.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
LOOK_SECONDS = 0.1  # how often it is seen whether those told to end have ended
NOT_STARTED = 127


def main(arguments: list[str]) -> None:
    """Keep the command until it ends or is to end. Does not return."""
    grace_seconds, command = float(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    stops: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the starter decides what they mean
    child = _start(command, libc)
    status = None
    while status is None and not stops:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 1024)
        if 0 in ready and not os.read(0, 1024):
            break
        status = _reap(child, status)
    _end_as(_end_all(child, status, grace_seconds))


def _start(command: list[str], libc: ctypes.CDLL) -> int:
    keeper = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(NOT_STARTED)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored stays so
            signal.signal(number, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execvp(command[0], command)  # noqa: S606 - words, no shell
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _reap(child: int, status: int | None) -> int | None:
    """Take in all that have ended; the wait status of the command itself, once it is among them."""
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            status = ended


def _end_all(child: int, status: int | None, grace_seconds: float) -> int:
    """End what is left and give the command's wait status."""
    _tell(signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while True:
        status = _reap(child, status)
        left = _descendants()
        if not left and status is not None:
            return status
        if time.monotonic() >= deadline:
            _tell(signal.SIGKILL)
        time.sleep(LOOK_SECONDS if left else 0)


def _tell(number: signal.Signals) -> None:
    for pid in _descendants():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _descendants() -> list[int]:
    """All processes below this one, of whatever session; those that ended and wait to be reaped are left out."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if fields[0] not in "ZX":
            parents[int(entry.name)] = int(fields[1])
    found: list[int] = []
    above = {os.getpid()}
    while above:
        above = {pid for pid, parent in parents.items() if parent in above}
        found.extend(above)
    return found


def _end_as(status: int) -> None:
    """End in the way that a wait status tells."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    os._exit(128 - code)


if __name__ == "__main__":
    main(sys.argv[1:])

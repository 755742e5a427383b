"""Runs each check in a process of its own, which is killed at its deadline.

A file on a server that is gone, a driver that hangs or a name that nobody resolves holds a process in a call that no
exception ends; here it costs that one check its answer. A process that not even SIGKILL ends (waiting in the kernel) is
left behind and not waited for.
"""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress

import msgspec

from jobtrail.cli.doctor.findings import Check, Finding, Place, Saying

AT_ONCE = 4  # checks mostly wait
_findings = msgspec.json.Decoder(list[Finding])


class _Running(msgspec.Struct, kw_only=True):
    name: str
    pid: int
    pipe: int
    ends: float
    said: bytearray


def run_all(checks: Mapping[str, Check], place: Place, *, seconds: float) -> Iterator[list[Finding]]:
    """The findings of each check, in their order; each has `seconds`."""
    waiting = list(checks.items())
    running: dict[str, _Running] = {}
    done: dict[str, list[Finding]] = {}
    told = 0
    names = list(checks)
    while told < len(names):
        while waiting and len(running) < AT_ONCE:
            name, check = waiting.pop(0)
            running[name] = _start(name, check, place, seconds)
        _look(running, done, seconds)
        while told < len(names) and names[told] in done:
            yield done[names[told]]
            told += 1


def _look(running: dict[str, _Running], done: dict[str, list[Finding]], seconds: float) -> None:
    """Wait for news of any of them, or for the next deadline."""
    by_pipe = {one.pipe: one for one in running.values()}
    left = max(0.0, min(one.ends for one in running.values()) - time.monotonic())
    ready, _, _ = select.select(list(by_pipe), [], [], left)
    for pipe in ready:
        one = by_pipe[pipe]
        if chunk := os.read(pipe, 65_536):
            one.said += chunk
        else:
            os.waitpid(one.pid, 0)
            found = _end(one, running)
            done[one.name] = [_odd(one.name)] if found is None else found
    for one in [one for one in running.values() if one.ends <= time.monotonic()]:
        with suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        os.waitpid(one.pid, os.WNOHANG)
        _end(one, running)
        late = f"no answer within {seconds:g} s: the check hung and was ended"
        remedy = "find out what it waits for (a file server, a driver, a name server); --deadline gives it longer"
        done[one.name] = [Saying(one.name).failure(late, remedy)]


def _end(one: _Running, running: dict[str, _Running]) -> list[Finding] | None:
    """What it said; None where that is nothing that can be understood."""
    os.close(one.pipe)
    del running[one.name]
    try:
        return _findings.decode(bytes(one.said))
    except msgspec.DecodeError:
        return None


def _odd(name: str) -> Finding:
    return Saying(name).failure("the check itself failed", "run it with --only and report what it prints")


def _start(name: str, check: Check, place: Place, seconds: float) -> _Running:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _work(name, check, place, writing)
    os.close(writing)
    with suppress(OSError):  # the child does the same; whoever is first
        os.setpgid(pid, pid)
    return _Running(name=name, pid=pid, pipe=reading, ends=time.monotonic() + seconds, said=bytearray())


def _work(name: str, check: Check, place: Place, pipe: int) -> None:
    """The child's life. It never returns, and never runs what its parent would at its end."""
    status = 1
    try:
        os.setpgid(0, 0)
        findings = check(place)
        with os.fdopen(pipe, "wb") as out:
            out.write(msgspec.json.encode(findings))
        status = 0
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        problem = f"cannot be looked at: {error.strerror or error}{where}"
        finding = Saying(name).unchecked(problem, "run it as root, and see whether that file is there")
        with os.fdopen(pipe, "wb") as out:
            out.write(msgspec.json.encode([finding]))
        status = 0
    except Exception:  # noqa: BLE001 - the boundary of a process: a mistake costs one check, not the others
        traceback.print_exc()
    finally:
        os._exit(status)

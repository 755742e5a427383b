"""Runs a hook as slurmd does: an environment of its own, no PATH, and a close look at what it leaves behind."""

import os
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

HOOKS = Path(__file__).resolve().parents[2] / "hooks" / "slurm"
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
FORWARDING = ("prolog", "epilog", "prolog_slurmctld", "epilog_slurmctld")
PROMISED_SECONDS = 2.0  # what test_limits.py adds a hook's own limits up to, to the millisecond
STALLED_SECONDS = 8.0  # beside that: for the time in which a busy machine gives a process neither processor nor disk
MOMENT_SECONDS = 8.0  # likewise; what a hook would leave behind here sleeps for longer, or hangs for ever
FORWARDED = (b"SLURM_", b"SLURMD_", b"CUDA_", b"GPU_", b"ROCR_", b"ZE_")

Environment: TypeAlias = dict[str, str | bytes]


@dataclass(frozen=True)
class HookRun:
    """How a hook ended. `orphans` is true where a process that it started outlived it by more than a moment."""

    status: int
    seconds: float
    printed: bytes
    orphans: bool


@dataclass(frozen=True)
class SpoolFile:
    """A file of the incoming directory, taken apart."""

    name: str
    mode: int
    header: dict[str, str]
    body: bytes


def run_hook(
    argv: list[str],
    environment: Environment,
    *,
    during: Callable[[int], None] = lambda _: None,
    then: Callable[[], None] = lambda: None,
) -> HookRun:
    """Run `argv` and wait for it.

    `during` is called with its process group's id while it runs; `then` when it has ended, before its children are
    looked for.

    Every descendant inherits the writing end of a pipe, so the reading end comes to its end exactly when the last of
    them is gone, whatever its process group or session.
    """
    watch, held = os.pipe()
    began = time.monotonic()
    process = subprocess.Popen(
        argv,
        env={key: os.fsencode(value) for key, value in environment.items()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(held,),
        start_new_session=True,
    )
    os.close(held)
    try:
        during(process.pid)
        printed, _ = process.communicate(timeout=60)
        seconds = time.monotonic() - began
        then()
        ended, _, _ = select.select([watch], [], [], MOMENT_SECONDS)
    finally:
        os.close(watch)
        if process.poll() is None:
            process.kill()
            process.wait()
    return HookRun(process.returncode, seconds, printed, orphans=not ended)


def assert_harmless(run: HookRun) -> None:
    """Assert what must hold after every run: status 0, soon, silent, nothing left behind."""
    assert run.printed == b""
    assert run.status == 0
    assert run.seconds < PROMISED_SECONDS + STALLED_SECONDS
    assert not run.orphans


def records(body: bytes) -> list[bytes]:
    """The records of a NUL-terminated body, sorted: their order is the shell's own choice."""
    if not body:
        return []
    assert body.endswith(b"\0")
    return sorted(body[:-1].split(b"\0"))


def expected_records(environment: Environment) -> list[bytes]:
    """The records of `environment` that a hook must forward, sorted."""
    encoded = ((os.fsencode(key), os.fsencode(value)) for key, value in environment.items())
    return sorted(key + b"=" + value for key, value in encoded if key.startswith(FORWARDED))


def spool_file(path: Path) -> SpoolFile:
    """Take `path` apart: three header records, then the body as it would have been posted."""
    content = path.read_bytes().split(b"\0", 3)
    header = dict(record.decode("ascii").split("=", 1) for record in content[:3])
    return SpoolFile(path.name, path.stat().st_mode & 0o7777, header, content[3])


def incoming(spool: Path) -> list[Path]:
    """All that lies in the incoming directory, temporary names included."""
    return sorted((spool / "incoming").iterdir())


def captured_environment(path: Path) -> Environment:
    """The environment that slurmd gave a hook, from a capture made with `env -0`."""
    pairs = (record.split(b"=", 1) for record in path.read_bytes().split(b"\0") if record)
    return {key.decode("ascii"): value for key, value in pairs}

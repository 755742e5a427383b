"""Brings a report to the daemon of this node, or to a place where the daemon will find it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import msgspec

from jobtrail import config as configuration
from jobtrail.cli.bench.manifest import report_body, write_durably
from jobtrail.client_calls import Caller, Unreachable
from jobtrail.config import Config
from jobtrail.domain.benchmarks.report import BenchmarkReport, Repeat, report_event_id
from jobtrail.domain.benchmarks.submitted import MAX_REPORT_BYTES

PATH = "/v1/benchmarks/runs"
PATIENCE_SECONDS = 20.0
ANSWER_SECONDS = 5.0
LOOK_SECONDS = 2.0  # a look is asked for while the benchmark waits
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0


class Fate(StrEnum):
    """What became of a report."""

    RECORDED = "recorded"
    KNOWN = "already known"
    DROPPED = "dropped"  # the daemon will find it
    REFUSED = "refused"  # sending it again will not help
    UNREACHED = "unreached"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a report, and in words."""

    fate: Fate
    detail: str

    @property
    def is_safe(self) -> bool:
        """Whether it is on record, or will be without anybody's doing."""
        return self.fate in (Fate.RECORDED, Fate.KNOWN, Fate.DROPPED)


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where reports go: the daemon's socket, and the directory to leave them in while it is away."""

    socket: str
    drop_directory: str = ""


def places(config: Config, environment: Mapping[str, str]) -> Places:
    """JOBTRAIL_POKE_SOCKET and JOBTRAIL_BENCH_DROP, else as the daemon's settings say.

    Where the daemon has no socket for everybody, as without Slurm, it is the one of the hooks.
    """
    named = environment.get("JOBTRAIL_POKE_SOCKET") or config.poke_socket
    return Places(
        socket=named or environment.get("JOBTRAIL_SOCKET") or config.http.socket,
        drop_directory=environment.get("JOBTRAIL_BENCH_DROP") or config.benchmarks.drop_directory,
    )


def places_of_node(named: Path | None, environment: Mapping[str, str]) -> Places:
    """As `places`, with the settings named, or those of this node; without the file where this user may not read it,
    as it may hold the database's password. Raises ConfigError for settings that are wrong."""
    try:
        path = named or configuration.find_file(environment)
        readable = path is None or os.access(path, os.R_OK, effective_ids=True)
    except PermissionError:  # not even the directory
        path, readable = None, False
    return places(configuration.load(path if readable or named else None, environment), environment)


async def deliver(report: BenchmarkReport, to: Places, *, patience_seconds: float = PATIENCE_SECONDS) -> Delivery:
    """Send a report, for `patience_seconds` while nobody takes it; then leave it in the drop directory."""
    body = fitting_body(report)
    event_id = report_event_id(report.run_uid, body)
    deadline = time.monotonic() + patience_seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        left = deadline - time.monotonic()
        sent = await _post(to.socket, body, event_id, seconds=max(0.5, min(ANSWER_SECONDS, left)))
        if sent.fate is not Fate.UNREACHED:
            return sent
        if time.monotonic() + pause >= deadline:
            return _drop(to.drop_directory, body, event_id, sent.detail)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


async def ask_for_look(to: Places, job_id: str) -> None:
    """Have the daemon read a job's counters now, so that its energy is known at this moment. Nobody minds if not."""
    with suppress(Unreachable):
        async with Caller(socket=to.socket, timeout_seconds=LOOK_SECONDS) as daemon:
            await daemon.call("POST", f"/v1/jobs/{job_id}/look")


def fitting_body(report: BenchmarkReport) -> bytes:
    """The bytes to send: of a report that is too long for the daemon, without the tool's own words on later repeats,
    then on any. The numbers are always there."""
    body = report_body(report)
    for keep in (1, 0):
        if len(body) <= MAX_REPORT_BYTES:
            break
        repeats = (*report.repeats[:keep], *map(_without_words, report.repeats[keep:]))
        body = report_body(msgspec.structs.replace(report, repeats=repeats))
    return body


def _without_words(repeat: Repeat) -> Repeat:
    if repeat.result is None:
        return repeat
    return msgspec.structs.replace(repeat, result=msgspec.structs.replace(repeat.result, raw={}, claims={}))


async def _post(socket: str, body: bytes, event_id: str, *, seconds: float) -> Delivery:
    try:
        async with Caller(socket=socket, timeout_seconds=seconds) as daemon:
            answer = await daemon.call("POST", PATH, body=body, headers={"Jobtrail-Event-Id": event_id})
    except Unreachable as error:
        return Delivery(fate=Fate.UNREACHED, detail=str(error))
    return _told(answer.status, answer.body, socket)


def _told(status: int, answer: bytes, socket: str) -> Delivery:
    """What an answer means. 404 is that of a daemon that is older than benchmarks."""
    match status:
        case 201:
            return Delivery(fate=Fate.RECORDED, detail=f"recorded by the daemon on {socket}")
        case 200:
            return Delivery(fate=Fate.KNOWN, detail=f"already known to the daemon on {socket}")
        case 404 | 405:
            fate, why = Fate.UNREACHED, f"the daemon on {socket} takes no reports of benchmarks"
        case _:
            again = status in (408, 425, 429) or status >= 500
            fate = Fate.UNREACHED if again else Fate.REFUSED
            why = f"the daemon on {socket} said {status}: {_message(answer)}"
    return Delivery(fate=fate, detail=why)


def _message(answer: bytes) -> str:
    try:
        said = msgspec.json.decode(answer, type=dict[str, object]).get("message")
    except msgspec.MsgspecError:
        said = None
    return str(said) if said else "no reason given"


def _drop(directory: str, body: bytes, event_id: str, problem: str) -> Delivery:
    """Leave it where the daemon looks, which has no capability to read what others may not. Nobody else can list that
    directory or guess the name."""
    if not directory:
        return Delivery(fate=Fate.UNREACHED, detail=problem)
    path = Path(directory) / f"{event_id}.json"
    try:
        write_durably(path, body, mode=0o644)
    except OSError as error:
        return Delivery(fate=Fate.UNREACHED, detail=f"{problem}; cannot write to {directory}: {error.strerror}")
    return Delivery(fate=Fate.DROPPED, detail=f"left for the daemon in {path} ({problem})")

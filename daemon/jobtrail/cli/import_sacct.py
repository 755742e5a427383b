"""`jobtrail import-sacct`: past jobs from what sacct(1) printed.

Each is Slurm's own word on a run, as the server would have had it from sacct, told by a person: event SLURM_REPORTED,
changed_by `cli`, source `sacct-import`. No hook is made up: what only hooks and samples tell stays unknown. The events
are a chain of their own, whose spool lives as long as the import: what was not stored is sent when it is called again.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from jobtrail.adapters.sacct.printed import COMMAND, Batch, read_printed
from jobtrail.cli import exit_codes
from jobtrail.cli.output import console, error_console
from jobtrail.cli.settings import database_url, settings
from jobtrail.config import Config
from jobtrail.domain.errors import InvalidEvent, JobtrailError, StoreUnavailable
from jobtrail.domain.events import Actor, Event, EventKind, encode
from jobtrail.domain.job import Job
from jobtrail.domain.matching import is_news, record_of
from jobtrail.domain.phrases import counted
from jobtrail.domain.slurm import SlurmRecord

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool
    from jobtrail.adapters.spool import SqliteSpool

SOURCE = "sacct-import"
SHOWN_COMPLAINTS = 20


class Tally(msgspec.Struct):
    """What became of the jobs so far."""

    new: int = 0
    better: int = 0  # known, and the file says more
    known: int = 0
    unfinished: int = 0
    rows: int = 0
    complaints: int = 0


def _print_command(wanted: bool) -> None:
    if wanted:
        typer.echo(COMMAND)
        raise typer.Exit


def run_import(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="what sacct printed; - is standard input")],
    cluster: Annotated[str | None, typer.Option(help="the jobs' cluster, where the file does not say")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="read and compare, and store nothing")] = False,
    command: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--command", callback=_print_command, is_eager=True, help="print what makes such a file")
    ] = False,
) -> None:
    """Bring in past jobs from Slurm's accounting.

    It may be called again: what is known is left alone. Jobs that are not over are left to the daemon. The file is made
    on a machine with Slurm, by who may see all jobs, with the command that `--command` prints.
    """
    config = settings(context)
    url = database_url(config)
    try:
        batches = read_printed(_text_of(file))
        tally = asyncio.run(_import(config, url, batches, cluster or config.cluster or None, dry_run))
    except InvalidEvent as error:
        _fail(f"{file}: {error}\nthis prints a file that can be read:\n  {COMMAND}")
        raise typer.Exit(exit_codes.USAGE) from error
    except StoreUnavailable as error:
        _fail(str(error))
        raise typer.Exit(exit_codes.UNREACHABLE) from error
    except JobtrailError as error:
        _fail(str(error))
        raise typer.Exit(exit_codes.FAILED) from error
    _tell(tally, dry_run)
    if tally.complaints:
        raise typer.Exit(exit_codes.FAILED)


def _text_of(file: str) -> str:
    """Raises JobtrailError when it cannot be read. Bytes that are not UTF-8 become the replacement character."""
    if file == "-":
        return sys.stdin.buffer.read().decode("utf-8", "replace")
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise JobtrailError(f"{file} cannot be read: {error.strerror}") from error


async def _import(config: Config, url: str, batches: Iterator[Batch], cluster: str | None, dry_run: bool) -> Tally:
    from jobtrail.adapters.clock import SystemClock
    from jobtrail.adapters.postgres import PostgresSink, close_pool, open_pool
    from jobtrail.adapters.spool import SqliteSpool
    from jobtrail.core.forwarder import Forwarder
    from jobtrail.core.waiting import Backoff
    from jobtrail.domain.chain_beginnings import OF_IMPORT

    clock, node, tally = SystemClock(), config.node_name, Tally()
    pool = await open_pool(url, size=2, timeout_seconds=config.database.timeout_seconds)
    try:
        with tempfile.TemporaryDirectory(prefix="jobtrail-import-") as directory:
            async with SqliteSpool.opened(
                Path(directory) / "spool",
                node=node,
                max_bytes=config.spool.max_bytes,
                keep_forwarded_us=0,
                clock=clock,
                note=OF_IMPORT,
            ) as spool:
                forwarder = Forwarder(
                    spool, PostgresSink(pool), node=node, clock=clock, tell=lambda _fact: None, backoff=Backoff()
                )
                for batch in batches:
                    events = await _events(pool, config, batch, cluster, tally, clock.time_us())
                    if not dry_run and events:
                        await _store(spool, forwarder.drain, events)
                    _progress(batch, tally)
    finally:
        await close_pool(pool, timeout_seconds=2.0)
    return tally


async def _events(
    pool: Pool, config: Config, batch: Batch, cluster: str | None, tally: Tally, now_us: int
) -> list[Event]:
    """What the batch says that the store does not know. Raises InvalidEvent, StoreUnavailable."""
    from jobtrail.adapters.postgres import PostgresRuns

    runs = PostgresRuns(pool, timeout_seconds=config.database.timeout_seconds)
    over = {}
    for record in batch.records:
        if not record.is_final or record.end_time is None:
            tally.unfinished += 1
            continue
        name = record.cluster or cluster
        if name is None:
            raise InvalidEvent("Cluster", "is not among the file's fields; say --cluster NAME")
        over[name, record.job_id, record.submit_time, record.start_time] = record
    events: list[Event] = []
    for name in sorted({key[0] for key in over}):
        records = [record for key, record in over.items() if key[0] == name]
        stored: dict[str, list[Job]] = {}
        for job in await runs.runs_of(name, sorted({record.job_id for record in records})):
            stored.setdefault(job.job_id, []).append(job)
        for record in records:
            known = next((job for job in stored.get(record.job_id, ()) if record_of(job, [record]) is not None), None)
            if known is not None and not is_news(known, record):
                tally.known += 1
                continue
            tally.new += known is None
            tally.better += known is not None
            events.append(_event(record, name, None if known is None else known.run, config.node_name, now_us))
    return events


def _event(record: SlurmRecord, cluster: str, run: int | None, node: str, now_us: int) -> Event:
    return Event(
        kind=EventKind.SLURM_REPORTED,
        event_id=str(uuid.uuid4()),
        time_us=now_us,
        cluster=cluster,
        job_id=record.job_id,
        node=node,
        changed_by=Actor.CLI,
        source=SOURCE,
        sluid=record.sluid,
        run=run,
        slurm=record,
    )


async def _store(spool: SqliteSpool, drain: Callable[[], Awaitable[None]], events: Sequence[Event]) -> None:
    """Put the events in the chain and the chain into the store."""
    for event in events:
        await spool.append(event, hashlib.sha256(encode(event)).digest())
    await drain()


def _progress(batch: Batch, tally: Tally) -> None:
    """On standard error: how far it is, and what could not be read."""
    out = error_console()
    for complaint in batch.complaints:
        tally.complaints += 1
        if tally.complaints <= SHOWN_COMPLAINTS:
            out.print(f"not read: {complaint}", style="yellow", markup=False)
    tally.rows = batch.rows
    if sys.stderr.isatty():
        done = tally.new + tally.better + tally.known + tally.unfinished
        out.print(f"{counted(tally.rows, 'row')} read, {counted(done, 'job')}", end="\r", markup=False)


def _tell(tally: Tally, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    lines = [
        f"{counted(tally.new, 'job')} {would}brought in",
        f"{counted(tally.better, 'known job')} {would}told more of",
        f"{tally.known} known already",
        f"{tally.unfinished} not over yet, left to the daemon",
    ]
    if tally.complaints:
        lines.append(f"{counted(tally.complaints, 'place')} could not be read")
    console().print("\n".join(lines), markup=False)


def _fail(message: str) -> None:
    error_console().print(f"jobtrail import-sacct: {message}", style="red", markup=False)

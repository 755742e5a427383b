"""`jobtrail audit verify|export|evidence`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO
from uuid import UUID

import msgspec
import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.database import ask
from jobtrail.cli.job_argument import JobId
from jobtrail.cli.output import console, error_console, print_json
from jobtrail.cli.settings import settings
from jobtrail.domain.errors import ConfigError
from jobtrail.domain.phrases import counted

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool
    from jobtrail.adapters.signing import PublicKeys
    from jobtrail.config import Config
    from jobtrail.core.trail.ports import Checked
    from jobtrail.domain.checkpoints import Sealed

AnchorFiles = Annotated[
    list[Path] | None,
    typer.Option("--anchors", metavar="FILE", help="checkpoints that a witness kept: a server's file or a node's"),
]
KeyFiles = Annotated[
    list[Path] | None,
    typer.Option("--public-key", metavar="FILE", help="believe this key's signatures; default: audit.public_key_file"),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="default: standard output")]
Cluster = Annotated[str | None, typer.Option(help="in this cluster")]


def verify(
    context: typer.Context,
    full: Annotated[bool, typer.Option("--full", help="everything, not only what is new since the last time")] = False,
    job: Annotated[str | None, typer.Option("--job", metavar="ID", help="only what proves this job's rows")] = None,
    cluster: Cluster = None,
    anchors: AnchorFiles = None,
    public_key: KeyFiles = None,
    record: Annotated[
        bool, typer.Option("--record", help="the next incremental one begins where this one ended")
    ] = False,
    accept_chain: Annotated[
        list[UUID] | None,
        typer.Option("--accept-chain", metavar="ID", help="as a chain in audit.accepted_chains; repeatable"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Recompute the trail, and say what is not as it was.

    Without --full or --job, what is new since the last time. docs/audit.md tells what each finding means.
    """
    config = settings(context)
    try:
        witnessed = _read_anchors(anchors or [])
        keys = _keys(config, public_key or [])
    except ConfigError as error:
        error_console().print(f"jobtrail: {error}", style="red", markup=False)
        raise typer.Exit(exit_codes.USAGE) from error
    job_id = None if job is None else _public_id(job)
    with error_console().status("reading the trail") as status:

        async def run(pool: Pool) -> Checked:
            from jobtrail.adapters.postgres import PostgresVerifier

            verifier = PostgresVerifier(
                pool,
                timeout_seconds=config.database.timeout_seconds,
                keys=keys,
                anchors=witnessed,
                record=record,
                accepted={str(chain) for chain in (*config.audit.accepted_chains, *(accept_chain or ()))},
                progress=lambda rows, seals: status.update(f"{rows:,} rows and {seals:,} checkpoints recomputed"),
            )
            if job_id is not None:
                return await verifier.verify_job(job_id, cluster)
            return await verifier.verify(full=full)

        checked = ask(config, run)
    unknown = job_id is not None and checked.rows == 0
    if as_json:
        print_json(msgspec.to_builtins(checked))
    elif checked.findings or not unknown:
        _show(checked, anchored=len(witnessed))
    if checked.findings:
        raise typer.Exit(exit_codes.FAILED)
    if unknown:
        error_console().print(f"jobtrail: the trail has nothing about {job_id}", style="red", markup=False)
        raise typer.Exit(exit_codes.NOT_FOUND)


def export(context: typer.Context, output: Output = None) -> None:
    """Write the whole trail as lines of JSON.

    Salts are included. It is for archives, and for `scripts/verify_trail.py`, which needs no database.
    """

    def lines(pool: Pool, seconds: float) -> AsyncIterator[dict[str, Any]]:
        from jobtrail.adapters.postgres.export import PostgresExport

        return PostgresExport(pool, timeout_seconds=seconds).trail()

    _write(context, output, lines)


def evidence(context: typer.Context, job_id: JobId, cluster: Cluster = None, output: Output = None) -> None:
    """Write what proves one job's rows.

    That is the rows, and paths to the roots of sealed checkpoints.
    """

    def lines(pool: Pool, seconds: float) -> AsyncIterator[dict[str, Any]]:
        from jobtrail.adapters.postgres.export import PostgresExport

        return PostgresExport(pool, timeout_seconds=seconds).evidence(_public_id(job_id), cluster)

    if _write(context, output, lines) == 1:  # the heading alone
        error_console().print(f"jobtrail: the trail has nothing about {job_id}", style="red", markup=False)
        raise typer.Exit(exit_codes.NOT_FOUND)


def _write(context: typer.Context, output: Path | None, lines: Any) -> int:
    config = settings(context)

    async def run(pool: Pool) -> int:
        return await _pour(lines(pool, config.database.timeout_seconds), output)

    try:
        return ask(config, run)
    except BrokenPipeError:  # whoever read it has enough
        raise
    except OSError as error:
        name = output or "standard output"
        error_console().print(f"jobtrail: {name} cannot be written: {error.strerror}", style="red", markup=False)
        raise typer.Exit(exit_codes.FAILED) from error


async def _pour(lines: AsyncIterator[dict[str, Any]], output: Path | None) -> int:
    """Write the lines; how many. What is half written goes by another name, so that no part is taken for the whole."""
    if output is None:
        return await _pour_into(lines, sys.stdout.buffer)
    half = output.with_name(f"{output.name}.part")
    with await asyncio.to_thread(half.open, "wb") as file:
        half.chmod(0o600)  # it holds the salts
        count = await _pour_into(lines, file)
    half.replace(output)
    return count


async def _pour_into(lines: AsyncIterator[dict[str, Any]], file: BinaryIO) -> int:
    from jobtrail.adapters.postgres.export import encoded

    count = 0
    try:
        async for line in lines:
            file.write(encoded(line))
            count += 1
        file.flush()
    finally:
        if isinstance(lines, AsyncGenerator):
            await lines.aclose()  # while the pool that it reads from is there
    return count


def _public_id(text: str) -> str:
    from jobtrail.adapters.postgres import public_job_id

    return public_job_id(text)


def _read_anchors(paths: list[Path]) -> list[Sealed]:
    from jobtrail.adapters.anchor_file import read_all

    found: list[Sealed] = []
    for path in paths:
        try:
            kept = list(read_all(path))
        except OSError as error:
            raise ConfigError("--anchors", f"{path} cannot be read: {error.strerror}") from error
        if not kept:
            raise ConfigError("--anchors", f"{path} holds no checkpoint, as a server's file or a node's has them")
        found += kept
    return found


def _keys(config: Config, paths: list[Path]) -> PublicKeys | None:
    from jobtrail.adapters.signing import PublicKeys

    configured = [Path(config.audit.public_key_file)] if config.audit.public_key_file else []
    return PublicKeys.load(paths or configured) if paths or configured else None


def _show(checked: Checked, *, anchored: int) -> None:
    out = console()
    for finding in checked.findings:
        out.print(str(finding), style="red", markup=False)
    out.print(summary(checked, anchored=anchored), markup=False)


def summary(checked: Checked, *, anchored: int) -> str:
    """What was looked at, in a line; `anchored`: checkpoints on record outside the database."""
    found = len(checked.findings)
    wrong = f"{counted(found, 'thing')} {'is' if found == 1 else 'are'} wrong" if found else "nothing is wrong"
    removed = f", {counted(checked.removed, 'payload')} removed by order" if checked.removed else ""
    anchors = f", compared with {counted(anchored, 'anchor')}" if anchored else ""
    uncovered = f"{counted(checked.unsealed, 'row')} {'is' if checked.unsealed == 1 else 'are'}"
    return (
        f"{wrong}: {counted(checked.rows, 'row')} of {counted(checked.chains, 'chain')} recomputed, up to checkpoint "
        f"{checked.checkpoint}; {uncovered} not covered by a checkpoint yet{removed}{anchors}"
    )

"""`jobtrail audit keygen|erase|prune|hold`: what people order about the trail."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.database import ask
from jobtrail.cli.output import console, error_console
from jobtrail.cli.settings import settings
from jobtrail.cli.times import moment as parse_moment
from jobtrail.domain.errors import ConfigError, StoreRefused, StoreUnavailable
from jobtrail.domain.phrases import counted

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Pool

Basis = Annotated[str, typer.Option("--basis", help="on what ground, in words; stands in the trail for good")]
Yes = Annotated[bool, typer.Option("--yes", help="without asking")]


def keygen(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="the private key goes there, the public one to FILE.pub")
    ],
) -> None:
    """Make the key that checkpoints are signed with.

    Keep the public part out of the database's reach.
    """
    from jobtrail.adapters.signing import generate

    try:
        signer = generate(path)
    except OSError as error:
        _fail(f"{path} is not written: {error.strerror}")
        raise typer.Exit(exit_codes.FAILED) from error
    console().print(f"key {signer.key_id}: {path} (private, mode 0600), {path}.pub (public)", markup=False)


def erase(
    context: typer.Context,
    user: Annotated[str, typer.Option("--user", help="whose data: a login name, or a name that people signed with")],
    basis: Basis,
    yes: Yes = False,
) -> None:
    """Erase what the trail says of a person.

    Its hashes stay, and a row says that it was erased.
    """
    if not yes:
        _confirm(f"erase everything that is said of {user}?")
    done = _order(context, "audit_erase", user, basis, _actor())
    console().print(
        f"{counted(done['payloads'], 'payload')} erased and {counted(done['runs'], 'run')} given a pseudonym, "
        f"on record in row {done['noted_seq']} of the database's own chain",
        markup=False,
    )


def prune(
    context: typer.Context,
    before: Annotated[
        str,
        typer.Option("--before", metavar="TIME", help="what was received before goes: 2026-01-01, or 365d"),
    ],
    basis: Annotated[str, typer.Option("--basis", help="on what ground; stands in the trail")] = "retention",
    anchors: Annotated[
        Path | None, typer.Option("--anchors", metavar="FILE", help="the witness; default: audit.anchor_file")
    ] = None,
    payloads_only: Annotated[bool, typer.Option("--payloads-only", help="keep the rows with their hashes")] = False,
    yes: Yes = False,
) -> None:
    """Remove old rows that lie under an anchored checkpoint.

    A row says where each chain begins now.
    """
    from jobtrail.adapters.anchor_file import read_all

    moment = parse_moment(before, "--before")
    assert moment is not None
    config = settings(context)
    path = anchors or (Path(config.audit.anchor_file) if config.audit.anchor_file else None)
    if path is None:
        _fail("nothing is pruned without an anchor: name a file with --anchors, or set audit.anchor_file")
        raise typer.Exit(exit_codes.USAGE)
    try:
        anchor = max(read_all(path), key=lambda one: one.checkpoint.number, default=None)
    except OSError as error:
        _fail(f"{path} cannot be read: {error.strerror}")
        raise typer.Exit(exit_codes.USAGE) from error
    if anchor is None:
        _fail(f"{path} holds no checkpoint")
        raise typer.Exit(exit_codes.USAGE)
    if not yes:
        _confirm(f"remove what was received before {moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC?")
    number, digest = anchor.checkpoint.number, anchor.checkpoint.digest()
    done = _order(context, "audit_prune", moment, basis, _actor(), number, digest, payloads_only)
    console().print(
        f"{counted(done['log_rows'], 'row')} and {counted(done['payloads'], 'payload')} removed, "
        f"on record in row {done['noted_seq']} of the database's own chain",
        markup=False,
    )


def hold(
    context: typer.Context,
    reason: Annotated[str, typer.Option("--reason", help="why; stands in the trail")],
    lift: Annotated[bool, typer.Option("--lift", help="end all holds")] = False,
) -> None:
    """Place a legal hold, or lift it.

    Meanwhile nothing is erased or pruned.
    """
    done = _order(context, "audit_hold", reason, _actor(), lift)
    what = "lifted" if lift else "placed"
    console().print(f"hold {what}, on record in row {done['noted_seq']} of the database's own chain", markup=False)


def _confirm(question: str) -> None:
    """Go on if somebody says yes. Raises typer.Abort if not, typer.Exit where nobody can be asked."""
    if not sys.stdin.isatty():
        _fail(f"{question} Nobody can be asked here: say it with --yes")
        raise typer.Exit(exit_codes.USAGE)
    typer.confirm(f"{question} It cannot be undone", abort=True)


def _order(context: typer.Context, name: str, *arguments: Any) -> dict[str, Any]:
    config = settings(context)

    async def run(pool: Pool) -> dict[str, Any]:
        from jobtrail.adapters.postgres import order

        return await order(pool, name, *arguments)

    try:
        return ask(config, run)
    except (StoreRefused, ConfigError, StoreUnavailable) as error:
        _fail(str(error))
        raise typer.Exit(exit_codes.FAILED) from error


def _actor() -> str:
    return getpass.getuser()


def _fail(message: str) -> None:
    error_console().print(f"jobtrail: {message}", style="red", markup=False)

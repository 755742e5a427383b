"""`jobtrail node-token add|list|revoke`: the tokens by which servers know the nodes that forward to them."""

from __future__ import annotations

import getpass
import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.database import ask
from jobtrail.cli.new_token import hand_out, new_token
from jobtrail.cli.output import UNKNOWN, console, error_console, moment, print_json, table
from jobtrail.cli.settings import settings
from jobtrail.domain.errors import StoreRefused

application = typer.Typer(
    help="Tokens by which servers know nodes.\n\nWith the login that owns the tables, as `migrate`.",
    no_args_is_help=True,
    add_completion=False,
)
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_DAYS = re.compile(r"([1-9]\d{0,4})d")


@application.command("add")
def add(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="the node's name, as its daemon goes by (`node` in its settings)")],
    expires: Annotated[str | None, typer.Option(help="valid for so many days, such as 365d; else for good")] = None,
    output: Annotated[Path | None, typer.Option(help="write the token to this new file (0600) instead")] = None,
) -> None:
    """Make a token for a node, and print it once.

    Its SHA-256 is kept. Two of a node may be valid at once, to change them.
    """
    from jobtrail.adapters.postgres import PostgresNodeTokens

    if not _NODE.fullmatch(node):
        raise typer.BadParameter(f"{node!r} is no node's name: letters, digits, dots, underscores and hyphens")
    if expires is not None and not _DAYS.fullmatch(expires):
        raise typer.BadParameter(f"{expires!r} must be a number of days such as 365d", param_hint="--expires")
    until = None if expires is None else datetime.now(UTC) + timedelta(days=int(expires[:-1]))
    token, config = new_token(), settings(context)
    digest = hashlib.sha256(token.encode()).digest()
    try:
        ask(
            config,
            lambda pool: PostgresNodeTokens(pool, timeout_seconds=config.database.timeout_seconds).add(
                node, digest, expires=until, by=getpass.getuser()
            ),
        )
    except StoreRefused as error:
        error_console().print(f"jobtrail: {error}", style="red", markup=False)
        raise typer.Exit(exit_codes.FAILED) from error
    hand_out(token, output)


@application.command("list")
def show(
    context: typer.Context,
    node: Annotated[str | None, typer.Argument(help="only of this node")] = None,
    all_states: Annotated[bool, typer.Option("--all", help="also those revoked or expired")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """The tokens there are.

    Without the tokens themselves, which nobody has but the nodes.
    """
    from jobtrail.adapters.postgres import PostgresNodeTokens

    config = settings(context)
    rows = ask(
        config,
        lambda pool: PostgresNodeTokens(pool, timeout_seconds=config.database.timeout_seconds).list(
            node, all_states=all_states
        ),
    )
    if as_json:
        print_json(msgspec.to_builtins(rows, enc_hook=str))
        return
    lines = [
        (row["node"], row["id"], row["state"], moment(row["created_at"]), row["created_by"], _when(row["expires_at"]))
        for row in rows
    ]
    console().print(table("", ("node", "id", "state", "made", "by", "expires"), lines))


@application.command("revoke")
def revoke(
    context: typer.Context,
    which: Annotated[str, typer.Argument(metavar="ID|NODE", help="a token's id as `list` shows it, or a whole node")],
) -> None:
    """Make a token, or all of a node, worth nothing.

    On every server within ten seconds.
    """
    from jobtrail.adapters.postgres import PostgresNodeTokens

    config = settings(context)
    gone = ask(
        config,
        lambda pool: PostgresNodeTokens(pool, timeout_seconds=config.database.timeout_seconds).revoke(
            which, by=getpass.getuser()
        ),
    )
    if not gone:
        error_console().print(f"jobtrail: no valid token is called {which}", style="red", markup=False)
        raise typer.Exit(exit_codes.NOT_FOUND)
    for row in gone:
        console().print(f"revoked {row['id']} of {row['node']}", markup=False)


def _when(value: datetime | None) -> str:
    return UNKNOWN if value is None else moment(value)

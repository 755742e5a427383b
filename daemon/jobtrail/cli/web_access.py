"""`jobtrail web-user` and `jobtrail web-token`: lines for the files that say who may come in over TCP."""

from __future__ import annotations

import getpass
import hashlib
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.new_token import hand_out, new_token
from jobtrail.cli.output import error_console

MOST_BYTES = 72  # that bcrypt takes of a password
LEAST_CHARACTERS = 8
SCOPES = ("read", "write", "admin")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


def run_user(
    name: Annotated[str, typer.Argument(help="the user's name")],
    cost: Annotated[int, typer.Option(min=4, max=16, help="of bcrypt: one more takes twice as long")] = 10,
) -> None:
    """Print the line of `basic_auth_users` for a user.

    Asks for the password, or reads it from standard input.
    """
    import bcrypt

    if not name.isprintable() or ":" in name or not name:
        raise typer.BadParameter(f"{name!r} is no user name: visible characters without colons")
    typed = sys.stdin.isatty()
    password = getpass.getpass("Password: ") if typed else sys.stdin.readline().rstrip("\n")
    if typed and getpass.getpass("Again: ") != password:
        _fail("these are two passwords")
    if len(password) < LEAST_CHARACTERS or len(password.encode()) > MOST_BYTES:
        _fail(f"a password has {LEAST_CHARACTERS} characters at least and {MOST_BYTES} bytes at most")
    sys.stdout.write(f"  {name}: {bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()}\n")


def run_token(
    name: Annotated[str, typer.Argument(help="whose token it is; it stands in refusals and in security events")],
    scope: Annotated[str, typer.Option(help="what it may do: read, write, admin, or several with commas")] = "read",
    output: Annotated[Path | None, typer.Option(help="write the token to this new file (0600) instead")] = None,
) -> None:
    """Make a token, and the line of `http.tokens_file` for it.

    The token is printed once; the line holds its SHA-256.
    """
    if not _NAME.fullmatch(name):
        raise typer.BadParameter(f"{name!r} must be letters, digits, dots, underscores and hyphens")
    if not set(scope.split(",")) <= set(SCOPES):
        raise typer.BadParameter(f"{scope!r} must be of {', '.join(SCOPES)}, with commas", param_hint="--scope")
    token = new_token()
    hand_out(token, output)
    sys.stdout.write(f"{name} {scope} sha256:{hashlib.sha256(token.encode()).hexdigest()}\n")


def _fail(message: str) -> None:
    error_console().print(f"jobtrail: {message}", style="red", markup=False)
    raise typer.Exit(exit_codes.USAGE)

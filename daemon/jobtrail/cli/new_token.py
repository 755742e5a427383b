"""Tokens as commands make them and hand them out."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.output import error_console

TOKEN_BYTES = 32


def new_token() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hand_out(token: str, output: Path | None) -> None:
    """Write a token to a file that nobody else can read, else to standard output; it is shown once."""
    if output is None:
        sys.stdout.write(f"{token}\n")
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        error_console().print(f"jobtrail: {output}: {error.strerror}", style="red", markup=False)
        raise typer.Exit(exit_codes.FAILED) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{token}\n")

"""Whom a command asks: what --url names, else JOBTRAIL_URL, else the servers of `database.url`, else this machine.

A token never stands among the arguments, which every user of a machine can read: it is in the file that
JOBTRAIL_TOKEN_FILE names. What the settings hold for servers (`http.read_token_file`, the files of `link`) is shown to
those of `database.url` alone.
"""

from __future__ import annotations

import inspect
import ipaddress
import os
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec
import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.output import error_console
from jobtrail.cli.settings import readable_settings
from jobtrail.cli.whom_tls import (
    CA_OPTION,
    CERT_OPTION,
    KEY_OPTION,
    TlsOptions,
    refuse_plain,
    tls_of,
)
from jobtrail.client_calls import ApiError, Caller, Unreachable
from jobtrail.config import Config
from jobtrail.domain.errors import ConfigError

AnyCaller = TypeVar("AnyCaller", bound=Caller)
URL_OPTION, URL_VARIABLE = "--url", "JOBTRAIL_URL"
TOKEN_VARIABLE = "JOBTRAIL_TOKEN_FILE"  # noqa: S105 - the name of a variable
SOCKET_VARIABLE = "JOBTRAIL_POKE_SOCKET"
SERVERS = "database.url"
WANTED = "https://HOST:PORT, http://HOST:PORT, or the path of a Unix socket; several servers with commas between"
SET_SERVER = (
    f"name one with {URL_OPTION} https://SERVER:8080 or {URL_VARIABLE}, and a file with a token for it in "
    f"{TOKEN_VARIABLE}"
)
UNAUTHORIZED, NO_DATABASE = 401, "this daemon has no database"
MAX_TOKEN_BYTES = 4096
_META = "jobtrail.whom"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,1024}")  # the alphabet of RFC 6750, section 2.1


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one daemon answers, and what it is shown."""

    socket: str | None = None
    url: str = ""
    token: str | None = None
    tls: Any = None  # an ssl.SSLContext; None: certificates that the system trusts

    def client(self, kind: type[AnyCaller], *, seconds: float) -> AnyCaller:
        """Something to ask it with."""
        return kind(self.url, socket=self.socket, token=self.token, ssl_context=self.tls, timeout_seconds=seconds)


class Whom(msgspec.Struct, frozen=True, kw_only=True):
    """The settings, and the daemons that are asked, one after the other until one answers."""

    config: Config
    places: tuple[Place, ...]
    named_by: str = ""  # the option, variable or setting that names them; empty: those of this machine

    @property
    def database_url(self) -> str:
        """The database that may be asked instead; empty where somebody named whom to ask, or there is none."""
        return "" if self.named_by else self.config.database.url

    def words(self, error: ApiError) -> str:
        """A refusal for people, with what to do about it where the command knows."""
        if error.message.startswith(NO_DATABASE):
            return f"{error.message}; {SET_SERVER}"
        if error.status == UNAUTHORIZED and self.named_by and not any(place.token for place in self.places):
            return f"{error.message}; name the file with a token for it in {TOKEN_VARIABLE}"
        return error.message

    def unreachable(self, error: Unreachable) -> str:
        """That nobody answers, for people, with what else might have been asked."""
        if self.named_by:
            return f"{error} (asked because of {self.named_by})"
        no_server = f"nor a server named ({URL_OPTION}, or {URL_VARIABLE})"
        return f"{error}; no database is configured (database.url, or DATABASE_URL), {no_server}"


class _Options(msgspec.Struct, frozen=True, kw_only=True):
    url: str | None = None
    tls: TlsOptions = msgspec.field(default_factory=TlsOptions)


_Url = Annotated[
    str | None,
    typer.Option(URL_OPTION, metavar="URL", help="whom to ask: https://HOST:PORT, or the path of a Unix socket"),
]
_CaFile = Annotated[
    str | None,
    typer.Option(CA_OPTION, metavar="FILE", help="certificates (PEM) that the one of --url is signed by"),
]
_CertFile = Annotated[
    str | None,
    typer.Option(CERT_OPTION, metavar="FILE", help="your own certificate (PEM), to be shown to the one of --url"),
]
_KeyFile = Annotated[
    str | None,
    typer.Option(KEY_OPTION, metavar="FILE", help="its key (PEM), where the certificate's file does not hold it"),
]


def asks_daemon(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options --url, --ca-file, --cert-file and --key-file, which `whom` reads."""
    signature = inspect.signature(command, eval_str=True)
    options = {"url": _Url, "ca_file": _CaFile, "cert_file": _CertFile, "key_file": _KeyFile}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in options.items()
    ]

    @wraps(command)
    def with_options(*args: Any, url: str | None, **kwargs: Any) -> None:
        context: typer.Context = kwargs["context"]
        tls = TlsOptions(**{name: kwargs.pop(name) for name in TlsOptions.__struct_fields__})
        context.meta[_META] = _Options(url=url, tls=tls)
        command(*args, **kwargs)

    kept = list(signature.parameters.values())
    with_options.__dict__["__signature__"] = signature.replace(parameters=[*kept, *added])
    return with_options


def whom(context: typer.Context, *, writes: bool = False) -> Whom:
    """Whom this command asks; what is wrong with it ends the command.

    What is written goes to the servers of `database.url` by way of this machine's daemon, which knows who sends it.
    """
    options: _Options = context.meta.get(_META, _Options())
    config = readable_settings(context)
    try:
        if named := _named(options, config):
            return named
        if config.forwards_to_servers and not writes:
            return _of(SERVERS, config.database.url, options, config)
        options.tls.check_use(is_https=False)
    except ConfigError as error:
        _fail(str(error))
    return of_this_machine(config)


def named_by_option(context: typer.Context) -> Place | None:
    """The one that --url names; None without. For what is about this machine unless somebody says otherwise."""
    options: _Options = context.meta.get(_META, _Options())
    try:
        if options.url is None:
            options.tls.check_use(is_https=False)
            return None
        return _of(URL_OPTION, options.url, options, readable_settings(context)).places[0]
    except ConfigError as error:
        _fail(str(error))


def of_this_machine(config: Config) -> Whom:
    """Its daemon: where JOBTRAIL_POKE_SOCKET says, else on the socket open to all users, else on the other."""
    named = os.environ.get(SOCKET_VARIABLE)
    paths = [named] if named else [path for path in (config.poke_socket, config.http.socket) if path]
    return Whom(config=config, places=tuple(Place(socket=path) for path in paths))


def _named(options: _Options, config: Config) -> Whom | None:
    for origin, text in ((URL_OPTION, options.url), (URL_VARIABLE, os.environ.get(URL_VARIABLE) or None)):
        if text is not None:
            return _of(origin, text, options, config)
    return None


def _of(origin: str, text: str, options: _Options, config: Config) -> Whom:
    """Raises ConfigError naming the option, variable or setting that is wrong."""
    urls = [url.strip().rstrip("/") for url in text.split(",")]
    places = tuple(_place(origin, url, options, config) for url in urls)
    options.tls.check_use(is_https=any(place.tls is not None for place in places))
    return Whom(config=config, places=places, named_by=origin)


def _place(origin: str, url: str, options: _Options, config: Config) -> Place:
    if url.startswith(("unix:/", "/")):
        return Place(socket=url.removeprefix("unix:"))
    parts = _parts(origin, url)
    ours = config.forwards_to_servers and url in [one.strip().rstrip("/") for one in config.database.url.split(",")]
    token_origin, token = _token(config if ours else None)
    if token is not None and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise ConfigError(origin, f"{url} would carry the token of {token_origin} unprotected; use https://")
    if parts.scheme == "http":
        refuse_plain(options.tls, url)
        return Place(url=url, token=token)
    return Place(url=url, token=token, tls=tls_of(options.tls, config if ours else None))


def _parts(origin: str, url: str) -> SplitResult:
    """Its scheme is of small letters, however it was written. Raises ConfigError."""
    if "@" in url:  # before anything repeats it
        raise ConfigError(origin, f"names no user or password; a token is in the file that {TOKEN_VARIABLE} names")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - parsing is the check
    except ValueError as error:
        raise ConfigError(origin, f"{url!r} is not {WANTED}") from error
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(origin, f"{url!r} is not {WANTED}")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(config: Config | None) -> tuple[str, str | None]:
    """What names the file, and the token in it; None where none is named."""
    origin, name = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE)
    if not name and config is not None:
        origin, name = "http.read_token_file", config.http.read_token_file
    if not name:
        return origin, None
    try:
        with Path(name).open("rb") as file:
            text = file.read(MAX_TOKEN_BYTES + 1).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise ConfigError(origin, f"{name} cannot be read: {error.strerror}") from error
    if not _TOKEN.fullmatch(text):
        raise ConfigError(origin, f"{name} holds no token: one line of 16 to 1024 letters, digits or . _ ~ + / = -")
    return origin, text


def _fail(message: str) -> NoReturn:
    error_console().print(f"jobtrail: {message}", style="red", markup=False)
    raise typer.Exit(exit_codes.USAGE)

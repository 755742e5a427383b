"""Which servers a node forwards to, and what it shows them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import msgspec

from jobtrail.domain.errors import ConfigError

SETTING = "database.url"
WANTED = (
    "must be https://HOST:PORT of a server, or several with commas between; http:// only to this machine itself, "
    "such as http://127.0.0.1:8080"
)


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Servers, credentials, deadlines."""

    urls: tuple[str, ...]  # without a slash at the end; any of them takes everything
    node: str  # the name this node goes by
    ca_file: str = ""  # certificates that the servers' are signed by; empty: those the system trusts
    certificate_file: str = ""  # this node's own, and those between it and the servers' authority
    key_file: str = ""  # its key; empty: in certificate_file
    token_file: str = ""  # this node's token
    connect_seconds: float = 5.0
    timeout_seconds: float = 20.0  # of a whole request


def is_server(url: str) -> bool:
    """Whether the setting names servers, not a database."""
    return url.startswith(("https://", "http://"))


def server_urls(text: str) -> tuple[str, ...]:
    """The servers in a setting. Raises ConfigError."""
    return tuple(_checked(url.strip()) for url in text.split(","))


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - parsing is the check
    except ValueError as error:
        raise ConfigError(SETTING, WANTED) from error
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(SETTING, f"{WANTED}; not {url!r}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(SETTING, "names no user or password of a server; the node's token is in link.token_file")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ConfigError(SETTING, f"{WANTED}; events would pass {parts.hostname!r} unprotected")
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

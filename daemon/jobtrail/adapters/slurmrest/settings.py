"""Where slurmrestd is and how it is asked."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from jobtrail.domain.errors import ConfigError

_VERSION = re.compile(r"v0\.0\.(\d{2,3})")
_TOKEN = re.compile(r"[!-~]+")


class RestSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach slurmrestd. Raises ConfigError naming the key of the `slurm` section that is wrong."""

    url: str  # http://host:6820, https://host, unix:/path
    version: str = ""  # such as v0.0.40; empty takes the newest that both sides know
    user: str = ""
    token: str = ""
    token_file: str = ""
    timeout_seconds: float = 10.0
    poll_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.socket_path is None:
            self._check_url()
        if self.version and not _VERSION.fullmatch(self.version):
            raise ConfigError("slurm.rest_version", "must be a version such as v0.0.40, or empty for the newest")
        if self.token and self.token_file:
            raise ConfigError("slurm.token", "and slurm.token_file are both set; give the token in one of them")
        if self.token and not _TOKEN.fullmatch(self.token):
            raise ConfigError("slurm.token", "must be a token of visible characters without spaces")
        if (self.token or self.token_file) and not self.user:
            raise ConfigError("slurm.rest_user", "must name the token's user; slurmrestd 22.05 refuses a token alone")
        if not _TOKEN.fullmatch(self.user or "-"):
            raise ConfigError("slurm.rest_user", "must be a user name of visible ASCII characters")

    def __repr__(self) -> str:
        return f"RestSettings(url={self.url!r}, version={self.version!r}, user={self.user!r})"

    @property
    def socket_path(self) -> str | None:
        """The Unix socket's path, None for TCP."""
        if not self.url.startswith("unix:"):
            return None
        path = self.url.removeprefix("unix:")
        if not path.startswith("/"):
            raise ConfigError(
                "slurm.rest_url", "must have an absolute path after unix:, such as unix:/run/slurmrestd.sock"
            )
        return re.sub("^/+", "/", path)

    @property
    def base_url(self) -> str:
        """What the paths of slurmrestd are appended to."""
        return "http://localhost" if self.socket_path is not None else self.url.rstrip("/")

    def _check_url(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ConfigError("slurm.rest_url", "must be http://host:port, https://host:port or unix:/path")
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigError(
                "slurm.rest_url", "must have no user, query or fragment; the token goes to slurm.token_file"
            )


def version_number(version: str) -> int:
    """40 of v0.0.40."""
    match = _VERSION.fullmatch(version)
    assert match is not None, "settings and probes only make versions of this form"
    return int(match[1])

"""TLS of the commands: by which certificates the one who is asked is known, and the caller's own that it is shown."""

from __future__ import annotations

import os
import ssl

import msgspec

from jobtrail.client_tls import ONLY_HTTPS, OwnCertificate, tls_context
from jobtrail.config import Config
from jobtrail.domain.errors import ConfigError

CA_OPTION, CA_VARIABLE = "--ca-file", "JOBTRAIL_CA_FILE"
CERT_OPTION, CERT_VARIABLE = "--cert-file", "JOBTRAIL_CERT_FILE"
KEY_OPTION, KEY_VARIABLE = "--key-file", "JOBTRAIL_KEY_FILE"


class TlsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What stands among the arguments."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def own(self) -> OwnCertificate | None:
        """The certificate that is named, with its key: by options, else by variables; None without.

        A key of the one is never taken for a certificate of the other. Raises ConfigError for a key alone.
        """
        variables = os.environ.get(CERT_VARIABLE), os.environ.get(KEY_VARIABLE)
        for (cert, key), cert_by, key_by in (
            ((self.cert_file, self.key_file), CERT_OPTION, KEY_OPTION),
            (variables, CERT_VARIABLE, KEY_VARIABLE),
        ):
            if cert:
                return OwnCertificate(cert_file=cert, key_file=key or None, cert_named_by=cert_by, key_named_by=key_by)
            if key:
                raise ConfigError(key_by, f"{key} is the key of no certificate; name that with {cert_by}")
        return None

    def check_use(self, *, is_https: bool) -> None:
        """Raises ConfigError for an option that names a certificate which nobody would be shown."""
        for option, name in ((CERT_OPTION, self.cert_file), (KEY_OPTION, self.key_file)):
            if name and not is_https:
                raise ConfigError(option, f"{ONLY_HTTPS}; name whom to ask with --url https://HOST:PORT")


def refuse_plain(options: TlsOptions, url: str) -> None:
    """Raises ConfigError where a certificate is named for somebody who is asked without TLS."""
    if (own := options.own()) is not None:
        raise ConfigError(own.cert_named_by, f"{ONLY_HTTPS}, and {url} is asked without TLS; use https://")


def tls_of(options: TlsOptions, config: Config | None) -> ssl.SSLContext:
    """What one is asked with over https; with a `config` one of the servers of its settings. Raises ConfigError."""
    link = None if config is None else config.link
    origins = (
        (CA_OPTION, options.ca_file),
        (CA_VARIABLE, os.environ.get(CA_VARIABLE)),
        ("link.ca_file", None if link is None else link.ca_file),
    )
    origin, ca_file = next(((origin, name) for origin, name in origins if name), ("", None))
    context = tls_context(ca_file, named_by=origin)
    if (own := options.own()) is not None:
        own.load_into(context)
    elif link is not None and link.certificate_file:
        try:
            context.load_cert_chain(link.certificate_file, link.key_file or None, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            problem = f"{link.certificate_file} and its key cannot be used: {error}"
            raise ConfigError("link.certificate_file", problem) from error
    return context


def _no_password() -> str:
    """An encrypted key would make OpenSSL ask at the terminal."""
    raise ValueError("the key is encrypted; give one that is not")

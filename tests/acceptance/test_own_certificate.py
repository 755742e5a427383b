"""Commands and the client for Python against a server that demands a client certificate: real TLS, real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import yaml

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import close_pool, migrate, open_pool
from jobtrail.client import Client, Unreachable
from jobtrail.domain.errors import ConfigError
from tests.certificates import Authority
from tests.daemon_process import Daemon, wait_until
from tests.measured_job import store_measured_job

READ, WRITE = "r" * 32, "w" * 32
READING = (
    ("jobs", "list"), ("jobs", "show", "7"), ("report", "7"), ("audit", "log", "7"), ("bench", "runs"),
    ("bench", "leaderboard"), ("top",),
)  # fmt: skip
REFUSED = "a server that demands a client certificate ends the connection so"


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A server that lets nobody in without a certificate, and what two of its users have."""

    server: Daemon
    url: str
    directory: Path
    ca_file: Path
    cert_file: Path  # of ada, whom a line of http.tokens_file lets read
    key_file: Path
    both_file: Path  # the same two in one file
    unlisted: tuple[Path, Path]  # of the same authority, without such a line
    stranger: tuple[Path, Path]  # of another authority
    read_token: Path
    write_token: Path

    @property
    def options(self) -> tuple[str, ...]:
        return "--cert-file", str(self.cert_file), "--key-file", str(self.key_file)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of somebody who has no settings."""
        nothing = self.directory / "empty.yaml"
        nothing.touch()
        named = {"JOBTRAIL_URL": self.url, "JOBTRAIL_CA_FILE": str(self.ca_file), "JOBTRAIL_CONFIG": str(nothing)}
        environment = {**self.server.environment(), **named, **variables}
        command = [sys.executable, "-m", "jobtrail", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


async def _store(url: str) -> None:
    pool = await open_pool(url, size=2, timeout_seconds=30.0)
    await store_measured_job(pool, begin=datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3))
    await close_pool(pool, timeout_seconds=5.0)


def _secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def _url_of(server: Daemon) -> str:
    said = lambda: re.search(r"https://[^\"/]+", server.log.read_text(encoding="utf-8"))  # noqa: E731
    found = wait_until(said, "the server to say where it listens")
    return f"https://localhost:{found[0].rpartition(':')[2]}"


def _web(directory: Path, authority: Authority) -> Path:
    certificate, key = authority.server()
    tls = {
        "cert_file": str(certificate), "key_file": str(key), "client_ca_file": str(authority.certificate),
        "client_auth_type": "RequireAndVerifyClientCert",
    }  # fmt: skip
    return _secret(directory / "web.yml", yaml.safe_dump({"tls_server_config": tls}))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-mtls-"))
    authority = Authority(directory / "authority")
    http = {
        "web_config_file": str(_web(directory, authority)),
        "read_token_file": str(_secret(directory / "read.token", READ)),
        "write_token_file": str(_secret(directory / "write.token", WRITE)),
        "tokens_file": str(_secret(directory / "tokens", "ada read certificate\n")),
    }
    cert, key = authority.issue("ada")
    both = _secret(directory / "ada.both.pem", cert.read_text() + key.read_text())
    try:
        with embedded_postgres.running(directory / "postgres") as database:
            migrate.upgrade(database)
            asyncio.run(_store(database))
            with Daemon(
                directory / "server", roles=["node", "server"], database={"url": database}, http=http, cluster="c1",
                gpu={"vendors": "none"}, slurm={"sacct": ""},
            ) as server:  # fmt: skip
                yield Site(
                    server=server, url=_url_of(server), directory=directory, ca_file=authority.certificate,
                    cert_file=cert, key_file=key, both_file=both, unlisted=authority.issue("bob"),
                    stranger=Authority(directory / "other", "other").issue("ada"),
                    read_token=directory / "read.token", write_token=directory / "write.token",
                )  # fmt: skip
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_every_command_is_refused_without_and_let_in_with_a_certificate(site: Site, command: tuple[str, ...]) -> None:
    """A token alone does not open the door; a certificate with a scope of its own needs none."""
    named = (*command, "--json", "--url", site.url)
    refused = site.run(*named, JOBTRAIL_TOKEN_FILE=str(site.read_token))
    assert (refused.returncode, refused.stdout) == (3, "")
    assert REFUSED in refused.stderr
    assert "--cert-file" in refused.stderr
    told = site.run(*named, *site.options)
    assert (told.returncode, told.stderr) == (0, "")
    assert json.loads(told.stdout)


def test_variables_name_it_too_and_a_file_may_hold_both(site: Site) -> None:
    """Options are a pair, and so are variables: a key is never taken for the certificate of the other pair."""
    pair = {"JOBTRAIL_CERT_FILE": str(site.cert_file), "JOBTRAIL_KEY_FILE": str(site.key_file)}
    wrong = {"JOBTRAIL_CERT_FILE": "/nonexistent/cert", "JOBTRAIL_KEY_FILE": "/nonexistent/key"}
    for told in (
        site.run("jobs", "list", "--json", **pair),
        site.run("jobs", "list", "--json", JOBTRAIL_CERT_FILE=str(site.both_file), JOBTRAIL_KEY_FILE=""),
        site.run("jobs", "list", "--json", "--cert-file", str(site.both_file), **wrong),
    ):
        assert (told.returncode, told.stderr) == (0, "")
        assert json.loads(told.stdout)["jobs"]


def test_a_certificate_without_a_scope_needs_a_token_and_a_stranger_s_opens_nothing(site: Site) -> None:
    variables = {"JOBTRAIL_CERT_FILE": str(site.unlisted[0]), "JOBTRAIL_KEY_FILE": str(site.unlisted[1])}
    without = site.run("jobs", "list", **variables)
    assert (without.returncode, without.stdout) == (1, "")
    told = site.run("jobs", "list", "--json", **variables, JOBTRAIL_TOKEN_FILE=str(site.read_token))
    assert json.loads(told.stdout)["jobs"], told.stderr
    cert, key = map(str, site.stranger)
    refused = site.run("jobs", "list", "--cert-file", cert, "--key-file", key, JOBTRAIL_TOKEN_FILE=str(site.read_token))
    assert (refused.returncode, refused.stdout) == (3, "")
    assert REFUSED in refused.stderr


def test_changes_are_let_in_with_a_certificate_and_a_token_for_writing(site: Site) -> None:
    create = ("jobs", "create", "--id", "manual-mtls", "--name", "over TLS", "--user", "root")
    assert site.run(*create, JOBTRAIL_TOKEN_FILE=str(site.write_token)).returncode == 3
    made = site.run(*create, *site.options, JOBTRAIL_TOKEN_FILE=str(site.write_token))
    assert (made.returncode, made.stdout) == (0, "manual-mtls\n"), made.stderr


async def test_the_client_for_python_shows_it(site: Site) -> None:
    async with Client(site.url, ca_file=site.ca_file, token=READ) as client:
        with pytest.raises(Unreachable, match=REFUSED):
            await client.jobs()
    for files in ({"cert_file": site.cert_file, "key_file": site.key_file}, {"cert_file": str(site.both_file)}):
        async with Client(site.url, ca_file=site.ca_file, **files) as client:
            assert (await client.jobs()).jobs


@pytest.mark.parametrize(
    ("options", "variables", "said"),
    [
        ("--cert-file /nonexistent/c.pem", {}, "--cert-file: /nonexistent/c.pem cannot be read: No such file"),
        ("--cert-file CERT", {}, "--cert-file: CERT holds no private key in PEM; add it there, or name the file that "
                                 "holds it with --key-file"),
        ("--cert-file CERT", {"JOBTRAIL_KEY_FILE": "KEY"}, "--cert-file: CERT holds no private key"),
        ("--cert-file CERT --key-file OTHER", {}, "--key-file: OTHER holds a key that does not belong to the "
                                                  "certificate of CERT"),
        ("--key-file KEY", {}, "--key-file: KEY is the key of no certificate; name that with --cert-file"),
        ("", {"JOBTRAIL_KEY_FILE": "KEY"}, "JOBTRAIL_KEY_FILE: KEY is the key of no certificate; name that with "
                                           "JOBTRAIL_CERT_FILE"),
        ("", {"JOBTRAIL_CERT_FILE": "/nonexistent/c.pem"}, "JOBTRAIL_CERT_FILE: /nonexistent/c.pem cannot be read"),
        ("", {"JOBTRAIL_CERT_FILE": "CERT", "JOBTRAIL_KEY_FILE": "OTHER"}, "JOBTRAIL_KEY_FILE: OTHER holds a key that"),
        ("--cert-file CERT --key-file KEY --url http://localhost:1", {}, "--cert-file: a certificate is shown over "
         "https:// alone, and http://localhost:1 is asked without TLS; use https://"),
        ("--url http://localhost:1", {"JOBTRAIL_CERT_FILE": "CERT"}, "JOBTRAIL_CERT_FILE: a certificate is shown over "
         "https:// alone"),
        ("--cert-file CERT --key-file KEY --url /nonexistent.sock", {}, "--cert-file: a certificate is shown over"),
        ("--cert-file CERT --key-file KEY", {"JOBTRAIL_URL": ""}, "name whom to ask with --url https://HOST:PORT"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(site: Site, options: str, variables: dict[str, str], said: str) -> None:
    names = {"CERT": str(site.cert_file), "KEY": str(site.key_file), "OTHER": str(site.stranger[1])}
    put = lambda text: re.sub(r"\b(?<!_)(CERT|KEY|OTHER)\b(?!_)", lambda found: names[found[0]], text)  # noqa: E731
    told = site.run("jobs", "list", *put(options).split(), **{name: put(value) for name, value in variables.items()})
    assert (told.returncode, told.stdout) == (2, "")
    assert put(said) in " ".join(told.stderr.split())
    assert "Traceback" not in told.stderr


def test_top_refuses_a_certificate_that_nobody_would_see(site: Site) -> None:
    """Without --url it is about this node, whatever JOBTRAIL_URL says."""
    told = site.run("top", "--once", *site.options)
    assert (told.returncode, told.stdout) == (2, "")
    assert "--cert-file: a certificate is shown over https:// alone" in told.stderr


def test_a_socket_is_asked_without_the_certificate_of_a_variable(site: Site) -> None:
    """The variables are for all commands of a user; over a socket the kernel says who asks."""
    told = site.run("jobs", "list", "--json", "--url", str(site.server.socket), JOBTRAIL_CERT_FILE="/nonexistent/c.pem")
    assert json.loads(told.stdout)["jobs"], told.stderr


@pytest.mark.parametrize(("mode", "is_good"), [(0o600, True), (0o640, True), (0o644, False), (0o660, False)])
def test_a_key_that_others_can_get_at_is_refused(site: Site, tmp_path: Path, mode: int, is_good: bool) -> None:
    key, both = (shutil.copy(path, tmp_path) for path in (site.key_file, site.both_file))
    for path in (key, both):
        Path(path).chmod(mode)
    for named_by, files in (
        ("key_file", {"cert_file": site.cert_file, "key_file": key}), ("cert_file", {"cert_file": both}),
    ):  # fmt: skip
        if is_good:
            Client(site.url, **files)
            continue
        with pytest.raises(ConfigError, match=f"^{named_by}: {files[named_by]} has mode {mode:04o}, .*; use 0600"):
            Client(site.url, **files)


def test_what_the_client_for_python_cannot_use_is_named(site: Site, tmp_path: Path) -> None:
    cert, key = site.cert_file, site.key_file
    empty, encrypted = _secret(tmp_path / "empty", ""), tmp_path / "encrypted.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", str(key), "-out", str(encrypted), "-passout", "pass:hush"]
    subprocess.run(command, check=True, timeout=60)
    encrypted.chmod(0o600)
    torn = _secret(tmp_path / "torn.pem", "\n".join(cert.read_text().splitlines()[:3]))
    mixed = _secret(tmp_path / "mixed.pem", cert.read_text() + site.stranger[1].read_text())
    for files, said in (
        ({"cert_file": empty, "key_file": key}, f"cert_file: {empty} holds no certificate in PEM"),
        ({"cert_file": tmp_path, "key_file": key}, f"cert_file: {tmp_path} is not a regular file"),
        ({"cert_file": cert, "key_file": empty}, f"key_file: {empty} holds no private key in PEM"),
        ({"cert_file": cert, "key_file": encrypted}, f"key_file: {encrypted} cannot be used: the key is encrypted"),
        ({"cert_file": torn, "key_file": key}, f"cert_file: {torn} and its key {key} cannot be used: "),
        ({"cert_file": mixed}, f"cert_file: {mixed} holds a key that does not belong to the certificate before it"),
        ({"key_file": key}, f"key_file: {key} is the key of no certificate; name that with cert_file"),
    ):
        with pytest.raises(ConfigError, match="^" + re.escape(said)):
            Client(site.url, **files)
    context = ssl.create_default_context()
    for url, others in (
        ("http://localhost:1", {}), (site.url, {"socket": "/nonexistent.sock"}), (site.url, {"ssl_context": context}),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"^cert_file: "):
            Client(url, cert_file=cert, key_file=key, **others)

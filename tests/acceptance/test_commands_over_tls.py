"""The commands on a node that forwards to a server: over real TLS, with real tokens, against a real PostgreSQL."""

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

READ, WRITE, OTHER = "r" * 32, "w" * 32, "o" * 32
READING = (
    ("jobs", "list"), ("jobs", "show", "7"), ("report", "7"), ("audit", "log", "7"), ("bench", "runs"),
    ("bench", "leaderboard"),
)  # fmt: skip


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A server with the database, a node without, and what users are given."""

    server: Daemon
    node: Daemon
    url: str
    ca_file: Path
    read_token: Path
    write_token: Path

    def run(self, *arguments: str, on: Daemon | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command on the node, with its settings, as a rule."""
        environment = {**(on or self.node).environment(), **variables}
        command = [sys.executable, "-m", "jobtrail", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def as_user(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of somebody who may not read the node's settings, as they are in /etc, and so has none."""
        nothing = self.node.directory / "empty.yaml"
        nothing.touch()
        socket = str(self.node.socket.with_name("poke.sock"))
        return self.run(*arguments, JOBTRAIL_CONFIG=str(nothing), JOBTRAIL_POKE_SOCKET=socket, **variables)

    @property
    def variables(self) -> dict[str, str]:
        return {
            "JOBTRAIL_URL": self.url,
            "JOBTRAIL_TOKEN_FILE": str(self.read_token),
            "JOBTRAIL_CA_FILE": str(self.ca_file),
        }


async def _store(url: str) -> None:
    pool = await open_pool(url, size=2, timeout_seconds=30.0)
    await store_measured_job(pool, begin=datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3))
    await close_pool(pool, timeout_seconds=5.0)


def _secret(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def _url_of(server: Daemon) -> str:
    """Over TCP, as its log says."""
    said = lambda: re.search(r"https://[^\"/]+", server.log.read_text(encoding="utf-8"))  # noqa: E731
    found = wait_until(said, "the server to say where it listens")
    return f"https://localhost:{found[0].rpartition(':')[2]}"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-tls-"))
    directory.chmod(0o755)
    authority = Authority(directory / "authority")
    certificate, key = authority.server()
    tls = {"cert_file": str(certificate), "key_file": str(key)}
    web = _secret(directory / "web.yml", yaml.safe_dump({"tls_server_config": tls}))
    tokens = {name: _secret(directory / f"{name}.token", text) for name, text in (("read", READ), ("write", WRITE))}
    files = {f"{name}_token_file": str(path) for name, path in tokens.items()}
    nodes = _secret(directory / "nodes.token", "n" * 32)
    quiet = {"cluster": "c1", "gpu": {"vendors": "none"}, "slurm": {"sacct": ""}}
    try:
        with embedded_postgres.running(directory / "postgres") as database:
            migrate.upgrade(database)
            asyncio.run(_store(database))
            http = {"web_config_file": str(web), "node_token_file": str(nodes), **files}
            with Daemon(
                directory / "server", roles=["server"], database={"url": database}, http=http, **quiet
            ) as server:
                url = _url_of(server)
                link = {"ca_file": str(authority.certificate), "token_file": str(nodes)}
                asked = {"read_token_file": str(tokens["read"])}
                node = Daemon(directory / "node", roles=["node"], database={"url": url}, link=link, http=asked, **quiet)
                with node:
                    yield Site(
                        server=server, node=node, url=url, ca_file=authority.certificate,
                        read_token=tokens["read"], write_token=tokens["write"],
                    )  # fmt: skip
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_user_of_a_node_without_a_database_reads_through_the_server(site: Site, command: tuple[str, ...]) -> None:
    """With what the environment names, or with options; the answer is the server's own."""
    expected = site.run(*command, "--json", on=site.server)
    assert expected.returncode == 0, expected.stderr
    named = site.as_user(*command, "--json", **site.variables)
    assert (named.returncode, named.stderr) == (0, "")
    options = ("--url", site.url, "--ca-file", str(site.ca_file))
    by_option = site.as_user(
        *command, "--json", *options, JOBTRAIL_TOKEN_FILE=str(site.read_token), JOBTRAIL_URL="https://nowhere.invalid"
    )
    assert by_option.stdout == named.stdout
    assert json.loads(expected.stdout) == json.loads(named.stdout)  # columns come in another order


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_who_may_read_the_settings_needs_name_nobody(site: Site, command: tuple[str, ...]) -> None:
    """The servers of database.url are asked, with the node's own authority and its token for reading."""
    told = site.run(*command)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == site.as_user(*command, **site.variables).stdout


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_without_a_name_the_error_says_what_to_set(site: Site, command: tuple[str, ...]) -> None:
    told = site.as_user(*command)
    assert told.returncode == 3
    for wanted in ("this daemon has no database", "--url https://SERVER:8080", "JOBTRAIL_URL", "JOBTRAIL_TOKEN_FILE"):
        assert wanted in told.stderr
    assert told.stdout == ""


def test_jobs_are_written_through_the_server_with_a_token_for_writing(site: Site) -> None:
    variables = {**site.variables, "JOBTRAIL_TOKEN_FILE": str(site.write_token)}
    made = site.as_user("jobs", "create", "--id", "manual-tls", "--name", "over TLS", "--user", "root", **variables)
    assert (made.returncode, made.stdout) == (0, "manual-tls\n"), made.stderr
    refused = site.as_user("jobs", "withdraw", "manual-tls", **site.variables)
    assert refused.returncode == 1
    assert site.as_user("jobs", "withdraw", "manual-tls", **variables).returncode == 0


def test_a_socket_may_be_named(site: Site) -> None:
    for name in (str(site.server.socket), f"unix:{site.server.socket}"):
        told = site.as_user("jobs", "list", "--json", "--url", name)
        assert json.loads(told.stdout)["jobs"], told.stderr


def test_top_shows_the_node_that_is_named(site: Site) -> None:
    """Over TLS with a token; the variable that names a server of jobs does not change whose jobs are shown."""
    at_server = site.as_user("top", "--json", "--url", site.url, **site.variables)
    assert json.loads(at_server.stdout)["node"], at_server.stderr
    without = site.as_user("top", "--json", **{**site.variables, "JOBTRAIL_HTTP__PORT": "0"})
    assert without.returncode == 3
    assert site.url not in without.stderr


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({"JOBTRAIL_CA_FILE": ""}, 3, "its certificate is not good: unable to get local issuer certificate"),
        ({"JOBTRAIL_TOKEN_FILE": ""}, 1, "JOBTRAIL_TOKEN_FILE"),
        ({"JOBTRAIL_TOKEN_FILE": "/nonexistent/token"}, 2, "JOBTRAIL_TOKEN_FILE: /nonexistent/token cannot be read"),
        ({"JOBTRAIL_TOKEN_FILE": "/dev/null"}, 2, "JOBTRAIL_TOKEN_FILE: /dev/null holds no token"),
        ({"JOBTRAIL_CA_FILE": "/nonexistent/ca"}, 2, "JOBTRAIL_CA_FILE: /nonexistent/ca cannot be read"),
        ({"JOBTRAIL_CA_FILE": "/dev/null"}, 2, "JOBTRAIL_CA_FILE: /dev/null holds no certificates"),
        ({"JOBTRAIL_URL": "server:8080"}, 2, "JOBTRAIL_URL: 'server:8080' is not https://HOST:PORT"),
        ({"JOBTRAIL_URL": "https://server:port"}, 2, "JOBTRAIL_URL: 'https://server:port' is not"),
        ({"JOBTRAIL_URL": "https://me:hush@server"}, 2, "names no user or password"),
        ({"JOBTRAIL_URL": "https://me:hush@server:port"}, 2, "names no user or password"),
        ({"JOBTRAIL_URL": "https://me:hu/hush@server"}, 2, "names no user or password"),
        ({"JOBTRAIL_URL": "http://server.invalid:8080"}, 2, "unprotected; use https://"),
        ({"JOBTRAIL_URL": "HTTP://server.invalid:8080"}, 2, "unprotected; use https://"),
        ({"JOBTRAIL_URL": "/nonexistent.sock"}, 3, "/nonexistent.sock: No such file"),
        ({"JOBTRAIL_URL": "https://localhost:1"}, 3, "https://localhost:1"),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named(site: Site, variables: dict[str, str], code: int, said: str) -> None:
    told = site.as_user("jobs", "list", **{**site.variables, **variables})
    assert (told.returncode, told.stdout) == (code, "")
    assert said in told.stderr
    assert "Traceback" not in told.stderr
    for secret in (READ, "hush"):
        assert secret not in told.stderr


def test_the_token_of_the_settings_is_shown_to_the_servers_of_the_settings_alone(site: Site) -> None:
    """The same server under another name is somebody else."""
    other = site.url.replace("localhost", "127.0.0.1")
    refused = site.run("jobs", "list", "--url", other, "--ca-file", str(site.ca_file))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "JOBTRAIL_TOKEN_FILE" in refused.stderr
    assert site.run("jobs", "list", "--url", site.url).returncode == 0


async def test_the_client_takes_a_file_of_certificates_or_a_context(site: Site) -> None:
    context = ssl.create_default_context(cafile=site.ca_file)
    for client in (
        Client(site.url, token=READ, ca_file=site.ca_file),
        Client(site.url, token=READ, ssl_context=context),
    ):
        async with client:
            assert (await client.jobs()).jobs
    async with Client(site.url, token=READ) as client:
        with pytest.raises(Unreachable, match="its certificate is not good"):
            await client.jobs()
    with pytest.raises(ConfigError, match="ca_file: /nonexistent"):
        Client(site.url, ca_file="/nonexistent")

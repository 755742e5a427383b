"""What the fleet forwards to: one PostgreSQL of its own, one real server daemon, certificates and tokens."""

from __future__ import annotations

import hashlib
import http.client
import os
import resource
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml

from benchmarks.daemon import REPOSITORY
from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate

START_SECONDS = 60.0


def raise_descriptors(wanted: int) -> int:
    """Allow this process and its children as many descriptors as may be, up to `wanted`; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(max(wanted, soft), hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


class Site:
    """A server and its database."""

    def __init__(self, directory: Path, *, nodes: int, pool: int, settings: dict[str, Any] | None = None) -> None:
        self.directory = directory
        self.data = directory / "postgres"
        self.url = embedded_postgres.start(self.data)
        migrate.upgrade(self.url)
        self.ca, certificate, key = _certificates(directory)
        self.tokens = directory / "tokens"
        self._admit(nodes)
        web = directory / "web.yml"
        web.write_text(yaml.safe_dump({"tls_server_config": {"cert_file": str(certificate), "key_file": str(key)}}))
        web.chmod(0o600)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        tree: dict[str, Any] = {
            "roles": ["server"], "node": "s1", "cluster": "bench", "slurm": {"sacct": ""},
            "http": {
                "socket": str(directory / "hooks.sock"), "port": self.port, "web_config_file": str(web),
                "max_connections": nodes + 200,
            },
            "spool": {"directory": str(directory / "spool")},
            "database": {"url": self.url, "pool_size": pool},
            "logging": {"level": "warning", "format": "json"},
        }  # fmt: skip
        for section, values in (settings or {}).items():
            tree[section] = {**tree.get(section, {}), **values}
        (directory / "jobtrail.yaml").write_text(yaml.safe_dump(tree))
        self.server: subprocess.Popen[bytes] | None = None

    def start_server(self) -> None:
        """Start the daemon and wait until it answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBTRAIL_")}
        environment |= {
            "JOBTRAIL_CONFIG": str(self.directory / "jobtrail.yaml"),
            "PYTHONPATH": str(REPOSITORY / "daemon"),
        }
        with (self.directory / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "jobtrail", "serve"], env=environment, cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{(self.directory / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop_database(self) -> None:
        """An outage begins."""
        embedded_postgres.stop(self.data)

    def start_database(self) -> None:
        """And ends."""
        embedded_postgres.start(self.data)

    def close(self) -> None:
        """Stop both."""
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(20)
            except subprocess.TimeoutExpired:
                self.server.kill()
        embedded_postgres.stop(self.data)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a question to the database."""
        with psycopg.connect(self.url, application_name="fleet") as connection:
            return connection.execute(statement.encode()).fetchall()

    def postmaster(self) -> int:
        """PostgreSQL's first process."""
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def _admit(self, nodes: int) -> None:
        """Make a token for each node. In one statement: what adding one costs is not asked here."""
        tokens = [secrets.token_urlsafe(32) for _ in range(nodes)]
        self.tokens.write_text("\n".join(tokens))
        self.tokens.chmod(0o600)
        with (
            psycopg.connect(self.url) as connection,
            connection.cursor() as cursor,
            cursor.copy("COPY node_tokens (digest, node, created_by) FROM STDIN") as copy,
        ):
            for number, token in enumerate(tokens):
                copy.write_row((hashlib.sha256(token.encode()).digest(), f"f{number:05d}", "fleet"))

    def _answers(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("localhost", self.port, context=context, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@contextmanager
def site(**options: Any) -> Iterator[Site]:
    """A site in a directory of its own, with its server running."""
    with tempfile.TemporaryDirectory(prefix="jobtrail-fleet-") as name:
        made = Site(Path(name), **options)
        try:
            made.start_server()
            yield made
        finally:
            made.close()


def _certificates(directory: Path) -> tuple[Path, Path, Path]:
    """An authority's certificate, the server's, and the server's key (P-256)."""
    ca, ca_key, request, certificate, key = (
        directory / name for name in ("ca.pem", "ca.key", "s.csr", "s.pem", "s.key")
    )
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = directory / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    for arguments in (
        ["req", "-x509", *new, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", "/CN=fleet",
         "-addext", "keyUsage=critical,keyCertSign"],
        ["req", "-new", *new, "-keyout", key, "-out", request, "-subj", "/CN=localhost"],
        ["x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-out",
         certificate, "-extfile", names],
    ):  # fmt: skip
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
    key.chmod(0o600)
    return ca, certificate, key

"""T-45: the hunt for secrets. Each secret is a string that is nowhere else; it must be found in its own file alone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bcrypt
import psycopg
import pytest
import yaml

from jobtrail.adapters.signing import generate
from tests.certificates import Authority
from tests.daemon_process import wait_until
from tests.faults import wire
from tests.faults.clusters import Cluster
from tests.faults.figures import Figures
from tests.faults.raw_http import tcp_port
from tests.faults.test_database_changes import NODE_ROLE, with_a_login
from tests.faults.trial import FaultDaemon
from tests.requirements import require_tool
from tests.served_api import hang_up, hook_headers, read_all, request_bytes

SECRETS = {name: f"canary-{name}-{os.urandom(12).hex()}" for name in (
    "database", "slurm", "read", "write", "admin", "hook", "node", "user", "wrong", "named", "link",
)}  # fmt: skip
NODE = "n2"  # which forwards to the server


def prolog(job: int, node: str = wire.NODE) -> bytes:
    """What the hook of a job posts."""
    return f"SLURM_JOB_ID={job}\0SLURMD_NODENAME={node}\0SLURM_CLUSTER_NAME=lab\0".encode()


def heart_of(key: Path) -> bytes:
    """The beginning of a private key that PEM holds in lines of base64, beyond what all keys of its kind begin with."""
    return b"".join(key.read_bytes().split(b"\n")[1:-2])[-40:]


class Place:
    """A server and a node of it with every secret they can have, and everything they give from themselves."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.authority = Authority(directory / "ca")
        certificate, key = self.authority.server()
        self.node_certificate, self.node_key = self.authority.issue(NODE)
        seal = directory / "seal.key"
        generate(seal)
        self.keys = {"tls": heart_of(key), "link's": heart_of(self.node_key), "seal": heart_of(seal)}
        digest = bcrypt.hashpw(SECRETS["user"].encode(), bcrypt.gensalt(4)).decode()
        self.hash = digest[7:].encode()
        web = self.file("web.yaml", f"tls_server_config:\n  cert_file: {certificate}\n  key_file: {key}\n"
                                    f"  client_ca_file: {self.authority.certificate}\n"
                                    f"  client_auth_type: VerifyClientCertIfGiven\n"
                                    f"basic_auth_users:\n  alice: {digest}\n")  # fmt: skip
        named = self.file("tokens", f"bob read sha256:{hashlib.sha256(SECRETS['named'].encode()).hexdigest()}\n")
        files = {name: str(self.file(f"{name}.token", SECRETS[name])) for name in
                 ("read", "write", "admin", "hook", "node", "slurm", "link")}  # fmt: skip
        self.daemon = FaultDaemon(
            directory / "d", database={"url": url}, audit={"signing_key_file": str(seal), "seal_seconds": 1.0},
            slurm={"token": SECRETS["slurm"], "hook_token_file": files["hook"], "rest_url": "http://127.0.0.1:9",
                   "rest_user": "slurm"},
            http={"web_config_file": str(web), "tokens_file": str(named), "read_token_file": files["read"],
                  "write_token_file": files["write"], "admin_token_file": files["admin"],
                  "node_token_file": files["node"]},
            logging={"level": "debug", "format": "json"}, gpu={"vendors": "auto"},
        )  # fmt: skip
        self.node = FaultDaemon(
            directory / "n", logging={"level": "debug", "format": "json"},
            link={"ca_file": str(self.authority.certificate), "token_file": files["link"]},
        )  # fmt: skip
        tree = yaml.safe_load(self.node.config.read_text(encoding="utf-8"))
        self.node.config.write_text(yaml.safe_dump({**tree, "node": NODE, "roles": ["node"]}), encoding="utf-8")
        self.answers = b""

    def file(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
        """One request over TLS; what comes back is kept for the hunt."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        port = tcp_port(self.daemon.log)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(request_bytes(method, path, body, {"Connection": "close", **headers}))
        self.answers += await asyncio.wait_for(read_all(reader), 60)
        await hang_up(writer)

    def children(self) -> list[int]:
        """The daemons and all that they started."""
        left = [daemon.pid for daemon in (self.daemon, self.node) if daemon.pid is not None]
        found: list[int] = []
        while left:
            pid = left.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                left += map(int, told_by(task).split())
        return found

    def hunting_grounds(self, database: bytes) -> dict[str, bytes]:
        """Everything that anybody but the owner of the secrets' files can come to see."""
        processes = self.children()
        both = (self.daemon, self.node)
        asked = {path: b"".join(daemon.get(path)[1] for daemon in both)
                 for path in ("/metrics", "/health", "/readyz", "/openapi.json")}  # fmt: skip
        spools = [path for daemon in both for path in sorted(daemon.spool.rglob("*")) if path.is_file()]
        return {
            "log": b"".join(daemon.log.read_bytes() for daemon in both),
            **asked,
            "answers": self.answers,
            "arguments": b"".join(told_by(Path(f"/proc/{pid}/cmdline")) for pid in processes),
            "environment": b"".join(told_by(Path(f"/proc/{pid}/environ")) for pid in processes),
            "spool": b"".join(map(told_by, spools)),
            "database": database,
        }


def told_by(path: Path) -> bytes:
    """A file's content; nothing where it went meanwhile, as a process or thread does that ends."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def everything_in(url: str) -> bytes:
    """Every row of every table as text. `pg_dump` need not be of the server's version."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        rows = [connection.execute(f"SELECT t::text FROM {table} t".encode()).fetchall() for (table,) in tables]
    return "\n".join(str(row[0]) for found in rows for row in found).encode()


def forms_of(secret: str) -> list[bytes]:
    """A secret as it may stand somewhere: as it is, in base64, in a bytea's hex."""
    raw = secret.encode()
    return [raw, base64.b64encode(raw)[:-4], raw.hex().encode()]


async def busy(place: Place) -> None:
    """Right and wrong credentials of every kind, wherever they could be shown; some in places they should not be in."""
    paths = ("/metrics", "/v1/jobs", "/v1/security/events", "/v1/nodes", "/nothing", "/v1/jobs/canary")
    bearer = [{"Authorization": f"Bearer {secret}"} for secret in SECRETS.values()]
    wrong = [{"Authorization": f"Bearer x{secret}"} for secret in SECRETS.values()]
    user = base64.b64encode(f"alice:{SECRETS['user']}".encode()).decode()
    swapped = base64.b64encode(f"{SECRETS['user']}:alice".encode()).decode()
    bad = base64.b64encode(f"alice:{SECRETS['wrong']}".encode()).decode()
    basics = [{"Authorization": f"Basic {told}"} for told in (user, swapped, bad, SECRETS["user"])]
    for number, headers in enumerate([*bearer, *wrong, *basics, {"Authorization": f"Token {SECRETS['read']}"}]):
        await place.ask("GET", paths[number % len(paths)], headers)
    for headers in (*bearer, basics[0]):
        await place.ask("GET", "/metrics", headers)
    for token in (SECRETS["hook"], SECRETS["wrong"]):
        headers = {"Authorization": f"Bearer {token}", **hook_headers()}
        await place.ask("POST", "/v1/hooks/slurm/prolog-slurmctld", headers, prolog(6))
    for token in (SECRETS["node"], SECRETS["wrong"]):
        await place.ask("GET", "/v1/chains/6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21/head",
                        {"Authorization": f"Bearer {token}", "Jobtrail-Node": "n1"})  # fmt: skip


@pytest.fixture
def guarded(cluster: Cluster) -> str:
    """The URL of a database that lets the daemon in with its password alone, which PostgreSQL verifies."""
    with_a_login(cluster, SECRETS["database"])
    cluster.execute(
        f"INSERT INTO node_tokens (digest, node, created_by) VALUES (sha256('{SECRETS['link']}'), '{NODE}', 'test')"
    )
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(cluster.url(NODE_ROLE, password=SECRETS["wrong"]))
    return cluster.url(NODE_ROLE, password=SECRETS["database"])


def forward(place: Place, database: str) -> None:
    """The node sends to the server, known by its token; then, known by its certificate; then with a wrong token."""
    link = {"certificate_file": str(place.node_certificate), "key_file": str(place.node_key), "token_file": ""}
    wrong = {"certificate_file": "", "key_file": "", "token_file": str(place.file("no.token", SECRETS["wrong"]))}
    place.node.configure("database", url=f"https://127.0.0.1:{tcp_port(place.daemon.log)}")
    for job, settings in ((7, {}), (8, link), (9, wrong)):
        place.node.configure("link", **settings)
        place.node.start()
        assert place.node.request("POST", "/v1/hooks/slurm/prolog", prolog(job, NODE), hook_headers())[0] == 201
        if settings is wrong:
            wait_until(lambda: place.node.metric("jobtrail_forward_failures_total") > 0, "the token to be refused")
            return
        wait_until(lambda job=job: f"slurm-{job}".encode() in everything_in(database), "the node's job to be stored")  # type: ignore[misc]
        place.node.stop()


@pytest.mark.fault("T-45")
def test_no_secret_leaves_its_file(place: Path, cluster: Cluster, guarded: str, figures: Figures) -> None:
    """While all is well, while somebody refuses a password or token, and in what is said of files that are wrong."""
    database = cluster.url()
    one = Place(place, guarded)
    try:
        one.daemon.start()
        status, _ = one.daemon.request("POST", "/v1/hooks/slurm/prolog", prolog(6), hook_headers())
        assert status == 201
        asyncio.run(busy(one))
        assert one.answers.count(b"HTTP/1.1 200") >= 5  # the right ones did get in
        forward(one, database)
        wait_until(lambda: b"slurm-6" in everything_in(database), "the job to be stored")
        wait_until(lambda: one.daemon.metric("jobtrail_audit_checkpoint_number") > 0, "a signed checkpoint")
        grounds = one.hunting_grounds(everything_in(database))
        one.node.stop()
        one.daemon.stop()
    finally:
        for daemon in (one.node, one.daemon):
            if daemon.pid is not None:
                daemon.kill()
    grounds["database"] += everything_in(database)  # with the security events that the stop wrote
    grounds["log"] = one.daemon.log.read_bytes() + one.node.log.read_bytes()
    grounds["database's log"] = cluster.log.read_bytes()
    grounds["messages"] = broken_settings(one)
    hits = hunt(one, grounds)
    figures.set(
        secrets=len(sought_in(one)),
        grounds=len(grounds),
        bytes_searched=sum(map(len, grounds.values())),
        hits=len(hits),
    )
    assert hits == []
    assert b"wrong_password" in grounds["database"]  # what was tried is on record, without what was tried


def sought_in(place: Place) -> dict[str, list[bytes]]:
    """Each secret in the forms it may have."""
    keys = {f"key {name}": [key] for name, key in place.keys.items()}
    return {name: forms_of(secret) for name, secret in SECRETS.items()} | keys | {"hash": [place.hash]}


def hunt(place: Place, grounds: dict[str, bytes]) -> list[tuple[str, str]]:
    """Where which secret was found."""
    sought = sought_in(place)
    found = (
        (where, name) for where in grounds for name in sought if any(one in grounds[where] for one in sought[name])
    )
    return sorted(found)


def broken_settings(place: Place) -> bytes:
    """All that commands say of secrets' files and settings that cannot be used."""
    said, tree = b"", place.daemon.config.read_text()
    web = place.directory / "web.yaml"
    good = web.read_text()
    broken_trees = {
        "yaml": tree + f"\n  bad: [ {SECRETS['database']}\n",
        "kind": tree.replace("pool_size", "pool") + f"\nnode: [{SECRETS['slurm']}]\n",
        "unreachable": re.sub(r"(url: postgresql:.*@127.0.0.1:)\d+", r"\g<1>1", tree),
        "refused": tree.replace(SECRETS["database"], f"{SECRETS['database']}x"),
    }
    for kind, text in broken_trees.items():
        place.daemon.config.write_text(text)
        for command in (
            (("jobs", "list"),) if kind in ("unreachable", "refused") else (("serve",), ("migrate", "--check"))
        ):
            said += run(place, *command)
    place.daemon.config.write_text(tree)
    for text in (good.replace("$2b$", "$9z$"), good + f"  {SECRETS['user']}", good.replace("basic_auth", "basic")):
        web.write_text(text)
        said += run(place, "serve")
    web.write_text(good)
    for name in ("read", "hook", "node"):
        path = place.directory / f"{name}.token"
        path.write_text(f"{SECRETS[name]} and more")
        said += run(place, "serve")
        path.write_text(SECRETS[name])
    (place.directory / "link.token").write_text(f"{SECRETS['link']} and more")
    place.node.configure("link", token_file=str(place.directory / "link.token"))
    said += run_until_told(place, b"link.")
    place.node.configure("link", certificate_file=str(place.node_key), key_file=str(place.node_key))
    said += run_until_told(place, b"link.")
    assert b"http.web_config_file" in said
    assert b"password authentication failed" in said
    assert b"link." in said
    return said


def run(place: Place, *command: str) -> bytes:
    """What a command prints that is to fail."""
    done = subprocess.run([sys.executable, "-m", "jobtrail", *command], env=place.daemon.environment(),
                          cwd=place.directory, capture_output=True, timeout=60, check=False)  # fmt: skip
    return done.stdout + done.stderr


def run_until_told(place: Place, word: bytes, *, seconds: float = 6.0) -> bytes:
    """What the node's daemon prints, that may go on all the same, until it said `word` and ran for some seconds."""
    printed = place.directory / "printed"
    with printed.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "jobtrail", "serve"], env=place.node.environment(),
                                   cwd=place.directory, stdin=subprocess.DEVNULL, stdout=file, stderr=file)  # fmt: skip
    least = time.monotonic() + seconds

    def told() -> bool:
        return process.poll() is not None or (time.monotonic() > least and word in printed.read_bytes())

    try:
        wait_until(told, f"{word!r} to be told", every_seconds=0.1)
    finally:
        process.kill()
        process.wait()
    return printed.read_bytes()


def test_the_hunt_finds_what_is_there(place: Path, database: str) -> None:
    """Else it would prove nothing."""
    require_tool("openssl", "keys")
    one = Place(place, database)
    grounds: dict[str, Any] = {
        "plain": SECRETS["read"].encode() + one.node_key.read_bytes().replace(b"\n", b""),
        "encoded": base64.b64encode(f"{SECRETS['user']}".encode()),
        "stored": b"\\x" + SECRETS["named"].encode().hex().encode(),
        "hashes": (place / "web.yaml").read_bytes(),
    }
    assert {name for _, name in hunt(one, grounds)} == {"read", "user", "named", "hash", "key link's"}

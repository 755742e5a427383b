"""T-39: wrong users on the sockets, nodes that are none, certificates that are not good, old TLS.

Each is refused, causes nothing, and is on record.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobtrail.adapters.server_link import LinkEvents, LinkSettings, ServerLink
from jobtrail.domain.errors import StoreRefused
from jobtrail.domain.events import Actor, EventKind
from jobtrail.domain.slurm import Origin, SlurmRecord
from tests.certificates import Authority
from tests.chains import ChainWriter
from tests.daemon_process import wait_until
from tests.faults import wire
from tests.faults.figures import Figures
from tests.faults.trial import FaultDaemon
from tests.requirements import require_root, require_tool, unmet
from tests.served_api import Answer, hang_up, parse_answer, read_all, request_bytes

STRANGER = "daemon"  # a user every system has, who may nothing here
HEAD = f"/v1/chains/{uuid.uuid4()}/head"
# A daemon in a user namespace that knows uid 0 alone: every other user looks like 65534 to it (user_namespaces(7)).
IN_A_NAMESPACE = """
import ctypes, runpy, sys
assert ctypes.CDLL(None, use_errno=True).unshare(0x10000000) == 0, "unshare"
for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
sys.argv = ["jobtrail", "serve"]
runpy.run_module("jobtrail", run_name="__main__")
"""


def curl(socket: Path, sending: wire.Sending, *before: str) -> int:
    """The status that a hook gets which `before` runs."""
    tool = require_tool("curl", "what other users are answered")
    done = subprocess.run(
        [*before, tool, "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "60",
         "--unix-socket", str(socket), "--data-binary", "@-", "--header", f"Jobtrail-Event-Id: {sending.event_id}",
         "--header", f"Jobtrail-Event-Time: {sending.time_text}", f"http://localhost/v1/hooks/slurm/{sending.hook}"],
        input=sending.body, capture_output=True, timeout=90, check=False,
    )  # fmt: skip
    return int(done.stdout or 0)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def events(url: str) -> set[tuple[str, str | None]]:
    return {(what, who) for what, who in rows(url, "SELECT what, who FROM security_events")}


def opened(daemon: FaultDaemon) -> None:
    """Let everybody connect, as a mistake of an administrator's would."""
    daemon.directory.parent.chmod(0o711)
    daemon.directory.chmod(0o711)
    daemon.socket.chmod(0o666)


@pytest.mark.fault("T-39")
def test_other_users_are_refused_whatever_they_call_themselves(
    place: Path, database: str, figures: Figures, draw: Any
) -> None:
    """By uid, and as root of a user namespace of their own: to the daemon's kernel they are who they were."""
    require_root("to become another user")
    runuser, unshare = require_tool("runuser", "other users"), require_tool("unshare", "user namespaces")
    with FaultDaemon(place / "d", database={"url": database}) as daemon:
        opened(daemon)
        place.chmod(0o711)
        job = wire.make("prolog", 77, draw, start=int(time.time()))
        statuses = [
            curl(daemon.socket, job, runuser, "-u", STRANGER, "--"),
            curl(daemon.socket, job, runuser, "-u", STRANGER, "--", unshare, "--user", "--map-root-user"),
        ]
        honest = curl(daemon.socket, wire.make("prolog", 78, draw, start=int(time.time())))
        daemon.stop()
    figures.set(tried=len(statuses), refused=statuses.count(403))
    assert (statuses, honest) == ([403, 403], 201)
    assert rows(database, "SELECT job_id FROM jobs") == [("slurm-78",)]
    assert events(database) == {("wrong_sender", "uid 1")}


@pytest.mark.fault("T-39")
def test_the_uid_that_stands_for_anybody_is_nobody(place: Path, figures: Figures, draw: Any) -> None:
    require_root("to become another user")
    if subprocess.run(["unshare", "--user", "--map-root-user", "true"], check=False).returncode:
        unmet("this kernel lets nobody make a user namespace")
    daemon = FaultDaemon(place / "d")
    daemon.command = ("-c", IN_A_NAMESPACE)
    with daemon:
        opened(daemon)
        place.chmod(0o711)
        job = wire.make("prolog", 79, draw, start=int(time.time()))
        stranger = curl(daemon.socket, job, "runuser", "-u", STRANGER, "--")
        assert (stranger, curl(daemon.socket, job)) == (403, 201)
    assert "uid 65534 may not send hook events" in daemon.log.read_text()
    figures.set(tried=1, refused=1)


class Site:
    """A server with TLS, and everything that could be shown to it."""

    def __init__(self, directory: Path, url: str) -> None:
        self.authority = Authority(directory / "ours")
        self.foreign = Authority(directory / "theirs")
        now = datetime.now(UTC)
        past = tuple(f"{now - timedelta(days=days):%Y%m%d%H%M%SZ}" for days in (3, 1))
        self.good = self.authority.issue("n1")
        self.qualified = self.authority.issue("n2", san="DNS:n2.cluster.example.org")
        self.by_subject = self.authority.issue("n3", san="DNS:other.example.org")  # the subject's common name is n3
        self.expired = self.authority.issue("n1-old", san="DNS:n1", days=(past[0], past[1]))
        self.revoked = self.authority.issue("n1-lost", san="DNS:n1")
        self.strangers = self.foreign.issue("n1")
        self.servers_own = self.authority.issue("n1-server", san="DNS:n1", usage="serverAuth")
        self.authority.revoke(self.revoked[0])
        certificate, key = self.authority.server()
        web = directory / "web.yaml"
        web.write_text(
            f"tls_server_config:\n  cert_file: {certificate}\n  key_file: {key}\n"
            f"  client_ca_file: {self.authority.certificate}\n  client_auth_type: VerifyClientCertIfGiven\n"
        )
        web.chmod(0o600)
        read_token = directory / "read.token"
        read_token.write_text("r" * 43)
        read_token.chmod(0o600)
        self.url = url
        self.daemon = FaultDaemon(
            directory / "d", database={"url": url}, roles=["server"],
            http={"host": "0.0.0.0", "port": 0, "web_config_file": str(web), "node_domain": "cluster.example.org",
                  "client_crl_file": str(self.authority.revocations()), "read_token_file": str(read_token)},
        )  # fmt: skip

    @property
    def port(self) -> int:
        lines = self.daemon.log.read_text().splitlines()
        line = next(line for line in reversed(lines) if '"started"' in line or "https://" in line)  # of its last start
        return int(line.rsplit("https://0.0.0.0:", 1)[1].split('"')[0])

    async def ask(
        self, node: str, client: tuple[Path, Path] | None = None, token: str | None = None, path: str = HEAD
    ) -> Answer:
        """What a node is answered that calls itself `node`. Raises OSError where the handshake fails."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        if client is not None:
            context.load_cert_chain(*client)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        try:
            headers = {"Jobtrail-Node": node, "Connection": "close"}
            headers |= {"Authorization": f"Bearer {token}"} if token else {}
            writer.write(request_bytes("GET", path, b"", headers))
            data = await asyncio.wait_for(read_all(reader), 60)
            if not data:
                raise ConnectionError("the server hung up without an answer")
            return parse_answer(data)
        finally:
            await hang_up(writer)

    def status(self, *arguments: Any, **named: Any) -> int:
        """The same, with 0 for a handshake that failed."""
        try:
            return asyncio.run(self.ask(*arguments, **named)).status
        except OSError:  # of ssl too
            return 0

    def node_token(self, *arguments: str) -> str:
        return self.daemon.cli("node-token", *arguments).stdout.strip()


@pytest.fixture
def site(place: Path, database: str) -> Iterator[Site]:
    one = Site(place, database)
    with one.daemon:
        yield one


@pytest.mark.fault("T-39")
def test_a_node_is_who_its_certificate_says_and_bad_ones_are_nobody(site: Site, figures: Figures) -> None:
    good = {
        "n1": site.status("n1", site.good),
        "n2": site.status("n2", site.qualified),
    }
    forged = {
        "another": site.status("n2", site.good),
        "subject": site.status("n3", site.by_subject),
        "prefix": site.status("n1.evil.example.org", site.good),
    }
    cut = {
        "expired": site.status("n1", site.expired),
        "revoked": site.status("n1", site.revoked),
        "foreign": site.status("n1", site.strangers),
        "servers": site.status("n1", site.servers_own),
    }
    nothing = site.status("n1")
    site.daemon.stop()
    refused = [status for status in (*forged.values(), *cut.values(), nothing) if status in (0, 401, 403)]
    figures.set(tried=len(forged) + len(cut) + 1, refused=len(refused))
    assert set(good.values()) <= {200, 404}, good
    assert set(forged.values()) == {403}
    assert set(cut.values()) == {0}
    assert nothing == 401
    found = events(site.url)
    assert {("forged_node", name) for name in ("n2", "n3", "n1.evil.example.org")} <= found
    (told,) = rows(site.url, "SELECT sum(times), min(peer) FROM security_events WHERE what = 'certificate_refused'")
    assert (told[0], told[1]) == (4, "127.0.0.1")
    assert rows(site.url, "SELECT count(*) FROM audit_log WHERE job_id IS NOT NULL") == [(0,)]


def of_n1(kind: EventKind, by: Actor, *, cluster: str = "lab", node: str = "n1", **fields: Any) -> ChainWriter:
    """A chain of that node which holds one event of job 7."""
    writer = ChainWriter(node, cluster=cluster)
    writer.event(kind, "slurm-7", 0, by, **fields)
    return writer


async def told(site: Site, writer: ChainWriter) -> str:
    """What a real node's link makes of the daemon's answer to a chain of n1's; empty where it was taken."""
    certificate, key = site.good
    settings = LinkSettings(
        urls=(f"https://127.0.0.1:{site.port}",), node="n1", ca_file=str(site.authority.certificate),
        certificate_file=str(certificate), key_file=str(key), token_file="",
    )  # fmt: skip
    link = ServerLink(settings, tell=[].append)
    try:
        await LinkEvents(link).store(writer.rows, node="n1")
    except StoreRefused as refused:
        return str(refused)
    finally:
        await link.close()
    return ""


@pytest.mark.fault("T-39")
def test_a_node_claims_no_more_than_its_own(site: Site, figures: Figures) -> None:
    """Another cluster, slurmctld's word, Slurm's own, another node: each is refused, and on record."""
    log = site.daemon.log.read_text()
    assert all(f"{setting} is empty" in log for setting in ("link.clusters", "link.controllers"))
    site.daemon.stop()
    site.daemon.configure("link", clusters=["lab"], controllers=["ctl[1-2]"])
    site.daemon.start()
    record = SlurmRecord(origin=Origin.CONTROLLER_HOOK, job_id="slurm-7")
    begun, hook = EventKind.JOB_STARTED, EventKind.SLURM_REPORTED
    forged = {
        "link.clusters": of_n1(begun, Actor.SLURM_PROLOG, cluster="other"),
        "link.controllers": of_n1(hook, Actor.SLURM_CONTROLLER, slurm=record),
        "does not ask": of_n1(begun, Actor.RECONCILER),
        "of node 'n2'": of_n1(begun, Actor.SLURM_PROLOG, node="n2"),
    }
    answers = {words: asyncio.run(told(site, writer)) for words, writer in forged.items()}
    assert asyncio.run(told(site, of_n1(begun, Actor.SLURM_PROLOG))) == ""
    site.daemon.stop()
    figures.set(tried=len(answers), refused=sum(words in answer for words, answer in answers.items()))
    assert all(words in answer for words, answer in answers.items()), answers
    assert rows(site.url, "SELECT cluster_name, job_id FROM jobs") == [("lab", "slurm-7")]
    (noticed,) = rows(site.url, "SELECT sum(times) FROM security_events WHERE what = 'forged_node' AND who = 'n1'")
    assert noticed[0] == len(forged)
    assert site.daemon.log.read_text().count("is empty: a node may") == 2


@pytest.mark.fault("T-39")
def test_a_nodes_token_is_its_own_and_can_be_changed_and_revoked(site: Site, figures: Figures) -> None:
    first, second = site.node_token("add", "n1"), site.node_token("add", "n1", "--expires", "30d")
    third = site.daemon.cli("node-token", "add", "n1", check=False)
    assert (third.returncode, "two valid tokens" in third.stderr) == (1, True)
    assert {site.status("n1", token=token) for token in (first, second)} <= {200, 404}
    assert site.status("n2", token=first) == 403
    assert site.status("n1", token="x" * 43) == 403
    assert site.status("n1", token=first, path="/metrics") == 403  # a node's token opens what is for nodes
    stored = rows(site.url, "SELECT encode(digest, 'hex') FROM node_tokens")
    assert {row[0] for row in stored} == {hashlib.sha256(token.encode()).hexdigest() for token in (first, second)}
    site.node_token("revoke", hashlib.sha256(first.encode()).hexdigest()[:12])
    with psycopg.connect(site.url, autocommit=True) as connection:
        connection.execute(
            "UPDATE node_tokens SET created_at = now() - interval '9 d', expires_at = now() - interval '1 s'"
            " WHERE revoked_at IS NULL"
        )
    began = time.monotonic()
    wait_until(lambda: site.status("n1", token=first) == 403, "the revocation to be known")
    took = time.monotonic() - began
    assert site.status("n1", token=second) == 403
    listed = site.daemon.cli("node-token", "list", "--all", "--json").stdout
    assert first not in listed
    assert ("revoked" in listed, "expired" in listed) == (True, True)
    site.daemon.stop()
    figures.set(tried=5, refused=5, revocation_seconds=took)
    assert {("forged_node", "n2"), ("node_token_refused", "n1"), ("wrong_token", None)} <= events(site.url)
    assert took < 30


@pytest.mark.fault("T-39")
def test_old_tls_and_no_tls_are_refused(site: Site, figures: Figures) -> None:
    openssl = require_tool("openssl", "old versions of TLS")
    outcomes = {}
    for version in ("-tls1", "-tls1_1", "-tls1_2", "-tls1_3"):
        done = subprocess.run(
            [openssl, "s_client", "-connect", f"127.0.0.1:{site.port}", version, "-cipher", "ALL:@SECLEVEL=0", "-brief",
             "-CAfile", str(site.authority.certificate), "-verify_return_error"],
            input=b"", capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        outcomes[version] = b"CONNECTION ESTABLISHED" in done.stderr

    async def plainly() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(request_bytes("GET", "/metrics", b"", {}))
        data = await asyncio.wait_for(read_all(reader), 60)
        await hang_up(writer)
        return data

    plain = asyncio.run(plainly())
    site.daemon.stop()
    figures.set(tried=3, refused=list(outcomes.values()).count(False) + (b"HTTP/1.1 200" not in plain))
    assert outcomes == {"-tls1": False, "-tls1_1": False, "-tls1_2": True, "-tls1_3": True}
    assert b"jobtrail_" not in plain
    (told,) = rows(site.url, "SELECT sum(times) FROM security_events WHERE what = 'tls_refused'")
    assert told[0] >= 3

"""Nodes without a database login, a balancer, two servers: servers killed, the database gone and set back."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from jobtrail.adapters.postgres.leader import lock_key
from tests.balancer import Balancer
from tests.certificates import Authority
from tests.daemon_process import Daemon, wait_until

NODES = ("n1", "n2", "n3")
SERVERS = ("s1", "s2")
CLUSTER = "lab"


class Producer(threading.Thread):
    """Posts hooks of one node as fast as they are acknowledged, and remembers which were."""

    def __init__(self, node: str, daemon: Daemon) -> None:
        super().__init__(name=f"producer-{node}", daemon=True)
        self.node, self.daemon_process = node, daemon
        self.acknowledged: list[str] = []
        self.problem: BaseException | None = None
        self._halt = threading.Event()
        self._number = 0

    def run(self) -> None:
        try:
            while not self._halt.wait(0.01):
                self.post()
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            self.problem = error

    def post(self) -> None:
        """The prolog and the epilog of one job."""
        self._number += 1
        for hook in ("prolog", "epilog"):
            identity = str(uuid.uuid4())
            values = {
                "SLURM_JOB_ID": str(1000 + self._number), "SLURM_CLUSTER_NAME": CLUSTER, "SLURM_JOB_UID": "1001",
                "SLURM_JOB_USER": "ada", "SLURM_JOB_NODELIST": self.node, "SLURMD_NODENAME": self.node,
                "SLURM_JOB_START_TIME": str(int(time.time())), "SLURM_SCRIPT_CONTEXT": f"{hook}_slurmd",
            }  # fmt: skip
            body = b"".join(f"{name}={value}\0".encode() for name, value in values.items())
            headers = {"Jobtrail-Event-Id": identity, "Jobtrail-Event-Time": f"{time.time():.9f}"}
            status, answer = self.daemon_process.request("POST", f"/v1/hooks/slurm/{hook}", body, headers)
            assert status == 201, answer
            self.acknowledged.append(identity)

    def halt(self) -> None:
        self._halt.set()
        self.join(60)
        assert not self.is_alive()
        assert self.problem is None, self.problem


class Cluster:
    """Three nodes, a balancer, two servers, one database."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.data_dir = directory / "postgres"
        self.database = embedded_postgres.start(self.data_dir)
        stack.callback(embedded_postgres.stop, self.data_dir)
        migrate.upgrade(self.database)
        for server in SERVERS:  # each has a login of its own, by which its connections are told apart
            self.rows(f"CREATE ROLE {server} LOGIN SUPERUSER")
        self.authority = Authority(directory / "authority")
        certificate, key = self.authority.server()
        self.web = directory / "web.yml"
        self.web.write_text(
            yaml.safe_dump({"tls_server_config": {"cert_file": str(certificate), "key_file": str(key)}})
        )
        self.token = directory / "nodes.token"
        self.token.write_text(secrets.token_hex(16))
        for path in (self.web, self.token):
            path.chmod(0o600)
        self._stack = stack
        self.servers = [self._started(self._server(name)) for name in SERVERS]
        self.ports = [port_of(server) for server in self.servers]
        self.balancer = stack.enter_context(Balancer(self.ports))
        self.nodes = {node: self._started(self._node(node)) for node in NODES}
        self.producers = {node: Producer(node, daemon) for node, daemon in self.nodes.items()}

    def _started(self, daemon: Daemon) -> Daemon:
        self._stack.callback(lambda: daemon.process is not None and daemon.process.poll() is None and daemon.kill())
        return daemon.start()

    def _server(self, name: str) -> Daemon:
        return Daemon(
            self.directory / name, roles=["server"], node=name, cluster=CLUSTER, slurm={"sacct": ""},
            database={"url": self.database.replace("//postgres@", f"//{name}@")}, benchmarks={"settle_seconds": 0.5},
            http={"web_config_file": str(self.web), "node_token_file": str(self.token)},
        )  # fmt: skip

    def _node(self, node: str) -> Daemon:
        cgroups = self.directory / f"{node}-cgroup"
        cgroups.mkdir()
        return Daemon(
            self.directory / node, roles=["node"], node=node, cluster=CLUSTER, gpu={"vendors": "none"},
            database={"url": f"https://127.0.0.1:{self.balancer.port}"}, sampling={"cgroup_root": str(cgroups)},
            link={"ca_file": str(self.authority.certificate), "token_file": str(self.token)},
            http={"admin_token_file": str(self.token)},
        )  # fmt: skip

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database says, or nothing while it is away."""
        try:
            with psycopg.connect(self.database, connect_timeout=30) as connection:
                cursor = connection.execute(statement.encode(), values)
                return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError:
            return []

    def stored(self) -> int:
        found = self.rows("SELECT count(*) FROM audit_log WHERE changed_by IN ('slurm-prolog', 'slurm-epilog')")
        return found[0][0] if found else 0

    def acknowledged(self) -> set[str]:
        return {identity for producer in self.producers.values() for identity in producer.acknowledged}

    def signal_nodes(self, number: signal.Signals) -> None:
        """To the daemon of each node."""
        for daemon in self.nodes.values():
            assert daemon.process is not None
            daemon.process.send_signal(number)

    def check_each_once(self) -> None:
        """Every acknowledged event is in the trail once; each node's chain has no gap and is that node's."""
        wait_until(lambda: self._missing() == 0, "all acknowledged events to be in the trail", timeout_seconds=60)
        (twice,) = self.rows("SELECT count(*) - count(DISTINCT event_id) FROM audit_log")
        assert twice == (0,)
        for node in NODES:
            (chain,) = self.rows(
                "SELECT count(*), max(seq), count(DISTINCT chain_id) FROM audit_log JOIN audit_chain USING (chain_id) "
                "WHERE audit_chain.node = %s", node,
            )  # fmt: skip
            assert chain[0] == chain[1]
            assert chain[2] == 1
        assert self.rows("SELECT count(*) FROM audit_conflict") == [(0,)]

    def _missing(self) -> int:
        held = {str(row[0]) for row in self.rows("SELECT event_id FROM audit_log")}
        return len(self.acknowledged() - held)

    def leader(self) -> tuple[str, int] | None:
        """The server, and its connection, that holds the lock of who does the cluster's work, and no other lock."""
        found = self.rows(
            "SELECT usename, pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' "
            "AND granted AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = %s", lock_key(CLUSTER),
        )  # fmt: skip
        return found[0] if found else None


def port_of(daemon: Daemon) -> int:
    """The TCP port it listens on, as its log says."""
    for line in daemon.log.read_text().splitlines():
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("http"):
            return int(entry["http"].rpartition(":")[2])
    raise AssertionError(daemon.tail())


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-servers-"))
    try:
        with ExitStack() as stack:
            yield Cluster(directory, stack)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def health(daemon: Daemon) -> tuple[int, dict[str, Any]]:
    status, body = daemon.get("/health")
    return status, json.loads(body)


def test_servers_are_killed_mid_stream_and_every_event_is_there_once(cluster: Cluster) -> None:
    """kill -9 of one server, then of the other once the first is back, while three nodes send without a pause."""
    for producer in cluster.producers.values():
        producer.start()
    for server in cluster.servers:
        before = cluster.stored()
        wait_until(lambda: cluster.stored() > before + 60, "events to flow")  # noqa: B023 - called at once
        server.kill()
        port = cluster.ports[cluster.servers.index(server)]
        before = cluster.stored()
        wait_until(lambda: cluster.stored() > before + 60, "events to flow past it")  # noqa: B023 - as above
        cluster._started(server)
        cluster.balancer.backends[cluster.balancer.backends.index(port)] = port_of_last(server)
    for producer in cluster.producers.values():
        producer.halt()
    cluster.check_each_once()
    assert len(cluster.acknowledged()) > 200
    taken = cluster.balancer.taken
    assert len(taken) >= 3, taken
    status, told = health(cluster.nodes["n1"])
    assert (status, told["details"]["forwards_to"]) == (200, f"https://127.0.0.1:{cluster.balancer.port}")
    page = cluster.nodes["n1"].metrics()
    assert ("events", "ok") in {(labels["what"], labels["outcome"]) for labels, n in page[LINK] if n}
    assert page["jobtrail_forward_target_info"] == [({"target": f"https://127.0.0.1:{cluster.balancer.port}"}, 1)]


LINK = "jobtrail_link_requests_total"


def port_of_last(daemon: Daemon) -> int:
    """The port since its last start."""
    ports = [
        int(entry["http"].rpartition(":")[2])
        for line in daemon.log.read_text().splitlines()
        if line.startswith("{") and (entry := json.loads(line)).get("http")
    ]
    return ports[-1]


def test_a_database_that_is_away_and_then_an_old_one_heal_from_the_nodes(cluster: Cluster) -> None:
    """The outage is told by the nodes and loses nothing; what a backup has not is sent again from what nodes keep."""
    for producer in cluster.producers.values():
        producer.start()
    wait_until(lambda: cluster.stored() > 30, "events to flow")
    embedded_postgres.stop(cluster.data_dir)
    backup = cluster.directory / "backup"
    copy(cluster.data_dir, backup)
    _, page = wait_until(
        lambda: found if (found := health(cluster.nodes["n2"]))[0] == 503 else None, "the node to tell of it"
    )
    assert page["problems"][0].startswith("no server takes this node's events: the server https://127.0.0.1:")
    assert cluster.nodes["n2"].get("/readyz")[0] == 503
    embedded_postgres.start(cluster.data_dir)
    at_backup = cluster.stored()
    wait_until(lambda: cluster.stored() > at_backup + 60, "events to flow again", timeout_seconds=60)
    for producer in cluster.producers.values():
        producer.halt()
    cluster.check_each_once()

    cluster.signal_nodes(signal.SIGSTOP)  # or they could send it again before it is counted
    embedded_postgres.stop(cluster.data_dir)
    shutil.rmtree(cluster.data_dir)
    copy(backup, cluster.data_dir)
    embedded_postgres.start(cluster.data_dir)
    lost = len(cluster.acknowledged()) - cluster.stored()
    cluster.signal_nodes(signal.SIGCONT)
    assert lost > 30
    for producer in cluster.producers.values():
        producer.post()
    cluster.check_each_once()


def copy(source: Path, target: Path) -> None:
    """A copy of a directory with the owners of its files: PostgreSQL runs as another user."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=60)


def test_another_server_does_the_clusters_work_within_seconds(cluster: Cluster) -> None:
    """Of two one holds the lock. It is killed: the other has it; the killed one comes back and does not take it."""
    first, _ = wait_until(cluster.leader, "one of the servers to lead")
    (other,) = {*SERVERS} - {first}
    killed = cluster.servers[SERVERS.index(first)]
    killed.kill()
    second = wait_until(
        lambda: found if (found := cluster.leader()) is not None and found[0] == other else None,
        "the other server to lead",
    )
    cluster._started(killed)
    wait_until(lambda: health(killed)[0] == 200, "the killed one to be back")
    assert cluster.leader() == second


def test_who_is_turned_away_on_a_node_is_on_record_in_the_database(cluster: Cluster) -> None:
    """At a node that holds no database login somebody tries a token; servers that are away cost a minute at most."""
    url = f"http://127.0.0.1:{port_of(cluster.nodes['n2'])}/v1/security/events"
    asked = urllib.request.Request(url, headers={"Authorization": "Bearer 0123456789abcdef"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=60)
    refused.value.close()
    assert refused.value.code == 403
    query = "SELECT what, peer, reporter FROM security_events"
    wait_until(lambda: cluster.rows(query) == [("wrong_token", "127.0.0.1", "n2")], "the record", timeout_seconds=90)

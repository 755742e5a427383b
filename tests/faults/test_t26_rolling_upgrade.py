"""T-26: two nodes of the oldest release are upgraded one by one, with the database before or between, under load.

What the one release cannot store, because the schema is not its own, it says and keeps; it is there after the upgrade.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from jobtrail.adapters.postgres import PostgresVerifier, close_pool, migrate, open_pool
from tests.daemon_process import Daemon, wait_until
from tests.faults.conftest import NewTrial
from tests.faults.figures import often
from tests.faults.old_release import OldDaemon, unpack
from tests.faults.test_database_outages import JOB_LOAD, pass_time
from tests.faults.trial import FaultDaemon, Trial
from tests.postgres import PostgresServer

pytestmark = pytest.mark.fault("T-26")
OLD_SCHEMA = "0001"  # the old release's
NODES = ("n1", "n2")
JOBS_APART = 500_000_000


class Node:
    """One node's spool and socket, with the daemon of either release on them."""

    def __init__(self, name: str, directory: Path, sources: Path, url: str, login: str) -> None:
        self.name = name
        self._url = url
        login_url = url.replace("//postgres@", f"//{login}@")
        self.new = FaultDaemon(directory, database={"url": login_url})
        self.old = OldDaemon(sources, self.new, url=login_url)
        self.running: Daemon = self.old
        for daemon in (self.new, self.old):
            tree = yaml.safe_load(daemon.config.read_text(encoding="utf-8"))
            daemon.config.write_text(yaml.safe_dump({**tree, "node": name}), encoding="utf-8")

    def upgrade(self) -> None:
        """Stop the old release and start the new one."""
        self.old.stop()
        self.running = self.new.start()

    def stored(self) -> int:
        """Rows of its chain in the trail."""
        with psycopg.connect(self._url) as connection:
            found = connection.execute("SELECT sum(head_seq) FROM audit_chain WHERE node = %s", (self.name,)).fetchone()
        return int((found and found[0]) or 0)

    def await_stored(self) -> None:
        """Wait until more of it is in the trail than now."""
        before = self.stored()
        wait_until(lambda: self.stored() > before, f"rows of {self.name}; log:\n{self.running.tail()}",
                   timeout_seconds=60, every_seconds=0.1)  # fmt: skip

    def await_complaint(self) -> None:
        """Wait until it says that the database does not take its events."""
        wait_until(lambda: b"database" in self.running.get("/readyz")[1], f"{self.name} to tell of it",
                   timeout_seconds=60, every_seconds=0.1)  # fmt: skip

    def close(self) -> None:
        """End whichever runs."""
        for daemon in (self.old, self.new):
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.kill()


@pytest.fixture
def nodes(place: Path, postgres_server: PostgresServer, empty_database: str) -> Iterator[list[Node]]:
    """Two nodes, not started, with the rights that nodes have, and a database of the old release."""
    login = f"node_{secrets.token_hex(4)}"
    postgres_server.execute(f"CREATE ROLE {login} LOGIN IN ROLE jobtrail_ingest")
    migrate.upgrade(empty_database, OLD_SCHEMA)
    sources = unpack(place / "old")
    made = [Node(name, place / name, sources, empty_database, login) for name in NODES]
    yield made
    for node in made:
        node.close()


@pytest.mark.parametrize("first", ["database", "a node"])
async def test_one_after_the_other_under_load(
    first: str, nodes: list[Node], new_trial: NewTrial, empty_database: str
) -> None:
    one, other = nodes
    trial: Trial = new_trial(url=empty_database, daemon=one.new)
    with ExitStack() as load:
        for number, node in enumerate(nodes):
            node.old.start()
            load.enter_context(
                trial.producing(socket=node.new.socket, **{**JOB_LOAD, "first-job": number * JOBS_APART + 1})
            )
        for node in nodes:
            node.await_stored()
        if first == "database":
            stall = migrate_now(trial, empty_database)
            keeps_its_events(one, trial)
            one.upgrade()
        else:
            one.upgrade()
            keeps_its_events(one, trial)
            stall = migrate_now(trial, empty_database)
        one.await_stored()
        keeps_its_events(other, trial)
        other.upgrade()
        other.await_stored()
    found = settled(trial, nodes)
    wrong = ("lost", "duplicated", "invented", "altered", "broken", "conflicts", "running")
    assert {name: found[name][:3] for name in wrong if found[name]} == {}
    assert found["stored"] == found["acknowledged"] > 0
    assert found["chains"] == len(nodes), "each release goes on with the chain of the one before"
    assert await findings(empty_database) == []
    trial.figures.set(
        first=first, acknowledged=found["acknowledged"], lost=len(found["lost"]),
        duplicated=len(found["duplicated"]), migration_s=stall,
    )  # fmt: skip


def migrate_now(trial: Trial, url: str) -> float:
    """Bring the database to the newest schema below running daemons; the seconds. Events are taken meanwhile."""
    before, began = trial.acknowledged(), time.monotonic()
    migrate.upgrade(url)
    seconds = time.monotonic() - began
    assert trial.acknowledged() > before
    return seconds


def keeps_its_events(node: Node, trial: Trial) -> None:
    """It says that the database does not take them, takes more all the same, and nothing of it is stored."""
    node.await_complaint()
    held = node.stored()
    pass_time(often(quick=2, full=20), trial)
    assert node.stored() == held


def settled(trial: Trial, nodes: list[Node]) -> dict[str, Any]:
    """What the judge finds when nothing is left to forward; both daemons are ended."""
    for node in nodes:
        trial.daemon = node.new
        trial.settle()
    for node in nodes:
        node.new.stop()
    return trial.judge()


async def findings(url: str) -> list[Any]:
    """What a full verification finds in rows of both releases."""
    pool = await open_pool(url, size=2, timeout_seconds=30.0)
    try:
        return list((await PostgresVerifier(pool, timeout_seconds=30.0).verify(full=True)).findings)
    finally:
        await close_pool(pool, timeout_seconds=5.0)

"""T-23: the limits of a real PostgreSQL: connections, time, disk, locks, serialization. The daemon waits, not hotly."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobtrail.adapters.postgres.sink import JOB_LOCK_CLASS
from tests.daemon_process import wait_until
from tests.faults.clusters import DATABASE, SERVER_USER, Cluster
from tests.faults.conftest import NewTrial
from tests.faults.disks import mount
from tests.faults.figures import often
from tests.faults.proxy import Proxy
from tests.faults.test_database_outages import JOB_LOAD, await_failure, drained, failures, pass_time
from tests.faults.trial import FaultDaemon
from tests.requirements import require_root

MOST_CONNECTIONS = 14
TRIES_AHEAD = 4  # within the first seconds: 0.5, 1, 2 s and what was under way
WAITING = "SELECT FROM pg_stat_activity WHERE application_name = 'jobtrail' AND wait_event_type = 'Lock'"
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobtrail'"


@contextmanager
def no_connection_left(cluster: Cluster, _: Path) -> Iterator[None]:
    """All connections are somebody else's; those of the superuser, who may have the reserved ones, too."""
    with ExitStack() as held:
        first = held.enter_context(psycopg.connect(cluster.url(), autocommit=True))
        others: list[psycopg.Connection[Any]] = []

        def has_none() -> bool:
            """Whether the daemon has none and can get none: a backend that is to end keeps its place for a moment."""
            first.execute(CUT)
            with suppress(psycopg.OperationalError):
                while True:
                    others.append(held.enter_context(psycopg.connect(cluster.url())))
            return 1 + len(others) == MOST_CONNECTIONS

        wait_until(has_none, "all connections to be taken")
        yield


@contextmanager
def no_time(cluster: Cluster, _: Path) -> Iterator[None]:
    """Storing takes longer than a statement may."""
    with psycopg.connect(cluster.url(), autocommit=True) as connection:  # keeps the time it began with
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END'"
        )
        connection.execute("SET lock_timeout = '30s'")
        connection.execute("CREATE TRIGGER slow AFTER INSERT ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION slow()")
        connection.execute(f"ALTER DATABASE {DATABASE} SET statement_timeout = '200ms'".encode())
        connection.execute(CUT)
        yield
        connection.execute(f"ALTER DATABASE {DATABASE} RESET statement_timeout".encode())
        connection.execute("DROP TRIGGER slow ON audit_log")
        connection.execute("DROP FUNCTION slow")
        connection.execute(CUT)


@contextmanager
def no_disk(cluster: Cluster, directory: Path) -> Iterator[None]:
    """The trail's table lies on a file system of a few mebibytes, which somebody else's table fills."""
    require_root("mount a small file system")
    small = directory / "small"
    small.mkdir()
    mount(["-t", "tmpfs", "-o", "size=8m", "tmpfs"], small, "a full tablespace")
    try:
        own_by_server(small)
        cluster.execute(f"CREATE TABLESPACE small LOCATION '{small}'")
        cluster.execute("ALTER TABLE audit_log SET TABLESPACE small")
        cluster.execute("CREATE TABLE filler (text text) TABLESPACE small")
        with suppress(psycopg.errors.DiskFull):
            while True:
                cluster.execute("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 50)")
        yield
        cluster.execute("DROP TABLE filler")
        with psycopg.connect(cluster.url(), autocommit=True) as connection:
            connection.execute("SET lock_timeout = '30s'")
            connection.execute("ALTER TABLE audit_log SET TABLESPACE pg_default")
    finally:
        # Lazily: processes of the server keep files of it open that are gone.
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def own_by_server(place: Path) -> None:
    """The server is another user where root starts it."""

    shutil.chown(place, SERVER_USER, SERVER_USER)
    place.chmod(0o700)


@contextmanager
def failing_with(cluster: Cluster, condition: str, share: float) -> Iterator[None]:
    """That share of the batches is told `condition` by PostgreSQL itself."""
    body = f"BEGIN IF random() < {share} THEN RAISE {condition}; END IF; RETURN NULL; END"
    cluster.execute(f"CREATE FUNCTION failing() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
    cluster.execute("CREATE TRIGGER failing AFTER INSERT ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION failing()")
    yield
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        connection.execute("SET lock_timeout = '30s'")
        connection.execute("DROP TRIGGER failing ON audit_log")
        connection.execute("DROP FUNCTION failing")


@contextmanager
def no_serialization(cluster: Cluster, _: Path) -> Iterator[None]:
    """Every batch is told to be tried again."""
    with failing_with(cluster, "serialization_failure", 1.0):
        yield


LIMITS = {
    "max_connections": no_connection_left, "statement_timeout": no_time, "disk full": no_disk,
    "serialization": no_serialization,
}  # fmt: skip


@pytest.mark.fault("T-23")
@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_of_the_database(new_trial: NewTrial, place: Path, cluster: Cluster, limit: str) -> None:
    """Events are acknowledged, the daemon tries at most once a second and then ever more rarely; nothing is refused."""
    seconds = often(quick=4, full=120)
    place.chmod(0o755)
    cluster.stop_cleanly()
    cluster.settings["max_connections"] = str(MOST_CONNECTIONS)
    cluster.start()
    with Proxy(cluster.port) as proxy:
        daemon = FaultDaemon(place / "d", database={"url": cluster.url(port=proxy.port)})
        with new_trial(url=cluster.url(), daemon=daemon) as trial:
            with trial.producing(**JOB_LOAD):
                trial.await_acknowledgements(50)
                with LIMITS[limit](cluster, place):
                    await_failure(trial)
                    tries, connections, began = failures(trial), proxy.connections, time.monotonic()
                    pass_time(seconds, trial)
                    lasted = time.monotonic() - began
                    tries, connections = failures(trial) - tries, proxy.connections - connections
                    visible = trial.daemon.get("/health")[1].decode()
            drained(trial)
            trial.figures.set(limit=limit, limited_s=lasted, tries_per_s=tries / lasted,
                              connections_per_s=connections / lasted)  # fmt: skip
            trial.check()
            assert tries <= lasted + TRIES_AHEAD
            assert "the database is not reached" in visible
            if limit == "statement_timeout":
                assert trial.daemon.metric("jobtrail_forward_failures_total", of="events", reason="timeout") >= tries
            assert trial.daemon.metric("jobtrail_projection_refused_total") == 0


@pytest.mark.fault("T-23")
def test_deadlocks(new_trial: NewTrial, cluster: Cluster) -> None:
    """Somebody takes the locks of chain and jobs the other way round: PostgreSQL ends one of both, here always us."""
    wanted = often(quick=2, full=30)
    cluster.execute(f"ALTER DATABASE {DATABASE} SET deadlock_timeout = '1s'")
    with new_trial(url=cluster.url()) as trial:
        with trial.producing(**JOB_LOAD):
            trial.await_acknowledgements(50)
            wait_until(lambda: cluster.execute("SELECT chain_id FROM audit_chain"), "the chain")
            stop = threading.Event()
            adversary = threading.Thread(target=lock_backwards, args=(cluster, stop))
            adversary.start()
            try:
                wait_until(lambda: deadlocks(cluster) >= wanted, "deadlocks", timeout_seconds=120, every_seconds=0.2)
            finally:
                stop.set()
                adversary.join()
        drained(trial)
        trial.figures.set(deadlocks=deadlocks(cluster), failed_tries=int(failures(trial)))
        trial.check()
        assert failures(trial) >= wanted


@pytest.mark.fault("T-23")
def test_a_lock_that_somebody_holds(new_trial: NewTrial, place: Path, cluster: Cluster) -> None:
    """Each try ends at its deadline on the server as well: no process is left behind there, waiting for the lock."""
    seconds = often(quick=6, full=60)
    daemon = FaultDaemon(place / "d", database={"url": cluster.url(), "timeout_seconds": 1.0})
    with new_trial(url=cluster.url(), daemon=daemon) as trial:
        with trial.producing(**JOB_LOAD):
            trial.await_acknowledgements(50)
            wait_until(lambda: cluster.execute("SELECT chain_id FROM audit_chain"), "the chain")
            with psycopg.connect(cluster.url()) as holder:
                holder.execute("SELECT FROM audit_chain FOR UPDATE")
                pass_time(seconds, trial)
                tries = wait_until(lambda: found if (found := failures(trial)) >= 3 else None, "three tries to end")
                # One that is under way; what was left behind would stay.
                wait_until(lambda: len(cluster.execute(WAITING)) <= 1, "the others to be gone from the server")
                waiting = len(cluster.execute(WAITING))
        drained(trial)
        trial.figures.set(locked_s=seconds, failed_tries=int(tries), processes_left_waiting=waiting)
        trial.check()


def deadlocks(cluster: Cluster) -> int:
    """How many PostgreSQL found; its statistics come with a second's delay."""
    return int(cluster.execute(f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{DATABASE}'")[0][0])


def lock_backwards(cluster: Cluster, stop: threading.Event) -> None:
    """Take all locks of jobs first and the chains' rows then; with a patience that the daemon has not."""
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        connection.execute("SET deadlock_timeout = '1h'")
        while not stop.wait(0.3):
            with connection.transaction():
                connection.execute(
                    "SELECT pg_advisory_xact_lock(%s, n) FROM generate_series(0, 1023) AS n", [JOB_LOCK_CLASS]
                )
                connection.execute("SELECT pg_sleep(0.3)")  # the daemon takes its chain's row and waits for a job
                connection.execute("SELECT FROM audit_chain FOR UPDATE")

"""T-26, T-28: a database that changes below the running daemon: migrations, withdrawn rights, another password."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobtrail.adapters.postgres import migrate
from tests.daemon_process import wait_until
from tests.faults.clusters import DATABASE, Cluster
from tests.faults.conftest import NewTrial
from tests.faults.figures import often
from tests.faults.test_database_network import catch_up, to_be_forwarded
from tests.faults.test_database_outages import JOB_LOAD, await_failure, drained, failures, pass_time
from tests.faults.trial import FaultDaemon, Trial

NODE_ROLE = "node_of_test"
LOGIN_RULE = f"host all {NODE_ROLE} 127.0.0.1/32 scram-sha-256\n"


def with_a_login(cluster: Cluster, password: str) -> None:
    """A role of a node's and server's rights, that must show its password."""
    cluster.execute(
        f"CREATE ROLE {NODE_ROLE} LOGIN PASSWORD '{password}' IN ROLE jobtrail_ingest, jobtrail_sealer, jobtrail_reader"
    )
    rules = cluster.data / "pg_hba.conf"
    rules.write_text(LOGIN_RULE + rules.read_text())
    cluster.execute("SELECT pg_reload_conf()")


def write_password(place: Path, cluster: Cluster, password: str) -> Path:
    """A password file as libpq's documentation describes it (The Password File), replaced in one step."""
    path, part = place / "pgpass", place / "pgpass.part"
    part.write_text(f"127.0.0.1:{cluster.port}:{DATABASE}:{NODE_ROLE}:{password}\n")
    part.chmod(0o600)
    part.rename(path)
    return path


def cut(cluster: Cluster) -> None:
    """End the daemon's connections, as a restart or an administrator does."""
    cluster.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobtrail'")


def logins_refused(trial: Trial) -> float:
    """How often the database did not let in what forwards events, which is what /health tells of."""
    return trial.daemon.metric("jobtrail_forward_failures_total", of="events", reason="login")


@pytest.fixture
def logged_in(new_trial: NewTrial, place: Path, cluster: Cluster) -> Trial:
    """A trial, not begun, whose daemon has a login of its own and its password from PGPASSFILE."""
    with_a_login(cluster, "first")
    daemon = FaultDaemon(place / "d", database={"url": cluster.url(NODE_ROLE)})
    daemon.more_environment = {"PGPASSFILE": str(write_password(place, cluster, "first"))}
    return new_trial(url=cluster.url(), daemon=daemon)


@pytest.mark.fault("T-28")
def test_a_password_that_is_changed(logged_in: Trial, place: Path, cluster: Cluster) -> None:
    """The new one is read from the file at the next connection, without a restart; until then the daemon says so."""
    with logged_in as trial:
        with trial.producing(**JOB_LOAD):
            trial.await_acknowledgements(50)
            for number in range(often(quick=1, full=10)):
                cluster.execute(f"ALTER ROLE {NODE_ROLE} PASSWORD 'next-{number}'")
                refused = logins_refused(trial)
                cut(cluster)
                wait_until(lambda before=refused: logins_refused(trial) > before, "it to be told", timeout_seconds=60)
                assert "password authentication failed" in trial.daemon.get("/health")[1].decode()
                pass_time(often(quick=2, full=30), trial)
                write_password(place, cluster, f"next-{number}")
                wait_until(lambda: trial.daemon.get("/readyz")[0] == 200, "it to be let in", timeout_seconds=60)
                catch_up(trial)
        drained(trial)
        trial.figures.set(rotations=often(quick=1, full=10), failed_tries=int(failures(trial)))
        trial.check()
        assert "next-" not in trial.daemon.log.read_text()


@pytest.mark.fault("T-28")
def test_rights_that_are_withdrawn(logged_in: Trial, cluster: Cluster) -> None:
    """The daemon waits and tells it; nothing is taken for refused, and with the rights all of it lands."""
    with logged_in as trial:
        with trial.producing(**JOB_LOAD):
            trial.await_acknowledgements(50)
            for _ in range(often(quick=1, full=10)):
                cluster.execute(f"REVOKE jobtrail_ingest FROM {NODE_ROLE}")
                await_failure(trial)
                pass_time(often(quick=2, full=30), trial)
                assert "permission denied" in trial.daemon.get("/health")[1].decode()
                cluster.execute(f"GRANT jobtrail_ingest TO {NODE_ROLE}")
                wait_until(lambda: trial.daemon.get("/readyz")[0] == 200, "it to go on", timeout_seconds=60)
                catch_up(trial)
        drained(trial)
        trial.figures.set(withdrawals=often(quick=1, full=10), failed_tries=int(failures(trial)))
        trial.check()
        assert trial.daemon.metric("jobtrail_projection_refused_total") == 0


@pytest.mark.fault("T-26")
def test_a_migration_while_events_come_in(new_trial: NewTrial, cluster: Cluster) -> None:
    """The newest revision is undone and applied again below a daemon that writes; it waits, and loses nothing."""
    stalls = []
    newest = migrate.head()
    before = f"{int(newest) - 1:04d}"
    with new_trial(url=cluster.url()) as trial:
        with trial.producing(**JOB_LOAD):
            trial.await_acknowledgements(50)
            for _ in range(often(quick=1, full=10)):
                migrate.downgrade(cluster.url(), before)
                pass_time(often(quick=1, full=10), trial)
                migrate.upgrade(cluster.url())
                stalls.append(catch_up_seconds(trial))
        drained(trial)
        trial.figures.set(
            migrations=2 * len(stalls), longest_write_stall_s=max(stalls), failed_tries=int(failures(trial))
        )
        trial.check()
        assert migrate.current(cluster.url()) == newest


def catch_up_seconds(trial: Trial) -> float:
    """Wait until what is acknowledged now is forwarded; the age of the oldest event that was not, at most."""
    worst = 0.0
    wanted = to_be_forwarded(trial)

    def caught_up() -> bool:
        nonlocal worst
        worst = max(worst, trial.daemon.metric("jobtrail_spool_oldest_unforwarded_age_seconds"))
        return trial.daemon.metric("jobtrail_events_forwarded_total") >= wanted

    wait_until(caught_up, "it to catch up", timeout_seconds=60, every_seconds=0.1)
    return worst

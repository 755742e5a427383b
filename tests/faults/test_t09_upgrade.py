"""T-09: a full spool goes from an old release to this one, back, and on again; nothing acknowledged is lost."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import sqlite3
from pathlib import Path

import msgspec
import psycopg
import pytest

from jobtrail.adapters.spool.schema import APPLICATION_ID, SCHEMA_VERSION, connect, load_state, save_state
from tests.daemon_process import REPOSITORY, wait_until
from tests.faults.conftest import NewTrial
from tests.faults.old_release import OldDaemon, run_hook, unpack
from tests.faults.trial import FaultDaemon, Trial
from tests.postgres import PostgresServer

pytestmark = pytest.mark.fault("T-09")
HOOKS = REPOSITORY / "hooks" / "slurm"
JOBS = 150  # two events each: more than one batch of the forwarder


@pytest.fixture
def old(place: Path) -> Path:
    return unpack(place / "old")


def send_jobs(trial: Trial, count: int) -> None:
    statuses = [status for _ in range(count) for status in trial.send(*trial.fresh_job())]
    assert set(statuses) == {201}


def in_trail(url: str) -> set[int]:
    """Numbers of the jobs in the trail."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT DISTINCT job_id FROM audit_log WHERE job_id LIKE 'slurm-%'").fetchall()
    return {int(row[0].removeprefix("slurm-")) for row in rows}


def test_old_to_new_to_old_to_new(new_trial: NewTrial, place: Path, old: Path, database: str) -> None:
    """Each takes what the other holds and what both releases' hooks left, and adds to it; the last one forwards all."""
    trial = new_trial(daemon=FaultDaemon(place / "t" / "d", database={"url": ""}))
    spool = trial.daemon.spool
    before, now = OldDaemon(old, trial.daemon), trial.daemon
    with before:
        send_jobs(trial, JOBS)
    run_hook(old / "hooks/slurm/prolog.sh", spool, job=11, event="prolog_slurmd")
    run_hook(HOOKS / "prolog.sh", spool, job=12, event="prolog_slurmd")
    assert len(list((spool / "incoming").iterdir())) == 2
    with now:
        send_jobs(trial, JOBS)
        wait_until(lambda: not any((spool / "incoming").iterdir()), "what hooks left to be taken")
    run_hook(HOOKS / "epilog.sh", spool, job=11, event="epilog_slurmd")
    with before:
        wait_until(
            lambda: not any((spool / "incoming").iterdir()), "the new hook's file to be taken by the old release"
        )
        send_jobs(trial, 10)
    now.configure("database", url=database)
    now.start()
    trial.settle()
    found = trial.judge()
    ours = {11, 12}
    assert found["lost"] == found["duplicated"] == found["altered"] == found["broken"] == found["conflicts"] == []
    assert len(found["invented"]) == 3, "of the three that hooks left, the oracle knows nothing"
    assert found["stored"] == found["acknowledged"] + 3 == 2 * (JOBS + JOBS + 10) + 3
    assert found["chains"] == 1, "no release began a chain of its own"
    assert ours <= in_trail(database)
    trial.figures.set(acknowledged=found["acknowledged"], lost=len(found["lost"]), versions=4)


def test_an_old_release_beside_a_new_database_keeps_its_events(
    new_trial: NewTrial, place: Path, old: Path, postgres_server: PostgresServer, database: str
) -> None:
    """The database is upgraded first. A node that is not yet goes on taking events; they wait until it is."""
    login = f"node_{secrets.token_hex(4)}"
    postgres_server.execute(f"CREATE ROLE {login} LOGIN IN ROLE jobtrail_ingest")
    url = database.replace("//postgres@", f"//{login}@")
    trial = new_trial(daemon=FaultDaemon(place / "t" / "d", database={"url": url}))
    before = OldDaemon(old, trial.daemon, url=url)
    with before:
        send_jobs(trial, 20)
        wait_until(lambda: b"database" in before.get("/readyz")[1], "the old release to tell of it")
    assert in_trail(database) == set()
    trial.daemon.start()
    trial.settle()
    found = trial.judge()
    assert found["lost"] == found["duplicated"] == found["broken"] == []
    assert found["stored"] == found["acknowledged"] == 40
    trial.figures.set(acknowledged=40, lost=0)


def test_a_spool_of_a_newer_schema_is_refused_and_left_as_it_is(
    new_trial: NewTrial, place: Path, old: Path, database: str
) -> None:
    """By both releases, with exit code 2 and what to do; given back to the release it is of, everything is there."""
    trial = new_trial(daemon=FaultDaemon(place / "t" / "d", database={"url": ""}))
    with trial.daemon:
        send_jobs(trial, 20)
    file = trial.daemon.spool / "spool.db"
    mark(file, SCHEMA_VERSION + 1)
    digest = contents(trial.daemon.spool)
    for code, words in (refusal(trial), OldDaemon(old, trial.daemon).refusal()):
        assert code == 2
        assert (
            f"was written by a newer Jobtrail (schema {SCHEMA_VERSION + 1}; this one knows {SCHEMA_VERSION})" in words
        )
        assert "Install that version again, or name another spool directory" in words
        assert contents(trial.daemon.spool) == digest
    shutil.copytree(trial.daemon.spool, trial.directory / "kept")
    mark(file, SCHEMA_VERSION)
    trial.daemon.configure("database", url=database)
    trial.daemon.start()
    found = trial.check()
    assert found["stored"] == 42
    trial.figures.set(acknowledged=found["acknowledged"], lost=0)


def refusal(trial: Trial) -> tuple[int, str]:
    daemon = trial.daemon
    before = daemon.log.stat().st_size
    process = daemon.launch()
    code = process.wait(60)
    return code, daemon.log.read_bytes()[before:].decode()


def mark(file: Path, version: int) -> None:
    """Write the schema's number where a release of that schema would: in the header and in the state."""
    connection: sqlite3.Connection = connect(file, 64 << 20)
    state = load_state(connection)
    assert state is not None
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.execute("BEGIN IMMEDIATE")
    save_state(connection, msgspec.structs.replace(state, schema=version))
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def contents(spool: Path) -> dict[str, str]:
    """A digest of every file of the spool but the lock, which holds the number of the last process."""
    files = [path for path in spool.rglob("*") if path.is_file() and path.name not in ("lock", "ballast")]
    return {str(path.relative_to(spool)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

"""The suite itself is tried: four builds, each with one safety taken out, must each be found out.

A suite that stays green on these would prove nothing. Each build goes through the very exercise that the daemon goes
through in its own test, and the same check of the invariants must fail, naming the right one.
"""

from pathlib import Path

import psycopg
import pytest

from tests.faults import broken_builds
from tests.faults.conftest import NewTrial
from tests.faults.exercises import kills_without_database, power_cuts, two_at_once
from tests.faults.figures import often


@pytest.mark.fault("broken build: no fsync")
def test_without_fsync_power_cuts_lose_events(new_trial: NewTrial, place: Path, database: str) -> None:
    """Kills alone would not tell: the page cache outlives the process."""
    source = broken_builds.build(place, broken_builds.NO_FSYNC)
    with (
        power_cuts(new_trial, place, database, often(quick=3, full=10), source) as trial,
        pytest.raises(AssertionError, match="lost: "),
    ):
        trial.check()
    assert trial.figures.numbers["lost"] > 0


@pytest.mark.fault("broken build: no fsync, killed only")
def test_without_fsync_kills_lose_nothing(new_trial: NewTrial, place: Path, database: str) -> None:
    """Why there are power cuts at all: this build survives every kill."""
    source = broken_builds.build(place, broken_builds.NO_FSYNC)
    with kills_without_database(new_trial, place, database, often(quick=3, full=10), source) as trial:
        trial.check()


@pytest.mark.fault("broken build: acknowledged before the commit")
def test_acknowledged_before_the_commit_kills_lose_events(new_trial: NewTrial, place: Path, database: str) -> None:
    """What was acknowledged and not yet committed goes with the process."""
    source = broken_builds.build(place, broken_builds.ACK_BEFORE_COMMIT)
    with (
        kills_without_database(new_trial, place, database, often(quick=4, full=20), source) as trial,
        pytest.raises(AssertionError, match="lost: "),
    ):
        trial.check()
    assert trial.figures.numbers["lost"] > 0


@pytest.mark.fault("broken build: no deduplication")
def test_without_deduplication_retries_are_doubled(new_trial: NewTrial, place: Path, database: str) -> None:
    """The build's schema lacks the unique key as well, or the database alone would hold out."""
    source = broken_builds.build(place, broken_builds.NO_DEDUPLICATION)
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE audit_log DROP CONSTRAINT audit_log_chain_id_event_id_key")
    with kills_without_database(new_trial, place, database, 1, source) as trial:
        event, _ = trial.fresh_job()
        trial.send(event, event)  # as the exercise's clients do by chance, though nearly always
        with pytest.raises(AssertionError, match="duplicated: "):
            trial.check()
    assert trial.figures.numbers["duplicated"] > 0


@pytest.mark.fault("broken build: no flock")
def test_without_flock_two_daemons_overwrite_each_other(new_trial: NewTrial, place: Path, database: str) -> None:
    """Both acknowledge, and what the one wrote the other writes over.

    SQLite's exclusive mode is a second lock on the same thing, so the build lacks both: the two tests after this one
    show that either alone keeps a second daemon out.
    """
    source = broken_builds.build(place, (*broken_builds.NO_FLOCK, *broken_builds.NO_SQLITE_LOCK))
    with (
        two_at_once(new_trial, place, database, source) as trial,
        pytest.raises(AssertionError, match="lost: "),
    ):
        trial.check()
    assert trial.figures.numbers["at_once"] == 2
    assert trial.figures.numbers["lost"] > 0


@pytest.mark.fault("broken build: flock alone")
def test_flock_alone_keeps_a_second_daemon_out(new_trial: NewTrial, place: Path, database: str) -> None:
    """Where SQLite's own lock holds nobody, as on a file system without fcntl(2) locks."""
    source = broken_builds.build(place, broken_builds.NO_SQLITE_LOCK)
    with two_at_once(new_trial, place, database, source) as trial:
        trial.check()
    assert trial.figures.numbers["at_once"] == 1


@pytest.mark.fault("broken build: no flock, SQLite's lock alone")
def test_sqlite_alone_keeps_a_second_daemon_out(new_trial: NewTrial, place: Path, database: str) -> None:
    """Later than flock does, when the second has already worked on the directory, and nothing comes of it."""
    source = broken_builds.build(place, broken_builds.NO_FLOCK)
    with two_at_once(new_trial, place, database, source) as trial:
        trial.check()
    assert trial.figures.numbers["at_once"] == 1

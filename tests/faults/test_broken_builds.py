"""The suite itself is tried: four builds, each with one safety taken out, must each be found out.

A suite that stays green on these would prove nothing. Each build goes through the very exercise that the daemon goes
through in its own test, and the same check of the invariants must fail, naming the right one.
"""

from pathlib import Path

import psycopg
import pytest

from tests.faults import broken_builds
from tests.faults.conftest import NewTrial
from tests.faults.exercises import kills_without_database, power_cuts, start_second
from tests.faults.figures import often
from tests.faults.trial import Trial


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
        kills_without_database(new_trial, place, database, often(quick=10, full=20), source) as trial,
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
    with (
        kills_without_database(new_trial, place, database, 1, source) as trial,
        pytest.raises(AssertionError, match="duplicated: "),
    ):
        trial.check()
    assert trial.figures.numbers["duplicated"] > 0


@pytest.mark.fault("broken build: no flock")
def test_without_flock_a_second_daemon_is_not_told_why(trial: Trial, place: Path) -> None:
    """SQLite's own lock still keeps it out, after it has already worked on the directory."""
    source = broken_builds.build(place, broken_builds.NO_FLOCK)
    _, said = start_second(trial, source)
    with pytest.raises(AssertionError):
        assert f"is in use by the process with pid {trial.daemon.pid}" in said
    trial.figures.set(found_out=1)

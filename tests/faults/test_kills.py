"""T-01: the daemon is killed at random moments while many clients send, and nothing acknowledged is lost or doubled."""

import pytest

from tests.faults.exercises import kill_under_load
from tests.faults.figures import often
from tests.faults.trial import Trial


@pytest.mark.fault("T-01")
def test_kill_9_under_load(trial: Trial) -> None:
    """Every acknowledged event of 32 clients is in the trail once, with its payload, in chains that hold together."""
    kills = often(quick=8, full=200)
    kill_under_load(trial, kills)
    trial.check()
    assert trial.figures.numbers["kills"] == kills

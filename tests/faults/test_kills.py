"""T-01: the daemon is killed at random moments while many clients send, and nothing acknowledged is lost or doubled."""

import random

import pytest

from tests.faults.figures import often
from tests.faults.trial import Trial


@pytest.mark.fault("T-01")
def test_kill_9_under_load(trial: Trial, draw: random.Random) -> None:
    """32 clients; a fifth of the events is sent by up to four of them at once, each until it is acknowledged."""
    with trial.producing(clients=32, copies=4):
        for _ in range(often(quick=12, full=200)):
            trial.await_acknowledgements(draw.randrange(1, 250))
            trial.kill()
            trial.revive()
        trial.await_acknowledgements(100)
    trial.check()
    assert trial.figures.numbers["kills"] == often(quick=12, full=200)

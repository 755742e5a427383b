"""T-03: the power goes at random moments under load. This is what shows a missing flush: kills leave the page cache."""

from pathlib import Path

import pytest

from tests.faults.conftest import NewTrial
from tests.faults.exercises import power_cuts
from tests.faults.figures import often


@pytest.mark.fault("T-03")
def test_power_cuts_under_load(new_trial: NewTrial, place: Path, database: str) -> None:
    """Each start goes on from what the cut before it left; in the end all that was acknowledged is there."""
    cuts = often(quick=4, full=50)
    with power_cuts(new_trial, place, database, cuts) as trial:
        trial.check()
        assert "damaged" not in trial.daemon.log.read_text()
        assert trial.figures.numbers["cuts"] == cuts

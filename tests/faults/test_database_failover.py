"""T-22: a failover, or a restore from a backup, that loses the last rows that the database had acknowledged."""

from __future__ import annotations

import pytest

from tests.daemon_process import wait_until
from tests.faults.clusters import Cluster
from tests.faults.conftest import NewTrial
from tests.faults.figures import often
from tests.faults.test_database_outages import JOB_LOAD, pass_time
from tests.faults.trial import Trial


def rows(cluster: Cluster) -> int:
    """Of the trail."""
    return int(cluster.execute("SELECT count(*) FROM audit_log")[0][0])


@pytest.mark.fault("T-22")
def test_a_failover_that_loses_the_last_rows(new_trial: NewTrial, cluster: Cluster) -> None:
    """The node sees that its database ends before its own chain and sends again what is missing there."""
    lost = []
    with new_trial(url=cluster.url()) as trial:
        with trial.producing(**JOB_LOAD):
            for _ in range(often(quick=1, full=10)):
                trial.await_acknowledgements(100)
                wait_until(lambda: rows(cluster) > 50, "rows to be stored")
                kept = cluster.save(f"kept-{len(lost)}")
                saved = rows(cluster)
                pass_time(often(quick=2, full=30), trial)
                forwarded = forwarded_since(trial, cluster, saved)
                cluster.set_back(kept)
                lost.append(forwarded - saved)  # at least: by now some may be there again
                wait_until(lambda held=forwarded: rows(cluster) >= held, "it to heal", timeout_seconds=120)
        healed_s = trial.settle()
        trial.figures.set(failovers=len(lost), rows_lost=sum(lost), rows_healed=sum(lost), healed_s=healed_s)
        trial.check()
        assert min(lost) > 0


def forwarded_since(trial: Trial, cluster: Cluster, saved: int) -> int:
    """Wait until more rows are stored than were saved; how many there are."""
    return wait_until(
        lambda: count if (count := rows(cluster)) > saved + 20 else None, f"more rows; log:\n{trial.daemon.tail()}",
        timeout_seconds=60,
    )  # fmt: skip


@pytest.mark.fault("T-22")
def test_a_restored_database_of_a_quiet_node(new_trial: NewTrial, cluster: Cluster) -> None:
    """A restart in between changes nothing: the position is what the database says, not what the node remembers."""
    with new_trial(url=cluster.url()) as trial:
        assert trial.send(*trial.fresh_job()) == [201, 201]
        trial.settle()
        kept = cluster.save("kept")
        saved = rows(cluster)
        jobs = often(quick=20, full=500)
        assert set(trial.send(*(event for _ in range(jobs) for event in trial.fresh_job()))) == {201}
        trial.settle()
        lost = rows(cluster) - saved
        trial.kill_quietly()
        cluster.set_back(kept)
        trial.revive()
        wait_until(lambda: rows(cluster) >= saved + lost, "the node to send again what was lost", timeout_seconds=60)
        trial.figures.set(failovers=1, rows_lost=lost, rows_healed=rows(cluster) - saved)
        trial.check()
        assert lost >= 2 * jobs

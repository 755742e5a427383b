"""T-24: the database is away until node and spool are full, and what gives way does so in order, counted, on record."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psycopg
import pytest

from tests.adapters.cgroup_trees import V2_JOB, copy
from tests.daemon_process import wait_until
from tests.faults.clusters import Cluster
from tests.faults.conftest import NewTrial
from tests.faults.figures import in_full, often
from tests.faults.trial import FaultDaemon, Trial

MIB = 2**20
REST_SECONDS = 6.0
DEFAULT_SPOOL_BYTES = 512 * MIB
SHED = {
    "samples_thinned": "jobtrail_samples_thinned_total",
    "samples_dropped": "jobtrail_samples_dropped_total",
    "retained_events": "jobtrail_spool_purged_early_total",
    "events_refused": "jobtrail_events_rejected_total",
}


def shed_by_now(trial: Trial) -> dict[str, int]:
    """What the daemon counts as given up."""
    page = trial.daemon.metrics()
    found = {}
    for what, name in SHED.items():
        samples = [value for labels, value in page.get(name, []) if labels.get("reason", "spool_full") == "spool_full"]
        found[what] = int(sum(samples))
    return found


def shed_at_rest(trial: Trial) -> dict[str, int]:
    """What it counts once nothing more is given up: samples may be queued, and what they cost is told each second."""
    seen, since = shed_by_now(trial), time.monotonic()

    def at_rest() -> bool:
        nonlocal seen, since
        now = shed_by_now(trial)
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > REST_SECONDS

    wait_until(at_rest, "nothing more to be given up", timeout_seconds=60, every_seconds=0.2)
    return seen


def shed_on_record(url: str) -> dict[str, int]:
    """What the gap records in the trail say was given up."""
    query = """
        SELECT key, sum(value::bigint) FROM audit_payload JOIN audit_log USING (chain_id, seq),
               jsonb_each_text(convert_from(payload, 'UTF8')::jsonb #> '{gap,shed}')
        WHERE kind = 'gap' GROUP BY key
    """
    with psycopg.connect(url) as connection:
        return {what: int(count) for what, count in connection.execute(query)}


@pytest.mark.fault("T-24")
def test_an_outage_until_everything_is_full(new_trial: NewTrial, place: Path, cluster: Cluster) -> None:
    """Samples are thinned out; then retained events go; at last new events are refused. No event is lost."""
    tree, jobs = job_tree(place)
    daemon = FaultDaemon(
        place / "d",
        database={"url": cluster.url()},
        spool={"max_bytes": often(quick=2, full=32) * MIB},
        sampling={"cgroup_root": str(tree), "interval_seconds": 0.2, "first_seconds": 0.05, "buffer_rows": 100},
    )
    with new_trial(daemon=daemon, url=cluster.url()) as trial:
        with trial.producing(clients=8, copies=1, jobs=often(quick=120, full=2500)) as producer:
            wait_until(lambda: producer.poll() is not None, "the retained events", timeout_seconds=300)
        trial.settle()
        before = shed_by_now(trial)
        assert before["retained_events"] == before["events_refused"] == 0
        cluster.stop()
        trial.start_jobs(jobs)
        enough = before["samples_thinned"] + 200
        wait_until(lambda: shed_by_now(trial)["samples_thinned"] > enough, "samples to be thinned", timeout_seconds=180)
        first = shed_by_now(trial)
        assert first["retained_events"] == first["events_refused"] == 0
        with trial.producing(clients=16, copies=1, patience=120.0):
            wait_until(lambda: shed_by_now(trial)["events_refused"] > 50, "events to be refused", timeout_seconds=300)
            full = shed_by_now(trial)
            assert full["retained_events"] > 0, "events were refused while forwarded ones still took room"
            note_capacity(trial)
            cluster.start()
        trial.settle(180)  # the producer is done: without a break it may keep a spool from ever being empty
        trial.end_jobs(jobs)
        trial.settle()
        shutil.rmtree((tree / V2_JOB).parent)  # as Slurm does, or the next start would take the jobs for running
        shed = shed_at_rest(trial)
        if not in_full():  # a daemon that lives tells the rest half a minute later, one that ends tells it now
            trial.daemon.stop()
            trial.revive()
            trial.settle()
        wait_until(
            lambda: shed_on_record(cluster.url()) == {what: n for what, n in shed.items() if n},
            f"gap records of all that was given up: {shed}",
            timeout_seconds=60,
            every_seconds=1.0,
        )
        trial.figures.set(**shed)
        found = trial.check()
        assert found["gap_rows"] > 0


def note_capacity(trial: Trial) -> None:
    """How many events fit, and how long the default spool therefore lasts a node of a thousand jobs a day."""
    depth, used = trial.daemon.metric("jobtrail_spool_depth"), trial.daemon.metric("jobtrail_spool_bytes")
    assert depth > 0
    events = DEFAULT_SPOOL_BYTES / (used / depth)
    trial.figures.set(bytes_per_event=int(used / depth), days_of_3000_events_in_512_mib=int(events / 3000))


def job_tree(place: Path) -> tuple[Path, list[int]]:
    """A tree of cgroups with twelve jobs."""
    root = copy("v2", place)
    numbers = list(range(20_001, 20_013))
    original = root / V2_JOB
    for number in numbers:
        shutil.copytree(original, original.with_name(f"job_{number}"))
    shutil.rmtree(original)
    return root, numbers

"""Jobs on a real Slurm cluster show up measured and audited in PostgreSQL and on /metrics."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.daemon_process import wait_until
from tests.slurm.observed import CLUSTER, UNTIL_OPEN, Observed, observed_cluster

pytestmark = pytest.mark.slurm

BURN = """#!/bin/sh
exec python3 -c '
import os, time, resource
end = time.monotonic() + {seconds}
while time.monotonic() < end or not os.path.exists("{gate}"): sum(range(20000))
used = resource.getrusage(resource.RUSAGE_SELF)
print("cpu_seconds", used.ru_utime + used.ru_stime)
'
"""
HOLD = """#!/bin/sh
exec python3 -c '
import time
held = bytearray(b"x") * ({mebibytes} << 20)
time.sleep({seconds})
'
"""
USAGE = "hpc_job_memory_usage_bytes"  # of a job that was looked at


@pytest.fixture(scope="module")
def observed(slurm_packages: None) -> Iterator[Observed]:
    with observed_cluster() as running:
        yield running


@pytest.mark.parametrize(
    ("code", "state", "verdict"),
    [
        (0, "ended", "unknown"),
        (1, "failed", "failed"),
        (42, "failed", "failed"),
        (127, "failed", "failed"),
        (255, "failed", "failed"),
    ],
)
def test_an_exit_code_is_recorded_and_zero_is_not_called_success(
    observed: Observed, code: int, state: str, verdict: str
) -> None:
    """Slurm's epilog reports 0 for cancelled jobs too, so 0 stays `ended`; every other code is kept as it is."""
    job = observed.run_to_end(f"#!/bin/sh\nexit {code}\n")
    assert (job["state"], job["verdict"], job["exit_code"], job["exit_signal"]) == (state, verdict, code, None)
    assert job["state_confirmed"] is False
    assert job["cluster_name"] == CLUSTER
    assert job["nodes"] == observed.cluster.node_names
    assert job["end_time"] > job["start_time"]


def test_the_trail_of_a_job_has_one_correlation_id_and_complete_snapshots(observed: Observed) -> None:
    """Prolog, checkpoints, epilog and final usage stand under one correlation id, each with the job after it."""
    gate = observed.gate("trail")
    slurm_id = observed.cluster.submit(UNTIL_OPEN.format(gate=gate), "--account=physics")
    wait_until(lambda: "checkpoint" in {row["event_kind"] for row in observed.trail(slurm_id)}, "a checkpoint")
    gate.touch()
    observed.cluster.wait_finished(slurm_id)
    job = observed.settled(slurm_id)
    trail = observed.trail(slurm_id)
    kinds = [row["event_kind"] for row in trail]
    assert kinds[0] == "job_started"
    assert "checkpoint" in kinds
    # A checkpoint of the moment in which the job ends may stand between its last two.
    others = {row["event_kind"]: row for row in trail if row["event_kind"] != "checkpoint"}
    assert sorted(kind for kind in kinds if kind != "checkpoint") == ["job_finished", "job_started", "usage_recorded"]
    assert {row["correlation_id"] for row in trail} == {job["correlation_id"]}
    assert trail[0]["change_type"] == "create"
    assert {row["changed_by"] for row in trail} == {"slurm-prolog", "collector", "slurm-epilog"}
    assert trail[0]["job_snapshot"]["state"] == "running"
    assert others["job_finished"]["job_snapshot"]["state"] == "ended"
    assert others["usage_recorded"]["job_snapshot"]["state"] == "ended"
    assert job["user_name"] == "jt-alice"
    assert job["account"] == "physics"
    assert job["partition"] == "debug"


def test_a_segmentation_fault_is_a_signal(observed: Observed) -> None:
    """The batch shell dies of SIGSEGV: signal 11 and no exit code."""
    job = observed.run_to_end("#!/bin/sh\nkill -SEGV $$\n")
    assert (job["state"], job["verdict"], job["exit_code"], job["exit_signal"]) == (
        "failed",
        "killed_by_signal",
        None,
        11,
    )


def test_each_array_task_is_a_job_of_its_own(observed: Observed) -> None:
    """Three tasks, three rows; the failing one is the failed one."""
    array_id = observed.cluster.submit_array('#!/bin/sh\n[ "$SLURM_ARRAY_TASK_ID" != 2 ]\n', "1-3")
    tasks = observed.cluster.array_tasks(array_id, 3)
    for raw_id in tasks.values():
        observed.cluster.wait_finished(raw_id)
    states = {task: observed.settled(raw_id)["state"] for task, raw_id in tasks.items()}
    assert states == {1: "ended", 2: "failed", 3: "ended"}


def test_two_users_are_told_apart(observed: Observed) -> None:
    """Each job carries its own user, uid and account."""
    jobs = {user: observed.run_to_end("#!/bin/sh\ntrue\n", user=user) for user in ("jt-alice", "jt-bob")}
    assert {user: job["user_name"] for user, job in jobs.items()} == {"jt-alice": "jt-alice", "jt-bob": "jt-bob"}
    assert jobs["jt-alice"]["uid"] != jobs["jt-bob"]["uid"]


def test_twenty_jobs_at_once_are_all_recorded(observed: Observed) -> None:
    """Every one of 20 jobs running together has its start, its end and its samples."""
    gate = observed.gate("twenty")
    ids = [observed.cluster.submit(UNTIL_OPEN.format(gate=gate), "--mem=20") for _ in range(20)]
    wanted = {f"slurm-{slurm_id}" for slurm_id in ids}

    def all_seen() -> bool:
        return wanted <= {labels["job_id"] for labels, _ in observed.daemon.metrics().get(USAGE, [])}

    wait_until(all_seen, "the series of all", every_seconds=0.2)
    gate.touch()
    for slurm_id in ids:
        observed.cluster.wait_finished(slurm_id)
    jobs = [observed.settled(slurm_id) for slurm_id in ids]
    assert all(job["sample_count"] >= 1 for job in jobs)
    assert len({job["correlation_id"] for job in jobs}) == 20


def test_a_job_of_one_second_is_measured(observed: Observed) -> None:
    """It burns a second of CPU; the record shows it, with samples that reach beyond half of its life."""
    job = observed.run_to_end(BURN.format(seconds=1, gate="/"))
    told = _told_cpu_seconds(observed, job)
    assert job["sample_count"] >= 2
    assert job["cpu_seconds"] == pytest.approx(told, rel=0.15, abs=0.1)
    assert job["memory_peak_bytes"] > 4 << 20


def test_cpu_seconds_of_a_burn_agree_with_slurm_and_with_the_job_itself(observed: Observed) -> None:
    """Within 5 % of getrusage in the job and of sacct, for a job of ten seconds."""
    job = observed.run_to_end(BURN.format(seconds=10, gate="/"))
    told = _told_cpu_seconds(observed, job)
    slurm_id = int(job["job_id"].removeprefix("slurm-"))
    assert job["cpu_seconds"] == pytest.approx(told, rel=0.05)
    assert job["cpu_seconds"] == pytest.approx(_sacct_cpu_seconds(observed, slurm_id), rel=0.05)
    assert job["coverage_ratio"] > 0.5


def _told_cpu_seconds(observed: Observed, job: dict[str, object]) -> float:
    """What the job printed of its own getrusage."""
    output = observed.cluster.output(int(str(job["job_id"]).removeprefix("slurm-")))
    return float(output.split("cpu_seconds")[1].split()[0])


def _sacct_cpu_seconds(observed: Observed, slurm_id: int) -> float:
    """The batch step's, which is all of this job's work; slurmdbd gets it with the step's end."""
    rows = observed.cluster.sacct(slurm_id, ["JobID", "TotalCPU"], steps=True)
    text = next(row["TotalCPU"] for row in rows if row["JobID"] == f"{slurm_id}.batch")
    seconds = 0.0
    for part in text.replace("-", ":").split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def test_a_job_killed_for_memory_is_told_as_such(observed: Observed) -> None:
    """Slurm's out-of-memory mark becomes the verdict, not signal 125; the peak stays within the limit."""
    job = observed.run_to_end(HOLD.format(mebibytes=200, seconds=5), "--mem=60")
    assert (job["state"], job["verdict"]) == ("failed", "out_of_memory")
    assert job["exit_signal"] is None
    assert job["memory_peak_bytes"] is None or job["memory_peak_bytes"] <= 61 << 20


def test_memory_peak_and_limit_are_those_of_the_job(observed: Observed) -> None:
    """150 MiB held under a limit of 200 MiB."""
    slurm_id = observed.cluster.submit(HOLD.format(mebibytes=150, seconds=4), "--mem=200")
    observed.cluster.wait_finished(slurm_id)
    job = observed.settled(slurm_id)
    assert 150 << 20 <= job["memory_peak_bytes"] <= 200 << 20
    samples = wait_until(lambda: observed.samples(slurm_id), "the job's samples")
    assert {row["memory_limit_bytes"] for row in samples} == {200 << 20}
    assert all(row["source"].startswith("cgroup_") for row in samples)


def test_a_job_has_series_while_it_lives_and_none_afterwards(observed: Observed) -> None:
    """The info series and the counters appear with the job, pass promtool, and are gone after two more scrapes."""
    gate = observed.gate("series")
    slurm_id = observed.cluster.submit(UNTIL_OPEN.format(gate=gate))
    expected = {
        "hpc_job_info",
        "hpc_job_runtime_seconds",
        "hpc_job_memory_usage_bytes",
        "hpc_job_cpu_seconds_total",
        "hpc_job_memory_limit_bytes",
        "hpc_job_cpus_allocated",
    }
    seen = wait_until(lambda: expected <= (found := observed.series(slurm_id)) and found, "the job's series")
    assert expected <= seen
    _check_with_promtool(observed.daemon.get("/metrics")[1])
    gate.touch()
    observed.cluster.wait_finished(slurm_id)
    observed.settled(slurm_id)
    wait_until(lambda: not observed.series(slurm_id), "the job's series to go")


def _check_with_promtool(page: bytes) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None, "scripts/install-test-packages installs promtool"
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_prolog_while_the_daemon_is_down_is_not_lost(observed: Observed) -> None:
    """The prolog leaves its event on disk, the job runs undisturbed, and the daemon takes the event up at its start."""
    observed.daemon.stop()
    gate = observed.gate("down")
    slurm_id = observed.cluster.submit(UNTIL_OPEN.format(gate=gate))
    wait_until(observed.incoming, "the prolog's event in the spool directory")
    observed.cluster.wait_running(slurm_id)
    observed.daemon.start()
    wait_until(lambda: USAGE in observed.series(slurm_id), "the job's series")
    gate.touch()
    observed.cluster.wait_finished(slurm_id)
    job = observed.settled(slurm_id)
    assert (job["state"], job["exit_code"]) == ("ended", 0)
    assert observed.trail(slurm_id)[0]["event_kind"] == "job_started"
    assert not observed.incoming()
    assert job["sample_count"] >= 1


def test_a_killed_daemon_goes_on_with_the_running_job(observed: Observed) -> None:
    """kill -9 in mid-job: the same run goes on, its usage is complete, nothing is recorded twice."""
    gate = observed.gate("killed")
    slurm_id = observed.cluster.submit(BURN.format(seconds=8, gate=gate))
    wait_until(lambda: observed.series(slurm_id), "the job's series")
    observed.daemon.kill()
    observed.daemon.start()
    wait_until(lambda: observed.series(slurm_id), "the job's series after the restart")
    gate.touch()
    observed.cluster.wait_finished(slurm_id)
    job = observed.settled(slurm_id)
    kinds = [row["event_kind"] for row in observed.trail(slurm_id)]
    assert kinds.count("job_started") == kinds.count("job_finished") == 1
    assert job["run"] == 1
    assert job["cpu_seconds"] == pytest.approx(_told_cpu_seconds(observed, job), rel=0.05)


def test_a_daemon_that_lost_its_spool_finds_the_running_job(observed: Observed) -> None:
    """A new spool knows of no job; the scan of the cgroups does, and says that the start is a guess."""
    gate = observed.gate("lost")
    slurm_id = observed.cluster.submit(UNTIL_OPEN.format(gate=gate))
    wait_until(lambda: observed.job(slurm_id), "the job's row")
    observed.daemon.stop()
    shutil.rmtree(observed.daemon.spool)
    config = observed.daemon.config.read_text()
    observed.daemon.config.write_text(f"{config}\ncluster: {CLUSTER}\nnode: {observed.cluster.node_names[0]}\n")
    observed.daemon.start()
    wait_until(lambda: observed.series(slurm_id), "the job's series")
    gate.touch()
    observed.cluster.wait_finished(slurm_id)
    job = observed.settled(slurm_id)
    kinds = [row["event_kind"] for row in observed.trail(slurm_id)]
    assert "job_found" in kinds
    assert job["run"] == 1
    assert job["start_inferred"] is False


def test_the_jobs_follow_from_the_trail(observed: Observed) -> None:
    """After all of the above, recomputing every job from the trail gives what is stored."""
    report = observed.rebuild_check()
    assert report["runs"] >= 20
    assert report["differing"] == 0
    assert report["unverifiable"] == {}

"""A site without slurmrestd: the controller's hooks and sacct tell what slurmrestd would, and a task's end is seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon_process import wait_until
from tests.slurm.observed import FIRST_RUN_STAYS
from tests.slurm.pair import Pair, observed_pair

pytestmark = pytest.mark.slurm

TOLD = ("state", "verdict", "exit_code", "exit_signal")
WAIT = "#!/bin/sh\necho ready\nexec sleep 60\n"
BURN = """#!/bin/sh
exec python3 -c '
import time, resource
end = time.monotonic() + {seconds}
while time.monotonic() < end: sum(range(20000))
used = resource.getrusage(resource.RUSAGE_SELF)
print("cpu_seconds", used.ru_utime + used.ru_stime)
'
"""


@pytest.fixture(scope="module")
def pair(slurm_packages: None) -> Iterator[Pair]:
    with observed_pair(extra_conf=["KillWait=2", "MinJobAge=2"], all_hooks=True, rest=False) as running:
        yield running


def told(job: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(job[name] for name in TOLD)


def running(pair: Pair, script: str = WAIT, *arguments: str) -> int:
    slurm_id = pair.cluster.submit(script, *arguments)
    output = pair.cluster.jobs_directory / f"{slurm_id}.out"
    wait_until(lambda: output.exists() and "ready" in output.read_text(), f"job {slurm_id} to be ready")
    return slurm_id


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", ("completed", "completed", 0, None)),
        ("exit 255", ("failed", "failed", 255, None)),
        ("kill -SEGV $$", ("failed", "killed_by_signal", None, 11)),
    ],
)
def test_sacct_confirms_and_the_exit_code_is_the_epilogs(pair: Pair, script: str, expected: tuple[Any, ...]) -> None:
    """sacct prints 127 for the exit code 255; the epilog knows better."""
    job = pair.finished(f"#!/bin/sh\n{script}\n")
    # sacct's word may be there before the epilog's, which has the exit code.
    job = pair.settled(int(job["job_id"].removeprefix("slurm-")))
    assert told(job) == expected
    assert job["outcome_source"] == "sacct"


def test_a_cancelled_job_is_cancelled(pair: Pair) -> None:
    slurm_id = running(pair)
    pair.cluster.cancel(slurm_id, user="jt-alice")
    job = pair.confirmed(slurm_id)
    assert told(job)[:2] == ("cancelled", "cancelled")
    assert job["verdict_evidence"]["slurm"]["sacct"]["cancelled_by_uid"] == job["uid"]
    assert "cancelled" in pair.daemon.cli("jobs", "show", str(slurm_id)).stdout


def test_the_controllers_hooks_name_the_job_and_its_array_before_it_ends(pair: Pair) -> None:
    array_id = pair.cluster.submit_array("#!/bin/sh\nexec sleep 300\n", "7", "--job-name=named early")
    raw_id = pair.cluster.array_tasks(array_id, 1)[7]
    row = wait_until(
        lambda: next((row for row in pair.trail(raw_id) if row["changed_by"] == "slurm-controller"), None),
        "the word of PrologSlurmctld",
    )
    assert row["source"] == "prolog_slurmctld"

    def known() -> dict[str, Any] | None:
        found = pair.job(raw_id)
        return found if found and found["job_name"] and found["state"] == "running" else None

    job = wait_until(known, "the running job's name")
    assert job["job_name"] == "named early"
    assert (job["array_job_id"], job["array_task_id"]) == (f"slurm-{array_id}", 7)
    pair.cluster.cancel(array_id)


def test_the_parts_of_a_run_stay_one_run_with_all_hooks(pair: Pair) -> None:
    job = pair.finished("#!/bin/sh\nsrun sleep 1\n", "--nodes=2", "--ntasks=2")
    slurm_id = int(job["job_id"].removeprefix("slurm-"))
    both = {"prolog_slurmctld", "epilog_slurmctld"}

    def heard() -> list[dict[str, Any]] | None:
        rows = pair.trail(slurm_id)
        return rows if both <= {row["source"] for row in rows} else None

    trail = wait_until(heard, "both words of the controller")
    assert len(pair.runs(slurm_id)) == 1
    assert {row["correlation_id"] for row in trail} == {job["correlation_id"]}
    wait_until(lambda: len(pair.parts(slurm_id)) == 2, "the parts of both nodes")


def test_a_requeued_job_is_two_runs_with_all_hooks(pair: Pair) -> None:
    slurm_id = running(pair, f"#!/bin/sh\necho ready\n{FIRST_RUN_STAYS}\nsleep 3\n")
    pair.cluster.requeue(slurm_id)
    wait_until(lambda: "job_finished" in [row["event_kind"] for row in pair.trail(slurm_id)], "the first run's epilog")
    pair.cluster.wait_state(slurm_id, {"PENDING"})
    pair.cluster.start_now(slurm_id)
    row = pair.confirmed(slurm_id, runs=2)
    states = [run["State"] for run in pair.cluster.sacct(slurm_id, ["State"])]
    # A second run that slurmd refuses, since it still buries the first, is taken back too: Slurm then starts a third.
    assert [run["raw_state"] for run in pair.runs(slurm_id)] == states[: row["run"]]
    assert row["run"] >= 2


def test_the_end_of_a_task_is_looked_at_while_its_counters_are_there(pair: Pair) -> None:
    # A look that takes too long, as on a busy machine, is none: the hook lets the job end.
    for _ in range(3):
        job = pair.finished(BURN.format(seconds=4))
        slurm_id = int(job["job_id"].removeprefix("slurm-"))
        job = pair.settled(slurm_id)
        if job["usage_sources"]["last_look"] == "task_epilog":
            break
    assert job["usage_sources"]["last_look"] == "task_epilog"
    used = float(pair.cluster.output(slurm_id).split("cpu_seconds")[1].split()[0])
    # The shells around it, and the hook itself, use some hundredths of a second, more on a busy machine.
    assert job["cpu_seconds"] == pytest.approx(used, abs=0.3)


def test_the_jobs_follow_from_the_trail(pair: Pair) -> None:
    report = pair.rebuild_check()
    assert report["runs"] >= 8
    assert (report["differing"], report["unverifiable"]) == (0, {})

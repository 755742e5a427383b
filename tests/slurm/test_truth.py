"""What is recorded of a job is what Slurm says became of it, whatever the hooks could see."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.daemon_process import wait_until
from tests.slurm.configuration import preemption
from tests.slurm.observed import FIRST_RUN_STAYS, UNTIL_OPEN
from tests.slurm.pair import GPUS, Pair, observed_pair

pytestmark = pytest.mark.slurm

SLEEP = "#!/bin/sh\necho ready\nexec sleep 60\n"
HOLD = "python3 -c 'held = bytearray(b\"x\") * (200 << 20)'"
STALLED = timedelta(seconds=20)
TOLD = ("state", "verdict", "exit_code", "exit_signal")


@pytest.fixture(scope="module")
def pair(slurm_packages: None) -> Iterator[Pair]:
    with observed_pair(extra_conf=["KillWait=2", *preemption("REQUEUE")]) as running:
        yield running


@pytest.fixture(scope="module")
def over_time(pair: Pair) -> dict[str, int]:
    """Jobs that reach their limit of a minute while the other tests go on: one ends on SIGTERM, one ignores it."""
    ignores = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.2; done\n"
    here = f"--nodelist={pair.cluster.node_names[0]}"
    return {
        "15": pair.cluster.submit("#!/bin/sh\nexec sleep 300\n", "--time=1", here),
        "9": pair.cluster.submit(ignores, "--time=1", here),
    }


def told(job: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(job[name] for name in TOLD)


def written(pair: Pair, slurm_id: int) -> str:
    """What the job has written so far; its file is made when its script starts."""
    return pair.cluster.output(slurm_id) if (pair.cluster.jobs_directory / f"{slurm_id}.out").exists() else ""


def running(pair: Pair, script: str = SLEEP, *arguments: str) -> int:
    """A job that runs, whose prolog has been recorded, and whose script says that it is ready if it ever does."""
    slurm_id = pair.cluster.submit(script, *arguments)
    pair.cluster.wait_running(slurm_id)
    wait_until(lambda: pair.job(slurm_id), f"job {slurm_id} to be recorded")
    if "echo ready" in script:
        wait_until(lambda: "ready" in written(pair, slurm_id), f"the script of job {slurm_id}")
    return slurm_id


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", ("completed", "completed", 0, None)),
        ("exit 3", ("failed", "failed", 3, None)),
        ("exit 255", ("failed", "failed", 255, None)),
        ("kill -SEGV $$", ("failed", "killed_by_signal", None, 11)),
        ("sh -c 'kill -SEGV $$'; exit $?", ("failed", "failed", 139, None)),
    ],
)
def test_how_a_job_ended_by_itself(
    pair: Pair, over_time: dict[str, int], script: str, expected: tuple[Any, ...]
) -> None:
    job = pair.finished(f"#!/bin/sh\n{script}\n")
    assert told(job) == expected
    assert job["outcome_source"] == "slurmctld"


def test_the_outcome_is_confirmed_within_ten_seconds_of_the_epilog(pair: Pair) -> None:
    job = pair.finished("#!/bin/sh\ntrue\n")
    trail = pair.trail(int(job["job_id"].removeprefix("slurm-")))
    epilog = next(row for row in trail if row["event_kind"] == "job_finished")
    word = [row for row in trail if row["event_kind"] == "slurm_reported"][-1]
    assert word["changed_by"] == "reconciler"
    # slurmctld and the daemon had no processor all the time where the machine is busy.
    assert word["changed_at"] - epilog["changed_at"] < timedelta(seconds=10) + STALLED


def test_what_hooks_do_not_know_is_filled_in(pair: Pair) -> None:
    job = pair.finished(
        "#!/bin/sh\ntrue\n", "--job-name=a name", "--time=7", "--mem=100", "--comment=why", "--gres=gpu:1"
    )
    assert (job["job_name"], job["qos"], job["time_limit_seconds"]) == ("a name", "normal", 420)
    assert (job["memory_requested_bytes"], job["gpus_allocated"]) == (100 << 20, 1)
    assert job["submit_time"] <= job["start_time"]
    assert job["account"] == "physics"


@pytest.mark.parametrize("options", [[], ["--signal=KILL"], ["--signal=KILL", "--full"]])
def test_a_cancelled_job_is_cancelled(pair: Pair, options: list[str]) -> None:
    slurm_id = running(pair)
    pair.cluster.cancel(slurm_id, *options)
    pair.cluster.wait_finished(slurm_id)
    job = pair.confirmed(slurm_id)
    assert told(job) == ("cancelled", "cancelled", None, 15)
    assert job["raw_state"] == "CANCELLED"


def test_a_cancelled_job_that_cleans_up_and_exits_with_0_is_cancelled_all_the_same(pair: Pair) -> None:
    slurm_id = running(pair, "#!/bin/bash\ntrap 'exit 0' TERM\necho ready\nsleep 60 & wait\n")
    pair.cluster.cancel(slurm_id)
    pair.cluster.wait_finished(slurm_id)
    job = pair.confirmed(slurm_id)
    assert (job["state"], job["verdict"]) == ("cancelled", "cancelled")


def test_a_signal_from_scancel_that_the_script_answers_is_no_cancel(pair: Pair) -> None:
    slurm_id = running(pair, "#!/bin/bash\ntrap 'exit 9' USR1\necho ready\nwhile :; do sleep 0.1; done\n")
    pair.cluster.cancel(slurm_id, "--batch", "--signal=USR1")
    pair.cluster.wait_finished(slurm_id)
    assert told(pair.confirmed(slurm_id)) == ("failed", "failed", 9, None)


def test_a_job_cancelled_while_it_waited_is_recorded_without_a_start(pair: Pair) -> None:
    slurm_id = pair.cluster.submit(SLEEP, "--hold")
    pair.cluster.cancel(slurm_id)
    job = pair.confirmed(slurm_id)
    assert told(job)[:2] == ("cancelled", "cancelled")
    assert (job["start_time"], job["nodes"], pair.parts(slurm_id)) == (None, None, [])


def test_out_of_memory_of_the_batch_script(pair: Pair) -> None:
    job = pair.finished(f"#!/bin/sh\n{HOLD}\n", "--mem=60")
    assert told(job) == ("failed", "out_of_memory", None, None)
    assert job["memory_requested_bytes"] == 60 << 20


def test_out_of_memory_that_the_script_swallows_is_out_of_memory(pair: Pair) -> None:
    assert told(pair.finished(f"#!/bin/sh\n{HOLD}\nexit 0\n", "--mem=60")) == ("failed", "out_of_memory", None, None)


def test_out_of_memory_of_a_step_whose_script_says_so_itself_is_a_failure(pair: Pair) -> None:
    job = pair.finished(f"#!/bin/sh\nsrun --mem=60 {HOLD} || exit 1\n", "--mem=100")
    assert told(job) == ("failed", "failed", 1, None)
    assert job["out_of_memory_step"] is True


def test_a_failed_step_that_the_script_swallows_is_seen(pair: Pair) -> None:
    job = pair.finished("#!/bin/sh\nsrun sh -c 'exit 3'\nexit 0\n")
    assert told(job) == ("completed", "completed", 0, None)
    assert job["derived_exit_code"] == 3


def test_a_requeued_job_is_two_runs(pair: Pair) -> None:
    slurm_id = running(pair, f"#!/bin/sh\n{FIRST_RUN_STAYS}\nsleep 1\n")
    pair.cluster.requeue(slurm_id)
    pair.cluster.wait_state(slurm_id, {"PENDING"})
    start_anew(pair, slurm_id)
    pair.cluster.wait_finished(slurm_id)
    pair.confirmed(slurm_id, runs=2)
    first, second = pair.runs(slurm_id)
    assert (first["state"], first["verdict"]) == ("cancelled", "requeued")
    assert told(second) == ("completed", "completed", 0, None)
    assert first["end_time"] <= second["start_time"]
    assert first["correlation_id"] != second["correlation_id"]
    assert (first["restart_count"], second["restart_count"]) == (0, 1)


def test_requeued_held_and_cancelled_is_a_requeue_and_a_cancel(pair: Pair) -> None:
    slurm_id = running(pair)
    pair.cluster.requeue_hold(slurm_id)
    pair.cluster.wait_state(slurm_id, {"PENDING", "REQUEUE_HOLD", "REQUEUED"})
    pair.cluster.cancel(slurm_id)
    pair.cluster.wait_finished(slurm_id)
    pair.confirmed(slurm_id, runs=2)
    assert [row["verdict"] for row in pair.runs(slurm_id)] == ["requeued", "cancelled"]


def test_a_preempted_job_is_told_as_such(pair: Pair) -> None:
    whole = ["--exclusive", f"--nodelist={pair.cluster.node_names[1]}"]
    slurm_id = running(pair, SLEEP, *whole)
    urgent = pair.cluster.submit("#!/bin/sh\ntrue\n", "--partition=urgent", *whole)
    pair.cluster.wait_finished(urgent)
    job = pair.confirmed(slurm_id)
    assert (job["run"], job["state"], job["verdict"]) == (1, "cancelled", "preempted")
    pair.cluster.cancel(slurm_id)


def test_srun_alone_is_a_job(pair: Pair) -> None:
    with pair.cluster.start_program("srun", "sh", "-c", "echo job $SLURM_JOB_ID; exit 4") as program:
        slurm_id = program.job_id()
        program.wait()
    pair.cluster.wait_finished(slurm_id)
    assert told(pair.confirmed(slurm_id)) == ("failed", "failed", 4, None)


def test_an_allocation_that_runs_nothing_is_a_job(pair: Pair) -> None:
    with pair.cluster.start_program("salloc", "sh", "-c", "echo job $SLURM_JOB_ID") as program:
        slurm_id = program.job_id()
        program.wait()
    pair.cluster.wait_finished(slurm_id)
    assert told(pair.confirmed(slurm_id))[:2] == ("completed", "completed")


def test_two_nodes_are_one_run_with_two_parts(pair: Pair) -> None:
    job = pair.finished("#!/bin/sh\nsrun sleep 2\n", "--nodes=2", "--ntasks=2", "--cpus-per-task=3")
    slurm_id = int(job["job_id"].removeprefix("slurm-"))
    wait_until(lambda: (row := pair.job(slurm_id)) and row["nodes_reporting"] == 2, "usage of both nodes")
    parts = pair.parts(slurm_id)
    assert [part["node"] for part in parts] == sorted(pair.cluster.node_names)
    assert {part["run"] for part in parts} == {1}
    assert (job["cpus_allocated"], job["nodes_total"]) == (6, 2)


def test_components_of_a_heterogeneous_job_name_their_leader(pair: Pair) -> None:
    leader, other = pair.cluster.submit_het("#!/bin/sh\nsleep 1\n", ["--ntasks=1"], ["--ntasks=1", "--mem=50"])
    for slurm_id in (leader, other):
        pair.cluster.wait_finished(slurm_id)
    jobs = [pair.confirmed(slurm_id) for slurm_id in (leader, other)]
    assert [job["het_leader_job_id"] for job in jobs] == [f"slurm-{leader}"] * 2
    assert [job["het_job_offset"] for job in jobs] == [0, 1]


def test_tasks_of_an_array_name_array_and_task(pair: Pair) -> None:
    array_id = pair.cluster.submit_array("#!/bin/sh\nexit $SLURM_ARRAY_TASK_ID\n", "0-2")
    tasks = pair.cluster.array_tasks(array_id, 3)
    for raw_id in tasks.values():
        pair.cluster.wait_finished(raw_id)
    jobs = {task: pair.confirmed(raw_id) for task, raw_id in tasks.items()}
    assert {task: (job["array_job_id"], job["array_task_id"]) for task, job in jobs.items()} == {
        task: (f"slurm-{array_id}", task) for task in range(3)
    }
    assert {task: job["exit_code"] for task, job in jobs.items()} == {0: 0, 1: 1, 2: 2}


def test_a_name_that_is_no_text_costs_nobody_anything(pair: Pair) -> None:
    hostile = pair.cluster.submit(
        "#!/bin/sh\nsleep 2\n", b"--job-name=caf\xe9 \x1b[31m".decode("utf-8", "surrogateescape")
    )
    other = pair.cluster.submit("#!/bin/sh\nsleep 2\n")
    for slurm_id in (hostile, other):
        pair.cluster.wait_finished(slurm_id)
    assert pair.confirmed(other)["state"] == "completed"
    job = pair.confirmed(hostile)
    assert job["state"] == "completed"
    assert job["job_name"].startswith("caf\ufffd")


def test_a_suspended_job_is_seen_and_stays_open(pair: Pair) -> None:
    gate = pair.gate("suspended")
    slurm_id = running(pair, f"{UNTIL_OPEN.format(gate=gate)}\nsleep 3")
    asked = time.monotonic()
    pair.cluster.suspend(slurm_id)
    began = time.monotonic()
    wait_until(lambda: (pair.job(slurm_id) or {}).get("raw_state") == "SUSPENDED", "the suspension to be seen")
    assert pair.job(slurm_id)["state"] == "running"  # type: ignore[index]
    wait_until(lambda: f"slurm-{slurm_id}" in named_suspended(pair), "the suspension on the page")
    # Slurm counts whole seconds: of two, one is counted wherever in a second they began.
    wait_until(lambda: time.monotonic() > began + 2, "two seconds of suspension")
    ended = time.monotonic()
    gate.touch()
    pair.cluster.resume(slurm_id)
    done = time.monotonic()
    pair.cluster.wait_finished(slurm_id)
    job = pair.confirmed(slurm_id)
    assert job["state"] == "completed"
    assert 0 < job["suspended_seconds"] < (job["end_time"] - job["start_time"]).total_seconds()
    # Whole seconds, as Slurm counts them, of its beginning and its end.
    assert ended - began - 2 <= job["suspended_seconds"] <= done - asked + 2
    wait_until(lambda: f"slurm-{slurm_id}" not in named_suspended(pair), "the page without it")


def named_suspended(pair: Pair) -> set[str]:
    """The jobs that the first daemon's page calls suspended."""
    return {labels["job_id"] for labels, _ in pair.daemon.metrics().get("hpc_job_suspended", [])}


def test_a_node_set_down_fails_its_job(pair: Pair) -> None:
    node = pair.cluster.node_names[1]
    slurm_id = running(pair, SLEEP, f"--nodelist={node}", "--no-requeue")
    pair.cluster.set_node(node, "DOWN")
    pair.cluster.wait_finished(slurm_id)
    job = pair.confirmed(slurm_id)
    assert told(job) == ("failed", "node_fail", None, None)
    assert list(job["verdict_evidence"]["slurm"]["slurmctld"]["node_states"]) == [node]
    come_back(pair, node)


def start_anew(pair: Pair, slurm_id: int) -> None:
    """Let a requeued job start once its first run's epilog is over: slurmd runs no prolog for a job that it knows."""
    wait_until(lambda: "job_finished" in [row["event_kind"] for row in pair.trail(slurm_id)], "the first run's epilog")
    pair.cluster.start_now(slurm_id)


def come_back(pair: Pair, node: str) -> None:
    """Wait until the node is usable again: its slurmd is well, so slurmctld takes it back by itself."""
    wait_until(lambda: pair.cluster.node_state(node) in {"idle", "mix", "alloc"}, "the node", timeout_seconds=120)


def test_a_node_set_down_with_requeue_is_two_runs(pair: Pair) -> None:
    node = pair.cluster.node_names[1]
    slurm_id = running(pair, f"#!/bin/sh\n{FIRST_RUN_STAYS}\nsleep 1\n", f"--nodelist={node}", "--requeue")
    pair.cluster.set_node(node, "DOWN")
    pair.cluster.wait_state(slurm_id, {"PENDING"})
    come_back(pair, node)
    start_anew(pair, slurm_id)
    pair.cluster.wait_finished(slurm_id)
    pair.confirmed(slurm_id, runs=2)
    assert [row["verdict"] for row in pair.runs(slurm_id)] == ["node_fail", "completed"]


def test_a_job_that_ends_while_its_slurmd_is_down_is_confirmed_afterwards(pair: Pair) -> None:
    node = pair.cluster.node_names[1]
    gate = pair.gate("slurmd-is-down")
    script = f"#!/bin/sh\n{UNTIL_OPEN.format(gate=gate)}\necho over\nexit 5\n"
    slurm_id = running(pair, script, f"--nodelist={node}")
    pair.cluster.stop_slurmd(node)
    gate.touch()
    wait_until(lambda: "over" in written(pair, slurm_id), "the job's script to end")
    pair.cluster.start_slurmd(node)
    pair.cluster.wait_finished(slurm_id)
    assert told(pair.confirmed(slurm_id)) == ("failed", "failed", 5, None)


def test_while_slurmrestd_is_down_the_outcome_is_unknown_and_afterwards_known(pair: Pair) -> None:
    pair.cluster.stop_rest()
    slurm_id = running(pair)
    pair.cluster.cancel(slurm_id)
    pair.cluster.wait_finished(slurm_id)
    job = pair.settled(slurm_id)
    assert told(job)[:2] == ("ended", "unknown")
    shown = pair.daemon.cli("jobs", "show", str(slurm_id)).stdout
    assert "outcome unknown" in shown.lower()
    pair.cluster.start_rest()
    assert told(pair.confirmed(slurm_id)) == ("cancelled", "cancelled", None, 15)


def test_a_run_that_slurm_never_heard_of_is_closed(pair: Pair) -> None:
    body = b"\0".join(
        [
            b"SLURM_JOB_ID=999999",
            b"SLURM_JOB_UID=0",
            b"SLURM_JOB_USER=root",
            b"SLURM_CLUSTER_NAME=trailtest",
            b"SLURM_JOB_NODELIST=" + pair.cluster.node_names[0].encode(),
            b"SLURMD_NODENAME=" + pair.cluster.node_names[0].encode(),
            b"SLURM_SCRIPT_CONTEXT=prolog_slurmd",
        ]
    )
    headers = {
        "Jobtrail-Event-Id": "0b0b0b0b-0000-4000-8000-000000000001",
        "Jobtrail-Event-Time": f"{time.time() - 86_400:.9f}",
    }
    status, answer = pair.daemon.request("POST", "/v1/hooks/slurm/prolog", body, headers)
    assert status == 201, answer
    job = wait_until(lambda: (row := pair.job(999999)) and row["end_inferred"] and row, "the run to be closed")
    assert told(job)[:2] == ("ended", "unknown")
    assert job["end_not_before"] <= job["end_time"]


def test_both_limits_of_time(pair: Pair, over_time: dict[str, int]) -> None:
    for signal, slurm_id in over_time.items():
        pair.cluster.wait_finished(slurm_id, timeout=300)
        job = pair.confirmed(slurm_id)
        assert told(job) == ("failed", "timeout", None, int(signal))
        assert job["time_limit_seconds"] == 60


def test_nodes_are_known_with_their_state_and_gpus(pair: Pair) -> None:
    def known() -> list[dict[str, Any]] | None:
        rows = pair.rows("SELECT * FROM nodes ORDER BY node")
        return rows if len(rows) == 2 and all(row["state"] == "idle" for row in rows) else None

    rows = wait_until(known, "both nodes to be idle in table nodes")
    assert [row["gpus"] for row in rows] == [GPUS, GPUS]
    states = {labels["node"] for labels, _ in pair.daemon.metrics()["hpc_node_state"]}
    assert states == set(pair.cluster.node_names)


def test_every_sentence_about_a_job_can_be_told(pair: Pair) -> None:
    for row in pair.rows("SELECT job_id, run FROM jobs ORDER BY job_id, run"):
        shown = pair.daemon.cli("jobs", "show", row["job_id"], "--run", str(row["run"])).stdout
        assert row["job_id"] in shown


def test_the_jobs_follow_from_the_trail(pair: Pair) -> None:
    report = pair.rebuild_check()
    assert report["runs"] >= 30
    assert (report["differing"], report["unverifiable"]) == (0, {})

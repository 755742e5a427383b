"""What tests can do to a cluster, each once: hooks with a conf for each node, users' and administrators' commands."""

import json
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.configuration import preemption
from tests.slurm.daemons import ClusterError, poll_until
from tests.slurm.hooks import PARAMETERS, HookFiles, write_wrappers

SLURMD_HOOKS = ("prolog", "epilog", "task_epilog")


@pytest.fixture(scope="module")
def record() -> Iterator[Path]:
    """The file in which the hooks write their name, user and conf; the user slurm can reach and write it too."""
    # Not in pytest's own directory: every other pytest that starts on this machine closes that to all but root.
    with tempfile.TemporaryDirectory(prefix="jobtrail-hooks-") as name:
        path = Path(name) / "record"
        path.parent.chmod(0o755)
        path.touch()
        path.chmod(0o666)
        yield path


@pytest.fixture(scope="module")
def pair(slurm_packages: None, record: Path) -> Iterator[SlurmCluster]:
    """Two nodes, all hooks, slurmrestd, a partition whose jobs push others out, and jobs forgotten after 10 s."""
    hooks = HookFiles(hook_conf_directory=record.parent / "confs")
    for name in PARAMETERS:
        script = record.parent / name
        script.write_text(f'#!/bin/sh\necho "{name} $(id -un) $JOBTRAIL_HOOK_CONF" >> {record}\n')
        script.chmod(0o755)
        hooks[name] = script  # type: ignore[literal-required]
    with SlurmCluster(nodes=2, rest=True, extra_conf=["MinJobAge=10", *preemption("REQUEUE")], **hooks) as running:
        yield running


def test_directory_and_nodes_are_known_before_the_start() -> None:
    first, second = SlurmCluster(nodes=2), SlurmCluster(nodes=2)
    assert first.rest_socket.is_relative_to(first.directory)
    assert not first.directory.exists()
    assert len({*first.node_names, *second.node_names}) == 4


def test_one_conf_for_all_or_one_for_each_but_not_both(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"either hook_conf, .* or hook_conf_directory"):
        write_wrappers(tmp_path, HookFiles(hook_conf=tmp_path, hook_conf_directory=tmp_path))


def test_each_hook_is_led_to_the_conf_of_its_node(pair: SlurmCluster, record: Path) -> None:
    assert pair.wait_finished(pair.submit("srun true", "--nodes=2")) == "COMPLETED"
    confs = record.parent / "confs"
    users = {"prolog": "root", "epilog": "root", "task_epilog": "jt-alice"}
    expected = {f"{hook} {users[hook]} {confs}/{node}.conf" for hook in SLURMD_HOOKS for node in pair.node_names}
    expected |= {f"{hook} slurm {confs}/slurmctld.conf" for hook in ("prolog_slurmctld", "epilog_slurmctld")}
    # slurmctld runs its epilog when the job has ended and waits for it no longer (slurm.conf(5)).
    poll_until(lambda: set(record.read_text().splitlines()) == expected, what=f"{expected} in {record.read_text()}")


def test_a_token_opens_slurmrestd_over_tcp(pair: SlurmCluster) -> None:
    url = f"{pair.rest_url}/slurm/v0.0.38/ping"
    headers = {"X-SLURM-USER-NAME": "jt-bob", "X-SLURM-USER-TOKEN": pair.token("jt-bob")}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        assert json.load(answer)["pings"][0]["ping"] == "UP"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=60)
    with refused.value as answer:
        assert answer.code == 401


def test_slurmrestd_and_controller_can_be_away_for_a_while(pair: SlurmCluster) -> None:
    pair.stop_rest()
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(pair.rest_url, timeout=60)
    pair.start_rest()
    pair.stop_controller()
    with pytest.raises(ClusterError, match=r"Slurmctld.* is DOWN"):
        pair.run_tool("scontrol", "ping")
    pair.start_controller()
    assert pair.wait_finished(pair.submit("true")) == "COMPLETED"


def test_requeue_hold_release_and_the_rows_of_both_runs(pair: SlurmCluster) -> None:
    job = pair.submit("sleep 1000")
    pair.wait_script(job)
    pair.requeue_hold(job)
    pair.wait_state(job, {"PENDING"})
    pair.release(job)
    pair.start_now(job)
    pair.wait_running(job)
    poll_until(
        lambda: [row["State"] for row in pair.sacct_rows(job, duplicates=False)] == ["RUNNING"],
        what="slurmdbd to know only the second run as the last",
    )
    pair.cancel(job, "--signal=KILL", "--full", user="jt-alice")
    assert pair.wait_finished(job) == "CANCELLED"
    states = [row["State"].split()[0] for row in pair.sacct(job)]
    assert states == ["REQUEUED", "CANCELLED"]


def test_suspended_job_goes_on(pair: SlurmCluster) -> None:
    gate = pair.jobs_directory / "go-on"
    job = pair.submit(f"until [ -e {gate} ]; do sleep 0.1; done")
    pair.wait_running(job)
    pair.suspend(job)
    assert pair.state(job) == "SUSPENDED"
    gate.touch()
    pair.resume(job)
    assert pair.wait_finished(job) == "COMPLETED"


def test_urgent_job_pushes_another_back_into_the_queue(pair: SlurmCluster) -> None:
    node = f"--nodelist={pair.node_names[0]}"
    job = pair.submit("sleep 1000", node, "--requeue", "--exclusive")
    pair.wait_running(job)
    urgent = pair.submit("true", "--partition=urgent", "--exclusive", node)
    assert pair.wait_finished(urgent) == "COMPLETED"
    # slurmdbd hears of it later than the job is pushed back.
    poll_until(
        lambda: [row["State"] for row in pair.sacct_rows(job)][:1] == ["PREEMPTED"],
        what="slurmdbd to know the first run as preempted",
    )
    pair.cancel(job)


def test_node_set_down_ends_its_job(pair: SlurmCluster) -> None:
    node = pair.node_names[1]
    job = pair.submit("sleep 1000", f"--nodelist={node}", "--no-requeue")
    pair.wait_running(job)
    pair.set_node(node, "DOWN")
    assert pair.wait_finished(job) == "NODE_FAIL"
    poll_until(lambda: pair.node_state(node) == "idle", what=f"{node} to be idle")


def test_killed_slurmd_comes_back_to_its_job(pair: SlurmCluster) -> None:
    node = pair.node_names[0]
    gate = pair.jobs_directory / "slurmd-is-back"
    job = pair.submit(f"until [ -e {gate} ]; do sleep 0.1; done", f"--nodelist={node}")
    # One that is killed in a prolog never starts the job.
    pair.wait_script(job)
    pair.kill_slurmd(node)
    pair.start_slurmd(node)
    gate.touch()
    assert pair.wait_finished(job) == "COMPLETED"


def test_het_job_has_an_id_for_each_component(pair: SlurmCluster) -> None:
    first, second = pair.submit_het("true", ["--ntasks=1"], ["--ntasks=1", "--mem=50"])
    assert [pair.wait_finished(job) for job in (first, second)] == ["COMPLETED"] * 2
    assert pair.scontrol_show(second)["HetJobId"] == str(first)


def test_srun_and_salloc_without_a_batch_script(pair: SlurmCluster) -> None:
    with pair.start_program("srun", "sh", "-c", "echo job $SLURM_JOB_ID; exit 3") as srun:
        assert srun.wait() == 3
        assert pair.wait_finished(srun.job_id()) == "FAILED"
    argv = ("salloc", "--kill-command", "sh", "-c", "echo job $SLURM_JOB_ID; sleep 1000")
    with pair.start_program(*argv, user="jt-bob") as salloc:
        pair.wait_running(salloc.job_id())
        salloc.signal(signal.SIGTERM)
        assert pair.wait_finished(salloc.job_id()) == "CANCELLED"


def test_jobs_are_forgotten_after_min_job_age(pair: SlurmCluster) -> None:
    job = pair.submit("true")
    pair.wait_finished(job)

    def forgotten() -> bool:
        try:
            pair.state(job)
        except ClusterError as error:
            return "Invalid job id" in str(error)
        return False

    # slurmctld looks for old jobs every now and then only (slurm.conf(5), MinJobAge).
    poll_until(forgotten, what=f"slurmctld to forget job {job}", step_seconds=0.5)
    assert [row["State"] for row in pair.sacct(job)] == ["COMPLETED"]

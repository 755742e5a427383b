"""The cluster of the other tests is a real one, does what their jobs need, and leaves nothing behind."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import remains
from tests.slurm.cgroups import cgroup_conf, has_unified_cgroups
from tests.slurm.cluster import USERS, SlurmCluster
from tests.slurm.daemons import ClusterError, poll_until
from tests.slurm.hooks import HookFiles

WAIT_FOR_GATE = "until [ -e {gate} ]; do sleep 0.1; done"


@pytest.fixture
def gate(cluster: SlurmCluster) -> Iterator[Path]:
    """A file whose creation lets jobs go on that run WAIT_FOR_GATE."""
    path = cluster.jobs_directory / "gate"
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize(("status", "state"), [(0, "COMPLETED"), (3, "FAILED")])
def test_exit_status_reaches_controller_and_accounting(cluster: SlurmCluster, status: int, state: str) -> None:
    job = cluster.submit(f"exit {status}")
    assert cluster.wait_finished(job) == state
    assert cluster.scontrol_show(job)["ExitCode"] == f"{status}:0"
    (row,) = cluster.sacct(job)
    assert (row["State"], row["ExitCode"]) == (state, f"{status}:0")


def test_job_over_its_memory_limit_is_killed(cluster: SlurmCluster) -> None:
    # tail(1) keeps the last line of its input, and /dev/zero has no end of line.
    job = cluster.submit("tail /dev/zero", "--mem=64M")
    assert cluster.wait_finished(job) == "OUT_OF_MEMORY"
    (row,) = cluster.sacct(job)
    assert (row["State"], row["ExitCode"]) == ("OUT_OF_MEMORY", "0:125")


def test_each_user_runs_jobs_as_themselves_under_their_account(cluster: SlurmCluster) -> None:
    jobs = {user: cluster.submit("id -un", user=user) for user in USERS}
    for user, job in jobs.items():
        assert cluster.wait_finished(job) == "COMPLETED"
        assert cluster.output(job) == f"{user}\n"
        (row,) = cluster.sacct(job)
        assert (row["User"], row["Account"]) == (user, USERS[user])


def test_twenty_jobs_run_at_the_same_time(cluster: SlurmCluster, gate: Path) -> None:
    jobs = [cluster.submit(WAIT_FOR_GATE.format(gate=gate)) for _ in range(20)]

    def all_running() -> bool:
        printed = cluster.run_tool("squeue", "--noheader", "--states=RUNNING", "--format=%i")
        return {int(job) for job in printed.split()} >= set(jobs)

    poll_until(all_running, what="20 jobs to run at once")
    gate.touch()
    assert {cluster.wait_finished(job) for job in jobs} == {"COMPLETED"}


def test_array_tasks_have_job_ids_of_their_own(cluster: SlurmCluster) -> None:
    array = cluster.submit_array("exit $SLURM_ARRAY_TASK_ID", "0-2")
    tasks = cluster.array_tasks(array, 3)
    assert tasks.keys() == {0, 1, 2}
    assert array in tasks.values()
    assert [cluster.wait_finished(tasks[index]) for index in range(3)] == ["COMPLETED", "FAILED", "FAILED"]
    assert [[row["ExitCode"] for row in cluster.sacct(tasks[index])] for index in range(3)] == [
        ["0:0"],
        ["1:0"],
        ["2:0"],
    ]


def test_running_job_has_its_cgroups_and_an_ended_one_has_not(cluster: SlurmCluster, gate: Path) -> None:
    job = cluster.submit(f"cat /proc/self/cgroup; {WAIT_FOR_GATE.format(gate=gate)}", "--mem=100M")
    cluster.wait_script(job)
    cgroups = cluster.job_cgroups(job)
    assert all(cluster.node_names[0] in str(path) for path in cgroups)
    if has_unified_cgroups(Path("/proc/self/mounts").read_text()):
        assert len(cgroups) == 1
        assert (cgroups[0] / "memory.max").read_text() == f"{100 << 20}\n"
    else:
        by_controller = {path.relative_to("/sys/fs/cgroup").parts[0]: path for path in cgroups}
        assert by_controller.keys() >= {"cpuacct", "freezer", "memory"}
        assert (by_controller["memory"] / "memory.limit_in_bytes").read_text() == f"{100 << 20}\n"
        assert int((by_controller["cpuacct"] / "cpuacct.usage").read_text()) > 0
    poll_until(lambda: f"job_{job}/" in cluster.output(job), what="the script's own cgroup in its output")
    gate.touch()
    cluster.wait_finished(job)
    poll_until(lambda: cluster.job_cgroups(job) == [], what="the job's cgroups to be gone")


def test_job_outlives_a_restart_of_slurmd(cluster: SlurmCluster, gate: Path) -> None:
    job = cluster.submit(WAIT_FOR_GATE.format(gate=gate))
    cluster.wait_script(job)
    cluster.restart_slurmd(cluster.node_names[0])
    assert cluster.state(job) == "RUNNING"
    gate.touch()
    assert cluster.wait_finished(job) == "COMPLETED"


def test_cancelled_job_is_cancelled(cluster: SlurmCluster) -> None:
    job = cluster.submit("sleep 1000")
    cluster.wait_running(job)
    cluster.cancel(job)
    assert cluster.wait_finished(job) == "CANCELLED"


def test_slurmrestd_knows_the_jobs(cluster: SlurmCluster) -> None:
    job = cluster.submit("true", "--job-name=seen-by-rest")
    cluster.wait_finished(job)
    url = f"http://localhost/slurm/v0.0.38/job/{job}"
    answer = json.loads(cluster.run_tool("curl", "-sS", "--unix-socket", str(cluster.rest_socket), url))
    assert answer["jobs"][0]["name"] == "seen-by-rest"


def test_failed_command_says_what_slurm_said(cluster: SlurmCluster) -> None:
    with pytest.raises(ClusterError, match=r"'scontrol .* 999999' ended with exit status 1: .*Invalid job id"):
        cluster.state(999_999)


def recording_hooks(directory: Path) -> HookFiles:
    """Make hooks that write down who called them with which settings."""
    record = directory / "record"
    for name in ("prolog", "epilog"):
        script = directory / name
        script.write_text(
            f'#!/bin/sh\necho "{name} $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES $JOBTRAIL_HOOK_CONF" >> {record}\n'
        )
        script.chmod(0o755)
    return HookFiles(prolog=directory / "prolog", epilog=directory / "epilog", hook_conf=directory / "hook.conf")


def test_cluster_of_two_nodes_runs_hooks_and_gives_gpus(slurm_packages: None, tmp_path: Path) -> None:
    """Also: a process that a hook left behind, and a running job, are gone when the cluster has stopped."""
    hooks = recording_hooks(tmp_path)
    gpu = tmp_path / "gpu0"
    os.mknod(gpu, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with SlurmCluster(nodes=2, **hooks, gpu_files=[gpu]) as pair:
        job = pair.submit("true", "--nodes=2", "--gres=gpu:1")
        assert pair.wait_finished(job) == "COMPLETED"
        expected = {
            f"{kind} {node} 0 {tmp_path / 'hook.conf'}" for kind in ("prolog", "epilog") for node in pair.node_names
        }
        assert set((tmp_path / "record").read_text().splitlines()) == expected
        left = pair.submit("setsid sleep 1000 & wait")
        pair.wait_running(left)
        orphan = subprocess.Popen(["sleep", "1000"], env={"SLURM_CONF": pair.env["SLURM_CONF"]}, start_new_session=True)
        directory = pair.directory
        assert remains.cgroups_of(directory)
    assert not directory.exists()
    assert remains.cgroups_of(directory) == []
    assert remains.processes_of(directory) == {}
    assert orphan.wait(60) != 0


def test_failed_start_shows_the_log_and_leaves_nothing(slurm_packages: None) -> None:
    broken = SlurmCluster(nodes=0)
    with pytest.raises(ClusterError, match=r"(?s)slurmctld ended with exit status 1.*fatal: .*[Nn]ode"):
        broken.__enter__()
    assert not broken.directory.exists()
    assert remains.processes_of(broken.directory) == {}


def test_cluster_of_killed_tests_is_removed_by_the_next_ones(slurm_packages: None) -> None:
    program = (
        "import sys; from tests.slurm.cluster import SlurmCluster\n"
        "with SlurmCluster() as cluster: print(cluster.directory, flush=True); sys.stdin.read()"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        directory = Path(tests.stdout.readline().strip())
        assert directory not in remains.remove_abandoned()
        tests.kill()
        tests.wait()
    assert remains.processes_of(directory)
    assert directory in remains.remove_abandoned()
    assert remains.processes_of(directory) == {}
    assert not directory.exists()


def test_cgroup_conf_follows_the_machine() -> None:
    assert has_unified_cgroups("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n")
    assert not has_unified_cgroups("tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n")
    unified = cgroup_conf(unified=True, systemd=False, swap_limits=True).splitlines()
    assert {"CgroupPlugin=cgroup/v2", "IgnoreSystemd=yes", "ConstrainSwapSpace=yes"} <= set(unified)
    legacy = cgroup_conf(unified=False, systemd=False, swap_limits=False).splitlines()
    assert {"CgroupPlugin=cgroup/v1", "ConstrainSwapSpace=no"} <= set(legacy)

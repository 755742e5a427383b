"""`jobtrail bench run` gives a recipe to a real Slurm, waits for it, and says how it went."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.daemon_process import REPOSITORY, wait_until
from tests.slurm.cluster import SlurmCluster

PROGRAM = REPOSITORY / "tests" / "bench_programs" / "vllm_like.py"


@pytest.fixture
def workplace(cluster: SlurmCluster) -> Path:
    """A directory with a name that a careless script would trip over, as the jobs and this process see it."""
    path = cluster.jobs_directory / "it's 100% $HOME"
    path.mkdir(exist_ok=True)
    return path


def write_recipe(workplace: Path, **changes: Any) -> Path:
    """A recipe of a server and a load that take a second."""
    recipe: dict[str, Any] = {
        "name": "tiny-chat",
        "mode": "serve",
        "model": {"id": "tiny"},
        "resources": {"time": "5"},
        "server": {"command": [sys.executable, str(PROGRAM), "serve"], "ready": {"timeout_s": 60}},
        "workload": {"input_len": 4, "output_len": 8, "num_prompts": 6, "warmups": 2},
        "measure": {"repeats": 2},
    }
    path = workplace / "tiny.yaml"
    path.write_text(yaml.safe_dump({**recipe, **changes}), encoding="utf-8")
    return path


def environment(cluster: SlurmCluster) -> dict[str, str]:
    return {**cluster.env, "PYTHONPATH": str(REPOSITORY / "daemon"), "SBATCH_EXPORT": "NONE"}


def bench_run(cluster: SlurmCluster, workplace: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`jobtrail bench run …` in the workplace."""
    return subprocess.run(
        [sys.executable, "-m", "jobtrail", "bench", "run", *words],
        env=environment(cluster), cwd=workplace, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip


def run_directory(workplace: Path, run_uid: str) -> Path:
    (found,) = (workplace / "jobtrail-bench").glob(f"*-{run_uid[:8]}")
    return found


def test_a_recipe_runs_as_a_job_and_its_figures_are_shown(cluster: SlurmCluster, workplace: Path) -> None:
    """Through a directory with blanks, quotes and dollars, and an environment of the site that would export nothing."""
    done = bench_run(cluster, workplace, str(write_recipe(workplace)), "--wait", "--json", "--set", "measure.repeats=3")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["status"] == "ok"
    assert "repeat 3 of 3" in done.stderr or "handing over the result" in done.stderr
    throughput = next(row for row in outcome["figures"] if row["metric"] == "output_token_throughput")
    assert throughput["unit"] == "token/s"
    assert len(throughput["repeats"]) == 3
    directory = run_directory(workplace, outcome["run_uid"])
    assert Path(outcome["directory"]) == directory
    note = json.loads((directory / "run.json").read_text())
    assert outcome["jobs"] == [f"slurm-{note['job_id']}"]
    assert cluster.wait_finished(int(note["job_id"])) == "COMPLETED"
    record = cluster.scontrol_show(int(note["job_id"]))
    assert (record["JobName"], record["TimeLimit"]) == ("bench-tiny-chat", "00:05:00")
    assert "starting the server" in (directory / "run.log").read_text()


def test_a_load_that_fails_fails_the_run_and_says_why(cluster: SlurmCluster, workplace: Path) -> None:
    recipe = write_recipe(workplace, environment={"LOAD_FAULT": "exit"})
    done = bench_run(cluster, workplace, str(recipe), "--wait")
    assert done.returncode == 1
    assert "failed" in done.stdout
    assert "load" in done.stdout


def test_without_waiting_the_job_and_its_directory_are_named(cluster: SlurmCluster, workplace: Path) -> None:
    done = bench_run(cluster, workplace, str(write_recipe(workplace)), "--no-wait", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    job = int(answer["job_id"].removeprefix("slurm-"))
    assert cluster.wait_finished(job) == "COMPLETED"
    assert (Path(answer["directory"]) / "manifest.json").exists()


def test_sbatch_refusing_is_told_in_its_own_words(cluster: SlurmCluster, workplace: Path) -> None:
    """And no directory of a run that never was is left."""
    before = set(workplace.glob("jobtrail-bench/*"))
    done = bench_run(cluster, workplace, str(write_recipe(workplace)), "--partition", "no-such-partition")
    assert done.returncode == 1
    assert "invalid partition specified: no-such-partition" in done.stderr
    assert set(workplace.glob("jobtrail-bench/*")) == before


def test_an_interrupt_while_waiting_leaves_the_job_alone(cluster: SlurmCluster, workplace: Path) -> None:
    """A job that is held back is waited for with Slurm's reason; one Ctrl-C ends the waiting and nothing else."""
    words = [sys.executable, "-m", "jobtrail", "bench", "run", str(write_recipe(workplace)), "--wait", "-o", "hold"]
    printed = workplace / "printed"
    with printed.open("w") as out:
        waiting = subprocess.Popen(words, env=environment(cluster), cwd=workplace, stdout=out, stderr=out)
        try:
            wait_until(lambda: "JobHeldUser" in printed.read_text(), "Slurm's reason")
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(timeout=120) == 130
        finally:
            waiting.kill()
            waiting.wait()
    text = printed.read_text()
    assert "goes on" in text
    job = int(text.partition("job ")[2].split()[0])
    assert cluster.state(job) == "PENDING"
    cluster.cancel(job)
    assert cluster.wait_finished(job) == "CANCELLED"


def test_a_job_cancelled_before_it_began_ends_the_waiting(cluster: SlurmCluster, workplace: Path) -> None:
    """No manifest will come: it says so, with Slurm's word on the job."""
    words = [sys.executable, "-m", "jobtrail", "bench", "run", str(write_recipe(workplace)), "--wait", "-o", "hold"]
    printed = workplace / "printed-cancelled"
    with printed.open("w") as out:
        waiting = subprocess.Popen(words, env=environment(cluster), cwd=workplace, stdout=out, stderr=out)
        try:
            wait_until(lambda: "JobHeldUser" in printed.read_text(), "Slurm's reason")
            cluster.cancel(int(printed.read_text().partition("job ")[2].split()[0]))
            assert waiting.wait(timeout=180) == 1
        finally:
            waiting.kill()
            waiting.wait()
    assert "(CANCELLED)" in printed.read_text()
    assert "left no manifest" in printed.read_text()


def test_a_job_cancelled_while_it_runs_is_a_failed_run(cluster: SlurmCluster, workplace: Path) -> None:
    """The wrapper, not a shell, is told by Slurm, and still writes down how far it came."""
    recipe = write_recipe(workplace, environment={"SERVER_FAULT": "never_ready"}, name="never-ready")
    words = [sys.executable, "-m", "jobtrail", "bench", "run", str(recipe), "--wait", "--json"]
    with (workplace / "printed-json").open("w") as out:
        waiting = subprocess.Popen(words, env=environment(cluster), cwd=workplace, stdout=out, stderr=subprocess.PIPE)
        try:
            stage = wait_until(
                lambda: next((workplace / "jobtrail-bench").glob("never-ready-*/stage.json"), None),
                "the run to begin",
            )
            cluster.cancel(int(json.loads((stage.parent / "run.json").read_text())["job_id"]))
            waiting.communicate(timeout=240)
        finally:
            waiting.kill()
            waiting.wait()
    assert waiting.returncode == 1
    outcome = json.loads((workplace / "printed-json").read_text())
    assert outcome["status"] == "failed"
    assert "while starting the server" in outcome["reason"]

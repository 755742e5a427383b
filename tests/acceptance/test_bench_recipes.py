"""`jobtrail bench list`, `show` and `run` as somebody at a terminal meets them, with and without a daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.daemon_process import REPOSITORY, Daemon, wait_until

PROGRAM = REPOSITORY / "tests" / "bench_programs" / "vllm_like.py"
TINY: dict[str, Any] = {
    "name": "tiny-chat",
    "mode": "serve",
    "model": {"id": "tiny"},
    "description": "a few words [not markup]",
    "server": {"command": [sys.executable, str(PROGRAM), "serve"], "ready": {"timeout_s": 60}},
    "workload": {"input_len": 4, "output_len": 8, "num_prompts": 6},
    "measure": {"repeats": 2},
    "parameters": {"repeats": {"type": "integer", "min": 1, "max": 5}, "model": {"type": "string", "at": "model.id"}},
}


class Shell:
    """A directory, and `jobtrail` run in it with nothing of the caller's settings."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBTRAIL_", "SLURM_"))}
        nowhere = {"JOBTRAIL_SOCKET": str(directory / "no.sock"), "JOBTRAIL_POKE_SOCKET": str(directory / "no.sock")}
        recipes = directory / "recipes"
        recipes.mkdir()
        self.environment = {
            **kept,
            **nowhere,
            "PYTHONPATH": str(REPOSITORY / "daemon"),
            "JOBTRAIL_RECIPES": str(recipes),
            "JOBTRAIL_BENCH_DROP": str(directory / "no-drop"),
        }

    def recipe(self, name: str = "tiny-chat", **changes: Any) -> Path:
        """Write a recipe where recipes are looked for."""
        path = self.directory / "recipes" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}), encoding="utf-8")
        return path

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "jobtrail", "bench", *words]

    def bench(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `jobtrail bench …` to its end."""
        return subprocess.run(
            self.words(*words), env={**self.environment, **variables}, cwd=self.directory, capture_output=True,
            text=True, check=False, timeout=120,
        )  # fmt: skip

    def program(self, name: str, script: str) -> Path:
        """A stand-in for one of Slurm's programs."""
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return path


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_list_shows_own_and_shipped_recipes(shell: Shell) -> None:
    shell.recipe()
    shell.recipe("ask", model={}, parameters={"id": {"type": "string", "required": True}})
    rows = {row["name"]: row for row in json.loads(shell.bench("list", "--json").stdout)}
    assert rows["tiny-chat"]["path"] == str(shell.directory / "recipes" / "tiny-chat.yaml")
    assert rows["vllm-serve-llama-8b"]["needs"] == "1 node, 1 GPU, 8 CPUs, 64G, 01:00:00"
    assert (rows["ask"]["needs"], rows["ask"]["required"]) == ("set id", ["id"])
    printed = shell.bench("list").stdout
    assert "a few words [not markup]" in printed
    assert "meta-llama/Llama-3.1-70B-Instruct" in printed


def test_the_first_recipe_of_a_name_counts(shell: Shell) -> None:
    shell.recipe("vllm-serve-small", description="ours")
    rows = {row["name"]: row for row in json.loads(shell.bench("list", "--json").stdout)}
    assert rows["vllm-serve-small"]["description"] == "ours"


def test_a_broken_recipe_is_named_and_the_others_are_listed(shell: Shell) -> None:
    shell.recipe()
    shell.recipe("broken", mode="serv")
    done = shell.bench("list")
    assert done.returncode == 1
    assert "tiny-chat" in done.stdout
    assert "broken.yaml: mode: 'serv' is none of" in done.stderr


def test_show_tells_what_would_run_and_settings_are_in_it(shell: Shell) -> None:
    shell.recipe()
    shown = json.loads(shell.bench("show", "tiny-chat", "--set", "repeats=4", "--set", "model=big", "--json").stdout)
    assert shown["recipe"]["measure"]["repeats"] == 4
    assert shown["parameters"]["repeats"] == {
        "type": "integer", "value": 4, "sets": "measure.repeats", "required": False, "allowed": "1 to 5",
        "description": "",
    }  # fmt: skip
    assert shown["commands"]["server"][:4] == [sys.executable, str(PROGRAM), "serve", "big"]
    assert shown["commands"]["load"][2:4] == ["bench", "serve"]
    assert "--time" not in " ".join(shown["commands"]["submit"])
    printed = shell.bench("show", "tiny-chat", "--set", "repeats=4", "--set", "model=big").stdout
    assert f"sha256  {shown['sha256']}" in printed
    assert "1 to 5" in printed
    assert "-m jobtrail bench inside" in printed


def test_a_recipe_written_differently_has_the_same_hash(shell: Shell) -> None:
    one = shell.recipe()
    other = shell.directory / "other.yml"
    other.write_text(json.dumps({**dict(reversed(TINY.items())), "name": "other", "gate": {}}), encoding="utf-8")
    hashes = {json.loads(shell.bench("show", str(path), "--json").stdout)["sha256"] for path in (one, other)}
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("tiny-chat", "--set", "repeats=many"), 2, "tiny-chat.yaml: repeats: 'many' is not an integer"),
        (("tiny-chat", "--set", "repeat=3"), 2, "did you mean repeats?"),
        (("tiny-chat", "--set", "repeats"), 2, "must be NAME=VALUE"),
        (("tiny-chat", "--set", "repeats=1", "--set", "repeats=2"), 2, "repeats is set twice"),
        (("tiny-chatt",), 4, "did you mean tiny-chat?"),
        (("./none.yaml",), 4, "./none.yaml: no such file"),
        (("torn",), 4, "no recipe 'torn'; the file in this directory is torn.yaml"),
        (("twice.yaml",), 2, "line 2, column 1: not YAML that can be read: key 'name' is there twice"),
        (("torn.yaml",), 2, "torn.yaml, line 2"),
        (("deep.yaml",), 2, "nested too deep"),
        (("large.yaml",), 2, "larger than"),
        (("binary.yaml",), 2, "not YAML that can be read"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(shell: Shell, words: tuple[str, ...], code: int, said: str) -> None:
    shell.recipe()
    files = {
        "twice.yaml": b"name: a\nname: b\n",
        "torn.yaml": b"name: [a\n",
        "deep.yaml": b"a: " + b"[" * 20_000,
        "large.yaml": b"#" * 300_000,
        "binary.yaml": b"name: \x00\xff",
    }
    for name, content in files.items():
        (shell.directory / name).write_bytes(content)
    done = shell.bench("show", *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_prints_and_does_nothing(shell: Shell) -> None:
    shell.recipe()
    done = shell.bench("run", "tiny-chat", "--dry-run", "-p", "gpu", "-t", "30", "-o", "constraint=a100", "-o", "hold")
    assert done.returncode == 0, done.stderr
    assert "--partition=gpu" in done.stdout
    assert "--time=30 --signal=B:TERM@60" in done.stdout
    assert "--constraint=a100 --hold" in done.stdout
    assert not (shell.directory / "jobtrail-bench").exists()
    local = shell.bench("run", "tiny-chat", "--dry-run", "--local").stdout
    assert " exec --name bench-tiny-chat -- " in local


def test_without_sbatch_it_says_what_to_do(shell: Shell) -> None:
    shell.recipe()
    done = shell.bench("run", "tiny-chat", "--sbatch", "no-such-sbatch")
    assert done.returncode == 1
    assert "no-such-sbatch: no such program; name it with --sbatch, or run the benchmark" in done.stderr
    assert list((shell.directory / "jobtrail-bench").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1", "QOSMaxSubmitJobPerUserLimit"),
        ("exit 3", "exit code 3: it said nothing"),
        ("echo hello", "answered 'hello', not a job id"),
    ],
)
def test_what_sbatch_says_is_passed_on(shell: Shell, script: str, said: str) -> None:
    shell.recipe()
    done = shell.bench("run", "tiny-chat", "--sbatch", str(shell.program("sbatch", script)))
    assert done.returncode == 1
    assert said in done.stderr


def test_a_job_of_another_cluster_is_noted_with_it(shell: Shell) -> None:
    """sbatch names the cluster when it was told one; the words and the script reach it as they are."""
    shell.recipe()
    sbatch = shell.program("sbatch", f'printf "%s\\n" "$@" > {shell.directory}/words; cat > {shell.directory}/script\n'
                           "echo '77;far'")  # fmt: skip
    done = shell.bench("run", "tiny-chat", "--sbatch", str(sbatch), "--json", "-o", "clusters=far")
    answer = json.loads(done.stdout)
    assert (answer["job_id"], answer["cluster"]) == ("slurm-77", "far")
    note = json.loads((Path(answer["directory"]) / "run.json").read_text())
    assert (note["run_uid"], note["job_id"], note["cluster"]) == (answer["run_uid"], "77", "far")
    assert "--clusters=far" in (shell.directory / "words").read_text().splitlines()
    assert (shell.directory / "script").read_text().splitlines()[-1].startswith(f"exec {sys.executable} -m jobtrail")


def test_a_directory_that_cannot_be_made_is_named(shell: Shell) -> None:
    shell.recipe()
    (shell.directory / "file").write_text("")
    done = shell.bench("run", "tiny-chat", "--directory", "file")
    assert done.returncode == 2
    assert "file: no directory can be made there: Not a directory" in done.stderr


def test_a_local_run_is_always_waited_for(shell: Shell) -> None:
    shell.recipe()
    done = shell.bench("run", "tiny-chat", "--local", "--no-wait")
    assert done.returncode == 2
    assert "leave it out" in done.stderr


def test_a_local_run_without_a_daemon_shows_its_figures(shell: Shell) -> None:
    shell.recipe()
    done = shell.bench("run", "tiny-chat", "--local")
    assert done.returncode == 0, done.stderr
    assert ": ok" in done.stdout
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("requests_completed"))
    assert row == ["requests_completed", "value", "6", "6", "6"]
    (directory,) = (shell.directory / "jobtrail-bench").iterdir()
    assert json.loads((directory / "manifest.json").read_bytes())["status"] == "ok"
    assert f"not recorded: no daemon answers on {shell.environment['JOBTRAIL_POKE_SOCKET']}" in done.stderr
    assert f"jobtrail bench push {directory}" in done.stderr


def test_a_failed_local_run_says_why_and_fails(shell: Shell) -> None:
    shell.recipe(environment={"SERVER_FAULT": "die"})
    done = shell.bench("run", "tiny-chat", "--local", "--json")
    assert done.returncode == 1
    outcome = json.loads(done.stdout)
    assert outcome["status"] == "failed"
    assert "no such quantization" in outcome["reason"]
    assert outcome["figures"] == []
    assert "no daemon answers" in outcome["unreported"]


def test_an_interrupted_local_run_stops_its_server_and_says_how_far_it_came(shell: Shell) -> None:
    """Ctrl-C reaches `bench run` alone here; a terminal would tell all of them."""
    shell.recipe(environment={"SERVER_FAULT": "never_ready", "STATE": str(shell.directory)})
    running = subprocess.Popen(
        shell.words("run", "tiny-chat", "--local", "--json"), env=shell.environment, cwd=shell.directory,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        server = int(wait_until(lambda: _text(shell.directory / "server.pid"), "the server", timeout_seconds=60))
        running.send_signal(signal.SIGINT)
        printed, _ = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 1
    assert json.loads(printed)["status"] == "failed"
    assert not Path(f"/proc/{server}").exists()


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def test_a_local_run_is_a_job_of_the_daemon_that_answers(shell: Shell, tmp_path: Path) -> None:
    """And its manifest names that job."""
    shell.recipe()
    with Daemon(tmp_path / "daemon", scheduler="local") as daemon:
        sockets = {"JOBTRAIL_SOCKET": str(daemon.socket), "JOBTRAIL_POKE_SOCKET": str(daemon.socket)}
        done = shell.bench("run", "tiny-chat", "--local", "--json", **sockets)
        assert done.returncode == 0, done.stderr
        outcome = json.loads(done.stdout)
        (job,) = outcome["jobs"]
        assert job.startswith("local-")
        assert outcome["unreported"] is None
        assert f"{job}: exit code 0" in (Path(outcome["directory"]) / "run.log").read_text()
        assert job in daemon.log.read_text()


def test_a_local_run_finds_programs_beside_its_python(shell: Shell) -> None:
    """As a job does, without the environment's directory in PATH."""
    load = {"command": ["pytest", "--version"]}
    shell.recipe(mode="latency", server=None, workload=load, measure={}, parameters={})
    done = shell.bench("run", "tiny-chat", "--local", "--json", PATH="/usr/bin:/bin")
    assert json.loads(done.stdout)["reason"].startswith("the load ended well and wrote no result-1.json")

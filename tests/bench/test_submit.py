"""What sbatch is told of a run, and the script it is given."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobtrail.cli.bench.directory import RunDirectory
from jobtrail.cli.bench.submit import notice_seconds, script, seconds_of, submission
from jobtrail.domain.benchmarks.recipe import Resources
from jobtrail.domain.benchmarks.recipe_identity import identify
from jobtrail.domain.benchmarks.recipe_parsing import parse


def prepared(base: Path, **resources: Any) -> RunDirectory:
    recipe = parse({"name": "any", "mode": "latency", "model": {"id": "m"}, "resources": resources})
    return RunDirectory.prepare(base, recipe, identify(recipe))


def test_nobody_else_reads_a_runs_directory(tmp_path: Path) -> None:
    """With its uid, another could report the run before it is over, and the true report would be the second."""
    base = tmp_path / "shared" / "runs"
    directory = prepared(base)
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert prepared(base).path.parent == base


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("UNLIMITED", None),
        ("30", 1800),
        ("30:20", 1820),
        ("02:30:20", 9020),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("1-12:30:20", 131_420),
    ],
)
def test_time_limits_are_read_as_sbatch_reads_them(text: str | None, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(("text", "seconds"), [(None, 60), ("10", 60), ("5", 30), ("1", 6), ("00:00:05", 1)])
def test_a_short_job_is_told_later_before_its_end(text: str | None, seconds: int) -> None:
    """A minute before the limit of a one-minute job would be its start."""
    assert notice_seconds(Resources(time=text)) == seconds


def test_nothing_is_asked_for_that_the_recipe_does_not_say(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    assert submission(directory, sbatch="/opt/sbatch") == [
        "/opt/sbatch", "--parsable", "--job-name=bench-any", f"--output={directory.run_log}", "--open-mode=append",
        "--nodes=1", "--ntasks-per-node=1", "--signal=B:TERM@60", "--export=ALL",
    ]  # fmt: skip


def test_everything_the_recipe_says_is_asked_for(tmp_path: Path) -> None:
    """A long option of the recipe's own wins over ours."""
    words = submission(
        prepared(
            tmp_path, partition="p", account="a", qos="q", nodes=2, gpus_per_node=4, cpus_per_task=8, mem="64G",
            time="5", options={"constraint": "a100&nvlink", "exclusive": "", "export": "NONE"},
        ),
        sbatch="sbatch",
    )  # fmt: skip
    asked = [
        "--partition=p", "--account=a", "--qos=q", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4",
        "--cpus-per-task=8", "--mem=64G", "--time=5", "--signal=B:TERM@30", "--export=NONE",
        "--constraint=a100&nvlink", "--exclusive",
    ]  # fmt: skip
    assert words[5:] == asked


def test_a_percent_sign_in_the_path_is_no_pattern_of_sbatch(tmp_path: Path) -> None:
    directory = prepared(tmp_path / "100%j")
    assert f"--output={tmp_path}/100%%j/{directory.path.name}/run.log" in submission(directory, sbatch="sbatch")


def test_the_script_is_quoted_whatever_the_names_are(tmp_path: Path) -> None:
    """A shell runs it with a stand-in for Python's `-m jobtrail`, which tells what reached it."""
    odd = tmp_path / 'it\'s $HOME; touch pwned `id` "x"'
    package = odd / "jobtrail"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import os, sys\nprint(sys.argv[1:])\nprint(os.environ['PATH'])\n")
    directory = prepared(odd)
    config = odd / "the settings.yaml"
    text = script(directory, config, {"PYTHONPATH": f"{odd}{os.pathsep}"})
    done = subprocess.run(
        ["/bin/sh"], input=text, env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    words, path = done.stdout.splitlines()
    assert words == str(["--config", str(config), "bench", "inside", str(directory.path)])
    assert path == f"/usr/bin:/bin:{Path(sys.executable).parent}"
    assert not (tmp_path / "pwned").exists()


def test_relative_paths_of_the_callers_python_become_absolute(tmp_path: Path) -> None:
    """The job need not start where the caller stands."""
    assert f"PYTHONPATH={os.getcwd()}/daemon\n" in script(prepared(tmp_path), None, {"PYTHONPATH": "daemon"})
    assert "PYTHONPATH" not in script(prepared(tmp_path), None, {})

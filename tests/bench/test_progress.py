"""What somebody who waits is shown, and when the waiting ends."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from jobtrail.cli.bench import progress
from jobtrail.cli.bench.directory import RunDirectory
from jobtrail.cli.bench.manifest import Stage, write_stage
from jobtrail.cli.bench.progress import (
    Display,
    JobWord,
    Pace,
    ask_squeue,
    done_steps,
    follow_job,
    saying,
    squeue_beside,
)
from jobtrail.domain.benchmarks.recipe_identity import identify
from jobtrail.domain.benchmarks.recipe_parsing import parse

AT_ONCE = Pace(poll=0, squeue=0, settle=0, unseen=0)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    recipe = parse({"name": "any", "mode": "latency", "model": {"id": "m"}, "measure": {"repeats": 3}})
    return RunDirectory.prepare(tmp_path, recipe, identify(recipe))


def squeue(tmp_path: Path, script: str) -> str:
    path = tmp_path / "squeue"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "word", "is_over"),
    [
        ("echo 'PENDING|Resources'", JobWord(state="PENDING", reason="Resources"), False),
        ("echo 'PENDING|(held, by an admin)'", JobWord(state="PENDING", reason="(held, by an admin)"), False),
        ("echo 'RUNNING|None'", JobWord(state="RUNNING", reason="None"), False),
        ("echo 'CLUSTER: far'; echo 'COMPLETED|None'", JobWord(state="COMPLETED", reason="None"), True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", JobWord(), True),
        ("exit 0", JobWord(), True),
        ("echo 'Unable to contact slurm controller' >&2; exit 1",
         JobWord(problem="Unable to contact slurm controller"), False),
    ],
)  # fmt: skip
def test_what_squeue_says_is_understood(tmp_path: Path, script: str, word: JobWord, is_over: bool) -> None:
    """An unreachable controller does not mean that the job is over."""
    said = ask_squeue(squeue(tmp_path, script), "7", None)
    assert (said, said.is_over) == (word, is_over)


def test_squeue_is_asked_for_the_one_job_of_its_cluster(tmp_path: Path) -> None:
    ask_squeue(squeue(tmp_path, f'echo "$@" > {tmp_path}/words'), "7", "far")
    assert (tmp_path / "words").read_text() == "--noheader --states=all --jobs=7 --format=%T|%r --clusters=far\n"


def test_without_squeue_the_job_is_not_taken_for_over(tmp_path: Path) -> None:
    said = ask_squeue(str(tmp_path / "none"), "7", None)
    assert said.problem is not None
    assert not said.is_over


def test_squeue_is_that_beside_the_named_sbatch(tmp_path: Path) -> None:
    beside = squeue(tmp_path, "exit 0")
    assert squeue_beside(str(tmp_path / "sbatch")) == beside
    assert squeue_beside("sbatch") == "squeue"
    assert squeue_beside("/nowhere/sbatch") == "squeue"


def test_steps_grow_from_stage_to_stage() -> None:
    """The bar never goes back, and is full at the end."""
    stages = [("starting", 0), ("warming_up", 0), ("loading", 1), ("loading", 2), ("loading", 3), ("stopping", 3),
              ("pushing", 3)]  # fmt: skip
    steps = [done_steps(Stage(stage=name, repeat=number, repeats=3, since="")) for name, number in stages]
    assert steps == sorted(steps)
    assert steps[-1] == 3 + progress.STEPS_AROUND
    assert saying(Stage(stage="loading", repeat=2, repeats=3, since="")) == "repeat 2 of 3"
    assert saying(Stage(stage="novel", repeat=0, repeats=3, since="")) == "novel"


def followed(directory: RunDirectory, answers: list[tuple[JobWord, Callable[[], None]]]) -> tuple[JobWord, list[str]]:
    """Follow a job whose squeue gives these answers, one each look; what follows each happens beside it."""
    out = io.StringIO()
    left = iter(answers)

    def ask() -> JobWord:
        word, then = next(left)
        then()
        return word

    with Display(Console(file=out, width=200), total=6) as display:
        return follow_job(directory, ask, display, pace=AT_ONCE), out.getvalue().splitlines()


def nothing() -> None:
    pass


def test_the_reason_the_stage_and_the_end_are_shown(directory: RunDirectory) -> None:
    running = JobWord(state="RUNNING", reason="None")

    def stage(name: str, repeat: int) -> Callable[[], None]:
        return lambda: write_stage(directory.stage_file, name, repeat, 3)

    def end() -> None:
        directory.manifest_file.write_text("{}")
        stage("done", 3)()

    _, lines = followed(
        directory,
        [
            (JobWord(state="PENDING", reason="None"), nothing),
            (JobWord(state="PENDING", reason="Priority"), nothing),
            (JobWord(problem="no answer"), nothing),
            (running, nothing),
            (running, stage("starting", 0)),
            (running, stage("loading", 2)),
            (running, stage("loading", 2)),
            (JobWord(state="PENDING", reason="BeginTime"), nothing),
            (running, end),
        ],
    )
    assert lines == [
        "pending", "pending (Priority)", "squeue does not answer: no answer", "job running",
        "starting server, waiting for health", "repeat 2 of 3", "pending (BeginTime)", "done",
    ]  # fmt: skip


def test_a_job_that_is_over_without_a_manifest_ends_the_waiting(directory: RunDirectory) -> None:
    over = JobWord(state="NODE_FAIL", reason="None")
    word, lines = followed(directory, [(over, nothing)] * 3)
    assert word == over
    assert lines == ["the job is over; waiting for what it wrote"]


def test_a_job_that_comes_back_is_waited_for_again(directory: RunDirectory) -> None:
    """A requeued job is over for a moment."""
    over = JobWord(state="NODE_FAIL", reason="None")
    back = JobWord(state="PENDING", reason="BeginTime")
    _, lines = followed(directory, [(over, nothing), (back, nothing), (over, nothing), (over, nothing)])
    assert lines[1] == "pending (BeginTime)"

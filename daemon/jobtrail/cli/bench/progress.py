"""What a run does now, for somebody who waits: the stage it writes down, and Slurm's word on its job."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from jobtrail.cli.bench.directory import RunDirectory
from jobtrail.cli.bench.manifest import Stage

QUEUED = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
UNDER_WAY = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
GONE = re.compile(r"invalid job id", re.IGNORECASE)
SAYINGS = {
    "starting": "starting server, waiting for health",
    "warming_up": "warm-up",
    "stopping": "stopping",
    "pushing": "handing over the result",
    "done": "done",
}
STEPS_AROUND = 3  # start, warm-up, stop: beside the repeats


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How often to look, and how long to wait for a file of the node's once the job is over; in seconds.

    A shared file system shows it within a minute (nfs(5), acdirmax). Of a job whose log never appeared, it most likely
    never began. A busy slurmctld answers squeue with everybody else's questions waiting.
    """

    poll: float = 0.5
    squeue: float = 5.0
    settle: float = 60.0
    unseen: float = 10.0


PACE = Pace()


class JobWord(msgspec.Struct, frozen=True, kw_only=True):
    """What squeue said: the state and why it waits; no state if the job is gone, the problem if it did not answer."""

    state: str | None = None
    reason: str = ""
    problem: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the job will do nothing more."""
        return self.problem is None and (self.state is None or self.state not in QUEUED | UNDER_WAY)


def ask_squeue(squeue: str, job_id: str, cluster: str | None) -> JobWord:
    """Slurm's word on a job now."""
    words = [squeue, "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T|%r"]
    if cluster is not None:
        words.append(f"--clusters={cluster}")
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return JobWord(problem=str(error))
    if done.returncode != 0 and not GONE.search(done.stderr):
        return JobWord(problem=done.stderr.strip() or f"{squeue} ended with exit code {done.returncode}")
    answers = [line for line in done.stdout.splitlines() if "|" in line]
    if not answers:
        return JobWord()
    state, _, reason = answers[0].partition("|")
    return JobWord(state=state, reason=reason)


def read_stage(directory: RunDirectory) -> Stage | None:
    """What the run wrote last; None before it has begun."""
    try:
        return msgspec.json.decode(directory.stage_file.read_bytes(), type=Stage)
    except (OSError, msgspec.MsgspecError):
        return None


def saying(stage: Stage) -> str:
    """A stage in words."""
    if stage.stage == "loading":
        return f"repeat {stage.repeat} of {stage.repeats}"
    return SAYINGS.get(stage.stage, stage.stage)


def done_steps(stage: Stage) -> int:
    """How many steps lie behind the run, of `repeats` + STEPS_AROUND."""
    before = {"starting": 0, "warming_up": 1, "loading": 1 + stage.repeat, "stopping": 2 + stage.repeats}
    return before.get(stage.stage, STEPS_AROUND + stage.repeats)


class Display:
    """A bar on a terminal; elsewhere a line whenever something changes."""

    def __init__(self, console: Console, *, total: int) -> None:
        self._console = console
        self._last = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("submitted", total=total)

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def show(self, text: str, steps: int = 0) -> None:
        """Say what goes on."""
        self._bar.update(self._task, description=text, completed=steps)
        if text != self._last and not self._console.is_terminal:
            self._console.print(text, markup=False)
        self._last = text


def follow_job(directory: RunDirectory, ask: Callable[[], JobWord], display: Display, *, pace: Pace = PACE) -> JobWord:
    """Show the run until its manifest is there, or its job is over without one. Slurm's last word."""
    word = JobWord(state="PENDING")
    next_question = 0.0
    over_since: float | None = None
    while not is_done(directory):
        now = time.monotonic()
        if now >= next_question:
            word = ask()
            next_question = time.monotonic() + pace.squeue
        if not word.is_over:
            over_since = None
        elif over_since is None:
            over_since = now
        elif now - over_since > (pace.settle if directory.run_log.exists() else pace.unseen):
            break
        _show(display, word, read_stage(directory))
        time.sleep(pace.poll)
    return word


def _show(display: Display, word: JobWord, stage: Stage | None) -> None:
    if stage is not None and word.state not in QUEUED:  # of a requeued job it is that of the earlier start
        display.show(saying(stage), done_steps(stage))
    elif word.problem is not None:
        display.show(f"squeue does not answer: {word.problem}")
    elif word.state in QUEUED:
        why = f" ({word.reason})" if word.reason not in ("", "None") else ""
        display.show(f"{str(word.state).lower()}{why}")
    elif word.is_over:
        display.show("the job is over; waiting for what it wrote")
    else:
        display.show(f"job {str(word.state).lower()}")


def is_done(directory: RunDirectory) -> bool:
    """Whether the run has come to its end and written its report."""
    stage = read_stage(directory)
    return stage is not None and stage.stage == "done" and directory.manifest_file.exists()


def follow_process(directory: RunDirectory, process: subprocess.Popen[bytes], display: Display) -> int:
    """Show a run on this machine until its process has ended; its exit code, or minus the signal that ended it."""
    while True:
        if (stage := read_stage(directory)) is not None:
            display.show(saying(stage), done_steps(stage))
        else:
            display.show("starting")
        try:
            return process.wait(timeout=PACE.poll)
        except subprocess.TimeoutExpired:
            continue


def squeue_beside(sbatch: str) -> str:
    """squeue of the same installation as sbatch."""
    beside = Path(sbatch).with_name("squeue")
    return str(beside) if "/" in sbatch and beside.exists() else "squeue"


def tail(path: Path, lines: int = 15) -> str:
    """The end of a log; empty when there is none."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""

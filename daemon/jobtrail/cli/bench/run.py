"""`jobtrail bench run`: make a run of a recipe, give it to Slurm or start it here, wait for it if asked."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.bench import progress
from jobtrail.cli.bench.catalogue import Json, RecipeName, Setting, assignments, load
from jobtrail.cli.bench.directory import RunDirectory
from jobtrail.cli.bench.manifest import read_manifest
from jobtrail.cli.bench.outcome import as_values, print_outcome
from jobtrail.cli.bench.recipes import refuse
from jobtrail.cli.bench.submit import Submitted, inside_words, script, submission, submit
from jobtrail.cli.output import clean, console, error_console, print_json
from jobtrail.domain.benchmarks.recipe_identity import identify
from jobtrail.domain.benchmarks.report import Status
from jobtrail.domain.benchmarks.summary import summarise
from jobtrail.domain.errors import ConfigError, JobtrailError, SlurmError

BASE = Path("jobtrail-bench")
INTERRUPTED = exit_codes.SIGNALLED + signal.SIGINT
# mountinfo's names of file systems that one machine has for itself (proc(5)); of others nothing is said.
OF_ONE_MACHINE = frozenset({"tmpfs", "ramfs", "overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs"})
SLURM_OPTIONS = ("partition", "account", "qos", "time", "mem")


def run_command(
    context: typer.Context,
    recipe: RecipeName,
    setting: Setting = None,
    local: Annotated[bool, typer.Option("--local", help="run on this machine instead of asking Slurm")] = False,
    wait: Annotated[bool | None, typer.Option("--wait/--no-wait", help="stay until it is over")] = None,
    directory: Annotated[
        Path, typer.Option(metavar="DIR", help="make the run's own directory in this one; the node must see it")
    ] = BASE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would be submitted; do nothing")] = False,
    partition: Annotated[str | None, typer.Option("-p", "--partition", help="Slurm's partition")] = None,
    account: Annotated[str | None, typer.Option("-A", "--account", help="the account that pays")] = None,
    qos: Annotated[str | None, typer.Option(help="quality of service")] = None,
    time: Annotated[str | None, typer.Option("-t", "--time", help="time limit, as sbatch takes it")] = None,
    mem: Annotated[str | None, typer.Option(help="memory a node, as 64G")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="NAME[=VALUE]", help="another long option of sbatch, as constraint=a100"
        ),
    ] = None,
    sbatch: Annotated[str, typer.Option(metavar="PATH", help="which sbatch to call")] = "sbatch",
    as_json: Json = False,
) -> None:
    """Run a recipe as a Slurm job, or here with --local.

    Without --wait it returns when the job is submitted; a local run is always waited for. Ctrl-C while waiting leaves
    the job running.
    """
    settings = assignments(setting)
    given = dict(zip(SLURM_OPTIONS, (partition, account, qos, time, mem), strict=True))
    settings |= {f"resources.{name}": value for name, value in given.items() if value is not None}
    for words in option or []:
        name, _, value = words.lstrip("-").partition("=")
        settings[f"resources.options.{name}"] = value
    if local and wait is False:
        raise refuse(ConfigError("--no-wait", "a local run ends with this command; leave it out, or leave out --local"))
    _, resolved = load(recipe, settings)
    if dry_run:
        shown = RunDirectory(directory.absolute() / f"{resolved.name}-TIME-UID", "UID", resolved, identify(resolved))
        _print_plan(shown, context.obj, sbatch=sbatch, local=local)
        return
    try:
        made = RunDirectory.prepare(directory, resolved, identify(resolved))
    except OSError as error:
        raise refuse(ConfigError(str(directory), f"no directory can be made there: {error.strerror}")) from error
    if local:
        raise typer.Exit(_run_here(made, context.obj, as_json=as_json))
    job = _submit(made, sbatch=sbatch, config=context.obj)
    _announce(made, job, wait=bool(wait), as_json=as_json)
    if wait:
        raise typer.Exit(_wait(made, job, squeue=progress.squeue_beside(sbatch), as_json=as_json))


def _print_plan(directory: RunDirectory, config: Path | None, *, sbatch: str, local: bool) -> None:
    out = console()
    if local:
        out.print(clean(shlex.join(_local_words(directory, config))))
        return
    out.print(clean(shlex.join(submission(directory, sbatch=sbatch))))
    out.print("with this script on its standard input:", style="dim")
    out.print(script(directory, config, os.environ), markup=False, end="")


def _submit(directory: RunDirectory, *, sbatch: str, config: Path | None) -> Submitted:
    if (kind := _file_system(directory.path)) in OF_ONE_MACHINE:
        error_console().print(
            f"{directory.path} is on a file system of type {kind}: see to it that the node sees the same directory",
            style="yellow",
            markup=False,
        )
    try:
        job = submit(directory, sbatch=sbatch, config=config, environ=os.environ)
    except SlurmError as error:
        shutil.rmtree(directory.path)  # nothing ran: it holds the recipe alone
        error_console().print(f"jobtrail bench run: {error}", style="red", markup=False)
        raise typer.Exit(exit_codes.FAILED) from error
    directory.note_job(job.job_id, job.cluster)
    return job


def _file_system(path: Path) -> str | None:
    """The type of file system a path is on, by /proc/self/mountinfo (proc(5)); None where that cannot be told."""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    real, best, kind = str(path.resolve()), "", None
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4]
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two mounts on one point the later one is seen
            best, kind = point, after.split(" ")[0]
    return kind


def _announce(directory: RunDirectory, job: Submitted, *, wait: bool, as_json: bool) -> None:
    if as_json:
        if not wait:
            values = {"run_uid": directory.run_uid, "job_id": f"slurm-{job.job_id}", "cluster": job.cluster}
            print_json({**values, "directory": str(directory.path), "sha256": directory.identity.sha256})
        return
    out = console()
    out.print(clean(f"job {job.job_id} of run {directory.run_uid}"))
    out.print(clean(f"directory {directory.path}"))
    if not wait:
        out.print(clean(f"its log: {directory.run_log}"), style="dim")
        out.print(clean(f"its result, when it is over: jobtrail bench result {directory.run_uid}"), style="dim")


def _wait(directory: RunDirectory, job: Submitted, *, squeue: str, as_json: bool) -> int:
    total = directory.recipe.measure.repeats + progress.STEPS_AROUND
    screen = error_console() if as_json else console()
    try:
        with progress.Display(screen, total=total) as display:
            word = progress.follow_job(directory, lambda: progress.ask_squeue(squeue, job.job_id, job.cluster), display)
    except KeyboardInterrupt:
        where = f"log: {directory.run_log}; to end it: scancel {job.job_id}"
        error_console().print(f"job {job.job_id} goes on; {where}", style="yellow", markup=False)
        return INTERRUPTED
    how = f"job {job.job_id} is over" + (f" ({word.state})" if word.state is not None and word.is_over else "")
    return _conclude(directory, how, as_json=as_json)


def _conclude(directory: RunDirectory, how: str, *, as_json: bool) -> int:
    """Show the manifest; exit code 0 for results that can be used."""
    if not progress.is_done(directory):  # it was killed: Slurm may know why
        error_console().print(how, style="yellow", markup=False)
    try:
        report = read_manifest(directory.manifest_file)
    except FileNotFoundError:
        return _without_manifest(directory, how, as_json=as_json)
    except (OSError, JobtrailError) as error:
        error_console().print(f"jobtrail bench run: {error}", style="red", markup=False)
        return exit_codes.FAILED
    if as_json:
        print_json(as_values(report, directory, _unreported(directory)))
    else:
        print_outcome(console(), report, directory)
    if (why := _unreported(directory)) is not None:
        later = f"report it later with: jobtrail bench push {directory.path}"
        error_console().print(clean(f"not recorded: {why}; {later}"), style="yellow")
    return exit_codes.OK if summarise(report).status is Status.OK else exit_codes.FAILED


def _unreported(directory: RunDirectory) -> str | None:
    stage = progress.read_stage(directory)
    return None if stage is None else stage.unreported


def _without_manifest(directory: RunDirectory, how: str, *, as_json: bool) -> int:
    reason = f"{how}, and it left no manifest: it never began, or {directory.path} is not what the node sees"
    if as_json:
        values: dict[str, Any] = {"run_uid": directory.run_uid, "status": Status.FAILED.value, "reason": reason}
        print_json({**values, "directory": str(directory.path)})
    error_console().print(
        f"it left no manifest: it never began, or {directory.path} is not what the node sees", style="red", markup=False
    )
    if last := progress.tail(directory.run_log):
        error_console().print(f"the end of {directory.run_log}:\n{last}", style="dim", markup=False)
    return exit_codes.FAILED


def _local_words(directory: RunDirectory, config: Path | None) -> list[str]:
    """`jobtrail exec` makes it a local job of the daemon that answers, and runs it as well without one."""
    named = [] if config is None else ["--config", str(config.absolute())]
    inside = inside_words(directory, config)
    name = f"bench-{directory.recipe.name}"
    return [sys.executable, "-m", "jobtrail", *named, "exec", "--name", name, "--", *inside]


def _local_environment() -> dict[str, str]:
    """As in a job: behind what the user has, programs installed beside this Python, such as vllm, are found."""
    places = (os.environ.get("PATH"), str(Path(sys.executable).parent))
    return {**os.environ, "PATH": os.pathsep.join(filter(None, places))}


def _run_here(directory: RunDirectory, config: Path | None, *, as_json: bool) -> int:
    screen = error_console() if as_json else console()
    screen.print(clean(f"run {directory.run_uid} in {directory.path}"))
    total = directory.recipe.measure.repeats + progress.STEPS_AROUND
    with directory.run_log.open("ab") as log:
        process = subprocess.Popen(
            _local_words(directory, config), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env=_local_environment(),
        )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        with progress.Display(screen, total=total) as display:
            code = progress.follow_process(directory, process, display)
    except KeyboardInterrupt:
        screen.print("stopping: it ends its server and writes down how far it came", markup=False)
        process.terminate()  # a terminal has told it as well, and it minds the first signal only
        code = process.wait()
    return _conclude(directory, f"the run ended with exit code {code}", as_json=as_json)

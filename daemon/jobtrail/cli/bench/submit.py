"""Handing a run to Slurm: sbatch's words, the script it is given, and what it answered."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from jobtrail.cli.bench.directory import RunDirectory
from jobtrail.domain.benchmarks.recipe import Resources
from jobtrail.domain.errors import SlurmError

NOTICE_SECONDS = 60  # before the time limit: to stop the server and write down how far the run came
ANSWER = re.compile(r"(?P<job>[0-9]+)(?:;(?P<cluster>\S+))?")


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """The job that sbatch made; the cluster is named where it was asked for one."""

    job_id: str
    cluster: str | None = None


def submission(directory: RunDirectory, *, sbatch: str) -> list[str]:
    """sbatch's words. The script is on its standard input."""
    resources = directory.recipe.resources
    # In the name of a file, sbatch replaces % and what follows; %% is one % (sbatch(1), filename pattern).
    log = str(directory.run_log).replace("%", "%%")
    words = [sbatch, "--parsable", f"--job-name=bench-{directory.recipe.name}", f"--output={log}", "--open-mode=append"]
    options: dict[str, str | None] = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "nodes": str(resources.nodes),
        "ntasks-per-node": "1",
        "gpus-per-node": str(resources.gpus_per_node) if resources.gpus_per_node else None,
        "cpus-per-task": None if resources.cpus_per_task is None else str(resources.cpus_per_task),
        "mem": resources.mem,
        "time": resources.time,
        # The script's process gets it, not the server's: that one is stopped in order.
        "signal": f"B:TERM@{notice_seconds(resources)}",
        "export": "ALL",  # SBATCH_EXPORT may say else, and the server needs PATH, caches and tokens
    }
    for name, value in {**options, **resources.options}.items():
        if value is not None:
            words.append(f"--{name}={value}" if value else f"--{name}")
    return words


def notice_seconds(resources: Resources) -> int:
    """How long before its time limit the job is told; of a short job a tenth of its time."""
    limit = seconds_of(resources.time)
    return NOTICE_SECONDS if limit is None else max(1, min(NOTICE_SECONDS, limit // 10))


def seconds_of(time: str | None) -> int | None:
    """Seconds of a time limit as sbatch(1) takes it; None without a limit."""
    if time is None or not time[0].isdigit():
        return None
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return int(days) * 86_400 + hours * 3600 + minutes * 60 + seconds
    if len(parts) == 3:
        return parts[0] * 3600 + parts[1] * 60 + parts[2]
    minutes, seconds = (*parts, 0)[:2]
    return minutes * 60 + seconds


def inside_words(directory: RunDirectory, config: Path | None) -> list[str]:
    """What runs the benchmark: this very Python."""
    named = [] if config is None else ["--config", str(config.absolute())]
    return [sys.executable, "-m", "jobtrail", *named, "bench", "inside", str(directory.path)]


def script(directory: RunDirectory, config: Path | None, environ: Mapping[str, str]) -> str:
    """The job's script. It becomes the wrapper, so that signals reach that and no shell."""
    lines = ["#!/bin/sh"]
    if (path := environ.get("PYTHONPATH")) is not None:
        absolute = os.pathsep.join(os.path.abspath(part) for part in path.split(os.pathsep) if part)  # noqa: PTH100
        lines += [f"PYTHONPATH={shlex.quote(absolute)}", "export PYTHONPATH"]
    # Behind what the user has: programs installed beside this Python, such as vllm, are found all the same.
    lines += [f'PATH="$PATH":{shlex.quote(str(Path(sys.executable).parent))}', "export PATH"]
    return "\n".join([*lines, f"exec {shlex.join(inside_words(directory, config))}", ""])


def submit(directory: RunDirectory, *, sbatch: str, config: Path | None, environ: Mapping[str, str]) -> Submitted:
    """Submit the run. Raises SlurmError with sbatch's own words."""
    words = submission(directory, sbatch=sbatch)
    text = script(directory, config, environ)
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as error:
        raise SlurmError(
            f"{sbatch}: no such program; name it with --sbatch, or run the benchmark on this machine with --local"
        ) from error
    except OSError as error:
        raise SlurmError(f"{sbatch}: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or "it said nothing"
        raise SlurmError(f"{sbatch} refused the job with exit code {done.returncode}: {said}")
    lines = done.stdout.split()
    answer = ANSWER.fullmatch(lines[-1]) if lines else None
    if answer is None:
        raise SlurmError(f"{sbatch} answered {done.stdout.strip()!r}, not a job id")
    return Submitted(job_id=answer["job"], cluster=answer["cluster"])

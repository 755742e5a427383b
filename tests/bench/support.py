"""Runs the wrapper as a real process, with a daemon's socket that answers as a test says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from jobtrail.cli.bench.directory import RunDirectory
from jobtrail.domain.benchmarks.recipe import Measure, Model, Ready, Recipe, Server, Workload
from jobtrail.domain.benchmarks.recipe_identity import identify
from jobtrail.domain.benchmarks.report import BenchmarkReport, Mode
from jobtrail.domain.benchmarks.submitted import read_report
from tests.daemon_process import REPOSITORY, wait_until

OUTCOME_SECONDS = 180.0  # nothing is measured by it
PROGRAM = str(REPOSITORY / "tests" / "bench_programs" / "vllm_like.py")
JOB = {"SLURM_JOB_ID": "42", "SLURM_CLUSTER_NAME": "lab", "SLURM_RESTART_COUNT": "0", "SLURM_JOB_NODELIST": "n1"}


def recipe(state: Path, *, repeats: int = 1, warmups: int = 0, timeout_s: int = 120, **environment: str) -> Recipe:
    """A recipe of mode serve that runs the program that is like vLLM."""
    return Recipe(
        name="tiny-chat",
        mode=Mode.SERVE,
        model=Model(id="tiny"),
        environment={"STATE": str(state), **environment},
        server=Server(
            command=(sys.executable, PROGRAM, "serve"), args={"dtype": "float32"}, ready=Ready(timeout_s=timeout_s)
        ),
        workload=Workload(input_len=4, output_len=8, num_prompts=6, warmups=warmups),
        measure=Measure(repeats=repeats),
    )


class Receiver:
    """What a daemon's socket is asked, and what it answers: each of `statuses` once, the last one for ever."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.statuses = [201]
        self.reports: list[BenchmarkReport] = []
        self.event_ids: list[str] = []
        self.looks: list[str] = []
        self.stall: asyncio.Event | None = None
        self.on_look: Callable[[], None] = lambda: None

    async def report(self, request: web.Request) -> web.Response:
        """POST /v1/benchmarks/runs: what it takes, the real daemon would take."""
        body = await request.read()
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if self.stall is not None:
            await self.stall.wait()
        self.event_ids.append(request.headers["Jobtrail-Event-Id"])
        if status < 300:
            self.reports.append(read_report(body, now_us=time.time_ns() // 1000))
        return web.json_response({"message": f"as told: {status}"}, status=status)

    async def look(self, request: web.Request) -> web.Response:
        """POST /v1/jobs/{id}/look."""
        self.looks.append(request.match_info["id"])
        self.on_look()
        return web.json_response({})


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens; where its socket's path is short enough for one (unix(7))."""
    directory = tempfile.TemporaryDirectory(prefix="jobtrail-")
    receiver = Receiver(Path(directory.name) / "poke.sock")
    application = web.Application()
    application.router.add_post("/v1/benchmarks/runs", receiver.report)
    application.router.add_post("/v1/jobs/{id}/look", receiver.look)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(receiver.socket)).start()
    try:
        yield receiver
    finally:
        if receiver.stall is not None:
            receiver.stall.set()
        await runner.cleanup()
        directory.cleanup()


def prepared(base: Path, wanted: Recipe) -> RunDirectory:
    """The directory of a new run."""
    return RunDirectory.prepare(base, wanted, identify(wanted))


def environment(**more: str) -> dict[str, str]:
    """Without what a job around the tests, or a daemon on this machine, would put in."""
    prefixes = ("JOBTRAIL_", "SLURM_", "CUDA_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    kept.update(PYTHONPATH=str(REPOSITORY / "daemon"), JOBTRAIL_POKE_SOCKET="/nonexistent/poke.sock")
    return {**kept, **more}


async def jobtrail(*arguments: str, **variables: str) -> asyncio.subprocess.Process:
    """Start a `jobtrail` command."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobtrail", *arguments, env=environment(**variables),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


async def outcome(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Exit code and what it printed."""
    printed, _ = await asyncio.wait_for(process.communicate(), OUTCOME_SECONDS)
    assert process.returncode is not None
    return process.returncode, printed.decode()


async def inside(directory: RunDirectory, **variables: str) -> tuple[int, str]:
    """`jobtrail bench inside` to its end; with a daemon that takes its report, unless the test names another."""
    if "JOBTRAIL_POKE_SOCKET" in variables:
        return await outcome(await jobtrail("bench", "inside", str(directory.path), **variables))
    async with receiving() as daemon:
        return await inside(directory, JOBTRAIL_POKE_SOCKET=str(daemon.socket), **variables)


def manifest(directory: RunDirectory) -> BenchmarkReport:
    """What the directory's manifest says; as strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = directory.manifest_file.read_text(encoding="utf-8")
    json.loads(text, parse_constant=refuse)
    return msgspec.json.decode(text, type=BenchmarkReport)


async def appears(path: Path) -> str:
    """The content of a file that a process will write."""
    await asyncio.to_thread(wait_until, path.exists, f"{path} to be written")
    return path.read_text(encoding="utf-8")


def is_gone(pid: int) -> bool:
    """Whether no such process is left."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"


def pids(state: Path) -> list[int]:
    """Of the server and its engine."""
    return [int((state / f"{name}.pid").read_text()) for name in ("server", "engine")]


async def all_gone(processes: list[int]) -> None:
    """Wait until they are."""
    await asyncio.to_thread(wait_until, lambda: all(is_gone(pid) for pid in processes), f"{processes} to be gone")


def options_of(state: Path, seed: int) -> dict[str, Any]:
    """The options with which the load of this seed was started."""
    found: dict[str, Any] = json.loads((state / f"load-{seed}.json").read_text(encoding="utf-8"))
    return found


def send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """A signal to the wrapper alone."""
    process.send_signal(number)

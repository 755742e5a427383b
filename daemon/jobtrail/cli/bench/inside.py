"""`jobtrail bench inside DIRECTORY`: run a prepared benchmark, here and now. `bench run` starts it in the job."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.bench import interruption
from jobtrail.cli.bench.directory import RunDirectory
from jobtrail.cli.bench.load import can_warm_up, server_of, vllm_program
from jobtrail.cli.bench.machine import hardware, job_claim
from jobtrail.cli.bench.manifest import Record, now_us, read_manifest, write_manifest, write_stage
from jobtrail.cli.bench.push import Places, deliver, places_of_node
from jobtrail.cli.bench.push import places as places_of
from jobtrail.cli.bench.repeats import Loads, program_version
from jobtrail.cli.bench.server import RunFailed, RunningServer, start_server
from jobtrail.cli.output import error_console
from jobtrail.config import Config
from jobtrail.domain.benchmarks.report import BenchmarkReport, Role, Status
from jobtrail.domain.errors import ConfigError, JobtrailError

PATIENCE_WHEN_STOPPED_SECONDS = 6.0  # within what Slurm leaves between its SIGTERM and its SIGKILL
EARLIER_PATIENCE_SECONDS = 2.0


def inside_command(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="as `jobtrail bench run` prepared it")],
) -> None:
    """Run a prepared benchmark here; exit with 0 if its results can be used."""
    try:
        code = run_inside(directory, context.obj)
    except (JobtrailError, OSError) as error:
        error_console().print(f"jobtrail bench inside: {error}", style="red", markup=False)
        raise typer.Exit(exit_codes.USAGE) from error
    raise typer.Exit(code)


def run_inside(directory: Path, config_path: Path | None = None) -> int:
    """Run the benchmark, keep its manifest, report it as the settings say: 0, or 1 if its results cannot be used.

    Raises ConfigError or OSError when the directory is not that of a run, or cannot be written to.
    """
    try:
        places = places_of_node(config_path, os.environ)
    except ConfigError as error:  # of the daemon, not of the benchmark: it is run all the same
        typer.echo(f"jobtrail: {error}; taking the default settings")
        places = places_of(Config(), os.environ)
    return asyncio.run(InsideRun(RunDirectory.open(directory), places, os.environ).run())


class InsideRun:
    """One run. Whatever happens to this process, the manifest says what became of the run so far."""

    def __init__(self, directory: RunDirectory, places: Places, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._recipe = directory.recipe
        self._environment = environment
        self._places = places
        self._interrupted: str | None = None
        self._doing = "before it began"
        self._repeat = 0
        self._unreported: str | None = None
        self._earlier = self._put_aside()
        self._record = Record(
            run_uid=self._run_uid(), recipe=self._recipe, identity=directory.identity, started_us=now_us()
        )
        claim = job_claim(environment, Role.BOTH)
        self._record.jobs = (claim,) if claim is not None else ()

    def _put_aside(self) -> list[Path]:
        """The manifests of earlier starts: a requeued job runs its script again, in the same directory."""
        earlier = sorted(self._directory.path.glob("manifest-*.json"))
        manifest = self._directory.manifest_file
        if manifest.exists():
            kept = manifest.with_name(f"manifest-{len(earlier) + 1}.json")
            manifest.rename(kept)
            earlier.append(kept)
        return earlier

    def _run_uid(self) -> str:
        """That of the directory; a later start is another run, so that neither hides the other."""
        starts = len(self._earlier)
        first = self._directory.run_uid
        return first if not starts else str(uuid.uuid5(uuid.UUID(first), f"start {starts + 1}"))

    async def run(self) -> int:
        """The whole of it, to the report."""
        self._keep(Status.FAILED, self._cut_off())
        work = asyncio.ensure_future(self._judged())
        loop = asyncio.get_running_loop()
        for number in interruption.SIGNALS:
            loop.add_signal_handler(number, self._interrupt, number, work)
        try:
            status, reason = await work
        except asyncio.CancelledError:
            if self._interrupted is None:
                raise
            status, reason = Status.FAILED, self._interrupted
        finally:
            if (error := sys.exc_info()[1]) is not None:
                self._keep(Status.FAILED, f"was cut off {self._doing}: {type(error).__name__}: {error}")
        report = self._keep(status, reason, with_files=True)
        await self._report(report)
        self._say("done", f"{status.value}" + (f": {reason}" if reason else ""))
        return exit_codes.OK if status is Status.OK else exit_codes.FAILED

    def _interrupt(self, number: int, work: asyncio.Future[tuple[Status, str | None]]) -> None:
        """Put the reason on the disk before anything else: what sent the signal may kill before long."""
        if self._interrupted is not None or work.done():
            return
        reason = interruption.why(number, self._environment, now_seconds=time.time())
        self._interrupted = f"{reason} {self._doing}"
        work.cancel()  # which takes effect when this returns
        self._keep(Status.FAILED, self._interrupted)

    async def _judged(self) -> tuple[Status, str | None]:
        try:
            await self._benchmark()
        except (RunFailed, OSError) as error:
            return Status.FAILED, str(error)
        results = [repeat.result for repeat in self._record.repeats if repeat.result is not None]
        for number, result in enumerate(results, 1):
            if result.invalid_reason is not None:
                which = f"repeat {number} of {len(results)}: " if len(results) > 1 else ""
                return Status.INVALID, which + result.invalid_reason
        return Status.OK, None

    async def _benchmark(self) -> None:
        self._record.hardware = await asyncio.to_thread(hardware, self._environment)
        environment = {**self._environment, **self._recipe.environment}
        spec = server_of(self._recipe)
        server: RunningServer | None = None
        if spec is not None:
            self._say("starting", "starting the server")
            server = await start_server(self._recipe, spec, log=self._directory.server_log, environment=environment)
        try:
            await self._load(server, environment)
        finally:
            if server is not None:
                self._say("stopping", "stopping the server")
                await server.stop()

    async def _load(self, server: RunningServer | None, environment: Mapping[str, str]) -> None:
        loads = Loads(self._directory, self._record, server, environment, self._places)
        if server is not None:
            self._record.server_version = await server.version()
        elif (program := vllm_program(self._recipe)) is not None:
            self._say("starting", "asking the tool for its version")
            log = self._directory.path / "version.log"
            self._record.tool_version = await program_version(program, log, environment)
        if can_warm_up(self._recipe):
            self._say("warming_up", "warming up")
            await loads.warm_up()
        for number in range(1, self._recipe.measure.repeats + 1):
            self._repeat = number
            self._say("loading", f"load {number} of {self._recipe.measure.repeats}")
            await loads.repeat(number)

    def _say(self, stage: str, text: str) -> None:
        """Tell whoever waits, and bring the manifest up to date."""
        self._doing = f"while {text}" if stage != "done" else ""
        if stage == "loading":
            self._doing = f"during {text}"
        typer.echo(f"jobtrail: {text}")
        path, repeats = self._directory.stage_file, self._recipe.measure.repeats
        with self._writing():
            write_stage(path, stage, self._repeat, repeats, unreported=self._unreported)
        if stage in ("starting", "warming_up", "loading"):
            self._keep(Status.FAILED, self._cut_off())

    def _cut_off(self) -> str:
        return f"was cut off {self._doing}: the wrapper was killed"

    def _keep(self, status: Status, reason: str | None, *, with_files: bool = False) -> BenchmarkReport:
        report = self._report_now(status, reason, with_files=with_files)
        with self._writing():
            write_manifest(self._directory.manifest_file, report)
        return report

    def _report_now(self, status: Status, reason: str | None, *, with_files: bool = False) -> BenchmarkReport:
        return self._record.report(status, reason, now_us=now_us(), files=self._files() if with_files else ())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A run goes on, and is reported, when its directory takes no more."""
        try:
            yield
        except OSError as error:
            typer.echo(f"jobtrail: cannot write to {self._directory.path}: {error.strerror}")

    def _files(self) -> list[Path]:
        directory = self._directory
        numbers = range(self._recipe.measure.repeats + 1)
        results = [directory.result_file(number) for number in numbers]
        logs = [directory.server_log, *(directory.load_log(number) for number in numbers)]
        return [path for path in (*results, *logs) if path.is_file()]

    async def _report(self, report: BenchmarkReport) -> None:
        self._say("pushing", "reporting")
        patience = {"patience_seconds": PATIENCE_WHEN_STOPPED_SECONDS} if self._interrupted else {}
        delivery = await deliver(report, self._places, **patience)
        typer.echo(f"jobtrail: run {report.run_uid} {delivery.detail}")
        if not delivery.is_safe:
            self._unreported = delivery.detail
            typer.echo(f"jobtrail: report it later with: jobtrail bench push {self._directory.path}")
            return
        for path in self._earlier:
            await deliver(read_manifest(path), self._places, patience_seconds=EARLIER_PATIENCE_SECONDS)

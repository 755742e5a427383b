"""The record of a run as it goes, and the manifest that holds it on disk whatever becomes of the run."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from jobtrail.cli.bench.load import vllm_program
from jobtrail.domain.benchmarks.recipe import Argument, Recipe
from jobtrail.domain.benchmarks.report import (
    BenchmarkReport,
    Hardware,
    JobClaim,
    Mode,
    RecipeIdentity,
    Repeat,
    ResultFile,
    Status,
)
from jobtrail.domain.errors import ConfigError

DECISIVE = ("dtype", "quantization", "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
_PIECE = 1 << 20


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What the run does now, for whoever waits for it: stage.json. `repeat` is 0 before the first load.

    `stage` is starting, warming_up, loading, stopping, pushing or done; `since` is RFC 3339. `unreported` is why the
    daemon does not have the report of a run that is done.
    """

    stage: str
    repeat: int
    repeats: int
    since: str
    unreported: str | None = None


class Record:
    """Collects what is known of a run. Times are µs since the Unix epoch."""

    def __init__(self, *, run_uid: str, recipe: Recipe, identity: RecipeIdentity, started_us: int) -> None:
        self.run_uid = run_uid
        self.recipe = recipe
        self.identity = identity
        self.started_us = started_us
        self.hardware = Hardware()
        self.jobs: tuple[JobClaim, ...] = ()
        self.repeats: list[Repeat] = []
        self.argv: tuple[str, ...] = ()
        self.server_version: str | None = None
        self.tool_version: str | None = None
        self.server_output_tokens: int | None = None
        self.parameters = decisive_parameters(recipe)

    def report(self, status: Status, reason: str | None, *, now_us: int, files: Sequence[Path] = ()) -> BenchmarkReport:
        """The report as of now."""
        result = next((repeat.result for repeat in self.repeats if repeat.result is not None), None)
        # Of a run that failed before its first result, the tool is what its recipe calls.
        tool = result.tool if result is not None else ("vllm" if vllm_program(self.recipe) is not None else None)
        version = self.tool_version or (result.tool_version if result is not None else None)
        parameters = dict(self.parameters)
        if self.server_version is not None:
            if tool in (None, "vllm"):
                version = self.server_version
            else:
                parameters["server_version"] = self.server_version
        return BenchmarkReport(
            run_uid=self.run_uid,
            mode=self.recipe.mode,
            status=status,
            reason=reason,
            # By the clock, which may have been set back between two repeats, not by their order.
            started_us=min((repeat.started_us for repeat in self.repeats), default=self.started_us),
            ended_us=max((repeat.ended_us for repeat in self.repeats), default=max(now_us, self.started_us)),
            recipe=self.identity,
            tool=tool,
            tool_version=version,
            model=self.recipe.model.id,
            model_revision=self.recipe.model.revision,
            parameters=parameters,
            hardware=self.hardware,
            jobs=self.jobs,
            repeats=tuple(self.repeats),
            argv=self.argv,
            files=tuple(file for path in files if (file := _described(path)) is not None),
            server_output_tokens=self.server_output_tokens,
        )


def now_us() -> int:
    """µs since the Unix epoch."""
    return time.time_ns() // 1000


def decisive_parameters(recipe: Recipe) -> dict[str, str]:
    """What decides the speed beside recipe and hardware, by the name of its option with underscores."""
    serves = recipe.mode is Mode.SERVE and recipe.server is not None
    options = recipe.server.args if serves and recipe.server is not None else recipe.workload.args
    normal: dict[str, Argument] = {name.replace("_", "-"): value for name, value in options.items()}
    return {name.replace("-", "_"): str(normal[name]) for name in DECISIVE if normal.get(name) is not None}


def described(path: Path) -> ResultFile:
    """Name, size and hash of a file. Raises OSError."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return ResultFile(name=path.name, sha256=digest.hexdigest(), size_bytes=size)


def _described(path: Path) -> ResultFile | None:
    """None of a file that cannot be read: the numbers are on record without it."""
    try:
        return described(path)
    except OSError:
        return None


def read_manifest(path: Path) -> BenchmarkReport:
    """The report that a manifest holds. Raises OSError, or ConfigError when it holds none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=BenchmarkReport)
    except msgspec.MsgspecError as error:
        raise ConfigError(str(path), f"not the manifest of a run: {error}") from error


def write_manifest(path: Path, report: BenchmarkReport) -> None:
    """Write it so that there is, at any moment and after a power cut, a whole one. Raises OSError."""
    write_durably(path, msgspec.json.format(report_body(report), indent=2) + b"\n")


def write_stage(path: Path, stage: str, repeat: int, repeats: int, *, unreported: str | None = None) -> None:
    """Say what the run does now. Raises OSError."""
    since = datetime.now(UTC).isoformat(timespec="milliseconds")
    now = Stage(stage=stage, repeat=repeat, repeats=repeats, since=since, unreported=unreported)
    write_durably(path, msgspec.json.encode(now) + b"\n")


def report_body(report: BenchmarkReport) -> bytes:
    """The bytes that are sent. Numbers that JSON does not know become null."""
    return msgspec.json.encode(report)


def write_durably(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a temporary file, flush it to the disk, give it its name, flush that too. `mode` is what it gets whatever
    the umask is. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # one that may be written to and not read, as a drop directory
        return
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

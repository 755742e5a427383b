"""`jobtrail bench push` and `jobtrail bench import`: runs and results that are to be on record."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from jobtrail.adapters.benchmark_files import read_results
from jobtrail.cli import exit_codes
from jobtrail.cli.bench.foreign import BY, JOB_FORMS, Brought, Said, bring, job_id_of
from jobtrail.cli.bench.manifest import now_us, read_manifest, report_body
from jobtrail.cli.bench.push import Delivery, Fate, Places, deliver, places_of_node
from jobtrail.cli.output import clean, console, error_console, from_us, print_json
from jobtrail.cli.times import moment as parse_moment
from jobtrail.domain.benchmarks.report import BenchmarkReport, LinkSource, Role
from jobtrail.domain.benchmarks.submitted import read_report
from jobtrail.domain.errors import ConfigError, InvalidEvent, UnknownResult

MANIFESTS = "manifest*.json"
NOT_RESULTS = frozenset({"recipe.json", "run.json", "stage.json"})  # that lie in a run's directory too
SUFFIXES = frozenset({".json", ".jsonl"})
LOADGEN = "mlperf_log_detail.txt"
PATIENCE_SECONDS = 20.0
MAX_FILE_BYTES = 1 << 30
MANY = 10  # files, from which on a bar is shown

Json = Annotated[bool, typer.Option("--json", help="print JSON")]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one run, or of a file that holds none."""

    file: str
    fate: str  # as of a delivery, or unreadable, or would be sent
    detail: str
    run_uid: str | None = None
    job_id: str | None = None
    job_source: str | None = None
    status: str | None = None
    model: str | None = None
    started_at: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_well(self) -> bool:
        """Whether it is as it was wanted."""
        return self.fate in (Fate.RECORDED, Fate.KNOWN, Fate.DROPPED, WOULD_BE_SENT)


WOULD_BE_SENT = "would be sent"
UNREADABLE = "unreadable"


class Sender:
    """Sends reports one after the other. When nobody took one for as long as is waited, the next are tried once each:
    of many files, each would wait as long for the same daemon."""

    def __init__(self, places: Places, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.places = places
        self._patience_seconds = patience_seconds
        self._waits = True

    def send(self, report: BenchmarkReport) -> Delivery:
        """What became of it."""
        patience = self._patience_seconds if self._waits else 0.0
        delivery = asyncio.run(deliver(report, self.places, patience_seconds=patience))
        self._waits = delivery.fate not in (Fate.UNREACHED, Fate.DROPPED)
        return delivery


def push_command(
    context: typer.Context,
    directories: Annotated[list[Path], typer.Argument(metavar="DIR…", help="of runs, as `bench run` made them")],
    as_json: Json = False,
) -> None:
    """Report runs again that did not reach the daemon.

    A run that it knows stays as it is.
    """
    to = Sender(_places(context))
    outcomes: list[Outcome] = []
    for directory in directories:
        manifests = sorted(directory.glob(MANIFESTS))
        if not manifests:
            detail = "holds no manifest.json; `jobtrail bench import` brings in results without one"
            if not directory.is_dir():
                detail = "no such directory" if not directory.exists() else "not a directory"
            outcomes.append(Outcome(file=str(directory), fate=UNREADABLE, detail=detail))
        outcomes += [_send_manifest(path, to, dry_run=False) for path in manifests]
    _finish(outcomes, as_json=as_json)


def import_command(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|DIR…", help="results of tools, or directories of them")],
    recipe: Annotated[str | None, typer.Option(help="the name under which they are compared")] = None,
    model: Annotated[str | None, typer.Option(help="the model, where the file does not say it rightly")] = None,
    tool: Annotated[str | None, typer.Option(help="take only results of this tool: vllm, aiperf, guidellm, …")] = None,
    job: Annotated[str | None, typer.Option(metavar="JOB", help="the job they are of: slurm-123")] = None,
    cluster: Annotated[str | None, typer.Option(help="the job's cluster")] = None,
    role: Annotated[Role, typer.Option(help="what the job did")] = Role.BOTH,
    started: Annotated[str | None, typer.Option(help="when they began, as 2026-11-21T08:00")] = None,
    ended: Annotated[str | None, typer.Option(help="when they ended")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be recorded; send nothing")] = False,
    as_json: Json = False,
) -> None:
    """Bring in results that were measured without `bench run`.

    What is known already stays as it is. Of which job a result is says the run's manifest beside it, else the file,
    else a directory above it named like the job, else --job.
    """
    job_id = None if job is None else job_id_of(job)
    if job is not None and job_id is None:
        raise typer.BadParameter(f"{job!r} is no job: {JOB_FORMS}", param_hint="--job")
    said = Said(
        recipe=recipe,
        model=model,
        tool=tool,
        job_id=job_id,
        cluster=cluster,
        role=role,
        started=parse_moment(started, "--started"),
        ended=parse_moment(ended, "--ended"),
    )
    to = Sender(_places(context))
    files = list(_found(paths))
    reported: set[Path] = set()
    outcomes = [one for path in _shown(files) for one in _import(path, said, to, reported, dry_run=dry_run)]
    if not files:
        where = ", ".join(map(str, paths))
        outcomes.append(Outcome(file=where, fate=UNREADABLE, detail=f"holds no *.json, *.jsonl or {LOADGEN}"))
    _finish(outcomes, as_json=as_json)


def _places(context: typer.Context) -> Places:
    try:
        return places_of_node(context.obj, os.environ)
    except ConfigError as error:
        error_console().print(f"jobtrail: {error}", style="red", markup=False)
        raise typer.Exit(exit_codes.USAGE) from error


def _found(paths: Sequence[Path]) -> Iterator[Path]:
    """The files named, and those of the directories named that can be results. A manifest speaks for those it lists."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for directory, _, names in os.walk(path):
            yield from sorted(Path(directory, name) for name in names if _may_be_result(name))


def _may_be_result(name: str) -> bool:
    if name.startswith(".") or name in NOT_RESULTS or name.endswith(".pytorch.json"):
        return False
    return name == LOADGEN or Path(name).suffix in SUFFIXES


def _shown(files: Sequence[Path]) -> Iterator[Path]:
    """The files, with a bar on a terminal if there are many."""
    from rich.progress import track

    err = error_console()
    yield from track(files, "importing", console=err, disable=len(files) < MANY or not err.is_terminal, transient=True)


def _import(path: Path, said: Said, to: Sender, reported: set[Path], *, dry_run: bool) -> Iterator[Outcome]:
    """Send what a file holds. A result that a manifest beside it lists is reported by that manifest, once."""
    try:
        manifest = path if _is_manifest(path) else None
        if manifest is None:
            content = _content(path)
            manifest = _manifest_of(path, hashlib.sha256(content).hexdigest())
        if manifest is not None:
            if manifest.resolve() not in reported:
                reported.add(manifest.resolve())
                yield _send_manifest(manifest, to, dry_run=dry_run)
            return
        results = read_results(path.name, content)
        brought = [bring(one, path, said) for one in results]
    except (UnknownResult, ConfigError) as error:
        yield Outcome(file=str(path), fate=UNREADABLE, detail=str(error).removeprefix(f"{path.name}: "))
        return
    except OSError as error:
        yield Outcome(file=str(path), fate=UNREADABLE, detail=f"cannot be read: {error.strerror}")
        return
    for one in brought:
        yield _send(path, one, to, dry_run=dry_run)


def _content(path: Path) -> bytes:
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise UnknownResult(path.name, f"is {size} bytes long; no tool writes results above {MAX_FILE_BYTES}")
    return path.read_bytes()


def _is_manifest(path: Path) -> bool:
    return path.match(MANIFESTS) and path.is_file()


def _manifest_of(path: Path, sha256: str) -> Path | None:
    """The manifest beside a result that is one of its run. Raises ConfigError where there is one that is broken."""
    for manifest in sorted(path.parent.glob(MANIFESTS)):
        report = read_manifest(manifest)
        if any(file.sha256 == sha256 for file in report.files):
            return manifest
    return None


def _send_manifest(path: Path, to: Sender, *, dry_run: bool) -> Outcome:
    try:
        report = read_manifest(path)
    except (ConfigError, OSError) as error:
        return Outcome(file=str(path), fate=UNREADABLE, detail=str(error))
    return _send(path, Brought(report=report), to, dry_run=dry_run)


def _send(path: Path, brought: Brought, to: Sender, *, dry_run: bool) -> Outcome:
    report = brought.report
    if not dry_run:
        return _told(path, brought, to.send(report))
    try:
        read_report(report_body(report), now_us=now_us())  # as the daemon will
    except InvalidEvent as error:
        return _outcome(path, brought, Fate.REFUSED, str(error))
    return _outcome(path, brought, WOULD_BE_SENT, f"would be sent to {to.places.socket}")


def _told(path: Path, brought: Brought, delivery: Delivery) -> Outcome:
    return _outcome(path, brought, delivery.fate, delivery.detail)


def _outcome(path: Path, brought: Brought, fate: str, detail: str) -> Outcome:
    report: BenchmarkReport = brought.report
    claim = report.jobs[0] if report.jobs else None
    return Outcome(
        file=str(path),
        fate=fate,
        detail=detail,
        run_uid=report.run_uid,
        job_id=None if claim is None else claim.job_id,
        job_source=None if claim is None else claim.source.value,
        status=report.status.value,
        model=report.model,
        started_at=from_us(report.started_us).isoformat(),
        notes=brought.notes if report.reason is None else (report.reason, *brought.notes),
    )


def _finish(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    """Print them all, and exit with what the worst of them means."""
    if as_json:
        print_json(msgspec.to_builtins(list(outcomes)))
    else:
        for outcome in outcomes:
            _print(outcome)
    if all(outcome.is_well for outcome in outcomes):
        return
    bad = {outcome.fate for outcome in outcomes if not outcome.is_well}
    raise typer.Exit(exit_codes.UNREACHABLE if bad == {Fate.UNREACHED} else exit_codes.FAILED)


def _print(outcome: Outcome) -> None:
    out = console() if outcome.is_well else error_console()
    style = "" if outcome.is_well else "red"
    if outcome.run_uid is None:
        out.print(clean(f"{outcome.file}: {outcome.detail}"), style=style)
        return
    source = None if outcome.job_source is None else BY[LinkSource(outcome.job_source)]
    job = "no job" if source is None else f"{outcome.job_id} (by {source})"
    what = f"run {outcome.run_uid}, {outcome.status}, {outcome.model or 'no model'}, {job}"
    out.print(clean(f"{outcome.file}: {outcome.fate}: {what}"), style=style)
    if not outcome.is_well or outcome.fate == Fate.DROPPED:
        out.print(clean(f"  {outcome.detail}"), style=style)
    for note in outcome.notes:
        out.print(clean(f"  {note}"), style="yellow")

"""Results that somebody brings in: whose run they are, of which job, and when it was."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from jobtrail.domain.benchmarks.report import (
    BenchmarkReport,
    JobClaim,
    LinkSource,
    RecipeIdentity,
    Repeat,
    Role,
    Status,
    ToolResult,
)
from jobtrail.domain.errors import UnknownResult

_RUNS = uuid.UUID("b3d1a0a2-4a2e-5f53-8f6c-2a9d1c5e7f40")  # name space of runs that are known by their result alone
_JOB = re.compile(r"(?:slurm-)?0*([1-9][0-9]{0,15})")
_LOCAL = re.compile(r"local-[1-9][0-9]{0,15}")
_VLLM_DATE = "%Y%m%d-%H%M%S"
BY = {
    LinkSource.MANIFEST: "its manifest",
    LinkSource.METADATA: "its metadata",
    LinkSource.PATH: "its directory",
    LinkSource.PERSON: "--job",
}
JOB_FORMS = "slurm-123, 123 (the same), or local-456"


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the person who brings results in says of them; None where they leave it to the files."""

    recipe: str | None = None
    model: str | None = None
    tool: str | None = None
    job_id: str | None = None  # public id
    cluster: str | None = None
    role: Role = Role.BOTH
    started: datetime | None = None
    ended: datetime | None = None


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """A run made of a result, and what its reader should know about it."""

    report: BenchmarkReport
    notes: tuple[str, ...] = ()


def job_id_of(text: str) -> str | None:
    """A job's public id; None if the text is none."""
    if _LOCAL.fullmatch(text):
        return text
    found = _JOB.fullmatch(text)
    return f"slurm-{found[1]}" if found else None


def bring(result: ToolResult, path: Path, said: Said) -> Brought:
    """The run that a result is. Raises UnknownResult when what is needed is neither in the file nor said.

    Nothing of it is of the file as a whole: a file to which a further result was appended, or a copy of it under
    another name, holds the same runs.
    """
    if said.tool is not None and said.tool != result.tool:
        raise UnknownResult(path.name, f"is of {result.tool}, not of {said.tool}")
    notes: list[str] = []
    started_us, ended_us = _window(result, path, said, notes)
    claim = _claim(result, path, said, notes)
    model = said.model or result.model or _claimed_model(result, notes)
    status = Status.OK if result.invalid_reason is None else Status.INVALID
    report = BenchmarkReport(
        run_uid=str(uuid.uuid5(_RUNS, f"{result.tool}:{result.sha256}")),
        mode=result.mode,
        status=status,
        reason=result.invalid_reason,
        started_us=started_us,
        ended_us=ended_us,
        recipe=None if said.recipe is None else _recipe(said.recipe),
        tool=result.tool,
        tool_version=result.tool_version,
        model=model,
        jobs=() if claim is None else (claim,),
        repeats=(Repeat(started_us=started_us, ended_us=ended_us, result=result),),
    )
    return Brought(report=report, notes=tuple(notes))


def _claimed_model(result: ToolResult, notes: list[str]) -> str | None:
    """What vLLM's file says; `--metadata model_id=…` may have written it."""
    claimed = result.claims.get("model_id")
    notes.append(
        "says no model; name it with --model" if claimed is None else f"its model is the one it claims: {claimed}"
    )
    return claimed


def _recipe(name: str) -> RecipeIdentity:
    """A name alone: with which parameters it ran nobody knows, so it is compared only with others of that name."""
    body = {"imported": True, "name": name}
    digest = hashlib.sha256(msgspec.json.encode(body)).hexdigest()
    return RecipeIdentity(name=name, sha256=digest, body=body)


def _claim(result: ToolResult, path: Path, said: Said, notes: list[str]) -> JobClaim | None:
    """The job by the most trusted source that names one: the file itself, a directory above it, the person."""
    found: list[tuple[LinkSource, str, str | None]] = []
    if (named := result.claims.get("jobtrail_job_id")) is not None:
        if (job_id := job_id_of(named)) is not None:
            found.append((LinkSource.METADATA, job_id, result.claims.get("jobtrail_cluster")))
        else:
            notes.append(f"its jobtrail_job_id {named[:64]!r} is no job: {JOB_FORMS}")
    above = (job_id_of(parent.name) for parent in path.resolve().parents)
    if (job_id := next((job for job in above if job is not None), None)) is not None:
        found.append((LinkSource.PATH, job_id, None))
    if said.job_id is not None:
        found.append((LinkSource.PERSON, said.job_id, None))
    if not found:
        return None
    source, job_id, cluster = found[0]
    for other, another, _ in found[1:]:
        if another != job_id:
            notes.append(f"taken for a run of {job_id} by {BY[source]}, not of {another} by {BY[other]}")
    return JobClaim(job_id=job_id, role=said.role, source=source, cluster=said.cluster or cluster)


def _window(result: ToolResult, path: Path, said: Said, notes: list[str]) -> tuple[int, int]:
    """Start and end in µs: by the file, else as said, else by vLLM's date, which is local and of the end."""
    started, ended = result.started_us, result.ended_us
    length = None if result.duration_seconds is None else round(result.duration_seconds * 1e6)
    if started is None and said.started is not None:
        started = _us(said.started)
    if ended is None and said.ended is not None:
        ended = _us(said.ended)
    if started is None and ended is None and (date := _date(result.claims)) is not None:
        ended = _us(date)
        notes.append(f"its date has no zone and is taken for this machine's: it ended at {date.isoformat()}")
    if started is None and ended is not None and length is not None:
        started = ended - length
    if ended is None and started is not None and length is not None:
        ended = started + length
    if started is None or ended is None:
        raise UnknownResult(path.name, "does not say when it was measured; say it with --started and --ended")
    if ended < started:
        raise UnknownResult(path.name, "would have ended before it started; look at --started and --ended")
    return started, ended


def _date(claims: Mapping[str, str]) -> datetime | None:
    try:
        # One second on average is lost to the format; nothing is known of the zone.
        return datetime.strptime(claims.get("date", ""), _VLLM_DATE).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def _us(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, tz=UTC)) // timedelta(microseconds=1)

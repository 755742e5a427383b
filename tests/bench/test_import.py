"""Results that were measured without the wrapper."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobtrail.cli.bench.manifest import described, write_manifest
from jobtrail.domain.benchmarks.report import BenchmarkReport, JobClaim, LinkSource, Mode, Role, Status
from jobtrail.domain.benchmarks.submitted import read_report
from tests.bench.support import jobtrail, outcome, receiving

FIXTURES = Path(__file__).parents[1] / "fixtures" / "benchmarks"
SERVE = FIXTURES / "vllm-0.32.0-bench-serve.json"
RUN = "4a3cf0ce-5e0f-4b5e-8d3a-0d9e2b8a7c11"


async def bring_in(*words: str | Path, socket: Path | str = "/nonexistent/x") -> tuple[int, list[dict[str, Any]]]:
    """`jobtrail bench import --json`."""
    arguments = ("bench", "import", "--json", *map(str, words))
    code, printed = await outcome(await jobtrail(*arguments, JOBTRAIL_POKE_SOCKET=str(socket)))
    found: list[dict[str, Any]] = json.loads(printed)
    return code, found


def with_metadata(path: Path, **claims: str) -> Path:
    """A result with this metadata in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    result = json.loads(SERVE.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**result, **claims}), encoding="utf-8")
    return path


async def test_real_results_of_every_known_tool_are_taken() -> None:
    """One file may hold several runs; each gets an identity of its own, the same each time."""
    files = [SERVE, *(FIXTURES / name for name in ("guidellm-0.8.1-benchmarks.json", "mlperf_log_detail.txt"))]
    files += [FIXTURES / f"vllm-0.32.0-bench-{kind}.json" for kind in ("latency", "throughput")]
    files.append(FIXTURES / "aiperf-0.13.0-profile_export.json")
    times = ("--started", "2026-11-21T08:00", "--ended", "2026-11-21T08:10")
    async with receiving() as daemon:
        code, first = await bring_in(*files, *times, "--model", "tiny", socket=daemon.socket)
        assert code == 0, first
        assert {report.tool for report in daemon.reports} == {"vllm", "guidellm", "mlperf-loadgen", "aiperf"}
        _, second = await bring_in(*files, *times, "--model", "tiny", socket=daemon.socket)
    uids = [one["run_uid"] for one in first]
    assert len(set(uids)) == len(uids) >= len(files)
    assert [one["run_uid"] for one in second] == uids


async def test_the_same_event_is_sent_again_when_a_file_is_imported_again() -> None:
    """So that the daemon knows it."""
    async with receiving() as daemon:
        await bring_in(SERVE, socket=daemon.socket)
        daemon.statuses = [200]
        _, (again,) = await bring_in(SERVE, socket=daemon.socket)
        assert len(set(daemon.event_ids)) == 1
    assert again["fate"] == "already known"


@pytest.mark.parametrize("end", ["", "\n"])
async def test_a_file_that_has_grown_holds_the_same_runs_and_further_ones(tmp_path: Path, end: str) -> None:
    """vLLM appends a line for each run; what was brought in before is known, byte for byte."""
    lines = [json.dumps({**json.loads(SERVE.read_text(encoding="utf-8")), "label": str(n)}) for n in range(3)]
    path = tmp_path / "all.jsonl"
    async with receiving() as daemon:
        for count in (1, 3):
            path.write_text("\n".join(lines[:count]) + end, encoding="utf-8")
            code, found = await bring_in(path, socket=daemon.socket)
            assert (code, len(found)) == (0, count)
        await bring_in(path.rename(tmp_path / "copy.jsonl"), socket=daemon.socket)
        first, *others = daemon.event_ids
    assert others[0] == first
    assert len(set(others)) == 3
    assert others[:3] == others[3:]


async def test_the_date_of_vllm_is_local_and_of_the_end() -> None:
    """And it is said that the zone was assumed."""
    async with receiving() as daemon:
        _, (said,) = await bring_in(SERVE, socket=daemon.socket)
        (report,) = daemon.reports
    ended = datetime(2026, 11, 21, 1, 40, 1).astimezone()  # as the file has it: without a zone
    assert report.ended_us == round(ended.timestamp()) * 1_000_000
    assert report.ended_us - report.started_us == pytest.approx(3_082_110, abs=1)
    assert any("has no zone" in note for note in said["notes"])


async def test_a_result_without_any_time_is_not_given_one() -> None:
    """The file's own time is that of its last copy."""
    code, (said,) = await bring_in(FIXTURES / "vllm-0.32.0-bench-throughput.json")
    assert code == 1
    assert said["detail"].endswith("does not say when it was measured; say it with --started and --ended")


async def test_whose_job_it_was_by_the_most_trusted_source(tmp_path: Path) -> None:
    """The manifest beside it, then the file's metadata, then a directory's name, then the person."""
    plain = with_metadata(tmp_path / "slurm-7" / "deeper" / "plain.json")
    told = with_metadata(tmp_path / "7" / "told.json", jobtrail_job_id="slurm-8", jobtrail_cluster="lab")
    elsewhere = with_metadata(tmp_path / "elsewhere.json")
    listed = with_metadata(tmp_path / "9" / "result-1.json", jobtrail_job_id="slurm-8")
    manifest = BenchmarkReport(
        run_uid=RUN,
        mode=Mode.SERVE,
        status=Status.OK,
        started_us=1_780_000_000_000_000,
        ended_us=1_780_000_001_000_000,
        jobs=(JobClaim(job_id="slurm-10", role=Role.BOTH, source=LinkSource.MANIFEST),),
        files=(described(listed),),
    )
    write_manifest(listed.with_name("manifest.json"), manifest)
    _, found = await bring_in(plain, told, elsewhere, listed, "--job", "11", "--dry-run")
    assert [(one["job_id"], one["job_source"]) for one in found] == [
        ("slurm-7", "path"), ("slurm-8", "metadata"), ("slurm-11", "person"), ("slurm-10", "manifest"),
    ]  # fmt: skip
    assert found[3]["run_uid"] == RUN
    assert "taken for a run of slurm-8 by its metadata, not of slurm-7 by its directory" in found[1]["notes"]
    assert "taken for a run of slurm-7 by its directory, not of slurm-11 by --job" in found[0]["notes"]
    _, (nobody,) = await bring_in(elsewhere, "--dry-run")
    assert nobody["job_id"] is None


async def test_a_directory_of_a_run_is_reported_once_by_its_manifest(tmp_path: Path) -> None:
    """Not again for each of the files that the manifest lists, nor for those that are no results."""
    listed = [with_metadata(tmp_path / f"result-{number}.json", label=str(number)) for number in (1, 2)]
    report = BenchmarkReport(
        run_uid=RUN, mode=Mode.SERVE, status=Status.OK, started_us=1_780_000_000_000_000,
        ended_us=1_780_000_001_000_000, files=tuple(described(path) for path in listed),
    )  # fmt: skip
    write_manifest(tmp_path / "manifest.json", report)
    for name in ("recipe.json", "run.json", "stage.json", "result.pytorch.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    async with receiving() as daemon:
        code, found = await bring_in(tmp_path, socket=daemon.socket)
        assert daemon.reports == [report]
    assert (code, [one["run_uid"] for one in found]) == (0, [RUN])


async def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    """It is named, with what was expected of it."""
    shutil.copy(SERVE, tmp_path / "good.json")
    (tmp_path / "bad.json").write_text('{"hello": 1}', encoding="utf-8")
    async with receiving() as daemon:
        code, found = await bring_in(tmp_path, tmp_path / "missing.json", socket=daemon.socket)
        assert len(daemon.reports) == 1
    by_name = {Path(one["file"]).name: one for one in found}
    assert code == 1
    assert by_name["good.json"]["fate"] == "recorded"
    assert "vllm bench serve" in by_name["bad.json"]["detail"]
    assert by_name["missing.json"]["detail"] == "cannot be read: No such file or directory"


async def test_what_a_person_says_of_a_result(tmp_path: Path) -> None:
    """The recipe's name gathers results that are compared with each other, and with none of `bench run`."""
    words = ("--recipe", "night", "--model", "llama", "--role", "server", "--job", "slurm-3", "--cluster", "lab")
    async with receiving() as daemon:
        code, _ = await bring_in(SERVE, *words, "--tool", "vllm", socket=daemon.socket)
        (report,) = daemon.reports
        other, (refused,) = await bring_in(SERVE, "--tool", "aiperf", socket=daemon.socket)
    assert (code, other) == (0, 1)
    assert report.recipe is not None
    assert (report.recipe.name, report.recipe.body) == ("night", {"imported": True, "name": "night"})
    assert report.model == "llama"
    claim = JobClaim(job_id="slurm-3", role=Role.SERVER, source=LinkSource.PERSON, cluster="lab")
    assert report.jobs == (claim,)
    assert refused["detail"].endswith("is of vllm, not of aiperf")
    assert read_report(msgspec.json.encode(report), now_us=report.ended_us) == report


async def test_a_job_that_is_none_is_wrong_usage() -> None:
    """With the forms that are."""
    code, printed = await outcome(await jobtrail("bench", "import", str(SERVE), "--job", "night"))
    assert code == 2
    assert "slurm-123" in printed


async def test_why_a_result_says_nothing_is_told() -> None:
    """Its word `invalid` alone leaves one looking for the reason in the tool's files."""
    _, (said,) = await bring_in(FIXTURES / "mlperf_log_detail.txt", "--dry-run")
    assert said["status"] == "invalid"
    assert "result_validity is not VALID: early_stopping_met" in said["notes"]

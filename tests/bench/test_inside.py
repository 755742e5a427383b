"""A benchmark that runs: the server, the load, and what is on record of them."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import msgspec
import pytest

from jobtrail.cli.bench.manifest import Record, now_us, report_body
from jobtrail.domain.benchmarks.recipe import Measure, Model, Recipe, Workload
from jobtrail.domain.benchmarks.report import LinkSource, Mode, Repeat, Role, Status
from jobtrail.domain.benchmarks.submitted import read_report
from tests.bench.support import (
    JOB,
    PROGRAM,
    all_gone,
    inside,
    manifest,
    options_of,
    pids,
    prepared,
    receiving,
    recipe,
)


async def test_a_run_is_measured_reported_and_leaves_nothing_running(tmp_path: Path) -> None:
    """The numbers are those of the load; the job, the recipe and the machine stand beside them."""
    directory = prepared(tmp_path, recipe(tmp_path))
    async with receiving() as daemon:
        code, printed = await inside(directory, JOBTRAIL_POKE_SOCKET=str(daemon.socket), **JOB)
    assert code == 0, printed
    report = manifest(directory)
    assert daemon.reports == [report]
    assert (report.status, report.mode, report.tool, report.tool_version) == (Status.OK, Mode.SERVE, "vllm", "0.32.0")
    assert report.run_uid == directory.run_uid
    assert report.recipe is not None
    assert (report.recipe.name, report.recipe.sha256) == ("tiny-chat", directory.identity.sha256)
    assert report.parameters == {"dtype": "float32"}
    (job,) = report.jobs
    assert (job.job_id, job.cluster, job.role, job.source) == ("slurm-42", "lab", Role.BOTH, LinkSource.MANIFEST)
    (repeat,) = report.repeats
    assert repeat.result is not None
    assert repeat.result.requests_completed == 6
    assert {m.metric: m.value for m in repeat.result.measurements}["output_tokens"] == 48
    assert report.server_output_tokens == 48
    assert report.hardware.cpu_count is not None
    assert {file.name for file in report.files} == {"result-1.json", "load-1.log", "server.log"}
    assert json.loads(directory.stage_file.read_text())["stage"] == "done"
    await all_gone(pids(tmp_path))


def test_a_clock_that_is_set_back_between_two_repeats_makes_no_report_that_is_refused(tmp_path: Path) -> None:
    """And a file that cannot be read any more takes nothing of the rest with it."""
    directory = prepared(tmp_path, recipe(tmp_path, repeats=2))
    at = now_us()
    record = Record(run_uid=directory.run_uid, recipe=directory.recipe, identity=directory.identity, started_us=at)
    assert record.report(Status.FAILED, "x", now_us=at - 5).ended_us == at
    for begin, end in ((at, at + 9), (at - 5_000_000, at - 4_000_000)):
        record.repeats.append(Repeat(started_us=begin, ended_us=end, exit_code=0))
    report = record.report(Status.OK, None, now_us=at, files=[tmp_path / "gone.json"])
    assert (report.started_us, report.ended_us, report.files) == (at - 5_000_000, at + 9, ())
    assert read_report(report_body(report), now_us=at).ended_us == at + 9


async def test_the_daemon_is_asked_to_look_at_both_edges_of_the_load(tmp_path: Path) -> None:
    """Energy of the window can only be told if the counters were read at its edges."""
    directory = prepared(tmp_path, recipe(tmp_path))
    begun, ended = tmp_path / "load-0.json", directory.result_file(1)
    edges: list[tuple[bool, bool]] = []
    async with receiving() as daemon:
        daemon.on_look = lambda: edges.append((begun.exists(), ended.exists()))
        await inside(directory, JOBTRAIL_POKE_SOCKET=str(daemon.socket), **JOB)
        assert set(daemon.looks) == {"slurm-42"}
    # There may be looks in between, at a load that takes its time.
    assert (edges[0], edges[-1]) == ((False, False), (True, True))


async def test_the_window_is_that_of_the_measurement_not_of_the_tools_start(tmp_path: Path) -> None:
    """The time in which the tool is imported is no part of the benchmark."""
    directory = prepared(tmp_path, recipe(tmp_path))
    await inside(directory)
    (repeat,) = manifest(directory).repeats
    assert repeat.result is not None
    assert repeat.result.duration_seconds is not None
    seconds = (repeat.ended_us - repeat.started_us) / 1e6
    assert seconds == pytest.approx(repeat.result.duration_seconds, abs=1e-5)


async def test_repeats_have_prompts_of_their_own_and_the_warm_up_is_not_counted(tmp_path: Path) -> None:
    """A server remembers prompts: the same ones again would be answered from memory."""
    directory = prepared(tmp_path, recipe(tmp_path, repeats=2, warmups=3))
    await inside(directory, **JOB)
    report = manifest(directory)
    assert [repeat.exit_code for repeat in report.repeats] == [0, 0]
    assert report.repeats[0].ended_us <= report.repeats[1].started_us
    assert (report.started_us, report.ended_us) == (report.repeats[0].started_us, report.repeats[1].ended_us)
    assert report.server_output_tokens == 2 * 48
    assert [options_of(tmp_path, seed)["num_prompts"] for seed in (2, 0, 1)] == [3, 6, 6]
    assert options_of(tmp_path, 0)["metadata"] == [
        f"jobtrail_run_uid={directory.run_uid}",
        "jobtrail_repeat=1",
        "jobtrail_job_id=slurm-42",
        "jobtrail_cluster=lab",
    ]
    assert options_of(tmp_path, 0)["percentile_metrics"] == "ttft,tpot,itl,e2el"
    assert options_of(tmp_path, 0)["metric_percentiles"] == "50,90,95,99"


@pytest.mark.parametrize("mode", [Mode.LATENCY, Mode.THROUGHPUT])
async def test_benchmarks_without_a_server(tmp_path: Path, mode: Mode) -> None:
    """They tell no version in their results, so the program is asked."""
    wanted = Recipe(
        name="tiny-batch",
        mode=mode,
        model=Model(id="tiny"),
        workload=Workload(
            command=(sys.executable, PROGRAM, "bench", mode.value),
            input_len=4, output_len=8, num_prompts=5, batch_size=2, iterations=4, args={"dtype": "float32"},
        ),
        measure=Measure(repeats=2),
    )  # fmt: skip
    directory = prepared(tmp_path, wanted)
    if mode is Mode.THROUGHPUT:
        wanted = msgspec.structs.replace(wanted, workload=msgspec.structs.replace(wanted.workload, iterations=None))
    code, printed = await inside(directory)
    report = manifest(directory)
    assert code == 0, printed
    assert (report.status, report.tool_version, report.parameters) == (Status.OK, "0.32.0", {"dtype": "float32"})
    assert len(report.repeats) == 2
    assert report.server_output_tokens is None


async def test_any_other_tool_is_run_as_the_recipe_gives_it(tmp_path: Path) -> None:
    """Its result is read by what it is, whoever wrote it."""
    fixture = Path(__file__).parents[1] / "fixtures" / "benchmarks" / "guidellm-0.8.1-benchmarks.json"
    said = str(tmp_path / "said")
    wanted = msgspec.structs.replace(
        recipe(tmp_path),
        workload=Workload(
            command=(
                "sh",
                "-c",
                'cp "$1" "$2"; echo "$4 $5" > "$3"',
                "sh",
                str(fixture),
                "{result}",
                said,
                "{url}",
                "{model}",
            ),
        ),
    )
    directory = prepared(tmp_path, wanted)
    code, printed = await inside(directory)
    assert code == 0, printed
    report = manifest(directory)
    assert (report.tool, report.parameters["server_version"]) == ("guidellm", "0.32.0")
    url, model = (tmp_path / "said").read_text().split()
    assert url.startswith("http://127.0.0.1:")
    assert model == "tiny"


async def test_a_requeued_jobs_second_start_is_a_run_of_its_own(tmp_path: Path) -> None:
    """The record of the first start stays, and both are reported."""
    directory = prepared(tmp_path, recipe(tmp_path, LOAD_FAULT="exit"))
    await inside(directory)
    first = manifest(directory)
    async with receiving() as daemon:
        await inside(directory, JOBTRAIL_POKE_SOCKET=str(daemon.socket))
        assert [report.run_uid for report in daemon.reports] == [manifest(directory).run_uid, first.run_uid]
    assert manifest(directory).run_uid != first.run_uid == directory.run_uid


async def test_a_port_that_the_recipe_insists_on_must_be_free(tmp_path: Path) -> None:
    """Else another's server would be measured."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        wanted = recipe(tmp_path)
        assert wanted.server is not None
        server = msgspec.structs.replace(wanted.server, args={"port": port})
        directory = prepared(tmp_path, msgspec.structs.replace(wanted, server=server))
        code, _ = await inside(directory)
    assert code == 1
    assert (
        manifest(directory).reason
        == f"port {port}, which the recipe gives the server, is not free: Address already in use"
    )

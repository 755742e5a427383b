"""Benchmarks that come to no good end: each is on record with its reason, and nothing is left running."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import msgspec
import pytest

from jobtrail.domain.benchmarks.report import Status
from tests.bench.support import (
    JOB,
    all_gone,
    appears,
    environment,
    inside,
    jobtrail,
    manifest,
    outcome,
    pids,
    prepared,
    receiving,
    recipe,
    send,
)
from tests.daemon_process import PATIENCE_SECONDS

# `jobtrail`, which waits for the signal that follows its load's for as long as a busy machine may take to send it.
IN_NO_HURRY = f"""
from jobtrail.__main__ import main
from jobtrail.cli.bench import repeats
assert repeats.OWN_SIGNAL_SECONDS >= 1
repeats.OWN_SIGNAL_SECONDS = {PATIENCE_SECONDS}
main()
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            {"SERVER_FAULT": "die"},
            "the server ended with exit code 4 before it was ready; server.log ends: ValueError: no such quantization",
        ),
        (
            {"LOAD_FAULT": "exit"},
            "load 1 of 2 ended with exit code 3; load-1.log ends: RuntimeError: the tokenizer cannot be found",
        ),
        ({"LOAD_FAULT": "no_result"}, "the load ended well and wrote no result-1.json"),
        ({"LOAD_FAULT": "unknown"}, "result-1.json: "),
    ],
)
async def test_what_fails_is_on_record_with_its_own_words(tmp_path: Path, fault: dict[str, str], reason: str) -> None:
    """Whoever reads the record need not look for the log."""
    directory = prepared(tmp_path, recipe(tmp_path, repeats=2, **fault))
    async with receiving() as daemon:
        code, printed = await inside(directory, JOBTRAIL_POKE_SOCKET=str(daemon.socket), **JOB)
        assert code == 1, printed
        (report,) = daemon.reports
    assert report == manifest(directory)
    assert report.status is Status.FAILED
    assert report.reason is not None
    assert report.reason.startswith(reason)


async def test_a_server_that_dies_under_the_load_is_the_reason(tmp_path: Path) -> None:
    """Not the load, which only noticed."""
    directory = prepared(tmp_path, recipe(tmp_path, SERVER_FAULT="die_under_load"))
    code, _ = await inside(directory)
    assert code == 1
    assert (manifest(directory).reason or "").startswith("the server ended with exit code 9 during load 1")
    await all_gone(pids(tmp_path))


async def test_a_server_that_is_never_ready_is_given_up_and_ended(tmp_path: Path) -> None:
    """Its processes too, in whatever session they are."""
    directory = prepared(tmp_path, recipe(tmp_path, timeout_s=5, SERVER_FAULT="never_ready"))
    code, _ = await inside(directory)
    assert code == 1
    assert (manifest(directory).reason or "").startswith(
        "the server was not ready within 5 s: /health did not answer 200"
    )
    await all_gone(pids(tmp_path))


async def test_a_run_of_which_every_request_failed_is_invalid(tmp_path: Path) -> None:
    """The tool says nothing of it: it ends with 0 and latencies of 0."""
    directory = prepared(tmp_path, recipe(tmp_path, LOAD_FAULT="refuse_all"))
    code, _ = await inside(directory)
    report = manifest(directory)
    assert (code, report.status) == (1, Status.INVALID)
    assert report.reason
    assert report.server_output_tokens == 0


@pytest.mark.parametrize(
    ("number", "end_in_seconds", "reason"),
    [
        (signal.SIGTERM, 3600, "the job was cancelled or preempted (SIGTERM) during load 1 of 1"),
        (signal.SIGTERM, 10, "the job came to its time limit (SIGTERM) during load 1 of 1"),
        (signal.SIGTERM, None, "the job was cancelled or came to its time limit (SIGTERM) during load 1 of 1"),
        (signal.SIGUSR1, None, "the job came near to its time limit (SIGUSR1) during load 1 of 1"),
        (signal.SIGINT, None, "was interrupted (SIGINT) during load 1 of 1"),
    ],
)
async def test_a_run_that_is_told_to_end_is_reported_and_leaves_nothing_running(
    tmp_path: Path, number: signal.Signals, end_in_seconds: int | None, reason: str
) -> None:
    """As by scancel, or the job's time limit."""
    ends = {} if end_in_seconds is None else {"SLURM_JOB_END_TIME": str(int(time.time()) + end_in_seconds)}
    directory = prepared(tmp_path, recipe(tmp_path, LOAD_FAULT="hang"))
    async with receiving() as daemon:
        wrapper = await jobtrail(
            "bench", "inside", str(directory.path), JOBTRAIL_POKE_SOCKET=str(daemon.socket), **JOB, **ends
        )
        load = int(await appears(tmp_path / "load.pid"))
        send(wrapper, number)
        code, printed = await outcome(wrapper)
        assert code == 1, printed
        (report,) = daemon.reports
    assert (report.status, report.reason) == (Status.FAILED, reason)
    assert report == manifest(directory)
    await all_gone([load, *pids(tmp_path)])


async def test_whoever_kills_the_wrapper_kills_what_it_started_and_a_record_stays(tmp_path: Path) -> None:
    """SIGKILL leaves the wrapper no time; the manifest was there before, and `bench push` reports it."""
    directory = prepared(tmp_path, recipe(tmp_path, LOAD_FAULT="hang"))
    wrapper = await jobtrail("bench", "inside", str(directory.path), **JOB)
    load = int(await appears(tmp_path / "load.pid"))
    send(wrapper, signal.SIGKILL)
    await outcome(wrapper)
    await all_gone([load, *pids(tmp_path)])
    report = manifest(directory)
    assert (report.status, report.reason) == (
        Status.FAILED,
        "was cut off during load 1 of 1: the wrapper was killed",
    )
    async with receiving() as daemon:
        pushed = await jobtrail("bench", "push", str(directory.path), JOBTRAIL_POKE_SOCKET=str(daemon.socket))
        assert (await outcome(pushed))[0] == 0
        assert daemon.reports == [report]


async def test_a_run_that_is_told_to_end_while_the_server_starts(tmp_path: Path) -> None:
    """It need not wait for a server that nobody needs any more."""
    directory = prepared(tmp_path, recipe(tmp_path, timeout_s=600, SERVER_FAULT="never_ready"))
    async with receiving() as daemon:
        wrapper = await jobtrail("bench", "inside", str(directory.path), JOBTRAIL_POKE_SOCKET=str(daemon.socket), **JOB)
        await appears(tmp_path / "engine.pid")
        send(wrapper, signal.SIGTERM)
        code, printed = await outcome(wrapper)
    assert code == 1, printed
    reason = "the job was cancelled or came to its time limit (SIGTERM) while starting the server"
    assert manifest(directory).reason == reason
    await all_gone(pids(tmp_path))


async def test_a_run_whose_directory_is_gone_is_reported_all_the_same(tmp_path: Path) -> None:
    """Or whose file system is full: the record does not hang on it."""
    directory = prepared(tmp_path, recipe(tmp_path, LOAD_FAULT="hang"))
    async with receiving() as daemon:
        wrapper = await jobtrail("bench", "inside", str(directory.path), JOBTRAIL_POKE_SOCKET=str(daemon.socket), **JOB)
        load = int(await appears(tmp_path / "load.pid"))
        shutil.rmtree(directory.path)
        send(wrapper, signal.SIGTERM)
        code, printed = await outcome(wrapper)
        assert [report.status for report in daemon.reports] == [Status.FAILED]
    assert code == 1, printed
    assert f"cannot write to {directory.path}: No such file or directory" in printed
    await all_gone([load, *pids(tmp_path)])


async def test_a_run_whose_disk_takes_nothing_from_the_start_is_reported_all_the_same(tmp_path: Path) -> None:
    """As when the quota is used up: no manifest can be left, and the job's time is on record nowhere else."""
    directory = prepared(tmp_path, recipe(tmp_path))
    words = [sys.executable, "-m", "jobtrail", "bench", "inside", str(directory.path)]
    async with receiving() as daemon:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *words, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, env=environment(JOBTRAIL_POKE_SOCKET=str(daemon.socket), **JOB),
        )  # fmt: skip
        code, printed = await outcome(process)
        (report,) = daemon.reports
    assert code == 1, printed
    assert (report.run_uid, report.status) == (directory.run_uid, Status.FAILED)
    assert "File too large" in printed


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """As on a node where vLLM is not installed."""
    wanted = recipe(tmp_path)
    assert wanted.server is not None
    server = msgspec.structs.replace(wanted.server, command=("no-such-vllm", "serve"))
    directory = prepared(tmp_path, msgspec.structs.replace(wanted, server=server))
    code, _ = await inside(directory)
    assert code == 1
    assert (manifest(directory).reason or "").endswith(
        "server.log ends: cannot start no-such-vllm: No such file or directory"
    )


async def test_a_port_that_another_took_meanwhile_is_left_to_them(tmp_path: Path) -> None:
    """Between finding it free and listening on it there is time for others."""
    directory = prepared(tmp_path, recipe(tmp_path, SERVER_FAULT="port_taken_once"))
    code, printed = await inside(directory)
    assert code == 0, printed
    (repeat,) = manifest(directory).repeats
    assert repeat.exit_code == 0


async def test_a_server_that_takes_no_notice_of_the_signal_is_killed(tmp_path: Path) -> None:
    """After its grace."""
    directory = prepared(tmp_path, recipe(tmp_path, SERVER_FAULT="stubborn"))
    code, printed = await inside(directory)
    assert code == 0, printed
    await all_gone(pids(tmp_path))


async def test_a_signal_to_all_of_the_jobs_processes_is_one_reason(tmp_path: Path) -> None:
    """Slurm signals them one after the other: that the load ended of it is not the reason."""
    directory = prepared(tmp_path, recipe(tmp_path, LOAD_FAULT="hang"))
    async with receiving() as daemon:
        wrapper = await asyncio.create_subprocess_exec(
            sys.executable, "-c", IN_NO_HURRY, "bench", "inside", str(directory.path),
            env=environment(JOBTRAIL_POKE_SOCKET=str(daemon.socket), **JOB),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        load = int(await appears(tmp_path / "load.pid"))
        os.kill(load, signal.SIGTERM)
        os.kill(pids(tmp_path)[0], signal.SIGTERM)
        await all_gone([load])
        with pytest.raises(TimeoutError):  # it waits for its own
            await asyncio.wait_for(wrapper.wait(), 2)
        send(wrapper, signal.SIGTERM)
        await outcome(wrapper)
    reason = manifest(directory).reason or ""
    assert reason.startswith("the job was cancelled or came to its time limit (SIGTERM)")

"""slurmrestd's client against the slurmrestd of a real cluster (here Slurm 22.05: v0.0.36 to v0.0.38)."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.slurmrest import RestSettings, SlurmRest
from jobtrail.adapters.slurmrest.client import JOBS_PER_QUESTION
from jobtrail.domain.errors import SlurmDenied, SlurmUnavailable
from jobtrail.domain.slurm import SlurmRecord
from tests.slurm.cluster import USERS, SlurmCluster

NO_SUCH_JOB = 999_999


def settings(cluster: SlurmCluster, **others: object) -> RestSettings:
    chosen = {"url": f"unix:{cluster.rest_socket}", "poll_seconds": 0.05, "timeout_seconds": 60.0}
    return RestSettings(**chosen | others)  # type: ignore[arg-type]


@pytest.fixture
async def rest(cluster: SlurmCluster) -> AsyncIterator[SlurmRest]:
    async with SlurmRest.opened(settings(cluster), clock=SystemClock()) as opened:
        yield opened


async def recorded(
    rest: SlurmRest, number: int, good: Callable[[list[SlurmRecord]], bool], *, timeout_seconds: float = 120.0
) -> list[SlurmRecord]:
    """The runs of a job in order, once slurmdbd has heard all of it; the client's own pace is the waiting."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = await rest.runs_of([number], since=0)
        runs = sorted(answer.records, key=lambda record: record.submit_time or 0)
        if good(runs):
            return runs
        assert time.monotonic() < deadline, f"slurmdbd says of job {number}: {runs}"


async def in_thread(work: Callable[..., object], *args: object) -> None:
    await asyncio.to_thread(work, *args)


async def test_a_job_from_its_start_to_its_record(cluster: SlurmCluster, rest: SlurmRest) -> None:
    number = cluster.submit("sleep 60", "--job-name=real one", "--mem=64", "--time=7")
    cluster.wait_running(number)
    (running,) = (await rest.job(number)).records
    assert (running.state, running.end_time, running.facts.time_limit_seconds) == ("RUNNING", None, 420)
    cluster.cancel(number)
    cluster.wait_finished(number)

    ended = {record.job_id: record for record in (await rest.current_jobs()).records}[f"slurm-{number}"]
    said = cluster.scontrol_show(number)
    assert (ended.state, ended.outcome.exit_signal) == (said["JobState"], 15)
    assert (ended.submit_time, ended.start_time) == (running.submit_time, running.start_time)
    assert ended.facts.job_name == "real one"
    assert ended.facts.account == USERS["jt-alice"]
    assert ended.facts.nodes == tuple(cluster.node_names)
    assert ended.facts.memory_requested_bytes == 64 * 2**20
    (run,) = await recorded(rest, number, lambda runs: any(run.is_final for run in runs))
    assert (run.state, run.submit_time, run.end_time) == ("CANCELLED", ended.submit_time, ended.end_time)
    assert (run.cancelled_by_uid, run.outcome.exit_code, run.outcome.exit_signal) == (0, None, None)


async def test_exit_codes_are_slurmctlds_and_not_old_slurmdbs(cluster: SlurmCluster, rest: SlurmRest) -> None:
    number = cluster.submit("exit 255")
    cluster.wait_finished(number)
    (record,) = (await rest.job(number)).records
    assert (record.state, record.outcome.exit_code, record.outcome.raw_status) == ("FAILED", 255, 255 << 8)
    (run,) = await recorded(rest, number, lambda runs: any(run.is_final for run in runs))
    assert (run.state, run.outcome.exit_code) == ("FAILED", None)


async def test_both_runs_of_a_requeued_job_in_one_question_with_others(cluster: SlurmCluster, rest: SlurmRest) -> None:
    other = cluster.submit("exit 0")
    number = cluster.submit('[ "$SLURM_RESTART_COUNT" = 1 ] && { sleep 1; exit 4; }; sleep 600', "--requeue")
    cluster.wait_script(number)
    cluster.requeue(number)
    cluster.wait_state(number, {"PENDING"})
    cluster.start_now(number)
    cluster.wait_finished(number)
    runs = await recorded(rest, number, lambda runs: len(runs) == 2 and all(run.is_final for run in runs))
    assert [run.state for run in runs] == ["REQUEUED", "FAILED"]
    assert (runs[0].submit_time or 0) < (runs[1].submit_time or 0)
    (newest,) = (await rest.job(number)).records
    assert (newest.submit_time, newest.facts.restart_count) == (runs[1].submit_time, 1)

    await recorded(rest, other, lambda runs: any(run.is_final for run in runs))
    many = [number, other, *range(NO_SUCH_JOB, NO_SUCH_JOB + JOBS_PER_QUESTION)]
    answer = await rest.runs_of(many, since=0)
    assert sorted(record.job_id for record in answer.records) == sorted([f"slurm-{number}"] * 2 + [f"slurm-{other}"])
    since = (runs[0].end_time or 0) + 1
    late = await rest.runs_of([number], since=since)
    assert [record.submit_time for record in late.records if (record.end_time or 0) < since] == []
    assert (
        runs[1].submit_time in {record.submit_time for record in late.records} or runs[1].end_time == runs[0].end_time
    )


async def test_a_job_that_was_cancelled_while_it_waited(cluster: SlurmCluster, rest: SlurmRest) -> None:
    number = cluster.submit("true", "--hold")
    (waiting,) = (await rest.job(number)).records
    assert (waiting.is_pending, waiting.start_time, waiting.facts.nodes) == (True, None, None)
    cluster.cancel(number)
    (record,) = (await rest.job(number)).records
    (run,) = await recorded(rest, number, lambda runs: any(run.is_final for run in runs))
    for told in (record, run):
        assert (told.state, told.start_time, told.facts.nodes) == ("CANCELLED", None, None)
        assert told.end_time is not None


async def test_an_arrays_tasks_are_told_apart(cluster: SlurmCluster, rest: SlurmRest) -> None:
    array = cluster.submit_array("exit $SLURM_ARRAY_TASK_ID", "0-1")
    tasks = cluster.array_tasks(array, 2)
    for task, number in tasks.items():
        cluster.wait_finished(number)
        (record,) = (await rest.job(number)).records
        assert (record.facts.array_job_id, record.facts.array_task_id) == (f"slurm-{array}", task)
        # slurmdbd can hear of the end before it hears of the start, with which the partition comes.
        (run,) = await recorded(rest, number, lambda runs: any(run.is_final and run.facts.partition for run in runs))
        assert (run.facts.array_job_id, run.facts.array_task_id) == (f"slurm-{array}", task)


async def test_the_components_of_a_heterogeneous_job_are_told_apart(cluster: SlurmCluster, rest: SlurmRest) -> None:
    # Each component wants a node of its own, which this cluster has not: they wait.
    numbers = cluster.submit_het("exit 3", ["--mem=32"], ["--mem=48"])
    try:
        for offset, number in enumerate(numbers):
            (record,) = (await rest.job(number)).records
            assert (record.facts.het_leader_job_id, record.facts.het_job_offset) == (f"slurm-{numbers[0]}", offset)
            assert record.facts.memory_requested_bytes == (32, 48)[offset] * 2**20
    finally:
        cluster.cancel(numbers[0])
    for offset, number in enumerate(numbers):
        (run,) = await recorded(rest, number, lambda runs: any(run.is_final and run.facts.partition for run in runs))
        assert (run.facts.het_leader_job_id, run.facts.het_job_offset) == (f"slurm-{numbers[0]}", offset)


async def test_a_name_that_is_no_text_leaves_the_others(cluster: SlurmCluster, rest: SlurmRest) -> None:
    numbers = [cluster.submit("true", option) for option in ("--job-name=caf\udce9", "--job-name=plain")]
    for number in numbers:
        cluster.wait_finished(number)
    names = {record.job_id: record.facts.job_name for record in (await rest.current_jobs()).records}
    assert [names[f"slurm-{number}"] for number in numbers] == ["caf\N{REPLACEMENT CHARACTER}", "plain"]


async def test_what_nobody_knows(cluster: SlurmCluster) -> None:
    for version in ("", "v0.0.36", "v0.0.37"):
        async with SlurmRest.opened(settings(cluster, version=version), clock=SystemClock()) as rest:
            assert (await rest.job(NO_SUCH_JOB)).records == ()
            assert (await rest.runs_of([NO_SUCH_JOB], since=0)).records == ()
    async with SlurmRest.opened(settings(cluster, version="v0.0.99"), clock=SystemClock()) as rest:
        with pytest.raises(SlurmUnavailable, match=r"it knows v0\.0\.3"):
            await rest.job(NO_SUCH_JOB)


async def test_the_nodes(cluster: SlurmCluster, rest: SlurmRest) -> None:
    nodes = await rest.nodes()
    assert [node.name for node in nodes] == cluster.node_names
    (node,) = nodes
    assert node.state in {"idle", "mixed", "allocated"}
    assert node.cpus
    assert node.memory_bytes
    assert node.partitions == ("debug",)
    assert node.boot_time is not None
    assert node.gpus == 0


async def test_good_bad_and_ended_tokens_over_tcp(cluster: SlurmCluster, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    chosen = settings(cluster, url=cluster.rest_url, user="root", token_file=str(file))
    async with SlurmRest.opened(chosen, clock=SystemClock()) as rest:
        for token, is_good in ((cluster.token("root"), True), ("a.bad.token", False), (cluster.token("root"), True)):
            file.write_text(f"{token}\n")
            if is_good:
                assert (await rest.job(NO_SUCH_JOB)).records == ()
                assert (await rest.runs_of([NO_SUCH_JOB], since=0)).records == ()
                continue
            for question in (rest.current_jobs(), rest.nodes(), rest.job(NO_SUCH_JOB), rest.runs_of([1], since=0)):
                await assert_denied(question, token)
    async with SlurmRest.opened(settings(cluster, url=cluster.rest_url), clock=SystemClock()) as rest:
        await assert_denied(rest.current_jobs(), "no token at all")


async def assert_denied(question: Awaitable[object], token: str) -> None:
    with pytest.raises(SlurmDenied) as caught:
        await question
    assert token not in str(caught.value)


async def test_a_slurmrestd_that_is_away_for_a_while(cluster: SlurmCluster, rest: SlurmRest) -> None:
    await rest.job(NO_SUCH_JOB)
    await in_thread(cluster.stop_rest)
    try:
        with pytest.raises(SlurmUnavailable):
            await rest.job(NO_SUCH_JOB)
    finally:
        await in_thread(cluster.start_rest)
    assert (await rest.job(NO_SUCH_JOB)).records == ()

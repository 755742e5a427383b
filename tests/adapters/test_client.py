"""The client for scripts, against the real API and a real database."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresBenchmarkReader, PostgresNodes, PostgresReader, session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.client import ApiError, Client, Unreachable
from jobtrail.client_rows import AuditEvent, GpuSample, Job, Sample
from jobtrail.domain.analytics import Bucket, Dimension, Metric, Question, Unit
from tests.adapters.stored_jobs import served_from, store, stories
from tests.adapters.test_http_archive import START, add_minute
from tests.adapters.test_http_tokens import OTHER, TOKEN
from tests.chains import ChainWriter
from tests.served_api import Served


@pytest.fixture
def writer() -> ChainWriter:
    return stories()[0]


@pytest.fixture
async def api(tmp_path: Path, pool: Any, writer: ChainWriter) -> AsyncIterator[Served]:
    await store(pool, [writer])
    seconds = {"timeout_seconds": 10.0}
    async with served_from(
        pool,
        tmp_path,
        jobs=PostgresReader(pool, **seconds),
        nodes=PostgresNodes(pool, **seconds),
        benchmarks=PostgresBenchmarkReader(pool, **seconds),
    ) as one:
        yield one


@pytest.fixture(params=["socket", "tcp"])
async def client(api: Served, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    one = Client(socket=api.settings.socket) if request.param == "socket" else Client(api.addresses.url, token=TOKEN)
    async with one:
        yield one


async def test_jobs_and_all_that_is_told_of_one(client: Client, pool: Any, writer: ChainWriter) -> None:
    await add_minute(pool, writer)
    page = await client.jobs(state="failed", since=START, limit=1)
    assert ([job.job_id for job in page.jobs], page.total) == (["slurm-3"], 2)
    assert [job.job_id async for job in client.all_jobs()] == ["slurm-4", "slurm-3", "slurm-2", "slurm-1"]
    shown = await client.job("1", run=1)
    assert (shown.job_id, shown.exit_code, shown.cpu_seconds, shown.other_runs) == ("slurm-1", 1, 30.0, [])
    assert shown.start_time == START + timedelta(minutes=1)
    report = await client.report("1")
    assert report.sentence == shown.sentence
    assert report.job.memory_peak_bytes == 1 << 20
    metrics = await client.metrics("1", step=20)
    assert [sample.samples for sample in metrics.samples] == [2, 2]
    assert (await client.metrics("1", limit=1)).truncated == ["samples"]


async def test_the_trail(client: Client) -> None:
    assert [event.event_kind for event in await client.job_audit("2", limit=2)] == ["job_finished", "usage_recorded"]
    page = await client.audit(limit=3)
    assert [event.seq for event in page.events] == [10, 9, 8]
    rest = await client.audit(limit=20, cursor=page.next_cursor)
    assert ([event.seq for event in rest.events], rest.next_cursor) == ([7, 6, 5, 4, 3, 2, 1], None)
    assert [event.seq async for event in client.all_audit(changed_by="slurm-epilog")] == [8, 5, 2]


async def test_figures(client: Client) -> None:
    question = Question(
        metrics=(Metric.CPU_SECONDS,), begin=START, end=START + timedelta(hours=1), bucket=Bucket(unit=Unit.HOUR),
        group_by=(Dimension.ACCOUNT,), compare_previous=True,
    )  # fmt: skip
    analysis = await client.analytics(question)
    told = {group.group["account"]: group.values["cpu_seconds"] for group in analysis.totals}
    assert {account: (value.value, value.jobs, value.of, value.previous) for account, value in told.items()} == {
        "odd": (60.0, 2, 2, None), "even": (30.0, 1, 1, None),
    }  # fmt: skip


async def test_nodes_and_benchmarks_of_which_there_are_none(client: Client) -> None:
    assert (await client.nodes(limit=3)).nodes == []
    assert (await client.benchmark_runs(status="ok")).total == 0
    assert (await client.leaderboard()).metric == "output_token_throughput"
    for question in (client.benchmark_run("00000000"), client.compare("00000000", "11111111")):
        with pytest.raises(ApiError) as refused:
            await question
        assert (refused.value.status, refused.value.code) == (404, "not_found")


async def test_a_refusal_names_the_field(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        await client.jobs(state="gone")
    assert (refused.value.status, refused.value.code, refused.value.field) == (400, "validation_error", "state")
    assert "pending" in str(refused.value)
    with pytest.raises(ApiError, match="slurm-N"):
        await client.job("../nodes")


async def test_without_the_token_nothing_is_told(api: Served) -> None:
    for token, status in ((None, 401), (OTHER, 403)):
        async with Client(api.addresses.url, token=token) as client:
            with pytest.raises(ApiError) as refused:
                await client.jobs()
            assert refused.value.status == status


async def test_where_nobody_answers_and_who_does_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "none.sock")
    async with Client(socket=path) as client:
        with pytest.raises(Unreachable, match=r"none\.sock"):
            await client.jobs()

    async def other_service(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        writer.close()

    async with await asyncio.start_unix_server(other_service, path), Client(socket=path) as client:
        with pytest.raises(Unreachable, match="not Jobtrail"):
            await client.jobs()


async def test_rows_have_every_column(pool: Any) -> None:
    """A column that the API gives and the client does not know would be lost in silence."""
    wanted = {
        Job: ("jobs_list",),
        Sample: ("samples_show", "samples_by_step"),
        GpuSample: ("gpu_samples_show", "gpu_samples_by_step"),
        AuditEvent: ("trail_page",),
    }
    async with session(pool, 10.0) as connection:
        for kind, queries in wanted.items():
            columns = [
                attribute.name
                for name in queries
                for attribute in (await connection.prepare(SQL[name])).get_attributes()
            ]
            assert set(columns) == {field.name for field in msgspec.structs.fields(kind)}, kind

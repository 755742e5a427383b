"""The time lines of a run, read from samples: thinned out, apart from other runs', broken where nobody looked."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresReader, session
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.domain.job_report_timeline import MOST_GPUS, MOST_NODES, Timeline
from tests.chains import SECOND, T0, ChainWriter
from tests.job_rows import detail, gpu_row, job_row, node_row
from tests.measured_job import SAMPLES, look_times, make_partitions, store_measured_job

BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
NOW = BEGIN + timedelta(hours=3)


async def timeline(pool: Any, job: str = "7", now: datetime = NOW) -> Timeline:
    reader = PostgresReader(pool, timeout_seconds=30.0)
    return await reader.job_timeline(await reader.show_job(job), now=now)


async def test_a_run_has_a_line_of_each_node_gpu_and_component_with_the_marks_of_its_trail(pool: Any) -> None:
    await store_measured_job(pool, begin=BEGIN)
    told = await timeline(pool)
    assert told.seconds == 7200
    assert [line.node for line in told.nodes] == ["n1", "n2"]
    assert [line.gpu_id for line in told.gpus] == ["GPU-n1-a", "GPU-n1-b", "GPU-n2-c", "GPU-n2-d"]
    assert [line.component for line in told.energy] == ["cpu", "dram", "gpu"]
    for line in (*told.nodes, *told.gpus, *told.energy):
        moments = [point.seconds for point in line.points]
        assert moments == sorted(moments)
        assert 0 < moments[0] <= told.bucket_seconds
        assert 7185 <= moments[-1] <= 7200
        assert len(moments) <= 600
        (after,) = [point.seconds for point in line.points if point.gap]
        assert 3600 <= after < 3615
    joules = {line.component: line.points[-1].joules for line in told.energy}
    last = told.nodes[0].points[-1].seconds
    assert joules == {"gpu": pytest.approx(1400 * last), "cpu": pytest.approx(240 * last),
                      "dram": pytest.approx(20 * last)}  # fmt: skip
    (error,) = [mark for mark in told.marks if "error" in mark.what]
    assert (error.what, error.by, error.node) == ("GPU GPU-n1-a: error 94", "driver", "n1")
    assert [(mark.what, mark.by) for mark in told.marks if mark is not error] == [
        ("started", "slurm-prolog"), ("started", "slurm-prolog"), ("ended", "slurm-epilog"), ("ended", "slurm-epilog"),
        ("Slurm: COMPLETED", "reconciler"),
    ]  # fmt: skip


async def test_values_are_what_the_samples_said(pool: Any) -> None:
    await store_measured_job(pool, begin=BEGIN, gap=(0.0, 0.0))
    told = await timeline(pool)
    async with session(pool, 10.0) as connection:
        mean, most, limit = await connection.fetchrow(
            "SELECT avg(cpu_percent), max(memory_current_bytes), max(memory_limit_bytes) FROM job_samples"
            " WHERE node = 'n1' AND sampled_at > $1",
            BEGIN + timedelta(minutes=5),
        )
    points = [point for point in told.nodes[0].points if point.seconds > 300]
    known = [point.cpu_percent for point in points if point.cpu_percent is not None]
    assert sum(known) / len(known) == pytest.approx(mean, rel=0.01)
    assert max(point.memory_bytes or 0 for point in points) == most
    assert {point.memory_limit_bytes for point in points} == {limit}
    assert not any(point.gap for line in (*told.nodes, *told.gpus, *told.energy) for point in line.points)


@pytest.mark.parametrize("seconds", [2, 20, 100])
async def test_looks_that_are_ever_farther_apart_are_no_gaps(pool: Any, seconds: int) -> None:
    await store_measured_job(pool, begin=BEGIN, seconds=seconds, gap=(0.0, 0.0))
    told = await timeline(pool)
    assert len(look_times(seconds)) - 1 <= len(told.nodes[0].points) <= len(look_times(seconds))
    assert told.nodes[0].points[0].cpu_percent is None, "one sample has no rate"
    assert not any(point.gap for line in told.nodes for point in line.points)


async def test_two_runs_of_a_job_are_not_mixed_up(pool: Any) -> None:
    """The samples of a run are those that its own start opened, however close the runs are."""
    await store_measured_job(pool, begin=BEGIN)
    async with session(pool, 10.0) as connection:
        await connection.execute(SAMPLES, BEGIN, "n1", uuid.uuid4(), 7200.0, [10.0, 20.0, 7000.0])
        before = await timeline(pool)
        await connection.execute("UPDATE job_samples SET memory_current_bytes = 1 WHERE opened_by = $1", uuid.uuid4())
    assert before == await timeline(pool)
    assert not {10.0, 20.0, 7000.0} & {point.seconds for point in before.nodes[0].points}


async def test_a_run_whose_samples_are_gone_has_its_marks(pool: Any) -> None:
    await store_measured_job(pool, begin=BEGIN)
    async with session(pool, 10.0) as connection:
        await connection.execute("TRUNCATE job_samples, gpu_samples, energy_samples")
    told = await timeline(pool)
    assert told.is_empty
    assert len(told.marks) == 5


async def test_a_run_that_goes_on_is_told_up_to_now_and_one_that_waits_not_at_all(pool: Any) -> None:
    writer = ChainWriter("n1")
    opener = writer.started("slurm-8", round(BEGIN.timestamp() * SECOND) - T0)
    from jobtrail.adapters.postgres import PostgresSink

    await PostgresSink(pool).store(writer.rows, node="n1")
    async with session(pool, 10.0) as connection:
        await make_partitions(connection, BEGIN, BEGIN)
        sql = SAMPLES.replace("'slurm-7'", "'slurm-8'")
        await connection.execute(sql, BEGIN, "n1", uuid.UUID(opener), 60.0, [1.0, 16.0, 31.0])
    told = await timeline(pool, "8", BEGIN + timedelta(seconds=60))
    assert (told.seconds, len(told.nodes[0].points)) == (60, 3)
    reader = PostgresReader(pool, timeout_seconds=10.0)
    waiting = detail(job_row(start_time=None))
    assert await reader.job_timeline(waiting, now=NOW) == Timeline(seconds=0.0, bucket_seconds=0.0)


async def test_of_many_nodes_and_gpus_the_most_and_the_least_busy_are_told(pool: Any) -> None:
    nodes = [node_row(f"n{number}", cpu_seconds=float(number)) for number in range(30)]
    gpus = [gpu_row(f"GPU-{number}", busy_seconds=None if number == 7 else float(number)) for number in range(40)]
    many = detail(job_row(start_time=BEGIN, end_time=NOW), nodes=nodes, gpus=gpus)
    opener = uuid.uuid4()
    async with session(pool, 10.0) as connection:
        await make_partitions(connection, BEGIN, NOW)
        await connection.execute(
            "INSERT INTO job_nodes (cluster_name, job_id, run, node, opened_by, projection)"
            " VALUES ('c1', 'slurm-7', 1, 'n0', $1, '{}')",
            opener,
        )
        for node in nodes:
            await connection.execute(SAMPLES, BEGIN, node["node"], opener, 100.0, [1.0, 2.0])
    told = await PostgresReader(pool, timeout_seconds=10.0).job_timeline(many, now=NOW)
    assert (told.nodes_total, told.gpus_total) == (30, 40)
    assert {line.node for line in told.nodes} == {"n0", "n1", "n2", "n3", "n26", "n27", "n28", "n29"}
    assert len(told.nodes) == MOST_NODES < MOST_GPUS
    msgspec.json.encode(told)


async def test_a_week_of_eight_nodes_comes_back_small(pool: Any) -> None:
    """However many samples there are, a line has no more points than a page can show."""
    begin, opener = datetime.now(UTC) - timedelta(days=3), uuid.uuid4()
    times = [15.0 * number for number in range(3 * 5760)]
    nodes = [node_row(f"n{number}") for number in range(8)]
    long = detail(job_row(start_time=begin, end_time=begin + timedelta(days=3)), nodes=nodes)
    async with session(pool, 60.0) as connection:
        await make_partitions(connection, begin, begin + timedelta(days=3))
        await connection.execute(
            "INSERT INTO job_nodes (cluster_name, job_id, run, node, opened_by, projection)"
            " VALUES ('c1', 'slurm-7', 1, 'n0', $1, '{}')",
            opener,
        )
        for node in nodes:
            await connection.execute(SAMPLES, begin, node["node"], opener, 259200.0, times)
    told = await PostgresReader(pool, timeout_seconds=30.0).job_timeline(long, now=NOW)
    counts = {len(line.points) for line in told.nodes}
    assert max(counts) <= 9000 // 19 + 1
    assert min(counts) > 400


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("timeline_nodes", "job_samples"), ("timeline_gpus", "gpu_samples"), ("timeline_energy", "energy_samples"),
        ("timeline_gpu_errors", "gpu_samples"),
    ],
)  # fmt: skip
async def test_samples_are_found_through_the_jobs_index_in_the_days_of_the_run(
    pool: Any, query: str, index: str
) -> None:
    values = {
        "$1": "'c1'", "$2": "'slurm-7'", "$3": "ARRAY[gen_random_uuid()]", "$4": f"'{BEGIN}'::timestamptz",
        "$5": f"'{NOW}'::timestamptz", "$6": "600", "$7": "ARRAY['n1']", "$8": "ARRAY['GPU-a']",
    }  # fmt: skip
    text = SQL[query].partition("\n")[2]
    for name, value in values.items():
        text = text.replace(name, value)
    async with session(pool, 10.0) as connection:
        await make_partitions(connection, BEGIN - timedelta(days=4), NOW)
        await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + text))
        await connection.execute("RESET ALL")
    assert f"{index}_{BEGIN:%Y%m%d}_job_id_cluster_name_sampled_at_idx" in plan
    assert f"{index}_{BEGIN - timedelta(days=3):%Y%m%d}" not in plan

"""Readings of GPUs into gpu_samples."""

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresGpuSamples, close_pool, open_pool, session
from jobtrail.core.facts import Fact, SamplesDropped
from jobtrail.core.gpu.ports import GpuSampleRow
from jobtrail.domain.errors import StoreUnavailable
from jobtrail.domain.gpus import Gpu, GpuEvent, GpuProcess, GpuReading

DAY_US = 86_400 * 1_000_000
BOARD = Gpu(gpu_id="GPU-1", vendor="nvidia", minor=3, memory_total_bytes=80 << 30)
WITHOUT_NUMBER = {"gpu", "time_us", "throttle_reasons", "remapped_rows_pending", "events", "processes", "absent"}
NUMBERS = [name for name in GpuReading.__struct_fields__ if name not in WITHOUT_NUMBER]


def now_us() -> int:
    return time.time_ns() // 1000


def whole_reading(time_us: int) -> GpuReading:
    """Every value another number, so that a swapped column shows."""
    return GpuReading(
        gpu=BOARD,
        time_us=time_us,
        throttle_reasons=("sw_power_cap", "hw_slowdown"),
        remapped_rows_pending=True,
        events=(GpuEvent(time_us=time_us - 5, code=79),),
        processes=(GpuProcess(pid=11, memory_used_bytes=7), GpuProcess(pid=12)),
        absent={"fan": "not supported"},
        **{name: 1000 + index for index, name in enumerate(NUMBERS)},
    )


def row(reading: GpuReading, **fields: Any) -> GpuSampleRow:
    known = {"node": "n1", "cluster": "c1", "job_id": "slurm-1", "ref": str(uuid.uuid4())}
    return GpuSampleRow(**{**known, **fields}, reading=reading)


def sink(pool: Any, facts: list[Fact] | None = None) -> PostgresGpuSamples:
    return PostgresGpuSamples(pool, timeout_seconds=10.0, tell=(facts if facts is not None else []).append)


async def held(pool: Any) -> list[dict[str, Any]]:
    async with session(pool, 10.0) as connection:
        return [dict(one) for one in await connection.fetch("SELECT * FROM gpu_samples ORDER BY sampled_at")]


async def test_each_value_of_a_reading_arrives_in_its_own_column(pool: Any) -> None:
    sample = row(whole_reading(now_us()))
    reading = sample.reading
    await sink(pool).write_gpus([sample])
    (stored,) = await held(pool)
    assert stored.pop("sampled_at") == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=reading.time_us)
    assert str(stored.pop("opened_by")) == sample.ref
    assert {name: msgspec.json.decode(stored.pop(name)) for name in ("events", "processes", "absent")} == {
        "events": [{"time_us": reading.time_us - 5, "code": 79}],
        "processes": [{"pid": 11, "memory_used_bytes": 7}, {"pid": 12}],
        "absent": {"fan": "not supported"},
    }
    expected: dict[str, Any] = {
        "node": "n1", "gpu_id": "GPU-1", "vendor": "nvidia", "cluster_name": "c1", "job_id": "slurm-1",
        "memory_total_bytes": 80 << 30, "throttle_reasons": ["sw_power_cap", "hw_slowdown"],
        "remapped_rows_pending": True,
    }  # fmt: skip
    units = {
        "power_milliwatts": ("power_watts", 1e3), "power_limit_milliwatts": ("power_limit_watts", 1e3),
        "energy_microjoules": ("energy_joules", 1e6),
    }  # fmt: skip
    for name in NUMBERS:
        column, divisor = units.get(name, (name, 1))
        expected[column] = getattr(reading, name) / divisor
    assert stored == expected


async def test_what_is_unknown_is_null_and_what_is_none_is_none(pool: Any) -> None:
    """A GPU that runs freely, with no process, held by nobody, is another thing than one of which nothing is known."""
    now = now_us()
    free = GpuReading(
        gpu=BOARD, time_us=now, utilization_percent=0.0, memory_used_bytes=0, ecc_corrected=0, throttle_reasons=(),
        processes=(), remapped_rows_pending=False,
    )  # fmt: skip
    nobody = {"cluster": None, "job_id": None, "ref": None}
    await sink(pool).write_gpus([row(free, **nobody), row(GpuReading(gpu=BOARD, time_us=now + 1), **nobody)])
    known, unknown = await held(pool)
    names = ("utilization_percent", "memory_used_bytes", "ecc_corrected", "throttle_reasons", "processes",
             "remapped_rows_pending")  # fmt: skip
    assert [known[name] for name in names] == [0.0, 0, 0, [], "[]", False]
    assert {unknown[name] for name in (*names, "job_id", "cluster_name", "opened_by", "events", "absent")} == {None}


async def test_a_reading_of_a_day_long_gone_is_dropped_and_counted_and_the_others_are_kept(pool: Any) -> None:
    facts: list[Fact] = []
    now = now_us()
    rows = [row(whole_reading(at)) for at in (now - 40 * DAY_US, now, now + 40 * DAY_US)]
    assert await sink(pool, facts).write_gpus(rows) == len(rows) - 2
    assert [one["utilization_percent"] for one in await held(pool)] == [1000.0]
    assert facts == [SamplesDropped(rows=2)]


async def test_missing_partitions_of_today_are_made_on_the_way(pool: Any) -> None:
    facts: list[Fact] = []
    async with session(pool, 10.0) as connection:
        await connection.execute(f"DROP TABLE gpu_samples_{datetime.now(UTC):%Y%m%d}")
    await sink(pool, facts).write_gpus([row(whole_reading(now_us()))])
    assert len(await held(pool)) == 1
    assert facts == []


@pytest.mark.parametrize("wrong", [{"ref": "not a uuid"}, {"job_id": "nul \x00"}, {"node": "\ud800"}])
@pytest.mark.parametrize("place", [0, 3, 6])
async def test_a_refused_row_loses_no_other_and_is_counted(pool: Any, wrong: dict[str, str], place: int) -> None:
    """Whether asyncpg cannot encode the value or the server refuses it."""
    facts: list[Fact] = []
    now = now_us()
    rows = [row(whole_reading(now + number), **(wrong if number == place else {})) for number in range(7)]
    await sink(pool, facts).write_gpus(rows)
    stored = {(one["sampled_at"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for one in
              await held(pool)}  # fmt: skip
    assert stored == {now + number for number in range(7) if number != place}
    assert facts == [SamplesDropped(rows=1)]


async def test_a_refused_row_beside_one_of_a_day_long_gone(pool: Any) -> None:
    facts: list[Fact] = []
    now = now_us()
    rows = [row(whole_reading(now)), row(whole_reading(now), ref="not a uuid"), row(whole_reading(now - 40 * DAY_US))]
    await sink(pool, facts).write_gpus(rows)
    assert len(await held(pool)) == 1
    assert facts == [SamplesDropped(rows=2)]


async def test_nothing_to_write_and_many_rows_at_once(pool: Any) -> None:
    await sink(pool).write_gpus([])
    now = now_us()
    await sink(pool).write_gpus([row(whole_reading(now + number)) for number in range(2000)])
    assert len(await held(pool)) == 2000


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    opened = await open_pool("postgresql://x@127.0.0.1:1/x", size=1, timeout_seconds=5.0)
    with pytest.raises(StoreUnavailable):
        await sink(opened).write_gpus([row(whole_reading(now_us()))])
    await close_pool(opened, timeout_seconds=1.0)

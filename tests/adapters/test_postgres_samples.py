"""Readings into job_samples."""

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresSamples, close_pool, open_pool, session
from jobtrail.core.facts import Fact, SamplesDropped
from jobtrail.core.ports import SampleRow
from jobtrail.domain.errors import StoreRefused, StoreUnavailable
from jobtrail.domain.samples import Reading

DAY_US = 86_400 * 1_000_000


def now_us() -> int:
    return time.time_ns() // 1000


def row(reading: Reading, **fields: Any) -> SampleRow:
    known = {"cluster": "c1", "job_id": "slurm-1", "node": "n1", "ref": str(uuid.uuid4())}
    return SampleRow(**{**known, **fields}, reading=reading)


def sink(pool: Any, facts: list[Fact] | None = None) -> PostgresSamples:
    return PostgresSamples(pool, timeout_seconds=10.0, tell=(facts if facts is not None else []).append)


async def held(pool: Any) -> list[dict[str, Any]]:
    async with session(pool, 10.0) as connection:
        return [dict(one) for one in await connection.fetch("SELECT * FROM job_samples ORDER BY sampled_at")]


def whole_reading(time_us: int) -> Reading:
    """Every value another number, so that a swapped column shows."""
    names = [name for name in Reading.__struct_fields__ if name not in ("time_us", "source", "absent")]
    return Reading(time_us=time_us, source="cgroup_v2", **{name: 1000 + index for index, name in enumerate(names)})


async def test_each_value_of_a_reading_arrives_in_its_own_column(pool: Any) -> None:
    reading = whole_reading(now_us())
    sample = row(reading, cpu_percent=12.5)
    await sink(pool).write([sample])
    (stored,) = await held(pool)
    assert stored.pop("sampled_at") == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=reading.time_us)
    assert str(stored.pop("opened_by")) == sample.ref
    expected: dict[str, Any] = {
        "cluster_name": "c1", "job_id": "slurm-1", "node": "n1", "source": "cgroup_v2", "cpu_percent": 12.5,
        "absent": None,
    }  # fmt: skip
    for name in Reading.__struct_fields__:
        value = getattr(reading, name)
        if name.endswith("_us") and name != "time_us":
            seconds = {"cpu_usage_us": "cpu_seconds"}.get(name, name.removesuffix("_us") + "_seconds")
            expected[seconds] = value / 1e6
        elif name not in ("time_us", "source", "absent"):
            expected[name] = value
    assert stored == expected


async def test_an_absent_value_is_null_with_its_reason_and_zero_stays_zero(pool: Any) -> None:
    reading = Reading(
        time_us=now_us(), source="cgroup_v1", cpu_usage_us=0, oom_kills=0, absent={"io_read_bytes": "no blkio"}
    )
    await sink(pool).write([row(reading)])
    (stored,) = await held(pool)
    assert (stored["cpu_seconds"], stored["oom_kills"]) == (0.0, 0)
    assert (stored["io_read_bytes"], stored["memory_peak_bytes"], stored["cpu_percent"]) == (None, None, None)
    assert msgspec.json.decode(stored["absent"]) == {"io_read_bytes": "no blkio"}


async def test_a_reading_of_a_day_long_gone_is_dropped_and_counted_and_the_others_are_kept(pool: Any) -> None:
    facts: list[Fact] = []
    now = now_us()
    rows = [row(whole_reading(now - 40 * DAY_US)), row(whole_reading(now)), row(whole_reading(now + 40 * DAY_US))]
    assert await sink(pool, facts).write(rows) == 1
    assert [one["cpu_seconds"] for one in await held(pool)] == [0.001]
    assert facts == [SamplesDropped(rows=2)]


async def test_missing_partitions_of_today_are_made_on_the_way(pool: Any) -> None:
    """A daemon without the server role must not lose samples because housekeeping is late."""
    facts: list[Fact] = []
    async with session(pool, 10.0) as connection:
        await connection.execute(f"DROP TABLE job_samples_{datetime.now(UTC):%Y%m%d}")
    await sink(pool, facts).write([row(whole_reading(now_us()))])
    assert len(await held(pool)) == 1
    assert facts == []


async def test_nothing_to_write_and_many_rows_at_once(pool: Any) -> None:
    await sink(pool).write([])
    now = now_us()
    await sink(pool).write([row(whole_reading(now + number)) for number in range(2000)])
    assert len(await held(pool)) == 2000


@pytest.mark.parametrize("wrong", [{"ref": "not a uuid"}, {"job_id": "nul \x00"}, {"node": "\ud800"}])
async def test_a_value_its_column_cannot_hold_is_refused_and_the_connection_stays_good(
    pool: Any, wrong: dict[str, str]
) -> None:
    with pytest.raises(StoreRefused):
        await sink(pool).write([row(whole_reading(now_us())), row(whole_reading(now_us()), **wrong)])
    assert await held(pool) == []
    await sink(pool).write([row(whole_reading(now_us()))])
    assert len(await held(pool)) == 1


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    opened = await open_pool("postgresql://x@127.0.0.1:1/x", size=1, timeout_seconds=5.0)
    with pytest.raises(StoreUnavailable):
        await sink(opened).write([row(whole_reading(now_us()))])
    await close_pool(opened, timeout_seconds=1.0)

"""What runs had used at each look into energy_samples."""

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobtrail.adapters.postgres import PostgresEnergySamples, close_pool, open_pool, session
from jobtrail.core.facts import Fact, SamplesDropped
from jobtrail.core.gpu.ports import EnergySampleRow
from jobtrail.domain.benchmarks.settling import EnergySample
from jobtrail.domain.emissions import EmissionFactor, EmissionMethod
from jobtrail.domain.errors import StoreUnavailable

DAY_US = 86_400 * 1_000_000
FACTOR = EmissionFactor(grams_per_kwh=105.3, year=2023, source="LU: a source", method=EmissionMethod.COUNTRY)


def now_us() -> int:
    return time.time_ns() // 1000


def row(time_us: int, **fields: Any) -> EnergySampleRow:
    """Every value another number, so that a swapped column shows."""
    sample = EnergySample(
        node="n1", time_us=time_us, gpu_microjoules=1_500_000, cpu_microjoules=2_500_000, dram_microjoules=3_500_000,
        covered_us=4_500_000, gpu_method="counter",
    )  # fmt: skip
    known: dict[str, Any] = {
        "cluster": "c1", "job_id": "slurm-1", "ref": str(uuid.uuid4()), "sample": sample, "gpu_ids": ("MIG-1", "GPU-2"),
        "shared_gpu_ids": ("GPU-2",), "board_ids": ("GPU-1",), "factor": FACTOR, "pue": 1.25,
    }  # fmt: skip
    return EnergySampleRow(**{**known, **fields})


def sink(pool: Any, facts: list[Fact] | None = None) -> PostgresEnergySamples:
    return PostgresEnergySamples(pool, timeout_seconds=10.0, tell=(facts if facts is not None else []).append)


async def held(pool: Any) -> list[dict[str, Any]]:
    async with session(pool, 10.0) as connection:
        return [dict(one) for one in await connection.fetch("SELECT * FROM energy_samples ORDER BY sampled_at")]


async def test_each_value_arrives_in_its_own_column(pool: Any) -> None:
    sample = row(now_us())
    await sink(pool).write_energy([sample])
    (stored,) = await held(pool)
    assert str(stored.pop("opened_by")) == sample.ref
    assert stored == {
        "sampled_at": datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=sample.sample.time_us),
        "cluster_name": "c1", "job_id": "slurm-1", "node": "n1", "gpu_joules": 1.5, "cpu_joules": 2.5,
        "dram_joules": 3.5, "covered_seconds": 4.5, "gpu_method": "counter", "gpu_ids": ["MIG-1", "GPU-2"],
        "shared_gpu_ids": ["GPU-2"], "board_ids": ["GPU-1"], "emission_factor_grams_per_kwh": 105.3,
        "emission_factor_year": 2023, "emission_factor_source": "LU: a source", "pue": 1.25,
    }  # fmt: skip


async def test_what_is_unknown_is_null_and_what_is_none_is_none(pool: Any) -> None:
    now = now_us()
    nothing = {"board_ids": (), "factor": None, "pue": None}
    none = row(now, gpu_ids=(), shared_gpu_ids=(), **nothing)
    unknown = row(
        now + 1, gpu_ids=None, shared_gpu_ids=None, sample=EnergySample(node="n1", time_us=now + 1), **nothing
    )
    await sink(pool).write_energy([none, unknown])
    first, second = await held(pool)
    assert (first["gpu_ids"], first["shared_gpu_ids"], first["board_ids"], first["pue"]) == ([], [], None, None)
    known = {"sampled_at", "cluster_name", "job_id", "node", "opened_by"}
    assert {name for name, value in second.items() if value is not None} == known


@pytest.mark.parametrize("wrong", [{"ref": "not a uuid"}, {"job_id": "nul \x00"}])
async def test_what_cannot_be_stored_is_dropped_alone_and_counted(pool: Any, wrong: dict[str, str]) -> None:
    """A row with a value that is refused, and one of a day long gone."""
    facts: list[Fact] = []
    now = now_us()
    rows = [row(now + number) for number in range(5)] + [row(now + 5, **wrong), row(now - 40 * DAY_US)]
    assert await sink(pool, facts).write_energy(rows) == 5
    assert len(await held(pool)) == 5
    assert facts == [SamplesDropped(rows=2)]


async def test_missing_partitions_of_today_are_made_on_the_way(pool: Any) -> None:
    facts: list[Fact] = []
    async with session(pool, 10.0) as connection:
        await connection.execute(f"DROP TABLE energy_samples_{datetime.now(UTC):%Y%m%d}")
    await sink(pool, facts).write_energy([row(now_us())])
    assert len(await held(pool)) == 1
    assert facts == []


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    opened = await open_pool("postgresql://x@127.0.0.1:1/x", size=1, timeout_seconds=5.0)
    with pytest.raises(StoreUnavailable):
        await sink(opened).write_energy([row(now_us())])
    await close_pool(opened, timeout_seconds=1.0)

"""GPUs, energy and emissions of runs: from nodes' reports in any order to job_gpus, jobs and job_energy, and back."""

import asyncio
import io
from itertools import permutations
from typing import Any

import msgspec
import pytest
from rich.console import Console

from jobtrail.adapters.postgres import (
    PostgresReader,
    PostgresSink,
    RebuildReport,
    migrate,
    rebuild,
    rebuild_check,
    session,
)
from jobtrail.cli.jobs import print_job
from jobtrail.domain.emissions import EmissionFactor, EmissionMethod
from jobtrail.domain.events import GpuUsage, NodeUsage
from jobtrail.domain.usage import with_emissions
from tests.chains import SECOND, ChainWriter

JOULE = 1_000_000  # µJ
LUX = EmissionFactor(
    grams_per_kwh=105.3, year=2023, source="LU: Our World in Data, CC BY 4.0", method=EmissionMethod.COUNTRY
)


def gpu(gpu_id: str, seconds: float, **values: Any) -> GpuUsage:
    """A GPU looked at for `seconds`, busy half of them, which used 300 W."""
    known: dict[str, Any] = {
        "vendor": "nvidia", "minor": 2, "name": "NVIDIA H100 80GB HBM3", "memory_total_bytes": 80 << 30,
        "resolved_by": "gres_conf", "observed_us": round(seconds * SECOND), "busy_us": round(seconds * SECOND / 2),
        "unused_us": 0, "memory_peak_bytes": 5 << 30, "energy_microjoules": round(seconds * 300 * JOULE),
        "energy_covered_us": round(seconds * SECOND), "energy_method": "counter",
    }  # fmt: skip
    return GpuUsage(gpu_id=gpu_id, **{**known, **values})


def usage(*gpus: GpuUsage, cpu_joules: int | None = None, factor: EmissionFactor | None = LUX) -> NodeUsage:
    """What a node reports when it has these GPUs, as long as the first was looked at."""
    covered = gpus[0].observed_us
    sources = {"energy_gpu": "counter"} | ({} if cpu_joules is None else {"energy_cpu": "apportioned"})
    report = NodeUsage(
        gpu_observed_us=sum(one.observed_us or 0 for one in gpus),
        gpu_busy_us=sum(one.busy_us or 0 for one in gpus),
        gpu_unused_us=sum(one.unused_us or 0 for one in gpus),
        gpu_memory_peak_bytes=max(one.memory_peak_bytes or 0 for one in gpus),
        energy_gpu_microjoules=sum(one.energy_microjoules or 0 for one in gpus),
        energy_cpu_microjoules=None if cpu_joules is None else cpu_joules * JOULE,
        energy_covered_us=covered,
        gpus=gpus,
        sample_count=round((covered or 0) / SECOND),
        covered_us=covered,
        sources=sources,
        absent={"energy_dram_microjoules": "no such zone"},
    )
    return with_emissions(report, factor, 1.2)


def two_nodes() -> tuple[ChainWriter, ChainWriter]:
    """A run of ten seconds on n1 with two GPUs, one of them held and unused, and on n2 with one and CPU energy."""
    one, other = ChainWriter("n1"), ChainWriter("n2")
    idle = {"busy_us": 0, "memory_peak_bytes": 1 << 20, "minor": 3}
    for writer in (one, other):
        opened_by = writer.started("slurm-1", nodes=["n1", "n2"], account="physics", gpus_total=3)
        for seconds in (4.0, 9.0):
            if writer is one:
                held = gpu("GPU-b", seconds, unused_us=round(seconds * SECOND), **idle)
                report = usage(gpu("GPU-a", seconds, errors={"31": 1}), held)
            else:
                report = usage(gpu("GPU-c", seconds, errors={"48": 1, "31": 2}), cpu_joules=round(100 * seconds))
            writer.used("slurm-1", round(seconds * SECOND), report, opened_by=opened_by)
        writer.finished("slurm-1", 10 * SECOND, opened_by=opened_by)
    return one, other


async def fetch(pool: Any, query: str) -> list[dict[str, Any]]:
    async with session(pool, 10.0) as connection:
        return [dict(row) for row in await connection.fetch(query)]


async def store_all(pool: Any, *writers: ChainWriter) -> None:
    for writer in writers:
        await PostgresSink(pool).store(writer.rows, node=writer.node)


async def check(pool: Any) -> RebuildReport:
    async with session(pool, 10.0) as connection:
        return await rebuild_check(connection)


async def test_each_gpu_of_a_run_has_a_row_with_all_that_is_known_of_it(pool: Any) -> None:
    await store_all(pool, *two_nodes())
    rows = await fetch(pool, "SELECT * FROM job_gpus ORDER BY node, gpu_id")
    assert [(row["node"], row["gpu_id"]) for row in rows] == [("n1", "GPU-a"), ("n1", "GPU-b"), ("n2", "GPU-c")]
    first = {name: value for name, value in rows[0].items() if name != "updated_at"}
    assert first == {
        "cluster_name": "c1", "job_id": "slurm-1", "run": 1, "node": "n1", "gpu_id": "GPU-a", "vendor": "nvidia",
        "minor": 2, "name": "NVIDIA H100 80GB HBM3", "memory_total_bytes": 80 << 30, "resolved_by": "gres_conf",
        "observed_seconds": 9.0, "busy_seconds": 4.5, "unused_seconds": 0.0, "utilization_mean_percent": 50.0,
        "memory_peak_bytes": 5 << 30, "energy_joules": 2700.0, "energy_covered_seconds": 9.0,
        "energy_coverage_ratio": 0.9, "energy_method": "counter", "errors": '{"31": 1}', "attribution_mismatch": None,
    }  # fmt: skip
    held = rows[1]
    assert (held["unused_seconds"], held["utilization_mean_percent"], held["errors"]) == (9.0, 0.0, None)


async def test_a_job_is_shown_with_its_gpus_and_its_energy(pool: Any) -> None:
    """Also the GPU that no process used, and the errors the driver told."""
    await store_all(pool, *two_nodes())
    detail = await PostgresReader(pool, timeout_seconds=10.0).show_job("1")
    assert [(row["node"], row["gpu_id"], row["errors"]) for row in detail.gpus] == [
        ("n1", "GPU-a", {"31": 1}), ("n1", "GPU-b", None), ("n2", "GPU-c", {"48": 1, "31": 2}),
    ]  # fmt: skip
    out = io.StringIO()
    print_job(Console(file=out, width=400, highlight=False), detail)
    page = out.getvalue()
    assert "gpus          3: 33 % busy, peak memory 5.0 GiB, 9.00 s of 27.00 s without a process of the job" in page
    assert "energy        9.0 kJ (GPU 8.1 kJ, CPU 900 J" in page
    (unused,) = [line for line in page.splitlines() if "GPU-b" in line]
    assert " 0 %" in unused
    assert " 9.00 s" in unused
    assert "errors 31 x2, 48 x1" in page


async def test_a_job_without_gpus_shows_none(pool: Any) -> None:
    writer = ChainWriter("n1")
    opened_by = writer.started("slurm-1", nodes=["n1"], gpus_total=0)
    writer.finished("slurm-1", 10 * SECOND, opened_by=opened_by)
    await store_all(pool, writer)
    detail = await PostgresReader(pool, timeout_seconds=10.0).show_job("1")
    out = io.StringIO()
    print_job(Console(file=out, width=400, highlight=False), detail)
    assert detail.gpus == []
    assert "gpus  " not in out.getvalue()
    assert "energy  " not in out.getvalue()


async def test_a_run_has_the_sums_over_its_nodes_and_the_view_says_what_they_rest_on(pool: Any) -> None:
    await store_all(pool, *two_nodes())
    (job,) = await fetch(pool, "SELECT * FROM jobs")
    assert (job["gpu_seconds"], job["gpu_busy_seconds"], job["gpu_unused_seconds"]) == (27.0, 9.0, 9.0)
    assert job["gpu_utilization_mean_percent"] == pytest.approx(100 / 3)
    assert job["gpu_memory_peak_bytes"] == 5 << 30
    (energy,) = await fetch(pool, "SELECT * FROM job_energy")
    joules = 27 * 300 + 900
    expected = {
        "account": "physics", "energy_gpu_joules": 27 * 300.0, "energy_cpu_joules": 900.0, "energy_dram_joules": None,
        "energy_joules": float(joules), "energy_covered_seconds": 18.0, "energy_coverage_ratio": 0.9,
        "energy_method": "mixed", "emission_factor_grams_per_kwh": 105.3, "emission_factor_year": 2023,
        "emission_factor_source": "LU: Our World in Data, CC BY 4.0", "pue": 1.2,
    }  # fmt: skip
    assert {name: energy[name] for name in expected} == expected
    assert energy["emissions_grams"] == pytest.approx(joules / 3.6e6 * 1.2 * 105.3, rel=1e-6)
    (node,) = await fetch(pool, "SELECT * FROM job_nodes WHERE node = 'n1'")
    assert (node["gpu_seconds"], node["energy_joules"], node["energy_method"]) == (18.0, 5400.0, "counter")
    assert node["emissions_grams"] == pytest.approx(5400 / 3.6e6 * 1.2 * 105.3, rel=1e-6)


async def test_efficiency_of_gpus_is_of_the_time_in_which_they_were_looked_at(pool: Any) -> None:
    await store_all(pool, *two_nodes())
    (row,) = await fetch(
        pool, "SELECT gpus_allocated, gpu_efficiency, gpu_unused_ratio, gpu_coverage_ratio FROM job_efficiency"
    )
    assert row == {
        "gpus_allocated": 3,
        "gpu_efficiency": pytest.approx(1 / 3),
        "gpu_unused_ratio": pytest.approx(1 / 3),
        "gpu_coverage_ratio": pytest.approx(0.9),
    }


VALUES = "to_jsonb(t) - 'updated_at' - 'projection' - 'correlation_id' - 'opened_by' - 'verdict_evidence'"


async def test_the_order_in_which_nodes_reports_come_does_not_matter(pool: Any) -> None:
    """Each node's chain keeps its own order; a report that is older than what is held changes nothing."""
    found = set()
    for order in set(permutations(["one", "other", "one", "other"])):
        writers = dict(zip(("one", "other"), two_nodes(), strict=True))
        halves = {name: [writer.rows[:2], writer.rows[2:]] for name, writer in writers.items()}
        for name in order:
            await PostgresSink(pool).store(halves[name].pop(0), node=writers[name].node)
        rows = [
            await fetch(pool, f"SELECT {VALUES} AS value FROM {table} t ORDER BY 1")
            for table in ("jobs", "job_nodes", "job_gpus")
        ]
        found.add(str(rows))
        async with session(pool, 10.0) as connection:
            await connection.execute("TRUNCATE jobs, job_nodes, job_gpus")
    assert len(found) == 1


async def test_an_older_report_that_comes_late_takes_nothing_back(pool: Any) -> None:
    writer = ChainWriter("n1")
    opened_by = writer.started("slurm-1")
    for seconds in (9.0, 4.0):
        writer.used("slurm-1", round(seconds * SECOND), usage(gpu("GPU-a", seconds)), opened_by=opened_by)
    await store_all(pool, writer)
    (row,) = await fetch(pool, "SELECT observed_seconds, energy_joules FROM job_gpus")
    assert row == {"observed_seconds": 9.0, "energy_joules": 2700.0}
    assert (await check(pool)).equal


async def test_a_rebuild_gives_the_same_rows_and_names_what_was_changed_by_hand(pool: Any) -> None:
    await store_all(pool, *two_nodes())
    before = await fetch(pool, f"SELECT {VALUES} AS value FROM job_gpus t ORDER BY 1")
    assert (await check(pool)).equal
    async with session(pool, 10.0) as connection:
        await connection.execute("UPDATE job_gpus SET busy_seconds = 1e9 WHERE gpu_id = 'GPU-a'")
        await connection.execute("DELETE FROM job_gpus WHERE gpu_id = 'GPU-b'")
        await connection.execute("UPDATE jobs SET emissions_grams = 0")
        for job_id in ("slurm-1", "slurm-99"):
            await connection.execute("INSERT INTO job_gpus VALUES ('c1', $1, 1, 'n9', 'GPU-x')", job_id)
        report = await rebuild_check(connection)
        named = [(one.job_id, one.node, one.field, one.stored) for one in report.differences if one.node]
        assert named == [
            ("slurm-1", "n1", "GPU-a.busy_seconds", 1e9), ("slurm-1", "n1", "GPU-b.row", None),
            ("slurm-1", "n9", "GPU-x.row", "present"),
        ]  # fmt: skip
        others = {(one.job_id, one.field) for one in report.differences if not one.node}
        assert others == {("slurm-1", "emissions_grams"), ("slurm-99", "row")}
        assert report.differing == 5
        await rebuild(connection)
    assert (await check(pool)).equal
    assert await fetch(pool, f"SELECT {VALUES} AS value FROM job_gpus t ORDER BY 1") == before


async def test_what_an_undone_migration_took_away_comes_back_from_the_trail(pool: Any, database: str) -> None:
    await store_all(pool, *two_nodes())
    before = await fetch(pool, f"SELECT {VALUES} AS value FROM job_gpus t ORDER BY 1")
    await asyncio.to_thread(migrate.downgrade, database, "0002")
    (job,) = await fetch(pool, "SELECT gpu_seconds, energy_joules, emissions_grams FROM jobs")
    assert set(job.values()) == {None}
    await asyncio.to_thread(migrate.upgrade, database)
    async with session(pool, 10.0) as connection:
        assert not (await rebuild(connection)).equal
    assert (await check(pool)).equal
    assert await fetch(pool, f"SELECT {VALUES} AS value FROM job_gpus t ORDER BY 1") == before


async def test_energy_of_a_node_without_a_factor_leaves_the_run_without_grams(pool: Any) -> None:
    one, other = ChainWriter("n1"), ChainWriter("n2")
    for writer, factor in ((one, LUX), (other, None)):
        opened_by = writer.started("slurm-1", nodes=["n1", "n2"])
        writer.used("slurm-1", 9 * SECOND, usage(gpu("GPU-a", 9.0), factor=factor), opened_by=opened_by)
    await store_all(pool, one, other)
    query = "SELECT energy_joules, emissions_grams, emission_factor_grams_per_kwh, emission_factor_source, pue FROM {}"
    (job,) = await fetch(pool, query.format("job_energy"))
    assert job == dict.fromkeys(job, None) | {"energy_joules": 5400.0}
    parts = await fetch(pool, query.format("job_nodes ORDER BY node"))
    assert [part["emissions_grams"] is None for part in parts] == [False, True]
    assert (await check(pool)).equal


async def test_nodes_with_different_factors_are_added_up_and_all_factors_named(pool: Any) -> None:
    own = msgspec.structs.replace(LUX, grams_per_kwh=20.0, year=None, source="configured")
    one, other = ChainWriter("n1"), ChainWriter("n2")
    for writer, factor in ((one, LUX), (other, own)):
        opened_by = writer.started("slurm-1", nodes=["n1", "n2"])
        writer.used("slurm-1", 9 * SECOND, usage(gpu("GPU-a", 9.0), factor=factor), opened_by=opened_by)
    await store_all(pool, one, other)
    (job,) = await fetch(pool, "SELECT * FROM job_energy")
    assert job["emissions_grams"] == pytest.approx(2700 / 3.6e6 * 1.2 * (105.3 + 20), rel=1e-6)
    assert (job["emission_factor_grams_per_kwh"], job["emission_factor_year"], job["pue"]) == (None, None, None)
    assert job["emission_factor_source"] == (
        "20 g/kWh, PUE 1.2, configured; 105.3 g/kWh, PUE 1.2, LU: Our World in Data, CC BY 4.0 2023"
    )


async def test_a_run_without_gpus_has_no_row_and_no_zero(pool: Any) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    await store_all(pool, writer)
    assert await fetch(pool, "SELECT * FROM job_gpus") == []
    (job,) = await fetch(
        pool,
        "SELECT gpu_seconds, gpu_busy_seconds, gpu_unused_seconds, gpu_utilization_mean_percent, energy_joules,"
        " energy_gpu_joules, energy_covered_seconds, energy_coverage_ratio, energy_method, emissions_grams,"
        " emission_factor_source, pue FROM jobs",
    )
    assert set(job.values()) == {None}
    (efficiency,) = await fetch(pool, "SELECT gpu_efficiency, gpu_unused_ratio, gpu_coverage_ratio FROM job_efficiency")
    assert set(efficiency.values()) == {None}


async def test_a_gpu_that_was_not_found_is_shown_without_values(pool: Any) -> None:
    writer = ChainWriter()
    opened_by = writer.started("slurm-1")
    report = NodeUsage(gpus=(GpuUsage(gpu_id="unresolved:7", mismatch="nul \x00"),))
    writer.used("slurm-1", 5 * SECOND, report, opened_by=opened_by)
    await store_all(pool, writer)
    (row,) = await fetch(pool, "SELECT * FROM job_gpus")
    assert (row["gpu_id"], row["attribution_mismatch"]) == ("unresolved:7", "nul \ufffd")
    values = [name for name in row if name.endswith(("_seconds", "_joules", "_percent", "_ratio", "_bytes"))]
    assert {row[name] for name in values} == {None}
    assert (await check(pool)).equal

"""A job as the database holds it once it has run: two nodes, four GPUs of which one was never used, a gap, its trail.

Its samples are what a node would have written, made by the database itself so that there can be many.
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from jobtrail.adapters.postgres import PostgresSink, session
from jobtrail.domain.events import Actor, EmissionBasis, EventKind, GpuUsage, NodeUsage
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import Origin, SlurmRecord
from tests.chains import SECOND, T0, ChainWriter

NODES = ("n1", "n2")
GIB = 1 << 30
HOSTILE_NAME = "<script>alert('1')</script> \"&amp; \x1b[31mred http://example.org"
SAMPLES = """
INSERT INTO job_samples (sampled_at, cluster_name, job_id, node, opened_by, source, cpu_percent, memory_current_bytes,
    memory_limit_bytes)
SELECT $1::timestamptz + make_interval(secs => at), 'c1', 'slurm-7', $2, $3, 'cgroup_v2',
    CASE WHEN at > 1 THEN 55 + 35 * sin(at / 600.0) END,
    (2 + 9 * at / $4::double precision) * 1073741824, 17179869184::bigint
FROM unnest($5::double precision[]) AS at
"""
GPU_SAMPLES = """
INSERT INTO gpu_samples (sampled_at, cluster_name, job_id, node, opened_by, gpu_id, vendor, utilization_percent,
    memory_used_bytes, memory_total_bytes, power_watts, events)
SELECT $1::timestamptz + make_interval(secs => at), 'c1', 'slurm-7', $2, $3, gpu, 'nvidia',
    CASE WHEN gpu LIKE '%-d' THEN 0 ELSE 70 + 25 * sin(at / 300.0 + ascii(right(gpu, 1))) END,
    CASE WHEN gpu LIKE '%-d' THEN 4 << 20 ELSE 34359738368 END, 85899345920,
    CASE WHEN gpu LIKE '%-d' THEN 68 ELSE 420 + 150 * sin(at / 300.0) END,
    CASE WHEN gpu LIKE '%-a' AND at = $5::double precision THEN '[{"time_us": 1, "code": 94}]'::jsonb END
FROM unnest($4::double precision[]) AS at, unnest($6::text[]) AS gpu
"""
ENERGY_SAMPLES = """
INSERT INTO energy_samples (sampled_at, cluster_name, job_id, node, opened_by, gpu_joules, cpu_joules, dram_joules)
SELECT $1::timestamptz + make_interval(secs => at), 'c1', 'slurm-7', $2, $3, 700 * at, 120 * at,
    CASE WHEN $2 = 'n1' THEN 20 * at END
FROM unnest($4::double precision[]) AS at
"""


def look_times(seconds: float, gap: tuple[float, float] = (0.0, 0.0), interval: float = 15.0) -> list[float]:
    """When a node looks: ever farther apart at first, then each interval, and never within `gap`."""
    times, at = [], 0.1
    while at <= seconds:
        if not gap[0] < at < gap[1]:
            times.append(at)
        at += min(at, interval)
    return times


def usage(node: str, seconds: int) -> NodeUsage:
    """What a node told at the end."""
    us = seconds * SECOND
    gpus = tuple(
        GpuUsage(
            gpu_id=f"GPU-{node}-{letter}", vendor="nvidia", minor=number, name="NVIDIA H100 80GB HBM3",
            memory_total_bytes=80 * GIB, resolved_by="minor", observed_us=us, busy_us=0 if unused else us * 7 // 10,
            unused_us=us if unused else 0, memory_peak_bytes=4 << 20 if unused else 32 * GIB,
            energy_microjoules=(68 if unused else 420) * us, energy_covered_us=us, energy_method="counter",
            errors={"94": 1} if letter == "a" else {},
        )
        for number, letter in enumerate({"n1": "ab", "n2": "cd"}[node])
        for unused in (letter == "d",)
    )  # fmt: skip
    return NodeUsage(
        cpu_usage_us=us * (4 if node == "n1" else 1), memory_peak_bytes=11 * GIB, memory_limit_bytes=16 * GIB,
        io_read_bytes=5 * GIB, io_write_bytes=GIB, sample_count=seconds // 15, covered_us=us - SECOND,
        gpu_observed_us=2 * us, gpu_busy_us=sum(gpu.busy_us or 0 for gpu in gpus),
        gpu_unused_us=sum(gpu.unused_us or 0 for gpu in gpus), gpu_memory_peak_bytes=32 * GIB, gpus=gpus,
        energy_gpu_microjoules=700 * us, energy_cpu_microjoules=120 * us, energy_dram_microjoules=20 * us,
        energy_covered_us=us - SECOND, emissions_micrograms=106_680 * seconds, emissions_energy_microjoules=840 * us,
        emission_bases=(EmissionBasis(
            micrograms_per_kwh=381_000_000, pue_millionths=1_200_000, source="Umweltbundesamt", year=2024),),
        sources={"usage": "cgroup_v2", "energy_gpu": "counter"},
    )  # fmt: skip


async def store_measured_job(
    pool: Any, *, begin: datetime, seconds: int = 7200, name: str = HOSTILE_NAME, uid: int = 1000,
    gap: tuple[float, float] = (3000.0, 3600.0),
) -> None:  # fmt: skip
    """Job slurm-7 in cluster c1, task 3 of array slurm-6, which ran to its end."""
    offset = round(begin.timestamp() * SECOND) - T0
    openers: dict[str, str] = {}
    for node in NODES:
        writer = ChainWriter(node)
        facts: dict[str, Any] = {"account": "physics", "uid": uid, "job_name": name}
        openers[node] = writer.started("slurm-7", offset, NODES, **facts)
        writer.finished("slurm-7", offset + seconds * SECOND, 0, opened_by=openers[node])
        writer.used("slurm-7", offset + seconds * SECOND + 1, usage(node, seconds), opened_by=openers[node])
        if node == NODES[0]:
            start = round(begin.timestamp())
            known = JobFacts(
                array_job_id="slurm-6", array_task_id=3, time_limit_seconds=8 * 3600, memory_requested_bytes=32 * GIB,
                cpus_total=8, gpus_total=4,
            )  # fmt: skip
            record = SlurmRecord(
                origin=Origin.SLURMDBD, job_id="slurm-7", state="COMPLETED", start_time=start, submit_time=start - 600,
                outcome=Outcome(exit_code=0), facts=known,
            )  # fmt: skip
            at = offset + (seconds + 5) * SECOND
            writer.event(EventKind.SLURM_REPORTED, "slurm-7", at, Actor.RECONCILER, run=1, slurm=record)
        await PostgresSink(pool).store(writer.rows, node=node)
    await store_samples(pool, openers, begin=begin, seconds=seconds, gap=gap)


async def store_samples(
    pool: Any, openers: dict[str, str], *, begin: datetime, seconds: float, gap: tuple[float, float]
) -> None:
    """What the nodes saw of it."""
    times = look_times(seconds, gap)
    async with session(pool, 60.0) as connection:
        await make_partitions(connection, begin, begin + timedelta(seconds=seconds))
        for node, opener in openers.items():
            ref = uuid.UUID(opener)
            gpus = [f"GPU-{node}-{letter}" for letter in {"n1": "ab", "n2": "cd"}[node]]
            await connection.execute(SAMPLES, begin, node, ref, seconds, times)
            await connection.execute(GPU_SAMPLES, begin, node, ref, times, times[len(times) // 3], gpus)
            await connection.execute(ENERGY_SAMPLES, begin, node, ref, times)


async def make_partitions(connection: Any, begin: datetime, end: datetime) -> None:
    """Those of the days that have none; a fresh database has yesterday's and later ones."""
    day = begin.astimezone(UTC).date()
    while day <= end.astimezone(UTC).date():
        for table in ("job_samples", "gpu_samples", "energy_samples"):
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table}_{day:%Y%m%d} PARTITION OF {table}"
                f" FOR VALUES FROM ('{day} 00:00:00+00') TO ('{day + timedelta(days=1)} 00:00:00+00')"
            )
        day += timedelta(days=1)

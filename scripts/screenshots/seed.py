"""What the pictures show: a made-up cluster called `demo`, whose every name says so.

Its jobs and runs of benchmarks enter as events of chains, and its samples as a node would have written them.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.benchmark_reports import report, tell
from tests.chains import SECOND, T0, ChainWriter
from tests.measured_job import look_times, make_partitions

from jobtrail.adapters.postgres import PostgresSink, session
from jobtrail.domain.benchmarks.report import Hardware, RecipeIdentity
from jobtrail.domain.events import Actor, EmissionBasis, EventKind, GpuUsage, NodeUsage
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import Origin, SlurmRecord

CLUSTER = "demo"
JOB = "slurm-4711"  # the one whose report is shown
KILLED = "slurm-4712"
SECONDS = 3 * 3600
GIB = 1 << 30
GPUS = {"demo-g1": ("demo-GPU-a", "demo-GPU-b"), "demo-g2": ("demo-GPU-c", "demo-GPU-d")}
UNUSED = "demo-GPU-d"
# Ten epochs of training, each with a pause in which its state is saved; before them the data are read.
SAMPLES = """
INSERT INTO job_samples (sampled_at, cluster_name, job_id, node, opened_by, source, cpu_percent, memory_current_bytes,
    memory_limit_bytes)
SELECT $1::timestamptz + make_interval(secs => at), $6, $7, $2, $3, 'cgroup_v2',
    CASE WHEN at > 1 THEN CASE WHEN at < 500 THEN 91 + 4 * sin(at / 40.0)
        WHEN (at::int % 1030) > 960 THEN 14 ELSE 52 + 5 * sin(at / 210.0) + 14 * (random() - 0.5) END END
        * CASE WHEN $2 = 'demo-g1' THEN 1 ELSE 0.6 END,
    (3 + 8 * least(1, at / 1500.0) + 2.2 * at / $4::double precision + 0.7 * ((at::int % 1030) / 1030.0)) * 1073741824
        * CASE WHEN $2 = 'demo-g1' THEN 1 ELSE 0.82 END,
    17179869184::bigint
FROM unnest($5::double precision[]) AS at
"""
GPU_SAMPLES = """
INSERT INTO gpu_samples (sampled_at, cluster_name, job_id, node, opened_by, gpu_id, vendor, utilization_percent,
    memory_used_bytes, memory_total_bytes, power_watts)
SELECT $1::timestamptz + make_interval(secs => at), $6, $7, $2, $3, gpu, 'nvidia',
    CASE WHEN gpu = $8 THEN 0 WHEN at < 500 THEN 3 WHEN (at::int % 1030) > 960 THEN 6
        ELSE 84 + 3 * sin(at / 170.0 + ascii(right(gpu, 1))) + 16 * (random() - 0.5) END,
    CASE WHEN gpu = $8 THEN 4 << 20 WHEN at < 400 THEN 2147483648
        ELSE 51539607552 + ascii(right(gpu, 1)) * 40000000::bigint END,
    85899345920,
    CASE WHEN gpu = $8 THEN 68 WHEN at < 500 THEN 95 WHEN (at::int % 1030) > 960 THEN 130
        ELSE 545 + 15 * sin(at / 170.0 + ascii(right(gpu, 1))) + 90 * (random() - 0.5) END
FROM unnest($4::double precision[]) AS at, unnest($5::text[]) AS gpu
"""
ENERGY_SAMPLES = """
INSERT INTO energy_samples (sampled_at, cluster_name, job_id, node, opened_by, gpu_joules, cpu_joules, dram_joules)
SELECT $1::timestamptz + make_interval(secs => at), $5, $6, $2, $3,
    CASE WHEN $2 = 'demo-g1' THEN 980 ELSE 560 END * greatest(0, at - 450), 120 * at, 20 * at
FROM unnest($4::double precision[]) AS at
"""
# How the others ended: job name, minutes, Slurm's state, exit status, whether the kernel killed for memory.
OTHERS: tuple[tuple[str, int, str, Outcome, bool], ...] = (
    ("tokenize", 38, "OUT_OF_MEMORY", Outcome(out_of_memory=True), True),
    ("simulate", 120, "TIMEOUT", Outcome(exit_signal=15), False),
    ("evaluate", 7, "COMPLETED", Outcome(exit_code=0), False),
    ("preprocess", 1, "FAILED", Outcome(exit_code=127), False),
    ("render", 64, "NODE_FAIL", Outcome(exit_signal=1), False),
    ("solver", 12, "FAILED", Outcome(exit_signal=11), False),
    ("sweep", 95, "CANCELLED", Outcome(exit_signal=15), False),
    ("postprocess", 22, "COMPLETED", Outcome(exit_code=0), False),
)
PEOPLE = (("demo-ada", "demo-physics"), ("demo-grace", "demo-biology"), ("demo-linus", "demo-physics"))
# Recipe, model, GPU, how many, tokens a second.
RUNS = (
    ("demo-chat", "demo-llm-8b", "Demo GPU 80GB", 1, 2480.0),
    ("demo-chat", "demo-llm-8b", "Demo GPU 40GB", 1, 1310.0),
    ("demo-chat", "demo-llm-70b", "Demo GPU 80GB", 4, 905.0),
    ("demo-batch", "demo-llm-8b", "Demo GPU 80GB", 1, 6120.0),
)


async def store(pool: Any, now: datetime) -> None:
    """Fill a migrated database; the shown job has ended a quarter of an hour before `now`."""
    await _store_shown(pool, now - timedelta(minutes=15, seconds=SECONDS))
    await _store_others(pool, now)
    await _store_benchmarks(pool, now)


async def _store_shown(pool: Any, begin: datetime) -> None:
    offset = _offset(begin)
    openers = {}
    for node, gpus in GPUS.items():
        writer = ChainWriter(node, CLUSTER)
        openers[node] = writer.event(EventKind.JOB_STARTED, JOB, offset, facts=_facts("finetune-llm", tuple(GPUS), 8))
        end = offset + SECONDS * SECOND
        writer.finished(JOB, end, 0, opened_by=openers[node])
        writer.used(JOB, end + 1, _usage(node, gpus), opened_by=openers[node])
        if node == "demo-g1":
            known = JobFacts(time_limit_seconds=8 * 3600, memory_requested_bytes=32 * GIB, cpus_total=16, gpus_total=4)
            _slurm(writer, JOB, offset, SECONDS, "COMPLETED", Outcome(exit_code=0), facts=known)
        await PostgresSink(pool).store(writer.rows, node=node)
    times = look_times(SECONDS)
    async with session(pool, 60.0) as connection:
        await make_partitions(connection, begin, begin + timedelta(seconds=SECONDS))
        for node, gpus in GPUS.items():
            ref = uuid.UUID(openers[node])
            await connection.execute(SAMPLES, begin, node, ref, SECONDS, times, CLUSTER, JOB)
            await connection.execute(GPU_SAMPLES, begin, node, ref, times, list(gpus), CLUSTER, JOB, UNUSED)
            await connection.execute(ENERGY_SAMPLES, begin, node, ref, times, CLUSTER, JOB)


async def _store_others(pool: Any, now: datetime) -> None:
    for number, (name, minutes, state, outcome, killed) in enumerate(OTHERS):
        job, node = f"slurm-{4712 + number}", f"demo-n{number % 4 + 1}"
        offset = _offset(now - timedelta(minutes=minutes + 3 * number + 2))
        writer = ChainWriter(node, CLUSTER)
        opener = writer.event(EventKind.JOB_STARTED, job, offset, facts=_facts(name, (node,), 4, number + 1))
        end = offset + minutes * 60 * SECOND
        writer.event(EventKind.JOB_FINISHED, job, end, Actor.SLURM_EPILOG, outcome=outcome, opened_by=opener)
        us = minutes * 60 * SECOND
        usage = NodeUsage(
            cpu_usage_us=us * (35 + 7 * number) // 25, memory_peak_bytes=8 * GIB if killed else (number + 2) * GIB // 2,
            memory_limit_bytes=8 * GIB, oom_kills=int(killed), sample_count=minutes * 4, covered_us=us - 2 * SECOND,
            first_sample_us=T0 + offset, last_sample_us=T0 + end - 2 * SECOND, sources={"usage": "cgroup_v2"},
        )  # fmt: skip
        writer.used(job, end + 1, usage, opened_by=opener)
        known = JobFacts(time_limit_seconds=120 * 60, cpus_total=4, memory_requested_bytes=8 * GIB)
        word = {"node_states": {node: "down"}} if state == "NODE_FAIL" else {}
        _slurm(writer, job, offset, minutes * 60, state, outcome, facts=known, **word)
        await PostgresSink(pool).store(writer.rows, node=node)


async def _store_benchmarks(pool: Any, now: datetime) -> None:
    writer = ChainWriter("demo-g1", CLUSTER)
    for number, (recipe, model, gpu, count, throughput) in enumerate(RUNS, start=1):
        identity = RecipeIdentity(name=recipe, sha256=f"{number:x}" * 64, version="1", body={"name": recipe})
        hardware = Hardware(gpu_model=gpu, gpu_count=count, driver_version="570.1", cpu_model="Demo CPU", cpu_count=32)
        one = report(
            number, throughput, at=_offset(now - timedelta(hours=2 * number)), repeats=3, recipe=identity,
            hardware=hardware, model=model, jobs=(), uid=1000, user_name="demo-ada",
            run_uid=str(uuid.uuid5(uuid.NAMESPACE_DNS, f"demo-{number}")),
        )  # fmt: skip
        tell(writer, one)
    await PostgresSink(pool).store(writer.rows, node="demo-g1")


def _slurm(writer: ChainWriter, job: str, offset: int, seconds: int, state: str, outcome: Outcome, **more: Any) -> None:
    """Slurm's own word on a run, as the reconciler reports it."""
    start = (T0 + offset) // SECOND
    record = SlurmRecord(
        origin=Origin.SLURMDBD, job_id=job, state=state, submit_time=start - 600, start_time=start,
        end_time=start + seconds, outcome=outcome, cancelled_by_uid=1000 if state == "CANCELLED" else None, **more,
    )  # fmt: skip
    at = offset + (seconds + 5) * SECOND
    writer.event(EventKind.SLURM_REPORTED, job, at, Actor.RECONCILER, run=1, slurm=record)


def _facts(name: str, nodes: tuple[str, ...], cpus: int, person: int = 0) -> JobFacts:
    user, account = PEOPLE[person % len(PEOPLE)]
    return JobFacts(
        user_name=user, uid=1000 + person % len(PEOPLE), account=account, partition="demo", job_name=name, nodes=nodes,
        cpus=cpus,
    )  # fmt: skip


def _usage(node: str, gpus: tuple[str, ...]) -> NodeUsage:
    """What a node of the shown job told at its end."""
    us = SECONDS * SECOND
    told = tuple(
        GpuUsage(
            gpu_id=gpu, vendor="nvidia", minor=number, name="Demo GPU 80GB", memory_total_bytes=80 * GIB,
            resolved_by="minor", observed_us=us, busy_us=0 if gpu == UNUSED else us * 77 // 100,
            unused_us=us if gpu == UNUSED else us // 30, memory_peak_bytes=4 << 20 if gpu == UNUSED else 52 * GIB,
            energy_microjoules=(68 if gpu == UNUSED else 490) * us, energy_covered_us=us, energy_method="counter",
        )
        for number, gpu in enumerate(gpus)
    )  # fmt: skip
    watts = sum(gpu.energy_microjoules or 0 for gpu in told) // us
    return NodeUsage(
        cpu_usage_us=us * (4 if node == "demo-g1" else 3), memory_limit_bytes=16 * GIB,
        memory_peak_bytes=(14 if node == "demo-g1" else 11) * GIB,
        io_read_bytes=71 * GIB, io_write_bytes=18 * GIB, sample_count=SECONDS // 15, covered_us=us - SECOND,
        gpu_observed_us=len(gpus) * us, gpu_busy_us=sum(gpu.busy_us or 0 for gpu in told),
        gpu_unused_us=sum(gpu.unused_us or 0 for gpu in told), gpu_memory_peak_bytes=52 * GIB, gpus=told,
        energy_gpu_microjoules=watts * us, energy_cpu_microjoules=120 * us, energy_dram_microjoules=20 * us,
        energy_covered_us=us - SECOND, emissions_micrograms=(watts + 140) * 127 * SECONDS,
        emissions_energy_microjoules=(watts + 140) * us,
        emission_bases=(EmissionBasis(micrograms_per_kwh=381_000_000, pue_millionths=1_200_000, source="demo"),),
        sources={"usage": "cgroup_v2", "energy_gpu": "counter"},
    )  # fmt: skip


def _offset(moment: datetime) -> int:
    """µs from the chains' common beginning to `moment`."""
    return round(moment.astimezone(UTC).timestamp() * SECOND) - T0

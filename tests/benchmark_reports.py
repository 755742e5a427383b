"""Reports of benchmarks for tests, and the events that tell them."""

from __future__ import annotations

import uuid
from typing import Any

from jobtrail.domain.benchmarks.metrics import Measurement
from jobtrail.domain.benchmarks.report import (
    BaselineDecision,
    BenchmarkReport,
    Decision,
    Hardware,
    JobClaim,
    LinkSource,
    Mode,
    RecipeIdentity,
    Repeat,
    Role,
    Status,
    ToolResult,
)
from jobtrail.domain.benchmarks.settling import JobLink, LinkState, Settlement
from jobtrail.domain.events import Actor, EventKind
from tests.chains import SECOND, T0, ChainWriter

# What becomes of a run whose one job is known and holds it.
LINKED = Settlement(
    links=(
        JobLink(
            claim=JobClaim(job_id="slurm-1", role=Role.BOTH, source=LinkSource.MANIFEST),
            state=LinkState.LINKED, cluster="c1", run=1,
        ),
    )
)  # fmt: skip
RECIPE = RecipeIdentity(name="chat", sha256="a" * 64, version="1", body={"name": "chat", "mode": "serve"})
HARDWARE = Hardware(gpu_model="H100", gpu_count=1, driver_version="570.1", cpu_model="EPYC", cpu_count=8)


def uid(number: int) -> str:
    """The uid of the run with this number; they sort as their numbers do."""
    return str(uuid.UUID(int=number + (4 << 76) + (8 << 60)))


def claim(job_id: str = "slurm-1", role: Role = Role.BOTH, **more: Any) -> JobClaim:
    """A claim of a manifest."""
    return JobClaim(job_id=job_id, role=role, source=LinkSource.MANIFEST, **more)


def result(throughput: float, *, ttft: float = 0.1, tpot: float = 0.02, failed: int = 0, **more: Any) -> ToolResult:
    """What vLLM measured in one repeat of 100 requests."""
    values = (
        ("output_token_throughput", "value", throughput),
        ("total_token_throughput", "value", 2 * throughput),
        ("request_throughput", "value", throughput / 10),
        ("time_to_first_token", "p50", ttft),
        ("time_to_first_token", "p99", 3 * ttft),
        ("time_per_output_token", "p50", tpot),
        ("time_per_output_token", "p99", 2 * tpot),
        ("inter_token_latency", "p50", tpot),
        ("request_latency", "p50", ttft + 9 * tpot),
        ("request_latency", "p99", 3 * (ttft + 9 * tpot)),
        ("output_tokens", "value", 1000.0),
    )
    known: dict[str, Any] = {"tool": "vllm", "mode": Mode.SERVE, "sha256": "b" * 64, "tool_version": "0.9.2"}
    return ToolResult(
        measurements=tuple(Measurement(metric=name, stat=stat, value=value) for name, stat, value in values),
        requests_completed=100 - failed, requests_failed=failed, token_count_source="server", **{**known, **more},
    )  # fmt: skip


def report(
    number: int = 1, throughput: float = 100.0, *, at: int = 0, repeats: int = 1, **more: Any
) -> BenchmarkReport:
    """A run of ten seconds a repeat, `at` µs after T0. The repeats differ by 1 %."""
    begun = T0 + at
    known: dict[str, Any] = {
        "run_uid": uid(number), "mode": Mode.SERVE, "status": Status.OK, "started_us": begun,
        "ended_us": begun + max(repeats, 1) * 10 * SECOND, "recipe": RECIPE, "tool": "vllm", "tool_version": "0.9.2",
        "model": "llama", "hardware": HARDWARE, "jobs": (claim(),),
        "repeats": tuple(
            Repeat(
                started_us=begun + n * 10 * SECOND, ended_us=begun + (n + 1) * 10 * SECOND, exit_code=0,
                result=result(throughput * (1 + (n - repeats // 2) / 100)),
            )
            for n in range(repeats)
        ),
    }  # fmt: skip
    return BenchmarkReport(**{**known, **more})


def tell(writer: ChainWriter, one: BenchmarkReport, *, at: int | None = None, **fields: Any) -> str:
    """The event of a report, told at the run's end unless `at` says when; its id."""
    told_at = one.ended_us - T0 if at is None else at
    return writer.event(EventKind.BENCHMARK_RECORDED, None, told_at, Actor.CLI, benchmark=one, **fields)


def decide(writer: ChainWriter, number: int, decision: Decision, at: int = 0, **fields: Any) -> str:
    """The event of ada's decision about a run; its id."""
    made = BaselineDecision(run_uid=uid(number), decision=decision, by="ada")
    return writer.event(EventKind.BASELINE_DECIDED, None, at, Actor.API, baseline=made, **fields)

"""The captured result files of benchmark tools, and how tests look into a result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobtrail.adapters.benchmark_files import read_results
from jobtrail.domain.benchmarks.report import ToolResult

FOLDER = Path(__file__).resolve().parent.parent / "fixtures" / "benchmarks"
SERVE = "vllm-0.32.0-bench-serve.json"
DETAILED = "vllm-0.32.0-bench-serve-detailed.json"
THROUGHPUT = "vllm-0.32.0-bench-throughput.json"
LATENCY = "vllm-0.32.0-bench-latency.json"
AIPERF = "aiperf-0.13.0-profile_export.json"
GUIDELLM = "guidellm-0.8.1-benchmarks.json"
MLPERF = "mlperf_log_detail.txt"
MLPERF_SUMMARY = "mlperf_log_summary.txt"
READABLE = (SERVE, DETAILED, THROUGHPUT, LATENCY, AIPERF, GUIDELLM, MLPERF)


def content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def document(name: str) -> dict[str, Any]:
    """A capture as plain JSON."""
    return json.loads(content(name))


def one(name: str, data: bytes | dict[str, Any] | None = None) -> ToolResult:
    """The one result of a capture, or of other content under its name."""
    if isinstance(data, dict):
        data = json.dumps(data).encode()
    (result,) = read_results(name, content(name) if data is None else data)
    return result


def values(result: ToolResult) -> dict[str, float]:
    """The measurements, as metric.stat."""
    return {f"{one.metric}.{one.stat}": one.value for one in result.measurements}

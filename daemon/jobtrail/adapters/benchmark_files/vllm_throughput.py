"""`vllm bench throughput`: all requests at once, without a server. The same keys from 0.8.5 on; 0.32 adds model_id.

`total_num_tokens` and `tokens_per_second` count prompts as well; the split into output is printed and not written. No
metadata reaches the file, so its model_id is the tool's own word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobtrail.adapters.benchmark_files.keeping import kept, text_or_none
from jobtrail.adapters.benchmark_files.quantities import Measured, counts, whole, why_nothing
from jobtrail.domain.benchmarks.report import Mode, ToolResult

SHAPE = ("elapsed_time", "num_requests", "total_num_tokens", "requests_per_second", "tokens_per_second")


def read(document: Mapping[str, Any], sha256: str) -> ToolResult:
    """The result in a file of `vllm bench throughput`. Raises UnknownResult, naming the field."""
    completed = whole("num_requests", document["num_requests"])
    whole("total_num_tokens", document["total_num_tokens"])
    measured = counts(completed, None)
    duration = (measured if completed else Measured()).add("duration", "elapsed_time", document["elapsed_time"])
    if completed:
        measured.add("request_throughput", "requests_per_second", document["requests_per_second"])
        measured.add("total_token_throughput", "tokens_per_second", document["tokens_per_second"])
    return ToolResult(
        tool="vllm",
        mode=Mode.THROUGHPUT,
        sha256=sha256,
        measurements=measured.found(),
        model=text_or_none(document.get("model_id")),
        requests_completed=completed,
        duration_seconds=duration,
        invalid_reason=None if completed else why_nothing(None),
        raw=kept(document, lists=False),
    )

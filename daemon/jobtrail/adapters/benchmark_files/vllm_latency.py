"""`vllm bench latency`: one batch at a time, without a server. The same keys from 0.8.5 on; 0.32 adds model_id.

All times are in seconds, other than those of `vllm bench serve`. A number is of a whole batch, not of a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobtrail.adapters.benchmark_files.documents import shown
from jobtrail.adapters.benchmark_files.keeping import kept, text_or_none
from jobtrail.adapters.benchmark_files.quantities import Measured, percentile
from jobtrail.domain.benchmarks.report import Mode, ToolResult
from jobtrail.domain.errors import UnknownResult

SHAPE = ("avg_latency", "latencies", "percentiles")
_METRIC = "batch_latency"
_MAX_PERCENTILES = 100


def read(document: Mapping[str, Any], sha256: str) -> ToolResult:
    """The result in a file of `vllm bench latency`. Raises UnknownResult, naming the field."""
    measured = Measured()
    mean = measured.add(_METRIC, "avg_latency", document["avg_latency"], stat="mean")
    for stat, (key, value) in _percentiles(document["percentiles"]).items():
        measured.add(_METRIC, f"percentiles.{key}", value, stat=stat)
    return ToolResult(
        tool="vllm",
        mode=Mode.LATENCY,
        sha256=sha256,
        measurements=measured.found() if mean is not None else (),
        model=text_or_none(document.get("model_id")),
        invalid_reason=None if mean is not None else "no batch was measured: avg_latency is absent or 0",
        raw=kept(document, lists=False),
    )


def _percentiles(said: Any) -> dict[str, tuple[str, Any]]:
    if not isinstance(said, dict) or len(said) > _MAX_PERCENTILES:
        raise UnknownResult("percentiles", f"must be an object of at most {_MAX_PERCENTILES} percentiles")
    found = {}
    for key, value in said.items():
        stat = percentile(key[:16])
        if stat is None:
            raise UnknownResult(f"percentiles.{shown(key)}", "must be named by a number between 0 and 100")
        found[stat] = (key, value)
    return found

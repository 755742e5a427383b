"""Which tool wrote a file, and its results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from jobtrail.adapters.benchmark_files import aiperf, guidellm, mlperf, vllm_latency, vllm_serve, vllm_throughput
from jobtrail.adapters.benchmark_files.documents import Document, decoded, documents, shown
from jobtrail.domain.benchmarks.report import ToolResult
from jobtrail.domain.errors import UnknownResult

KNOWN = (
    "known are the JSON files of vllm bench serve (also JSON Lines), vllm bench throughput and vllm bench latency,"
    " aiperf's profile_export_aiperf.json, guidellm's benchmarks.json, and MLPerf loadgen's mlperf_log_detail.txt"
)
MAX_RESULTS = 1_000
_PYTORCH = ".pytorch.json"
_HEAD = 4_096  # characters in which a log's first mark must stand

_Reader = Callable[[Mapping[str, Any], str], ToolResult | tuple[ToolResult, ...]]
# Each with the keys that all its versions have. vLLM's serve is asked first: its metadata may add any key to the file,
# and none of these four.
_FORMATS: tuple[tuple[str, tuple[str, ...], _Reader], ...] = (
    ("vllm bench serve", vllm_serve.SHAPE, vllm_serve.read),
    ("vllm bench throughput", vllm_throughput.SHAPE, vllm_throughput.read),
    ("vllm bench latency", vllm_latency.SHAPE, vllm_latency.read),
    ("guidellm", guidellm.SHAPE, guidellm.read),
    ("aiperf", aiperf.SHAPE, aiperf.read),
)


def read_results(name: str, content: bytes) -> tuple[ToolResult, ...]:
    """The results in a file that a benchmark's tool wrote: one, or several of a file that holds several.

    `name` is the file's name, for messages only; what it is, is seen from the content. Raises UnknownResult, and
    nothing else, for a file of no known tool, one that lacks what its tool always writes, and one with a number that
    cannot be; it names the field.
    """
    try:
        return _read(name, content)
    except UnknownResult as error:
        place = ": ".join(part for part in (_printable(name), error.where) if part)
        raise UnknownResult(place, error.problem) from None


def _read(name: str, content: bytes) -> tuple[ToolResult, ...]:
    text = decoded(content)
    head = text[:_HEAD]
    if mlperf.MARK in head and not head.lstrip().startswith(("{", "[")):
        return (mlperf.read(text, hashlib.sha256(content).hexdigest()),)
    if mlperf.SUMMARY_TITLE in head:
        raise UnknownResult(
            "", "is the summary of MLPerf loadgen, made for people; bring in"
            f" {_sibling(name, 'summary', 'detail', 'mlperf_log_detail.txt')} beside it"
        )  # fmt: skip
    if not head.lstrip().startswith(("{", "[")):
        raise UnknownResult("", f"is neither JSON nor a log of {mlperf.MARK} lines; {KNOWN}")
    found = documents(text)
    if len(found) > MAX_RESULTS:
        raise UnknownResult("", f"holds {len(found)} results; at most {MAX_RESULTS} are read from one file")
    results: list[ToolResult] = []
    for document in found:
        results += _results(name, document)
    return tuple(results)


def _results(name: str, document: Document) -> tuple[ToolResult, ...]:
    if not document.line:
        return _by_shape(name, document)
    try:
        return _by_shape(name, document)
    except UnknownResult as error:
        raise UnknownResult(": ".join(filter(None, (f"line {document.line}", error.where))), error.problem) from None


def _by_shape(name: str, document: Document) -> tuple[ToolResult, ...]:
    value = document.value
    if not isinstance(value, dict):
        raise UnknownResult("", _why_no_object(name, value))
    for _, shape, read in _FORMATS:
        if all(key in value for key in shape):
            results = read(value, document.sha256)
            return results if isinstance(results, tuple) else (results,)
    raise UnknownResult("", _why_unknown(value))


def _why_no_object(name: str, value: Any) -> str:
    records = isinstance(value, list) and (not value or (isinstance(value[0], dict) and "metric" in value[0]))
    if records or name.endswith(_PYTORCH):
        twin = _sibling(name, _PYTORCH, ".json", "the file of the same name without .pytorch")
        return f"is vLLM's copy for PyTorch's dashboard, one record for each metric; bring in {twin} beside it"
    return f"is a JSON {'list' if isinstance(value, list) else 'value'} and no object; {KNOWN}"


def _why_unknown(value: Mapping[str, Any]) -> str:
    def share(shape: tuple[str, ...]) -> float:
        return sum(key in value for key in shape) / len(shape)

    # Of two that fit equally badly the later one: aiperf's metrics are named like two of vLLM's.
    tool, shape, _ = max(reversed(_FORMATS), key=lambda known: share(known[1]))
    if share(shape) > 0:
        lacking = ", ".join(key for key in shape if key not in value)
        return f"looks like a result of {tool}, and lacks {lacking}; {KNOWN}"
    first = ", ".join(shown(key) for key, _ in zip(value, range(5), strict=False)) or "none"
    return f"is JSON of no known tool, its first keys are: {first}; {KNOWN}"


def _sibling(name: str, part: str, instead: str, otherwise: str) -> str:
    """The name of the file beside it that is meant."""
    return _printable(name.replace(part, instead)) if part in name else otherwise


def _printable(name: str) -> str:
    return name if name.isprintable() else shown(name)

"""Reads a report as somebody sends it. Anybody may send one, so everything is checked and nothing is taken silently.

The types of the report are lenient, because events that were recorded by a newer version must still be read; what is
sent is held to them strictly here: unknown keys, sizes, times, names and numbers.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from jobtrail.domain.benchmarks.metrics import METRICS, PERCENTILE, STATS, Direction, Measurement
from jobtrail.domain.benchmarks.report import MAX_RAW_BYTES, BenchmarkReport, Repeat, ToolResult
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import MAX_EXACT_INT, check_time_us

MAX_REPORT_BYTES = 1_048_576
MAX_TEXT = 4096  # PATH_MAX; a word of a command line may be as long
MAX_NAME = 255
MAX_DEPTH = 32  # of values within values
MAX_VALUES = 50_000  # of all kinds, in the whole report
MAX_ITEMS = 1024  # of a list or a mapping outside of what a tool itself wrote
MAX_RECIPE_BYTES = MAX_RAW_BYTES
FUTURE_US = 86_400_000_000  # clocks of nodes differ, but not by a day
WRITTEN_BY_DAEMON = ("uid", "user_name", "from_job")
WORKED_OUT_BY_SERVER = frozenset({"J", "token/J", "J/token", "g"})  # units: from the job's own energy

_KIND = inspect.type_info(BenchmarkReport)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_JOB_ID = re.compile(r"(local|slurm)-[1-9][0-9]{0,15}")
_STAT = re.compile(PERCENTILE)
_NAMES = ("tool", "tool_version", "model", "model_revision")
_INT32 = 2**31 - 1
# What a number may be, by its field, wherever the field stands.
_BOUNDS = {
    "exit_code": (0, 255), "exit_signal": (1, 64), "gpu_count": (0, 1024), "cpu_count": (1, 1_048_576),
    "restart_count": (0, _INT32), "max_clock_mhz": (1, _INT32), "power_limit_watts": (0, _INT32),
    "requests_completed": (0, MAX_EXACT_INT), "requests_failed": (0, MAX_EXACT_INT),
    "duration_seconds": (0, _INT32), "size_bytes": (0, MAX_EXACT_INT), "server_output_tokens": (0, MAX_EXACT_INT),
}  # fmt: skip


def read_report(body: bytes, *, now_us: int) -> BenchmarkReport:
    """The report in `body`. Raises InvalidEvent naming the field and what is allowed there.

    What only the daemon may say (who sent it, and whether from inside the job) is taken out, whatever was sent.
    """
    if len(body) > MAX_REPORT_BYTES:
        raise InvalidEvent("body", f"must be {MAX_REPORT_BYTES} bytes at most, not {len(body)}")
    try:
        tree = msgspec.json.decode(body)
    except RecursionError as error:
        raise InvalidEvent("body", f"must not nest values deeper than {MAX_DEPTH}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent("body", f"must be JSON in UTF-8: {error}") from error
    if not isinstance(tree, dict):
        raise InvalidEvent("body", "must be a JSON object, a report of a benchmark's run")
    for name in WRITTEN_BY_DAEMON:
        tree.pop(name, None)
    _check_tree(tree)
    _check_known(tree, _KIND, "")
    try:
        report = msgspec.convert(tree, BenchmarkReport)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    _check_report(report, now_us)
    return report


def _explained(message: str) -> InvalidEvent:
    """msgspec's words with the field in front."""
    problem, _, place = message.partition(" - at `")
    missing = re.search(r"missing required field `([^`]*)`", problem)
    field = place.rstrip("`").removeprefix("$").removeprefix(".")
    if missing:
        return InvalidEvent(".".join(filter(None, (field, missing[1]))), "is needed")
    problem = problem.replace("`", "")
    return InvalidEvent(field or "body", problem[:1].lower() + problem[1:300])


def _check_tree(tree: dict[str, Any]) -> None:
    """Bounds that hold everywhere: no NUL, which PostgreSQL cannot store, exact integers, no deep nesting."""
    waiting: list[tuple[str, Any, int]] = [("", tree, 0)]
    count = 0
    while waiting:
        place, value, depth = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise InvalidEvent("body", f"must hold {MAX_VALUES} values at most")
        if depth > MAX_DEPTH:
            raise InvalidEvent(place[:MAX_NAME], f"must not nest values deeper than {MAX_DEPTH}")
        if isinstance(value, str) and "\0" in value:
            raise InvalidEvent(place[:MAX_NAME], "must not contain a NUL character")
        if isinstance(value, int) and abs(value) > MAX_EXACT_INT:
            raise InvalidEvent(place[:MAX_NAME], f"must be a whole number within ±{MAX_EXACT_INT}")
        waiting += ((_within(place, name), inner, depth + 1) for name, inner in _members(value))


def _members(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if "\0" in name:
                raise InvalidEvent(name.replace("\0", "\\0")[:64], "must not contain a NUL character")
            yield name, inner
    elif isinstance(value, list):
        yield from enumerate(value)


def _within(place: str, name: str | int) -> str:
    if isinstance(name, int):
        return f"{place}[{name}]"
    return f"{place}.{name}" if place else name


def _check_known(value: Any, kind: inspect.Type, place: str) -> None:
    """Raises InvalidEvent for a key that the report's types do not have, and for texts and lists that are too long."""
    if isinstance(kind, inspect.UnionType):
        kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        for name, inner in value.items():
            if name not in fields:
                known = ", ".join(known for known in fields if place or known not in WRITTEN_BY_DAEMON)
                raise InvalidEvent(_within(place, name)[:MAX_NAME], f"is not known; there are {known}")
            _check_bounds(name, inner, _within(place, name))
            _check_known(inner, fields[name], _within(place, name))
    elif isinstance(value, str) and len(value) > MAX_TEXT:
        raise InvalidEvent(place, f"must be {MAX_TEXT} characters at most, not {len(value)}")
    elif isinstance(value, list | dict) and not _is_free(kind) and len(value) > MAX_ITEMS:
        raise InvalidEvent(place, f"must have {MAX_ITEMS} entries at most, not {len(value)}")
    elif isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        for number, inner in enumerate(value):
            _check_known(inner, kind.item_type, _within(place, number))
    elif isinstance(kind, inspect.DictType) and isinstance(value, dict) and not _is_free(kind):
        for name, inner in value.items():
            _check_known(name, kind.key_type, place)
            _check_known(inner, kind.value_type, _within(place, name[:64]))


def _check_bounds(name: str, value: Any, field: str) -> None:
    if name in _BOUNDS and isinstance(value, int | float):
        least, most = _BOUNDS[name]
        if not least <= value <= most:
            raise InvalidEvent(field, f"must be a number from {least} to {most}, not {value}")


def _is_free(kind: inspect.Type) -> bool:
    """Whether any JSON may stand there: what a tool wrote, or a recipe's body. Its size is bounded as a whole."""
    return isinstance(kind, inspect.DictType) and isinstance(kind.value_type, inspect.AnyType)


def _check_report(report: BenchmarkReport, now_us: int) -> None:
    if report.schema != 1:
        raise InvalidEvent("schema", f"must be 1, the only version there is, not {report.schema}")
    if not _is_uuid(report.run_uid):
        raise InvalidEvent("run_uid", "must be a UUID in small letters, such as 6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21")
    _check_window("", report.started_us, report.ended_us, now_us)
    _check_names("", {name: getattr(report, name) for name in _NAMES})
    if report.recipe is not None:
        _check_names("recipe.", {"name": report.recipe.name, "version": report.recipe.version})
        _check_sha256("recipe.sha256", report.recipe.sha256)
        _check_size("recipe.body", report.recipe.body, MAX_RECIPE_BYTES)
    for number, file in enumerate(report.files):
        _check_sha256(f"files[{number}].sha256", file.sha256)
    for number, claim in enumerate(report.jobs):
        if not _JOB_ID.fullmatch(claim.job_id):
            raise InvalidEvent(f"jobs[{number}].job_id", f"must be slurm-N or local-N, not {claim.job_id[:64]!r}")
        _check_names(f"jobs[{number}].", {"cluster": claim.cluster})
    for number, repeat in enumerate(report.repeats):
        _check_repeat(f"repeats[{number}]", repeat, now_us)
        if repeat.started_us < report.started_us or repeat.ended_us > report.ended_us:
            raise InvalidEvent(
                f"repeats[{number}]", f"must lie within the run, from {report.started_us} to {report.ended_us}"
            )


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _check_window(place: str, started_us: int, ended_us: int, now_us: int) -> None:
    check_time_us(f"{place}started_us", started_us)
    check_time_us(f"{place}ended_us", ended_us)
    if ended_us < started_us:
        raise InvalidEvent(f"{place}ended_us", f"must not lie before started_us, {started_us}")
    if ended_us > now_us + FUTURE_US:
        raise InvalidEvent(f"{place}ended_us", "must not lie in the future")


def _check_names(place: str, names: dict[str, str | None]) -> None:
    """Names are shown in tables and are labels of metrics."""
    for name, text in names.items():
        if text is not None and not (1 <= len(text) <= MAX_NAME and text.isprintable() and text.strip() == text):
            raise InvalidEvent(
                f"{place}{name}", f"must be 1 to {MAX_NAME} visible characters, without spaces at its ends"
            )


def _check_sha256(field: str, text: str) -> None:
    if not _SHA256.fullmatch(text):
        raise InvalidEvent(field, "must be a SHA-256 sum: 64 hexadecimal digits in small letters")


def _check_size(field: str, value: dict[str, Any], limit: int) -> None:
    size = len(msgspec.json.encode(value))
    if size > limit:
        raise InvalidEvent(field, f"must be {limit} bytes of JSON at most, not {size}")


def _check_repeat(place: str, repeat: Repeat, now_us: int) -> None:
    _check_window(f"{place}.", repeat.started_us, repeat.ended_us, now_us)
    if repeat.result is not None:
        _check_result(f"{place}.result", repeat.result)


def _check_result(place: str, result: ToolResult) -> None:
    _check_names(f"{place}.", {name: getattr(result, name) for name in ("tool", "tool_version", "model")})
    _check_sha256(f"{place}.sha256", result.sha256)
    _check_size(f"{place}.raw", result.raw, MAX_RAW_BYTES)
    for name in ("started_us", "ended_us"):
        if (time_us := getattr(result, name)) is not None:
            check_time_us(f"{place}.{name}", time_us)
    seen: set[tuple[str, str]] = set()
    for number, measurement in enumerate(result.measurements):
        _check_measurement(f"{place}.measurements[{number}]", measurement)
        key = (measurement.metric, measurement.stat)
        if key in seen:
            raise InvalidEvent(f"{place}.measurements[{number}]", f"{key[0]} {key[1]} is there twice")
        seen.add(key)


def _check_measurement(place: str, measurement: Measurement) -> None:
    metric = METRICS.get(measurement.metric)
    if metric is None:
        known = ", ".join(METRICS)
        raise InvalidEvent(f"{place}.metric", f"{measurement.metric[:64]!r} is no metric; there are {known}")
    if metric.unit in WORKED_OUT_BY_SERVER:
        raise InvalidEvent(
            f"{place}.metric", f"{metric.name} is worked out from the job's own energy and cannot be reported"
        )
    if measurement.stat not in STATS and not _STAT.fullmatch(measurement.stat):
        allowed = ", ".join(STATS)
        raise InvalidEvent(
            f"{place}.stat", f"{measurement.stat[:64]!r} is no statistic; there are {allowed}, and p with a number"
        )
    if measurement.value < 0:
        raise InvalidEvent(f"{place}.value", f"must not be negative, as is that of {metric.name}")
    if metric.unit == "ratio" and measurement.value > 1:
        raise InvalidEvent(f"{place}.value", f"of {metric.name} must be a ratio, 1 at most")
    is_latency = metric.unit == "s" and metric.direction is Direction.LOWER and measurement.stat != "std"
    if is_latency and measurement.value == 0:
        raise InvalidEvent(f"{place}.value", f"of {metric.name} must be above 0: what was not measured is left out")

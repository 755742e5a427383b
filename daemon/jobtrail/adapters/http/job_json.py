"""Jobs and samples as people send them in JSON, under the names that the API shows them with."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jobtrail.adapters.http.event_json import NAME, Moment, Text, explained
from jobtrail.core.manual.ports import PostedSample
from jobtrail.domain.claims import Claims
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import MAX_EXACT_INT, check_time_us
from jobtrail.domain.hostlist import expand_nodes
from jobtrail.domain.samples import Reading
from jobtrail.domain.states import State

MAX_SAMPLES = 1000
MAX_NODES = 65_536
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES = ("user_name", "account", "partition", "qos")  # names have no spaces
_TIME_FORM = "it is a time with its zone, such as 2026-11-21T08:00:00Z"
_FORMS = {
    "state": f"it is one of {', '.join(State)}",
    "nodes": "they are a list of names, or a text such as n[1-4],gpu7",
    "samples": f"there are 1 to {MAX_SAMPLES} objects with sampled_at and at least one value each",
}
_NESTED = re.compile(r"\$\.(samples\[[0-9]+\])\.?(\w*)")
_TIMES = {"submit_time": "submit_us", "start_time": "start_us", "end_time": "end_us"}
_CLAIMS = {"cpus_allocated": "cpus_total", "gpus_allocated": "gpus_total", **_TIMES}

Count = Annotated[int, Meta(ge=0, le=MAX_EXACT_INT)]
Columns = Annotated[int, Meta(ge=0, le=2**31 - 1)]  # what an integer column holds
Seconds = Annotated[float, Meta(ge=0, le=MAX_EXACT_INT / 1e6)]


class JobFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PATCH /v1/jobs/{id}: null takes back what people said before, a field left out stays as it is."""

    user_name: str | UnsetType | None = UNSET
    account: str | UnsetType | None = UNSET
    partition: str | UnsetType | None = UNSET
    qos: str | UnsetType | None = UNSET
    job_name: Text | UnsetType | None = UNSET
    comment: Text | UnsetType | None = UNSET
    work_dir: Text | UnsetType | None = UNSET
    nodes: list[str] | str | UnsetType | None = UNSET
    cpus_allocated: Columns | UnsetType | None = UNSET
    gpus_allocated: Columns | UnsetType | None = UNSET
    memory_limit_bytes: Count | UnsetType | None = UNSET
    time_limit_seconds: Count | UnsetType | None = UNSET
    state: State | UnsetType | None = UNSET
    exit_code: Annotated[int, Meta(ge=0, le=255)] | UnsetType | None = UNSET
    exit_signal: Annotated[int, Meta(ge=1, le=64)] | UnsetType | None = UNSET
    submit_time: Moment | UnsetType | None = UNSET
    start_time: Moment | UnsetType | None = UNSET
    end_time: Moment | UnsetType | None = UNSET


class NewJob(JobFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/jobs."""

    job_id: str = ""
    cluster_name: str = ""


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sample: counters since the job's start, and levels at `sampled_at`."""

    sampled_at: Moment
    node: str | None = None
    cpu_percent: Annotated[float, Meta(ge=0, le=1e8)] | None = None
    cpu_seconds: Seconds | None = None
    cpu_user_seconds: Seconds | None = None
    cpu_system_seconds: Seconds | None = None
    cpu_throttled_periods: Count | None = None
    cpu_throttled_seconds: Seconds | None = None
    memory_current_bytes: Count | None = None
    memory_peak_bytes: Count | None = None
    memory_limit_bytes: Count | None = None
    memory_rss_bytes: Count | None = None
    memory_cache_bytes: Count | None = None
    memory_shmem_bytes: Count | None = None
    oom_kills: Count | None = None
    io_read_bytes: Count | None = None
    io_write_bytes: Count | None = None
    processes: Count | None = None
    threads: Count | None = None
    pressure_cpu_some_seconds: Seconds | None = None
    pressure_cpu_full_seconds: Seconds | None = None
    pressure_memory_some_seconds: Seconds | None = None
    pressure_memory_full_seconds: Seconds | None = None
    pressure_io_some_seconds: Seconds | None = None
    pressure_io_full_seconds: Seconds | None = None


class Samples(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/jobs/{id}/metrics."""

    samples: Annotated[list[Sample], Meta(min_length=1, max_length=MAX_SAMPLES)]


AnyBody = TypeVar("AnyBody", JobFields, NewJob, Samples)


def parse(kind: type[AnyBody], body: bytes) -> AnyBody:
    """The body as `kind`. Raises InvalidEvent naming the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _with_form(explained(str(error)), kind, _NESTED.search(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent("body", f"is not JSON in UTF-8: {error}") from error


def _with_form(error: InvalidEvent, kind: type[msgspec.Struct], nested: re.Match[str] | None) -> InvalidEvent:
    """The error with the form that is allowed there; `nested` is the place within a sample."""
    # A field that is missing, or not known, msgspec names in its text, and the sample as the place.
    last = error.field if nested is None else nested[2] or error.field.removeprefix("samples")
    known, field = (kind, last) if nested is None else (Sample, f"{nested[1]}.{last}".rstrip("."))
    if "unknown field" in error.reason:
        return InvalidEvent(field, f"is no field here; there are {', '.join(known.__struct_fields__)}")
    form = _TIME_FORM if last in (*_TIMES, "sampled_at") else _FORMS.get(last, "")
    return InvalidEvent(field, f"{error.reason}; {form}" if form else error.reason)


def claims(body: JobFields) -> Claims:
    """What a body says of a job. Raises InvalidEvent naming the field."""
    said: dict[str, Any] = {}
    retracted = []
    for field in JobFields.__struct_fields__:
        value = getattr(body, field)
        name = _CLAIMS.get(field, field)
        if value is None:
            retracted.append(name)
        elif value is not UNSET:
            said[name] = _checked(field, value)
    if said.get("exit_code") is not None and said.get("exit_signal") is not None:
        raise InvalidEvent("exit_signal", "must be left out beside an exit_code; a process ends by one or the other")
    return Claims(**said, retracted=tuple(retracted))


def _checked(field: str, value: Any) -> Any:
    if field in _TIMES:
        return check_time_us(field, time_us(value))
    if field == "nodes":
        return _nodes(value)
    if field in _NAMES:
        check_name(field, value)
    elif isinstance(value, str) and "\0" in value:
        raise InvalidEvent(field, "must not contain a NUL character")
    return value


def check_name(field: str, value: str) -> None:
    """Raise InvalidEvent for what is no name."""
    if not NAME.fullmatch(value):
        raise InvalidEvent(field, f"must be 1 to 255 visible characters without spaces, not {value[:64]!r}")


def _nodes(value: list[str] | str) -> tuple[str, ...]:
    names = expand_nodes("nodes", value) if isinstance(value, str) else tuple(dict.fromkeys(value))
    if not 1 <= len(names) <= MAX_NODES:
        raise InvalidEvent("nodes", f"must be 1 to {MAX_NODES} nodes; null where they are not known")
    for name in names:
        check_name("nodes", name)
    return names


def time_us(moment: datetime) -> int:
    """µs since the Unix epoch."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def posted(body: Samples) -> list[PostedSample]:
    """The samples. Raises InvalidEvent naming the field."""
    return [_posted(f"samples[{number}]", sample) for number, sample in enumerate(body.samples)]


def _posted(place: str, sample: Sample) -> PostedSample:
    if sample.node is not None:
        check_name(f"{place}.node", sample.node)
    values: dict[str, Any] = {}
    for field in Sample.__struct_fields__:
        value = getattr(sample, field)
        if value is None or field in ("sampled_at", "node", "cpu_percent"):
            continue
        if field.endswith("_seconds"):
            name = "cpu_usage_us" if field == "cpu_seconds" else field.removesuffix("seconds") + "us"
            values[name] = round(value * 1e6)
        else:
            values[field] = value
    if not values and sample.cpu_percent is None:
        raise InvalidEvent(place, "holds no value; leave out a sample of which nothing is known")
    at_us = check_time_us(f"{place}.sampled_at", time_us(sample.sampled_at))
    # Its source is put in by whoever knows who sent it.
    return PostedSample(
        reading=Reading(time_us=at_us, source="", **values), node=sample.node, cpu_percent=sample.cpu_percent
    )

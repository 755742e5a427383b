"""Events as JSON, for senders other than Slurm's hooks and for people.

msgspec takes the last of two equal keys, as most JSON readers do; nothing here depends on which one wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, TypeVar

import msgspec

from jobtrail.adapters.http.headers import EVENT_TIME
from jobtrail.adapters.http.refusals import forbidden
from jobtrail.adapters.http.senders import Sender
from jobtrail.adapters.http.settings import HttpSettings
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import MAX_EXACT_INT, Actor, Event, EventKind, Whereabouts, check_time_us
from jobtrail.domain.hostlist import expand_nodes
from jobtrail.domain.job_facts import JobFacts, Outcome

MIB = 1_048_576
MAX_TEXT = 4096  # PATH_MAX; no name is longer
MAX_SLURM_JOB_ID = 2**32 - 1
EXEC_SOURCE = "exec"  # how `jobtrail exec` signs
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JOB_ID = re.compile(r"(?:(local|slurm)-)?([1-9][0-9]{0,15})")
_UNKNOWN_FIELD = re.compile(r"(?:unknown|required) field `([^`]*)`")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([A-Za-z_]*)")

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Label = Annotated[str, msgspec.Meta(max_length=255)]  # in an index of the database, whose entries are bounded
# Checked in `parse`: with a pattern in a type, msgspec 0.22 at times ends an interpreter that exits with a
# segmentation fault.
NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")
_WORD = re.compile(r"[a-z0-9_-]{1,32}")
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both events may say."""

    job_id: int | Text
    timestamp: Moment | None = None
    node: str | None = None
    cluster: str | None = None
    source: str = "api"


class JobStarted(_Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/events/job-started."""

    user: Label | None = None
    node_list: list[str] | str | None = None
    cpu_allocation: Annotated[int, msgspec.Meta(ge=1, le=1_048_576)] | None = None
    memory_allocation_mb: Annotated[int, msgspec.Meta(ge=1, le=MAX_EXACT_INT // MIB)] | None = None
    gpu_allocation: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None
    gpu_vendor: Text | None = None
    gpu_devices: Annotated[list[Text], msgspec.Meta(max_length=1024)] | None = None
    cgroup_path: Text | None = None
    root_pid: Annotated[int, msgspec.Meta(ge=1, le=4_194_304)] | None = None  # PID_MAX_LIMIT, proc(5)
    root_pid_start_ticks: Annotated[int, msgspec.Meta(ge=0, le=MAX_EXACT_INT)] | None = None
    job_name: Text | None = None
    command: list[str] | None = None
    partition: Label | None = None
    account: Label | None = None


class JobFinished(_Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/events/job-finished."""

    final_state: Literal["completed", "failed", "cancelled"] | None = None
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    signal: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What an event gets from around its body."""

    event_id: str
    header_time_us: int | None
    now_us: int
    sender: Sender
    sender_name: str


AnyBody = TypeVar("AnyBody", JobStarted, JobFinished)


def parse(kind: type[AnyBody], body: bytes) -> AnyBody:
    """The body as `kind`. Raises InvalidEvent naming the field."""
    try:
        parsed = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise explained(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent("body", f"is not JSON in UTF-8: {error}") from error
    for field, value in _texts(parsed):
        if "\0" in value:
            raise InvalidEvent(field, "must not contain a NUL character")
    _check_forms(parsed)
    return parsed


def _check_forms(body: _Body) -> None:
    """Raise InvalidEvent for a name or word of another form than names and words have."""
    if not _WORD.fullmatch(body.source):
        raise InvalidEvent("source", "must be 1 to 32 small letters, digits, _ and -")
    names = [("node", body.node), ("cluster", body.cluster)]
    if isinstance(body, JobStarted) and isinstance(body.node_list, list):
        names += [("node_list", name) for name in body.node_list]
    for field, name in names:
        if name is not None and not NAME.fullmatch(name):
            raise InvalidEvent(field, f"must be 1 to 255 visible characters without spaces, not {name[:64]!r}")


def explained(message: str) -> InvalidEvent:
    """msgspec's message with the field in front."""
    unknown, place = _UNKNOWN_FIELD.search(message), _PLACE.search(message)
    field = unknown[1][:64] if unknown else place[1] if place else ""
    problem = message.partition(" - at `")[0].replace("`", "")
    return InvalidEvent(field or "body", problem[:1].lower() + problem[1:300])


def _texts(body: msgspec.Struct) -> Iterator[tuple[str, str]]:
    for field in body.__struct_fields__:
        value = getattr(body, field)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                yield field, text


def started_event(body: JobStarted, envelope: Envelope, settings: HttpSettings) -> Event:
    """The event that a job began. Raises InvalidEvent, Refused."""
    job_id = _job_id(body, envelope.sender)
    ours = job_id.startswith("local-") and (body.user is None or not envelope.sender.trusted)
    nodes, node_list = _nodes(body)
    facts = JobFacts(
        user_name=envelope.sender_name if ours else body.user,
        uid=envelope.sender.uid if ours else None,
        account=body.account,
        partition=body.partition,
        job_name=body.job_name,
        nodes=nodes,
        node_list=node_list,
        cpus=body.cpu_allocation,
        memory_limit_bytes=None if body.memory_allocation_mb is None else body.memory_allocation_mb * MIB,
        gpu_vendor=body.gpu_vendor,
        gpu_devices=_gpu_devices(body),
        command=None if body.command is None else tuple(body.command),
    )
    return Event(
        kind=EventKind.JOB_STARTED,
        event_id=envelope.event_id,
        time_us=_time_us(body, envelope),
        cluster=_cluster(body, job_id, envelope.sender, settings),
        job_id=job_id,
        node=_node(body, envelope.sender, settings),
        changed_by=_actor(body),
        source=body.source,
        facts=facts,
        whereabouts=_whereabouts(body),
        environment=_evidence(body),
        note=_note(envelope.sender),
    )


def finished_event(body: JobFinished, envelope: Envelope, settings: HttpSettings) -> Event:
    """The event that a job ended. Raises InvalidEvent, Refused."""
    if body.exit_code is not None and body.signal is not None:
        raise InvalidEvent("signal", "must be left out when there is an exit_code; a process ends by one or the other")
    job_id = _job_id(body, envelope.sender)
    return Event(
        kind=EventKind.JOB_FINISHED,
        event_id=envelope.event_id,
        time_us=_time_us(body, envelope),
        cluster=_cluster(body, job_id, envelope.sender, settings),
        job_id=job_id,
        node=_node(body, envelope.sender, settings),
        changed_by=_actor(body),
        source=body.source,
        outcome=Outcome(exit_code=body.exit_code, exit_signal=body.signal, final_state=body.final_state),
        note=_note(envelope.sender),
    )


def _job_id(body: _Body, sender: Sender) -> str:
    match = _JOB_ID.fullmatch(str(body.job_id))
    if match is None or (match[1] != "local" and int(match[2]) > MAX_SLURM_JOB_ID):
        raise InvalidEvent("job_id", f"must be slurm-N or N with N of 1 to {MAX_SLURM_JOB_ID}, or local-N")
    if match[1] != "local" and not sender.trusted:
        raise forbidden(f"uid {sender.uid} may only report local jobs (job_id local-N)")
    return f"{match[1] or 'slurm'}-{match[2]}"


def _time_us(body: _Body, envelope: Envelope) -> int:
    if body.timestamp is not None:
        return check_time_us("timestamp", (body.timestamp - _EPOCH) // timedelta(microseconds=1))
    if envelope.header_time_us is not None:
        return check_time_us(EVENT_TIME, envelope.header_time_us)
    return envelope.now_us


def _node(body: _Body, sender: Sender, settings: HttpSettings) -> str:
    if body.node not in (None, settings.node) and not sender.trusted:
        raise forbidden(f"uid {sender.uid} may only report jobs of this node, {settings.node}")
    return body.node or settings.node


def _cluster(body: _Body, job_id: str, sender: Sender, settings: HttpSettings) -> str:
    default = settings.local_cluster if job_id.startswith("local-") else settings.cluster
    if body.cluster not in (None, default) and not sender.trusted:
        raise forbidden(f"uid {sender.uid} may only report jobs of cluster {default}")
    cluster = body.cluster or default
    if not cluster:
        raise InvalidEvent("cluster", "is needed for a Slurm job, because the settings name no cluster")
    return cluster


def _nodes(body: JobStarted) -> tuple[tuple[str, ...] | None, str | None]:
    """The nodes, and the list as written."""
    if isinstance(body.node_list, str):
        return expand_nodes("node_list", body.node_list), body.node_list
    if not body.node_list:
        return None, None
    return tuple(dict.fromkeys(body.node_list)), None


def _gpu_devices(body: JobStarted) -> tuple[str, ...] | None:
    if body.gpu_devices is None:
        return () if body.gpu_allocation == 0 else None
    if body.gpu_allocation not in (None, len(body.gpu_devices)):
        raise InvalidEvent("gpu_allocation", f"is {body.gpu_allocation}, but gpu_devices names {len(body.gpu_devices)}")
    return tuple(body.gpu_devices)


def _whereabouts(body: JobStarted) -> Whereabouts | None:
    path = body.cgroup_path
    if path is not None and (not path.startswith("/") or ".." in path.split("/")):
        raise InvalidEvent("cgroup_path", "must be an absolute path without `..`")
    if body.root_pid_start_ticks is not None and body.root_pid is None:
        raise InvalidEvent("root_pid", "is needed beside root_pid_start_ticks")
    if path is None and body.root_pid is None:
        return None
    return Whereabouts(cgroup_path=path, root_pid=body.root_pid, root_pid_start_ticks=body.root_pid_start_ticks)


def _evidence(body: JobStarted) -> dict[str, str]:
    """A number of GPUs without their names has no place among the facts; it stays on record as it was said."""
    if body.gpu_allocation and body.gpu_devices is None:
        return {"gpu_allocation": str(body.gpu_allocation)}
    return {}


def _actor(body: _Body) -> Actor:
    return Actor.CLI if body.source == EXEC_SOURCE else Actor.API


def _note(sender: Sender) -> str | None:
    return None if sender.trusted else f"sent by uid {sender.uid}"

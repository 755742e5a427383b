"""An answer of slurmrestd: bytes in, records out.

The bytes need not be UTF-8: users name jobs with whatever bytes they like, and slurmrestd passes them on. Each record
is decoded on its own, so one that cannot be understood takes none of the others with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from jobtrail.adapters.slurmrest.loose import put_right
from jobtrail.adapters.slurmrest.normal import Fields, storable
from jobtrail.adapters.slurmrest.shared import Shared
from jobtrail.domain.errors import SlurmAnswerInvalid
from jobtrail.domain.slurm import NodeRecord, SlurmAnswer, SlurmRecord, Unreadable

_Record = TypeVar("_Record")
MAX_ERROR_TEXT = 300
MAX_RECORD_BYTES = 16_777_216  # of one job with its steps: several thousand of them
NESTED_TOO_DEEP = "is nested too deep to be read"


class Envelope(msgspec.Struct):
    """What is around the records. They stay undecoded: a cluster's jobs are hundreds of megabytes as objects."""

    meta: Any = None
    errors: Any = None
    warnings: Any = None
    jobs: Sequence[Any] | None = None
    nodes: Sequence[Any] | None = None

    def taken_jobs(self, decode: Callable[[Fields], SlurmRecord]) -> SlurmAnswer:
        """As `job_answer`. The bytes of the answer, of which undecoded records are a view, are free thereafter."""
        records, self.jobs = self.jobs, None
        return job_answer(records, decode)

    def taken_nodes(self, decode: Callable[[Fields], NodeRecord]) -> tuple[list[NodeRecord], list[SlurmAnswerInvalid]]:
        """As `readable`, of the nodes; the bytes are free thereafter."""
        records, self.nodes = self.nodes, None
        return readable(records, "nodes", decode)


_NULL = msgspec.Raw(b"null")


class _RawEnvelope(msgspec.Struct):
    meta: msgspec.Raw = _NULL  # msgspec does not know Raw | None
    errors: msgspec.Raw = _NULL
    warnings: msgspec.Raw = _NULL
    jobs: list[msgspec.Raw] | None = None
    nodes: list[msgspec.Raw] | None = None


class ServerError(msgspec.Struct, frozen=True):
    """One entry of an answer's `errors`."""

    number: int | None
    text: str


def open_envelope(body: bytes | bytearray) -> Envelope:
    """The parts of an answer. Raises SlurmAnswerInvalid when it is no JSON object or its records are no array.

    A bytearray that is not quite JSON is put right in place.
    """
    try:
        raw = _raw_envelope(body)
    except msgspec.DecodeError:
        body = body if isinstance(body, bytearray) else bytearray(body)
        put_right(body)
        try:
            raw = _raw_envelope(body)
        except msgspec.DecodeError as error:
            raise SlurmAnswerInvalid("answer", f"is not JSON: {error}") from None
    told = (_value(raw.meta, "meta"), _value(raw.errors, "errors"), _value(raw.warnings, "warnings"))
    return Envelope(*told, raw.jobs, raw.nodes)


def _raw_envelope(body: bytes | bytearray) -> _RawEnvelope:
    """Raises msgspec.DecodeError for what is not JSON, SlurmAnswerInvalid for JSON of another shape."""
    try:
        return msgspec.json.decode(body, type=_RawEnvelope)
    except RecursionError:
        raise SlurmAnswerInvalid("answer", NESTED_TOO_DEEP) from None
    except msgspec.ValidationError as error:
        name = next((name for name in ("jobs", "nodes") if str(error).endswith(f"`$.{name}`")), None)
        raise SlurmAnswerInvalid(name or "answer", "must be an array" if name else "must be an object") from None


def server_errors(envelope: Envelope) -> tuple[ServerError, ...]:
    """The errors an answer tells. v0.0.36 numbers them `error_code` or `errno`."""
    return tuple(_server_error(item) for item in _list(envelope.errors))


def release_of(envelope: Envelope) -> str | None:
    """The Slurm release that made the answer, such as 24.11.5; `meta.Slurm` up to 23.02, `meta.slurm` since."""
    meta = envelope.meta if isinstance(envelope.meta, dict) else {}
    slurm = meta.get("slurm") or meta.get("Slurm")
    release = slurm.get("release") if isinstance(slurm, dict) else None
    return release if isinstance(release, str) else None


def job_answer(records: Sequence[Any] | None, decode: Callable[[Fields], SlurmRecord]) -> SlurmAnswer:
    """The jobs of an answer. Raises SlurmAnswerInvalid when it has no array of them.

    A field that a record can do without is absent from those in which it is unreadable, and told of the first one.
    """
    if records is None:
        raise SlurmAnswerInvalid("jobs", "is missing")
    found: list[SlurmRecord] = []
    unreadable: list[Unreadable] = []
    told: set[str] = set()
    for fields in _each(records, "jobs"):
        if isinstance(fields, SlurmAnswerInvalid):
            unreadable.append(Unreadable(path=fields.path, reason=fields.reason))
            continue
        try:
            found.append(decode(fields))
        except SlurmAnswerInvalid as lost:
            unreadable.append(Unreadable(path=lost.path, reason=lost.reason, job_id=_job_id(fields)))
        for problem in fields.problems:
            kind = problem.path.partition("].")[2]
            if kind not in told:
                told.add(kind)
                unreadable.append(Unreadable(path=problem.path, reason=problem.reason, job_id=_job_id(fields)))
    return SlurmAnswer(records=tuple(found), unreadable=tuple(unreadable))


def readable(
    records: Sequence[Any] | None, name: str, decode: Callable[[Fields], _Record]
) -> tuple[list[_Record], list[SlurmAnswerInvalid]]:
    """The records that could be understood, and why others could not. Raises SlurmAnswerInvalid when there are none."""
    if records is None:
        raise SlurmAnswerInvalid(name, "is missing")
    found: list[_Record] = []
    problems: list[SlurmAnswerInvalid] = []
    for fields in _each(records, name):
        if isinstance(fields, SlurmAnswerInvalid):
            problems.append(fields)
            continue
        try:
            found.append(decode(fields))
        except SlurmAnswerInvalid as problem:
            problems.append(problem)
    return found, problems


def _each(records: Sequence[Any], name: str) -> Iterator[Fields | SlurmAnswerInvalid]:
    shared = Shared()
    for place, record in enumerate(records):
        path = f"{name}[{place}]"
        try:
            yield Fields(_value(record, path), path, shared=shared)
        except SlurmAnswerInvalid as problem:
            yield problem


def _job_id(fields: Fields) -> str | None:
    number = fields.lenient.number("job_id")
    return f"slurm-{number}" if number else None


def _value(raw: Any, path: str) -> Any:
    if not isinstance(raw, msgspec.Raw):
        return raw
    if (size := memoryview(raw).nbytes) > MAX_RECORD_BYTES:
        raise SlurmAnswerInvalid(path, f"is {size} bytes, more than the {MAX_RECORD_BYTES} that are read of one")
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise SlurmAnswerInvalid(path, NESTED_TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _decoded(bytes(raw), path)


def _decoded(body: bytes, path: str) -> Any:
    """JSON with any bytes in its texts."""
    try:
        return json.loads(body.decode(errors="replace"), strict=False)
    except RecursionError:
        raise SlurmAnswerInvalid(path, NESTED_TOO_DEEP) from None
    except ValueError as error:
        raise SlurmAnswerInvalid(path, f"is not JSON: {error}") from None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _server_error(item: Any) -> ServerError:
    if not isinstance(item, Mapping):
        return ServerError(None, _words(item))
    number = next(
        (item[key] for key in ("error_number", "errno", "error_code") if isinstance(item.get(key), int)), None
    )
    # `description` says what failed, `error` why.
    texts = dict.fromkeys(_words(item[key]) for key in ("description", "error") if item.get(key))
    return ServerError(number, ": ".join(texts)[:MAX_ERROR_TEXT] or "an error without a text")


def _words(value: Any) -> str:
    """What an error says, for people. Only of a text: other values can be of any size."""
    return storable(value)[:MAX_ERROR_TEXT] if isinstance(value, str) else "an error that is no text"

"""Which runs are open on this node: read and written in the transaction that holds the event."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator

import msgspec

from jobtrail.adapters.spool.sealing import seal, unseal
from jobtrail.core.gpu.ports import gpu_hook_of
from jobtrail.core.ports import OpenRun, is_of_a_later_run, is_of_an_earlier_run
from jobtrail.core.runs.succession import end_of_replaced
from jobtrail.domain.events import Event, EventKind, Whereabouts
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.samples import Target

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(OpenRun).decode

OF_A_RUN = frozenset({EventKind.JOB_FINISHED, EventKind.CHECKPOINT, EventKind.USAGE_RECORDED})
OPENING = frozenset({EventKind.JOB_STARTED, EventKind.JOB_FOUND})
Key = tuple[str, str, str]


class ClosedRun(OpenRun, frozen=True, kw_only=True):
    """A run that was closed by inference, kept in its row so that its own end is known when it comes late."""

    ended_not_before_us: int


class _Mark(msgspec.Struct, frozen=True):
    """What tells the row of a closed run from that of an open one."""

    ended_not_before_us: int | None = None


_decode_closed = msgspec.json.Decoder(ClosedRun).decode
_decode_mark = msgspec.json.Decoder(_Mark).decode


class Effect(msgspec.Struct, frozen=True):
    """What an event does to the open runs, and the event as it is to be held."""

    event: Event
    opened: OpenRun | None = None
    closed: OpenRun | None = None
    inferred: Event | None = None  # to be held after it: the end of the earlier run, where a later one has begun


def run_opened_by(event: Event, boot_id: str | None) -> OpenRun:
    """The run that a start event (or the finding of a job) opens, on a node whose kernel has this boot id."""
    assert event.job_id is not None
    facts = event.facts or JobFacts()
    return OpenRun(
        target=Target(
            ref=event.event_id,
            cluster=event.cluster,
            job_id=event.job_id,
            node=event.node,
            uid=facts.uid,
            sluid=event.sluid,
            whereabouts=event.whereabouts or Whereabouts(),
        ),
        started_us=event.time_us,
        user_name=facts.user_name,
        account=facts.account,
        partition=facts.partition,
        qos=facts.qos,
        cpus=facts.cpus,
        gpus=None if facts.gpu_devices is None else len(facts.gpu_devices),
        found=event.kind is EventKind.JOB_FOUND,
        boot_id=boot_id,
        slurm_start_time=event.slurm_start_time,
        gpu_hook=gpu_hook_of(event),
        slurm_conf=event.environment.get("SLURM_CONF"),
    )


class OpenRuns:
    """Tables `open_runs` and `early_ends`, keyed by cluster, job id and node."""

    def __init__(self, connection: sqlite3.Connection, boot_id: str | None = None) -> None:
        """`boot_id` is the kernel's now; None where it is unknown, or where runs of before are restored."""
        self._connection = connection
        self._boot_id = boot_id

    def all(self) -> Iterator[OpenRun]:
        """Every open run, oldest first; rows that are damaged are left out."""
        for (sealed,) in self._connection.execute("SELECT run FROM open_runs ORDER BY started_us, rowid"):
            if (payload := unseal(sealed)) is not None and not _is_closed(payload):
                yield _decode(payload)

    def damaged(self) -> int:
        """How many rows are damaged."""
        return sum(unseal(sealed) is None for (sealed,) in self._connection.execute("SELECT run FROM open_runs"))

    def apply(self, event: Event) -> Effect:
        """Let `event` open, update or close a run."""
        if event.job_id is None:
            return Effect(event)
        key = (event.cluster, event.job_id, event.node)
        if event.kind in OF_A_RUN:
            return self._of_a_run(event, key)
        if event.kind in OPENING:
            return self._opening(event, key)
        if event.kind is EventKind.JOB_CLOSED:
            return self._closing(event, key)
        return Effect(event)  # Slurm's word, or the reconciler's: about the job, from wherever it was asked

    def replace_all(self, runs: list[OpenRun]) -> None:
        """Hold exactly `runs`."""
        self._connection.execute("DELETE FROM open_runs")
        for run in runs:
            self._put((run.target.cluster, run.target.job_id, run.target.node), run)

    def forget_early_ends(self, before_us: int) -> None:
        """Forget ends older than `before_us` whose start never came."""
        self._connection.execute("DELETE FROM early_ends WHERE ended_us < ?", (before_us,))

    def forget_closed(self, before_us: int) -> None:
        """Forget runs that were closed by inference before then and whose own end never came."""
        begun = self._connection.execute("SELECT rowid, run FROM open_runs WHERE started_us < ?", (before_us,))
        for rowid, sealed in begun.fetchall():
            payload = unseal(sealed)
            if payload is not None and (_decode_mark(payload).ended_not_before_us or before_us) < before_us:
                self._connection.execute("DELETE FROM open_runs WHERE rowid = ?", (rowid,))

    def _opening(self, event: Event, key: Key) -> Effect:
        held = self._get(key)
        if event.kind is EventKind.JOB_FOUND and held is not None:
            return Effect(event)
        if event.kind is EventKind.JOB_STARTED and self._ended_already(event, key):
            return Effect(event)
        if held is not None and is_of_an_earlier_run(event, held):
            earlier = run_opened_by(event, self._boot_id)  # what runs now is the later one
            return Effect(event, inferred=end_of_replaced(earlier, held, event_id=str(uuid.uuid4())))
        if event.kind is EventKind.JOB_STARTED and self._closed_already(event, key):
            return Effect(event)
        run = run_opened_by(event, self._boot_id)
        self._put(key, run)
        inferred = None if held is None else end_of_replaced(held, run, event_id=str(uuid.uuid4()))
        return Effect(event, opened=run, closed=held, inferred=inferred)

    def _ended_already(self, event: Event, key: Key) -> bool:
        """Whether the run's end came before its start: a prolog's file is taken up later than the epilog was posted."""
        where = "WHERE cluster = ? AND job_id = ? AND node = ?"
        row = self._connection.execute(f"SELECT ended_us FROM early_ends {where}", key).fetchone()  # noqa: S608
        if row is None:
            return False
        self._connection.execute(f"DELETE FROM early_ends {where}", key)  # noqa: S608
        return bool(event.time_us <= row[0])

    def _of_a_run(self, event: Event, key: Key) -> Effect:
        run = self._get(key)
        ends = event.kind is EventKind.JOB_FINISHED
        if run is None:
            if ends:
                self._connection.execute("INSERT OR REPLACE INTO early_ends VALUES (?, ?, ?, ?)", (*key, event.time_us))
                return Effect(self._with_opener_of_closed(event, key))
            return Effect(event)
        if ends and event.opened_by is None and is_of_an_earlier_run(event, run):
            return Effect(event)
        if event.opened_by is None:
            event = msgspec.structs.replace(event, opened_by=run.target.ref)
        elif event.opened_by != run.target.ref:
            return Effect(event)  # about another run than the one that is open now
        if ends:
            self._delete(key)
            return Effect(event, closed=run)
        if event.kind is EventKind.CHECKPOINT and event.usage is not None:
            self._put(key, msgspec.structs.replace(run, usage=event.usage))
        return Effect(event)

    def _closing(self, event: Event, key: Key) -> Effect:
        """An end that was inferred on this node; one that names another run, or no node's run, closes nothing here."""
        run = self._get(key)
        if run is None or event.closing is None or event.opened_by != run.target.ref:
            return Effect(event)
        self._put(key, ClosedRun(**msgspec.structs.asdict(run), ended_not_before_us=event.closing.not_before_us))
        return Effect(event, closed=run)

    def _closed_already(self, event: Event, key: Key) -> bool:
        """Whether this is the late start of a run that was found, then closed: it began before it was last seen."""
        run = self._get_closed(key)
        return run is not None and not is_of_a_later_run(event, run) and event.time_us <= run.ended_not_before_us

    def _with_opener_of_closed(self, event: Event, key: Key) -> Event:
        """The event, with the opener of the closed run whose end it tells late."""
        run = self._get_closed(key)
        if run is None or event.opened_by not in (None, run.target.ref):
            return event
        if is_of_an_earlier_run(event, run) or is_of_a_later_run(event, run):
            return event
        self._delete(key)
        return msgspec.structs.replace(event, opened_by=run.target.ref)

    def _get(self, key: Key) -> OpenRun | None:
        payload = self._payload(key)
        return None if payload is None or _is_closed(payload) else _decode(payload)

    def _get_closed(self, key: Key) -> ClosedRun | None:
        payload = self._payload(key)
        return None if payload is None or not _is_closed(payload) else _decode_closed(payload)

    def _payload(self, key: Key) -> bytes | None:
        row = self._connection.execute(
            "SELECT run FROM open_runs WHERE cluster = ? AND job_id = ? AND node = ?", key
        ).fetchone()
        return unseal(row[0]) if row is not None else None

    def _delete(self, key: Key) -> None:
        self._connection.execute("DELETE FROM open_runs WHERE cluster = ? AND job_id = ? AND node = ?", key)

    def _put(self, key: Key, run: OpenRun) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO open_runs VALUES (?, ?, ?, ?, ?)", (*key, run.started_us, seal(_encode(run)))
        )


def _is_closed(payload: bytes) -> bool:
    return _decode_mark(payload).ended_not_before_us is not None

"""Opens the spool's file: makes a new one, takes up the one there is, or saves what can be saved from a damaged one."""

from __future__ import annotations

import hashlib
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import msgspec

from jobtrail.adapters.spool import rows
from jobtrail.adapters.spool.directory import SpoolDirectory, sync_directory
from jobtrail.adapters.spool.journal import link_event
from jobtrail.adapters.spool.runs import OpenRuns
from jobtrail.adapters.spool.schema import (
    UNREADABLE,
    State,
    connect,
    create_tables,
    load_state,
    lost_columns,
    name_columns_anew,
    pragma,
    refuse_newer_schema,
    refused_writes,
)
from jobtrail.adapters.spool.schema import save_state as save
from jobtrail.core.ports import OpenRun
from jobtrail.domain.audit import ChainedEvent, ChainHead, link
from jobtrail.domain.chain_beginnings import NEW, Predecessor
from jobtrail.domain.errors import InvalidEvent, SpoolBroken
from jobtrail.domain.events import Actor, Event, EventKind, decode, encode

# What SQLite reports of a file that is damaged, as opposed to a disk that fails (sqlite.org/rescode.html).
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR})
_SHORT_READ = sqlite3.SQLITE_IOERR_SHORT_READ
_REPLACEMENT = ".replacement"
MOST_IDS = 100_000  # remembered over the end of a chain
_PAST_IDS = """
    SELECT seq, event_id, digest FROM past_ids
    UNION ALL SELECT seq, event_id, digest FROM events WHERE seq < ?
    ORDER BY seq DESC LIMIT ?
"""
_MOST_TRIED = 2_000_000  # sequence numbers looked up one by one when the damage hides how many there are


class Writer(msgspec.Struct, frozen=True, kw_only=True):
    """In whose name a chain begins."""

    node: str
    cluster: str
    limit_bytes: int
    now_us: int
    note: str = NEW  # what the first row of a chain says that follows none


class Opened(msgspec.Struct, frozen=True):
    """A file ready for use. `story` tells what happened when the one found there was not."""

    connection: sqlite3.Connection
    state: State
    story: str | None = None


class Reason(msgspec.Struct, frozen=True):
    """Why a file is replaced: it was damaged, or the chain in it was given up."""

    what: str
    given_up: bool = False

    @property
    def word(self) -> str:
        """Part of the name under which the old file is kept."""
        return "ended" if self.given_up else "corrupt"


def open_file(place: SpoolDirectory, writer: Writer) -> Opened:
    """Open the database of a claimed directory. Raises ConfigError for a newer schema, SpoolBroken."""
    with ExitStack() as opened:
        try:
            _finish_replacement(place)
            connection, state, damage = _open_present(place, writer, opened)
            if damage is not None:
                reason = Reason(damage)
            else:
                assert connection is not None
                assert state is not None
                if state.ending is None:
                    opened.pop_all()
                    return Opened(connection, state)
                reason = Reason(state.ending.reason, given_up=True)
            story = _replace(place, connection, writer, reason)
        except sqlite3.Error as error:
            raise SpoolBroken(f"{place.database} cannot be opened: {error}") from error
    try:
        connection = connect(place.database, writer.limit_bytes)
        state = load_state(connection)
    except sqlite3.Error as error:
        raise SpoolBroken(f"{place.database} cannot be opened: {error}") from error
    assert state is not None
    return Opened(connection, state, story)


def _open_present(
    place: SpoolDirectory, writer: Writer, opened: ExitStack
) -> tuple[sqlite3.Connection | None, State | None, str | None]:
    """What is there: its connection, its state, and what is damaged in it. Made where there is nothing."""
    try:
        connection = connect(place.database, writer.limit_bytes)
    except UNREADABLE as error:
        return None, None, _damage(error)
    opened.callback(connection.close)
    try:
        if _is_empty(connection):
            lost = "; the directory was used before and its spool.db is missing or empty" if place.used_before else ""
            return connection, _begin(connection, writer, note=f"{writer.note}{lost}"), None
        state, damage = _examine(connection, place.database)
    except UNREADABLE as error:
        return connection, None, _damage(error)
    return connection, state, damage


def _is_empty(connection: sqlite3.Connection) -> bool:
    return pragma(connection, "page_count") == "0" or (
        pragma(connection, "schema_version") == "0" and pragma(connection, "application_id") == "0"
    )


def _damage(error: sqlite3.Error | UnicodeDecodeError) -> str:
    """What is wrong with the file; an error that is not about the file is raised as it is."""
    if isinstance(error, UnicodeDecodeError):
        return "its schema is damaged"
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in _DAMAGE or code == _SHORT_READ:
        return str(error)
    raise error


def _examine(connection: sqlite3.Connection, path: Path) -> tuple[State | None, str | None]:
    """The state of a file, and what is damaged in it. Raises ConfigError for a newer schema."""
    refuse_newer_schema(connection, path)
    found = pragma(connection, "quick_check(1)")
    if found != "ok":
        return None, found
    if (lost := lost_columns(connection)) is not None:
        name_columns_anew(connection)
        return None, lost
    if (refused := refused_writes(connection)) is not None:
        return None, refused
    state = load_state(connection)
    if state is None:
        return None, "its state is damaged"
    if damaged := OpenRuns(connection).damaged():
        return state, f"{damaged} of its open runs are damaged"
    return state, rows.find_break(connection, state.chain_id, state.head, state.purged_seq)


def _begin(connection: sqlite3.Connection, writer: Writer, *, note: str) -> State:
    """Make the tables and the first row of a new chain."""
    event = Event(
        kind=EventKind.CHAIN_STARTED,
        event_id=str(uuid.uuid4()),
        time_us=writer.now_us,
        cluster=writer.cluster,
        job_id=None,
        node=writer.node,
        changed_by=Actor.COLLECTOR,
        source="spool",
        note=note,
    )
    payload = encode(event)
    state = State(chain_id=str(uuid.uuid4()))
    row = link_event(state, event, payload, received_us=writer.now_us)
    state = state.moved_to(row)
    connection.execute("BEGIN IMMEDIATE")
    create_tables(connection, state)
    rows.insert(connection, row, hashlib.sha256(payload).digest())
    connection.execute("COMMIT")
    return state


def _replace(place: SpoolDirectory, old: sqlite3.Connection | None, writer: Writer, reason: Reason) -> str:
    """Put a new file with what can be saved in the place of the old one, which is kept under another name.

    Returns what happened. A crash at any point leaves either the old file alone in its place, or the finished
    replacement beside it, which _finish_replacement takes up.
    """
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(writer.now_us / 1e6))
    aside = _unused(place.path, f"spool.db.{reason.word}-{when}")
    new = place.path / "spool.db.new"
    _remove(new)
    saved = _Salvage(old)
    room = max(writer.limit_bytes, 2 * place.database.stat().st_size)
    with closing(connect(new, room)) as fresh:
        saved.copy_into(fresh, _begin(fresh, writer, note=_epoch_note(reason, aside.name, saved)))
    if old is not None:
        old.close()
    new.rename(f"{aside}{_REPLACEMENT}")
    _finish_replacement(place)
    what = "the chain was given up" if reason.given_up else "the spool's file was damaged"
    return (
        f"{what}: {reason.what}; a new chain begins with the {len(saved.good)} events that are not known to be "
        f"forwarded; the old file is kept as {aside}"
    )


def _epoch_note(reason: Reason, aside: str, saved: _Salvage) -> str:
    last = saved.last_known()
    carried = len(saved.good)
    before = f"the chain before this one: unknown; {carried} of its events"
    if last is not None:
        chain_id, head = last
        before = str(Predecessor(chain_id=chain_id, seq=head.seq, row_hash=head.row_hash, carried=carried))
    what = "the chain was given up" if reason.given_up else "the spool's file was damaged"
    return (
        f"{what} ({reason.what}) and the file moved aside as {aside}; {before} that are not known to be forwarded "
        "follow under their own ids"
    )


def _finish_replacement(place: SpoolDirectory) -> None:
    """Where a finished replacement lies: move the old file aside, its log first, and the replacement in."""
    for replacement in place.path.glob(f"spool.db.*-*{_REPLACEMENT}"):
        aside = str(replacement).removesuffix(_REPLACEMENT)
        for suffix in ("-wal", ""):
            part = Path(f"{place.database}{suffix}")
            if part.exists():
                part.rename(f"{aside}{suffix}")
        replacement.rename(place.database)
        sync_directory(place.path)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _unused(directory: Path, name: str) -> Path:
    number, path = 1, directory / name
    while path.exists():
        number += 1
        path = directory / f"{name}.{number}"
    return path


class _Salvage:
    """What a damaged file still gives: rows that their own hashes confirm, and the list of open runs if it is whole."""

    def __init__(self, damaged: sqlite3.Connection | None) -> None:
        self._damaged = damaged
        self._state = self._read_state()
        self.good = [row.seq for row in self._rows_one_by_one()]

    def last_known(self) -> tuple[str, ChainHead] | None:
        """The old chain and its last row, as its state says or else as the last good row does."""
        if self._state is not None:
            return self._state.chain_id, self._state.head
        row = self._row(self.good[-1]) if self.good else None
        return None if row is None else (row.chain_id, ChainHead(row.seq, row.row_hash))

    def copy_into(self, fresh: sqlite3.Connection, state: State) -> None:
        """Chain the good rows anew, byte for byte, with their salts and ids, and restore the open runs."""
        open_runs = OpenRuns(fresh)
        fresh.execute("BEGIN IMMEDIATE")
        for seq in self.good:
            row = self._row(seq)
            assert row is not None
            again = link(
                state.head,
                chain_id=state.chain_id,
                event_id=row.event_id,
                kind=row.kind,
                time_us=row.time_us,
                received_us=row.received_us,
                payload=row.payload,
                salt=row.salt,
            )
            rows.insert(fresh, again, self._digest(seq))
            state = state.moved_to(again)
            _replay(open_runs, row)
        if (runs := self._open_runs()) is not None:
            open_runs.replace_all(runs)
        if self._state is not None:
            state = msgspec.structs.replace(state, last_cluster=self._state.last_cluster)
            self._copy_ids(fresh, self._state.head_seq)
        save(fresh, state)
        fresh.execute("COMMIT")

    def _copy_ids(self, fresh: sqlite3.Connection, head_seq: int) -> None:
        """Ids of events that are in the old chain alone, so that a retry of one is still known as one.

        Under numbers below 1, which are those of no event of the new chain and the first to be forgotten.
        """
        assert self._damaged is not None
        with suppress(*UNREADABLE):  # as far as they can be read
            for seq, event_id, digest in self._damaged.execute(_PAST_IDS, (self._span()[0], MOST_IDS)):
                if isinstance(event_id, bytes) and isinstance(digest, bytes) and len(event_id) == 16:
                    values = (seq - head_seq - 1, event_id, digest)
                    fresh.execute("INSERT OR IGNORE INTO past_ids VALUES (?, ?, ?)", values)

    def _read_state(self) -> State | None:
        if self._damaged is None:
            return None
        try:
            return load_state(self._damaged)
        except UNREADABLE:
            return None

    def _rows_one_by_one(self) -> Iterator[ChainedEvent]:
        """The good rows not known to be forwarded; each looked up by itself, so one bad page costs only its rows."""
        first, last = self._span()
        for seq in range(first, last + 1):
            row = self._row(seq)
            if row is not None and rows.intact(row):
                yield row

    def _span(self) -> tuple[int, int]:
        if self._state is not None and self._state.ending is not None:
            return self._state.ending.after_seq + 1, self._state.head_seq
        if self._state is not None:
            return max(self._state.forwarded_seq, self._state.purged_seq) + 1, self._state.head_seq
        last = self._number("SELECT max(seq) FROM events")
        if last is None:
            last = _MOST_TRIED
        return max(1, last - _MOST_TRIED + 1), last

    def _number(self, query: str) -> int | None:
        if self._damaged is None:
            return 0
        try:
            value = self._damaged.execute(query).fetchone()[0]
        except UNREADABLE:
            return None
        return value if isinstance(value, int) else None

    def _row(self, seq: int) -> ChainedEvent | None:
        if self._damaged is None:
            return None
        try:
            return rows.one(self._damaged, seq)
        except UNREADABLE:
            return None

    def _digest(self, seq: int) -> bytes:
        assert self._damaged is not None
        value = self._damaged.execute("SELECT digest FROM events WHERE seq = ?", (seq,)).fetchone()[0]
        return value if isinstance(value, bytes) else b""

    def _open_runs(self) -> list[OpenRun] | None:
        if self._damaged is None:
            return None
        runs = OpenRuns(self._damaged)
        try:
            return None if runs.damaged() else list(runs.all())
        except UNREADABLE:
            return None


def _replay(open_runs: OpenRuns, row: ChainedEvent) -> None:
    try:
        open_runs.apply(decode(row.payload))
    except InvalidEvent:  # held by an older version with another vocabulary: still part of the trail
        return

"""The spool's file as its writer thread sees it: one connection, one transaction at a time."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from jobtrail.adapters.spool import rows
from jobtrail.adapters.spool.directory import Ballast, Durability, SpoolDirectory
from jobtrail.adapters.spool.runs import OpenRuns
from jobtrail.adapters.spool.schema import PAGE_BYTES, Ending, State, number, save_state
from jobtrail.core.ports import OpenRun, Receipt, SpoolStatus
from jobtrail.domain.audit import SALT_BYTES, ChainedEvent, link
from jobtrail.domain.errors import EventConflict, InvalidEvent, JobtrailError, SpoolBroken, SpoolFull
from jobtrail.domain.events import Event, check_time_us, encode

GROUP_BYTES = 4 * 1024 * 1024  # of payload in one transaction, so that the write-ahead log stays small
PURGE_ROWS = 100  # in one transaction, so that an append never waits long for a purge
PURGE_EVERY_US = 60_000_000
EARLY_ENDS_US = 86_400_000_000
CLOSED_RUNS_US = 7 * EARLY_ENDS_US  # a node whose epilog comes later than this is taken to be a new one
BYTES_PER_PAST_ID = 10_000  # of the byte limit for each id remembered after its event, so ids take about a hundredth
RESERVED_PAGES = 64  # beyond the cap, for deleting alone: what is deleted leaves its id, which takes room first
BUSY_PART = 0.9  # of the byte limit; above it forwarded events go before their time


class NoRoom(Exception):
    """SQLite or the file system has no space left; the transaction was undone."""


Operation = Callable[["Journal"], object]


class Journal:
    """Append, read and purge. Every error of SQLite becomes NoRoom or SpoolBroken here."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        place: SpoolDirectory,
        state: State,
        *,
        durability: Durability,
        limit_bytes: int,
        keep_forwarded_us: int,
        time_us: Callable[[], int],
        boot_id: str | None = None,
    ) -> None:
        self._connection = connection
        self._place = place
        self._durability = durability
        self._limit_bytes = limit_bytes
        self._keep_forwarded_us = keep_forwarded_us
        self._time_us = time_us
        self._runs = OpenRuns(connection, boot_id)
        self._ballast = Ballast(place.path / "ballast", limit_bytes)
        self._purged_us = 0
        self._written_bytes = 0
        self._purged_early = 0
        self._set_aside = self._count_set_aside()
        self.state = state
        self._ballast.restore()
        place.check_in_place()
        self.status = self._status()

    def transact(self, operations: Sequence[Operation]) -> list[object | JobtrailError]:
        """Run `operations` in one transaction and flush it; what each returned, or the error it was refused with.

        May stop early when the transaction is large enough: then fewer outcomes than operations come back. Raises
        NoRoom with nothing done, SpoolBroken.
        """
        before, self._written_bytes = self.state, 0
        outcomes: list[object | JobtrailError] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for operation in operations:
                outcomes.append(self._attempt(operation))
                if self._written_bytes >= GROUP_BYTES:
                    break
            if self.state != before:
                save_state(self._connection, self.state)
            self._connection.execute("COMMIT")
        except (sqlite3.Error, NoRoom) as error:
            self.state = before
            self._roll_back()
            raise _translated(error) from error
        self._place.check_in_place()
        self.status = self._status()
        return outcomes

    def _attempt(self, operation: Operation) -> object | JobtrailError:
        """An operation checks before it writes, so one that is refused has written nothing."""
        try:
            return operation(self)
        except (EventConflict, InvalidEvent) as refusal:
            return refusal

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # SQLite itself rolls back after some errors (sqlite.org/lang_transaction)
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def append(self, event: Event, digest: bytes) -> Receipt:
        """Hold `event` at the end of the chain. Raises EventConflict, InvalidEvent, NoRoom."""
        event_id = _checked_id(event)
        held = self._held(event_id)
        if held is not None:
            if held[1] != digest:
                raise EventConflict(event.event_id)
            seq = max(0, held[0])  # 0: it was forwarded in a chain before this one
            return Receipt(event_id=str(event_id), seq=seq, durability=self._durability.level, duplicate=True)
        if event.event_id != str(event_id):
            event = msgspec.structs.replace(event, event_id=str(event_id))
        payload = _payload(event)  # refuse what cannot be encoded before anything is written
        if not self._ballast.restore():
            raise NoRoom
        effect = self._runs.apply(event)
        row = self._chain(effect.event, payload if effect.event is event else encode(effect.event), digest)
        if effect.inferred is not None:
            said = encode(effect.inferred)
            self._chain(effect.inferred, said, hashlib.sha256(said).digest())
        if event.job_id is not None and event.job_id.startswith("slurm-"):
            self.state = msgspec.structs.replace(self.state, last_cluster=event.cluster)
        return Receipt(
            event_id=row.event_id,
            seq=row.seq,
            durability=self._durability.level,
            opened=effect.opened,
            closed=effect.closed,
            inferred=effect.inferred,
        )

    def _held(self, event_id: uuid.UUID) -> tuple[int, bytes] | None:
        """Sequence number and digest of an event that is held, or was until it was purged."""
        for table in ("events", "past_ids"):
            found: tuple[int, bytes] | None = self._connection.execute(
                f"SELECT seq, digest FROM {table} WHERE event_id = ?",  # noqa: S608 - two names of ours
                (event_id.bytes,),
            ).fetchone()
            if found is not None:
                return found
        return None

    def _chain(self, event: Event, payload: bytes, digest: bytes) -> ChainedEvent:
        row = link_event(self.state, event, payload, received_us=self._time_us())
        rows.insert(self._connection, row, digest)
        self.state = self.state.moved_to(row)
        self._written_bytes += len(payload)
        return row

    def mark_forwarded(self, seq: int) -> None:
        """The store holds the chain up to `seq`; never more than there is."""
        self.state = msgspec.structs.replace(self.state, forwarded_seq=max(0, min(seq, self.state.head_seq)))

    def mark_forwarded_in_memory(self, seq: int) -> None:
        """As mark_forwarded, where there is no room to write it down; the next transaction does."""
        self.mark_forwarded(seq)
        self.status = self._status()

    def record_refusal(self, seq: int, reason: str) -> None:
        """Keep why the store refused the projection of event `seq`."""
        values = (seq, reason, self._time_us())
        self._connection.execute("INSERT OR REPLACE INTO refusals VALUES (?, ?, ?)", values)
        self.count_refusal()

    def count_refusal(self) -> None:
        """Count a refusal where there is no room for its reason."""
        self.state = msgspec.structs.replace(self.state, refused=self.state.refused + 1)

    def give_up_chain(self, after_seq: int, reason: str) -> None:
        """Keep that the chain ends here. The file itself is replaced at the next start, where nobody uses it."""
        self.state = msgspec.structs.replace(self.state, ending=Ending(after_seq=after_seq, reason=reason))

    def check_goes_on(self) -> None:
        """Raise SpoolBroken when the chain was given up."""
        if self.state.ending is not None:
            raise SpoolBroken(f"a new chain begins with the next start: {self.state.ending.reason}")

    def full(self) -> SpoolFull:
        """The error of an event for which there is no room."""
        return SpoolFull(self._limit_bytes)

    def read_after(self, seq: int, limit: int, max_bytes: int) -> list[ChainedEvent]:
        """Committed rows after `seq`, each checked against its hashes: damage found late must not reach the store."""
        batch: list[ChainedEvent] = []
        total = 0
        for row in rows.after(self._connection, seq):
            if len(batch) >= limit or (batch and row is not None and total + len(row.payload) > max_bytes):
                break
            if row is None or not rows.intact(row):
                raise SpoolBroken(f"the row after sequence {batch[-1].seq if batch else seq} was damaged on disk")
            batch.append(row)
            total += len(row.payload)
        return batch

    def open_runs(self) -> list[OpenRun]:
        """The open runs, oldest first."""
        return list(self._runs.all())

    def read(self, operation: Operation) -> object:
        """Run an operation that only reads, outside any transaction, so that it sees what is committed and no more."""
        try:
            return operation(self)
        except sqlite3.Error as error:
            raise SpoolBroken(_describe(error)) from error

    def maintain(self) -> bool:
        """Purge one chunk where it is time to; whether there is more to purge at once."""
        now = self._time_us()
        busy = self.status.bytes_used > BUSY_PART * self._limit_bytes
        if not busy and 0 <= now - self._purged_us < PURGE_EVERY_US:
            return False
        older_than = None if busy else now - self._keep_forwarded_us
        try:
            purged = self._purge(older_than)
        except NoRoom:
            self.make_room()
            return False
        if purged == PURGE_ROWS:
            return True
        self._purged_us = now
        self._set_aside = self._count_set_aside()  # somebody may have taken them away
        return False

    def _count_set_aside(self) -> tuple[int, int]:
        return self._place.count_set_aside("ended"), self._place.count_set_aside("corrupt")

    def make_room(self) -> None:
        """Purge forwarded events whatever their age, using up the ballast for it where the file system is full."""
        self._checkpoint()
        if self._purgeable() > self.state.purged_seq:
            if self._place.is_low():
                self._ballast.release()
            with suppress(NoRoom):  # what could be purged is; the events that find no room are refused
                while self._purge(None):
                    self._checkpoint()
        self._ballast.restore()
        self.status = self._status()

    def _checkpoint(self) -> None:
        """Fold the write-ahead log into the file and give its space back, as far as there is room to."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            if not _is_full(error):
                raise SpoolBroken(_describe(error)) from error

    def _purgeable(self) -> int:
        """The last sequence number that may be purged: forwarded, and never the head."""
        return min(self.state.forwarded_seq, self.state.head_seq - 1)

    def _purge(self, older_than_us: int | None) -> int:
        """Delete a chunk of the oldest forwarded events, held since before `older_than_us`; how many."""
        oldest = self._connection.execute(
            "SELECT seq, received_us FROM events WHERE seq <= ? ORDER BY seq LIMIT ?", (self._purgeable(), PURGE_ROWS)
        ).fetchall()
        count = early = 0
        due_us = self._time_us() - self._keep_forwarded_us
        for _, received_us in oldest:
            if older_than_us is not None and received_us >= older_than_us:
                break
            count += 1
            early += received_us >= due_us
        if count:
            self._cap_pages(self._limit_bytes // PAGE_BYTES + RESERVED_PAGES)
            try:
                self.transact([lambda journal: journal.delete_up_to(oldest[count - 1][0])])
            finally:
                self._cap_pages(self._limit_bytes // PAGE_BYTES)
            self._purged_early += early
            self.status = self._status()
        return count

    def _cap_pages(self, pages: int) -> None:
        """Let the file have so many pages, or as many as it has by now."""
        try:
            self._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        except sqlite3.Error as error:
            raise SpoolBroken(_describe(error)) from error

    def delete_up_to(self, seq: int) -> None:
        """Delete events up to `seq`, but for their ids, and give their pages back to the file system."""
        self._connection.execute(
            "INSERT OR IGNORE INTO past_ids SELECT seq, event_id, digest FROM events WHERE seq <= ?", (seq,)
        )
        self._connection.execute("DELETE FROM past_ids WHERE seq <= ?", (seq - self._limit_bytes // BYTES_PER_PAST_ID,))
        self._connection.execute("DELETE FROM events WHERE seq <= ?", (seq,))
        self.state = msgspec.structs.replace(self.state, purged_seq=seq)
        self._connection.execute("DELETE FROM refusals WHERE seq <= ?", (seq,))
        self._runs.forget_early_ends(self._time_us() - EARLY_ENDS_US)
        self._runs.forget_closed(self._time_us() - CLOSED_RUNS_US)
        for _ in range(number(self._connection, "freelist_count")):
            # sqlite3 steps a statement without result columns once, and each step frees one page.
            self._connection.execute("PRAGMA incremental_vacuum(1)")

    def _status(self) -> SpoolStatus:
        state = self.state
        try:
            used = number(self._connection, "page_count") - number(self._connection, "freelist_count")
            oldest = self._connection.execute(
                "SELECT received_us FROM events WHERE seq > ? ORDER BY seq LIMIT 1", (state.forwarded_seq,)
            ).fetchone()
        except sqlite3.Error as error:
            raise SpoolBroken(_describe(error)) from error
        return SpoolStatus(
            chain_id=state.chain_id,
            durability=self._durability.level,
            head_seq=state.head_seq,
            forwarded_seq=state.forwarded_seq,
            bytes_used=used * PAGE_BYTES,
            bytes_limit=self._limit_bytes,
            oldest_unforwarded_us=None if oldest is None else oldest[0],
            refused=state.refused,
            purged_early=self._purged_early,
            files_ended=self._set_aside[0],
            files_damaged=self._set_aside[1],
        )

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        with suppress(sqlite3.Error):  # what was acknowledged is in the log already; the next start folds it in
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with suppress(sqlite3.Error):
            self._connection.close()


def link_event(state: State, event: Event, payload: bytes, *, received_us: int) -> ChainedEvent:
    """The row of a new event behind the head of the chain."""
    return link(
        state.head,
        chain_id=state.chain_id,
        event_id=event.event_id,
        kind=event.kind,
        time_us=event.time_us,
        received_us=received_us,
        payload=payload,
        salt=os.urandom(SALT_BYTES),
    )


def _checked_id(event: Event) -> uuid.UUID:
    check_time_us("time_us", event.time_us)
    try:
        return uuid.UUID(event.event_id)
    except ValueError as error:
        raise InvalidEvent("event_id", "must be a UUID, such as 7f1d3a52-0c57-4a0e-9b43-1f6a4a0f9d11") from error


def _payload(event: Event) -> bytes:
    try:
        return encode(event)
    except (ValueError, OverflowError) as error:
        raise InvalidEvent("event", f"cannot be encoded: {error}") from error


def _is_full(error: sqlite3.Error) -> bool:
    return _code(error) & 0xFF == sqlite3.SQLITE_FULL


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0))


def _describe(error: sqlite3.Error) -> str:
    return f"SQLite: {error} ({getattr(error, 'sqlite_errorname', 'no code')})"


def _translated(error: sqlite3.Error | NoRoom) -> NoRoom | SpoolBroken:
    if isinstance(error, NoRoom) or _is_full(error):
        return NoRoom()
    return SpoolBroken(_describe(error))

"""The durable event queue as the daemon sees it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

from jobtrail.adapters.spool.directory import MOUNTINFO, Durability, SpoolDirectory, durability_of
from jobtrail.adapters.spool.journal import Journal, Operation
from jobtrail.adapters.spool.opening import Writer, open_file
from jobtrail.adapters.spool.writer import Answer, Listener, Task, WriterThread
from jobtrail.core.ports import Clock, OpenRun, Receipt, SpoolStatus
from jobtrail.domain.audit import ChainedEvent
from jobtrail.domain.chain_beginnings import NEW
from jobtrail.domain.errors import ConfigError, JobtrailError, SpoolBroken
from jobtrail.domain.events import Event

WAL_RESET_FIXED_IN = (3, 51, 3)


class SqliteSpool:
    """An EventSpool in one SQLite file, in WAL mode with synchronous=FULL.

    `append` returns after the transaction that holds the event was flushed (fdatasync(2)). An event id is remembered
    longer than its event, which goes when it was forwarded and is older than the retention time, or room is needed.
    `notices` are sentences about what an administrator should act on; `remarks` about what is good to know.
    """

    def __init__(
        self,
        directory: Path,
        *,
        node: str,
        max_bytes: int,
        keep_forwarded_us: int,
        clock: Clock,
        cluster: str = "",
        boot_id: str | None = None,
        mountinfo: Path = MOUNTINFO,
        note: str = NEW,
    ) -> None:
        self._place = SpoolDirectory(directory)
        self._node = node
        self._cluster = cluster
        self._boot_id = boot_id
        self._max_bytes = max_bytes
        self._keep_forwarded_us = keep_forwarded_us
        self._clock = clock
        self._mountinfo = mountinfo
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[SpoolStatus] = self._loop.create_future()
        self._status: SpoolStatus | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._moved = asyncio.Event()
        self._ended = asyncio.Event()
        self._failure: asyncio.Future[SpoolBroken] = self._loop.create_future()
        self._closing = False
        self.durability_note = ""
        self.notices: tuple[str, ...] = ()
        self.remarks = tuple(_remarks())
        self._thread = WriterThread(
            self._open_journal,
            Listener(opened=self._on_opened, answered=self._on_answered, ended=self._on_ended),
            self._loop,
        )

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        directory: Path,
        *,
        node: str,
        max_bytes: int,
        keep_forwarded_us: int,
        clock: Clock,
        cluster: str = "",
        boot_id: str | None = None,
        mountinfo: Path = MOUNTINFO,
        note: str = NEW,
    ) -> AsyncIterator[SqliteSpool]:
        """The spool in `directory`, created where missing; closed in order at the end.

        `node` and `cluster` name the writer of the chain's first event; `boot_id` is the kernel's, kept with the runs
        that open, None where it is unknown. `mountinfo` is a table as in
        /proc/self/mountinfo; `note` is what the first event of a chain says that follows none.

        Raises ConfigError (directory, lock, newer schema), SpoolBroken.
        """
        spool = cls(
            directory,
            node=node,
            max_bytes=max_bytes,
            keep_forwarded_us=keep_forwarded_us,
            clock=clock,
            cluster=cluster,
            boot_id=boot_id,
            mountinfo=mountinfo,
            note=note,
        )
        spool._thread.start()
        try:
            await spool._opened
            yield spool
        finally:
            await spool._close()

    async def append(self, event: Event, digest: bytes) -> Receipt:
        """Hold `event`. Raises EventConflict, InvalidEvent, SpoolFull, SpoolBroken."""
        receipt: Receipt = await self._ask(lambda journal: journal.append(event, digest), without_room=Journal.full)
        return receipt

    async def read_after(self, seq: int, *, limit: int, max_bytes: int) -> Sequence[ChainedEvent]:
        """Up to `limit` events after `seq`, at least one if there is one, about `max_bytes` of payload."""
        batch: list[ChainedEvent] = await self._ask(lambda journal: journal.read_after(seq, limit, max_bytes))
        return batch

    async def mark_forwarded(self, seq: int) -> None:
        """The store holds everything up to `seq`, or up to the head if that is less."""
        await self._ask(
            lambda journal: journal.mark_forwarded(seq),
            without_room=lambda journal: journal.mark_forwarded_in_memory(seq),
        )

    async def record_refusal(self, seq: int, reason: str) -> None:
        """Keep that the store refused the projection of event `seq`."""
        await self._ask(
            lambda journal: journal.record_refusal(seq, reason), without_room=lambda journal: journal.count_refusal()
        )

    async def give_up_chain(self, after_seq: int, reason: str) -> NoReturn:
        """End this chain for good. Raises SpoolBroken once that is on disk: the next start begins a new one.

        SpoolFull where there is no room for it.
        """
        await self._ask(lambda journal: journal.give_up_chain(after_seq, reason), without_room=Journal.full)
        raise await self.failure()

    async def open_runs(self) -> Sequence[OpenRun]:
        """The runs that began on this node and have not ended, oldest first."""
        runs: list[OpenRun] = await self._ask(lambda journal: journal.open_runs())
        return runs

    async def last_cluster(self) -> str | None:
        """The cluster of the last Slurm job heard of, or None."""
        cluster: str | None = await self._ask(lambda journal: journal.state.last_cluster)
        return cluster

    async def wait_beyond(self, seq: int) -> None:
        """Return when the head is beyond `seq`. Raises SpoolBroken when the spool ends before."""
        while self.status().head_seq <= seq:
            self._check_serving()
            await self._moved.wait()

    def status(self) -> SpoolStatus:
        """Figures as of the last commit."""
        assert self._status is not None, "the spool is open"
        return self._status

    async def failure(self) -> SpoolBroken:
        """Wait for the spool to break; never returns while it serves."""
        return await asyncio.shield(self._failure)

    async def _ask(self, operation: Operation, *, without_room: Operation | None = None) -> Any:
        self._check_serving()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        self._thread.put(Task(operation, future, without_room))
        return await future

    def _check_serving(self) -> None:
        if self._failure.done():
            raise self._failure.result()
        if self._closing:
            raise SpoolBroken("the spool is closed")

    def _open_journal(self) -> Journal:
        """In the writer thread: claim the directory and open the file in it."""
        with ExitStack() as claimed:
            try:
                self._place.claim()
                claimed.callback(self._place.release)
                durability = durability_of(self._place.path, self._mountinfo)
                writer = Writer(
                    node=self._node,
                    cluster=self._cluster,
                    limit_bytes=self._max_bytes,
                    now_us=self._clock.time_us(),
                    note=self._note,
                )
                found = open_file(self._place, writer)
                claimed.callback(found.connection.close)
                journal = Journal(
                    found.connection,
                    self._place,
                    found.state,
                    durability=durability,
                    limit_bytes=self._max_bytes,
                    keep_forwarded_us=self._keep_forwarded_us,
                    time_us=self._clock.time_us,
                    boot_id=self._boot_id,
                )
            except OSError as error:
                raise ConfigError(str(self._place.path), f"cannot be used: {error.strerror}") from error
            claimed.pop_all()
        self.durability_note = durability.note
        self.notices = tuple(_notices(durability, found.story))
        return journal

    def _on_opened(self, status: SpoolStatus) -> None:
        self._status = status
        if not self._opened.done():  # else whoever opens it was cancelled
            self._opened.set_result(status)

    def _on_answered(self, answers: Sequence[Answer], status: SpoolStatus) -> None:
        moved = self._status is None or status.head_seq > self._status.head_seq
        self._status = status
        for task, outcome in answers:
            if task.future.done():  # whoever asked was cancelled
                continue
            if isinstance(outcome, JobtrailError):
                task.future.set_exception(outcome)
            else:
                task.future.set_result(outcome)
        if moved:
            self._wake()

    def _on_ended(self, failure: JobtrailError | None) -> None:
        self._closing = True
        self._ended.set()
        if not self._opened.done():
            self._opened.set_exception(failure or SpoolBroken("the spool is closed"))
        elif isinstance(failure, SpoolBroken) and not self._failure.done():
            self._failure.set_result(failure)
        for future in tuple(self._pending):
            if not future.done():
                future.set_exception(failure or SpoolBroken("the spool is closed"))
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def _close(self) -> None:
        self._closing = True
        self._thread.stop()
        await self._ended.wait()
        await asyncio.to_thread(self._thread.join)
        self._place.release()


def _notices(durability: Durability, story: str | None) -> Iterator[str]:
    if durability.level != "disk":
        yield f"events are not safe from a power cut: {durability.note}"
    if story is not None:
        yield story


def _remarks() -> Iterator[str]:
    if sqlite3.sqlite_version_info < WAL_RESET_FIXED_IN:
        yield (
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset defect that 3.51.3 mended; it needs two connections "
            "and the daemon has one: do not open spool.db with other programs while it runs"
        )

"""The thread that owns the spool's only connection, and its natural group commit.

While one transaction is being flushed, others queue; the next transaction takes all of them. No timer: a lone event is
flushed at once, and a burst shares its flushes.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jobtrail.adapters.spool.journal import Journal, NoRoom, Operation
from jobtrail.core.ports import SpoolStatus
from jobtrail.domain.errors import JobtrailError, SpoolBroken

GROUP_EVENTS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One thing asked of the spool. `without_room` answers a write for which there is no space; a read has none."""

    operation: Operation
    future: asyncio.Future[Any]
    without_room: Operation | None = None


Answer = tuple[Task, object]


class Listener:
    """Where the thread reports, always in the event loop."""

    def __init__(
        self,
        *,
        opened: Callable[[SpoolStatus], None],
        answered: Callable[[Sequence[Answer], SpoolStatus], None],
        ended: Callable[[JobtrailError | None], None],
    ) -> None:
        self.opened = opened
        self.answered = answered
        self.ended = ended


class WriterThread(threading.Thread):
    """Opens the journal, serves tasks until told to stop or until the journal breaks, and closes it."""

    def __init__(
        self, open_journal: Callable[[], Journal], listener: Listener, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(name="jobtrail-spool", daemon=True)
        self._open_journal = open_journal
        self._listener = listener
        self._loop = loop
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._stopping = False

    def put(self, task: Task) -> None:
        """Ask for something; its future is resolved in the event loop."""
        self._queue.put(task)

    def stop(self) -> None:
        """Finish what is queued, then end."""
        self._queue.put(None)

    def run(self) -> None:
        """The thread's life."""
        # Errors nobody foresaw pass through as well: whoever waits is told, and the error itself goes to the log.
        failure: JobtrailError | None = SpoolBroken("the spool's writer thread ended unexpectedly")
        journal: Journal | None = None
        try:
            journal = self._open_journal()
            self._in_loop(self._listener.opened, journal.status)
            self._serve(journal)
            failure = None
        except JobtrailError as error:
            failure = error
        finally:
            if journal is not None:
                journal.close()
            self._in_loop(self._listener.ended, failure)

    def _serve(self, journal: Journal) -> None:
        more_to_do = False
        while not self._stopping:
            group = self._take_group(wait=not more_to_do)
            self._write(journal, [task for task in group if task.without_room is not None])
            journal.check_goes_on()
            self._read(journal, [task for task in group if task.without_room is None])
            more_to_do = journal.maintain()

    def _take_group(self, *, wait: bool) -> list[Task]:
        group: list[Task] = []
        with suppress(queue.Empty):
            while len(group) < GROUP_EVENTS:
                task = self._queue.get(block=wait and not group)
                if task is None:
                    self._stopping = True
                    break
                group.append(task)
        return group

    def _write(self, journal: Journal, tasks: Sequence[Task]) -> None:
        waiting = deque(tasks)
        while waiting:
            try:
                outcomes = journal.transact([task.operation for task in waiting])
            except NoRoom:
                self._write_one_by_one(journal, waiting)
                return
            self._answer([(waiting.popleft(), outcome) for outcome in outcomes], journal)

    def _write_one_by_one(self, journal: Journal, tasks: Sequence[Task]) -> None:
        """Where space is short: duplicates are still told, small events may still fit, the rest is refused."""
        journal.make_room()
        answers: list[Answer] = []
        for task in tasks:
            assert task.without_room is not None
            try:
                outcome = journal.transact([task.operation])[0]
            except NoRoom:
                outcome = task.without_room(journal)
            answers.append((task, outcome))
        journal.make_room()
        self._answer(answers, journal)

    def _read(self, journal: Journal, tasks: Sequence[Task]) -> None:
        """After the commit and outside any transaction: what could still be undone must never be forwarded."""
        if tasks:
            self._answer([(task, journal.read(task.operation)) for task in tasks], journal)

    def _answer(self, answers: list[Answer], journal: Journal) -> None:
        self._in_loop(self._listener.answered, answers, journal.status)

    def _in_loop(self, callback: Callable[..., None], *values: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *values)

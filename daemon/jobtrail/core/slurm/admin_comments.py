"""Writes a run's summary to its job's AdminComment in Slurm's accounting, for sites whose users look for it there.

Only what is settled is written, each run once, and nothing that anybody else wrote is touched unless that is wished.
What goes wrong costs the comment and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import msgspec

from jobtrail.core.facts import AdminCommentDone, AdminCommentsRefused, Observer
from jobtrail.core.ports import Clock, EventIntake, Row
from jobtrail.core.runs.collector import send
from jobtrail.core.slurm.comment_ports import AdminComments, HeldComment, SettledRuns
from jobtrail.core.waiting import Backoff, wait_for_any
from jobtrail.domain.admin_comment import is_ours, summary_line
from jobtrail.domain.errors import SlurmError, SpoolFull, StoreUnavailable
from jobtrail.domain.events import Actor, Event, EventKind
from jobtrail.domain.job_report_making import make_report

SOURCE = "admin_comment"
MOST_A_TURN = 50
MOST_TRIES = 8  # of one run, ever more rarely: about half an hour
LOOK_BACK_SECONDS = 86_400.0  # what ended before is let be
SHORT_LOOK_SECONDS = 7_200.0  # and how far most turns look, so that they cost the database little
FULL_LOOK_SECONDS = 3_600.0
MOST_SECONDS_BETWEEN = 600.0  # between two tries while Slurm refuses all
MOST_REMEMBERED = 20_000

_Key = tuple[str, int]


class _Waiting(msgspec.Struct):
    tries: int
    due: float


class Commenter:
    """Comments on settled runs every `seconds` where this daemon leads."""

    def __init__(
        self,
        comments: AdminComments,
        runs: SettledRuns,
        *,
        intake: EventIntake,
        clock: Clock,
        tell: Observer,
        cluster_of: Callable[[], Awaitable[str | None]],
        leads: Callable[[], Awaitable[bool]],
        new_event_id: Callable[[], str],
        node: str,
        seconds: float,
        replace: bool,
    ) -> None:
        """`replace`: also overwrite what somebody else wrote."""
        self._comments = comments
        self._runs = runs
        self._intake = intake
        self._clock = clock
        self._tell = tell
        self._cluster_of = cluster_of
        self._leads = leads
        self._new_event_id = new_event_id
        self._node = node
        self._seconds = seconds
        self._replace = replace
        self._done: dict[_Key, None] = {}  # a few minutes pass until the store shows what was written
        self._waiting: dict[_Key, _Waiting] = {}
        self._full_look_due = 0.0
        self._backoff = Backoff(seconds, MOST_SECONDS_BETWEEN)
        self._not_before = 0.0
        self.last_problem: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Comment until `stop`; a command on its way is given up then."""
        while not stop.is_set():
            await wait_for_any(stop.wait(), self._guarded_turn())
            await wait_for_any(stop.wait(), timeout_seconds=self._seconds)

    async def _guarded_turn(self) -> None:
        try:
            await self.turn()
        except (StoreUnavailable, SpoolFull):  # told by those who write to them; the next turn tries again
            return

    async def turn(self) -> None:
        """Comment on what can be, once. Raises StoreUnavailable, SpoolFull."""
        if self._clock.monotonic() < self._not_before or not await self._leads():
            return
        cluster = await self._cluster_of()
        if cluster is None:
            return
        rows = await self._look(cluster)
        if not rows:
            return
        try:
            held = await self._comments.held(sorted({_number(row) for row in rows}))
            for row in rows:
                await self._comment(row, held.get(row["job_id"]), cluster)
        except SlurmError as error:
            self._refused(error)
            return
        self.last_problem = None
        self._backoff.reset()

    async def _look(self, cluster: str) -> Sequence[Row]:
        now = self._clock.monotonic()
        full = now >= self._full_look_due
        rows = await self._runs.uncommented(
            cluster,
            since_seconds=LOOK_BACK_SECONDS if full else SHORT_LOOK_SECONDS,
            limit=MOST_A_TURN,
            but_not=(*self._done, *(key for key, waiting in self._waiting.items() if now < waiting.due)),
        )
        if full and len(rows) < MOST_A_TURN:
            self._full_look_due = now + FULL_LOOK_SECONDS
        return rows

    async def _comment(self, row: Row, held: HeldComment | None, cluster: str) -> None:
        """One run. Raises SlurmError where nothing can be written at all."""
        if held is None or (_is_of(row, held) and not held.is_over):
            self._again(row)  # slurmdbd has not heard of its end yet
        elif not _is_of(row, held):
            self._finish(row, "superseded")
        elif held.comment and is_ours(held.comment):
            await self._record(row, held.comment, cluster)
            self._finish(row, "found")
        elif held.comment and not self._replace:
            self._finish(row, "left")
        else:
            await self._write(row, held, cluster)

    async def _write(self, row: Row, held: HeldComment, cluster: str) -> None:
        now = datetime.fromtimestamp(self._clock.time_us() / 1e6, tz=UTC)
        text = summary_line(make_report(row, sentence="", nodes=(), gpus=(), other_runs=(), now=now))
        try:
            await self._comments.write(held, text)
        except SlurmError:
            self._again(row)
            raise
        await self._record(row, text, cluster)
        self._finish(row, "written")

    async def _record(self, row: Row, text: str, cluster: str) -> None:
        """The change to Slurm's record is in the trail, which is also how a later daemon knows of it."""
        event = Event(
            kind=EventKind.COMMENT_WRITTEN,
            event_id=self._new_event_id(),
            time_us=self._clock.time_us(),
            cluster=cluster,
            job_id=row["job_id"],
            node=self._node,
            changed_by=Actor.RECONCILER,
            source=SOURCE,
            run=row["run"],
            note=text,
        )
        await send(self._intake, event)

    def _again(self, row: Row) -> None:
        """Try this one later, a few times."""
        waiting = self._waiting.setdefault(_key(row), _Waiting(0, 0.0))
        waiting.tries += 1
        pause = min(MOST_SECONDS_BETWEEN, self._seconds * 2.0 ** (waiting.tries - 1))
        waiting.due = self._clock.monotonic() + pause
        if waiting.tries >= MOST_TRIES:
            self._finish(row, "failed")

    def _finish(self, row: Row, result: str) -> None:
        self._waiting.pop(_key(row), None)
        self._done[_key(row)] = None
        while len(self._done) > MOST_REMEMBERED:
            del self._done[next(iter(self._done))]
        self._tell(AdminCommentDone(job_id=row["job_id"], run=row["run"], result=result))

    def _refused(self, error: SlurmError) -> None:
        self._tell(AdminCommentsRefused(reason=str(error), repeated=self.last_problem is not None))
        self.last_problem = str(error)
        self._not_before = self._clock.monotonic() + self._backoff.next_seconds()


def _key(row: Row) -> _Key:
    return row["job_id"], row["run"]


def _number(row: Row) -> int:
    return int(row["job_id"].removeprefix("slurm-"))


def _is_of(row: Row, held: HeldComment) -> bool:
    """Whether accounting's last run of the job is this one; a requeue sets the time of submission anew."""
    submitted: datetime | None = row["submit_time"]
    return submitted is not None and held.submit_time == int(submitted.timestamp())

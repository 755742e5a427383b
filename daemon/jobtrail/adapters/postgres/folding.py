"""Applies a batch of events to the runs at hand, through the domain's rules. Touches no database."""

from __future__ import annotations

import re

import msgspec

from jobtrail.domain.audit import ChainedEvent
from jobtrail.domain.belonging import refused_part
from jobtrail.domain.benchmarks.holding import is_about_benchmarks
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import Event, decode
from jobtrail.domain.job import Job, NodeRun, Run
from jobtrail.domain.joining import choose_run
from jobtrail.domain.people import about_nothing
from jobtrail.domain.transitions import Changed, Duplicate, Rejected, apply, open_run

JobKey = tuple[str, str]  # cluster name, job id
RunKey = tuple[str, str, int]

_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def decode_storable(payload: bytes) -> Event:
    """The event in `payload` as jsonb can hold it: U+0000 becomes U+FFFD. Raises InvalidEvent.

    PostgreSQL's jsonb and text refuse U+0000; the payload itself is stored untouched as bytes.
    """
    if b"\\u0000" in payload:
        payload = _NUL.sub(rb"\1\\ufffd", payload)
    return decode(payload)


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one event. `run` is None where no job changed, and `unapplied` says why if one should have.

    `job_id` is the job that an event about a benchmark belongs to, where that one does not name it itself.
    """

    row: ChainedEvent
    event: Event | None = None
    job_id: str | None = None
    run: Run | None = None
    created: bool = False
    unapplied: str | None = None


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """An event on its way in; `event` is None where the bytes are none, with the reason in `problem`."""

    row: ChainedEvent
    event: Event | None
    problem: str | None = None

    @staticmethod
    def of(row: ChainedEvent) -> Offered:
        """Decode `row`, keeping what is wrong with it."""
        try:
            return Offered(row=row, event=decode_storable(row.payload))
        except InvalidEvent as error:
            return Offered(row=row, event=None, problem=str(error))

    @property
    def job_key(self) -> JobKey | None:
        """The job whose runs the event is to change."""
        if self.event is None or self.event.job_id is None or is_about_benchmarks(self.event):
            return None
        return self.event.cluster, self.event.job_id

    @property
    def changes_something(self) -> bool:
        """Whether anything but the trail is to hold what the event says."""
        return self.job_key is not None or (self.event is not None and is_about_benchmarks(self.event))


class Folding:
    """The runs of the jobs of a batch, and what the batch changed in them."""

    def __init__(self, runs: dict[JobKey, list[Run]]) -> None:
        self._runs = runs
        self.jobs: dict[RunKey, Job] = {}
        self.nodes: dict[tuple[RunKey, str], NodeRun] = {}

    def take(self, offered: Offered) -> Taken:
        """Apply one event."""
        row, event = offered.row, offered.event
        if event is None:
            return Taken(row=row, unapplied=offered.problem)
        if event.job_id is None:
            return Taken(row=row, event=event)
        runs = self._runs.setdefault((event.cluster, event.job_id), [])
        chosen = choose_run(runs, event)
        if (reason := refused_part(runs, chosen, event)) is not None:
            return Taken(row=row, event=event, unapplied=reason)
        if chosen is None and (reason := about_nothing(event)) is not None:
            return Taken(row=row, event=event, unapplied=reason)
        number = max((run.job.run for run in runs), default=0) + 1
        run = chosen or open_run(event.cluster, event.job_id, number)
        match apply(run, event, created=chosen is None):
            case Changed(after, created):
                self._keep(runs, after, event.node)
                return Taken(row=row, event=event, run=after, created=created)
            case Duplicate(same):
                return Taken(row=row, event=event, run=same)
            case Rejected(reason):
                return Taken(row=row, event=event, unapplied=reason)

    def _keep(self, runs: list[Run], after: Run, node: str) -> None:
        job = after.job
        for index, run in enumerate(runs):
            if run.job.run == job.run:
                runs[index] = after
                break
        else:
            runs.append(after)
        key = (job.cluster_name, job.job_id, job.run)
        self.jobs[key] = job
        if node in after.nodes:  # Slurm's word on a run is about no node's part
            self.nodes[key, node] = after.nodes[node]

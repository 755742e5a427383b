"""Sends what Slurm said of a run, and what follows from its silence, as events through the one way in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from jobtrail.core.facts import Observer, RunClosed, RunReconciled
from jobtrail.core.ports import Clock, EventIntake
from jobtrail.core.runs.collector import send
from jobtrail.domain.events import Actor, Closing, Event, EventKind
from jobtrail.domain.job import Job
from jobtrail.domain.matching import is_news, is_superseded
from jobtrail.domain.slurm import Origin, SlurmRecord

SOURCE = "reconciler"
UNKNOWN_TO_SLURM = "unknown_to_slurm"
REMEMBERED_SECONDS = 600.0
MOST_REMEMBERED = 20_000

FAILED_BY_NODE = frozenset({"NODE_FAIL", "BOOT_FAIL"})

NodeStates = Callable[[Sequence[str]], Mapping[str, str]]
_Key = tuple[str, int | None, Origin]


class SlurmWords:
    """Sends each word once: the store shows what was sent a little later, and is asked again before that."""

    def __init__(
        self,
        *,
        intake: EventIntake,
        clock: Clock,
        tell: Observer,
        new_event_id: Callable[[], str],
        node: str,
        node_states: NodeStates,
    ) -> None:
        """`node_states` tells the present states of nodes by name: evidence where a run ended because of its node."""
        self._intake = intake
        self._clock = clock
        self._tell = tell
        self._new_event_id = new_event_id
        self._node = node
        self._node_states = node_states
        self._sent: dict[_Key, tuple[SlurmRecord, float]] = {}

    async def about(self, job: Job, record: SlurmRecord) -> bool:
        """Send what `record` says of the run `job`, unless it says nothing new. Raises SpoolFull, SpoolBroken."""
        if not is_news(job, record):
            return False
        return await self._send(record, job.cluster_name, job.run)

    async def of_unannounced(self, record: SlurmRecord, cluster: str) -> bool:
        """Send a record of which no run is known. Raises SpoolFull, SpoolBroken."""
        return await self._send(record, cluster, None)

    async def _send(self, record: SlurmRecord, cluster: str, run: int | None) -> bool:
        key, now = (record.job_id, run, record.origin), self._clock.monotonic()
        held = self._sent.get(key)
        if held is not None and held[0] == record and now < held[1] + REMEMBERED_SECONDS:
            return False
        evident = record
        if record.is_final and record.state in FAILED_BY_NODE:
            evident = msgspec.structs.replace(record, node_states=dict(self._node_states(record.facts.nodes or ())))
        event = Event(
            kind=EventKind.SLURM_REPORTED,
            event_id=self._new_event_id(),
            time_us=self._clock.time_us(),
            cluster=cluster,
            job_id=record.job_id,
            node=self._node,
            changed_by=Actor.RECONCILER,
            source=str(record.origin),
            sluid=record.sluid,
            run=run,
            slurm=evident,
        )
        await send(self._intake, event)
        self._remember(key, record, now)
        self._tell(RunReconciled(job_id=record.job_id, run=run, state=record.state, origin=record.origin))
        return True

    def _remember(self, key: _Key, record: SlurmRecord, now: float) -> None:
        self._sent.pop(key, None)
        self._sent[key] = (record, now)
        while len(self._sent) > MOST_REMEMBERED:
            del self._sent[next(iter(self._sent))]

    async def close(self, job: Job) -> None:
        """Close a run that Slurm knows nothing of. Raises SpoolFull, SpoolBroken."""
        usage, now_us = job.usage, self._clock.time_us()
        submitted_us = None if job.submit_time is None else job.submit_time * 1_000_000
        told = (submitted_us, job.start_us, usage.last_alive_us if usage else None)
        seen = [time_us for time_us in told if time_us is not None]
        event = Event(
            kind=EventKind.JOB_CLOSED,
            event_id=self._new_event_id(),
            time_us=now_us,
            cluster=job.cluster_name,
            job_id=job.job_id,
            node=self._node,
            changed_by=Actor.RECONCILER,
            source=SOURCE,
            run=job.run,
            closing=Closing(
                reason=UNKNOWN_TO_SLURM,
                not_before_us=min(now_us, max(seen, default=now_us)),
                detail="neither the controller nor accounting knows the job",
                whole_run=True,
            ),
        )
        await send(self._intake, event)
        self._tell(RunClosed(job_id=job.job_id, reason=UNKNOWN_TO_SLURM))


def taken_back(job: Job, records: Iterable[SlurmRecord]) -> SlurmRecord | None:
    """What follows for `job` when the controller's record is of a later run, and no accounting can tell more."""
    later = next((record for record in records if is_superseded(job, record)), None)
    if later is None:
        return None
    known = msgspec.structs.replace(later.facts, restart_count=None, nodes=None, node_list=None)
    return SlurmRecord(origin=Origin.SLURMCTLD, job_id=job.job_id, cluster=later.cluster, state="REQUEUED", facts=known)

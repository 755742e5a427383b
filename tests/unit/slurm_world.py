"""A cluster in memory: what hooks told, what Slurm would answer, and the runs that follow from the events."""

from collections.abc import Sequence
from itertools import count

from jobtrail.core.ports import Receipt
from jobtrail.core.slurm.reconciler import Reconciler, Rhythm
from jobtrail.core.slurm.words import SlurmWords
from jobtrail.domain.errors import SlurmError, SpoolFull, StoreUnavailable
from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage
from jobtrail.domain.job import Job, Run
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.joining import choose_run
from jobtrail.domain.slurm import NodeRecord, Origin, SlurmAnswer, SlurmRecord, Unreadable
from jobtrail.domain.transitions import Rejected, apply, open_run
from tests.fakes import Facts, FakeClock

CLUSTER, SERVER, NODE = "c1", "server", "n1"


class Store:
    """The one way in and the store behind it, without the way between: events change the runs at once."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Run]] = {}
        self.events: list[Event] = []
        self.full = False
        self.unavailable = False

    async def accept(self, event: Event, digest: bytes) -> Receipt:
        assert len(digest) == 32
        if self.full:
            raise SpoolFull(1)
        self.tell(event)
        return Receipt(event_id=event.event_id, seq=len(self.events), durability="disk")

    def tell(self, event: Event) -> None:
        self.events.append(event)
        assert event.job_id is not None
        runs = self.runs.setdefault(event.job_id, [])
        chosen = choose_run(runs, event)
        result = apply(chosen or open_run(event.cluster, event.job_id, len(runs) + 1), event, created=chosen is None)
        assert not isinstance(result, Rejected)
        kept = [run for run in runs if run.job.run != result.run.job.run]
        self.runs[event.job_id] = sorted([*kept, result.run], key=lambda run: run.job.run)

    def jobs(self, job_id: str) -> list[Job]:
        return [run.job for run in self.runs.get(job_id, [])]

    def _all(self, awaits: Sequence[str]) -> list[Job]:
        if self.unavailable:
            raise StoreUnavailable("away")
        return [run.job for runs in self.runs.values() for run in runs if run.job.awaits in awaits]

    async def unsettled(self, cluster: str, *, limit: int) -> list[Job]:
        return [job for job in self._all(("facts", "outcome", "usage")) if job.cluster_name == cluster][:limit]

    async def open_runs(self, cluster: str, *, limit: int) -> list[Job]:
        return [job for job in self._all(("facts", "end")) if job.cluster_name == cluster][:limit]

    async def runs_of(self, cluster: str, job_ids: Sequence[str]) -> list[Job]:
        return [job for job_id in job_ids for job in self.jobs(job_id) if job.cluster_name == cluster]

    async def only_cluster(self) -> str | None:
        return CLUSTER


class Slurm:
    """Controller and accounting: records to answer with, and what was asked."""

    def __init__(self) -> None:
        self.current: list[SlurmRecord] = []
        self.history: list[SlurmRecord] = []
        self.unreadable: list[Unreadable] = []
        self.problem: SlurmError | None = None
        self.history_problem: SlurmError | None = None
        self.asked: list[str] = []
        self.since = 0

    async def current_jobs(self) -> SlurmAnswer:
        self.asked.append("jobs")
        if self.problem is not None:
            raise self.problem
        return SlurmAnswer(records=tuple(self.current), unreadable=tuple(self.unreadable))

    async def job(self, number: int) -> SlurmAnswer:
        self.asked.append(f"job {number}")
        if self.problem is not None:
            raise self.problem
        return SlurmAnswer(records=tuple(one for one in self.current if one.job_id == f"slurm-{number}"))

    async def nodes(self) -> list[NodeRecord]:
        return []

    async def runs_of(self, numbers: Sequence[int], *, since: int) -> SlurmAnswer:
        self.since = since
        self.asked.append("history " + " ".join(map(str, numbers)))
        if self.history_problem is not None:
            raise self.history_problem
        wanted = {f"slurm-{number}" for number in numbers}
        return SlurmAnswer(records=tuple(record for record in self.history if record.job_id in wanted))


class World:
    """All of it, with a clock that the test moves."""

    def __init__(
        self, *, controller: bool = True, accounting: bool = True, check_cluster: bool = True, lone: bool = False
    ) -> None:
        self.clock, self.facts, self.store, self.slurm = FakeClock(), Facts(), Store(), Slurm()
        self.cluster: str | None = CLUSTER
        self.leading = True
        ids = count(1)
        words = SlurmWords(
            intake=self.store,
            clock=self.clock,
            tell=self.facts,
            new_event_id=lambda: f"00000000-0000-4000-8000-{next(ids):012}",
            node=SERVER,
            node_states=lambda names: dict.fromkeys(names, "down"),
        )
        self.reconciler = Reconciler(
            controller=self.slurm if controller else None,
            accounting=self.slurm if accounting else None,
            store=self.store,
            words=words,
            clock=self.clock,
            tell=self.facts,
            cluster_of=self._cluster,
            rhythm=Rhythm(poll_seconds=5.0, compare_seconds=180.0),
            **({} if lone else {"leads": self._leads}),  # type: ignore[arg-type]
            check_cluster=check_cluster,
        )

    async def _cluster(self) -> str | None:
        return self.cluster

    async def _leads(self) -> bool:
        return self.leading

    @property
    def now(self) -> int:
        """Seconds since 1970."""
        return self.clock.time_us() // 1_000_000

    async def turn(self, after_seconds: float = 5.0) -> None:
        self.clock.advance(after_seconds)
        await self.reconciler.turn()

    def _event(self, kind: EventKind, number: int, **fields: object) -> Event:
        return Event(
            kind=kind,
            event_id=f"{kind}-{number}-{self.clock.time_us()}",
            time_us=self.clock.time_us(),
            cluster=CLUSTER,
            job_id=f"slurm-{number}",
            node=NODE,
            source="test",
            **fields,  # type: ignore[arg-type]
        )

    def prolog(self, number: int, nodes: tuple[str, ...] = (NODE,)) -> None:
        facts = JobFacts(user_name="ada", nodes=nodes, cpus=1)
        self.store.tell(self._event(EventKind.JOB_STARTED, number, changed_by=Actor.SLURM_PROLOG, facts=facts))

    def epilog(self, number: int, exit_code: int = 0) -> None:
        outcome = Outcome(exit_code=exit_code)
        self.store.tell(self._event(EventKind.JOB_FINISHED, number, changed_by=Actor.SLURM_EPILOG, outcome=outcome))

    def checkpoint(self, number: int) -> None:
        usage = NodeUsage(cpu_usage_us=1, sample_count=1, last_alive_us=self.clock.time_us())
        self.store.tell(self._event(EventKind.CHECKPOINT, number, changed_by=Actor.COLLECTOR, usage=usage))

    def usage(self, number: int, source: str = "parent_counter") -> None:
        usage = NodeUsage(cpu_usage_us=1, sample_count=1, last_alive_us=self.clock.time_us(), sources={"cpu": source})
        self.store.tell(self._event(EventKind.USAGE_RECORDED, number, changed_by=Actor.COLLECTOR, usage=usage))

    def record(self, number: int, state: str, *, origin: Origin = Origin.SLURMCTLD, **fields: object) -> SlurmRecord:
        return SlurmRecord(origin=origin, job_id=f"slurm-{number}", cluster=CLUSTER, state=state, **fields)  # type: ignore[arg-type]

    def job(self, number: int) -> Job:
        """The newest run."""
        return self.store.jobs(f"slurm-{number}")[-1]

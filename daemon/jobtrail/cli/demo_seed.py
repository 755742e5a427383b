"""The synthetic cluster `demo`: 100 finished jobs, made up and unmistakably so.

They enter through events of a chain of their own, written by the node `demo-generator`, so nothing of them can be taken
for a measurement: cluster `demo`, nodes `demo-…`, source `synthetic`, and a note on every event.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.postgres import PostgresSink, open_pool
from jobtrail.adapters.spool import SqliteSpool
from jobtrail.config import Config
from jobtrail.core.forwarder import Forwarder
from jobtrail.core.waiting import Backoff
from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage, request_digest
from jobtrail.domain.job_facts import JobFacts, Outcome

CLUSTER = "demo"
GENERATOR = "demo-generator"
JOBS = 100
NOTE = "synthetic: made by SEED_DEMO, not measured"
HOUR_US = 3_600_000_000
_NAMESPACE = uuid.UUID("5a0f6f0e-4c57-5d6b-8f5e-d3a0c0ffee00")
_PEOPLE = (("demo-ada", "physics"), ("demo-grace", "physics"), ("demo-linus", "biology"), ("demo-marie", "chemistry"))
_OUTCOMES = (
    Outcome(exit_code=0, final_state="completed"),
    Outcome(exit_code=1, final_state="failed"),
    Outcome(out_of_memory=True, final_state="failed"),
    Outcome(exit_signal=15, final_state="cancelled"),
)


class Synthetic(msgspec.Struct, frozen=True, kw_only=True):
    """One made-up job."""

    number: int
    start_us: int
    seconds: int
    cpus: int
    load: float
    person: tuple[str, str]
    outcome: Outcome

    @property
    def node(self) -> str:
        """Its made-up node."""
        return f"demo-n{self.number % 8 + 1:02d}"


async def seed(config: Config, directory: Path) -> int:
    """Add the synthetic jobs once; how many were added. Raises StoreUnavailable when the database is away."""
    clock = SystemClock()
    async with SqliteSpool.opened(
        directory / "demo-spool",
        node=GENERATOR,
        max_bytes=config.spool.max_bytes,
        keep_forwarded_us=10 * 365 * 24 * HOUR_US,  # kept, so that a second seeding finds them held
        clock=clock,
    ) as spool:
        before = spool.status().head_seq
        for job in _jobs(clock.time_us()):
            for event in _events(job):
                await spool.append(event, request_digest("synthetic", event.event_id, b""))
        async with open_pool(config.database.url, size=1, timeout_seconds=config.database.timeout_seconds) as pool:
            forwarder = Forwarder(
                spool, PostgresSink(pool), node=GENERATOR, clock=clock, tell=lambda _fact: None, backoff=Backoff()
            )
            await forwarder.drain()
        return (spool.status().head_seq - before) // len(_KINDS)


def _jobs(now_us: int) -> Iterator[Synthetic]:
    """The same jobs at every call but for when they were, within the last day."""
    draw = random.Random(2026)  # noqa: S311 - reproducible figures, no secret
    for number in range(1, JOBS + 1):
        seconds = int(draw.lognormvariate(6.5, 1.0))
        yield Synthetic(
            number=number,
            start_us=now_us - 24 * HOUR_US + draw.randrange(20 * HOUR_US),
            seconds=min(seconds, 3 * 3600),
            cpus=draw.choice((1, 2, 4, 8, 16)),
            load=draw.uniform(0.15, 0.98),
            person=draw.choice(_PEOPLE),
            outcome=draw.choices(_OUTCOMES, weights=(80, 12, 4, 4))[0],
        )


_KINDS = (EventKind.JOB_STARTED, EventKind.JOB_FINISHED, EventKind.USAGE_RECORDED)


def _events(job: Synthetic) -> Iterator[Event]:
    end_us = job.start_us + job.seconds * 1_000_000
    cpu_us = int(job.load * job.cpus * job.seconds * 1e6)
    user, account = job.person
    details: tuple[dict[str, Any], ...] = (
        {
            "facts": JobFacts(
                user_name=user,
                account=account,
                partition="demo",
                job_name=f"demo-job-{job.number}",
                nodes=(job.node,),
                cpus=job.cpus,
            )
        },
        {"outcome": job.outcome},
        {
            "usage": NodeUsage(
                cpu_usage_us=cpu_us,
                memory_peak_bytes=int(job.load * job.cpus * 2**30),
                oom_kills=int(job.outcome.out_of_memory),
                sample_count=max(1, job.seconds // 15),
                first_sample_us=job.start_us,
                last_sample_us=end_us,
                covered_us=job.seconds * 1_000_000,
                sources={"usage": "synthetic"},
            )
        },
    )
    for kind, time_us, detail in zip(_KINDS, (job.start_us, end_us, end_us), details, strict=True):
        event = Event(
            kind=kind,
            event_id=str(uuid.uuid5(_NAMESPACE, f"{job.number}/{kind}")),
            time_us=time_us,
            cluster=CLUSTER,
            job_id=f"slurm-{job.number}",
            node=job.node,
            changed_by=Actor.CLI,
            source="synthetic",
            note=NOTE,
        )
        yield msgspec.structs.replace(event, **detail)

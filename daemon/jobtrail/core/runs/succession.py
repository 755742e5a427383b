"""One run of a job after another on the same node: the beginning of the later one shows that the earlier is over.

Slurm runs a prolog again only when the job was requeued (Prolog in slurm.conf(5)), so that an epilog that did not come
before it was lost, or waits as a file. What is inferred here is an end like those that the search for runaways infers:
when the epilog comes after all, it counts.
"""

from __future__ import annotations

from jobtrail.core.ports import OpenRun
from jobtrail.domain.events import Actor, Closing, Event, EventKind

REASON = "later_run_began"
SOURCE = "spool"


def end_of_replaced(earlier: OpenRun, later: OpenRun, *, event_id: str) -> Event | None:
    """The end of `earlier`, which lies before the start of `later` on this node; None where they may be one run.

    A run that was found without a prolog takes what a prolog tells as its own beginning.
    """
    if earlier.found or _is_same(earlier, later):
        return None
    target, known_us = earlier.target, last_known_us(earlier)
    return Event(
        kind=EventKind.JOB_CLOSED,
        event_id=event_id,
        time_us=max(later.started_us, known_us),  # the clock may have been set back
        cluster=target.cluster,
        job_id=target.job_id,
        node=target.node,
        changed_by=Actor.COLLECTOR,
        source=SOURCE,
        slurm_start_time=earlier.slurm_start_time,
        sluid=target.sluid,
        opened_by=target.ref,
        closing=Closing(
            reason=REASON, not_before_us=known_us, detail=f"event {later.target.ref} told the start of a later run here"
        ),
    )


def last_known_us(run: OpenRun) -> int:
    """The last time of which the run's last checkpoint, or its start, tells."""
    sampled_us = None if run.usage is None else run.usage.last_sample_us
    return max(run.started_us, sampled_us or 0)


def _is_same(one: OpenRun, other: OpenRun) -> bool:
    """Whether Slurm's own keys say that both are one run, whose prolog was told twice."""
    if one.target.sluid is not None and other.target.sluid is not None:
        return one.target.sluid == other.target.sluid
    return one.slurm_start_time is not None and one.slurm_start_time == other.slurm_start_time

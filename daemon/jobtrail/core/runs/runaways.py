"""Closes runs of this node whose end nobody reports: the epilog was lost, `jobtrail exec` killed, the node rebooted.

What is closed is inferred and says so, with the interval in which the end lies. When the end is reported after all,
that report counts. Left open here, until the central store knows from Slurm that they are over, are
- a job of Slurm whose cgroup was never seen: there may be none (ProctrackType and TaskPlugin in slurm.conf(5)), and its
  prolog may still run;
- one whose cgroup is there: a suspended job has one, and also a dead one, after a slurmstepd was killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from jobtrail.core.facts import EventRejected, Observer, RunClosed
from jobtrail.core.ports import Clock, EventIntake, EventSpool, OpenRun
from jobtrail.core.runs.collector import send
from jobtrail.core.runs.over_runs import Over, OverRuns, may_be_over
from jobtrail.core.runs.sight import Sight, is_slurms
from jobtrail.core.runs.succession import last_known_us
from jobtrail.core.waiting import wait_for_any
from jobtrail.domain.errors import SpoolFull, StoreRefused, StoreUnavailable
from jobtrail.domain.events import Actor, Closing, Event, EventKind
from jobtrail.domain.samples import Target

SOURCE = "runaways"
LOCAL_GRACE_SECONDS = 10.0  # `jobtrail exec` tells an end for five seconds after it
# Between two steps of a job on a node there is no cgroup where neither the batch step nor the extern step runs there.
BETWEEN_STEPS_SECONDS = 86_400.0
# More than munge allows two clocks to differ by: on a node whose clock was set since, a job cannot have begun so early.
CLOCK_SET_US = 600_000_000
LASTING_STEPS = frozenset({"step_batch", "step_extern"})

StepsOf = Callable[[Sequence[Target]], Mapping[str, frozenset[str]]]


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """The node's present life: the kernel's id of it, and when it began by the clock of now; None where unreadable."""

    boot_id: str | None
    booted_us: Callable[[], int | None]


class Graces(msgspec.Struct, frozen=True, kw_only=True):
    """How often all open runs are looked through, and how long a Slurm job's cgroup is gone before the job is over."""

    every_seconds: float = 120.0
    gone_seconds: float = 300.0


class _Finding(msgspec.Struct, frozen=True):
    """Why a run is over; the end lies between the two times."""

    reason: str
    not_before_us: int
    latest_us: int
    detail: str


class Runaways:
    """Looks through the open runs.

    `sight_of(ref)` is what the sampler saw of a run, None when it does not watch it. `steps_of` gives the
    names of the cgroups of jobs' steps, by ref; it may block, and is called in a thread. `over_runs` is None where no
    database is configured.
    """

    def __init__(
        self,
        *,
        spool: EventSpool,
        intake: EventIntake,
        sight_of: Callable[[str], Sight | None],
        steps_of: StepsOf,
        boot: Boot,
        clock: Clock,
        tell: Observer,
        new_event_id: Callable[[], str],
        graces: Graces,
        over_runs: OverRuns | None = None,
    ) -> None:
        self._spool = spool
        self._intake = intake
        self._sight_of = sight_of
        self._steps_of = steps_of
        self._boot = boot
        self._clock = clock
        self._tell = tell
        self._new_event_id = new_event_id
        self._graces = graces
        self._over_runs = over_runs
        self._lasting: set[str] = set()  # refs of runs in whose cgroup a step runs as long as the job
        self._contained = False  # whether any job has an extern step: PrologFlags is the same for all

    async def close_rebooted(self) -> frozenset[str]:
        """Close the runs of before the reboot; the refs of those for whose end the spool has no room yet.

        To be done before anything is sampled: a job of the same id may run again, and its counters are its own.
        """
        left = set()
        for run in await self._spool.open_runs():
            finding = self._rebooted(run)
            if finding is not None and not await self._close(run, finding):
                left.add(run.target.ref)
        return frozenset(left)

    async def run(self, stop: asyncio.Event) -> None:
        """Look through the open runs every few minutes until `stop`."""
        while not stop.is_set():
            await wait_for_any(stop.wait(), timeout_seconds=self._graces.every_seconds)
            if not stop.is_set():
                await self.turn()

    async def turn(self) -> None:
        """Look through the open runs once."""
        runs = await self._spool.open_runs()
        await self._look_at_steps(runs)
        over = await self._ask_store(runs)
        for run in runs:
            sight = self._sight_of(run.target.ref)
            finding = self._rebooted(run) or self._gone(run, sight) or self._over(run, sight, over)
            if finding is not None and not await self._close(run, finding):
                return  # the next turn finds it again

    async def _ask_store(self, runs: Sequence[OpenRun]) -> Mapping[str, Over]:
        """What the store knows of runs that are not seen alive here; nothing while it does not answer."""
        before_us = self._clock.time_us() - self._grace_us
        asked = [
            run.target
            for run in runs
            if is_slurms(run) and may_be_over(run, self._sight_of(run.target.ref), begun_before_us=before_us)
        ]
        if self._over_runs is None or not asked:
            return {}
        try:
            return await self._over_runs.over(asked)
        except (StoreUnavailable, StoreRefused):  # the forwarder tells what the store lacks
            return {}

    @property
    def _grace_us(self) -> int:
        return round(self._graces.gone_seconds * 1e6)

    def _over(self, run: OpenRun, sight: Sight | None, over: Mapping[str, Over]) -> _Finding | None:
        """That Slurm ended the run, or knows it no more, for longer than its epilog takes."""
        known = over.get(run.target.ref)
        if known is None or sight is None or sight.is_alive or run.started_us > known.latest_us:
            return None
        if self._clock.time_us() - known.latest_us < self._grace_us:
            return None
        seen_us = _last_seen_us(run, sight)
        # A cgroup without processes, as a slurmstepd leaves that was killed, tells nothing of the end.
        not_before_us = min(seen_us, known.latest_us) if sight.empty else seen_us
        return _Finding(known.reason, not_before_us, known.latest_us, known.detail)

    async def _look_at_steps(self, runs: Sequence[OpenRun]) -> None:
        targets = [run.target for run in runs if is_slurms(run)]
        self._lasting &= {target.ref for target in targets}
        if not targets:
            return
        steps = await asyncio.to_thread(self._steps_of, targets)
        self._contained = self._contained or any("step_extern" in names for names in steps.values())
        self._lasting |= {ref for ref, names in steps.items() if names & LASTING_STEPS}

    def _rebooted(self, run: OpenRun) -> _Finding | None:
        """That the node has rebooted since the run began, as the kernel's boot id says."""
        now = self._boot.boot_id
        if None in (now, run.boot_id) or now == run.boot_id:
            return None
        detail = f"the node has rebooted: its boot id was {run.boot_id} when the run began and is {now}"
        return self._over_by_boot(run, detail)

    def _over_by_boot(self, run: OpenRun, detail: str) -> _Finding:
        booted_us = self._boot.booted_us()
        latest_us = self._clock.time_us() if booted_us is None else booted_us
        return _Finding("node_rebooted", last_known_us(run), latest_us, detail)

    def _gone(self, run: OpenRun, sight: Sight | None) -> _Finding | None:
        """That nothing of the run has been there for longer than its end takes to be reported."""
        if sight is None or sight.gone_us is None:
            return None
        if self._began_before_boot(run, sight):
            return self._over_by_boot(run, "it began before the node's boot and was not seen since")
        seen = sight.seen_us is not None or (run.usage is not None and run.usage.sample_count > 0)
        grace = self._grace(run, seen=seen)
        if grace is None or sight.gone_seconds < grace:
            return None
        reason = "cgroup_gone" if run.target.whereabouts.root_pid is None else "process_gone"
        return _Finding(reason, _last_seen_us(run, sight), sight.gone_us, f"{_missing(run)} for {grace:g} s")

    def _began_before_boot(self, run: OpenRun, sight: Sight) -> bool:
        """For runs whose boot is unknown, and those whose prolog's file was taken up after the reboot only."""
        booted_us = self._boot.booted_us()
        if booted_us is None or sight.seen_us is not None or sight.gone_seconds < self._graces.gone_seconds:
            return False
        return run.started_us + CLOCK_SET_US < booted_us

    def _grace(self, run: OpenRun, *, seen: bool) -> float | None:
        """How long the run has to be gone to be over; None where that proves nothing."""
        if run.target.whereabouts.root_pid is not None:
            return LOCAL_GRACE_SECONDS
        if not is_slurms(run):
            return LOCAL_GRACE_SECONDS if seen else self._graces.gone_seconds
        if not seen:
            return None
        if self._contained or run.target.ref in self._lasting:
            return self._graces.gone_seconds
        return max(self._graces.gone_seconds, BETWEEN_STEPS_SECONDS)

    async def _close(self, run: OpenRun, finding: _Finding) -> bool:
        """Send the run's end. False when the spool has no room for it now."""
        target = run.target
        event = Event(
            kind=EventKind.JOB_CLOSED,
            event_id=self._new_event_id(),
            time_us=max(finding.latest_us, finding.not_before_us),  # the clock may have been set back
            cluster=target.cluster,
            job_id=target.job_id,
            node=target.node,
            changed_by=Actor.COLLECTOR,
            source=SOURCE,
            slurm_start_time=run.slurm_start_time,
            sluid=target.sluid,
            opened_by=target.ref,
            closing=Closing(reason=finding.reason, not_before_us=finding.not_before_us, detail=finding.detail),
        )
        try:
            await send(self._intake, event)
        except SpoolFull as error:
            self._tell(EventRejected(reason="spool_full", detail=str(error)))
            return False
        self._tell(RunClosed(job_id=target.job_id, reason=finding.reason))
        return True


def _last_seen_us(run: OpenRun, sight: Sight) -> int:
    """The last time at which the run was there; a checkpoint may be of a cgroup without processes."""
    if sight.seen_us is not None:
        return max(run.started_us, sight.seen_us)
    return run.started_us if sight.needs_processes else last_known_us(run)


def _missing(run: OpenRun) -> str:
    where = run.target.whereabouts
    if where.root_pid is not None:
        return f"neither process {where.root_pid} nor any that it started was there"
    if is_slurms(run):
        return "the job's cgroup was not there"
    return "the job's cgroup was not there, or without processes,"

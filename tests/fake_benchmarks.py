"""Benchmarks in memory, held to the same contract suite as PostgreSQL's.

The suite is tests/contract/test_benchmark_store_contract.py. A test puts reports and decisions in with `take`, as the
sink does, and jobs into `jobs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobtrail.domain.benchmarks.holding import content_sha256, gates_of, precedence, refusal
from jobtrail.domain.benchmarks.metrics import METRICS, Direction
from jobtrail.domain.benchmarks.report import BenchmarkReport, Decision, Role, Status
from jobtrail.domain.benchmarks.settling import (
    CandidateRun,
    HistoryRun,
    LastValidRun,
    LinkState,
    Settlement,
    UnsettledRun,
    Verdict,
    WindowUse,
)
from jobtrail.domain.benchmarks.summary import RunSummary, summarise, values_of
from jobtrail.domain.errors import StoreUnavailable
from jobtrail.domain.events import Event

Key = tuple[str, str]  # metric, statistic
DAY_US = 86_400_000_000


class HeldRun:
    """A reported run and what became of it."""

    def __init__(self, event: Event, stored_us: int) -> None:
        self.event = event
        self.stored_us = stored_us
        self.waiting_since_us = stored_us
        self.settled = False
        self.judged = False
        self.settlement = Settlement()
        self.verdicts: dict[Key, Verdict] = {}

    @property
    def report(self) -> BenchmarkReport:
        assert self.event.benchmark is not None
        return self.event.benchmark

    @property
    def summary(self) -> RunSummary:
        return summarise(self.report)

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands in its series."""
        return self.report.ended_us, self.report.run_uid

    @property
    def gates(self) -> dict[Key, float]:
        return {} if self.report.recipe is None else gates_of(self.report.recipe.body)

    @property
    def counts(self) -> bool:
        """Whether the best link to a job that served, or else to a client, holds; a run without jobs does."""
        links = self.settlement.links
        serving = [link for link in links if link.claim.role is not Role.CLIENT] or links
        return not self.report.jobs or any(link.state is LinkState.LINKED for link in serving)

    def values(self) -> dict[Key, float]:
        own = {(one.metric, one.stat): one.value for one in self.summary.measurements}
        return {(metric, stat): value for metric, stat, value in self.settlement.measurements} | own


class MemoryBenchmarks:
    """A BenchmarkStore in memory."""

    def __init__(self, *, max_error_ratio: float = 0.01) -> None:
        self.runs: dict[str, HeldRun] = {}
        self.decisions: list[Event] = []
        self.jobs: list[CandidateRun] = []
        self.windows: dict[tuple[str, str, int], WindowUse] = {}  # by the run of a job
        self.unavailable: str | None = None  # set it to make the store go away
        self.now_us = 1_760_000_000_000_000
        self._max_error_ratio = max_error_ratio

    def take(self, event: Event) -> str | None:
        """Hold a report or a decision; why it cannot be."""
        if (reason := refusal(event)) is not None:
            return reason
        self.now_us += 1
        if event.baseline is not None:
            self.decisions.append(event)
            self._judge_again_after(event.baseline.run_uid)
            return None
        assert event.benchmark is not None
        run_uid = event.benchmark.run_uid
        held = self.runs.get(run_uid)
        if held is None:
            self.runs[run_uid] = HeldRun(event, self.now_us)
            self._judge_again_after(run_uid)
        elif content_sha256(held.report) != content_sha256(event.benchmark):
            return f"benchmark run {run_uid} is held with other contents"
        elif precedence(event) < precedence(held.event):
            held.event, held.settled = event, False
        return None

    async def unsettled(self, *, limit: int) -> Sequence[UnsettledRun]:
        self._check_available()
        waiting = [run for run in self.runs.values() if not run.settled and run.stored_us > self.now_us - 7 * DAY_US]
        waiting.sort(key=lambda run: (run.waiting_since_us, run.report.run_uid))
        return [self._unsettled(run) for run in waiting[:limit]]

    def _unsettled(self, run: HeldRun) -> UnsettledRun:
        report = run.report
        candidates = [
            job
            for job in sorted(self.jobs, key=lambda job: (job.cluster, job.job_id, job.run))
            if any(claim.job_id == job.job_id and claim.cluster in (None, job.cluster) for claim in report.jobs)
        ]
        return UnsettledRun(
            run_uid=report.run_uid, started_us=report.started_us, ended_us=report.ended_us, status=run.summary.status,
            claims=report.jobs, candidates=tuple(candidates), windows=run.summary.windows,
            output_tokens=run.summary.output_tokens,
            user_name=report.user_name, from_job=report.from_job, by_root=report.uid == 0, received_us=run.stored_us,
        )  # fmt: skip

    async def window_use(self, run: CandidateRun, *, started_us: int, ended_us: int) -> WindowUse:
        self._check_available()
        return self.windows.get((run.cluster, run.job_id, run.run), WindowUse())

    async def settle(self, run_uid: str, settlement: Settlement) -> None:
        self._check_available()
        run = self.runs.get(run_uid)
        if run is None:
            return
        self.now_us += 1
        run.waiting_since_us = self.now_us
        counted = run.counts
        run.settlement, run.settled = settlement, settlement.open_reason is None
        if run.counts != counted or {(metric, stat) for metric, stat, _ in settlement.measurements} & run.gates.keys():
            run.judged = False
            self._judge_again_after(run_uid)

    async def unjudged(self, *, limit: int) -> Sequence[str]:
        self._check_available()
        ok = [run for run in self.runs.values() if run.summary.status is Status.OK]
        waiting = [run for run in ok if not run.judged and (run.counts or run.settled)]
        return [run.report.run_uid for run in sorted(waiting, key=lambda run: run.place)][:limit]

    async def history(self, run_uid: str, *, limit: int) -> Sequence[HistoryRun]:
        self._check_available()
        this = self.runs.get(run_uid)
        if this is None:
            return []
        before = [run for run in self._series(this) if run.counts and run.place < this.place]
        latest = [run for run in before if run.summary.status is Status.OK][-limit:]
        pinned = [run for run in before if self._is_pinned(run) and run not in latest]
        return [self._history_run(run) for run in [*pinned, *latest, this]]

    async def gates(self, run_uid: str) -> dict[Key, float]:
        self._check_available()
        return self.runs[run_uid].gates if run_uid in self.runs else {}

    async def write_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        self._check_available()
        for verdict in verdicts:
            if (run := self.runs.get(verdict.run_uid)) is not None:
                run.verdicts[verdict.metric, verdict.stat] = verdict
                run.judged = True

    async def last_valid_runs(self, *, ended_after_us: int, limit: int) -> Sequence[LastValidRun]:
        self._check_available()
        last: dict[tuple[str, ...], HeldRun] = {}
        for run in sorted(self._valid(), key=lambda run: run.place):
            if run.report.ended_us > ended_after_us:
                last[_labels(run)] = run
        newest = sorted(last.items(), key=lambda item: (bool(item[1].report.jobs), item[1].place), reverse=True)
        return [self._last_valid(labels, run) for labels, run in newest[:limit]]

    def _last_valid(self, labels: tuple[str, ...], run: HeldRun) -> LastValidRun:
        cluster, recipe, model, hardware = labels
        judged = [one for one in run.verdicts.values() if not one.advisory and one.verdict != "insufficient"]
        changes = sorted(
            ((one.metric, one.relative_change) for one in judged if one.relative_change is not None),
            key=lambda change: abs(change[1]),
        )
        statuses = [held.summary.status for held in self.runs.values() if _labels(held) == labels]
        return LastValidRun(
            cluster=cluster, recipe=recipe, model=model, hardware=hardware, ended_us=run.report.ended_us,
            values=run.values(),
            energies={(one.domain, one.window): one.joules for one in run.settlement.energies},
            regressions={
                one.metric: any(o.verdict == "regression" for o in judged if o.metric == one.metric) for one in judged
            },
            baseline_ratios={metric: 1 + change for metric, change in changes},
            runs_by_status={str(status): statuses.count(status) for status in set(statuses)},
        )  # fmt: skip

    def _valid(self) -> Iterable[HeldRun]:
        for run in self.runs.values():
            summary = run.summary
            if run.counts and summary.status is Status.OK and (summary.error_rate or 0) <= self._max_error_ratio:
                yield run

    def _series(self, one: HeldRun) -> list[HeldRun]:
        same = [run for run in self.runs.values() if run.summary.fingerprint == one.summary.fingerprint]
        return sorted(same, key=lambda run: run.place)

    def _history_run(self, run: HeldRun) -> HistoryRun:
        repeats: dict[Key, list[float]] = {}
        for one in run.report.repeats:
            for key, value in ({} if one.result is None else values_of(one.result)).items():
                repeats.setdefault(key, []).append(value)
        return HistoryRun(
            run_uid=run.report.run_uid, ended_us=run.report.ended_us, status=run.summary.status,
            values={key: value for key, value in run.values().items() if _is_good_or_bad(key)},
            repeats={key: tuple(values) for key, values in repeats.items() if _is_good_or_bad(key)},
            verdicts={key: verdict.verdict for key, verdict in run.verdicts.items()},
            error_rate=run.summary.error_rate, counts=run.counts, accepted=bool(self._decided(run, Decision.ACCEPT)),
            pinned=self._is_pinned(run),
        )  # fmt: skip

    def _decided(self, run: HeldRun, decision: Decision) -> list[tuple[int, str]]:
        """When, with the event to tell decisions of one moment apart."""
        return sorted(
            (event.time_us, event.event_id)
            for event in self.decisions
            if event.baseline is not None
            and event.baseline.run_uid == run.report.run_uid
            and event.baseline.decision is decision
        )

    def _is_pinned(self, run: HeldRun) -> bool:
        pins = self._decided(run, Decision.PIN)
        if not pins:
            return False
        later = self._decided(run, Decision.UNPIN)
        for other in self._series(run):
            if other is not run:
                later += self._decided(other, Decision.PIN)
        return max(later, default=(0, "")) < pins[-1]

    def _judge_again_after(self, run_uid: str) -> None:
        if (changed := self.runs.get(run_uid)) is not None:
            for run in self._series(changed):
                run.judged = run.judged and run.place <= changed.place

    def _check_available(self) -> None:
        if self.unavailable is not None:
            raise StoreUnavailable(self.unavailable)


def _labels(run: HeldRun) -> tuple[str, ...]:
    report, summary = run.report, run.summary
    recipe = "" if report.recipe is None else report.recipe.name
    return run.event.cluster, recipe, summary.fingerprint_parts.get("model", ""), summary.hardware


def _is_good_or_bad(key: Key) -> bool:
    return METRICS[key[0]].direction is not Direction.NONE

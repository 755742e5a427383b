"""The settler: links, energy and verdicts of reported runs, what it waits for, and what it does without a store."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from jobtrail.core.benchmarks.board import BenchmarkBoard
from jobtrail.core.benchmarks.energy import (
    AWAITS_END,
    AWAITS_LAST,
    AWAITS_SAMPLE,
    GRACE_US,
    NOT_LINKED,
    SEVERAL,
    EnergyOfRuns,
)
from jobtrail.core.benchmarks.settler import DAY_US, MOST_AT_ONCE, BenchmarkSettler, SettlerSettings
from jobtrail.core.facts import (
    BenchmarkJudged,
    BenchmarkRefused,
    BenchmarkSeriesShed,
    BenchmarkSettled,
    BenchmarksNotSettled,
)
from jobtrail.domain.benchmarks.report import JobClaim, LinkSource, Role, Status
from jobtrail.domain.benchmarks.settling import (
    CandidateRun,
    EnergySample,
    HistoryRun,
    LastValidRun,
    LinkState,
    Settlement,
    UnsettledRun,
    Verdict,
    WindowUse,
)
from jobtrail.domain.errors import StoreRefused, StoreUnavailable
from tests.fakes import Facts, FakeClock
from tests.unit import moved_time

SECOND = 1_000_000
RATE = ("output_token_throughput", "value")


class Store:
    """A BenchmarkStore that has what a test gives it, and notes what it was given."""

    def __init__(self) -> None:
        self.open: list[UnsettledRun] = []
        self.uses: dict[tuple[int, int], WindowUse] = {}
        self.settled: list[tuple[str, Settlement]] = []
        self.histories: dict[str, list[HistoryRun]] = {}
        self.gated: dict[tuple[str, str], float] = {}
        self.written: list[Verdict] = []
        self.last: list[LastValidRun] = []
        self.asked_after_us: list[int] = []
        self.refuses: set[str] = set()
        self.away: str | None = None

    async def unsettled(self, *, limit: int) -> Sequence[UnsettledRun]:
        if self.away is not None:
            raise StoreUnavailable(self.away)
        return self.open[:limit]

    async def window_use(self, run: CandidateRun, *, started_us: int, ended_us: int) -> WindowUse:
        assert run.cluster == "c1"
        return self.uses.get((started_us, ended_us), WindowUse())

    async def settle(self, run_uid: str, settlement: Settlement) -> None:
        if run_uid in self.refuses:
            raise StoreRefused("it does not fit")
        self.settled.append((run_uid, settlement))
        if settlement.open_reason is None:
            self.open = [run for run in self.open if run.run_uid != run_uid]

    async def unjudged(self, *, limit: int) -> Sequence[str]:
        return list(self.histories)[:limit]

    async def history(self, run_uid: str, *, limit: int) -> Sequence[HistoryRun]:
        return self.histories[run_uid][-limit:]

    async def gates(self, run_uid: str) -> dict[tuple[str, str], float]:
        return self.gated

    async def write_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        if verdicts[-1].run_uid in self.refuses:
            raise StoreRefused("it does not fit")
        self.written += verdicts
        for one in verdicts:
            self.histories.pop(one.run_uid, None)

    async def last_valid_runs(self, *, ended_after_us: int, limit: int) -> Sequence[LastValidRun]:
        self.asked_after_us.append(ended_after_us)
        return self.last[:limit]


class World:
    """A settler and all it speaks with."""

    def __init__(self, *, max_series: int = 10) -> None:
        self.clock, self.facts, self.store = FakeClock(), Facts(), Store()
        self.board = BenchmarkBoard(max_series=max_series)
        self.leading = True
        self.now_us = self.clock.time_us()
        energy = EnergyOfRuns(self.store, clock=self.clock, interval_us=15 * SECOND)
        self.settler = BenchmarkSettler(
            self.store,
            energy=energy,
            board=self.board,
            clock=self.clock,
            tell=self.facts,
            leads=self._leads,
            settings=SettlerSettings(seconds=15.0, max_error_ratio=0.01, stale_days=30.0),
        )

    async def _leads(self) -> bool:
        return self.leading

    def turn(self) -> None:
        moved_time.run(self.clock, self.settler.turn())

    def at(self, seconds: float) -> int:
        """A moment by seconds after the beginning."""
        return self.now_us + int(seconds * SECOND)

    def report(self, run_uid: str = "one", **changes: object) -> UnsettledRun:
        """A run of 20 s that ended just now, of a job that has run for 100 s and still runs."""
        job = CandidateRun(cluster="c1", job_id="slurm-5", run=1, start_us=self.at(-100), user_name="ada")
        run = UnsettledRun(
            run_uid=run_uid,
            started_us=self.at(-20),
            ended_us=self.now_us,
            status=Status.OK,
            claims=(JobClaim(job_id="slurm-5", role=Role.BOTH, source=LinkSource.MANIFEST, cluster="c1"),),
            candidates=(job,),
            output_tokens=4000.0,
            user_name="ada",
            received_us=self.now_us,
        )
        run = msgspec.structs.replace(run, **changes)
        self.store.open.append(run)
        return run

    def measured(self, start_s: float, end_s: float, **changes: object) -> None:
        """What the store knows of a window: 100 J a second."""
        looks = tuple(
            EnergySample(
                node="n1", time_us=self.at(at), gpu_microjoules=int((at + 100) * 100 * SECOND), gpu_method="counter",
                covered_us=int((at + 100) * SECOND),
            )
            for at in (start_s, end_s)
        )  # fmt: skip
        use = WindowUse(nodes=("n1",), samples=looks, has_gpus=True, complete=True)
        self.store.uses[self.at(start_s), self.at(end_s)] = msgspec.structs.replace(use, **changes)


def test_a_run_of_a_job_that_goes_on_has_its_numbers_and_waits_for_the_jobs() -> None:
    world = World()
    world.report()
    world.measured(-20, 0)
    world.turn()
    ((uid, one),) = world.store.settled
    assert (uid, one.open_reason, one.energy_invalid_reason) == (
        "one",
        AWAITS_END,
        "no emissions: there is no emission factor or PUE for the time",
    )
    assert [(link.state, link.run) for link in one.links] == [(LinkState.LINKED, 1)]
    assert ("output_tokens_per_joule", "value", 2.0) in one.measurements
    assert {energy.window for energy in one.energies} == {"bench"}
    assert world.facts.of(BenchmarkSettled) == []


def test_where_several_jobs_served_the_energy_of_one_is_not_the_runs() -> None:
    world = World()
    names = ("slurm-5", "slurm-6")
    claims = tuple(JobClaim(job_id=name, role=Role.SERVER, source=LinkSource.MANIFEST, cluster="c1") for name in names)
    jobs = tuple(
        CandidateRun(cluster="c1", job_id=name, run=1, start_us=world.at(-100), user_name="ada") for name in names
    )
    world.report(claims=claims, candidates=jobs)
    world.measured(-20, 0)
    world.turn()
    ((_, one),) = world.store.settled
    assert [link.state for link in one.links] == [LinkState.LINKED] * 2
    assert (one.energies, one.measurements) == ((), ())
    assert one.energy_invalid_reason == f"{SEVERAL}: slurm-5, slurm-6"


def ended(world: World, seconds: float, **changes: object) -> CandidateRun:
    job = CandidateRun(
        cluster="c1", job_id="slurm-5", run=1, start_us=world.at(-100), end_us=world.at(seconds), user_name="ada",
        is_over=True,
    )  # fmt: skip
    return msgspec.structs.replace(job, **changes)


def test_once_the_job_is_over_its_whole_energy_settles_the_run() -> None:
    world = World()
    world.report(candidates=(ended(world, 5),))
    world.measured(-20, 0)
    world.measured(-100, 5, complete=False)
    world.turn()
    assert world.store.settled[-1][1].open_reason == AWAITS_LAST
    world.clock.advance(5 + GRACE_US / SECOND)
    world.turn()
    one = world.store.settled[-1][1]
    assert one.open_reason is None
    assert {(energy.window, energy.domain): energy.joules for energy in one.energies} == {
        ("bench", "gpu"): 2000.0, ("bench", "total"): 2000.0, ("job", "gpu"): 10500.0, ("job", "total"): 10500.0,
    }  # fmt: skip
    assert world.facts.of(BenchmarkSettled) == [BenchmarkSettled(run_uid="one", link="linked")]


def test_the_stores_word_that_no_more_samples_come_is_enough() -> None:
    world = World()
    world.report(candidates=(ended(world, 5),))
    world.measured(-20, 0, complete=False, is_over=True)
    world.measured(-100, 5, complete=False, is_over=True)
    world.turn()
    assert world.store.settled[-1][1].open_reason is None


def test_a_sample_after_the_window_is_awaited_and_nothing_is_written_twice() -> None:
    world = World()
    world.report()
    for _ in range(3):
        world.turn()
        world.clock.advance(15)
    assert [(uid, one.open_reason, one.energies) for uid, one in world.store.settled] == [("one", AWAITS_SAMPLE, ())]
    world.measured(-20, 0)
    world.turn()
    assert [one.open_reason for _, one in world.store.settled] == [AWAITS_SAMPLE, AWAITS_END]


def test_a_job_that_is_over_without_samples_is_settled_without_numbers() -> None:
    world = World()
    world.report(candidates=(ended(world, 5),))
    world.clock.advance(5 + GRACE_US / SECOND)
    world.turn()
    one = world.store.settled[-1][1]
    assert (one.open_reason, one.energies, one.measurements) == (None, (), ())
    assert one.energy_invalid_reason == "no energy is known"


def test_a_job_that_is_over_with_an_unknown_end_has_no_energy_of_its_own() -> None:
    world = World()
    world.report(from_job=True, candidates=(ended(world, 5, end_us=None),))
    world.measured(-20, 0)
    world.turn()
    one = world.store.settled[-1][1]
    assert one.open_reason is None
    assert {energy.window for energy in one.energies} == {"bench"}


def test_without_a_claim_a_run_is_settled_at_once() -> None:
    world = World()
    world.report(claims=())
    world.turn()
    assert world.store.settled == [("one", Settlement(energy_invalid_reason=NOT_LINKED))]
    assert world.facts.of(BenchmarkSettled) == [BenchmarkSettled(run_uid="one", link="none")]


def test_a_conflict_is_told_with_its_reason() -> None:
    world = World()
    world.report(started_us=world.at(-500))
    world.turn()
    (fact,) = world.facts.of(BenchmarkSettled)
    assert fact.link == "conflict"
    assert fact.reason.startswith("the benchmark ran from")


def test_a_job_that_is_not_known_yet_is_awaited() -> None:
    world = World()
    run = world.report(candidates=())
    world.turn()
    world.turn()
    assert [one.open_reason for _, one in world.store.settled] == ["job slurm-5 of cluster c1 is not known yet"]
    job = CandidateRun(cluster="c1", job_id="slurm-5", run=1, start_us=world.at(-100), user_name="ada")
    world.store.open = [msgspec.structs.replace(run, candidates=(job,))]
    world.turn()
    assert world.store.settled[-1][1].links[0].state is LinkState.LINKED


def test_where_more_is_open_than_is_handed_out_all_is_written_so_that_the_rest_has_its_turn() -> None:
    world = World()
    for number in range(MOST_AT_ONCE):
        world.report(f"run-{number}", candidates=())
    world.turn()
    world.turn()
    assert len(world.store.settled) == 2 * MOST_AT_ONCE


def test_what_the_store_refuses_of_one_run_costs_no_other() -> None:
    world = World()
    world.report("bad", claims=())
    world.report("good", claims=())
    world.store.histories = {"bad": histories("bad", [1.0]), "good": histories("good", [1.0])}
    world.store.refuses = {"bad"}
    world.turn()
    assert [uid for uid, _ in world.store.settled] == ["good"]
    assert {one.run_uid for one in world.store.written} == {"good"}
    assert world.facts.of(BenchmarkRefused) == [BenchmarkRefused(run_uid="bad", reason="it does not fit")] * 2


def histories(run_uid: str, values: Sequence[float]) -> list[HistoryRun]:
    *before, last = values
    earlier = [
        HistoryRun(run_uid=f"old-{number}", ended_us=number, status=Status.OK, values={RATE: value})
        for number, value in enumerate(before)
    ]
    return [*earlier, HistoryRun(run_uid=run_uid, ended_us=99, status=Status.OK, values={RATE: last})]


def test_verdicts_are_written_and_new_ones_told() -> None:
    world = World()
    world.store.histories = {"slow": histories("slow", [100.0] * 6 + [50.0])}
    world.turn()
    (verdict,) = world.store.written
    assert (verdict.run_uid, verdict.verdict) == ("slow", "suspect")
    (fact,) = world.facts.of(BenchmarkJudged)
    assert (fact.run_uid, fact.metric, fact.verdict) == ("slow", "output_token_throughput", "suspect")
    assert fact.relative_change == pytest.approx(-0.5)


def test_the_run_before_is_rewritten_when_it_is_confirmed_and_what_is_known_is_not_told_again() -> None:
    world = World()
    runs = histories("again", [100.0] * 6 + [50.0, 50.0])
    runs[-1] = msgspec.structs.replace(runs[-1], verdicts={RATE: "regression"})
    runs[-2] = msgspec.structs.replace(runs[-2], verdicts={RATE: "suspect"})
    world.store.histories = {"again": runs}
    world.turn()
    assert [(one.run_uid, one.verdict, one.confirmed_by) for one in world.store.written] == [
        ("old-6", "regression", "again"),
        ("again", "regression", "old-6"),
    ]
    assert [fact.run_uid for fact in world.facts.of(BenchmarkJudged)] == ["old-6"]


def test_the_recipes_gates_and_the_share_of_errors_count() -> None:
    world = World()
    world.store.gated = {RATE: 0.6}
    world.store.histories = {"slow": histories("slow", [100.0] * 6 + [50.0])}
    world.turn()
    assert world.store.written[0].verdict == "ok"
    runs = histories("errors", [100.0] * 6 + [50.0])
    world.store.histories = {"errors": [*runs[:-1], msgspec.structs.replace(runs[-1], error_rate=0.02)]}
    world.turn()
    assert world.store.written[-1].verdict == "insufficient"


def test_advice_is_written_and_not_told() -> None:
    world = World()
    runs = [
        msgspec.structs.replace(run, values={RATE: 1.0, ("request_latency", "p99"): 1.0})
        for run in histories("one", [1.0] * 7)
    ]
    world.store.histories = {"one": runs}
    world.turn()
    assert {one.metric for one in world.store.written} == {"output_token_throughput", "request_latency"}
    assert {fact.metric for fact in world.facts.of(BenchmarkJudged)} == {"output_token_throughput"}


@pytest.mark.parametrize("left", [[], histories("another", [1.0])])
def test_a_run_that_went_while_we_asked_is_passed_over(left: list[HistoryRun]) -> None:
    world = World()
    world.store.histories = {"gone": left}
    world.turn()
    assert world.store.written == []


def valid(world: World, recipe: str, age_days: float = 0.0, **values: object) -> LastValidRun:
    run = LastValidRun(
        cluster="c1", recipe=recipe, model="m", hardware="00aa11bb", ended_us=world.now_us - int(age_days * DAY_US),
        values={RATE: 1.0},
    )  # fmt: skip
    return msgspec.structs.replace(run, **values)


def test_the_last_valid_runs_are_shown_and_old_ones_are_not() -> None:
    world = World()
    world.store.last = [valid(world, "a", 29.9), valid(world, "b", 30.1)]
    world.turn()
    page = world.board.page
    assert page is not None
    assert [run.recipe for run in page.runs] == ["a"]
    assert world.store.asked_after_us == [world.now_us - 30 * DAY_US]
    world.turn()
    assert world.board.page is page  # nothing new: what was rendered of it may be kept
    world.clock.advance(DAY_US / SECOND)
    world.turn()
    assert world.board.page is not page
    assert world.board.page.runs == ()


def test_the_cap_leaves_off_the_rest_and_counts_it_once() -> None:
    world = World(max_series=2)
    world.store.last = [valid(world, name) for name in "abcdef"]
    world.turn()
    assert world.board.page is not None
    assert [run.recipe for run in world.board.page.runs] == ["a", "b"]
    assert world.board.shed_total == 2
    world.turn()
    assert world.board.shed_total == 2
    assert world.facts.of(BenchmarkSeriesShed) == [BenchmarkSeriesShed(series=2)]
    world.store.last = [valid(world, name) for name in "abg"]
    world.turn()
    assert world.board.shed_total == 3


def test_of_runs_with_the_same_labels_the_first_is_shown() -> None:
    world = World()
    world.store.last = [valid(world, "a", values={RATE: 2.0}), valid(world, "b"), valid(world, "a")]
    world.turn()
    assert world.board.page is not None
    assert [(run.recipe, run.values[RATE]) for run in world.board.page.runs] == [("a", 2.0), ("b", 1.0)]


def test_only_the_leader_settles_and_shows() -> None:
    world = World()
    world.store.last = [valid(world, "a")]
    world.report(candidates=())
    world.turn()
    world.leading = False
    world.turn()
    assert world.board.page is None
    assert len(world.store.settled) == 1
    world.leading = True
    world.turn()
    assert len(world.store.settled) == 2  # another may have written in between


def test_a_store_that_is_away_costs_the_turn_and_is_told_with_its_repetitions() -> None:
    world = World()
    world.store.last = [valid(world, "a")]
    world.turn()
    world.store.away = "no route"
    world.report(claims=())
    world.turn()
    world.turn()
    assert world.board.page is not None
    assert world.settler.last_problem == "no route"
    assert world.facts.of(BenchmarksNotSettled) == [
        BenchmarksNotSettled(reason="no route"),
        BenchmarksNotSettled(reason="no route", repeated=True),
    ]
    world.store.away = None
    world.turn()
    assert world.settler.last_problem is None
    assert [uid for uid, _ in world.store.settled] == ["one"]


def test_it_settles_again_and_again_until_it_is_stopped() -> None:
    world = World()

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(world.settler.run(stop))
        await asyncio.sleep(50)  # of the moved clock
        stop.set()
        await task

    moved_time.run(world.clock, main())
    assert len(world.store.asked_after_us) == 4

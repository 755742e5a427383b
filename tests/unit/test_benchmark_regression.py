"""Verdicts on runs: the rule itself, what counts as a baseline, and the runs that were really measured."""

import itertools
import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobtrail.domain.benchmarks.regression import DEFAULT_GATES, judge
from jobtrail.domain.benchmarks.report import Status
from jobtrail.domain.benchmarks.settling import HistoryRun, Verdict

NOISE = Path(__file__).parents[1] / "fixtures" / "benchmarks" / "noise"
RATE = ("output_token_throughput", "value")
TTFT = ("time_to_first_token", "p50")
TAIL = ("time_to_first_token", "p99")
QUIET = (100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8)  # median 100, MAD 0.5 %: limits at about 3.5 % and 5 %


def run(number: int, value: float, key: tuple[str, str] = RATE, **changes: object) -> HistoryRun:
    one = HistoryRun(run_uid=f"run-{number}", ended_us=number, status=Status.OK, values={key: value})
    return msgspec.structs.replace(one, **changes)


def history(values: Sequence[float], key: tuple[str, str] = RATE) -> list[HistoryRun]:
    return [run(number, value, key) for number, value in enumerate(values)]


def last(runs: Sequence[HistoryRun]) -> Verdict:
    return judge(runs, {})[-1]


def arrive(runs: Sequence[HistoryRun]) -> dict[tuple[str, tuple[str, str]], Verdict]:
    """What stands in the end when the runs come one after another and verdicts are kept."""
    held: dict[tuple[str, tuple[str, str]], Verdict] = {}
    for end in range(1, len(runs) + 1):
        known = [
            msgspec.structs.replace(
                one, verdicts={key: verdict.verdict for (uid, key), verdict in held.items() if uid == one.run_uid}
            )
            for one in runs[:end]
        ]
        held |= {(one.run_uid, (one.metric, one.stat)): one for one in judge(known, {})}
    return held


def words(values: Sequence[float], key: tuple[str, str] = RATE) -> list[str]:
    held = arrive(history(values, key))
    return [held[f"run-{number}", key].verdict for number in range(len(values))]


def test_below_five_runs_nothing_is_said() -> None:
    assert words([100.0, 100.0, 10.0, 100.0, 100.0]) == ["insufficient"] * 5
    verdict = last(history([100.0, 100.0, 10.0, 100.0, 100.0]))
    assert verdict.baseline_n == 4
    assert verdict.z is None
    assert last(history([*[100.0] * 5, 100.0])).verdict == "ok"


def test_the_figures_of_a_verdict() -> None:
    verdict = last(history([*QUIET, 90.0]))
    logs = [math.log(value) for value in QUIET]
    mad = statistics.median(abs(one - statistics.median(logs)) for one in logs)
    assert verdict.median == pytest.approx(100.0)
    assert verdict.mad_log == pytest.approx(mad)
    assert verdict.z == pytest.approx(math.log(0.9) / max(1.4826 * mad, 0.01))
    assert verdict.relative_change == pytest.approx(-0.1)
    assert verdict.min_detectable == pytest.approx(0.05)
    assert (verdict.verdict, verdict.baseline_n, verdict.advisory) == ("suspect", 7, False)
    assert verdict.confirmed_by is None
    assert verdict.reference_uid is None


def test_what_noise_hides_is_said() -> None:
    noisy = [100.0, 120.0, 80.0, 110.0, 90.0]
    verdict = last(history([*noisy, 70.0]))
    mad = statistics.median(abs(math.log(value / 100.0)) for value in noisy)
    assert verdict.verdict == "ok"
    assert verdict.min_detectable == pytest.approx(1 - math.exp(-3.5 * 1.4826 * mad))


def test_a_change_must_be_beyond_noise_and_be_worth_it() -> None:
    assert words([*QUIET, 95.5])[-1] == "ok"  # beyond the noise, and less than 5 %
    assert judge(history([*QUIET, 95.5]), {RATE: 0.04})[0].verdict == "suspect"
    assert words([*QUIET, 94.9])[-1] == "suspect"
    assert words([*QUIET, 105.1])[-1] == "suspect_improvement"


def test_the_next_run_confirms_and_the_suspect_is_confirmed_with_it() -> None:
    assert words([*QUIET, 90.0, 100.0]) == ["insufficient"] * 5 + ["ok"] * 2 + ["suspect", "ok"]
    held = arrive(history([*QUIET, 90.0, 91.0, 92.0]))
    assert [held[f"run-{number}", RATE].verdict for number in (7, 8, 9)] == ["regression"] * 3
    assert held["run-7", RATE].confirmed_by == "run-8"
    assert held["run-8", RATE].confirmed_by == "run-9"
    assert held["run-9", RATE].confirmed_by == "run-8"


def test_a_run_much_better_does_not_confirm_one_much_worse() -> None:
    assert words([*QUIET, 90.0, 110.0])[-2:] == ["suspect", "suspect_improvement"]


def test_improvements_are_found_by_the_same_rule() -> None:
    assert words([*QUIET, 110.0, 111.0])[-2:] == ["improvement"] * 2
    assert words([*QUIET, 110.0, 100.0])[-2:] == ["suspect_improvement", "ok"]


def test_for_a_latency_more_is_worse() -> None:
    assert words([*QUIET, 120.0, 121.0], TTFT)[-2:] == ["regression"] * 2
    assert words([*QUIET, 80.0, 79.0], TTFT)[-2:] == ["improvement"] * 2


@pytest.mark.parametrize(
    ("repeats", "verdict"),
    [
        ((90.0, 91.0, 100.0), "regression"),
        ((90.0, 91.0, 89.0, 100.0, 100.0), "regression"),
        ((100.0, 90.0, 100.0), "suspect"),
        ((90.0, 90.0), "suspect"),  # two repeats are no majority of three
        ((90.0, 90.0, 0.0), "suspect"),  # and one that measured nothing is none
        ((90.0, 90.0, 100.0, 100.0), "suspect"),
        ((110.0, 110.0, 110.0), "suspect"),
    ],
)
def test_a_majority_of_its_own_repeats_confirms(repeats: tuple[float, ...], verdict: str) -> None:
    one = run(9, 90.0, repeats={RATE: repeats})
    told = last([*history(QUIET), one])
    assert told.verdict == verdict
    assert told.confirmed_by == ("repeats" if verdict == "regression" else None)


def test_a_confirmed_regression_is_no_baseline_until_it_is_accepted() -> None:
    slow = [run(10 + number, 90.0, verdicts={RATE: "regression"}) for number in range(9)]
    told = last([*history(QUIET), *slow, run(20, 90.0)])
    assert (told.verdict, told.baseline_n) == ("regression", 7)
    accepted = msgspec.structs.replace(slow[-1], accepted=True)
    told = last([*history(QUIET), *slow[:-1], accepted, run(20, 90.0)])
    assert (told.verdict, told.baseline_n) == ("ok", 8)


def test_what_is_worse_than_the_accepted_run_is_worse_still() -> None:
    accepted = run(10, 90.0, verdicts={RATE: "regression"}, accepted=True)
    assert (
        last([*history(QUIET), accepted, run(11, 80.0)]).verdict == "suspect"
    )  # and the accepted one confirms nothing
    assert last([*history(QUIET), accepted, run(11, 120.0)]).verdict == "suspect_improvement"


def test_the_baseline_is_the_last_ten() -> None:
    told = last(history([*[200.0] * 8, *[100.0] * 10, 100.0]))
    assert (told.verdict, told.baseline_n, told.median) == ("ok", 10, pytest.approx(100.0))


def test_a_slow_slide_is_seen_against_the_pinned_run() -> None:
    slide = [100.0 * 0.985**number for number in range(16)]
    assert set(words(slide)[5:]) == {"ok"}
    runs = history(slide)
    runs[0] = msgspec.structs.replace(runs[0], pinned=True)
    told = last(runs)
    assert (told.verdict, told.reference_uid) == ("regression", "run-0")
    assert told.reference_change == pytest.approx(0.985**15 - 1)
    assert told.confirmed_by == "run-14"


def test_the_pinned_run_is_named_where_the_baseline_is_too_short() -> None:
    runs = history([100.0, 90.0])
    told = last([msgspec.structs.replace(runs[0], pinned=True), runs[1]])
    assert (told.verdict, told.reference_uid) == ("insufficient", "run-0")
    assert told.reference_change == pytest.approx(-0.1)


def test_of_accepting_and_pinning_the_later_run_counts() -> None:
    def judged(value: float, *, pinned: int, accepted: int) -> str:
        runs = history([*QUIET, *[90.0] * 5])
        for number in range(7, 12):
            runs[number] = msgspec.structs.replace(runs[number], verdicts={RATE: "regression"})
        runs[pinned] = msgspec.structs.replace(runs[pinned], values={RATE: 100.0}, pinned=True)
        runs[accepted] = msgspec.structs.replace(runs[accepted], accepted=True)
        return last([*runs, run(13, value)]).verdict

    assert judged(90.0, pinned=0, accepted=11) == "ok"
    assert judged(80.0, pinned=0, accepted=11) == "suspect"
    assert judged(90.0, pinned=11, accepted=10) == "suspect"


def test_a_run_its_repeats_confirmed_confirms_the_next_and_keeps_its_own_proof() -> None:
    first = run(8, 90.0, repeats={RATE: (90.0, 90.0, 90.0)})
    (told,) = judge([*history(QUIET), first, run(9, 90.0)], {})
    assert (told.run_uid, told.verdict, told.confirmed_by) == ("run-9", "regression", "run-8")


def test_runs_that_failed_or_failed_their_requests_are_no_baseline() -> None:
    runs = history([*QUIET, 100.0])
    runs[0] = msgspec.structs.replace(runs[0], status=Status.INVALID)
    runs[1] = msgspec.structs.replace(runs[1], error_rate=0.02)
    runs[2] = msgspec.structs.replace(runs[2], error_rate=0.01)
    runs[3] = msgspec.structs.replace(runs[3], values={RATE: 0.0})
    runs[4] = msgspec.structs.replace(runs[4], values={})
    (told,) = judge(runs, {}, max_error_ratio=0.01)
    assert (told.verdict, told.baseline_n) == ("insufficient", 3)
    (told,) = judge([*history(QUIET), run(9, 50.0, error_rate=0.02)], {}, max_error_ratio=0.01)
    assert (told.verdict, told.baseline_n) == ("insufficient", 0)
    (told,) = judge([*history(QUIET), run(9, 50.0, counts=False)], {})
    assert (told.verdict, told.baseline_n) == ("insufficient", 0)
    (told,) = judge([run(0, 1.0, counts=False), *history(QUIET), run(9, 100.0)], {})
    assert (told.verdict, told.baseline_n) == ("ok", len(QUIET))


def test_what_a_later_run_confirmed_stays_so_when_a_decision_has_it_judged_again() -> None:
    told = last([*history(QUIET), run(9, 90.0, verdicts={RATE: "regression"})])
    assert (told.verdict, told.confirmed_by) == ("regression", None)
    assert last([run(8, 100.0), *history(QUIET), run(9, 90.0, verdicts={RATE: "suspect"})]).verdict == "suspect"


def test_a_recipes_gates_take_the_place_of_the_defaults() -> None:
    values = {RATE: 100.0, ("request_throughput", "value"): 100.0, ("duration", "value"): 100.0}
    runs = [msgspec.structs.replace(run(number, 1.0), values=values) for number in range(7)]
    assert {(one.metric, one.stat) for one in judge(runs, {})} == {RATE}
    gates = {("request_throughput", "value"): 0.1, TTFT: 0.1, ("duration", "value"): 0.1, ("sheep", "value"): 0.1}
    told = {one.metric: one.verdict for one in judge([*runs, msgspec.structs.replace(runs[0], run_uid="x")], gates)}
    assert told == {
        "request_throughput": "ok", "time_to_first_token": "insufficient", "duration": "insufficient",
        "sheep": "insufficient",
    }  # fmt: skip


def test_a_run_without_anything_to_judge_is_told_so() -> None:
    (told,) = judge([msgspec.structs.replace(run(1, 1.0), values={("duration", "value"): 3.0})], {})
    assert ((told.metric, told.stat), told.verdict) == (next(iter(DEFAULT_GATES)), "insufficient")


def test_tails_are_advice_unless_the_recipe_gates_on_them() -> None:
    runs = [
        msgspec.structs.replace(run(number, 1.0), values={RATE: 1.0, TAIL: value, ("output_tokens", "p99"): 1.0})
        for number, value in enumerate([*QUIET, 200.0])
    ]
    told = {(one.metric, one.stat): one for one in judge(runs, {})}
    assert (told[RATE].verdict, told[RATE].advisory) == ("ok", False)
    assert (told[TAIL].verdict, told[TAIL].advisory) == ("suspect", True)
    assert set(told) == {RATE, TAIL}
    (gated,) = judge(runs, {TAIL: 0.05})
    assert (gated.verdict, gated.advisory) == ("suspect", False)


def test_numbers_out_of_this_world_are_compared_all_the_same() -> None:
    runs = history([*QUIET, 1e300])
    runs[0] = msgspec.structs.replace(runs[0], pinned=True)
    assert last(runs).verdict == "suspect_improvement"
    assert last(history([*[1e-300] * 6, 1e300])).verdict == "suspect_improvement"
    assert last(history([*[1e300] * 6, 1e-300])).relative_change == -1.0


amounts = st.floats(0.5, 2.0).map(lambda factor: 100.0 * factor)
series = st.lists(amounts, min_size=6, max_size=13)


def far_from_limits(values: Sequence[float]) -> bool:
    """Whether no rounding of the last place could turn a verdict."""
    told = [one for one in arrive(history(values)).values() if one.z is not None and one.relative_change is not None]
    return all(abs(abs(one.z or 0) - 3.5) > 1e-6 and abs(abs(one.relative_change or 0) - 0.05) > 1e-6 for one in told)


@given(series, st.floats(1e-6, 1e6))
def test_another_unit_changes_no_verdict(values: list[float], factor: float) -> None:
    assume(far_from_limits(values))
    assert words([factor * value for value in values]) == words(values)


@given(series, st.randoms(use_true_random=False))
def test_the_order_of_the_baseline_does_not_matter(values: list[float], dice: random.Random) -> None:
    baseline = values[-11:-1]
    shuffled = dice.sample(baseline, len(baseline))
    one, other = last(history([*baseline, values[-1]])), last(history([*shuffled, values[-1]]))
    assert (one.z, one.median, one.min_detectable) == (other.z, other.median, other.min_detectable)


@given(series)
def test_the_inverse_of_a_rate_is_judged_as_the_rate(values: list[float]) -> None:
    assume(far_from_limits(values))
    inverse = words([1 / value for value in values], ("time_per_output_token", "p50"))
    for one, other in zip(words(values), inverse, strict=True):
        # 5 % less of one is 5.3 % more of the other: between the two only one of them is worth telling.
        assert one == other or {one.split("_")[0], other.split("_")[0]} & {"ok", "suspect", "improvement", "regression"}


def measured(name: str, number: int) -> HistoryRun:
    document = json.loads((NOISE / name).read_text())
    values = {
        RATE: document["output_throughput"],
        TTFT: document["p50_ttft_ms"] / 1e3,
        ("time_per_output_token", "p50"): document["p50_tpot_ms"] / 1e3,
    }
    return HistoryRun(run_uid=name, ended_us=number, status=Status.OK, values=values)


BASE = [measured(f"base-{number:02d}.json", number) for number in range(1, 9)]
SLOW = measured("slow-13.json", 13)


def test_eight_equal_runs_raise_nothing() -> None:
    told = arrive(BASE)
    assert len(told) == 24
    assert {one.verdict for one in told.values()} == {"insufficient", "ok"}


@given(st.permutations(BASE))
def test_nor_do_they_whatever_order_they_arrive_in(arrivals: list[HistoryRun]) -> None:
    """A run that is handed in late is judged at its place in time."""
    held: dict[tuple[str, str, str], str] = {}
    for count in range(1, len(arrivals) + 1):
        new, known = arrivals[count - 1], sorted(arrivals[:count], key=lambda one: one.ended_us)
        before = [
            msgspec.structs.replace(
                one, verdicts={(m, s): word for (uid, m, s), word in held.items() if uid == one.run_uid}
            )
            for one in known[: known.index(new) + 1]
        ]
        held |= {(one.run_uid, one.metric, one.stat): one.verdict for one in judge(before, {})}
    assert set(held.values()) <= {"insufficient", "ok"}


@pytest.mark.parametrize("count", [5, 6, 7, 8])
def test_the_slow_run_is_flagged_by_any_five_or_more(count: int) -> None:
    for chosen in itertools.combinations(BASE, count):
        told = judge([*chosen, SLOW], {})
        assert [one.verdict for one in told] == ["suspect"] * 3
        assert all(abs(one.z or 0) > 6 for one in told)
        again = msgspec.structs.replace(SLOW, run_uid="slow again", ended_us=14)
        assert {one.verdict for one in judge([*chosen, SLOW, again], {})} == {"regression"}

"""A job's account of energy: shares never give more than there was, merging knows no order, and gaps stay gaps."""

import functools
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.energy import Gap, Method, Span
from jobtrail.domain.energy_account import (
    ALONE,
    ComponentEnergy,
    EnergyAccount,
    Share,
    board_share,
    cpu_share,
    merge_accounts,
    merge_components,
    newer_report,
    with_gap,
    with_span,
)

SECOND = 1_000_000
JOULE = 1_000_000


def counted(start_s: int, end_s: int, joules: int, method: Method = Method.COUNTER) -> Span:
    return Span(start_us=start_s * SECOND, end_us=end_s * SECOND, microjoules=joules * JOULE, method=method)


times = st.integers(0, 2**40)
spans = st.builds(
    lambda start, passed, energy, method, gap, reset: Span(
        start_us=start,
        end_us=start + passed,
        microjoules=None if gap else energy,
        method=None if gap else method,
        gap=gap,
        reset=reset,
    ),
    times,
    st.integers(1, 10**9),
    st.integers(0, 10**15),
    st.sampled_from([Method.COUNTER, Method.INTEGRATED]),
    st.none() | st.sampled_from(list(Gap)),
    st.booleans(),
)
shares = (
    st.none()
    | st.just(ALONE)
    | st.builds(lambda whole, part: Share(min(part, whole), whole), *[st.integers(1, 10**9)] * 2)
)
stretches = st.lists(st.tuples(spans, shares), min_size=1, max_size=6)


def component(stretch: list[tuple[Span, Share | None]]) -> ComponentEnergy:
    energy = None
    for span, share in stretch:
        energy = with_span(energy, span, share)
    assert energy is not None
    return energy


parts = stretches.map(component)
accounts = st.builds(EnergyAccount, gpu=st.none() | parts, cpu=st.none() | parts, dram=st.none() | parts)


def test_a_job_alone_on_a_gpu_has_all_of_it() -> None:
    energy = with_span(with_span(None, counted(0, 15, 4_500)), counted(15, 30, 1_000))
    assert energy.known_microjoules == energy.whole_microjoules == 5_500 * JOULE
    assert (energy.covered_us, energy.expected_us, energy.coverage) == (30 * SECOND, 30 * SECOND, 1.0)
    assert energy.method == Method.COUNTER
    assert energy.notes == ()
    assert not energy.is_low_quality


def test_a_gap_is_not_covered_and_adds_nothing() -> None:
    energy = with_span(
        with_span(None, counted(0, 15, 300)), Span(start_us=15 * SECOND, end_us=20 * SECOND, gap=Gap.RESET, reset=True)
    )
    assert energy.known_microjoules == 300 * JOULE
    assert energy.coverage == 0.75
    assert energy.gap_us_by == {"reset": 5 * SECOND}
    assert energy.notes == ("low_coverage", "counter_reset")
    assert energy.is_low_quality


def test_only_gaps_is_no_number() -> None:
    energy = with_gap(None, 0, 60 * SECOND)
    assert energy is not None
    assert energy.known_microjoules is None
    assert energy.method is None
    assert energy.coverage == 0.0
    assert energy.gap_us_by == {"not_looked": 60 * SECOND}
    assert EnergyAccount(gpu=energy).known_microjoules is None
    assert EnergyAccount(gpu=energy).method is None
    assert EnergyAccount(gpu=energy).coverage == 0.0


def test_no_time_is_no_gap() -> None:
    assert with_gap(None, 5, 5) is None
    energy = with_span(None, counted(0, 1, 1))
    assert with_gap(energy, 5, 4) is energy


def test_nothing_at_all_has_no_coverage_and_no_notes() -> None:
    assert ComponentEnergy().coverage is None
    assert ComponentEnergy().notes == ()
    assert EnergyAccount().coverage is None
    assert EnergyAccount().known_microjoules is None
    assert EnergyAccount(gpu=ComponentEnergy()).coverage is None


def test_a_span_that_says_nothing_is_a_gap() -> None:
    energy = with_span(None, Span(start_us=0, end_us=SECOND))
    assert energy.gap_us_by == {"no_value": SECOND}


def test_less_than_ten_seconds_is_low_quality() -> None:
    assert with_span(None, counted(0, 9, 1)).notes == ("short_window",)
    assert with_span(None, counted(0, 9, 1)).is_low_quality
    assert with_span(None, counted(0, 10, 1)).notes == ()


def test_eight_gpus_for_two_seconds_are_a_short_window_although_their_times_add_up() -> None:
    energy = functools.reduce(merge_components, [with_span(None, counted(0, 2, 600))] * 8)
    assert energy.covered_us == 16 * SECOND
    assert energy.notes == ("short_window",)


def test_methods_are_told_and_mixed_when_several() -> None:
    by_counter, by_power = with_span(None, counted(0, 20, 1)), with_span(None, counted(0, 20, 1, Method.INTEGRATED))
    shared = with_span(None, counted(0, 20, 9), Share(1, 3))
    assert [part.method for part in (by_counter, by_power, shared)] == ["counter", "integrated", "apportioned"]
    assert by_power.notes == ("estimated",)
    assert shared.notes == ("apportioned",)
    assert (shared.microjoules, shared.whole_microjoules) == (3 * JOULE, 9 * JOULE)
    assert merge_components(by_counter, by_power).method == Method.MIXED
    assert EnergyAccount(gpu=by_counter, dram=by_counter).method == Method.COUNTER
    assert EnergyAccount(gpu=by_counter, cpu=shared).method == Method.MIXED


def test_the_sum_of_components_says_which_are_in_it() -> None:
    account = EnergyAccount(
        gpu=with_span(None, counted(0, 20, 100)), cpu=with_gap(None, 0, 20), dram=with_span(None, counted(0, 20, 5))
    )
    assert account.known == ("gpu", "dram")
    assert account.known_microjoules == 105 * JOULE
    assert account.coverage == 0.0


def test_an_unknown_share_is_a_gap_and_not_everything() -> None:
    energy = with_span(None, counted(0, 15, 900), cpu_share(None, 5))
    assert energy.known_microjoules is None
    assert energy.gap_us_by == {"no_share": 15 * SECOND}


@pytest.mark.parametrize(
    ("job_us", "busy_us", "expected"),
    [
        (25, 100, Share(25, 100)), (0, 100, Share(0, 100)), (120, 100, Share(100, 100)),
        (None, 100, None), (25, None, None), (-1, 100, None), (0, 0, None), (5, 0, None), (5, -1, None),
    ],
)  # fmt: skip
def test_a_share_of_cpu_time(job_us: int | None, busy_us: int | None, expected: Share | None) -> None:
    assert cpu_share(job_us, busy_us) == expected


@pytest.mark.parametrize(
    ("share_of_parent", "jobs", "expected"),
    [
        (None, 1, ALONE), (None, 4, Share(1, 4)), (0.5, 1, Share(1, 2)), (1.0, 1, Share(1, 1)),
        (16 / 114, 1, Share(8, 57)), (2 / 7, 2, Share(1, 7)), (0.0, 1, None), (1.1, 1, None), (-0.1, 1, None),
        (float("nan"), 1, None), (None, 0, None), (0.5, -1, None), (1e-9, 1, None),
    ],
)  # fmt: skip
def test_a_share_of_a_board(share_of_parent: float | None, jobs: int, expected: Share | None) -> None:
    assert board_share(share_of_parent, jobs) == expected


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.integers(0, 10**9), st.integers(0, 10**15))
def test_all_jobs_together_never_get_more_than_there_was(used_us: list[int], system_us: int, microjoules: int) -> None:
    """What the system itself used stays with nobody; rounding takes less than a microjoule of each job."""
    busy_us = sum(used_us) + system_us
    given_out = [share.of(microjoules) for used in used_us if (share := cpu_share(used, busy_us)) is not None]
    assert sum(given_out) <= microjoules
    if busy_us:
        assert sum(given_out) >= microjoules * sum(used_us) // busy_us - len(used_us)


@given(st.integers(1, 7), st.integers(1, 64), st.integers(0, 10**15))
def test_sharers_of_instances_never_get_more_than_the_board_used(slices: int, jobs: int, microjoules: int) -> None:
    share = board_share(1 / slices, jobs)
    assert share is not None
    assert share.of(microjoules) * slices * jobs <= microjoules


@given(stretches)
def test_the_order_of_spans_does_not_matter(stretch: list[tuple[Span, Share | None]]) -> None:
    assert component(stretch) == component(stretch[::-1])


@given(parts, parts, parts)
def test_merging_parts_is_associative_and_commutative(
    one: ComponentEnergy, two: ComponentEnergy, three: ComponentEnergy
) -> None:
    assert merge_components(one, two) == merge_components(two, one)
    assert merge_components(merge_components(one, two), three) == merge_components(one, merge_components(two, three))


@given(st.lists(accounts, max_size=4))
def test_merging_nodes_knows_no_order_and_no_grouping(nodes: list[EnergyAccount]) -> None:
    whole = merge_accounts(nodes)
    assert merge_accounts(reversed(nodes)) == whole
    for cut in range(len(nodes)):
        assert merge_accounts([merge_accounts(nodes[:cut]), merge_accounts(nodes[cut:])]) == whole
    for name, part in whole.components().items():
        of_nodes = [own for node in nodes if (own := node.components().get(name)) is not None]
        assert part.microjoules == sum(own.microjoules for own in of_nodes)
        assert part.expected_us == sum(own.expected_us for own in of_nodes)


@given(parts)
def test_what_holds_of_every_account(part: ComponentEnergy) -> None:
    assert 0 <= part.microjoules <= part.whole_microjoules
    assert part.coverage is not None
    assert 0 <= part.coverage <= 1
    assert (part.known_microjoules is None) == (part.covered_us == 0) == (part.method is None)
    assert part.covered_us + sum(part.gap_us_by.values()) == part.expected_us
    assert part.first_us is not None
    assert part.last_us is not None
    assert part.first_us < part.last_us


@given(st.lists(accounts, min_size=1, max_size=4))
def test_reports_of_a_node_may_come_in_any_order_and_twice(reports: list[EnergyAccount]) -> None:
    def settle(order: tuple[EnergyAccount, ...]) -> EnergyAccount:
        held = None
        for report in order:
            held = newer_report(held, report)
        assert held is not None
        return held

    results = [settle(order) for order in itertools.permutations(reports)]
    assert all(result == results[0] for result in results)
    assert newer_report(results[0], results[0]) == results[0]
    assert settle((*reports, *reports)) == results[0]


def test_the_report_that_knows_of_more_time_stands() -> None:
    early = EnergyAccount(gpu=with_span(None, counted(0, 15, 100)))
    late = EnergyAccount(gpu=with_span(early.gpu, counted(15, 30, 50)), cpu=with_gap(None, 0, 30))
    assert newer_report(late, early) == newer_report(early, late) == late
    assert newer_report(None, early) == early


@given(accounts)
def test_an_account_survives_being_stored(account: EnergyAccount) -> None:
    assert msgspec.json.decode(msgspec.json.encode(account), type=EnergyAccount) == account

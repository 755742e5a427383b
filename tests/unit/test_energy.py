"""What was used between two looks: exact by counters, bridged where there is power, and else a gap with a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.energy import (
    PACKAGE_MOST_WATTS,
    EnergyCounter,
    EnergyReading,
    Gap,
    Limits,
    Method,
    Span,
    gpu_span,
    grown_delta,
    integrate,
    node_span,
    shortest_wrap_us,
    wrapped_delta,
)
from jobtrail.domain.gpus import Gpu, GpuReading

SECOND = 1_000_000
RANGE = 262_143_328_850
LIMITS = Limits.of_interval(15 * SECOND, most_watts=PACKAGE_MOST_WATTS)
GPU_LIMITS = Limits.of_interval(15 * SECOND)


def look(
    time_us: int,
    *,
    packages: dict[str, int] | None = None,
    dram: dict[str, int] | None = None,
    absent: dict[str, str] | None = None,
    largest: int | None = RANGE,
) -> EnergyReading:
    counters = [
        EnergyCounter(component=component, name=name, microjoules=value, range_microjoules=largest)
        for component, values in (("package", packages or {}), ("dram", dram or {}))
        for name, value in values.items()
    ]
    return EnergyReading(time_us=time_us, counters=tuple(counters), absent=absent or {})


def gpu(time_us: int, energy: int | None = None, power: int | None = None, gpu_id: str = "GPU-1") -> GpuReading:
    return GpuReading(
        gpu=Gpu(gpu_id=gpu_id, vendor="nvidia"), time_us=time_us, energy_microjoules=energy, power_milliwatts=power
    )


@given(st.integers(1, 2**48).flatmap(lambda top: st.tuples(st.just(top), st.integers(0, top), st.integers(0, top - 1))))
def test_a_wrapping_counter_tells_what_was_used_up_to_one_range(case: tuple[int, int, int]) -> None:
    """Whatever the counter shows first, and however much is used below a whole range, the delta is that."""
    top, start, used = case
    shown = start + used if start + used <= top else start + used - top
    assert wrapped_delta(start, shown, top) == used


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_falling_counter_of_unknown_range_tells_nothing(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert wrapped_delta(low, high, None) == high - low
    if low < high:
        assert wrapped_delta(high, low, None) is None
        assert wrapped_delta(high, low, high - 1) is None


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_resetting_counter_tells_growth_or_nothing(earlier: int, later: int) -> None:
    got = grown_delta(earlier, later)
    assert got == (later - earlier if later >= earlier else None)
    assert got is None or got >= 0


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(1, 10**9))
def test_integration_is_the_trapezoid_to_half_a_microjoule(one: int, other: int, passed_us: int) -> None:
    exact_nanojoules_twice = (one + other) * passed_us
    assert abs(integrate(one, other, passed_us) * 2_000 - exact_nanojoules_twice) <= 1_000
    assert integrate(one, other, passed_us) == integrate(other, one, passed_us)


def test_three_hundred_watts_for_ten_seconds_are_three_thousand_joules() -> None:
    assert integrate(300_000, 300_000, 10 * SECOND) == 3_000 * 10**6


def test_intels_usual_range_lasts_four_minutes_at_a_kilowatt() -> None:
    assert shortest_wrap_us(RANGE, 1_000) == 262_143_328


@given(st.lists(st.integers(1, PACKAGE_MOST_WATTS * SECOND), min_size=1, max_size=40), st.integers(0, RANGE))
def test_over_any_number_of_wraps_the_sum_of_spans_is_what_was_used(steps: list[int], start: int) -> None:
    shown, time_us, total = start, 0, 0
    before = look(0, packages={"package-0": shown})
    for step in steps:
        shown = shown + step if shown + step <= RANGE else shown + step - RANGE
        time_us += SECOND
        after = look(time_us, packages={"package-0": shown})
        span = node_span(before, after, "package", LIMITS)
        assert span is not None
        assert span.method == Method.COUNTER
        assert span.microjoules is not None
        total += span.microjoules
        before = after
    assert total == sum(steps)


def test_a_node_is_the_sum_of_its_packages_and_memory_is_apart() -> None:
    before = look(0, packages={"package-0": 5, "package-1": RANGE - 10}, dram={"package-0/dram": 7})
    after = look(SECOND, packages={"package-0": 105, "package-1": 40}, dram={"package-0/dram": 8})
    span = node_span(before, after, "package", LIMITS)
    assert span == Span(start_us=0, end_us=SECOND, microjoules=150, method=Method.COUNTER)
    memory = node_span(before, after, "dram", LIMITS)
    assert memory is not None
    assert memory.microjoules == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (look(0, packages={"package-0": 1}), look(SECOND, packages={"package-0": 2, "package-1": 3})),
        (look(0, packages={"package-0": 1, "package-1": 1}), look(SECOND, packages={"package-0": 2})),
        (look(0, packages={"package-0": 1}), look(SECOND)),
        (look(0), look(SECOND, packages={"package-0": 1})),
        (
            look(0, packages={"package-0": 1}, absent={"package-1": "EACCES"}),
            look(SECOND, packages={"package-0": 2}, absent={"package-1": "EACCES"}),
        ),
        (
            look(0, packages={"package-0": 1}, absent={"package-1": "EACCES"}),
            look(SECOND, packages={"package-0": 2}),
        ),
    ],
)
def test_one_package_of_two_is_not_the_node(before: EnergyReading, after: EnergyReading) -> None:
    assert node_span(before, after, "package", LIMITS) == Span(start_us=0, end_us=SECOND, gap=Gap.NO_VALUE)


def test_memory_that_cannot_be_read_spoils_memory_only() -> None:
    absent = {"package-1/dram": "EIO"}
    before = look(0, packages={"package-0": 1}, dram={"package-0/dram": 1}, absent=absent)
    after = look(SECOND, packages={"package-0": 2}, dram={"package-0/dram": 2}, absent=absent)
    memory, package = (node_span(before, after, component, LIMITS) for component in ("dram", "package"))
    assert memory is not None
    assert memory.gap == Gap.NO_VALUE
    assert package is not None
    assert package.microjoules == 1


def test_where_there_is_no_such_part_there_is_no_span() -> None:
    absent = {"package": "no RAPL package zone", "dram": "no RAPL dram zone"}
    assert node_span(look(0, absent=absent), look(SECOND, absent=absent), "package", LIMITS) is None


@pytest.mark.parametrize("later_us", [0, -1, -SECOND])
def test_looks_out_of_order_give_no_span(later_us: int) -> None:
    assert node_span(look(0, packages={"p": 1}), look(later_us, packages={"p": 2}), "package", LIMITS) is None
    assert gpu_span(gpu(0, 1), gpu(later_us, 2), GPU_LIMITS) is None


def spanned(earlier: int, later: int, passed_us: int, *, largest: int | None = RANGE, limits: Limits = LIMITS) -> Span:
    span = node_span(
        look(0, packages={"package-0": earlier}, largest=largest),
        look(passed_us, packages={"package-0": later}, largest=largest),
        "package",
        limits,
    )
    assert span is not None
    return span


def test_more_than_three_intervals_between_looks_is_a_gap() -> None:
    assert spanned(0, 1_000, 45 * SECOND).microjoules == 1_000
    assert spanned(0, 1_000, 45 * SECOND + 1).gap == Gap.TOO_LONG


def test_a_time_in_which_the_counter_may_have_wrapped_twice_is_a_gap() -> None:
    """AMD's 65 kJ last 65 s at a kilowatt, so a limit of two minutes does not hold for them."""
    limits = Limits(counter_us=120 * SECOND, integrate_us=SECOND, most_watts=PACKAGE_MOST_WATTS)
    assert spanned(0, 1_000, 64 * SECOND, largest=65_000_000_000, limits=limits).microjoules == 1_000
    assert spanned(0, 1_000, 65 * SECOND, largest=65_000_000_000, limits=limits).gap == Gap.TOO_LONG
    assert spanned(0, 1_000, 119 * SECOND, limits=limits).microjoules == 1_000
    unknown = Limits(counter_us=120 * SECOND, integrate_us=SECOND)
    assert spanned(0, 1_000, 119 * SECOND, largest=65_000_000_000, limits=unknown).microjoules == 1_000


def test_a_fall_without_a_range_is_a_reset() -> None:
    got = spanned(1_000, 5, SECOND, largest=None)
    assert (got.gap, got.reset, got.microjoules) == (Gap.RESET, True, None)


def test_a_reset_that_looks_like_a_wrap_is_seen_by_the_power_it_would_take() -> None:
    """A counter set back from 50 to 1 kJ would have gone through 213 kJ in a second."""
    assert spanned(50_000_000_000, 1_000_000_000, SECOND).gap == Gap.IMPLAUSIBLE
    assert spanned(0, PACKAGE_MOST_WATTS * SECOND, SECOND).microjoules == PACKAGE_MOST_WATTS * SECOND
    assert spanned(0, PACKAGE_MOST_WATTS * SECOND + 1, SECOND).gap == Gap.IMPLAUSIBLE


def test_a_counter_that_does_not_move_for_a_second_is_not_nought_joules() -> None:
    assert spanned(7, 7, SECOND).gap == Gap.STANDS_STILL
    assert spanned(7, 7, SECOND - 1).microjoules == 0


def test_a_gpus_counter_is_exact_and_power_is_not_asked() -> None:
    got = gpu_span(gpu(0, 10, power=900_000), gpu(SECOND, 300_000_010, power=900_000), GPU_LIMITS)
    assert got == Span(start_us=0, end_us=SECOND, microjoules=300_000_000, method=Method.COUNTER)


def test_a_reset_is_bridged_by_power_and_says_so() -> None:
    got = gpu_span(gpu(0, 10**12, power=200_000), gpu(10 * SECOND, 5, power=400_000), GPU_LIMITS)
    assert got == Span(start_us=0, end_us=10 * SECOND, microjoules=3_000 * 10**6, method=Method.INTEGRATED, reset=True)


@pytest.mark.parametrize(("before", "after"), [(None, None), (200_000, None), (None, 200_000)])
def test_a_reset_without_power_at_both_ends_is_a_gap(before: int | None, after: int | None) -> None:
    got = gpu_span(gpu(0, 10, power=before), gpu(SECOND, 5, power=after), GPU_LIMITS)
    assert got == Span(start_us=0, end_us=SECOND, gap=Gap.RESET, reset=True)


@pytest.mark.parametrize(("before", "after"), [(None, None), (5, None), (None, 5), (5, 5)])
def test_without_a_counter_that_moves_power_is_integrated(before: int | None, after: int | None) -> None:
    got = gpu_span(gpu(0, before, 100_000), gpu(SECOND, after, 100_000), GPU_LIMITS)
    assert got == Span(start_us=0, end_us=SECOND, microjoules=100_000_000, method=Method.INTEGRATED)


def test_with_neither_there_is_a_gap_and_never_nought() -> None:
    assert gpu_span(gpu(0), gpu(SECOND), GPU_LIMITS) == Span(start_us=0, end_us=SECOND, gap=Gap.NO_VALUE)
    assert gpu_span(gpu(0, 5), gpu(SECOND, 5), GPU_LIMITS) == Span(start_us=0, end_us=SECOND, gap=Gap.STANDS_STILL)


def test_power_far_apart_is_not_integrated() -> None:
    limits = Limits(counter_us=600 * SECOND, integrate_us=45 * SECOND)
    far = 46 * SECOND
    assert gpu_span(gpu(0, 0, 100), gpu(far, 10**9, 100), limits) == Span(
        start_us=0, end_us=far, microjoules=10**9, method=Method.COUNTER
    )
    assert gpu_span(gpu(0, None, 100), gpu(far, None, 100), limits) == Span(start_us=0, end_us=far, gap=Gap.TOO_LONG)
    both_too_long = gpu_span(gpu(0, 0, 100), gpu(far, 10**9, 100), GPU_LIMITS)
    assert both_too_long == Span(start_us=0, end_us=far, gap=Gap.TOO_LONG)


def test_a_gpus_counter_beyond_what_it_can_draw_is_refused() -> None:
    limits = Limits.of_interval(15 * SECOND, most_watts=1_500)
    got = gpu_span(gpu(0, 0), gpu(SECOND, 2_000 * SECOND), limits)
    assert got == Span(start_us=0, end_us=SECOND, gap=Gap.IMPLAUSIBLE)
    # A short time may have a whole step of the counter in it, which is of more time than that.
    assert gpu_span(gpu(0, 0), gpu(10_000, 150_000_000), limits) == Span(
        start_us=0, end_us=10_000, microjoules=150_000_000, method=Method.COUNTER
    )


def test_a_power_beyond_what_a_gpu_can_draw_is_none() -> None:
    """Nothing is integrated from it."""
    limits = Limits.of_interval(15 * SECOND, most_watts=1_500)
    got = gpu_span(gpu(0, None, 1_000), gpu(SECOND, None, 1_500_001), limits)
    assert got == Span(start_us=0, end_us=SECOND, gap=Gap.NO_VALUE)


def test_two_gpus_are_never_subtracted() -> None:
    assert gpu_span(gpu(0, 1, gpu_id="GPU-1"), gpu(SECOND, 2, gpu_id="GPU-2"), GPU_LIMITS) is None


@given(
    st.lists(
        st.tuples(st.integers(1, 60 * SECOND), st.none() | st.integers(0, 10**12), st.none() | st.integers(0, 10**6))
    ),
)
def test_whatever_was_read_a_span_is_a_number_or_a_gap_and_times_add_up(
    steps: list[tuple[int, int | None, int | None]],
) -> None:
    time_us, before, passed_us = 0, gpu(0, 0, 0), 0
    for step, energy, power in steps:
        time_us += step
        after = gpu(time_us, energy, power)
        span = gpu_span(before, after, GPU_LIMITS)
        assert span is not None
        assert (span.microjoules is None) == (span.method is None) == (span.gap is not None)
        assert span.microjoules is None or span.microjoules >= 0
        passed_us += span.end_us - span.start_us
        before = after
    assert passed_us == time_us

"""Energy over a window: edges, gaps, several nodes; and what may be said of energy and tokens together."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.benchmarks.efficiency import Efficiency, efficiency
from jobtrail.domain.benchmarks.report import Status
from jobtrail.domain.benchmarks.settling import EnergySample, WindowEnergy, WindowUse
from jobtrail.domain.benchmarks.window_energy import Span, Window, known_components, union, window_energies

SECOND = 1_000_000
JOULE = 1_000_000
INTERVAL = 15 * SECOND


def look(
    time_s: float, gpu: int | None = None, covered_s: float | None = -1, node: str = "n1", **more: object
) -> EnergySample:
    """A look at which the GPU had used `gpu` joules since the start; all of the time is covered unless said."""
    covered = time_s if covered_s == -1 else covered_s
    sample = EnergySample(
        node=node,
        time_us=int(time_s * SECOND),
        gpu_microjoules=None if gpu is None else gpu * JOULE,
        gpu_method=None if gpu is None else "counter",
        covered_us=None if covered is None else int(covered * SECOND),
    )
    return msgspec.structs.replace(sample, **more)


def use(*samples: EnergySample, **more: object) -> WindowUse:
    return msgspec.structs.replace(WindowUse(nodes=("n1",), samples=samples, has_gpus=True), **more)


def window(start_s: float, end_s: float) -> Window:
    return Window(name="bench", start_us=int(start_s * SECOND), end_us=int(end_s * SECOND))


def gpu_of(given: WindowUse, start_s: float, end_s: float) -> WindowEnergy | None:
    energies = window_energies(given, window(start_s, end_s), interval_us=INTERVAL)
    return next((one for one in energies if one.domain == "gpu"), None)


def test_a_window_between_looks_has_the_difference_of_their_sums() -> None:
    one = gpu_of(use(look(0, 0), look(10, 1000), look(20, 3000), look(30, 4000)), 10, 30)
    assert one is not None
    assert (one.joules, one.coverage, one.method, one.window) == (3000.0, 1.0, "counter", "bench")


def test_an_edge_between_near_looks_is_shared_by_time() -> None:
    one = gpu_of(use(look(0, 0), look(10, 1000), look(20, 3000)), 5, 15)
    assert one is not None
    assert (one.joules, one.coverage) == (500.0 + 1000.0, 1.0)


def test_an_edge_between_looks_far_apart_is_not_measured() -> None:
    one = gpu_of(use(look(0, 0), look(31, 3100), look(40, 4000)), 20, 40)
    assert one is not None
    assert (one.joules, one.coverage) == (900.0, 9 / 20)
    near = gpu_of(use(look(0, 0), look(30, 3000), look(40, 4000)), 20, 40)
    assert near is not None
    assert (near.joules, near.coverage) == (2000.0, 1.0)


def test_a_window_all_inside_two_far_looks_is_not_measured() -> None:
    assert gpu_of(use(look(0, 0), look(31, 3100)), 5, 10) is None


def test_what_lies_before_the_first_look_and_after_the_last_is_not_measured() -> None:
    one = gpu_of(use(look(10, 0), look(20, 1000)), 0, 40)
    assert one is not None
    assert (one.joules, one.coverage) == (1000.0, 0.25)


@pytest.mark.parametrize(
    ("first_look_s", "covered_s", "joules", "coverage"),
    [
        (4, 4, 2000.0, 1.0),
        (4, 1, 2000.0, 0.85),  # of the first four seconds one was measured
        (4, None, 2000.0, 1.0),
        (0, 0, 2000.0, 1.0),
        (-1, 0, 2000.0, 20 / 21),  # the node's clock is behind
    ],
)
def test_what_the_first_look_shows_was_used_since_the_run_began(
    first_look_s: float, covered_s: float | None, joules: float, coverage: float
) -> None:
    """Or the energy of a job of seconds would be that of all but its first one."""
    used = max(int(first_look_s), 0) * 100
    after_s = None if covered_s is None else covered_s + 20 - max(first_look_s, 0)
    given = use(look(first_look_s, used, covered_s), look(20, 2000, after_s))
    (gpu, *_) = window_energies(given, window(0, 20), interval_us=INTERVAL, begun_us=0)
    assert (gpu.joules, gpu.coverage) == (pytest.approx(joules, rel=0.05), pytest.approx(coverage))
    (later, *_) = window_energies(given, window(10, 20), interval_us=INTERVAL, begun_us=0)
    assert later.joules == pytest.approx(1000.0, rel=0.05)


def test_what_was_used_long_before_the_window_is_not_in_it() -> None:
    """The looks before the last one before the window are not asked for."""
    (gpu, *_) = window_energies(use(look(1000, 90_000), look(1010, 91_000)), window(1005, 1010), interval_us=INTERVAL,
                                begun_us=0)  # fmt: skip
    assert (gpu.joules, gpu.coverage) == (500.0, 1.0)


def test_a_gap_inside_stays_a_gap() -> None:
    one = gpu_of(use(look(0, 0, 0), look(10, 100, 10), look(90, 150, 15), look(100, 250, 25)), 0, 100)
    assert one is not None
    assert (one.joules, one.coverage) == (250.0, 0.25)


def test_where_no_look_says_what_it_covers_long_times_are_gaps() -> None:
    looks = [look(at, joules, None) for at, joules in ((0, 0), (10, 100), (60, 600), (70, 700))]
    one = gpu_of(use(*looks), 0, 70)
    assert one is not None
    assert (one.joules, one.coverage) == (700.0, 20 / 70)
    half = gpu_of(use(look(0, 0, 0), look(10, 100, None)), 0, 10)
    assert half is not None
    assert half.coverage == 1.0


def test_a_sum_that_shrank_is_of_another_beginning() -> None:
    one = gpu_of(use(look(0, 500), look(10, 600), look(20, 50), look(30, 150)), 0, 30)
    assert one is not None
    assert (one.joules, one.coverage) == (200.0, pytest.approx(2 / 3))


def test_cover_is_never_more_than_the_time() -> None:
    one = gpu_of(use(look(0, 0, 0), look(10, 100, 30)), 0, 10)
    assert one is not None
    assert one.coverage == 1.0
    assert gpu_of(use(look(0, 0, 30), look(10, 100, 10)), 0, 10) is None


def test_two_looks_at_one_moment_add_nothing() -> None:
    one = gpu_of(use(look(0, 0), look(10, 100), look(10, 100), look(20, 200)), 0, 20)
    assert one is not None
    assert (one.joules, one.coverage) == (200.0, 1.0)


def test_a_node_without_looks_counts_as_not_covered() -> None:
    two = use(look(0, 0), look(10, 100), look(0, 0, node="n2"), look(10, 300, node="n2"), nodes=("n1", "n2"))
    one = gpu_of(two, 0, 10)
    assert one is not None
    assert (one.joules, one.coverage) == (400.0, 1.0)
    missing = gpu_of(msgspec.structs.replace(two, nodes=("n1", "n2", "n3", "n4")), 0, 10)
    assert missing is not None
    assert missing.coverage == 0.5


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (("counter", "counter"), "counter"), (("integrated", "integrated"), "integrated"),
        (("counter", "mixed"), "mixed"), (("apportioned", None), "mixed"),
    ],
)  # fmt: skip
def test_the_method_of_gpu_energy(methods: tuple[str | None, str | None], expected: str) -> None:
    looks = (look(0, 0), look(10, 1, gpu_method=methods[0]), look(20, 2, gpu_method=methods[1]))
    one = gpu_of(use(*looks), 0, 20)
    assert one is not None
    assert one.method == expected


ALL = (
    look(0, 0, cpu_microjoules=0, dram_microjoules=0),
    look(10, 1000, cpu_microjoules=200 * JOULE, dram_microjoules=50 * JOULE),
    look(20, 2000, cpu_microjoules=400 * JOULE, dram_microjoules=100 * JOULE),
)


def test_all_components_and_their_sum() -> None:
    energies = window_energies(use(*ALL, pue=1.2), window(0, 20), interval_us=INTERVAL)
    assert [(one.domain, one.joules, one.method) for one in energies] == [
        ("gpu", 2000.0, "counter"), ("cpu", 400.0, "apportioned"), ("dram", 100.0, "apportioned"),
        ("total", 2500.0, "mixed"),
    ]  # fmt: skip
    assert {one.pue for one in energies} == {1.2}


def test_a_look_that_did_not_read_a_component_is_passed_over() -> None:
    blind = msgspec.structs.replace(ALL[1], cpu_microjoules=None)
    energies = window_energies(use(ALL[0], blind, ALL[2]), window(0, 20), interval_us=INTERVAL)
    assert [one.joules for one in energies] == [2000.0, 400.0, 100.0, 2500.0]


def test_looks_at_other_components_speak_of_other_times() -> None:
    looks = [
        look(0, 0, 0, cpu_microjoules=0),
        look(10, None, 10, cpu_microjoules=100 * JOULE),  # at the node's own counters alone
        look(20, 2000, 12, cpu_microjoules=200 * JOULE),  # the GPU was first read eight seconds after the CPU
    ]
    energies = window_energies(use(*looks), window(0, 20), interval_us=INTERVAL)
    assert [(one.domain, one.joules, one.coverage) for one in energies] == [
        ("gpu", 2000.0, 0.6), ("cpu", 200.0, 1.0), ("total", 2200.0, 0.6),
    ]  # fmt: skip


def test_there_is_no_sum_without_each_known_component() -> None:
    no_gpu = [msgspec.structs.replace(one, gpu_microjoules=None) for one in ALL]
    energies = window_energies(use(*no_gpu), window(0, 20), interval_us=INTERVAL)
    assert [one.domain for one in energies] == ["cpu", "dram"]
    assert known_components(use(*no_gpu)) == ("gpu", "cpu", "dram")
    without_gpus = use(*no_gpu, has_gpus=False)
    energies = window_energies(without_gpus, window(0, 20), interval_us=INTERVAL)
    assert [(one.domain, one.joules) for one in energies] == [("cpu", 400.0), ("dram", 100.0), ("total", 500.0)]
    assert energies[-1].method == "apportioned"
    assert window_energies(use(has_gpus=False), window(0, 20), interval_us=INTERVAL) == ()


def test_a_window_without_length_or_nodes_has_no_energy() -> None:
    assert window_energies(use(*ALL), window(5, 5), interval_us=INTERVAL) == ()
    assert window_energies(WindowUse(), window(0, 5), interval_us=INTERVAL) == ()


def loads(*spans: tuple[float, float]) -> Window:
    pieces = tuple((int(begin * SECOND), int(end * SECOND)) for begin, end in spans)
    return Window(name="bench", start_us=pieces[0][0], end_us=pieces[-1][1], spans=pieces)


def test_what_is_used_in_the_pauses_between_loads_is_not_of_the_window() -> None:
    """Loads of 700 W from 0 to 10 s and from 40 to 50 s; the pause between them takes 100 W."""
    given = use(look(0, 0), look(10, 7000), look(40, 10_000), look(50, 17_000), pue=1.0, factor_grams_per_kwh=1.0)
    span = loads((0, 10), (40, 50))
    gpu, total = window_energies(given, span, interval_us=INTERVAL)
    assert (gpu.joules, gpu.coverage, total.joules) == (14_000.0, 1.0, 14_000.0)
    told = efficiency(given, (gpu, total), span, status=Status.OK, output_tokens=28_000)
    assert ("output_tokens_per_joule", "value", 2.0) in told.values
    assert told.reason is None


def test_the_coverage_of_loads_is_over_their_own_time() -> None:
    given = use(look(0, 0), look(10, 7000), look(50, 10_000), look(60, 17_000))
    (gpu, *_) = window_energies(given, loads((0, 10), (60, 70)), interval_us=INTERVAL)
    assert (gpu.joules, gpu.coverage) == (7000.0, 0.5)


def test_one_short_load_among_long_ones_is_of_low_quality() -> None:
    given = use(look(0, 0), look(20, 7000), look(30, 7000), look(39.5, 9000), pue=1.0, factor_grams_per_kwh=1.0)
    span = loads((0, 20), (30, 39.5))
    energies = window_energies(given, span, interval_us=INTERVAL)
    told = efficiency(given, energies, span, status=Status.OK, output_tokens=1)
    assert told.reason == "low quality: a load of 9.5 s is shorter than 10 s"


def test_the_union_of_spans_counts_no_time_twice() -> None:
    assert union([(5, 9), (1, 3), (3, 4), (2, 3), (7, 7), (8, 12), (20, 19)]) == ((1, 4), (5, 12))
    assert union([]) == ()


paces = st.lists(st.tuples(st.integers(1, 25), st.integers(0, 10_000)), min_size=2, max_size=12)


def series(steps: list[tuple[int, int]]) -> list[EnergySample]:
    samples, time, joules = [look(0, 0)], 0, 0
    for passed, used in steps:
        time, joules = time + passed, joules + used
        samples.append(look(time, joules))
    return samples


@given(paces, st.floats(0.05, 0.95))
def test_two_parts_of_a_window_add_up_to_it(steps: list[tuple[int, int]], cut: float) -> None:
    samples = series(steps)
    end = samples[-1].time_us / SECOND
    middle = round(end * cut, 3)
    whole, one, other = (gpu_of(use(*samples), *edges) for edges in ((0, end), (0, middle), (middle, end)))
    assert whole is not None
    assert one is not None
    assert other is not None
    assert one.joules + other.joules == pytest.approx(whole.joules, abs=1e-6)
    assert whole.joules == pytest.approx((samples[-1].gpu_microjoules or 0) / JOULE)
    assert [whole.coverage, one.coverage, other.coverage] == pytest.approx([1.0] * 3)


@given(paces, st.lists(st.tuples(st.integers(0, 250), st.integers(1, 60)), min_size=1, max_size=6))
def test_loads_have_the_energy_that_each_of_them_has_alone(
    steps: list[tuple[int, int]], wanted: list[tuple[int, int]]
) -> None:
    given = use(*series(steps))
    pieces = union((begin * SECOND, (begin + length) * SECOND) for begin, length in wanted)

    def measured(*spans: Span) -> tuple[float, float]:
        span = Window(name="bench", start_us=spans[0][0], end_us=spans[-1][1], spans=spans)
        found = [one for one in window_energies(given, span, interval_us=INTERVAL) if one.domain == "gpu"]
        return sum(one.joules for one in found), sum(one.coverage * span.length_us for one in found)

    apart = [measured(piece) for piece in pieces]
    together = measured(*pieces)
    assert together == pytest.approx((sum(one for one, _ in apart), sum(one for _, one in apart)))


@given(paces, st.permutations(range(13)), st.integers(-20, 200), st.integers(1, 200))
def test_energy_is_never_more_than_was_used_and_no_order_matters(
    steps: list[tuple[int, int]], order: list[int], start: int, length: int
) -> None:
    samples = series(steps)
    one = gpu_of(use(*samples), start, start + length)
    shuffled = [samples[number] for number in order if number < len(samples)]
    assert gpu_of(use(*shuffled), start, start + length) == one
    if one is not None:
        assert 0 <= one.joules <= (samples[-1].gpu_microjoules or 0) / JOULE + 1e-6
        assert 0 < one.coverage <= 1.0


def told(
    given: WindowUse, start_s: float = 0, end_s: float = 20, tokens: float | None = 5000, status: Status = Status.OK
) -> Efficiency:
    span = window(start_s, end_s)
    energies = window_energies(given, span, interval_us=INTERVAL)
    return efficiency(given, energies, span, status=status, output_tokens=tokens)


def test_tokens_per_joule_and_emissions() -> None:
    one = told(use(*ALL, pue=1.2, factor_grams_per_kwh=100.0))
    assert one.reason is None
    grams = 2500.0 / 3.6e6 * 1.2 * 100.0
    assert {(metric, stat): value for metric, stat, value in one.values} == {
        ("energy_gpu", "value"): 2000.0,
        ("energy_cpu", "value"): 400.0,
        ("energy_dram", "value"): 100.0,
        ("energy_total", "value"): 2500.0,
        ("output_tokens_per_joule", "value"): 2.0,
        ("energy_per_output_token", "value"): 0.5,
        ("emissions", "value"): pytest.approx(grams),
        ("emissions_per_million_output_tokens", "value"): pytest.approx(grams / 5000 * 1e6),
    }


@pytest.mark.parametrize("missing", [{"pue": None, "factor_grams_per_kwh": 100.0}, {"pue": 1.0}])
def test_no_emissions_without_factor_or_pue(missing: dict[str, float | None]) -> None:
    one = told(use(*ALL, **missing))
    assert one.reason == "no emissions: there is no emission factor or PUE for the time"
    assert not [metric for metric, _, _ in one.values if metric.startswith("emissions")]
    assert ("output_tokens_per_joule", "value", 2.0) in one.values


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [(None, "the output tokens are not known"), (0.0, "there was no output token")],
)
def test_without_tokens_there_is_energy_alone(tokens: float | None, reason: str) -> None:
    one = told(use(*ALL, pue=1.0, factor_grams_per_kwh=100.0), tokens=tokens)
    assert one.reason == reason
    assert [metric for metric, _, _ in one.values] == [
        "energy_gpu", "energy_cpu", "energy_dram", "energy_total", "emissions",
    ]  # fmt: skip


HALF = "; ".join(
    f"only 50% of the window has energy of {one}; at least 90% are needed" for one in ("gpu", "cpu", "dram")
)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (use(*ALL, throttled=("n1 GPU 0: sw_power_cap",)), "GPUs were throttled: n1 GPU 0: sw_power_cap"),
        (use(*ALL, shared=("GPU-1", "GPU-2")), "GPUs were shared with other jobs: GPU-1, GPU-2"),
        (use(), "the energy of gpu is not known"),
        (use(has_gpus=False), "no energy is known"),
        (use(*ALL[:2], has_gpus=False), HALF),
        (use(*(msgspec.structs.replace(one, gpu_microjoules=None) for one in ALL)), "the energy of gpu is not known"),
    ],
)  # fmt: skip
def test_what_could_mislead_is_not_told(given: WindowUse, reason: str) -> None:
    assert told(given) == Efficiency(reason=reason)


def test_of_a_failed_run_nothing_is_told() -> None:
    assert told(use(*ALL), status=Status.FAILED) == Efficiency(reason="the run is failed")


def test_a_short_window_is_of_low_quality() -> None:
    one = told(use(*ALL, pue=1.0, factor_grams_per_kwh=1.0), 0, 9.5)
    assert one.reason == "low quality: the window of 9.5 s is shorter than 10 s"
    assert one.values


def test_no_joules_are_no_efficiency() -> None:
    idle = use(look(0, 0), look(20, 0), pue=1.0, factor_grams_per_kwh=1.0)
    one = told(idle)
    assert one.reason == "the energy is 0 J"
    assert ("emissions", "value", 0.0) in one.values
    assert "output_tokens_per_joule" not in [metric for metric, _, _ in one.values]

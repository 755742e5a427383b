"""Usage of GPUs, energy and emissions: reports of a node merge in any order, nodes add up, absent stays absent."""

from functools import reduce
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.emissions import EmissionFactor, EmissionMethod, emissions_of
from jobtrail.domain.events import EmissionBasis, GpuUsage, NodeUsage
from jobtrail.domain.usage import energy_microjoules, merge_gpus, merge_reports, replace_in_total, with_emissions

KWH = 3_600_000_000_000  # µJ
maybe = st.none() | st.integers(0, 2**53 - 1)
words = st.none() | st.sampled_from(["counter", "integrated", "mixed"])
gpus = st.builds(
    GpuUsage,
    gpu_id=st.sampled_from(["GPU-a", "GPU-b", "unresolved:0"]),
    minor=maybe,
    observed_us=maybe,
    busy_us=maybe,
    unused_us=maybe,
    energy_microjoules=maybe,
    energy_method=words,
    mismatch=words,
    errors=st.dictionaries(st.sampled_from(["31", "48", "79"]), st.integers(1, 99)),
)
lists = st.lists(gpus, max_size=3, unique_by=lambda gpu: gpu.gpu_id).map(
    lambda found: tuple(sorted(found, key=lambda gpu: gpu.gpu_id))
)
bases = st.lists(
    st.builds(
        EmissionBasis,
        micrograms_per_kwh=st.integers(0, 3),
        pue_millionths=st.just(1_000_000),
        source=st.sampled_from(["configured", "LU"]),
        year=st.none() | st.integers(2021, 2023),
    ),
    max_size=1,
).map(tuple)


@given(lists, lists, lists)
def test_reports_of_gpus_merge_in_any_order_and_twice(
    one: tuple[GpuUsage, ...], two: tuple[GpuUsage, ...], three: tuple[GpuUsage, ...]
) -> None:
    first, *others = [reduce(merge_gpus, (*order, *order)) for order in permutations((one, two, three))]
    assert all(other == first for other in others)
    assert [gpu.gpu_id for gpu in first] == sorted({gpu.gpu_id for gpu in (*one, *two, *three)})


@given(lists)
def test_a_report_of_gpus_merged_with_itself_or_with_none_is_itself(found: tuple[GpuUsage, ...]) -> None:
    assert merge_gpus(found, found) == merge_gpus(found, ()) == merge_gpus((), found) == found


def test_numbers_of_a_gpu_take_the_larger_and_errors_by_code() -> None:
    early = GpuUsage(gpu_id="g", name="H100", observed_us=5, busy_us=0, errors={"31": 2, "48": 1})
    late = GpuUsage(gpu_id="g", observed_us=9, unused_us=0, errors={"31": 1, "79": 3}, mismatch="slurm-7 used it")
    merged = GpuUsage(
        gpu_id="g", name="H100", observed_us=9, busy_us=0, unused_us=0,
        errors={"31": 2, "48": 1, "79": 3}, mismatch="slurm-7 used it",
    )  # fmt: skip
    assert merge_gpus((early,), (late,)) == (merged,)


def test_a_nodes_reports_keep_its_gpus_and_a_runs_total_has_sums_only() -> None:
    one = NodeUsage(gpu_observed_us=10, gpu_busy_us=4, gpu_memory_peak_bytes=7, gpus=(GpuUsage(gpu_id="a"),))
    other = NodeUsage(gpu_observed_us=20, gpu_busy_us=6, gpu_memory_peak_bytes=5, gpus=(GpuUsage(gpu_id="b"),))
    assert [gpu.gpu_id for gpu in merge_reports(one, other).gpus] == ["a", "b"]
    total = replace_in_total(replace_in_total(None, None, one), None, other)
    assert (total.gpu_observed_us, total.gpu_busy_us, total.gpu_memory_peak_bytes, total.gpus) == (30, 10, 7, ())
    assert (total.gpu_unused_us, total.energy_gpu_microjoules, total.emissions_micrograms) == (None, None, None)


@given(bases, bases, bases)
def test_what_emissions_rest_on_is_gathered_in_any_order(
    one: tuple[EmissionBasis, ...], two: tuple[EmissionBasis, ...], three: tuple[EmissionBasis, ...]
) -> None:
    reports = [NodeUsage(emission_bases=found) for found in (one, two, three)]
    merged = {reduce(merge_reports, order).emission_bases for order in permutations(reports)}
    totals = {
        reduce(lambda total, report: replace_in_total(total, None, report), order, NodeUsage()).emission_bases
        for order in permutations(reports)
    }
    assert merged == totals
    (together,) = merged
    assert set(together) == {*one, *two, *three}


def factor(grams: float, year: int | None = 2023, source: str = "LUX: Our World in Data") -> EmissionFactor:
    return EmissionFactor(grams_per_kwh=grams, year=year, source=source, method=EmissionMethod.COUNTRY)


def test_the_energy_of_a_node_is_that_of_the_components_that_have_one() -> None:
    assert energy_microjoules(NodeUsage()) is None
    assert energy_microjoules(NodeUsage(energy_gpu_microjoules=0)) == 0
    assert energy_microjoules(NodeUsage(energy_gpu_microjoules=5, energy_dram_microjoules=2)) == 7


def test_emissions_follow_from_energy_factor_and_pue_and_name_them() -> None:
    usage = NodeUsage(energy_gpu_microjoules=KWH, energy_cpu_microjoules=KWH)
    found = with_emissions(usage, factor(105.26), 1.25)
    assert found.emissions_micrograms == 2 * 131_575_000
    assert found.emissions_energy_microjoules == 2 * KWH
    assert found.emission_bases == (
        EmissionBasis(
            micrograms_per_kwh=105_260_000, pue_millionths=1_250_000, source="LUX: Our World in Data", year=2023
        ),
    )
    assert msgspec.structs.replace(
        found, emissions_micrograms=None, emissions_energy_microjoules=None, emission_bases=()
    ) == usage  # fmt: skip


@pytest.mark.parametrize(
    ("usage", "grams", "pue"),
    [
        (NodeUsage(cpu_usage_us=5), factor(1.0), 1.0),
        (NodeUsage(energy_gpu_microjoules=5), None, 1.0),
        (NodeUsage(energy_gpu_microjoules=5), factor(1.0), None),
    ],
)
def test_without_energy_factor_or_pue_there_are_no_emissions(
    usage: NodeUsage, grams: EmissionFactor | None, pue: float | None
) -> None:
    assert with_emissions(usage, grams, pue) is usage


@given(st.lists(st.integers(0, 100 * KWH), min_size=1, max_size=5), st.floats(0, 2000), st.floats(1, 3))
def test_emissions_of_many_looks_are_those_of_the_last(energies: list[int], grams: float, pue: float) -> None:
    """However often they are worked out, rounding does not gather."""
    usage = NodeUsage()
    for energy in sorted(energies):
        usage = with_emissions(msgspec.structs.replace(usage, energy_gpu_microjoules=energy), factor(grams), pue)
    exact = emissions_of(max(energies), factor(grams), pue)
    assert exact is not None
    found = usage.emissions_micrograms
    assert found is not None
    assert found / 1e6 == pytest.approx(exact.grams, rel=1e-5, abs=1e-3)
    assert usage.emissions_energy_microjoules == max(energies)


def test_after_a_change_of_the_factor_only_later_energy_goes_by_the_new_one() -> None:
    usage = with_emissions(NodeUsage(energy_gpu_microjoules=KWH), factor(100.0), 1.0)
    usage = with_emissions(msgspec.structs.replace(usage, energy_gpu_microjoules=3 * KWH), factor(10.0, None), 1.0)
    assert usage.emissions_micrograms == 100_000_000 + 2 * 10_000_000
    assert [basis.micrograms_per_kwh for basis in usage.emission_bases] == [10_000_000, 100_000_000]
    usage = with_emissions(msgspec.structs.replace(usage, energy_gpu_microjoules=4 * KWH), factor(10.0, None), 1.0)
    assert usage.emissions_micrograms == 100_000_000 + 3 * 10_000_000


def test_emissions_of_nodes_add_up_with_the_energy_they_are_of() -> None:
    """So that a sum in which one node had no factor can be told from a whole one."""
    known = with_emissions(NodeUsage(energy_gpu_microjoules=KWH), factor(100.0), 1.0)
    unknown = NodeUsage(energy_gpu_microjoules=KWH)
    total = replace_in_total(replace_in_total(None, None, known), None, unknown)
    assert (total.emissions_micrograms, total.emissions_energy_microjoules) == (100_000_000, KWH)
    assert (total.energy_gpu_microjoules, total.emission_bases) == (2 * KWH, known.emission_bases)


def test_the_method_is_that_of_the_report_that_covers_more() -> None:
    """What was counted at first and integrated later is mixed, in whatever order the reports come."""
    early = GpuUsage(gpu_id="a", energy_microjoules=1, energy_covered_us=5, energy_method="counter")
    late = GpuUsage(gpu_id="a", energy_microjoules=2, energy_covered_us=9, energy_method="mixed")
    none = GpuUsage(gpu_id="a")
    for one, other in ((early, late), (late, early)):
        assert merge_gpus(merge_gpus((one,), (none,)), (other,)) == (late,)
        assert merge_gpus((none,), merge_gpus((one,), (other,))) == (late,)

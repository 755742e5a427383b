"""Grams of CO2 equivalents: exact where all inputs are known, absent where one is missing, and never from a typo."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.emission_factors import OUR_WORLD_IN_DATA, ROWS
from jobtrail.domain.emissions import (
    MICROJOULES_PER_KWH,
    EmissionMethod,
    check_pue,
    country_factor,
    emissions_of,
    read_factor,
)
from jobtrail.domain.errors import ConfigError

KWH = MICROJOULES_PER_KWH


def test_one_kwh_at_a_configured_factor_is_the_factor_times_pue() -> None:
    factor = read_factor(250)
    got = emissions_of(KWH, factor, 1.2)
    assert got is not None
    assert got.grams == pytest.approx(300.0)
    assert (got.factor, got.factor_year, got.factor_source, got.pue) == (250.0, None, "configured", 1.2)
    assert got.method == "configured_factor"


def test_one_kwh_in_luxembourg() -> None:
    """105.263 g in 2023 by Our World in Data's release of 2024; the table rounds to 0.1 g."""
    got = emissions_of(KWH, read_factor("lux"), 1.0)
    assert got is not None
    assert got.grams == pytest.approx(105.263, abs=0.05)
    assert (got.factor_year, got.method) == (2023, "country_average")
    assert got.factor_source == f"LUX: {OUR_WORLD_IN_DATA}"


# From the page of the source itself, which shows whole grams: ourworldindata.org/grapher/carbon-intensity-electricity.
@pytest.mark.parametrize(
    ("code", "grams"),
    [
        ("AT", 111), ("BE", 138), ("BG", 335), ("BR", 98), ("CA", 170), ("CN", 582), ("CZ", 450), ("DE", 381),
        ("DK", 152), ("EE", 417), ("FI", 79), ("FR", 56), ("GR", 337), ("HR", 205), ("HU", 204), ("IE", 291),
        ("IN", 713), ("NO", 30), ("CY", 534), ("AU", 549), ("AR", 354), ("CL", 291), ("CO", 260), ("EG", 570),
    ],
)  # fmt: skip
def test_the_table_says_what_its_source_shows(code: str, grams: int) -> None:
    factor = country_factor(code)
    assert factor is not None
    assert factor.grams_per_kwh == pytest.approx(grams, abs=0.56)
    assert factor.year == 2023


def test_every_row_is_a_country_once_with_a_year_and_a_source() -> None:
    codes = [code for row in ROWS[1:] for code in row[:2]]
    assert len(codes) == len(set(codes))
    for alpha2, alpha3, grams, year, source in ROWS[1:]:
        assert (len(alpha2), len(alpha3)) == (2, 3)
        assert (alpha2 + alpha3).isascii()
        assert (alpha2 + alpha3).isupper()
        assert 0 < grams < 1_500
        assert 2021 <= year <= 2024
        assert "CC BY 4.0" in source
    assert country_factor("LU") == country_factor(" luX ")


def test_the_world_is_used_only_where_it_is_asked_for_and_says_so() -> None:
    world = read_factor("world")
    assert world is not None
    assert (world.grams_per_kwh, world.year, world.method) == (481.0, 2023, EmissionMethod.WORLD)
    assert "Ember" in world.source


@pytest.mark.parametrize("missing", ["energy", "factor", "pue"])
def test_a_missing_input_gives_no_number(missing: str) -> None:
    energy = None if missing == "energy" else KWH
    factor = None if missing == "factor" else read_factor(100)
    assert emissions_of(energy, factor, None if missing == "pue" else 1.0) is None


def test_no_energy_used_is_a_number() -> None:
    got = emissions_of(0, read_factor(100), 1.0)
    assert got is not None
    assert got.grams == 0.0


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_no_setting_is_no_factor(nothing: str | None) -> None:
    assert read_factor(nothing) is None


@pytest.mark.parametrize("setting", ["XX", "Luxemburg", "nan", "12 g", True, -1, "-0.1", 10_001, math.inf, "inf"])
def test_nonsense_is_refused_by_name(setting: float | str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_factor(setting, where="emissions.factor")
    assert str(refused.value).startswith(f"emissions.factor: is {setting!r}")
    assert "allowed are" in str(refused.value)


@pytest.mark.parametrize("setting", ["105.3", 105.3, " 105.3 "])
def test_a_number_may_come_as_text_from_the_environment(setting: float | str) -> None:
    factor = read_factor(setting)
    assert factor is not None
    assert factor.grams_per_kwh == 105.3


def test_pue_is_at_least_one() -> None:
    assert check_pue(1.0) == 1.0
    assert check_pue(1.58) == 1.58
    for wrong in (0.99, 0.0, -1.0, math.nan, math.inf, 11.0):
        with pytest.raises(ConfigError, match=r"^energy\.pue: is .* allowed are 1.0"):
            check_pue(wrong, where="energy.pue")


@given(st.integers(0, 10**18), st.integers(0, 10**18), st.floats(0, 2_000), st.floats(1.0, 3.0))
def test_emissions_add_up(one: int, other: int, grams: float, pue: float) -> None:
    """Sums of nodes' or components' emissions are the emissions of the sum."""
    factor = read_factor(grams)
    parts = [emissions_of(energy, factor, pue) for energy in (one, other)]
    whole = emissions_of(one + other, factor, pue)
    assert whole is not None
    assert math.fsum(part.grams for part in parts if part) == pytest.approx(whole.grams, rel=1e-9)

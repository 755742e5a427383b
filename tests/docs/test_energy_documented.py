"""docs/energy.md names every reason, note and method that energy comes with, and the table as it is shipped."""

from __future__ import annotations

from pathlib import Path

from jobtrail.domain.emission_factors import ROWS
from jobtrail.domain.emissions import EmissionMethod
from jobtrail.domain.energy import PACKAGE_MOST_WATTS, Gap, Method
from jobtrail.domain.energy_account import ComponentEnergy

TEXT = (Path(__file__).parents[2] / "docs" / "energy.md").read_text(encoding="utf-8")


def test_every_word_of_a_number_is_explained() -> None:
    everything = ComponentEnergy(
        covered_us_by={Method.INTEGRATED: 1, Method.APPORTIONED: 1}, gap_us_by={Gap.RESET: 9}, resets=1
    )
    assert len(everything.notes) == 5
    words = [*Gap, *Method, *EmissionMethod, *everything.notes]
    assert [word for word in words if f"`{word}`" not in TEXT] == []


def test_the_figures_are_those_of_the_program() -> None:
    assert f"{len(ROWS) - 1} countries" in TEXT
    years = {year for *_, year, _ in ROWS}
    assert f"({min(years)} to {max(years)})" in TEXT
    assert f"range / {PACKAGE_MOST_WATTS} W" in TEXT

"""Emissions: grams of CO2 equivalents that follow from measured energy, a factor and the building's overhead.

Operational and location-based (GHG Protocol, Scope 2 Guidance): what the grid emits on a yearly average where the
energy is used. What was emitted to build the hardware is not in it. Where an input is missing, there is no result.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from jobtrail.domain.emission_factors import ROWS, WORLD
from jobtrail.domain.errors import ConfigError

MICROJOULES_PER_KWH = 3_600_000_000_000
_LARGEST_FACTOR = 10_000.0  # far above any grid (1306 at most here): such a number has another unit
_LARGEST_PUE = 10.0


class EmissionMethod(StrEnum):
    """Where the factor came from."""

    CONFIGURED = "configured_factor"
    COUNTRY = "country_average"
    WORLD = "world_average"


class EmissionFactor(msgspec.Struct, frozen=True, kw_only=True):
    """Grams of CO2 equivalents per kWh. `year` is the one the value is of; None where the operator did not say."""

    grams_per_kwh: float
    year: int | None
    source: str
    method: EmissionMethod


class Emissions(msgspec.Struct, frozen=True, kw_only=True):
    """Grams of CO2 equivalents and all that they rest on."""

    grams: float
    factor: float
    factor_year: int | None
    factor_source: str
    pue: float
    method: str


_BY_CODE = {code: row for row in ROWS for code in row[:2]}


def country_factor(code: str) -> EmissionFactor | None:
    """The shipped factor of a country by ISO 3166-1 code of two or three letters, or of WORLD; None where none is."""
    row = _BY_CODE.get(code.strip().upper())
    if row is None:
        return None
    _, name, grams, year, source = row
    method = EmissionMethod.WORLD if name == WORLD else EmissionMethod.COUNTRY
    return EmissionFactor(grams_per_kwh=grams, year=year, source=f"{name}: {source}", method=method)


def read_factor(setting: float | str | None, *, where: str = "emission_factor") -> EmissionFactor | None:
    """The factor a setting names: a number of grams per kWh, or a country; None for None and for an empty word.

    Raises ConfigError naming `where`, for what is neither a number from 0 to 10000 nor a country of the shipped table.
    """
    if setting is None or (isinstance(setting, str) and not setting.strip()):
        return None
    grams = _number(setting)
    if grams is not None:
        if not 0 <= grams <= _LARGEST_FACTOR:
            raise ConfigError(where, f"is {setting!r}; allowed are 0 to {_LARGEST_FACTOR:.0f} grams CO2e per kWh")
        return EmissionFactor(grams_per_kwh=grams, year=None, source="configured", method=EmissionMethod.CONFIGURED)
    factor = country_factor(str(setting))
    if factor is None:
        allowed = "a number of grams CO2e per kWh, an ISO 3166-1 country code such as LU or LUX, or WORLD"
        raise ConfigError(where, f"is {setting!r}, which is not in the shipped table; allowed are {allowed}")
    return factor


def _number(setting: float | str) -> float | None:
    if isinstance(setting, bool):
        return None
    try:
        number = float(setting)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def check_pue(pue: float, *, where: str = "pue") -> float:
    """The building's power usage effectiveness (ISO/IEC 30134-2): all its energy by that of its computers, at least 1.

    Raises ConfigError naming `where`.
    """
    if not 1.0 <= pue <= _LARGEST_PUE:
        raise ConfigError(where, f"is {pue!r}; allowed are 1.0 (not applied) to {_LARGEST_PUE}")
    return pue


def emissions_of(microjoules: int | None, factor: EmissionFactor | None, pue: float | None) -> Emissions | None:
    """What `microjoules` of energy measured inside the computers emitted; None when any input is missing.

    grams = energy in kWh x PUE x factor. PUE is a yearly average of all overhead, so it is applied here and only here.
    """
    if microjoules is None or factor is None or pue is None:
        return None
    return Emissions(
        grams=microjoules / MICROJOULES_PER_KWH * pue * factor.grams_per_kwh,
        factor=factor.grams_per_kwh,
        factor_year=factor.year,
        factor_source=factor.source,
        pue=pue,
        method=factor.method,
    )

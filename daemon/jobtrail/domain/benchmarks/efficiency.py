"""Numbers that need both sides, the tokens of the benchmark and the energy of its job.

They are of the benchmark's own window, its loads without the pauses between them, and of all components in the rows of
energy beside them: GPUs, CPUs and memory as far as the node can tell. Power supplies, fans and network cards are not in
it. Where a number could mislead there is none, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jobtrail.domain.benchmarks.report import Status
from jobtrail.domain.benchmarks.settling import WindowEnergy, WindowUse
from jobtrail.domain.benchmarks.window_energy import BENCH, TOTAL, Window, known_components

LEAST_COVERAGE = 0.9
# Drivers bring a GPU's counter up to date every 20 to 100 ms, so the ends of a short window weigh.
SHORT_WINDOW_US = 10_000_000
JOULES_PER_KWH = 3_600_000.0
MILLION = 1_000_000

Values = tuple[tuple[str, str, float], ...]


class Efficiency(msgspec.Struct, frozen=True, kw_only=True):
    """(metric, stat, value) of the vocabulary, and why there are none or how far to trust them."""

    values: Values = ()
    reason: str | None = None


def efficiency(
    use: WindowUse, energies: Sequence[WindowEnergy], window: Window, *, status: Status, output_tokens: float | None
) -> Efficiency:
    """What the run used, per token and in emissions; `energies` are those of `window`."""
    total = next((one for one in energies if (one.window, one.domain) == (BENCH, TOTAL)), None)
    problems = _problems(use, energies, status)
    if problems or total is None:
        return Efficiency(reason="; ".join(problems or ["no energy is known"]))
    values = [(f"energy_{one.domain}", "value", one.joules) for one in energies if one.window == BENCH]
    notes: list[str] = []
    shortest_us = min(end_us - start_us for start_us, end_us in window.pieces)
    if shortest_us < SHORT_WINDOW_US:
        which = (
            f"a load of {shortest_us / 1e6:.1f} s"
            if len(window.pieces) > 1
            else f"the window of {shortest_us / 1e6:.1f} s"
        )
        notes.append(f"low quality: {which} is shorter than {SHORT_WINDOW_US // 1_000_000} s")
    if not output_tokens:
        notes.append("the output tokens are not known" if output_tokens is None else "there was no output token")
    elif total.joules > 0:
        values.append(("output_tokens_per_joule", "value", output_tokens / total.joules))
        values.append(("energy_per_output_token", "value", total.joules / output_tokens))
    else:
        notes.append("the energy is 0 J")
    if (grams := _emissions(total)) is None:
        notes.append("no emissions: there is no emission factor or PUE for the time")
    else:
        values.append(("emissions", "value", grams))
        if output_tokens:
            values.append(("emissions_per_million_output_tokens", "value", grams / output_tokens * MILLION))
    return Efficiency(values=tuple(values), reason="; ".join(notes) or None)


def _emissions(total: WindowEnergy) -> float | None:
    """Grams of CO2 equivalents; PUE is applied here, once."""
    if total.pue is None or total.factor_grams_per_kwh is None:
        return None
    return total.joules / JOULES_PER_KWH * total.pue * total.factor_grams_per_kwh


def _problems(use: WindowUse, energies: Sequence[WindowEnergy], status: Status) -> list[str]:
    """Each reason for which there is no number."""
    coverages = {one.domain: one.coverage for one in energies if one.window == BENCH}
    problems = [] if status is Status.OK else [f"the run is {status}"]
    problems += [
        f"the energy of {component} is not known" for component in known_components(use) if component not in coverages
    ]
    problems += [
        f"only {coverage:.0%} of the window has energy of {domain}; at least {LEAST_COVERAGE:.0%} are needed"
        for domain, coverage in coverages.items()
        if domain != TOTAL and coverage < LEAST_COVERAGE
    ]
    if use.throttled:
        problems.append(f"GPUs were throttled: {', '.join(use.throttled)}")
    if use.shared:
        problems.append(f"GPUs were shared with other jobs: {', '.join(use.shared)}")
    return problems

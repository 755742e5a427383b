"""Energy of a job over a part of its time, from what it had used at each look.

Between two looks energy is the difference of two sums. Where the window begins or ends between two looks that are near
each other, their difference is shared by time; where they are far apart, what lies between is not measured. A time of
which the node's daemon says that it measured nothing is a gap, and no gap is filled.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec

from jobtrail.domain.benchmarks.settling import EnergySample, WindowEnergy, WindowUse
from jobtrail.domain.energy import Method

BENCH, JOB, TOTAL = "bench", "job", "total"
NEAR_INTERVALS = 2  # an edge of the window lies between looks no further apart than this
MICROJOULES_PER_JOULE = 1_000_000
COMPONENTS = ("gpu", "cpu", "dram")


Span = tuple[int, int]  # begin and end, in µs since the Unix epoch


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A part of time, in µs since the Unix epoch. `name` is `bench` or `job`.

    With `spans` it is these alone, sorted and apart, and not what lies between them; without, all of it.
    """

    name: str
    start_us: int
    end_us: int
    spans: tuple[Span, ...] = ()

    @property
    def pieces(self) -> tuple[Span, ...]:
        """What it consists of."""
        return self.spans or ((self.start_us, self.end_us),)

    @property
    def length_us(self) -> int:
        """The time of all pieces together."""
        return sum(end_us - start_us for start_us, end_us in self.pieces)


def union(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The time that any of the spans covers: sorted, apart, and each of some length."""
    joined: list[Span] = []
    for start_us, end_us in sorted(span for span in spans if span[0] < span[1]):
        if joined and start_us <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_us))
        else:
            joined.append((start_us, end_us))
    return tuple(joined)


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one pair of looks adds: energy, and the time of the window it is of."""

    microjoules: float
    covered_us: float
    method: str


def window_energies(
    use: WindowUse, window: Window, *, interval_us: int, begun_us: int | None = None
) -> tuple[WindowEnergy, ...]:
    """Energy of each component that was measured in the window, and their sum where all are there that are known.

    `coverage` is covered time over the window times the job's nodes. A component without any covered time is absent.
    `begun_us` is when the job's run began: all sums were 0 then, so that what its first look shows was used since.
    """
    length_us = window.length_us
    nodes = sorted({*use.nodes, *(sample.node for sample in use.samples)})
    if length_us <= 0 or not nodes:
        return ()
    energies: list[WindowEnergy] = []
    for component in COMPONENTS:
        parts = [
            part
            for node in nodes
            for part in _parts(
                component, _readings(use.samples, node, component, begun_us), window, NEAR_INTERVALS * interval_us
            )
        ]
        covered_us = sum(part.covered_us for part in parts)
        if covered_us > 0:
            joules = sum(part.microjoules for part in parts) / MICROJOULES_PER_JOULE
            coverage = min(covered_us / (length_us * len(nodes)), 1.0)
            methods = {part.method for part in parts if part.covered_us > 0}
            energies.append(_energy(use, window.name, component, joules, methods, coverage))
    return (*energies, *_total(use, window.name, energies))


def known_components(use: WindowUse) -> tuple[str, ...]:
    """The components of which the run has any number, and its GPUs in any case."""
    return tuple(
        component
        for component in COMPONENTS
        if (component == "gpu" and use.has_gpus)
        or any(_microjoules(sample, component) is not None for sample in use.samples)
    )


def _total(use: WindowUse, window: str, energies: Sequence[WindowEnergy]) -> Iterator[WindowEnergy]:
    if energies and tuple(one.domain for one in energies) == known_components(use):
        methods = {one.method for one in energies}
        coverage = min(one.coverage for one in energies)
        yield _energy(use, window, TOTAL, sum(one.joules for one in energies), methods, coverage)


def _energy(
    use: WindowUse, window: str, domain: str, joules: float, methods: Iterable[str], coverage: float
) -> WindowEnergy:
    first, *others = sorted(methods)
    return WindowEnergy(
        window=window,
        domain=domain,
        joules=joules,
        method=str(Method.MIXED) if others else first,
        coverage=coverage,
        pue=use.pue,
        factor_grams_per_kwh=use.factor_grams_per_kwh,
        factor_source=use.factor_source,
        factor_year=use.factor_year,
    )


def _microjoules(sample: EnergySample, component: str) -> int | None:
    values: Mapping[str, int | None] = {
        "gpu": sample.gpu_microjoules,
        "cpu": sample.cpu_microjoules,
        "dram": sample.dram_microjoules,
    }
    return values[component]


def _readings(
    samples: Iterable[EnergySample], node: str, component: str, begun_us: int | None
) -> list[tuple[EnergySample, int]]:
    """The looks at a node that read the component, by time, behind the run's own beginning.

    Where earlier looks are left out the first of these lies before the window, and what was used up to it does too.
    """
    read = [
        (sample, value)
        for sample in samples
        if sample.node == node and (value := _microjoules(sample, component)) is not None
    ]
    read.sort(key=lambda one: (one[0].time_us, one[1]))
    if read and begun_us is not None and begun_us < read[0][0].time_us:
        first = read[0][0]
        covered_us = None if first.covered_us is None else 0
        read.insert(0, (msgspec.structs.replace(first, time_us=begun_us, covered_us=covered_us), 0))
    return read


def _parts(
    component: str, readings: Sequence[tuple[EnergySample, int]], window: Window, near_us: int
) -> Iterator[_Part]:
    times = [sample.time_us for sample, _ in readings]
    for start_us, end_us in window.pieces:
        # From the last look before the piece to the first after it.
        near = readings[max(bisect_right(times, start_us) - 1, 0) : bisect_left(times, end_us) + 1]
        yield from _parts_of_piece(component, near, (start_us, end_us), near_us)


def _parts_of_piece(
    component: str, readings: Sequence[tuple[EnergySample, int]], piece: Span, near_us: int
) -> Iterator[_Part]:
    for (before, least), (after, most) in pairwise(readings):
        passed_us = after.time_us - before.time_us
        inside_us = min(after.time_us, piece[1]) - max(before.time_us, piece[0])
        # A sum that shrank is of another beginning, as when the node's daemon lost what it knew.
        if inside_us <= 0 or most < least:
            continue
        is_cut = inside_us < passed_us
        if is_cut and passed_us > near_us:
            continue
        share = inside_us / passed_us
        # The energy of CPUs and memory is always shared by CPU time.
        method = (after.gpu_method or Method.MIXED) if component == "gpu" else Method.APPORTIONED
        yield _Part(
            microjoules=(most - least) * share,
            covered_us=_covered_us(before, after, passed_us, near_us) * share,
            method=str(method),
        )


def _covered_us(before: EnergySample, after: EnergySample, passed_us: int, near_us: int) -> float:
    """How much of the time between two looks was measured. Where nobody said, or the looks read other components, of
    which their sums of time are, it is all of a short time and none of a long one."""
    if before.covered_us is None or after.covered_us is None or _read_by(before) != _read_by(after):
        return passed_us if passed_us <= near_us else 0
    return min(max(after.covered_us - before.covered_us, 0), passed_us)


def _read_by(sample: EnergySample) -> list[bool]:
    return [_microjoules(sample, component) is None for component in COMPONENTS]

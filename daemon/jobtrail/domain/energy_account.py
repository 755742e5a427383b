"""A job's energy: spans of measured energy, the job's share of each, and what they add up to over parts and nodes.

Conventions, the same for every site so that numbers compare:
- A GPU that a job has alone is its own, idle power included: the job reserved it.
- An instance of a partitioned GPU (MIG) gets its part of the board's multiprocessors; jobs that share a GPU get equal
  parts.
- CPU packages are divided by CPU time: what they used, times the job's CPU time, by the busy time of the whole node.
  Idle power so falls on those who run. Memory (DRAM) is divided in the same way: bytes in use tell little of what
  memory draws, and a cgroup's bytes (with page cache) do not add up to the node's.
What was used in all is kept beside the job's share (`whole_microjoules`), so that a site can divide otherwise.

Every merge is associative and commutative: sums, smallest and largest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

import msgspec

from jobtrail.domain.energy import US_PER_SECOND, Gap, Method, Span
from jobtrail.domain.usage import larger, smaller

SHORT_WINDOW_US = 10 * US_PER_SECOND  # below it, the counters' own period (20 to 100 ms) and the ends of a job weigh
ENOUGH_COVERAGE = 0.9


class Share(msgspec.Struct, frozen=True):
    """A job's part of what a piece of hardware used: `part` of `whole`. Not `divided` is one it has alone."""

    part: int
    whole: int
    divided: bool = True

    def of(self, microjoules: int) -> int:
        """The job's part, rounded down, so that all jobs together never get more than there was."""
        return microjoules * self.part // self.whole


ALONE = Share(1, 1, divided=False)


def cpu_share(job_us: int | None, busy_us: int | None) -> Share | None:
    """The part of a node's CPU time, between two looks, that was a job's; None where it cannot be told.

    Counters of a cgroup and of the node move at different instants, so a job may seem to use more than the node: then
    all of it is the job's. A node on which nobody ran has no share to give.
    """
    if job_us is None or busy_us is None or job_us < 0 or busy_us <= 0:
        return None
    return Share(min(job_us, busy_us), busy_us)


def board_share(share_of_parent: float | None = None, jobs: int = 1) -> Share | None:
    """The part of a GPU board of a job that has an instance of it (None: the whole board), among `jobs` that share it.

    None where that cannot be: an instance of nothing or of more than the board, or no job at all.
    """
    if jobs < 1 or (share_of_parent is not None and not 0 < share_of_parent <= 1):
        return None
    if share_of_parent is None and jobs == 1:
        return ALONE
    part = Fraction(1 if share_of_parent is None else share_of_parent).limit_denominator(1_000) / jobs
    return Share(part.numerator, part.denominator) if part > 0 else None


class ComponentEnergy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job's parts of one component used, and what that rests on. Times of several parts add up."""

    microjoules: int = 0  # the job's
    whole_microjoules: int = 0  # of the hardware as a whole, in the same time
    covered_us_by: Mapping[str, int] = {}  # method -> time it speaks for
    gap_us_by: Mapping[str, int] = {}  # reason -> time of which nothing is known
    resets: int = 0
    first_us: int | None = None
    last_us: int | None = None

    @property
    def covered_us(self) -> int:
        """Time of which the energy is known, summed over parts."""
        return sum(self.covered_us_by.values())

    @property
    def expected_us(self) -> int:
        """Time in which the parts were the job's."""
        return self.covered_us + sum(self.gap_us_by.values())

    @property
    def known_microjoules(self) -> int | None:
        """The job's energy in the covered time; None where no time is covered."""
        return self.microjoules if self.covered_us else None

    @property
    def coverage(self) -> float | None:
        """The covered part of the time, 0 to 1; None where there was no time."""
        return self.covered_us / self.expected_us if self.expected_us else None

    @property
    def method(self) -> Method | None:
        """How the number came about; None where there is none."""
        methods = [method for method, passed_us in self.covered_us_by.items() if passed_us]
        if not methods:
            return None
        return Method(methods[0]) if len(methods) == 1 else Method.MIXED

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before using the number, in fixed words. () is as good as the hardware's counters."""
        window_us = (self.last_us or 0) - (self.first_us or 0)
        found = {
            "short_window": self.expected_us > 0 and window_us < SHORT_WINDOW_US,
            "low_coverage": self.coverage is not None and self.coverage < ENOUGH_COVERAGE,
            "estimated": bool(self.covered_us_by.get(Method.INTEGRATED)),
            "apportioned": bool(self.covered_us_by.get(Method.APPORTIONED)),
            "counter_reset": self.resets > 0,
        }
        return tuple(note for note, holds in found.items() if holds)

    @property
    def is_low_quality(self) -> bool:
        """Whether the number is too short or too patchy to compare jobs by."""
        return "short_window" in self.notes or "low_coverage" in self.notes


def with_span(energy: ComponentEnergy | None, span: Span, share: Share | None = ALONE) -> ComponentEnergy:
    """A component's energy with one more span, of which `share` is the job's; None is a share that cannot be told."""
    passed_us = span.end_us - span.start_us
    one = ComponentEnergy(first_us=span.start_us, last_us=span.end_us, resets=int(span.reset))
    if span.microjoules is None or span.method is None:
        one = msgspec.structs.replace(one, gap_us_by={str(span.gap or Gap.NO_VALUE): passed_us})
    elif share is None:
        one = msgspec.structs.replace(one, gap_us_by={str(Gap.NO_SHARE): passed_us})
    else:
        method = Method.APPORTIONED if share.divided else span.method
        one = msgspec.structs.replace(
            one,
            microjoules=share.of(span.microjoules),
            whole_microjoules=span.microjoules,
            covered_us_by={str(method): passed_us},
        )
    return one if energy is None else merge_components(energy, one)


def with_gap(
    energy: ComponentEnergy | None, start_us: int, end_us: int, gap: Gap = Gap.NOT_LOOKED
) -> ComponentEnergy | None:
    """A component's energy with a time of which nothing is known, such as that before the first look at a job."""
    if end_us <= start_us:
        return energy
    return with_span(energy, Span(start_us=start_us, end_us=end_us, gap=gap))


def merge_components(one: ComponentEnergy, other: ComponentEnergy) -> ComponentEnergy:
    """Two stretches of time, two parts of a node, or two nodes: together."""
    return ComponentEnergy(
        microjoules=one.microjoules + other.microjoules,
        whole_microjoules=one.whole_microjoules + other.whole_microjoules,
        covered_us_by=_summed(one.covered_us_by, other.covered_us_by),
        gap_us_by=_summed(one.gap_us_by, other.gap_us_by),
        resets=one.resets + other.resets,
        first_us=smaller(one.first_us, other.first_us),
        last_us=larger(one.last_us, other.last_us),
    )


def _summed(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in sorted({*one, *other})}


class EnergyAccount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job's energy by component; None is a component of which nothing is there or was ever looked at."""

    gpu: ComponentEnergy | None = None
    cpu: ComponentEnergy | None = None
    dram: ComponentEnergy | None = None

    def components(self) -> dict[str, ComponentEnergy]:
        """The components there are, by name."""
        parts = {"gpu": self.gpu, "cpu": self.cpu, "dram": self.dram}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def known(self) -> tuple[str, ...]:
        """The components that have a number: what `known_microjoules` is the sum of."""
        return tuple(name for name, part in self.components().items() if part.known_microjoules is not None)

    @property
    def known_microjoules(self) -> int | None:
        """The energy of the components that have a number, together; None where none has.

        Power supplies, fans, network and disks are in none of them: it is the energy of components, not of nodes.
        """
        parts = self.components()
        return sum(parts[name].microjoules for name in self.known) if self.known else None

    @property
    def coverage(self) -> float | None:
        """The smallest coverage of any component that is there, 0 for one without a number; None without any time."""
        ratios = [ratio for part in self.components().values() if (ratio := part.coverage) is not None]
        return min(ratios, default=None)

    @property
    def method(self) -> Method | None:
        """How the sum came about; None where there is none."""
        parts = self.components()
        methods = {parts[name].method for name in self.known}
        if not methods:
            return None
        return methods.pop() if len(methods) == 1 else Method.MIXED


def merge_accounts(accounts: Iterable[EnergyAccount]) -> EnergyAccount:
    """The energy of several nodes of a run together, in any order. Give each node once."""
    total = EnergyAccount()
    for account in accounts:
        total = EnergyAccount(
            gpu=_merged(total.gpu, account.gpu),
            cpu=_merged(total.cpu, account.cpu),
            dram=_merged(total.dram, account.dram),
        )
    return total


def _merged(one: ComponentEnergy | None, other: ComponentEnergy | None) -> ComponentEnergy | None:
    if one is None or other is None:
        return other if one is None else one
    return merge_components(one, other)


def newer_report(one: EnergyAccount | None, other: EnergyAccount) -> EnergyAccount:
    """Of two reports by the same node of the same run, component by component the one that knows of more time.

    A node's account only grows, so the reports may come in any order, and twice.
    """
    if one is None:
        return other
    return EnergyAccount(
        gpu=_newer(one.gpu, other.gpu), cpu=_newer(one.cpu, other.cpu), dram=_newer(one.dram, other.dram)
    )


def _newer(one: ComponentEnergy | None, other: ComponentEnergy | None) -> ComponentEnergy | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other, key=_extent)


def _extent(part: ComponentEnergy) -> tuple[object, ...]:
    """A total order that begins with the time known of."""
    by_method, by_gap = sorted(part.covered_us_by.items()), sorted(part.gap_us_by.items())
    times = (part.expected_us, part.covered_us, part.microjoules, part.whole_microjoules, part.resets)
    ends = tuple((end is None, end or 0) for end in (part.first_us, part.last_us))
    return (*times, ends, by_method, by_gap)

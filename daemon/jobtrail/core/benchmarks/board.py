"""What /metrics shows of benchmarks: the last valid run of each recipe, model and hardware."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from jobtrail.domain.benchmarks.settling import LastValidRun


class BenchmarkPage(msgspec.Struct, frozen=True, kw_only=True):
    """The runs on show. A new page is a new object, and what was made of the old one may be kept until then."""

    runs: tuple[LastValidRun, ...] = ()


class BenchmarkBoard:
    """Written once per settling, read by each scrape. `page` is None while nothing is known here."""

    def __init__(self, *, max_series: int) -> None:
        self._max_series = max_series
        self._shed: frozenset[Hashable] = frozenset()
        self.page: BenchmarkPage | None = None
        self.shed_total = 0  # sets of labels that were left off because of the cap, each counted as it falls out

    @property
    def wanted(self) -> int:
        """How many runs to ask for, so that those are seen that the cap leaves off."""
        return 2 * self._max_series

    def show(self, runs: Sequence[LastValidRun]) -> int:
        """Put these on show, the first of each set of labels, as many as may be; how many were newly left off."""
        by_labels: dict[Hashable, LastValidRun] = {}
        for run in runs:
            by_labels.setdefault((run.cluster, run.recipe, run.model, run.hardware), run)
        shown = tuple(by_labels.values())[: self._max_series]
        shed = frozenset(tuple(by_labels)[self._max_series :])
        newly = len(shed - self._shed)
        self._shed = shed
        self.shed_total += newly
        if self.page is None or self.page.runs != shown:
            self.page = BenchmarkPage(runs=shown)
        return newly

    def clear(self) -> None:
        """Show nothing: another daemon does."""
        self.page = None

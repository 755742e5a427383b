"""CPU of one /metrics page, beside prometheus_client's page of the same series, made in turn.

Before each page every job has a new sample in which all levels and counters have moved; only limits, allocations and
out-of-memory kills stand still, as they do in life. A page nobody sampled for, which a second Prometheus gets, is told
apart. That both pages hold the same series with the same values is checked before anything is measured.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.figures import Figure, at_most
from jobtrail.adapters.exposition import Exposition
from jobtrail.core.ports import OpenRun
from jobtrail.core.runs.board import Board
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.samples import Reading, Target

ROUNDS = 15
LIMIT_MS = 3.0  # CPU of a page of 1,000 jobs
STARTED_US = 1_800_000_000_000_000
STILL: dict[str, Any] = {"memory_limit_bytes": 1 << 34, "oom_kills": 0}
LEVELS = (
    "memory_current_bytes",
    "memory_rss_bytes",
    "memory_cache_bytes",
    "memory_shmem_bytes",
    "processes",
    "threads",
)
PRESSURE = tuple(f"pressure_{what}_{kind}_us" for what in ("cpu", "memory", "io") for kind in ("some", "full"))
COUNTERS = ("cpu_usage_us", "cpu_user_us", "cpu_system_us", "cpu_throttled_us", "memory_peak_bytes", "io_read_bytes",
            "io_write_bytes")  # fmt: skip

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Scene:
    """A board of `jobs` jobs on a cgroup v2 node, and a clock that moves with the samples."""

    def __init__(self, jobs: int) -> None:
        self.board = Board(max_jobs=jobs)
        self.now_us = STARTED_US
        self._ticks = count(1)
        for number in range(jobs):
            target = Target(
                ref=f"run-{number}", cluster="cluster", job_id=f"slurm-{1_000_000 + number}", node="node0001"
            )
            self.board.open(
                OpenRun(
                    target=target, started_us=STARTED_US - number * 1_000_003, user_name=f"user{number % 50}",
                    account="physics", partition="batch", qos="normal", cpus=8, gpus=0,
                )
            )  # fmt: skip

    def time_us(self) -> int:
        """The scene's wall clock."""
        return self.now_us

    def monotonic(self) -> float:
        """The scene's steady clock."""
        return self.now_us / 1e6

    def sample(self) -> None:
        """A new sample of every job, 15 s after the last."""
        tick = next(self._ticks)
        self.now_us += 15_000_000
        for number, ref in enumerate(self.board.jobs):
            moved = tick * 1_234_567 + number * 7_919
            counters: dict[str, Any] = {name: moved * (place + 1) for place, name in enumerate(COUNTERS)}
            levels: dict[str, Any] = {name: moved + place for place, name in enumerate((*LEVELS, *PRESSURE))}
            reading = Reading(time_us=self.now_us - number, source="cgroup_v2", **STILL, **levels)
            usage = NodeUsage(**counters, oom_kills=0, sample_count=tick)
            self.board.update(ref, reading, moved % 100_000 / 1_000, usage)


class Reference:
    """The same series held by prometheus_client."""

    def __init__(self, page: bytes) -> None:
        self.registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self.take(page)

    def take(self, page: bytes) -> None:
        """Set every series to its value on `page`."""
        for (name, labels), value in read_back(page).items():
            if name not in self._gauges:
                self._gauges[name] = Gauge(
                    name, "As on the other page.", [key for key, _ in labels], registry=self.registry
                )
            gauge = self._gauges[name]
            (gauge.labels(**dict(labels)) if labels else gauge).set(value)

    def render(self) -> bytes:
        """prometheus_client's page."""
        return generate_latest(self.registry)


def read_back(page: bytes) -> Samples:
    """A page's values by series."""
    families = text_string_to_metric_families(page.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU of this process for one call, in milliseconds."""
    began = time.process_time_ns()
    work()
    return (time.process_time_ns() - began) / 1e6


def _measure(jobs: int) -> list[Figure]:
    scene = Scene(jobs)
    exposition = Exposition(scene.board, lambda: b"", node="node0001", clock=scene)
    scene.sample()
    page = exposition.render()
    reference = Reference(page)
    if read_back(reference.render()) != read_back(page):
        raise RuntimeError("the two pages do not hold the same series")
    fresh, again, theirs = [], [], []
    for _ in range(ROUNDS):
        scene.sample()
        gc.collect()  # what making the samples left behind is not the page's
        fresh.append(cpu_ms(exposition.render))
        again.append(cpu_ms(exposition.render))
        theirs.append(cpu_ms(reference.render))
    lines = len(read_back(page))
    value, limit = statistics.median(fresh), LIMIT_MS if jobs == 1000 else None
    common: dict[str, Any] = {
        "unit": "ms CPU",
        "reference": "prometheus_client",
        "reference_value": statistics.median(theirs),
    }
    return [
        Figure(
            what=f"/metrics page, {jobs} jobs, {lines} series, all sampled anew",
            value=value,
            target="" if limit is None else f"≤ {limit:g} ms",
            met=None if limit is None else at_most(limit, value),
            **common,
        ),
        Figure(what=f"/metrics page, {jobs} jobs, no new sample", value=statistics.median(again), **common),
    ]


def measure() -> list[Figure]:
    """CPU of a page for 100 and for 1,000 jobs."""
    return [figure for jobs in (100, 1000) for figure in _measure(jobs)]

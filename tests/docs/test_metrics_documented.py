"""docs/metrics.md and /metrics tell the same families, with the same types and labels."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from jobtrail.adapters.exposition import FAMILIES
from jobtrail.adapters.telemetry import (
    BENCHMARK_LINKS,
    FORWARD_REASONS,
    GPU_ABSENT_REASONS,
    GPU_MISMATCHES,
    GPU_PROBLEMS,
    MISS_REASONS,
    REJECT_REASONS,
    VERDICTS,
    Telemetry,
)
from jobtrail.core import facts
from jobtrail.core.clocks import facts as clock_facts
from jobtrail.core.ports import SpoolStatus
from jobtrail.core.trail import facts as audit_facts
from jobtrail.domain.states import State

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(
    r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<unit>[^|]+) \| (?P<labels>[^|]*)\| (?P<rest>.+) \|$", re.M
)

Families = dict[str, tuple[str, frozenset[str]]]


def documented() -> Families:
    """Type and labels by family, from the tables."""
    rows = list(ROW.finditer(PAGE.read_text(encoding="utf-8")))
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names)), "a family is documented twice"
    return {row["name"]: (row["type"], frozenset(re.findall(r"\w+", row["labels"]))) for row in rows}


def exposed_by_jobs() -> Families:
    """Type and labels by family, from the exposition's table."""
    return {
        family.name: (
            family.kind,
            frozenset((*family.labels, *(label for series in family.series for label, _ in series.extra))),
        )
        for family in FAMILIES
    }


def exposed_by_the_daemon() -> Families:
    """Type and labels by family, from a page of the daemon's own figures."""
    telemetry = Telemetry()
    telemetry.watch_spool(
        lambda: SpoolStatus(
            chain_id="c",
            durability="disk",
            head_seq=2,
            forwarded_seq=1,
            bytes_used=1,
            bytes_limit=2,
            oldest_unforwarded_us=1,
        )
    )
    telemetry.observe(facts.SampleSourceFailed(source="x", reason="y"))
    telemetry.observe(facts.SlurmAnswered(question="nodes", records=1))
    telemetry.observe(facts.GpusLooked(vendor="nvidia", gpus=1, seconds=0.01))
    telemetry.observe(facts.GpuLookFailed(vendor="nvidia", reason="hung"))
    telemetry.observe(facts.GpuValueAbsent(vendor="nvidia", gpu_id="x", value="y", reason="lost"))
    telemetry.observe(facts.GpuErrorsTold(vendor="nvidia", gpu_id="x", code=79, times=1))
    telemetry.observe(audit_facts.CheckpointSeen(number=1, digest="x", root="x", sealed_us=1))
    telemetry.observe(audit_facts.TrailVerified(kind="full", rows=1, checkpoint=1, findings=0, seconds=0.1))
    telemetry.observe(clock_facts.ClockStepped(seconds=1.0))
    telemetry.observe(clock_facts.ClockCompared(ahead_seconds=0.1, within_seconds=0.01))
    telemetry.forwards_to("https://server:8443")
    telemetry.observe(facts.ServerAsked(server="https://server:8443", what="events", outcome="ok", seconds=0.01))
    telemetry.observe(facts.NodeServed(node="n1", what="events", status=200, rows=1, seconds=0.01))
    page = telemetry.render().decode()
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels.setdefault(family.name, set()).update(sample.labels.keys() - {"le"})
    types = re.findall(r"^# TYPE (\w+) (\w+)$", page, re.M)
    return {
        name: (kind, frozenset(labels[name.removesuffix("_total") if kind == "counter" else name]))
        for name, kind in types
    }


def test_every_family_is_documented_as_it_is() -> None:
    """Nothing on the page is missing in the document, and the reverse."""
    exposed = exposed_by_jobs()
    own = exposed_by_the_daemon()
    assert not exposed.keys() & own.keys(), "two sources of one family"
    assert documented() == {**exposed, **own}


def test_units_agree_with_the_names() -> None:
    """A name that ends in a unit is documented in that unit."""
    for row in ROW.finditer(PAGE.read_text(encoding="utf-8")):
        stem = row["name"].removesuffix("_total")
        for suffix, unit in (("_seconds", "seconds"), ("_bytes", "bytes"), ("_percent", "per cent")):
            assert (row["unit"] == unit) == stem.endswith(suffix), row["name"]


def test_every_reason_and_state_is_named() -> None:
    """An alert can be written from the document alone."""
    text = PAGE.read_text(encoding="utf-8")
    gpus = (*GPU_PROBLEMS, *GPU_ABSENT_REASONS, *GPU_MISMATCHES)
    for word in (*REJECT_REASONS, *FORWARD_REASONS, *MISS_REASONS, *State, *gpus, *BENCHMARK_LINKS, *VERDICTS):
        assert re.search(rf"\b{word}\b", text), word

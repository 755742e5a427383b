"""docs/alerts.md tells of the alerts and the recorded series as they are."""

from __future__ import annotations

import re

from tests.prometheus.shipped import ALERTS, RECORDED, REPOSITORY

TEXT = (REPOSITORY / "docs" / "alerts.md").read_text(encoding="utf-8")


def test_every_alert_is_told_as_it_is() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(runbooks\.md#(\w+)\) \| (\w+) \| (\w+) \| (\w+) \| .+ \|$", TEXT, re.M)
    assert rows == [
        (name, name.lower(), rule["labels"]["severity"], rule["labels"]["audience"], rule["for"])
        for name, rule in ALERTS.items()
    ]


def test_every_recorded_series_is_told_with_its_levels() -> None:
    rows = re.findall(r"^\| `(\w+:\w+)` \| [^|]+ \| ([a-z_, ]+) \| .+ \|$", TEXT, re.M)
    told = [f"{level}:{name}" for name, levels in rows for level in levels.split(", ")]
    assert len(told) == len(set(told))
    assert set(told) == set(RECORDED)


def test_the_labels_of_a_level_are_those_its_rules_keep() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([a-z_]+(?:, [a-z_]+)*) \|$", TEXT, re.M))
    assert rows.keys() == {name.partition(":")[0] for name in RECORDED} - {"job_node_gpu"}
    for name, rule in RECORDED.items():
        level = name.partition(":")[0]
        if not level.startswith("job_node"):
            kept = [
                re.split(r",\s*", one) for one in re.findall(r"^(?:sum|avg|max) by \(([^)]*)\)", rule["expr"], re.M)
            ]
            assert kept
            assert all(labels == rows[level].split(", ") for labels in kept), name

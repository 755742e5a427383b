"""What the committed dashboards hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).parents[2] / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FILES}


@dataclass(frozen=True)
class Question:
    """One target of a panel, or an annotation."""

    dashboard: str
    panel: str
    target: dict[str, Any]
    columns: tuple[str, ...] = ()  # of a table, those it shows or links by

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.dashboard}: {self.panel} ({self.target['refId']})"


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel, those within rows too; rows themselves are none."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def overrides(panel: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Properties by the name of the field that they are set for."""
    found: dict[str, dict[str, Any]] = {}
    for one in panel["fieldConfig"].get("overrides", []):
        assert one["matcher"]["id"] == "byName"
        found[one["matcher"]["options"]] = {each["id"]: each["value"] for each in one["properties"]}
    return found


def questions(key: str) -> list[Question]:
    """Every target with this key: `expr` is PromQL, `rawSql` is SQL."""
    found = []
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            columns = tuple(overrides(panel)) if panel["type"] == "table" else ()
            found += [Question(name, panel["title"], one, columns) for one in panel["targets"] if key in one]
        for one in dashboard.get("annotations", {}).get("list", []):
            if key in one["target"]:
                found.append(Question(name, one["name"], one["target"], ("time", "text", "tags")))
    return found


def variables(dashboard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Variables by name."""
    return {one["name"]: one for one in dashboard["templating"]["list"]}

"""The provisioning files: the data sources and the folder that the dashboards need, and no secret."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.grafana.shipped import DASHBOARDS, GRAFANA

PROVISIONING = GRAFANA / "provisioning"


def _read(name: str) -> Any:
    return yaml.safe_load((PROVISIONING / name).read_text(encoding="utf-8"))


def test_the_data_sources_are_of_the_kinds_that_the_dashboards_choose_from() -> None:
    given = {one["type"] for one in _read("datasources/jobtrail.yaml")["datasources"]}
    asked = {
        variable["query"]
        for dashboard in DASHBOARDS.values()
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "datasource"
    }
    assert given == asked


def test_addresses_and_passwords_come_from_the_environment() -> None:
    """And each variable is explained at the head of its file."""
    for name in ("datasources/jobtrail.yaml", "dashboards/jobtrail.yaml"):
        text = (PROVISIONING / name).read_text(encoding="utf-8")
        head, _, rest = text.partition("apiVersion")
        used = set(re.findall(r"\$\{(JOBTRAIL_\w+)\}", rest))
        assert used == set(re.findall(r"^#   (JOBTRAIL_\w+) ", head, re.MULTILINE))
        assert used
    for one in _read("datasources/jobtrail.yaml")["datasources"]:
        assert one["url"].startswith("${JOBTRAIL_")
        assert not one["editable"]
        assert all(value.startswith("${JOBTRAIL_") for value in one.get("secureJsonData", {}).values())


def test_the_folder_holds_every_dashboard() -> None:
    (provider,) = _read("dashboards/jobtrail.yaml")["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "${JOBTRAIL_DASHBOARDS}")
    assert len({json.dumps(dashboard["uid"]) for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)

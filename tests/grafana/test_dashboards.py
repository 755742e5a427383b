"""The committed dashboards: made by the code beside them, and with every panel explained."""

from __future__ import annotations

import re
from typing import Any

import promql_parser
import pytest
from grafana.src.dashboards import rendered

from tests.docs.test_metrics_documented import documented
from tests.grafana.shipped import DASHBOARDS, FILES, overrides, panels, questions, variables

UNITS = {
    "short", "none", "string", "bool_yes_no", "dateTimeAsIso", "percent", "percentunit", "bytes", "binBps", "s", "h",
    "dtdurations", "watt", "joule", "kwatth", "massg", "celsius", "hertz", "reqps",
}  # fmt: skip
ABOVE_THE_FOLD = 13
OF_EVERY_TARGET = {"instance", "job", "cluster"}  # Prometheus's own, and what prometheus.yml gives to every page
ALL_PANELS = [
    pytest.param(panel, dashboard, id=f"{name}: {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
]
OF_THE_WHOLE_TRAIL = {
    "Gaps",
    "Not applied",
    "Writers",
    "Last stored",
    "Missing events",
    "Events that changed nothing",
    "Chains",
}
PROMQL = [pytest.param(one, id=one.name) for one in questions("expr")]
STATEMENTS = [pytest.param(one, id=one.name) for one in questions("rawSql")]


def test_the_committed_files_are_what_the_code_makes() -> None:
    """Byte for byte; `python -m grafana.src` writes them anew."""
    assert {path.name: path.read_bytes() for path in FILES} == rendered()


def test_there_is_a_dashboard_for_every_question() -> None:
    assert set(DASHBOARDS) == {"accounts", "audit", "benchmarks", "cluster", "gpus", "health", "job", "node"}
    for name, dashboard in DASHBOARDS.items():
        assert dashboard["uid"] == f"jobtrail-{name}"
        assert (dashboard["tags"], len(dashboard["description"]) > 20) == (["jobtrail"], True)
        shown = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        assert len(shown) <= ABOVE_THE_FOLD
        assert dashboard["links"][0]["tags"] == ["jobtrail"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_ids_and_titles_are_unique_and_panels_do_not_overlap(name: str) -> None:
    dashboard = DASHBOARDS[name]
    ids = [panel["id"] for panel in (*dashboard["panels"], *panels(dashboard))]
    assert len(set(ids)) == len({id(panel) for panel in (*dashboard["panels"], *panels(dashboard))})
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(titles) == len(set(titles))
    for group in (list(dashboard["panels"]), *(one.get("panels", []) for one in dashboard["panels"])):
        taken: set[tuple[int, int]] = set()
        for place in (panel["gridPos"] for panel in group):
            assert place.get("x", 0) + place["w"] <= 24
            cells = {
                (x, y)
                for x in range(place.get("x", 0), place.get("x", 0) + place["w"])
                for y in range(place.get("y", 0), place.get("y", 0) + place["h"])
            }
            assert not cells & taken
            taken |= cells


@pytest.mark.parametrize(("panel", "dashboard"), ALL_PANELS)
def test_every_panel_is_explained(panel: dict[str, Any], dashboard: dict[str, Any]) -> None:
    """A description, a unit, thresholds, and words for when there is nothing; tables have a unit for every column."""
    defaults = panel["fieldConfig"]["defaults"]
    assert re.search(r"\w{3,}.*\w{3,}.*\.$", panel["description"], re.DOTALL), "no sentence"
    assert _is_unit(defaults["unit"])
    assert len(defaults["noValue"]) > 10
    assert defaults["thresholds"]["steps"][0]["value"] is None
    if panel["type"] == "table":
        for column, properties in overrides(panel).items():
            assert _is_unit(properties["unit"]), column
        kept = [one for one in panel["transformations"] if one["id"] == "filterFieldsByName"]
        assert kept[0]["options"]["include"]["names"] == list(overrides(panel))


def _is_unit(unit: str) -> bool:
    return unit in UNITS or unit.startswith("suffix: ")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_data_source_is_named_but_by_its_variable(name: str) -> None:
    dashboard = DASHBOARDS[name]
    found = list(_sources(dashboard))
    assert found
    assert {(one["type"], one["uid"]) for one in found} <= {
        ("prometheus", "${prometheus}"), ("grafana-postgresql-datasource", "${postgresql}"),
    }  # fmt: skip
    for panel in panels(dashboard):
        assert [one["datasource"] for one in panel["targets"]] == [panel["datasource"]] * len(panel["targets"])
        letters = [one["refId"] for one in panel["targets"]]
        assert len(letters) == len(set(letters))
    made = {one["name"]: one["query"] for one in dashboard["templating"]["list"] if one["type"] == "datasource"}
    assert made == {"prometheus": "prometheus", "postgresql": "grafana-postgresql-datasource"}


def _sources(part: Any) -> Any:
    if isinstance(part, dict):
        if "datasource" in part:
            yield part["datasource"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from _sources(one)


@pytest.mark.parametrize(("panel", "dashboard"), ALL_PANELS)
def test_links_lead_to_dashboards_and_give_them_variables_they_have(
    panel: dict[str, Any], dashboard: dict[str, Any]
) -> None:
    columns = overrides(panel)
    links = [link["url"] for one in columns.values() for link in one.get("links", [])]
    links += [link["url"] for link in panel["fieldConfig"]["defaults"].get("links", [])]
    for url in links:
        path, _, query = url.partition("?")
        target = DASHBOARDS[path.removeprefix("/d/jobtrail-")]
        assert set(re.findall(r"var-(\w+)=", query)) <= variables(target).keys()
        assert {"prometheus", "postgresql"} <= set(re.findall(r"\$\{(\w+):queryparam\}", query))
        if panel["type"] == "table":
            assert set(re.findall(r"__data\.fields\.(\w+)", query)) <= columns.keys()
        else:
            used = set(re.findall(r"__field\.labels\.(\w+)", query))
            for target_of in panel["targets"]:
                assert used <= _labels(promql_parser.parse(_parsable(target_of["expr"]))) | OF_EVERY_TARGET


@pytest.mark.parametrize("question", PROMQL)
def test_promql_names_documented_metrics_and_labels(question: Any) -> None:
    """Each metric is in docs/metrics.md, and so are the labels it is matched, grouped and named by."""
    tree = promql_parser.parse(_parsable(question.target["expr"]))
    known = _labels(tree) | OF_EVERY_TARGET | {"le"}
    for node in _nodes(tree):
        if isinstance(node, promql_parser.VectorSelector):
            family = _family(node.name)
            assert family in documented(), f"{node.name} is not in docs/metrics.md"
            used = {one.name for one in node.matchers.matchers}
            assert used <= documented()[family][1] | OF_EVERY_TARGET
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= _labels(node) | OF_EVERY_TARGET | {"le"}
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching:
            assert set(node.modifier.matching.labels) <= _labels(node.lhs) & _labels(node.rhs) | OF_EVERY_TARGET
    assert set(re.findall(r"\{\{(\w+)\}\}", question.target.get("legendFormat", ""))) <= known


@pytest.mark.parametrize("question", PROMQL)
def test_promql_is_of_the_chosen_clusters_and_keeps_equal_names_apart(question: Any) -> None:
    """Every family is matched by cluster; hpc_job_info, whose cluster is the job's, stands beside one of its page."""
    if question.panel == "Conflicts" and question.dashboard == "audit":
        return  # of all clusters, as it says
    tree = promql_parser.parse(_parsable(question.target["expr"]))
    selectors = [one for one in _nodes(tree) if isinstance(one, promql_parser.VectorSelector)]
    of_job = question.dashboard == "job"  # there it is the job's cluster that is chosen
    for one in selectors:
        chosen = [str(each) for each in one.matchers.matchers if each.name == "cluster"]
        assert bool(chosen) == ((one.name == "hpc_job_info") == of_job), one.name
    for node in _nodes(tree):
        grouped: set[str] = set()
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped = set(node.modifier.labels)
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching:
            grouped = set(node.modifier.matching.labels)
        if "node" in grouped and not of_job and question.dashboard != "node":
            assert grouped & {"cluster", "instance"}, f"nodes of two clusters are taken for one: by {grouped}"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_dashboard_has_a_choice_of_clusters(name: str) -> None:
    """All of them, but for a job and a node, which are of one."""
    chosen = variables(DASHBOARDS[name])["cluster"]
    assert bool(chosen.get("includeAll")) == bool(chosen.get("multi")) == (name not in {"job", "node"})
    for question in questions("rawSql"):
        if question.dashboard == name and question.panel not in OF_THE_WHOLE_TRAIL:
            assert "${cluster:sqlstring}" in question.target["rawSql"], question.panel


@pytest.mark.parametrize("question", PROMQL)
def test_counters_are_rated_and_gauges_are_not(question: Any) -> None:
    """A rate of a gauge, or the bare level of a counter in a graph, is a wrong number."""
    tree = promql_parser.parse(_parsable(question.target["expr"]))
    for node in _nodes(tree):
        if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "increase"):
            (selector,) = (one for one in _nodes(node) if isinstance(one, promql_parser.VectorSelector))
            assert documented()[_family(selector.name)][0] in ("counter", "histogram")


def _parsable(expression: str) -> str:
    """Grafana's variables are no PromQL; inside of strings they are left."""
    expression = re.sub(r"\$__\w+", "5m", expression)
    return re.sub(r"\$idle\b", "600", expression)


def _nodes(tree: Any) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(tree, pre_visit=found.append)
    return found


def _family(name: str) -> str:
    base = name.removesuffix("_bucket")
    return base if base in documented() else name


def _labels(tree: Any) -> set[str]:
    """Labels of any metric of the expression."""
    names = (_family(one.name) for one in _nodes(tree) if isinstance(one, promql_parser.VectorSelector))
    return {label for name in names for label in documented().get(name, ("", frozenset()))[1]}


@pytest.mark.parametrize("question", STATEMENTS)
def test_sql_only_reads_and_knows_its_variables(question: Any) -> None:
    statement = question.target["rawSql"]
    assert re.match(r"(SELECT|WITH)\b", statement)
    assert ";" not in statement
    assert not re.search(r"\b(INSERT|UPDATE|DELETE|DROP|CREATE|GRANT|pg_\w+)\b", statement)
    known = variables(DASHBOARDS[question.dashboard])
    assert set(re.findall(r"\$\{(\w+)", statement)) <= known.keys()
    quoted = re.findall(r"\$\{(\w+)(?!\w*:sqlstring\})\}", statement)
    assert quoted == [], "a value that is not quoted"
    assert re.search(r"\bLIMIT \d+|\bcount\(|\bsum\(|\bmax\(|GROUP BY|FROM nodes", statement), "an answer without bound"

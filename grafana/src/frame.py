"""What surrounds the panels: variables, annotations, links to the other dashboards, and the panels' numbers."""

from __future__ import annotations

import inspect

from grafana.src.panels import Panel
from grafana.src.queries import POSTGRESQL, POSTGRESQL_TYPE, PROMETHEUS
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

Variable = Builder[models.VariableModel]
EVERYTHING = "'*'"
"""What a variable's "All" is in SQL: it stands for rows without a value, too."""


class Annotation(models.AnnotationQuery, Builder[models.AnnotationQuery]):
    """Marks on the time axis from SQL with columns time, text and tags."""

    def __init__(self, name: str, statement: str, colour: str) -> None:
        super().__init__(name=name, datasource=POSTGRESQL, enable=True, hide=False, icon_color=colour)
        self.statement = inspect.cleandoc(statement)

    def build(self) -> models.AnnotationQuery:
        """Itself: it is complete when it is made."""
        return self

    def to_json(self) -> dict[str, object]:
        """With the statement where Grafana's PostgreSQL data source looks for it."""
        target = {"refId": "Anno", "editorMode": "code", "format": "table", "rawQuery": True, "rawSql": self.statement}
        return {**super().to_json(), "target": {**target, "datasource": POSTGRESQL}}


def sources() -> tuple[Variable, Variable]:
    """The choice of data sources, one of each kind."""
    return (
        board.DatasourceVariable("prometheus").label("Prometheus").type("prometheus"),
        board.DatasourceVariable("postgresql").label("PostgreSQL").type(POSTGRESQL_TYPE),
    )


def from_sql(
    name: str, label: str, statement: str, *, several: bool = False, listed: bool = False, description: str = ""
) -> Variable:
    """Values of a statement's column, or of __value shown as __text; with `several` also all of them.

    "All" stands for rows without a value, too; when `listed` it is the list of all values, for use in PromQL as well.
    """
    variable = (
        board.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(POSTGRESQL)
        .query(inspect.cleandoc(statement))
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .allow_custom_value(True)
    )
    if not several:
        return variable
    every = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    variable.multi(True).include_all(True).current(every)
    return variable if listed else variable.all_value(EVERYTHING)


def from_labels(name: str, label: str, metric: str, *, several: bool = False) -> Variable:
    """Values of a label of a metric; with `several` also all of them, as the list that they are."""
    asked = {"qryType": 1, "query": f"label_values({metric}, {name})", "refId": "PrometheusVariableQueryEditor"}
    variable = board.QueryVariable(name).label(label).datasource(PROMETHEUS).query(dict(asked))
    variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    if several:
        variable.multi(True).include_all(True)
        variable.current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    return variable.allow_custom_value(True)


def choice(name: str, label: str, texts: dict[str, str]) -> Variable:
    """One of a few values; the first is chosen."""
    options = [
        models.VariableOption(selected=place == 0, text=text, value=value)
        for place, (value, text) in enumerate(texts.items())
    ]
    listed = ",".join(f"{text} : {value}" for value, text in texts.items())
    return board.CustomVariable(name).label(label).values(listed).options(options).current(options[0])


def dashboard(
    uid: str, title: str, description: str, *, variables: tuple[Variable, ...], panels: tuple[Panel, ...],
    rows: dict[str, tuple[Panel, ...]] | None = None, annotations: tuple[Annotation, ...] = (), past: str = "now-6h",
    refresh: str = "1m",
) -> models.Dashboard:  # fmt: skip
    """`panels` are seen at once; each of `rows` opens with a click."""
    made = board.Dashboard(title).uid(f"jobtrail-{uid}").description(" ".join(description.split()))
    made.tags(["jobtrail"]).time(past, "now").refresh(refresh).timezone("browser").readonly()
    made.tooltip(models.DashboardCursorSync.CROSSHAIR)
    made.link(
        board.DashboardLink("Jobtrail")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["jobtrail"])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
    )
    for variable in variables:
        made.with_variable(variable)
    for annotation in annotations:
        made.annotation(annotation)
    for panel in panels:
        made.with_panel(panel)
    for name, inner in (rows or {}).items():
        row = board.Row(name).collapsed(True)
        for panel in inner:
            row.with_panel(panel)
        made.with_row(row)
    return _numbered(made.build())


def _numbered(made: models.Dashboard) -> models.Dashboard:
    last = 0
    for panel in made.panels or []:
        last += 1
        panel.id_val = last
        for inner in panel.panels if isinstance(panel, models.RowPanel) else []:
            last += 1
            inner.id_val = last
    return made

"""Panels. Each has a title, a description, a unit, thresholds, and words for when there is nothing to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grafana.src.looks import NEUTRAL, Steps
from grafana.src.queries import Query, source_of
from grafana_foundation_sdk.builders import bargauge, common, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models

Panel = Builder[models.Panel]
HALF, THIRD, QUARTER, WHOLE = 12, 8, 6, 24


@dataclass(frozen=True)
class Column:
    """A column of a table: its name in the answer, its unit, and how it is shown."""

    name: str
    unit: str
    title: str = ""
    width: int = 0
    link: str = ""
    steps: Steps = ()
    colours: dict[str, str] | None = None
    hidden: bool = False


def number(
    title: str, description: str, query: Query, *, unit: str, absent: str, steps: Steps = NEUTRAL, width: int = 4,
    decimals: int | None = None, link: str = "",
) -> Panel:  # fmt: skip
    """One number of now."""
    panel = stat.Panel().graph_mode(shapes.BigValueGraphMode.NONE).color_mode(shapes.BigValueColorMode.VALUE)
    panel.reduce_options(common.ReduceDataOptions().values(False).calcs(["lastNotNull"]))
    _common(panel, title, description, (query,), unit, absent, steps, width, 4)
    if decimals is not None:
        panel.decimals(decimals)
    if link:
        panel.data_links([_link(link)])
    return panel


def lines(
    title: str, description: str, *queries: Query, unit: str, absent: str, steps: Steps = NEUTRAL, width: int = HALF,
    height: int = 8, stack: bool = False, bars: bool = False, low: float | None = 0, high: float | None = None,
    colours: dict[str, str] | None = None, link: str = "", limits: tuple[str, ...] = (),
) -> Panel:  # fmt: skip
    """Values over time; `limits` are drawn dashed and unfilled, `steps` beyond one colour as dashed lines."""
    panel = timeseries.Panel().line_width(1).fill_opacity(40 if stack or bars else 8)
    panel.show_points(shapes.VisibilityMode.AUTO).span_nulls(False)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(shapes.LegendDisplayMode.TABLE)
        .placement(shapes.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    _common(panel, title, description, queries, unit, absent, steps, width, height)
    panel.color_scheme(board.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    if bars:
        panel.draw_style(shapes.GraphDrawStyle.BARS)
    if stack or bars:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL).group("A"))
    if len(steps) > 1:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED))
    if low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [_fixed(colour)])
    for name in limits:
        dashed = {"dash": [10, 10], "fill": "dash"}
        panel.override_by_name(name, [_set("custom.lineStyle", dashed), _set("custom.fillOpacity", 0)])
    if link:
        panel.data_links([_link(link)])
    return panel


def ranking(
    title: str, description: str, query: Query, *, unit: str, absent: str, steps: Steps = NEUTRAL, width: int = THIRD,
    height: int = 8, each_row: bool = False, low: float = 0, high: float | None = None, link: str = "",
) -> Panel:  # fmt: skip
    """Bars side by side, of series or with `each_row` of a table's rows."""
    panel = bargauge.Panel().orientation(shapes.VizOrientation.HORIZONTAL)
    panel.display_mode(shapes.BarGaugeDisplayMode.BASIC).show_unfilled(True).min(low)
    panel.reduce_options(common.ReduceDataOptions().values(each_row).calcs(["lastNotNull"]))
    _common(panel, title, description, (query,), unit, absent, steps, width, height)
    if high is not None:
        panel.max(high)
    if link:
        panel.data_links([_link(link)])
    return panel


def states(
    title: str, description: str, query: Query, *, absent: str, colours: dict[str, str], width: int = HALF,
    height: int = 8, link: str = "",
) -> Panel:  # fmt: skip
    """Words over time, one line for each series; its values are the words' places in `colours`, from 1."""
    panel = statetimeline.Panel().merge_values(True).show_value(shapes.VisibilityMode.AUTO).fill_opacity(80)
    panel.legend(common.VizLegendOptions().show_legend(False))
    _common(panel, title, description, (query,), "none", absent, NEUTRAL, width, height)
    panel.mappings([_places(colours)])
    if link:
        panel.data_links([_link(link)])
    return panel


def listing(
    title: str, description: str, *queries: Query, columns: tuple[Column, ...], absent: str, width: int = WHOLE,
    height: int = 8, sort: str = "", ascending: bool = False,
) -> Panel:  # fmt: skip
    """Rows; only `columns` are shown, in their order. Several queries are joined by the labels they share."""
    panel = table.Panel().show_header(True).cell_height(shapes.TableCellHeight.SM)
    _common(panel, title, description, queries, columns[0].unit, absent, NEUTRAL, width, height)
    if len(queries) > 1:
        panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    order: dict[str, object] = {column.name: place for place, column in enumerate(columns)}
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="filterFieldsByName", options={"include": {"names": [column.name for column in columns]}}
        )
    )
    panel.with_transformation(models.DataTransformerConfig(id_val="organize", options={"indexByName": order}))
    for column in columns:
        panel.override_by_name(column.name, _shown(column))
    if sort:
        titles = {column.name: column.title or column.name for column in columns}
        panel.sort_by([common.TableSortByFieldState().display_name(titles[sort]).desc(not ascending)])
    return panel


def _common(
    panel: Any, title: str, description: str, queries: tuple[Query, ...], unit: str, absent: str, steps: Steps,
    width: int, height: int,
) -> None:  # fmt: skip
    panel.title(title).description(" ".join(description.split())).unit(unit).no_value(absent)
    panel.thresholds(_thresholds(steps)).span(width).height(height)
    panel.datasource(source_of(queries[0]))
    for query in queries:
        panel.with_target(query)


def _shown(column: Column) -> list[models.DynamicConfigValue]:
    shown = [_set("unit", column.unit)]
    if column.title:
        shown.append(_set("displayName", column.title))
    if column.width:
        shown.append(_set("custom.width", column.width))
    if column.hidden:
        shown.append(_set("custom.hidden", True))
    if column.link:
        shown.append(_set("links", [{"title": "Open", "url": column.link}]))
    if column.steps:
        shown.append(_set("thresholds", _thresholds(column.steps).build()))
        shown.append(_set("color", {"mode": "thresholds"}))
        shown.append(_set("custom.cellOptions", {"type": "color-text"}))
    if column.colours:
        shown.append(_set("mappings", [_mapping(column.colours)]))
        shown.append(_set("custom.cellOptions", {"type": "color-text"}))
    return shown


def _thresholds(steps: Steps) -> board.ThresholdsConfig:
    made = [models.Threshold(value=value, color=colour) for value, colour in steps]
    return board.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)


def _mapping(colours: dict[str, str]) -> models.ValueMap:
    results = {
        word: models.ValueMappingResult(text=word, color=colour, index=place)
        for place, (word, colour) in enumerate(colours.items())
    }
    return models.ValueMap(options=results)


def _places(colours: dict[str, str]) -> models.ValueMap:
    results = {
        str(place): models.ValueMappingResult(text=word, color=colour, index=place)
        for place, (word, colour) in enumerate(colours.items(), start=1)
    }
    return models.ValueMap(options=results)


def _set(name: str, value: object) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val=name, value=value)


def _fixed(colour: str) -> models.DynamicConfigValue:
    return _set("color", {"mode": "fixed", "fixedColor": colour})


def _link(address: str) -> board.DashboardLink:
    return board.DashboardLink("Open").url(address)

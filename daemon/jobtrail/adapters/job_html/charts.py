"""Time lines as SVG. Places across are in per cent and heights in pixels, so that a chart fits any width while its text
and its strokes keep their size; the lines themselves are stretched to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from jobtrail.adapters.job_html.markup import Markup, el, join
from jobtrail.adapters.job_html.scales import Scale, moments
from jobtrail.domain.job_report_timeline import Mark

HEIGHT = 150
TOP = 18  # above the lines, for the numbers of the marks
WIDE = 10_000  # across, of the lines' own units
COLOURS = 8
MARK_WIDTH = 2.5  # per cent: marks closer than that share a number's place


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line: (seconds, value, whether there is a gap before). A value of None breaks it as well."""

    name: str
    points: Sequence[tuple[float, float | None, bool]]
    is_limit: bool = False  # drawn dashed, and not counted among the colours

    @property
    def values(self) -> list[float]:
        """What is known."""
        return [value for _, value, _ in self.points if value is not None]


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A chart and all that is said of it."""

    key: str
    title: str
    about: str  # what one point is
    lines: Sequence[Line]
    scale: Scale


def draw(chart: Chart, seconds: float, marks: Sequence[Mark]) -> Markup:
    """The figure: caption, plot, legend, and its figures as a table."""
    drawn = [line for line in chart.lines if line.values]
    most = max(value for line in drawn for value in line.values)
    top = chart.scale.top(most)
    ticks = chart.scale.ticks(top)
    labels = el(
        "div", *(el("span", chart.scale.words(tick)) for tick in reversed(ticks)), class_="y", aria_hidden="true"
    )
    return el(
        "figure",
        el("figcaption", el("strong", chart.title), " ", el("span", chart.about, class_="about")),
        el("div", labels, _plot(chart, drawn, seconds, top, ticks, marks), class_="chart"),
        _legend(drawn) if len(drawn) > 1 else None,
        _figures(chart, drawn),
        id=chart.key,
    )


def _plot(
    chart: Chart, lines: Sequence[Line], seconds: float, top: float, ticks: Sequence[float], marks: Sequence[Mark]
) -> Markup:
    title, about = f"{chart.key}-title", f"{chart.key}-about"
    return el(
        "svg",
        el("title", chart.title, id=title),
        el("desc", _described(chart, lines), id=about),
        *(_rule(TOP + HEIGHT * (1 - tick / top)) for tick in ticks),
        *_moments(seconds),
        *_marks(marks, seconds),
        el(
            "svg",
            *(_path(line, colour, seconds, top) for colour, line in _coloured(lines)),
            y=TOP,
            width="100%",
            height=HEIGHT,
            viewBox=f"0 0 {WIDE} {HEIGHT}",
            preserveAspectRatio="none",
        ),
        width="100%",
        height=TOP + HEIGHT + 22,
        role="img",
        aria_labelledby=f"{title} {about}",
    )


def _described(chart: Chart, lines: Sequence[Line]) -> str:
    said = [f"{line.name}: {', '.join(f'{word} {value}' for word, value in _extremes(chart, line))}" for line in lines]
    return f"{chart.about}. {'; '.join(said)}."


def _extremes(chart: Chart, line: Line) -> Iterator[tuple[str, str]]:
    known, words = line.values, chart.scale.words
    yield "least", words(min(known))
    yield "mean", words(math.fsum(known) / len(known))
    yield "most", words(max(known))
    yield "last", words(known[-1])


def _rule(y: float) -> Markup:
    return el("line", x1="0", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}", class_="rule")


def _moments(seconds: float) -> Iterator[Markup]:
    for at, words in moments(seconds):
        place = 100 * at / seconds
        anchor = "start" if place < 4 else "end" if place > 92 else "middle"
        yield el("text", words, x=f"{place:.2f}%", y=TOP + HEIGHT + 16, text_anchor=anchor, class_="tick")


def _marks(marks: Sequence[Mark], seconds: float) -> Iterator[Markup]:
    """A line for each mark; of those whose numbers would lie on one another, the first has one."""
    written = -math.inf
    for number, mark in enumerate(marks, start=1):
        place = min(100.0, 100 * mark.seconds / seconds)
        across = f"{place:.2f}%"
        yield el("line", x1=across, x2=across, y1=TOP - 4, y2=TOP + HEIGHT, class_="mark")
        if place - written >= MARK_WIDTH:
            written = place
            anchor = "start" if place < 2 else "end" if place > 98 else "middle"
            yield el("text", str(number), x=across, y=TOP - 7, text_anchor=anchor, class_="number")


def _coloured(lines: Sequence[Line]) -> Iterator[tuple[str, Line]]:
    """Each line with its class: the second eight have the first eight's colours, and are dotted."""
    number = 0
    for line in lines:
        if line.is_limit:
            yield "limit", line
            continue
        yield f"c{number % COLOURS}{' dotted' if number >= COLOURS else ''}", line
        number += 1


def _path(line: Line, colour: str, seconds: float, top: float) -> Markup:
    """One path; it is lifted at each gap. A point alone is a dot: a stroke of no length with round ends."""
    steps: list[str] = []
    drawing, begun = False, 0
    for at, value, gap in line.points:
        if value is None or gap:
            if begun == 1:
                steps.append("h0")
            drawing = False
        if value is None:
            continue
        x, y = round(WIDE * min(1.0, max(0.0, at / seconds))), HEIGHT * (1 - min(1.0, value / top))
        steps.append(f"{'L' if drawing else 'M'}{x} {y:.1f}".replace(".0", ""))
        begun = begun + 1 if drawing else 1
        drawing = True
    if begun == 1:
        steps.append("h0")
    return el("path", d="".join(steps), class_=f"line {colour}", vector_effect="non-scaling-stroke")


def _legend(lines: Sequence[Line]) -> Markup:
    def swatch(colour: str) -> Markup:
        stroke = el("line", x1="1", x2="21", y1="5", y2="5", class_=f"line {colour}")
        return el("svg", stroke, width="22", height="10", aria_hidden="true")

    return el("ul", *(el("li", swatch(colour), " ", line.name) for colour, line in _coloured(lines)), class_="legend")


def _figures(chart: Chart, lines: Sequence[Line]) -> Markup:
    """The chart as a table, for whoever cannot see it."""
    rows = [el("tr", el("th", line.name, scope="row"), *_cells(chart, line)) for line in lines]
    heads = [el("th", word, scope="col") for word in ("", "least", "mean", "most", "last")]
    table = el("table", el("thead", el("tr", *heads)), el("tbody", *rows))
    return el("details", el("summary", "Figures"), el("div", table, class_="wide"))


def _cells(chart: Chart, line: Line) -> Iterator[Markup]:
    for _, value in _extremes(chart, line):
        yield el("td", value)


def all_of(charts: Sequence[Chart], seconds: float, marks: Sequence[Mark]) -> Markup:
    """The charts for which there is anything to draw."""
    return join(*(draw(chart, seconds, marks) for chart in charts if any(line.values for line in chart.lines)))

"""The page: summary, advice, time lines, nodes and GPUs, and what its trail says."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from jobtrail.adapters.job_html import tables
from jobtrail.adapters.job_html.charts import all_of
from jobtrail.adapters.job_html.lines import charts_of
from jobtrail.adapters.job_html.markup import Markup, el, join
from jobtrail.domain.advice_words import clock
from jobtrail.domain.job_report import JobReport, Note
from jobtrail.domain.job_report_timeline import Timeline
from jobtrail.domain.job_report_words import Figure, figures

# Read when the package is loaded, so that no event loop ever waits for a file.
_STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_OWN_POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"
POLICY = f"{_OWN_POLICY}; frame-ancestors 'none'"
_LEVELS = {"problem": "Problem", "warning": "Warning", "hint": "Hint"}


def render(report: JobReport, timeline: Timeline, made_at: datetime) -> str:
    """The page, complete; well-formed as XML too. Times on it are UTC."""
    title = f"{report.job_id} in {report.cluster_name}"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_OWN_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"Job report: {title}"),
        Markup(f"<style>{_STYLE}</style>"),
    )
    main = el(
        "main",
        _heading(report),
        _summary(report),
        _advice(report),
        _timelines(timeline, report),
        tables.nodes(report),
        tables.gpus(report),
        tables.events(timeline.marks, report.start_time),
        _footer(report, made_at),
    )
    return f"<!DOCTYPE html>\n{el('html', head, el('body', main), lang='en')}\n"


def moment(value: datetime | None) -> str:
    """A time to the second."""
    return "not known" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _heading(report: JobReport) -> Markup:
    state = (report.verdict or report.state).replace("_", " ")
    level = _STATE_LEVELS.get(report.verdict or report.state, "plain")
    return el(
        "header",
        el("p", "Job report", class_="kind"),
        el("h1", report.job_id, " ", el("span", state, class_=f"state {level}")),
        el("p", report.job_name, class_="name") if report.job_name else None,
        el("p", report.sentence, class_="sentence"),
        el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in _about(report)), class_="about"),
    )


_STATE_LEVELS = {
    "completed": "good", "failed": "bad", "timeout": "bad", "out_of_memory": "bad", "node_fail": "bad",
    "killed_by_signal": "bad", "cancelled": "odd", "preempted": "odd", "requeued": "odd", "running": "busy",
}  # fmt: skip


def _about(report: JobReport) -> Iterator[tuple[str, str]]:
    yield "Run", f"{report.run} in cluster {report.cluster_name}"
    if report.array_job_id is not None:
        task = "not known" if report.array_task_id is None else str(report.array_task_id)
        yield "Array", f"task {task} of {report.array_job_id}"
    yield "User", " · ".join(part for part in (report.user_name, report.account) if part) or "not known"
    yield "Partition", report.partition or "not known"
    count = len(report.node_names)
    shown = ", ".join(report.node_names[:6]) + (f" and {count - 6} more" if count > 6 else "")
    yield ("Nodes" if count > 1 else "Node"), shown or "not known"
    yield "Started", moment(report.start_time) + (" or before" if report.start_inferred else "")
    ended = moment(report.end_time) + (" at the latest" if report.end_inferred else "")
    yield "Ended", ended if report.is_over else "not yet"
    if report.other_runs:
        yield "Other runs", ", ".join(f"{run} in {cluster}" for cluster, run in report.other_runs[:10])


def _summary(report: JobReport) -> Markup:
    tiles = [_tile(figure) for figure in figures(report)]
    return el("section", el("h2", "What it used", id="used"), el("div", *tiles, class_="tiles"), aria_labelledby="used")


def _tile(figure: Figure) -> Markup:
    bar = None if figure.ratio is None else _bar(figure.ratio)
    known = el("p", figure.value, class_="value unknown" if figure.value == "not known" else "value")
    return el("div", el("h3", figure.label), known, bar, *(el("p", said) for said in figure.details), class_="tile")


def _bar(ratio: float) -> Markup:
    full = min(1.0, max(0.0, ratio))
    return el(
        "svg",
        el("rect", width="100%", height="8", rx="4", class_="rail"),
        el("rect", width=f"{100 * full:.1f}%", height="8", rx="4", class_="fill"),
        width="100%",
        height="8",
        class_="bar",
        aria_hidden="true",
    )


def _advice(report: JobReport) -> Markup:
    advice = report.advice
    notes = [_note(note) for note in advice.notes]
    withheld = el("p", advice.withheld, class_="withheld") if advice.withheld else None
    nothing = el("p", "Nothing to remark on.", class_="withheld") if not notes and not advice.withheld else None
    return el(
        "section", el("h2", "What to do", id="advice"), *notes, withheld, nothing, aria_labelledby="advice"
    )  # fmt: skip


def _note(note: Note) -> Markup:
    lines = el("pre", el("code", Markup("\n".join(join(line) for line in note.changes)))) if note.changes else None
    word = el("strong", _LEVELS[note.level], class_="level")
    return el("div", el("p", word, " ", note.text), lines, class_=f"note {note.level}")


def _timelines(timeline: Timeline, report: JobReport) -> Markup:
    charts = list(charts_of(timeline))
    if timeline.is_empty:
        why = (
            "No samples of this run are stored: it ended before the first was taken, or they are kept no longer."
            if report.start_time is not None
            else "The run has not started."
        )
        drawn = el("p", why, class_="withheld")
    else:
        drawn = join(_scope(timeline), el("div", all_of(charts, timeline.seconds, timeline.marks), class_="charts"))
    return el("section", el("h2", "Over time", id="time"), drawn, aria_labelledby="time")


def _scope(timeline: Timeline) -> Markup:
    parts = [f"From its start, over {clock(timeline.seconds)}. A line breaks where nobody looked."]
    parts += _fewer("nodes", len(timeline.nodes), timeline.nodes_total)
    parts += _fewer("GPUs", len(timeline.gpus), timeline.gpus_total)
    if timeline.marks:
        parts.append("Numbered marks are the events below.")
    return el("p", " ".join(parts), class_="about")


def _fewer(kind: str, shown: int, total: int) -> Sequence[str]:
    return (
        () if shown >= total or not shown else (f"{shown} of {total} {kind} are drawn: the most and the least busy.",)
    )


def _footer(report: JobReport, made_at: datetime) -> Markup:
    return el(
        "footer",
        el("p", f"Jobtrail, {moment(made_at)}. Job {report.job_id} run {report.run}, cluster {report.cluster_name}."),
    )

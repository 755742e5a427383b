"""The tables of the page: nodes, GPUs, events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from jobtrail.adapters.job_html.markup import Markup, el
from jobtrail.domain.job_report import GpuLine, JobReport, NodeLine
from jobtrail.domain.job_report_timeline import Mark
from jobtrail.domain.job_report_words import errors, joules, share, size, span

MOST_ROWS = 256
_NODES = ("node", "CPU", "CPU time", "peak memory", "of the limit", "GPUs busy", "energy", "covered")
_GPUS = ("node", "GPU", "model", "busy", "unused", "peak memory", "energy", "")
_EVENTS = ("", "after", "when (UTC)", "what", "by", "node")


def nodes(report: JobReport) -> Markup | None:
    """A row for each node of a run of several."""
    if not report.nodes:
        return None
    said = [sentence for sentence in report.uneven if sentence.startswith("most uneven node")]
    return _section("Nodes", _NODES, (_node(line) for line in report.nodes), len(report.nodes), said)


def _node(line: NodeLine) -> tuple[str, ...]:
    if not line.reported:
        return (line.node, *("not known",) * 6, "no report")
    return (
        line.node,
        share(line.cpu_ratio),
        span(line.cpu_seconds),
        size(line.memory_peak_bytes),
        share(line.memory_ratio),
        share(line.gpu_busy_ratio),
        joules(line.joules),
        share(line.coverage_ratio),
    )


def gpus(report: JobReport) -> Markup | None:
    """A row for each GPU, also for one that no process was ever on."""
    if not report.gpu_lines:
        return None
    said = [sentence for sentence in report.uneven if sentence.startswith("most uneven GPU")]
    return _section("GPUs", _GPUS, (_gpu(line) for line in report.gpu_lines), len(report.gpu_lines), said)


def _gpu(line: GpuLine) -> tuple[str, ...]:
    remarks = [] if line.found else ["not found on the node"]
    remarks += [errors(line.errors)] if line.errors else []
    remarks += [line.mismatch] if line.mismatch else []
    of = "" if line.memory_total_bytes is None else f" of {size(line.memory_total_bytes)}"
    return (
        line.node,
        line.gpu_id,
        line.name or "not known",
        share(line.busy_ratio),
        f"{span(line.unused_seconds)} ({share(line.unused_ratio)})" if line.unused_ratio is not None else "not known",
        f"{size(line.memory_peak_bytes)}{of}",
        joules(line.joules),
        "; ".join(remarks),
    )


def events(marks: Sequence[Mark], start: datetime | None) -> Markup | None:
    """The marks of the time lines, by their numbers."""
    if not marks or start is None:
        return None
    begin = start.astimezone(UTC)
    rows = (
        (
            str(number),
            span(mark.seconds),
            (begin + timedelta(seconds=mark.seconds)).strftime("%Y-%m-%d %H:%M:%S"),
            mark.what,
            mark.by or "",
            mark.node or "",
        )
        for number, mark in enumerate(marks, start=1)
    )
    return _section("Events", _EVENTS, rows, len(marks), ())


def _section(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], count: int, said: Sequence[str]
) -> Markup:
    """A table that can be scrolled sideways where it is too wide."""
    key = title.lower()
    shown = [row for _, row in zip(range(MOST_ROWS), rows, strict=False)]
    body = [el("tr", el("th", row[0], scope="row"), *(el("td", cell) for cell in row[1:])) for row in shown]
    table = el("table", el("thead", el("tr", *(el("th", name, scope="col") for name in columns))), el("tbody", *body))
    rest = el("p", f"{count - MOST_ROWS} more are left out.", class_="about") if count > MOST_ROWS else None
    return el(
        "section",
        el("h2", title, id=key),
        *(el("p", f"{sentence[0].upper()}{sentence[1:]}.", class_="about") for sentence in said),
        el("div", table, class_="wide", role="region", tabindex="0", aria_labelledby=key),
        rest,
        aria_labelledby=key,
    )

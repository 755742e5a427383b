"""A report on a terminal: the sentence, a bar for each share, advice, and tables of nodes and GPUs.

Colours only stress what the words say. Where the terminal takes no UTF-8, bars are of `#` and text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jobtrail.cli.output import clean, moment
from jobtrail.domain.job_report import GpuLine, JobReport, NodeLine, Note
from jobtrail.domain.job_report_words import Figure, errors, figures, joules, share, size, span

BAR_CELLS = 20
NARROW_BAR_CELLS = 12
NARROW = 100
MOST_ROWS = 64
MOST_OTHER_RUNS = 4
_LEVELS = {"problem": ("Problem", "bold red"), "warning": ("Warning", "bold yellow"), "hint": ("Hint", "bold cyan")}
_NODES = ("node", "CPU", "CPU time", "peak memory", "of limit", "GPUs", "energy", "covered")
_GPUS = ("node", "GPU", "busy", "unused", "peak memory", "energy", "")


def print_report(out: Console, report: JobReport) -> None:
    """All of it."""
    plain = out.options.ascii_only
    for part in _parts(report, narrow=out.width < NARROW, plain=plain):
        out.print(part)


def _parts(report: JobReport, *, narrow: bool, plain: bool) -> Iterator[RenderableType]:
    yield _text(report.sentence, plain, style="bold")
    yield from (_text(line, plain, style="dim") for line in _about(report))
    yield ""
    yield _figures(list(figures(report)), narrow=narrow, plain=plain)
    yield from _tables(report, plain=plain)
    for note in report.advice.notes:
        yield ""
        yield _note(note, plain)
    if report.advice.withheld:
        yield ""
        yield _text(report.advice.withheld, plain, style="dim")


def _text(text: str, plain: bool, *, style: str = "") -> Text:
    made: Text = clean(text.encode("ascii", "backslashreplace").decode() if plain else text)
    made.stylize(style)
    return made


def _about(report: JobReport) -> Iterator[str]:
    name = f" ({report.job_name})" if report.job_name else ""
    task = f", task {report.array_task_id} of {report.array_job_id}" if report.array_job_id else ""
    yield f"{report.job_id}{name} run {report.run}{task}, cluster {report.cluster_name}"
    who = report.user_name or "user not known"
    account = f", account {report.account}" if report.account else ""
    partition = f", partition {report.partition}" if report.partition else ""
    count = len(report.node_names)
    rest = f" and {count - 4} more" if count > 4 else ""
    where = f" on {', '.join(report.node_names[:4])}{rest}" if count else ""
    yield f"{who}{account}{partition}{where}"
    end = moment(report.end_time) + (" (inferred)" if report.end_inferred else "") if report.is_over else "not yet"
    begin = moment(report.start_time) + (" or before" if report.start_inferred else "")
    yield f"started {begin}, ended {end}"
    if report.other_runs:
        others = ", ".join(f"run {run} in cluster {cluster}" for cluster, run in report.other_runs[:MOST_OTHER_RUNS])
        more = len(report.other_runs) - MOST_OTHER_RUNS
        yield f"of the same id also {others}{f' and {more} more' if more > 0 else ''}: see --run and --cluster"


def _figures(shown: Sequence[Figure], *, narrow: bool, plain: bool) -> Table:
    cells = NARROW_BAR_CELLS if narrow else BAR_CELLS
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, width=cells)
    grid.add_column()
    for figure in shown:
        label, value = _text(figure.label, plain), _text(figure.value, plain, style="bold")
        details = _text("; ".join(figure.details), plain)
        said = Text.assemble(value, "  ", details) if figure.details else value
        grid.add_row(label, _bar(figure.ratio, cells, plain=plain), said)
    return grid


def _bar(ratio: float | None, cells: int, *, plain: bool) -> Text:
    """Full cells for the share, and at least one where there is any at all."""
    if ratio is None:
        return Text("")
    full = min(cells, max(round(cells * ratio), 1 if ratio > 0 else 0))
    on, off = ("#", ".") if plain else ("█", "░")
    return Text.assemble((on * full, "cyan"), (off * (cells - full), "dim"))


def _note(note: Note, plain: bool) -> RenderableType:
    word, style = _LEVELS[note.level]
    line = Text.assemble((f"{word}: ", style), _text(note.text, plain))
    changes = [Padding(_text(change, plain, style="green"), (0, 0, 0, 4), expand=False) for change in note.changes]
    return Group(line, *changes)


def _tables(report: JobReport, *, plain: bool) -> Iterator[RenderableType]:
    nodes = ("node", _NODES, [_node(line) for line in report.nodes])
    gpus = ("GPU", _GPUS, [_gpu(line) for line in report.gpu_lines])
    for kind, columns, rows in (nodes, gpus):
        if not rows:
            continue
        yield ""
        yield _table(columns, rows[:MOST_ROWS], plain)
        if len(rows) > MOST_ROWS:
            yield f"{len(rows) - MOST_ROWS} more; all with --json"
        yield from (_text(said, plain) for said in report.uneven if said.startswith(f"most uneven {kind}"))


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]], plain: bool) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(_text(cell, plain) for cell in row))
    return made


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


def _gpu(line: GpuLine) -> tuple[str, ...]:
    remarks = [] if line.found else ["not found on the node"]
    remarks += [errors(line.errors)] if line.errors else []
    remarks += ["may be another job's too"] if line.mismatch else []
    of = "" if line.memory_total_bytes is None else f" of {size(line.memory_total_bytes)}"
    unused = "not known" if line.unused_seconds is None else f"{span(line.unused_seconds)}"
    return (
        line.node,
        line.gpu_id,
        share(line.busy_ratio),
        unused,
        f"{size(line.memory_peak_bytes)}{of}",
        joules(line.joules),
        "; ".join(remarks),
    )

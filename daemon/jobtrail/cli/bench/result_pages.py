"""How benchmark runs are shown to people. Every colour stands beside the word that says the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.table import Table

from jobtrail.cli.bench.outcome import number, quantity
from jobtrail.cli.output import UNKNOWN, clean, duration, moment, table
from jobtrail.domain.phrases import counted

Row = dict[str, Any]

SHORT = 8  # characters of a uid that the commands take
WIDE_COLUMNS = 150
STYLES = MappingProxyType(
    {
        "ok": "green", "better": "green", "improvement": "green", "suspect_improvement": "green",
        "worse": "red", "failed": "red", "regression": "red", "invalid": "yellow", "suspect": "yellow",
    }
)  # fmt: skip


def percent(ratio: float | None) -> str:
    """A change with its sign."""
    return UNKNOWN if ratio is None else f"{ratio * 100:+.1f} %"


def when(text: str | None) -> str:
    """A time as the answer has it, in local time."""
    return UNKNOWN if text is None else moment(datetime.fromisoformat(text))


RUN_COLUMNS: Mapping[str, Callable[[Row], str]] = MappingProxyType(
    {
        "run": lambda run: run["run_uid"][:SHORT],
        "recipe": lambda run: run["recipe"] or UNKNOWN,
        "model": lambda run: run["model"] or UNKNOWN,
        "status": lambda run: run["status"],
        "verdict": lambda run: run["verdict"] or UNKNOWN,
        "token/s": lambda run: number(run["output_tokens_per_second"]),
        "first token": lambda run: quantity(run["ttft_p50_seconds"], "s"),
        "per token": lambda run: quantity(run["tpot_p50_seconds"], "s"),
        "token/J": lambda run: number(run["output_tokens_per_joule"]),
        "hardware": lambda run: run["hardware"],
        "tool": lambda run: _with_version(run),  # noqa: PLW0108 - defined below
        "job": lambda run: run["job_id"] or UNKNOWN,
        "user": lambda run: run["user_name"] or UNKNOWN,
        "began": lambda run: when(run["started_at"]),
    }
)
NARROW = ("run", "recipe", "status", "verdict", "token/s", "first token", "per token", "job", "began")


def print_runs(out: Console, runs: list[Row]) -> None:
    """A table of rows of the summary."""
    if not runs:
        out.print("no runs match")
        return
    shown = tuple(RUN_COLUMNS) if out.width >= WIDE_COLUMNS else NARROW
    out.print(_coloured(shown, [[RUN_COLUMNS[name](run) for name in shown] for run in runs]))


def print_leaderboard(out: Console, board: Row) -> None:
    """The ranking, with which way is better."""
    runs = board["runs"]
    if not runs:
        out.print("no valid run has this number")
        return
    better = f"{runs[0]['direction']} is better"
    out.print(clean(f"{board['metric']} {board['stat']}, {better}"))
    columns = ("rank", "value", "recipe", "model", "hardware", "gpu", "tool", "user", "run", "began")
    rows = [
        [
            str(run["rank"]), quantity(run["value"], run["unit"]), run["recipe"] or UNKNOWN, run["model"] or UNKNOWN,
            run["hardware"], _gpus(run), _with_version(run), run["user_name"] or UNKNOWN, run["run_uid"][:SHORT],
            when(run["started_at"]),
        ]
        for run in runs
    ]  # fmt: skip
    out.print(table("", columns, rows))


def print_comparison(out: Console, found: Row) -> None:
    """Both runs, what differs in what they ran, and each number both have."""
    for name, side in (("A", "one"), ("B", "other")):
        out.print(clean(f"{name}  {_headline(found[side])}, {when(found[side]['started_at'])}"))
    for name, (before, after) in found["differences"].items():
        out.print(clean(f"   {name}: {before or UNKNOWN} → {after or UNKNOWN}"), style="yellow")
    if found["comparable"]:
        out.print("   the same recipe, model, hardware and tool", style="dim")
    out.print()
    columns = ("metric", "stat", "A", "B", "change", "judgement", "significance")
    rows = [
        [
            one["metric"], one["stat"], quantity(one["one"], one["unit"]), quantity(one["other"], one["unit"]),
            percent(one["relative_change"]), one["judgement"] or UNKNOWN, _significance(one),
        ]
        for one in found["metrics"]
    ]  # fmt: skip
    if not rows:
        out.print("they have no number in common")
        return
    out.print(_coloured(columns, rows, is_dim=lambda cells: cells[-1].startswith("within")))


def _significance(one: Row) -> str:
    if one["significant"] is None:
        return "noise unknown"
    least = f" (from {percent(one['detectable']).lstrip('+')})" if one["detectable"] is not None else ""
    return f"more than noise{least}" if one["significant"] else f"within noise{least}"


def print_run(out: Console, run: Row) -> None:
    """One run: what and where, how it went, then numbers, energy, verdicts and decisions."""
    out.print(clean(_headline(run)))
    out.print()
    for name, value, style in _facts(run):
        out.print(clean(f"{name:<12}{value}"), style=style)
    for title, made in (
        ("numbers", _numbers(run)), ("energy", _energy(run)), ("against earlier runs", _verdicts(run)),
    ):  # fmt: skip
        if made is not None:
            out.print(f"\n{title}")
            out.print(made)
    if run["energy_invalid_reason"]:
        out.print(clean(f"energy: {run['energy_invalid_reason']}"), style="yellow")
    for one in run["decisions"]:
        why = f": {one['reason']}" if one["reason"] else ""
        out.print(clean(f"{when(one['decided_at'])} {one['decided_by']} decided to {one['decision']} it{why}"))
    for note in run["notes"]:
        out.print(clean(note), style="dim")


def _facts(run: Row) -> Iterator[tuple[str, str, str | None]]:
    why = f": {run['invalid_reason']}" if run["invalid_reason"] else ""
    yield "status", f"{run['status']}{why}", STYLES.get(run["status"])
    if run["verdict"]:
        yield "verdict", run["verdict"], STYLES.get(run["verdict"])
    if run["pinned"] or run["accepted"]:
        words = [word for word in ("pinned", "accepted") if run[word]]
        yield "reference", ", ".join(words), None
    yield "when", f"{when(run['started_at'])}, {duration(run['duration_seconds'])} in {_repeats(run)}", None
    yield "where", ", ".join(_where(run)), None
    for link in run["links"]:
        yield "job", _link(link), STYLES["suspect"] if link["link_state"] == "conflict" else None
    if run["open_reason"]:
        yield "awaited", run["open_reason"], None
    yield "user", _user(run), None
    if run["recipe"]:
        version = f" {run['recipe_version']}" if run["recipe_version"] else ""
        yield "recipe", f"{run['recipe']}{version}, sha256 {run['recipe_sha256'][:12]}", None
    details = run.get("details", {})
    if details.get("parameters"):
        yield "parameters", ", ".join(f"{name}={value}" for name, value in details["parameters"].items()), None
    if details.get("argv"):
        yield "command", " ".join(details["argv"]), None


def _repeats(run: Row) -> str:
    count = len(run["repeats"])
    return "1 repeat" if count == 1 else f"{count} repeats"


def _where(run: Row) -> Iterator[str]:
    yield run["cluster_name"]
    if node := run.get("details", {}).get("node"):
        yield f"reported on {node}"
    yield _gpus(run)
    if run["driver_version"]:
        yield f"driver {run['driver_version']}"
    if run["cpu_model"]:
        cpus = f" ({counted(run['cpu_count'], 'CPU')})" if run["cpu_count"] else ""
        yield f"{run['cpu_model']}{cpus}"
    yield f"fingerprint {run['hardware']}"


def _gpus(run: Row) -> str:
    if not run["gpu_count"]:  # what was brought in says nothing of its machine, and 0 is not known of it
        return "no GPU seen" if run["cpu_model"] or run["cpu_count"] else "hardware not known"
    profile = f" {run['mig_profile']}" if run["mig_profile"] else ""
    return f"{run['gpu_count']} x {run['gpu_model'] or 'GPU'}{profile}"


def _link(link: Row) -> str:
    number_of_run = f" run {link['run']}" if link["run"] else ""
    why = f", {link['reason']}" if link["reason"] else ""
    return f"{link['job_id']}{number_of_run} ({link['role']}): {link['link_state']}, by {link['link_source']}{why}"


def _user(run: Row) -> str:
    user, reporter = run["user_name"] or UNKNOWN, run["reported_by"] or UNKNOWN
    return user if user == reporter else f"{user}, reported by {reporter}"


def _headline(run: Row) -> str:
    return f"{run['run_uid']}  {run['recipe'] or run['mode']} · {run['model'] or UNKNOWN} · {_with_version(run)}"


def _with_version(run: Row) -> str:
    return " ".join(filter(None, (run["tool"], run["tool_version"]))) or UNKNOWN


def _numbers(run: Row) -> Table | None:
    """Each number of the run with those of its repeats."""
    repeats = [{(one["metric"], one["stat"]): one["value"] for one in repeat["metrics"]} for repeat in run["repeats"]]
    rows = [
        [
            one["metric"], one["stat"], quantity(one["value"], one["unit"]),
            "  ".join(quantity(values.get((one["metric"], one["stat"])), one["unit"]) for values in repeats),
        ]
        for one in run["metrics"]
    ]  # fmt: skip
    return table("", ("metric", "stat", "value", "each repeat"), rows) if rows else None


def _energy(run: Row) -> Table | None:
    windows = {"bench": "benchmark", "job": "whole job"}
    rows = [
        [
            windows.get(one["time_window"], one["time_window"]), one["domain"], f"{number(one['joules'])} J",
            f"{one['coverage'] * 100:.0f} %", one["method"],
        ]
        for one in run["energies"]
    ]  # fmt: skip
    return table("", ("over", "component", "energy", "of the time", "method"), rows) if rows else None


def _verdicts(run: Row) -> Table | None:
    rows = [
        [
            one["metric"], one["stat"], one["verdict"] + (" (advisory)" if one["advisory"] else ""),
            percent(one["relative_change"]), str(one["baseline_n"]), percent(one["min_detectable"]).lstrip("+"),
            one["confirmed_by"] or UNKNOWN, percent(one["reference_change"]),
        ]
        for one in run["verdicts"]
    ]  # fmt: skip
    columns = (
        "metric", "stat", "verdict", "change", "runs", "seen from", "confirmed by", "against the pinned run"
    )  # fmt: skip
    return _coloured(columns, rows) if rows else None


def _coloured(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, is_dim: Callable[[Sequence[str]], bool] | None = None
) -> Table:
    """A table with judging words in their colours; rows that `is_dim` picks stay pale."""
    made = table("", columns, [])
    for cells in rows:
        pale = is_dim is not None and is_dim(cells)
        made.add_row(*(_word(cell, coloured=not pale) for cell in cells), style="dim" if pale else None)
    return made


def _word(cell: str, *, coloured: bool) -> Any:
    text = clean(cell)
    if coloured and (style := STYLES.get(cell.partition(" ")[0])) is not None:
        text.stylize(style)
    return text

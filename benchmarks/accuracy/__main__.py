"""`python -m benchmarks.accuracy [--json] [--write] [--without-task-epilog] [--without-sacct] [--only SECONDS]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import msgspec

from benchmarks.accuracy.cluster import PLANS, Sources, run
from benchmarks.accuracy.rows import markdown, summarise
from benchmarks.marks import Marks, NoMarks, rewrite

DOCUMENT = Path(__file__).parents[2] / "docs" / "accuracy.md"


def main() -> None:
    """Measure, print the table, and with --write put it into docs/accuracy.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print every job and every row as JSON")
    parser.add_argument("--write", action="store_true", help="replace the table of these sources in docs/accuracy.md")
    parser.add_argument("--without-task-epilog", action="store_true", help="do not install task_epilog.sh")
    parser.add_argument("--without-sacct", action="store_true", help="do not ask Slurm's accounting")
    parser.add_argument("--only", type=float, metavar="SECONDS", help="only the jobs of this length")
    chosen = parser.parse_args()
    sources = Sources(task_epilog=not chosen.without_task_epilog, sacct=not chosen.without_sacct)
    measured = run(sources, [plan for plan in PLANS if chosen.only in (None, plan.wall_seconds)])
    rows = [summarise(jobs) for jobs in measured]
    if chosen.json:
        json.dump({"rows": msgspec.to_builtins(rows), "jobs": msgspec.to_builtins(measured)}, sys.stdout, indent=1)
    else:
        sys.stdout.write(markdown(rows) + "\n")
        for row in rows:
            sys.stdout.write(f"{row.at_once} × {row.wall_seconds:g} s: {row.sources}\n")
    if chosen.write:
        _write(markdown(rows), name_of(sources))


def name_of(sources: Sources) -> str:
    """The name of the table in docs/accuracy.md."""
    if sources.task_epilog and sources.sacct:
        return "all"
    return (
        "-".join(name for name, on in (("task-epilog", sources.task_epilog), ("sacct", sources.sacct)) if on) or "hooks"
    )


def _write(table: str, name: str) -> None:
    around = Marks(f"<!-- table {name} -->\n", f"<!-- end of table {name} -->\n")
    try:
        rewrite(DOCUMENT, [(around, f"{table}\n")])
    except NoMarks as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()

"""Writes docs/logs.md: every line that the daemon logs of a fact, with its fields, as the program has them.

Usage: python -m scripts.list_log_lines [--check]     (`--check` writes nothing; 1 when the page is another)
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from pathlib import Path

from jobtrail.adapters.telemetry import audit, benchmarks, clocks, events, gpus, link, samples, slurm
from jobtrail.core import facts

PAGE = Path(__file__).parents[1] / "docs" / "logs.md"
HEAD = """\
# Log lines

The daemon logs to standard error, which systemd keeps: `journalctl -u jobtrail`. `logging.level` and `logging.format`
of [configuration.md](configuration.md) say how much, and whether as JSON. A line has its text (in JSON `event`), the
fields below, `level`, `logger` and `timestamp` (UTC). Most lines have a metric beside them ([metrics.md](metrics.md)),
so that nobody needs to watch logs; what to do about the bad ones is in [runbooks.md](runbooks.md). Some are `debug`
instead when they repeat themselves or are routine, and a few rise to `warning` by what they tell.

This page is made of the program by `python -m scripts.list_log_lines`.
"""


def told() -> list[tuple[int, str, type[facts.Fact]]]:
    """Level, text and fact of each line; the gravest first, then in the order of the program."""
    areas = (events, samples, slurm, gpus, benchmarks, audit, clocks, link)
    lines = [(level, text, fact) for area in areas for fact, (_, level, text) in area.HANDLERS.items()]
    return sorted(lines, key=lambda line: -line[0])


def page() -> str:
    """The text of docs/logs.md."""
    text, before = HEAD, None
    for level, line, fact in told():
        if level != before:
            text += f"\n## {logging.getLevelName(level).lower()}\n| line | fields | meaning |\n|---|---|---|\n"
        before = level
        fields = ", ".join(f"`{name}`" for name in fact.__struct_fields__)
        text += f"| {line} | {fields} | {_meaning(fact)} |\n"
    return text


def _meaning(fact: type[facts.Fact]) -> str:
    return re.sub(r"\s+", " ", inspect.getdoc(fact) or "").replace("|", "&#124;").replace("<", "&lt;")


def main(arguments: list[str]) -> int:
    """0 when the page was written or is as it should be."""
    made = page()
    if "--check" not in arguments:
        PAGE.write_text(made, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != made:
        print("docs/logs.md is not what the program says; run `python -m scripts.list_log_lines`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

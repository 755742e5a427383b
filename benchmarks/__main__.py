"""`python -m benchmarks [NAME…] [--json]`: every figure beside its reference.

`accuracy` and `questions` run only where named.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.figures import Figure, show

NAMES = ("sampling", "exposition", "acknowledgement", "hook", "database", "trail", "size", "gpus")
ON_REQUEST = ("accuracy", "questions")  # take minutes; the first needs root and Slurm's daemons


def main() -> None:
    """Measure what was named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"what to measure: {', '.join(NAMES)} (default: all of these), {', '.join(ON_REQUEST)}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    if unknown := sorted({*chosen.names} - {*NAMES, *ON_REQUEST}):
        parser.error(f"unknown: {', '.join(unknown)}; allowed: {', '.join((*NAMES, *ON_REQUEST))}")
    figures: list[Figure] = []
    for name in chosen.names or NAMES:
        sys.stderr.write(f"measuring {name} …\n")
        measured = importlib.import_module(f"benchmarks.{name}").measure()
        if not chosen.json:
            show(measured, as_json=False)
        figures += measured
    if chosen.json:
        show(figures, as_json=True)


if __name__ == "__main__":
    main()

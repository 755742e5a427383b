"""`python -m benchmarks.exposition [--json]`."""

import argparse

from benchmarks.exposition import measure
from benchmarks.figures import show

parser = argparse.ArgumentParser(prog="python -m benchmarks.exposition", description=measure.__doc__)
parser.add_argument("--json", action="store_true", help="print JSON")
show(measure(), as_json=parser.parse_args().json)

"""Simulated nodes against one server and one PostgreSQL: connecting, looking, jobs, samples, a storm, an outage.

Everything shares this machine: the load generator, the server and PostgreSQL. CPU times are of their processes alone;
rates and lags are those of all three on the cores there are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from pathlib import Path

from benchmarks.fleet import page
from benchmarks.fleet.crew import Crew
from benchmarks.fleet.phases import Fleet
from benchmarks.fleet.report import show
from benchmarks.fleet.site import raise_descriptors, site
from benchmarks.marks import PERFORMANCE, NoMarks, require

MOST_SECONDS_A_NODE = 0.05  # how long a phase may take for each node before it is given up


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="of the sustained load (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=60.0, help="events a second of the sustained load")
    parser.add_argument("--storm-seconds", type=float, default=2.0, help="in which every node has a prolog")
    parser.add_argument("--nodes-per-job", type=int, default=1, help="of the storm's jobs")
    parser.add_argument("--outage-minutes", type=float, default=10.0, help="whose events wait when it ends; 0: none")
    parser.add_argument("--jobs-per-node-hour", type=float, default=6.0, help="in the outage; three events each")
    parser.add_argument("--jobs-on-a-node", type=int, default=1, help="whose readings a node sends at a time; 0: none")
    parser.add_argument("--looks", type=int, default=1_000, help="nodes that look for the end of their chain; 0: none")
    parser.add_argument("--pool", type=int, default=8, help="database.pool_size of the server")
    parser.add_argument("--processes", type=int, default=2, help="of the load generator")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--write", action="store_true", help="and, from there, the tables of docs/performance.md")
    options = parser.parse_args()
    if options.write:
        if not options.json:
            parser.error("--write needs --json FILE: the tables are made of what is in it")
        try:  # rather than after minutes
            require(PERFORMANCE, page.marks_of(options.nodes))
        except NoMarks as error:
            parser.error(str(error))
    return options


async def _run(options: argparse.Namespace) -> dict[str, object]:
    allowed = raise_descriptors(3 * options.nodes + 2_000)
    begun = os.getloadavg()
    with site(nodes=options.nodes, pool=options.pool) as made:
        async with Crew(made, nodes=options.nodes, processes=options.processes) as crew:
            fleet = Fleet(made, crew, options, limit=60 + options.nodes * MOST_SECONDS_A_NODE)
            try:
                phases = await fleet.run()
            finally:
                fleet.close()
                if options.json:  # also what there is of a run that was ended
                    options.json.write_text(
                        json.dumps({"nodes": options.nodes, "phases": fleet.found}, indent=2) + "\n"
                    )
        log = (made.directory / "server.log").read_text(encoding="utf-8")
    return {
        "nodes": options.nodes,
        "options": {name: value for name, value in vars(options).items() if name not in ("json", "write")},
        "machine": {
            "cores": os.cpu_count(), "python": platform.python_version(), "descriptors": allowed,
            "load_before": begun, "load_after": os.getloadavg(),
        },
        "phases": phases,
        "server_log_lines": len(log.splitlines()),
        "server_log_sample": log.splitlines()[:3],
    }  # fmt: skip


def main() -> None:
    """Measure, show, and keep the results where asked."""
    options = _arguments()
    began = time.monotonic()
    found = asyncio.run(_run(options))
    found["seconds"] = round(time.monotonic() - began, 1)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
        sys.stderr.write(f"results are in {options.json}\n")
    if options.write:
        page.write([options.json])


if __name__ == "__main__":
    main()

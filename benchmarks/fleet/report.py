"""The results as a table."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

NAMES = {
    "connect": "all nodes connect at once, an event each", "idle": "nothing to say",
    "look_kept": "look, connection kept",
    "look_new": "look, new connection", "sustained": "jobs at the rate asked for", "samples": "one interval's samples",
    "storm": "a prolog on every node", "outage": "drain after the outage",
}  # fmt: skip


def show(found: dict[str, Any]) -> None:
    """Print it."""
    machine = found["machine"]
    table = Table("phase", "done", "s", "/s", "p50 s", "p99 s", "server ms", "PG ms", "server MiB",
                  "nodes on", "PG conn.",
                  box=None, pad_edge=False)  # fmt: skip
    for name, phase in found["phases"].items():
        if name not in NAMES:
            continue
        table.add_row(
            NAMES[name], str(phase["done"]), f"{phase['seconds']:.1f}", f"{phase['per_second']:.0f}",
            _seconds(phase["lag_p50"]), _seconds(phase["lag_p99"]), f"{phase['server_cpu_ms_each']:.2f}",
            f"{phase['postgres_cpu_ms_each']:.2f}", f"{phase['server_rss_mib']:.0f}", str(phase["nodes_connected"]),
            str(phase["postgres_connections"]),
        )  # fmt: skip
    console = Console(width=160)
    console.print(table)
    load = ", ".join(f"{one:.1f}" for one in machine["load_before"])
    console.print(
        f"{found['nodes']} nodes; server, PostgreSQL and load generator share {machine['cores']} cores, on which the "
        f"load was {load} before; {found['seconds']} s in all"
    )
    for name in ("check", "reference", "database"):
        sys.stdout.write(f"{name}: {found['phases'].get(name)}\n")
    sys.stdout.write(f"an idle node costs in a minute: {found['phases']['idle'].get('node_minute')}\n")


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

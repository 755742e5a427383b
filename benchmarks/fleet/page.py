"""Writes results of `python -m benchmarks.fleet --json FILE` into docs/performance.md: the tables for as many nodes.

Each FILE is of one whole run. The page has marks for each number of nodes; what is between them is written anew.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fleet import SAMPLE_SECONDS
from benchmarks.marks import PERFORMANCE, Marks, NoMarks, marks, rewrite

COMMAND = "python -m benchmarks.fleet.page"
# Of each phase: the option that asks for it, where one does, and how the table calls it.
TOLD = {
    "connect": (None, "all connect at once, an event each: {took}"),
    "sustained": ("rate", "jobs at {rate:g} events a second"),
    "samples": ("jobs_on_a_node", "a reading of each job, {jobs_on_a_node:g} a node, over {spread:g} s: {took}"),
    "storm": (None, "a prolog on every node in {storm_seconds:g} s: {took}"),
    "outage": ("outage_minutes", "database away for {away_seconds:.0f} s, events of {outage_minutes:g} minutes come up,"
               " {events_each:g} a node; drained after {took}"),
}  # fmt: skip
OPTIONS = ("rate", "jobs_on_a_node", "storm_seconds", "outage_minutes")  # that are named there
HEAD = ("what", "done", "sent away, a node", "lag p50", "p99", "server's CPU each", "PostgreSQL's CPU each")
AFTERWARDS = ("check", "reference", "database")  # what is among the phases and is none
TAKEN = ("done", "lag_p50", "lag_p99", "server_cpu_ms_each", "postgres_cpu_ms_each")


class Unusable(ValueError):
    """A file that no table can be made of; the message names it, and what it lacks."""


class Result:
    """What one run left. Whatever is asked of it and is not there raises Unusable."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Unusable(f"{file} is no JSON: {error}") from error
        self.nodes = int(self.number("nodes"))
        self.phases = [name for name, (option, _) in TOLD.items() if option is None or self.number("options", option)]

    def number(self, *keys: str | int) -> float:
        """The number under these keys, one in the other."""
        value, name = self._under(*keys), ".".join(map(str, keys))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unusable(f"{self._file}: {name} is {value!r}, where a number is to be")
        return value

    def most(self, name: str) -> float:
        """The highest of all phases, those that the table leaves out among them."""
        return max(self.number("phases", phase, name) for phase in self._under("phases") if phase not in AFTERWARDS)

    def told(self, phase: str) -> str:
        """What was done in a phase, with its figures."""
        said = {name: self.number("options", name) for name in OPTIONS}
        said |= {
            name: self.number("phases", phase, name) for name in ("away_seconds", "events_each") if phase == "outage"
        }
        took = _seconds(self.number("phases", phase, "seconds"))
        return TOLD[phase][1].format(**said, took=took, spread=SAMPLE_SECONDS)

    def sent_away(self, phase: str) -> float:
        """How often a server had no room, for each node. What never happened is not among the answers."""
        keys = ("phases", phase, "answers")
        return (self.number(*keys, "busy") if "busy" in self._under(*keys) else 0) / self.nodes

    def events(self) -> int:
        """How many events there were; the trail is to hold each of them once."""
        made, rows, different, *wrong = (
            int(self.number("phases", "check", name))
            for name in ("made", "rows", "different_ids", "conflicts", "broken_chains")
        )
        if (rows, different, *wrong) != (made, made, 0, 0):
            raise Unusable(f"{self._file}: by phases.check the trail does not hold what the nodes made")
        return made

    def _under(self, *keys: str | int) -> Any:
        value = self._content
        for place, key in enumerate(keys, 1):
            try:
                value = value[key]
            except (LookupError, TypeError) as error:
                name = ".".join(map(str, keys[:place]))
                raise Unusable(f"{self._file} has no {name}; it is to be of a whole run of benchmarks.fleet") from error
        return value


def marks_of(nodes: int) -> Marks:
    """Where the page has the tables for so many nodes."""
    return marks(f"fleet of {nodes}", command=COMMAND)


def tables(result: Result) -> str:
    """A heading, what each phase took, and what is of the whole run."""
    load, pool = result.number("machine", "load_before", 0), result.number("options", "pool")
    heading = f"{result.nodes:,} nodes, `database.pool_size` {pool:g}, load average {load:.1f} before:"
    whole = _table(("over the whole run", "figure"), _whole(result))
    return f"\n{heading}\n\n{_table(HEAD, _phases(result))}\n{whole}\n"


def write(files: Sequence[Path], page: Path = PERFORMANCE) -> None:
    """Put what files hold into a page. Raises Unusable, NoMarks or OSError, and leaves the page as it is."""
    made: dict[int, tuple[Path, str]] = {}
    for file in files:
        result = Result(file)
        if result.nodes in made:
            raise Unusable(f"{made[result.nodes][0]} and {file} are both of {result.nodes} nodes: give one of them")
        made[result.nodes] = file, tables(result)
    rewrite(page, [(marks_of(nodes), table) for nodes, (_, table) in made.items()])


def _phases(result: Result) -> Iterator[Sequence[str]]:
    for phase in result.phases:
        took = {name: result.number("phases", phase, name) for name in TAKEN}
        yield (
            result.told(phase),
            f"{took['done']:,}",
            f"{away:.1f} times" if (away := result.sent_away(phase)) else "never",
            _seconds(took["lag_p50"]),
            _seconds(took["lag_p99"]),
            f"{took['server_cpu_ms_each']:.1f} ms",
            f"{took['postgres_cpu_ms_each']:.1f} ms",
        )


def _whole(result: Result) -> Iterator[Sequence[str]]:
    cores = (result.number("phases", "connect", f"{what}_cores") for what in ("server", "postgres", "generator"))
    if "outage" in result.phases:
        half, most = (result.number("phases", "outage", f"node_drained_{share}") for share in ("p50", "p99"))
        yield "the database is back: half of the nodes have nothing left after", _seconds(half)
        yield "99 % of them after", _seconds(most)
    yield "cores used while all connect: server, PostgreSQL, load generator", ", ".join(f"{one:.2f}" for one in cores)
    yield "the server's memory, at most", f"{result.most('server_rss_mib'):,.0f} MiB"
    yield "its descriptors, at most", f"{result.most('server_descriptors'):,}"
    yield "connections to PostgreSQL, at most", f"{result.most('postgres_connections'):,}"
    if result.number("options", "looks"):
        idle = result.number("phases", "idle", "node_minute", "server_ms")
        yield "the server's CPU for a node with nothing to say, a minute", f"{idle:.1f} ms"
    yield "events in the trail, each once, in whole chains", f"{result.events():,}"
    plain = result.number("phases", "reference", "rows_per_second_1_a_transaction")
    yield "reference: the same rows put plainly into a table, one a transaction", f"{plain:,} rows/s"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    rule = "|---" * len(head) + "|"
    return "".join(f"{line}\n" for line in (_line(head), rule, *map(_line, rows)))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _seconds(value: float) -> str:
    if value < 0.1:
        return f"{1e3 * value:.0f} ms"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a result; one for each number of nodes")
    parser.add_argument("--page", type=Path, default=PERFORMANCE, metavar="FILE", help="instead of docs/performance.md")
    chosen = parser.parse_args()
    try:
        write(chosen.files, chosen.page)
    except (Unusable, NoMarks, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

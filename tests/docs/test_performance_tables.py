"""The tables of docs/performance.md that benchmarks write: the fleet's from kept results, and where they go."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks import questions
from benchmarks.fleet.page import HEAD, Result, Unusable, marks_of, tables, write
from benchmarks.marks import PERFORMANCE, Marks, NoMarks, marks, require, rewrite

REPOSITORY = Path(__file__).parents[2]
RUN = REPOSITORY / "tests" / "fixtures" / "fleet" / "1000-nodes.json"  # as `python -m benchmarks.fleet --json` wrote it
EXPECTED = """
1,000 nodes, `database.pool_size` 8, load average 0.9 before:

| what | done | sent away, a node | lag p50 | p99 | server's CPU each | PostgreSQL's CPU each |
|---|---|---|---|---|---|---|
| all connect at once, an event each: 8.0 s | 1,000 | 1.0 times | 4.0 s | 6.8 s | 4.4 ms | 2.0 ms |
| jobs at 60 events a second | 900 | never | 12 ms | 19 ms | 1.4 ms | 1.0 ms |
| a reading of each job, 1 a node, over 15 s: 15 s | 1,000 | never | 4 ms | 9 ms | 2.2 ms | 1.1 ms |
| a prolog on every node in 2 s: 5.0 s | 1,000 | 0.5 times | 0.6 s | 3.1 s | 2.9 ms | 2.9 ms |
| database away for 8 s, events of 10 minutes come up, 3 a node; drained after 8.7 s | 3,000 | 0.2 times | 14 s | 17 s \
| 1.4 ms | 1.1 ms |

| over the whole run | figure |
|---|---|
| the database is back: half of the nodes have nothing left after | 5.6 s |
| 99 % of them after | 8.4 s |
| cores used while all connect: server, PostgreSQL, load generator | 0.55, 0.25, 0.32 |
| the server's memory, at most | 133 MiB |
| its descriptors, at most | 1,022 |
| connections to PostgreSQL, at most | 9 |
| the server's CPU for a node with nothing to say, a minute | 0.5 ms |
| events in the trail, each once, in whole chains | 5,900 |
| reference: the same rows put plainly into a table, one a transaction | 6,310 rows/s |

"""
PAGE = "before\n{0.begin}an older table\n{0.end}between\n{1.begin}{1.end}after\n"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE.format(marks_of(1000), marks_of(10_000)))
    return path


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[Callable[[Any], object]], Path]:
    """The result with a change, as a file."""

    def make(change: Callable[[Any], object]) -> Path:
        content = json.loads(RUN.read_text())
        change(content)
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(content))
        return path

    return make


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "benchmarks.fleet.page", *map(str, arguments)]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)


def test_the_tables_say_what_the_result_holds() -> None:
    assert tables(Result(RUN)) == EXPECTED


def test_a_result_goes_between_the_marks_for_as_many_nodes(page: Path) -> None:
    done = command(RUN, "--page", page)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = marks_of(1000), marks_of(10_000)
    expected = f"before\n{first.begin}{EXPECTED}{first.end}between\n{second.begin}{second.end}after\n"
    assert page.read_text() == expected
    assert command(RUN, "--page", page).returncode == 0  # and over itself
    assert page.read_text() == expected


def test_phases_that_were_not_asked_for_are_left_out(changed: Any) -> None:
    def change(content: Any) -> None:
        content["options"] |= {"rate": 0, "jobs_on_a_node": 0, "outage_minutes": 0, "looks": 0}
        for phase in ("sustained", "samples", "outage", "look_kept", "look_new"):
            del content["phases"][phase]
        del content["phases"]["idle"]["node_minute"]

    text = tables(Result(changed(change)))
    assert [line for line in text.splitlines() if line.startswith("| a")] == [
        line for line in EXPECTED.splitlines() if line.startswith(("| all connect", "| a prolog"))
    ]
    assert "| jobs at" not in text
    assert "the database is back" not in text
    assert "nothing to say" not in text


MISSING: dict[str, Callable[[Any], object]] = {
    "options": lambda content: content.pop("options"),  # as in what is left of a run that was ended
    "nodes": lambda content: content.pop("nodes"),
    "machine.load_before.0": lambda content: content["machine"].update(load_before=[]),
    "phases.storm": lambda content: content["phases"].pop("storm"),
    "phases.connect.answers": lambda content: content["phases"]["connect"].pop("answers"),
    "phases.outage.node_drained_p99": lambda content: content["phases"]["outage"].pop("node_drained_p99"),
    "phases.look_new.server_rss_mib": lambda content: content["phases"]["look_new"].pop("server_rss_mib"),
    "phases.idle.node_minute": lambda content: content["phases"]["idle"].pop("node_minute"),
    "phases.check": lambda content: content["phases"].pop("check"),
}


@pytest.mark.parametrize("key", sorted(MISSING))
def test_what_a_result_lacks_is_named_with_the_file(page: Path, changed: Any, key: str) -> None:
    before = page.read_text()
    file = changed(MISSING[key])
    with pytest.raises(Unusable) as told:
        write([file], page)
    assert f"{file} has no {key};" in str(told.value)
    assert page.read_text() == before


def test_the_command_says_it_too(page: Path, changed: Any, tmp_path: Path) -> None:
    file = changed(MISSING["phases.check"])
    done = command(file, "--page", page)
    assert (done.returncode, f"error: {file} has no phases.check;" in done.stderr) == (2, True), done.stderr
    done = command(tmp_path / "nofile", "--page", page)
    assert (done.returncode, f"'{tmp_path}/nofile'" in done.stderr) == (2, True), done.stderr


def test_a_run_is_told_before_it_begins_that_it_cannot_be_written() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "daemon")}
    for arguments, words in (
        (("--write",), "--write needs --json FILE"),
        (("--write", "--json", "x", "--nodes", "77"), f"is to have the lines '{marks_of(77).begin.strip()}'"),
    ):
        argv = [sys.executable, "-m", "benchmarks.fleet", *arguments]
        done = subprocess.run(
            argv, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_what_is_no_figure_is_no_figure(changed: Any) -> None:
    file = changed(lambda content: content["phases"]["storm"].update(lag_p99=None))
    with pytest.raises(Unusable, match=r"phases\.storm\.lag_p99 is None, where a number is to be"):
        tables(Result(file))
    file.write_text("{")
    with pytest.raises(Unusable, match=rf"{file} is no JSON"):
        Result(file)


def test_a_run_whose_trail_is_not_whole_makes_no_table(changed: Any) -> None:
    file = changed(lambda content: content["phases"]["check"].update(rows=5899))
    with pytest.raises(Unusable, match="the trail does not hold what the nodes made"):
        tables(Result(file))


def test_two_results_for_one_table_are_refused(page: Path, changed: Any) -> None:
    before, file = page.read_text(), changed(lambda _: None)
    with pytest.raises(Unusable, match=rf"{RUN} and {file} are both of 1000 nodes"):
        write([RUN, file], page)
    assert page.read_text() == before


@pytest.mark.parametrize("text", ["", "{0.begin}", "{0.end}", "{0.end}{0.begin}", "{0.begin}{0.end}{0.begin}{0.end}"])
def test_a_page_without_the_marks_stays_as_it_is(tmp_path: Path, text: str) -> None:
    page, here, other = tmp_path / "page.md", marks("here", command="x"), Marks("<other>\n", "</other>\n")
    before = f"{other.begin}{other.end}{text.format(here)}"
    page.write_text(before)
    with pytest.raises(NoMarks, match=f"{page} is to have the lines '{here.begin.strip()}'"):
        rewrite(page, [(other, "a table\n"), (here, "another\n")])
    assert page.read_text() == before


@pytest.mark.parametrize("nodes", [1000, 10_000])
def test_the_page_has_the_fleets_tables_between_marks(nodes: int) -> None:
    around = marks_of(nodes)
    require(PERFORMANCE, around)
    table = PERFORMANCE.read_text().partition(around.begin)[2].partition(around.end)[0]
    assert f"\n{nodes:,} nodes, `database.pool_size` " in table
    assert f"| {' | '.join(HEAD)} |" in table


def test_the_page_has_a_place_for_the_questions() -> None:
    require(PERFORMANCE, questions.MARKS)

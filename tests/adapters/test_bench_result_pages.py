"""Pages of benchmark results: words for what colours say, units, and nothing that a hostile name could do."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from jobtrail.cli.bench import result_pages
from jobtrail.cli.output import UNKNOWN

CODES = re.compile(r"\x1b\[([0-9;]*)m")
GREEN, RED, YELLOW, DIM = "32", "31", "33", "2"
RUN: dict[str, Any] = {
    "run_uid": "6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21", "recipe": "chat", "recipe_version": None,
    "recipe_sha256": "a" * 64, "mode": "serve", "tool": "vllm", "tool_version": None, "model": "evil\x1b]0;x\x07\n",
    "status": "ok", "invalid_reason": None, "verdict": "regression", "output_tokens_per_second": None,
    "ttft_p50_seconds": 1.5, "tpot_p50_seconds": 0.02, "output_tokens_per_joule": None, "hardware": "ab090e16",
    "job_id": None, "user_name": None, "reported_by": "alice", "started_at": "2026-11-21T08:00:00Z",
    "duration_seconds": 30.0, "repeats": [], "metrics": [], "energies": [], "verdicts": [], "decisions": [],
    "links": [], "notes": ["half of it is missing"], "energy_invalid_reason": None, "open_reason": None,
    "pinned": True, "accepted": False, "cluster_name": "lab", "gpu_count": 0, "gpu_model": None, "mig_profile": None,
    "driver_version": None, "cpu_model": None, "cpu_count": None, "details": {},
}  # fmt: skip


def page(show: Any, value: Any, *, width: int = 220, colour: bool = False) -> str:
    out = io.StringIO()
    colours = "standard" if colour else None
    show(Console(file=out, width=width, force_terminal=colour, color_system=colours, highlight=False), value)
    return out.getvalue()


def compared(**fields: Any) -> dict[str, Any]:
    return {
        "metric": "time_to_first_token", "stat": "p50", "unit": "s", "one": 0.1, "other": 0.2, "relative_change": 1.0,
        "judgement": "worse", "significant": True, "detectable": 0.048, **fields,
    }  # fmt: skip


def comparison(*metrics: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"one": RUN, "other": RUN, "comparable": True, "differences": {}, "metrics": list(metrics), **fields}


@pytest.mark.parametrize(
    ("fields", "words", "colour"),
    [
        ({}, ["100 ms", "200 ms", "+100.0 %", "worse", "more than noise (from 4.8 %)"], RED),
        ({"judgement": "better", "other": 0.05, "relative_change": -0.5}, ["50 ms", "-50.0 %", "better"], GREEN),
        ({"significant": False}, ["worse", "within noise (from 4.8 %)"], DIM),
        ({"significant": None, "detectable": None}, ["worse", "noise unknown"], RED),
        ({"judgement": None, "relative_change": None, "one": 0}, ["0 ms", f"  {UNKNOWN}  "], None),
    ],
)
def test_a_comparison_reads_without_its_colours(fields: dict[str, Any], words: list[str], colour: str | None) -> None:
    coloured = page(result_pages.print_comparison, comparison(compared(**fields)), colour=True)
    line = next(line for line in coloured.splitlines() if "time_to_first_token" in line)
    for word in words:
        assert word in CODES.sub("", line)
    codes = {code for found in CODES.findall(line) for code in found.split(";")} & {GREEN, RED, YELLOW, DIM}
    assert codes == ({colour} if colour else set())
    assert "\x1b" not in page(result_pages.print_comparison, comparison(compared(**fields)))


def test_what_differs_between_two_runs_stands_above_their_numbers() -> None:
    shown = page(
        result_pages.print_comparison,
        comparison(comparable=False, differences={"tool": ["vllm 0.9", None], "gpu": [None, "H100"]}),
    )
    assert "tool: vllm 0.9 → -" in shown
    assert "gpu: - → H100" in shown
    assert "they have no number in common" in shown
    assert "the same recipe" not in shown


def test_a_hostile_name_cannot_write_to_the_terminal() -> None:
    board = {
        "metric": "m",
        "stat": "p50",
        "runs": [{**RUN, "rank": 1, "value": 2.0, "unit": "s", "direction": "lower"}],
    }
    for show, value in (
        (result_pages.print_runs, [RUN]), (result_pages.print_run, RUN), (result_pages.print_leaderboard, board),
        (result_pages.print_comparison, comparison()),
    ):  # fmt: skip
        shown = page(show, value)
        assert "evil\\x1b]0;x\\x07\\n" in shown
        assert "\x1b" not in shown


@pytest.mark.parametrize(("width", "columns"), [(220, result_pages.RUN_COLUMNS), (100, result_pages.NARROW)])
def test_a_list_fits_its_terminal(width: int, columns: Any) -> None:
    heading = page(result_pages.print_runs, [RUN], width=width).splitlines()[0]
    assert [name for name in result_pages.RUN_COLUMNS if f"{name} " in f"{heading} "] == list(columns)


def test_what_is_unknown_is_no_zero() -> None:
    line = page(result_pages.print_runs, [RUN]).splitlines()[1].split("  ")
    cells = [cell.strip() for cell in line if cell.strip()]
    assert cells[:9] == [
        "6f1f2c3a", "chat", "evil\\x1b]0;x\\x07\\n", "ok", "regression", UNKNOWN, "1.5 s", "20 ms", UNKNOWN
    ]  # fmt: skip


def test_a_run_that_went_wrong_says_why_first() -> None:
    run = {
        **RUN, "status": "invalid", "invalid_reason": "no request succeeded", "verdict": None, "pinned": False,
        "energy_invalid_reason": "GPUs were throttled", "open_reason": "job slurm-7 is not known yet",
        "gpu_count": 2, "gpu_model": "A100", "mig_profile": "1g.5gb", "driver_version": "570.1", "cpu_model": "EPYC",
        "user_name": "bob",
        "links": [{"job_id": "slurm-7", "run": 2, "role": "server", "link_state": "conflict", "link_source": "path",
                   "reason": "the run began before the job"}],
        "energies": [{"time_window": "bench", "domain": "gpu", "joules": 1234.5, "coverage": 0.97, "method": "x"}],
        "decisions": [{"decided_at": "2026-11-21T09:00:00Z", "decided_by": "root", "decision": "accept",
                       "reason": "ok"}],
        "details": {"node": "n1", "argv": ["vllm", "bench"], "parameters": {"dtype": "bfloat16"}},
    }  # fmt: skip
    shown = page(result_pages.print_run, run)
    for words in (
        "status      invalid: no request succeeded", "slurm-7 run 2 (server): conflict, by path, the run began before",
        "2 x A100 1g.5gb, driver 570.1, EPYC", "user        bob, reported by alice", "awaited     job slurm-7",
        "1234 J", "97 %", "energy: GPUs were throttled", "root decided to accept it: ok", "parameters  dtype=bfloat16",
        "command     vllm bench", "reported on n1", "half of it is missing",
    ):  # fmt: skip
        assert words in shown
    assert "reference" not in shown
    assert "reference   pinned" in page(result_pages.print_run, RUN)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "hardware not known"),  # as of a result that was brought in
        ({"cpu_model": "EPYC"}, "no GPU seen"),
        ({"cpu_count": 4}, "no GPU seen"),
        ({"gpu_count": 2, "gpu_model": "H100"}, "2 x H100"),
    ],
)
def test_a_machine_of_which_nothing_is_known_is_not_one_without_gpus(fields: dict[str, Any], said: str) -> None:
    assert said in page(result_pages.print_run, {**RUN, **fields})

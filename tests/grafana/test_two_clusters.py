"""Two clusters with a node of the same name: what Prometheus's own promtool makes of the panels, of one and of both."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.grafana import macros
from tests.grafana.shipped import questions
from tests.requirements import require_tool

BOTH = ("east", "west")


def page(cluster: str) -> dict[str, str]:
    """What a node n1 tells whose job slurm-1 keeps one CPU busy in the east and two in the west."""
    times = 1 + BOTH.index(cluster)
    target = f'cluster="{cluster}",instance="{cluster}:8080",job="jobtrail",node="n1"'
    job = f'{target},job_id="slurm-1"'
    return {
        f"hpc_node_job_count{{{target}}}": f"{times}x20",
        f'hpc_node_state{{{target},state="idle",flags=""}}': "1x20",
        f"hpc_node_total_cpus{{{target}}}": f"{8 * times}x20",
        f'hpc_job_info{{{job},partition="p{times}"}}': "1x20",
        f"hpc_job_cpus_allocated{{{job}}}": f"{4 * times}x20",
        f'hpc_job_cpu_seconds_total{{{job},mode="user"}}': f"0+{60 * times}x20",
        f"jobtrail_clock_skew_seconds{{{target}}}": f"{times}x20",
    }


def sample(value: float, **labels: str) -> dict[str, Any]:
    written = ",".join(f'{name}="{text}"' for name, text in labels.items())
    return {"labels": f"{{{written}}}", "value": value}


SHARES = [sample(25, partition="p1"), sample(25, partition="p2")]
ASKED: list[tuple[str, str, str, tuple[str, ...], list[dict[str, Any]]]] = [
    ("cluster", "Nodes in service", "A", BOTH, [sample(2)]),
    ("cluster", "Nodes in service", "A", ("west",), [sample(1)]),
    ("cluster", "Nodes by state", "A", BOTH, [sample(2, state="idle")]),
    ("cluster", "CPUs: there, allocated, used", "A", BOTH, [sample(24)]),
    ("cluster", "CPUs: there, allocated, used", "C", ("west",), [sample(2)]),
    ("cluster", "CPU use by partition", "A", BOTH, SHARES),
    ("cluster", "CPU use by partition", "A", ("east",), SHARES[:1]),
    ("node", "Jobs", "A", ("east",), [sample(1)]),
    ("node", "CPU by job", "A", ("west",), [sample(2, job_id="slurm-1")]),
    ("job", "CPU used and held", "A", ("east",), [sample(1, node="n1")]),
    ("health", "Clocks", "A", ("east",), [sample(1, instance="east:8080")]),
    ("health", "Clocks", "A", BOTH, [sample(1, instance="east:8080"), sample(2, instance="west:8080")]),
]


@pytest.mark.parametrize(("dashboard", "panel", "letter", "clusters", "answer"), ASKED)
def test_equal_names_are_not_taken_for_one_node(
    tmp_path: Path, dashboard: str, panel: str, letter: str, clusters: tuple[str, ...], answer: list[dict[str, Any]]
) -> None:
    named = (dashboard, panel, letter)
    (asked,) = (one for one in questions("expr") if (one.dashboard, one.panel, one.target["refId"]) == named)
    chosen: dict[str, macros.Value] = {
        "cluster": clusters[0] if len(clusters) == 1 else clusters, "node": "n1", "job": "slurm-1",
    }  # fmt: skip
    told = {
        "expr": macros.promql(asked.target["expr"], chosen, rate_interval="5m"),
        "eval_time": "10m", "exp_samples": answer,
    }  # fmt: skip
    series = [{"series": name, "values": values} for one in BOTH for name, values in page(one).items()]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [told]}
    file = tmp_path / "panel.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}), encoding="utf-8")
    done = subprocess.run(
        [require_tool("promtool", "nobody works the panel out"), "test", "rules", str(file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr

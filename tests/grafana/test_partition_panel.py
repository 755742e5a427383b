"""CPU use by partition, worked out by Prometheus's own promtool from series that are written down here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.grafana import macros
from tests.grafana.shipped import questions
from tests.requirements import require_tool


def test_cpus_of_jobs_whose_use_is_not_known_are_not_idle(tmp_path: Path) -> None:
    """One job keeps both of its CPUs busy; of the other's six nobody knows."""
    (asked,) = (one for one in questions("expr") if one.panel == "CPU use by partition")
    expression = macros.promql(asked.target["expr"], {"cluster": ("lab", "other")}, rate_interval="5m")
    known, unknown = ('{cluster="lab",job_id="slurm-1",node="n1"', '{cluster="lab",job_id="slurm-2",node="n1"')
    series = {
        f"hpc_job_info{known},partition='gpu'}}": "1x20", f"hpc_job_info{unknown},partition='gpu'}}": "1x20",
        f"hpc_job_cpus_allocated{known}}}": "2x20", f"hpc_job_cpus_allocated{unknown}}}": "6x20",
        f"hpc_job_cpu_seconds_total{known},mode='user'}}": "0+60x20",
        f"hpc_job_cpu_seconds_total{known},mode='system'}}": "0+60x20",
    }  # fmt: skip
    told = {"expr": expression, "eval_time": "10m", "exp_samples": [{"labels": '{partition="gpu"}', "value": 100}]}
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [told],
    }
    file = tmp_path / "panel.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}), encoding="utf-8")
    done = subprocess.run(
        [require_tool("promtool", "nobody works the panel out"), "test", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

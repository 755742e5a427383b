"""`jobtrail doctor` on a node of a real cluster, with daemon and hooks: well, and with each part of Slurm gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon_process import REPOSITORY, Daemon
from tests.slurm import remains
from tests.slurm.cluster import SlurmCluster
from tests.slurm.hooks import HookFiles

HOOKS = REPOSITORY / "hooks" / "slurm"
SLURM = "hooks,hook-settings,slurm.conf,slurmctld,socket,cgroups,slurmrestd,sacct"


class Node:
    """The cluster's node, its daemon, and the doctor."""

    def __init__(self, cluster: SlurmCluster, daemon: Daemon, hook_conf: Path) -> None:
        self.cluster, self.daemon, self.hook_conf = cluster, daemon, hook_conf
        self.slurm_conf = remains.slurm_conf_of(cluster.directory)

    def doctor(self, only: str = SLURM) -> list[dict[str, str]]:
        """What it finds."""
        environment = self.daemon.environment() | self.cluster.env | {"JOBTRAIL_HOOK_CONF": str(self.hook_conf)}
        environment["PATH"] = f"{environment['PATH']}:{os.environ['PATH']}"
        done = subprocess.run(
            [sys.executable, "-m", "jobtrail", "doctor", "--json", "--only", only, "--deadline", "60"],
            env=environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        findings: list[dict[str, str]] = json.loads(done.stdout)["findings"]
        return findings

    def finding(self, check: str) -> dict[str, str]:
        """The one of a check."""
        (found,) = self.doctor(check)
        return found


@pytest.fixture(scope="module")
def node(slurm_packages: None) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="jobtrail-doctor-", dir="/tmp") as name:
        home = Path(name)
        home.chmod(0o755)
        hooks = home / "hooks"
        hooks.mkdir()
        for hook in ("prolog.sh", "epilog.sh"):
            shutil.copy(HOOKS / hook, hooks / hook)
        conf = home / "hook.conf"
        with SlurmCluster(
            prolog=hooks / "prolog.sh", epilog=hooks / "epilog.sh", hook_conf=conf, rest=True,
            extra_conf=["PrologEpilogTimeout=30"], **HookFiles(),
        ) as cluster:  # fmt: skip
            settings: dict[str, Any] = {
                "node": cluster.node_names[0], "gpu": {"vendors": "none"},
                "slurm": {
                    "rest_url": f"unix:{cluster.rest_socket}", "conf": str(remains.slurm_conf_of(cluster.directory))
                },
            }  # fmt: skip
            daemon = Daemon(home / "d", **settings)
            conf.write_text(f"JOBTRAIL_SOCKET={daemon.socket}\nJOBTRAIL_SPOOL={daemon.spool}\n")
            with daemon:
                assert cluster.wait_finished(cluster.submit("true")) == "COMPLETED"
                yield Node(cluster, daemon, conf)


def test_all_of_slurm_is_well(node: Node) -> None:
    """Hooks behind wrappers, the lines of slurm.conf, the controller's own view, cgroups, slurmrestd and sacct."""
    findings = node.doctor()
    assert {one["check"] for one in findings} == set(SLURM.split(","))
    assert [one for one in findings if one["level"] != "ok"] == []


def test_a_slurm_conf_that_slurmctld_has_not_read(node: Node) -> None:
    kept = node.slurm_conf.read_text()
    node.slurm_conf.write_text(kept.replace("PrologEpilogTimeout=30", "PrologEpilogTimeout=45"))
    try:
        found = node.finding("slurmctld")
        assert (found["level"], "another PrologEpilogTimeout than" in found["found"]) == ("warning", True), found
        assert "scontrol reconfigure" in found["remedy"]
    finally:
        node.slurm_conf.write_text(kept)


def test_a_controller_that_is_down(node: Node) -> None:
    node.cluster.stop_controller()
    try:
        levels = {one["check"]: one["level"] for one in node.doctor("slurmctld,slurmrestd,hooks,slurm.conf")}
        assert levels == {"slurmctld": "warning", "slurmrestd": "failure", "hooks": "ok", "slurm.conf": "ok"}
    finally:
        node.cluster.start_controller()


def test_slurmrestd_that_is_down(node: Node) -> None:
    node.cluster.stop_rest()
    try:
        assert node.finding("slurmrestd")["level"] == "failure"
    finally:
        node.cluster.start_rest()

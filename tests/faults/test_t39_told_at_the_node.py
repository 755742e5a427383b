"""T-39: a node of which a server takes no job says so itself, where its administrator looks."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from tests.acceptance.test_servers import port_of
from tests.daemon_process import Daemon, wait_until
from tests.faults.figures import Figures

QUIET = {"gpu": {"vendors": "none"}, "slurm": {"sacct": ""}, "scheduler": "local"}


def warnings(daemon: Daemon) -> list[str]:
    """What /health of a daemon warns of."""
    told: list[str] = json.loads(daemon.get("/health")[1])["warnings"]
    return told


@pytest.mark.fault("T-39")
def test_a_node_of_another_cluster_says_that_its_jobs_go_nowhere(place: Path, database: str, figures: Figures) -> None:
    """Its events arrive and are answered, so nothing else there looks wrong; its doctor says the same as /health."""
    token = place / "nodes.token"
    token.write_text(secrets.token_hex(16))
    token.chmod(0o600)
    server = Daemon(
        place / "server", roles=["server"], database={"url": database}, link={"clusters": ["lab"]},
        http={"node_token_file": str(token)}, **QUIET,
    )  # fmt: skip
    with server:
        link = {"token_file": str(token)}
        url = f"http://127.0.0.1:{port_of(server)}"
        node = Daemon(place / "node", roles=["node"], cluster="other", database={"url": url}, link=link, **QUIET)
        with node:
            assert warnings(node) == []
            node.cli("exec", "--", "true")
            wait_until(lambda: warnings(node) != [], "the node to say that its jobs go nowhere")
            (told,) = warnings(node)
            doctor = node.cli("doctor", "--only", "daemon", "--json").stdout
    figures.set(told=told.count("which is of cluster 'other', which is none of link.clusters"))
    assert "changed no job" in told
    assert "which is of cluster 'other', which is none of link.clusters" in told
    assert "changed no job" in doctor

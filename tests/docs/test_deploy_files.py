"""What deploy/ offers fits the program: the unit is valid and tight, the Slurm lines name hooks that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from jobtrail.adapters import benchmark_drop
from jobtrail.cli.doctor.daemon import SANDBOX
from jobtrail.config import Config
from tests.requirements import require_tool

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
UNIT = DEPLOY / "systemd" / "jobtrail.service"
SLURM = DEPLOY / "slurm"
INSTALLATION = (REPOSITORY / "docs" / "installation.md").read_text(encoding="utf-8")
SOCKET = DEPLOY / "systemd" / "jobtrail.socket"
SERVER_UNIT = DEPLOY / "systemd" / "jobtrail-server.service"
UNITS = sorted((DEPLOY / "systemd").iterdir())


def settings(text: str) -> dict[str, str]:
    """Key and value of each line; of a repeated key the last."""
    return dict(re.findall(r"^([A-Za-z]+)=(.*)$", text, re.M))


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(tmp_path: Path, unit: Path) -> None:
    """No misspelt or misplaced directive. The units lie beside each other, as they do when they are installed."""
    analyze = require_tool("systemd-analyze", "whether the unit file is valid stays unchecked")
    for path in UNITS:
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", path.read_text(encoding="utf-8"), flags=re.M)
        # Whether a machine has postgresql.service or the user is no question about our file.
        (tmp_path / path.name).write_text(text.replace("User=jobtrail", "User=daemon").replace("Group=jobtrail", ""))
    argv = [analyze, "verify", str(tmp_path / unit.name)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(("unit", "most"), [("jobtrail.service", 2.0), ("jobtrail-server.service", 1.5)])
def test_the_unit_leaves_little_open(unit: str, most: float) -> None:
    """systemd's own rating of the sandbox, from 0 to 10, stays where it is."""
    analyze = require_tool("systemd-analyze", "how far the unit's sandbox goes stays unchecked")
    argv = [analyze, "security", "--offline=true", "--no-pager", f"--threshold={most * 10:.0f}"]
    path = str(DEPLOY / "systemd" / unit)
    done = subprocess.run([*argv, path], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= most
    assert done.returncode == 0


def test_the_socket_unit_listens_where_the_daemon_would() -> None:
    """The daemon refuses another path; the owner and mode are those that it gives its own."""
    unit = settings(SOCKET.read_text(encoding="utf-8"))
    assert unit["ListenStream"] == Config().http.socket
    assert (unit["SocketUser"], unit["SocketMode"]) == ("root", "0660")
    service = UNIT.read_text(encoding="utf-8")
    assert f"Wants={SOCKET.name}" in service.splitlines()
    assert f"Also={SOCKET.name}" in service.splitlines()
    assert settings(service)["RuntimeDirectoryPreserve"] == "yes", "its directory outlives the daemon"


def test_the_servers_user_is_made() -> None:
    (line,) = [line for line in (DEPLOY / "sysusers" / "jobtrail.conf").read_text().splitlines() if line[0] != "#"]
    assert line.split()[:2] == ["u", settings(SERVER_UNIT.read_text(encoding="utf-8"))["User"]]
    sysusers = require_tool("systemd-sysusers", "whether systemd understands the file stays unchecked")
    argv = [sysusers, "--dry-run", str(DEPLOY / "sysusers" / "jobtrail.conf")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unit", ["jobtrail.service", "jobtrail-server.service"])
def test_the_unit_has_what_the_doctor_looks_for(unit: str) -> None:
    lines = (DEPLOY / "systemd" / unit).read_text(encoding="utf-8").splitlines()
    assert set(SANDBOX) <= set(lines)


def test_the_units_directories_are_those_of_the_settings() -> None:
    """The default paths lie in the only places the unit lets the daemon write to."""
    unit = settings(UNIT.read_text(encoding="utf-8"))
    config = Config()
    assert Path("/run", unit["RuntimeDirectory"]) == Path(config.http.socket).parent
    assert Path("/var/lib", unit["StateDirectory"]) == Path(config.spool.directory).parent
    assert unit["Type"] == "notify"


def test_the_slurm_lines_name_the_hooks_there_are() -> None:
    """Prolog and Epilog are the repository's hooks, at the place the installation puts them."""
    lines = settings((SLURM / "jobtrail.conf").read_text(encoding="utf-8"))
    for name in ("Prolog", "Epilog"):
        path = Path(lines[name])
        assert (REPOSITORY / "hooks" / "slurm" / path.name).is_file()
        assert path.name == f"{name.lower()}.sh"
        assert f"{name}={path}" in INSTALLATION
    assert lines["PrologFlags"] in INSTALLATION


def test_the_optional_slurm_lines_name_the_other_hooks() -> None:
    """Commented out, ready to be switched on: with the two above, every hook there is."""
    text = (SLURM / "jobtrail.conf").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^#?(\w+)=/etc/slurm/jobtrail/(\w+\.sh)$", text, re.M))
    assert sorted(lines.values()) == sorted(path.name for path in (REPOSITORY / "hooks" / "slurm").glob("*.sh"))
    for name, file in lines.items():
        assert name.lower() == file.removesuffix(".sh").replace("_", "")
        assert f"{name}=/etc/slurm/jobtrail/{file}" in INSTALLATION


def test_the_poke_socket_lies_beside_the_other() -> None:
    """In the directory that the unit makes and that all may enter; the hook's default is the daemon's."""
    unit = settings(UNIT.read_text(encoding="utf-8"))
    path = Path(Config().poke_socket)
    assert (path.parent, unit["RuntimeDirectoryMode"]) == (Path("/run", unit["RuntimeDirectory"]), "0755")
    assert f":-{path}}}" in (REPOSITORY / "hooks" / "slurm" / "task_epilog.sh").read_text(encoding="utf-8")


def test_the_drop_directory_is_made_where_the_unit_may_write() -> None:
    """With the mode that the daemon asks for, at the place that the settings' example and the installation name."""
    lines = re.findall(r"^d (\S+) +(\d{4}) root root -$", (DEPLOY / "tmpfiles" / "jobtrail.conf").read_text(), re.M)
    (parent, _), (directory, mode) = lines
    assert (Path(directory).parent, int(mode, 8)) == (Path(parent), benchmark_drop.MODE)
    assert settings(UNIT.read_text(encoding="utf-8"))["ReadWritePaths"] == f"-{parent}"
    assert directory in (DEPLOY / "jobtrail.yaml").read_text(encoding="utf-8")
    assert directory in INSTALLATION


def test_the_reader_of_gpus_lives_and_dies_beside_the_daemon() -> None:
    """systemd.service(5): by default one process killed for want of memory ends the unit, and a stop kills all."""
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    assert {"OOMPolicy=continue", "KillMode=mixed"} <= set(lines)
    after = {unit for line in lines if line.startswith("After=") for unit in line.removeprefix("After=").split()}
    assert {"systemd-modules-load.service", "nvidia-persistenced.service"} <= after
    assert "DeviceAllow=char-195 rw" in lines  # NVIDIA's major number, whether its driver is loaded by then or not

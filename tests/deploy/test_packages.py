"""The deb and the rpm: what is in them, and a Debian that has the deb installed, upgraded and removed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import jobtrail
from tests.daemon_process import REPOSITORY
from tests.deploy.building import BuildError, base_root, call, host_settings, mounted
from tests.requirements import require_root, require_tool, unmet

SUITE, PYTHON = "trixie", "3.13"
HOOKS = sorted(path.name for path in (REPOSITORY / "hooks/slurm").glob("*.sh"))
UNITS = sorted(path.name for path in (REPOSITORY / "deploy/systemd").iterdir())
SETTINGS = "/etc/jobtrail/jobtrail.yaml"


@pytest.fixture(scope="module")
def packages() -> dict[str, Path]:
    """Both, made for another Python than that of this machine may be."""
    done = subprocess.run(
        [REPOSITORY / "scripts/make-packages", PYTHON], env=host_environment(),
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    made = re.findall(r"created package: (\S+)", done.stdout)
    return {path.suffix.removeprefix("."): path for path in (REPOSITORY / name for name in made)}


def host_environment() -> dict[str, str]:
    """The Python that makes them, and how this machine reaches its registries."""
    wanted = ("http_proxy", "https_proxy", "no_proxy", "HOME", "SSL_CERT_FILE")
    kept = {key: value for key, value in os.environ.items() if key in wanted or key.startswith(("PIP_", "HTTP"))}
    return {**kept, "PATH": "/usr/bin:/bin", "PYTHON": sys.executable}


@pytest.fixture(scope="module")
def contents(packages: dict[str, Path]) -> dict[str, str]:
    """The deb's files: path and mode."""
    listed = call([require_tool("dpkg-deb", "what is in the deb"), "--contents", str(packages["deb"])])
    rows = [line.split(None, 5) for line in listed.splitlines()]
    assert {row[1] for row in rows} == {"root/root"}
    return {row[5].partition(" -> ")[0].removeprefix("."): row[0] for row in rows}


def test_the_deb_has_all_that_a_machine_needs(contents: dict[str, str]) -> None:
    """Program, hooks, units, migrations, recipes; nothing that was compiled for this machine's Python."""
    site = f"/usr/lib/jobtrail/lib/python{PYTHON}/site-packages"
    for unit in UNITS:
        assert contents[f"/usr/lib/systemd/system/{unit}"] == "-rw-r--r--"
    for hook in HOOKS:
        assert contents[f"/usr/share/jobtrail/hooks/slurm/{hook}"] == "-rwxr-xr-x"
        assert f"{site}/jobtrail/hooks/slurm/{hook}" in contents
    assert contents["/usr/bin/jobtrail"] == "-rwxr-xr-x"
    assert contents[SETTINGS] == "-rw-------"
    assert "/usr/lib/sysusers.d/jobtrail.conf" in contents
    assert any(path.startswith(f"{site}/jobtrail/migrations/sql/0001") for path in contents)
    assert any(path.startswith("/usr/share/jobtrail/recipes/") for path in contents)
    assert not [path for path in contents if "__pycache__" in path or path.endswith(".pyc")]
    compiled = [path for path in contents if re.search(r"\.cpython-\d+", path)]
    assert compiled
    assert {re.search(r"\.cpython-(\d+)", path)[1] for path in compiled} == {PYTHON.replace(".", "")}  # type: ignore[index]
    assert not [path for path in contents if re.search(r"site-packages/(hatchling|pip|pixeltable)", path)]
    world = [path for path, mode in contents.items() if mode[8] == "w" and mode[0] != "l"]
    assert world == []


def test_the_debs_fields(packages: dict[str, Path]) -> None:
    fields = call(["dpkg-deb", "--field", str(packages["deb"])])
    assert f"Version: {jobtrail.__version__}-1\n" in fields
    depends = re.search(r"^Depends: (.*)$", fields, re.M)
    assert depends is not None
    assert f"python{PYTHON}" in depends[1].split(", ")
    assert call(["dpkg-deb", "--info", str(packages["deb"]), "conffiles"]).split() == [SETTINGS]


def test_the_rpm_has_the_same_files(packages: dict[str, Path], contents: dict[str, str]) -> None:
    rpm = require_tool("rpm", "what is in the rpm")
    files = {path for path in contents if not path.endswith("/")}
    ask = [rpm, "--query", "--package", str(packages["rpm"]), "--nosignature"]
    listed = set(call([*ask, "--list"]).splitlines())
    assert files - listed == set()
    assert f"python(abi) = {PYTHON}" in call([*ask, "--requires"]).splitlines()
    assert call([*ask, "--configfiles"]).split() == [SETTINGS]
    assert "systemctl try-restart" in call([*ask, "--scripts"])


class Debian:
    """A Debian in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *argv: str, check: bool = True) -> str:
        """What a program in it printed."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        with mounted(self.root):
            return call(
                ["chroot", str(self.root), *argv], environment=environment | host_settings(self.root), check=check
            )

    def path(self, name: str) -> Path:
        """One of its files."""
        return self.root / name.lstrip("/")


@contextmanager
def debian(directory: Path) -> Iterator[Debian]:
    require_root("a package is installed in another root")
    require_tool("debootstrap", "whether the deb can be installed")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        unmet("mounts are not allowed here: the deb cannot be installed")
    try:
        base = base_root(SUITE)
    except BuildError as error:
        unmet(f"no Debian could be made to install the deb in: {error}")
    root = directory / "debian"
    call(["cp", "-a", "--reflink=auto", str(base), str(root)])
    try:
        yield Debian(root)
    finally:
        shutil.rmtree(root)


def test_it_is_installed_upgraded_and_removed(packages: dict[str, Path], tmp_path: Path) -> None:
    with debian(tmp_path) as system:
        shutil.copy(packages["deb"], system.path("/tmp/jobtrail.deb"))
        system.run("apt-get", "update", "-qq")
        system.run("apt-get", "install", "-qq", "--no-install-recommends", "/tmp/jobtrail.deb")
        assert system.run("jobtrail", "--version") == f"jobtrail {jobtrail.__version__}\n"
        assert "CREATE TABLE jobs" in system.run("jobtrail", "migrate", "--sql")
        assert not system.path("/etc/systemd/system/multi-user.target.wants/jobtrail.service").exists()

        hooks = "/usr/share/jobtrail/hooks/slurm"
        system.path("/etc/slurm").mkdir()
        shutil.copy(system.path("/usr/share/jobtrail/slurm/jobtrail.conf"), system.path("/etc/slurm/slurm.conf"))
        told = json.loads(system.run("jobtrail", "doctor", "--json", "--only", "settings,hooks,daemon", check=False))
        assert [(one["check"], one["level"]) for one in told["findings"]] == [
            ("settings", "ok"), ("hooks", "ok"), ("hooks", "ok"), ("daemon", "failure"),
        ], told  # fmt: skip
        assert told["findings"][1]["found"].startswith(f"Prolog: {hooks}/prolog.sh is that of")

        settings = system.path(SETTINGS)
        settings.write_text(settings.read_text() + "# ours\n")
        system.run("dpkg", "--install", "/tmp/jobtrail.deb")
        assert settings.read_text().endswith("# ours\n"), "an upgrade leaves the settings"
        assert settings.stat().st_mode & 0o777 == 0o600

        refused = system.run("dpkg", "--remove", "jobtrail", check=False)
        assert "/etc/slurm/slurm.conf still names hooks in /usr/share/jobtrail/hooks" in refused
        assert system.path(f"{hooks}/prolog.sh").exists(), "a prolog that is not there drains the node"
        system.path("/etc/slurm/slurm.conf").unlink()
        system.path("/var/lib/jobtrail").mkdir()
        system.run("dpkg", "--remove", "jobtrail")
        assert not system.path("/usr/lib/jobtrail").exists()
        assert settings.exists()
        purged = system.run("dpkg", "--purge", "jobtrail")
        assert "kept the records in /var/lib/jobtrail" in purged
        assert not settings.exists()

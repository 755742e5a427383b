"""install-node and install-server, tried in a Debian in a directory: what they change, and that twice is once."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.daemon_process import REPOSITORY
from tests.deploy.building import BuildError, base_root, call, host_settings, mounted
from tests.requirements import require_root, require_tool, unmet

NODE = REPOSITORY / "deploy/cluster/install-node"
SERVER = REPOSITORY / "deploy/cluster/install-server"
NOTHING = "nothing to do: all is as it should be\n"
BEYOND = ("--listen", "10.0.0.5", "--web-config", "/etc/jobtrail/web.yaml")


def install(program: Path, *arguments: str, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of the two."""
    argv = [str(program), *arguments, *(() if root is None else ("--root", str(root)))]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    if root is not None:
        environment |= host_settings(root)
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL)


def files_of(root: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of all that the programs may write."""
    places = [root / "etc", root / "opt/jobtrail/.installed-from", root / "var/lib/jobtrail"]
    found = {}
    for place in places:
        for path in [place, *sorted(place.rglob("*"))]:
            if path.is_file() and not path.is_symlink():
                found[str(path.relative_to(root))] = (path.stat().st_mode, path.read_bytes())
    return found


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A directory with what the programs look for in a system, and nothing that runs; enough for all but Jobtrail."""
    require_root("an installation is root's")
    for name in ("etc/systemd/system", "etc/slurm", "tmp", "var/lib"):
        (tmp_path / "root" / name).mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Debian with Python, as a node has it."""
    require_root("an installation is root's")
    require_tool("debootstrap", "the installation of a cluster")
    directory = tmp_path_factory.mktemp("node") / "root"
    try:
        call(["cp", "-a", str(base_root("trixie")), str(directory)])
        with mounted(directory):
            environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
            environment |= host_settings(directory)
            prefix = ["chroot", str(directory), "apt-get"]
            call([*prefix, "update"], environment=environment)
            call([*prefix, "install", "-y", "--no-install-recommends", "python3-venv", "ca-certificates"],
                 environment=environment)  # fmt: skip
    except BuildError as error:
        unmet(f"no Debian could be made to try the installation in: {error}")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the repository that nobody changes meanwhile: what it holds decides whether it is installed anew."""
    for name in ("daemon", "deploy", "hooks", "migrations", "recipes", "requirements"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "secrets"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def test_a_whole_node_is_installed_and_taken_away_again(debian: Path, clone: Path) -> None:
    before, program = files_of(debian), clone / "deploy/cluster/install-node"
    with mounted(debian):
        dry = install(program, "--dry-run", *BEYOND, root=debian)
        assert dry.returncode == 0, dry.stderr
        assert "would make the Python environment /opt/jobtrail" in dry.stdout
        assert "nothing was changed: this was a dry run" in dry.stdout
        assert files_of(debian) == before

        done = install(program, *BEYOND, root=debian)
        assert done.returncode == 0, done.stderr
        assert [line.replace("would ", "", 1) for line in dry.stdout.splitlines()][:-6] == done.stdout.splitlines()[:-5]
        version = call(["chroot", str(debian), "/opt/jobtrail/bin/jobtrail", "--version"])
        assert version.startswith("jobtrail ")
        settings = yaml.safe_load((debian / "etc/jobtrail/jobtrail.yaml").read_text())
        assert (settings["roles"], settings["http"]["host"]) == (["node"], "10.0.0.5")
        assert (settings["http"]["web_config_file"], settings["http"]["insecure"]) == ("/etc/jobtrail/web.yaml", False)
        assert (debian / "etc/jobtrail/jobtrail.yaml").stat().st_mode & 0o777 == 0o600

        once = files_of(debian)
        again = install(program, "--listen", "10.0.0.6", "--insecure", root=debian)
        assert again.returncode == 0, again.stderr
        assert again.stdout.endswith(NOTHING)
        assert files_of(debian) == once, "settings are never written over"

        gone = install(program, "--uninstall", "--purge", root=debian)
        assert gone.returncode == 0, gone.stderr
        left = {path for path in files_of(debian) if path not in before}
        assert left == set()
        assert not (debian / "opt/jobtrail").exists()


@pytest.mark.parametrize(
    ("held", "added"),
    [
        (
            "ClusterName=c\n",
            [
                "Prolog=/etc/slurm/jobtrail/prolog.sh", "Epilog=/etc/slurm/jobtrail/epilog.sh",
                "PrologFlags=Contain,Alloc", "PrologEpilogTimeout=30",
            ],
        ),
        (
            "ClusterName=c\nprolog=/site/prolog\nPrologFlags=X11,contain\nPROLOGEPILOGTIMEOUT=60\n",
            ["Prolog=/etc/slurm/jobtrail/prolog.sh", "Epilog=/etc/slurm/jobtrail/epilog.sh"],
        ),
        (
            "Prolog=/etc/slurm/jobtrail/prolog.sh\nEpilog=/etc/slurm/jobtrail/epilog.sh\nPrologFlags=Alloc\n"
            "PrologEpilogTimeout=30\n",
            [],
        ),
    ],
)  # fmt: skip
def test_slurm_conf_gets_what_is_missing_when_that_is_asked_for(bare: Path, held: str, added: list[str]) -> None:
    conf = bare / "etc/slurm/slurm.conf"
    conf.write_text(held)
    untouched = install(NODE, "--only", "hooks", root=bare)
    assert untouched.returncode == 0, untouched.stderr
    assert conf.read_text() == held
    assert "    Prolog=/etc/slurm/jobtrail/prolog.sh\n" in untouched.stdout
    done = install(NODE, "--only", "hooks", "--slurm-conf", "/etc/slurm/slurm.conf", root=bare)
    assert done.returncode == 0, done.stderr
    text = conf.read_text()
    assert text.startswith(held)
    assert [line for line in text[len(held) :].splitlines() if line and line[0] != "#"] == added
    kept = bare / "etc/slurm/slurm.conf.before-jobtrail"
    assert kept.read_text() == held if added else not kept.exists()
    again = install(NODE, "--only", "hooks", "--slurm-conf", "/etc/slurm/slurm.conf", root=bare)
    assert again.stdout == NOTHING
    assert conf.read_text() == text


def test_other_prolog_flags_are_left_and_told(bare: Path) -> None:
    (bare / "etc/slurm/slurm.conf").write_text("PrologFlags=X11\n")
    done = install(NODE, "--only", "hooks", "--slurm-conf", "/etc/slurm/slurm.conf", root=bare)
    assert "PrologFlags=X11 is there; Slurm takes one such line: add Contain,Alloc to it" in done.stderr
    assert (bare / "etc/slurm/slurm.conf").read_text().count("PrologFlags") == 1


def test_hooks_that_slurm_names_are_not_taken_away(bare: Path) -> None:
    """A prolog that is not there fails, and a failed prolog drains the node."""
    conf = bare / "etc/slurm/slurm.conf"
    conf.write_text("ClusterName=c\n")
    install(NODE, "--only", "hooks", "--slurm-conf", "/etc/slurm/slurm.conf", root=bare)
    refused = install(NODE, "--uninstall", root=bare)
    assert refused.returncode == 1
    assert "/etc/slurm/slurm.conf still names hooks in /etc/slurm/jobtrail" in refused.stderr
    assert (bare / "etc/slurm/jobtrail/prolog.sh").exists()
    conf.write_text("ClusterName=c\n# Prolog=/etc/slurm/jobtrail/prolog.sh\n")
    done = install(NODE, "--uninstall", root=bare)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (bare / "etc/slurm/jobtrail").exists()


def test_the_hooks_are_those_of_the_repository_and_a_changed_one_is_replaced(bare: Path) -> None:
    arguments = ("--only", "hooks", "--task-epilog", "--controller")
    install(NODE, *arguments, root=bare)
    there = bare / "etc/slurm/jobtrail"
    wanted = {path.name: path.read_bytes() for path in (REPOSITORY / "hooks/slurm").iterdir()}
    assert {path.name: path.read_bytes() for path in there.iterdir()} == wanted
    assert {path.stat().st_mode & 0o777 for path in there.iterdir()} == {0o755}
    (there / "prolog.sh").write_text("#!/bin/sh\n")
    done = install(NODE, *arguments, root=bare)
    assert "replace /etc/slurm/jobtrail/prolog.sh (755), which was of another release or changed" in done.stdout
    assert (there / "prolog.sh").read_bytes() == wanted["prolog.sh"]


def test_the_servers_settings(bare: Path) -> None:
    done = install(
        SERVER, "--only", "settings", "--database", "postgresql://jobtrail_node@db/jobtrail", "--slurmrestd",
        "unix:/run/slurmrestd/slurmrestd.socket", root=bare,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = yaml.safe_load((bare / "etc/jobtrail/jobtrail.yaml").read_text())
    assert settings["roles"] == ["server"]
    assert settings["database"]["url"] == "postgresql://jobtrail_node@db/jobtrail"
    assert settings["slurm"]["rest_url"] == "unix:/run/slurmrestd/slurmrestd.socket"


def test_settings_that_are_kept_or_missing_are_told(bare: Path) -> None:
    parts = ("--only", "settings")
    first = install(NODE, *parts, *BEYOND, root=bare)
    assert "/etc/jobtrail/web.yaml is not there: the daemon does not start without it" in first.stderr
    assert "set database.url" in first.stderr
    (bare / "etc/jobtrail/web.yaml").touch()

    second = install(SERVER, *parts, "--slurmrestd", "http://rest:6820", root=bare)
    assert second.stdout.endswith(NOTHING)
    assert "is there already and stays as it is" in second.stderr
    assert "does not name the role server; for a machine that is both, write `roles: [node, server]`" in second.stderr
    assert "database.url" not in second.stderr
    assert install(NODE, *parts, root=bare).stderr == ""

    (bare / "etc/jobtrail/jobtrail.yaml").unlink()
    assert install(NODE, *parts, *BEYOND, "--database", "https://s:8443", root=bare).stderr == ""


def test_the_unit_follows_the_prefix(bare: Path) -> None:
    done = install(NODE, "--only", "service", "--prefix", "/srv/jobtrail", root=bare)
    assert done.returncode == 0, done.stderr
    unit = (bare / "etc/systemd/system/jobtrail.service").read_text()
    assert "ExecStart=/srv/jobtrail/bin/jobtrail serve" in unit
    assert f"{bare} is no running system" in done.stderr


def test_a_server_on_a_node_is_not_taken_away_by_the_servers_program(bare: Path) -> None:
    install(NODE, "--only", "hooks", root=bare)
    done = install(SERVER, "--uninstall", root=bare)
    assert done.returncode == 1
    assert "use install-node --uninstall" in done.stderr


@pytest.mark.parametrize("program", [NODE, SERVER])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--frobnicate"], "unknown argument: --frobnicate"),
        (["--only", "everything"], "no such part: everything"),
        (["--listen"], "--listen needs a value"),
        (["--listen", "a b"], "--listen a b is no address"),
        (["--listen", "10.0.0.5"], "give --web-config FILE with TLS and users (docs/security.md), or --insecure"),
        (["--listen", "10.0.0.5", "--web-config", "web.yaml"], "--web-config web.yaml must be a path from the root on"),
        (
            ["--database", "mysql://x"],
            "--database must begin with postgresql://, or of a node with https:// of a server",
        ),
        (["--database", 'postgresql://x"y'], "--database holds a quote"),
        (["--purge"], "--purge goes with --uninstall"),
        (["--root", "here"], "--root here is not an absolute path"),
        (["--prefix", "/usr"], "--prefix /usr is not Jobtrail's own"),
    ],
)
def test_wrong_usage_is_told_and_changes_nothing(program: Path, arguments: list[str], told: str) -> None:
    if os.geteuid() != 0 and arguments[0] in {"--root", "--prefix"}:
        unmet("needs root: the check of root comes before")
    done = install(program, *arguments)
    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.parametrize("program", [NODE, SERVER])
def test_help_names_every_option(program: Path) -> None:
    done = install(program, "--help")
    assert done.returncode == 0
    taken = set(re.findall(r"(--[a-z-]+)(?: \||\))", program.read_text()))
    assert len(taken) >= 10
    for option in taken:
        assert f"  {option} " in done.stdout, option


def test_shellcheck_finds_nothing() -> None:
    shellcheck = require_tool("shellcheck", "whether the programs of deploy/ are clean")
    docker, scripts = REPOSITORY / "deploy/docker", REPOSITORY / "scripts"
    files = [NODE, SERVER, *docker.glob("*entrypoint"), docker / "make-secrets", docker / "postgres/10-logins.sh"]
    files += [scripts / "install-slurm", scripts / "make-slurm-root"]
    argv = [shellcheck, "-x", "-P", str(REPOSITORY), *map(str, files)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout

"""docs/quickstart.md: what it has people type is what the program, the repository and Slurm's lines are."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from scripts import list_options

from jobtrail.cli.commands import application
from jobtrail.config import load
from tests.requirements import require_tool

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs" / "quickstart.md").read_text(encoding="utf-8")
MAIN, PACKAGE = TEXT.split("\n## With the package")
COMMANDS, OF_PACKAGE = (
    [line for block in re.findall(r"^```sh\n(.*?)^```$", part, re.M | re.S) for line in block.splitlines()]
    for part in (MAIN, PACKAGE)
)
TREE: dict[str, Any] = {
    " ".join(path[1:]): one for path, one in list_options.commands(typer.main.get_command(application))
}
INSTALL_NODE = (REPOSITORY / "deploy" / "cluster" / "install-node").read_text(encoding="utf-8")


def lines_for(text: str) -> dict[str, str]:
    """Parameters of slurm.conf that are switched on."""
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.M))


def calls() -> list[list[str]]:
    """What stands behind each `jobtrail` that is typed, in blocks and in sentences."""
    typed = [*COMMANDS, *re.findall(r"`(jobtrail [^`\d][^`]*)`", TEXT)]
    found = []
    for line in typed:
        words = shlex.split(line)
        found += [words[place + 1 :] for place, word in enumerate(words) if word == "jobtrail"]
    return [words for words in found if words]  # `createdb jobtrail` and its like call nothing


def test_there_are_about_fifteen_and_each_is_numbered() -> None:
    assert len(COMMANDS) <= 17
    assert re.findall(r"^\*\*(\d+)\.\*\*", MAIN, re.M) == [str(number) for number in range(1, len(COMMANDS) + 1)]
    assert COMMANDS[-1] == "jobtrail doctor"


@pytest.mark.parametrize("words", calls(), ids=" ".join)
def test_each_call_is_one_that_the_program_has(words: list[str]) -> None:
    """The command, and each of its options."""
    known = [name for name in TREE if words[: len(name.split())] == name.split()]
    command = TREE[max(known, key=len)]
    is_group = hasattr(command, "list_commands")
    assert not is_group or words == ["--version"], f"no command: jobtrail {' '.join(words)}"
    options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= options


def test_the_calls_that_matter_are_there() -> None:
    """Else the test above would have nothing to look at."""
    typed = {" ".join(words) for words in calls()}
    assert {"migrate", "jobs show 1", "audit log 1", "doctor"} <= typed


def test_the_options_of_the_installation_are_its_own() -> None:
    (typed,) = [shlex.split(line) for line in COMMANDS if line.startswith("deploy/cluster/install-node")]
    for option in (word for word in typed if word.startswith("--")):
        assert re.search(rf"^#   {option} ", INSTALL_NODE, re.M), option


def test_each_file_of_the_repository_is_there() -> None:
    """Named by commands; and what the package has of them."""
    named = re.findall(r"(?<![\w/.])(?:deploy|hooks|scripts|docs)/[\w./-]+", TEXT)
    assert len(named) >= 2
    assert [path for path in named if not (REPOSITORY / path).is_file()] == []
    (shared,) = re.findall(r"/usr/share/jobtrail/(slurm/\S+\.conf)", PACKAGE)
    assert (REPOSITORY / "deploy" / shared).is_file()


def test_the_lines_of_slurm_are_those_of_the_repository() -> None:
    """In the block that is read, and in what the installation is shown to say."""
    wanted = lines_for((REPOSITORY / "deploy" / "slurm" / "jobtrail.conf").read_text(encoding="utf-8"))
    (block,) = re.findall(r"^```ini\n(.*?)^```$", TEXT, re.M | re.S)
    assert lines_for(block) == wanted
    (said,) = re.findall(r"^add to /etc/slurm/slurm.conf: (.*)$", TEXT, re.M)
    assert said.split() == [f"{name}={value}" for name, value in wanted.items()]


def test_the_settings_that_come_of_it_are_what_is_meant(tmp_path: Path) -> None:
    """The commands that change the settings, run on those that the package and the installation write."""
    settings = tmp_path / "jobtrail.yaml"
    shutil.copy(REPOSITORY / "deploy" / "jobtrail.yaml", settings)
    changes = [line for line in (*OF_PACKAGE, *COMMANDS) if line.startswith("sed -i ")]
    assert len(changes) == 2
    for line in changes:
        subprocess.run(shlex.split(line.replace("/etc/jobtrail/jobtrail.yaml", str(settings))), check=True)
    config = load(settings, {})
    (url,) = set(re.findall(r"postgresql://[^'\" ]+", TEXT))
    assert (config.roles, config.database.url) == (("node", "server"), url)
    drop_in = (REPOSITORY / "deploy" / "slurm" / "slurmrestd.conf").read_text(encoding="utf-8")
    assert config.slurm.rest_url == drop_in.split()[-1]
    assert f"ls {config.slurm.rest_url.removeprefix('unix:')}`" in TEXT


def test_systemd_takes_the_drop_in_of_slurmrestd(tmp_path: Path) -> None:
    """Over a unit that starts it as root."""
    analyze = require_tool("systemd-analyze", "whether the drop-in is valid stays unchecked")
    unit = tmp_path / "slurmrestd.service"
    unit.write_text("[Unit]\nDescription=x\n[Service]\nExecStart=/bin/false unix:/run/slurmrestd.socket\n")
    (tmp_path / "slurmrestd.service.d").mkdir()
    text = (REPOSITORY / "deploy" / "slurm" / "slurmrestd.conf").read_text(encoding="utf-8")
    assert "useradd --system slurmrestd" in COMMANDS
    assert "\nUser=slurmrestd\n" in text
    text = text.replace("/usr/sbin/slurmrestd", "/bin/true")
    (tmp_path / "slurmrestd.service.d" / "jobtrail.conf").write_text(text)
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")

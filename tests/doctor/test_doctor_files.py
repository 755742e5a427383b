"""Settings, hooks and Slurm's files: each thing that can be wrong with them is made wrong, and told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobtrail.cli.doctor.command import CHECKS
from tests.doctor.patient import HOOKS, RUN_SECONDS, Patient
from tests.fake_nvml import FakeDriver, library
from tests.requirements import require_root, require_tool

WELL = "settings,hook-settings,hooks,slurm.conf"


def test_all_is_well(patient: Patient) -> None:
    told = patient.doctor(WELL)
    assert {one["level"] for one in told.findings} == {"ok"}, told.findings
    assert {one["check"] for one in told.findings} == set(WELL.split(","))
    assert told.code == 0


def test_wrong_settings_are_named_and_nothing_else_is_looked_at(patient: Patient) -> None:
    patient.set(http={"prot": 80})
    told = patient.doctor()
    assert told.code == 2
    assert told.worst("`http.prot`: is not a setting") == "failure"


@pytest.mark.parametrize(
    ("mode", "settings", "text", "level"),
    [
        (0o666, {}, "may be written by others (mode 0666)", "failure"),
        (
            0o644,
            {"database": {"url": "postgresql://a:secret@db/x"}},
            "holds a password, and everybody may read",
            "failure",
        ),
        (0o644, {"slurm": {"token": "abc"}}, "holds a password, and everybody may read it", "failure"),
        (0o644, {"database": {"url": "postgresql://a@db/x"}}, "is valid", "ok"),
    ],
)
def test_the_settings_file_is_safe(
    patient: Patient, mode: int, settings: dict[str, dict[str, str]], text: str, level: str
) -> None:
    patient.set(**settings)
    patient.settings_file.chmod(mode)
    told = patient.doctor("settings")
    assert told.worst(text) == level
    assert "secret" not in told.printed
    assert told.code == (1 if level == "failure" else 0)


def test_a_server_that_bounds_no_node(patient: Patient) -> None:
    patient.set(roles=["server"], database={"url": "postgresql://db/x"})
    told = patient.doctor("settings")
    assert told.worst("link.clusters is empty: a node may name any cluster") == "warning"
    assert told.worst("link.controllers is empty: a node may speak as slurmctld's hooks") == "warning"
    patient.set(link={"clusters": ["lab"], "controllers": ["ctl[1-2]"]})
    assert patient.doctor("settings").levels("settings") == ["ok"]


def test_files_that_settings_name(patient: Patient) -> None:
    token, web = patient.directory / "read.token", patient.directory / "web.yaml"
    token.write_text("x" * 20)
    token.chmod(0o644)
    web.touch()
    web.chmod(0o622)
    patient.set(
        http={"read_token_file": str(token), "web_config_file": str(web), "write_token_file": "/nowhere/token"},
        audit={"anchor_file": "/nowhere/anchors"},
    )
    told = patient.doctor("settings")
    assert told.worst(f"http.read_token_file: everybody may read {token}") == "failure"
    assert told.worst(f"http.web_config_file: {web} may be written by others") == "failure"
    assert told.worst("http.write_token_file: there is no /nowhere/token") == "failure"
    assert told.worst("audit.anchor_file: there is no directory /nowhere") == "failure"


@pytest.mark.parametrize(
    ("line", "text", "level"),
    [
        ("JOBTRAIL_SOCKET=/run/other.sock", "the hooks use /run/other.sock, the daemon", "failure"),
        ("JOBTRAIL_SPOOL='/var/other' # of before", "the hooks use /var/other, the daemon", "failure"),
        ("JOBTRAIL_SOKCET=/run/x", "no hook knows JOBTRAIL_SOKCET", "warning"),
        ("JOBTRAIL_TIMEOUT=30", "JOBTRAIL_TIMEOUT=30 is not used", "warning"),
        ("JOBTRAIL_TIMEOUT=soon", "JOBTRAIL_TIMEOUT=soon is not used", "warning"),
    ],
)
def test_hook_settings_agree_with_the_daemons(patient: Patient, line: str, text: str, level: str) -> None:
    with patient.hook_conf.open("a") as file:
        file.write(f"{line}\n")
    assert patient.doctor("hook-settings").worst(text) == level


def test_without_a_hook_conf_the_hooks_have_their_defaults(patient: Patient) -> None:
    patient.hook_conf.unlink()
    told = patient.doctor("hook-settings")
    assert told.worst(f"the hooks use /run/jobtrail/hooks.sock, the daemon {patient.socket}") == "failure"
    assert told.worst(f"the hooks use /var/lib/jobtrail/spool, the daemon {patient.spool}") == "failure"


def test_a_hook_conf_that_others_write(patient: Patient) -> None:
    patient.hook_conf.chmod(0o666)
    assert patient.doctor("hook-settings").worst("may be written by others") == "failure"


def test_a_hook_that_slurm_conf_does_not_name(patient: Patient) -> None:
    patient.write_slurm_conf(without="Epilog")
    told = patient.doctor("hooks")
    assert told.worst("names no Epilog of Jobtrail's") == "failure"
    assert "Epilog=/etc/slurm/jobtrail/epilog.sh" in told.findings[-1]["remedy"]


def test_a_hook_of_somebody_elses_alone(patient: Patient) -> None:
    other = patient.directory / "site.sh"
    other.write_text("#!/bin/sh\n/usr/bin/logger began\n")
    patient.write_slurm_conf(Prolog=str(other))
    assert patient.doctor("hooks").worst(f"names no Prolog of Jobtrail's ({other} is another)") == "failure"


def test_a_hook_that_is_named_and_not_there(patient: Patient) -> None:
    (patient.hooks / "prolog.sh").unlink()
    assert patient.doctor("hooks").worst("prolog.sh is not there, and a failed one drains the node") == "failure"


def test_a_hook_that_is_not_executable(patient: Patient) -> None:
    (patient.hooks / "prolog.sh").chmod(0o644)
    assert patient.doctor("hooks").worst("is not executable, and a failed hook drains the node") == "failure"


def test_a_hook_that_others_write(patient: Patient) -> None:
    (patient.hooks / "epilog.sh").chmod(0o777)
    assert patient.doctor("hooks").worst("may be written by others (mode 0777)") == "failure"


def test_a_directory_of_hooks_that_others_write(patient: Patient) -> None:
    patient.hooks.chmod(0o777)
    told = patient.doctor("hooks")
    assert told.levels("hooks") == ["failure", "failure"]
    assert f"{patient.hooks}, from which Slurm runs it, may be written by others" in told.findings[0]["found"]


def test_a_hook_that_belongs_to_somebody(patient: Patient) -> None:
    require_root("a file is given to somebody")
    os.chown(patient.hooks / "epilog.sh", 12345, -1)
    assert patient.doctor("hooks").worst("belongs to uid 12345") == "failure"


def test_a_hook_of_another_release(patient: Patient) -> None:
    with (patient.hooks / "prolog.sh").open("a") as file:
        file.write("# of before\n")
    assert patient.doctor("hooks").worst("prolog.sh is not that of") == "warning"


def test_a_script_that_calls_the_hook_and_a_pattern_are_seen_through(patient: Patient) -> None:
    several = patient.directory / "prolog.d"
    several.mkdir()
    (several / "10-site").write_text("#!/bin/sh\ntrue\n")
    wrapper = several / "20-jobtrail"
    wrapper.write_text(f"#!/bin/sh\nJOBTRAIL_TIMEOUT=1 exec '{patient.hooks}/prolog.sh'\n")
    wrapper.chmod(0o755)
    patient.write_slurm_conf(Prolog=f"{several}/*")
    assert patient.doctor("hooks").levels("hooks") == ["ok", "ok"]
    wrapper.chmod(0o644)
    assert patient.doctor("hooks").worst(f"{wrapper} is not executable") == "failure"


def test_without_a_slurm_conf_nothing_is_claimed(patient: Patient) -> None:
    patient.slurm_conf.unlink()
    told = patient.doctor("hooks,slurm.conf")
    assert {one["level"] for one in told.findings} == {"not checked"}
    assert str(patient.slurm_conf) in told.findings[0]["found"]


@pytest.mark.parametrize(
    ("lines", "text", "level"),
    [
        ({"without": "PrologFlags"}, "without PrologFlags=Contain,Alloc", "warning"),
        ({"without": "PrologEpilogTimeout"}, "without PrologEpilogTimeout", "warning"),
        ({"PrologEpilogTimeout": "2"}, "PrologEpilogTimeout=2 is near the two seconds", "failure"),
        ({"ProctrackType": "proctrack/pgid"}, "with ProctrackType=proctrack/pgid jobs have no cgroups", "failure"),
        ({"TaskPlugin": "task/affinity"}, "without TaskPlugin=task/cgroup", "warning"),
        ({"without": "JobAcctGatherType"}, "without JobAcctGatherType", "warning"),
        ({"JobAcctGatherType": "jobacct_gather/none"}, "JobAcctGatherType=jobacct_gather/none is not known", "warning"),
        ({"SlurmUser": "slurmy"}, "SlurmUser is slurmy, and http.slurm_user slurm", "warning"),
    ],
)
def test_lines_of_slurm_conf(patient: Patient, lines: dict[str, str], text: str, level: str) -> None:
    patient.write_slurm_conf(**lines)  # type: ignore[arg-type]
    told = patient.doctor("slurm.conf")
    assert told.worst(text) == level
    assert len(told.findings) == 1


def test_an_included_file_counts(patient: Patient) -> None:
    patient.write_slurm_conf(without="PrologFlags")
    (patient.slurm_conf.parent / "more.conf").write_text("prologflags=alloc\n")
    with patient.slurm_conf.open("a") as file:
        file.write("Include more.conf\n")
    assert patient.doctor("slurm.conf").only()["level"] == "ok"


def test_gres_conf(patient: Patient) -> None:
    compiler = require_tool("gcc", "the fake driver is built with it")
    driver = FakeDriver(patient.directory, library(compiler), gpus=1)
    gres = patient.slurm_conf.with_name("gres.conf")
    patient.set(node="n1", gpu={"root": str(driver.root), "gres_conf": str(gres)})
    assert patient.doctor("gres.conf").worst("says nothing of the GPUs of n1") == "warning"
    gres.write_text("NodeName=n1 Name=gpu File=/dev/null\n")
    assert patient.doctor("gres.conf").only()["level"] == "ok"
    gres.write_text("Name=gpu File=/dev/nvidia77\nName=gpu File=/dev/null Colour=red\n")
    told = patient.doctor("gres.conf")
    assert told.worst("names /dev/nvidia77, which is no device here") == "failure"
    assert told.worst("unknown colour") == "warning"
    gres.write_text("Name=gpu File=/dev/nvidia[0-\n")
    assert patient.doctor("gres.conf").worst("which GPU a job holds stays unknown") == "failure"


def test_the_shipped_hooks_are_found() -> None:
    """In the source tree; in a package beside it (tests/deploy)."""
    from jobtrail.cli.doctor.slurm_files import shipped_hook

    assert shipped_hook("prolog.sh") == HOOKS / "prolog.sh"


def test_an_unknown_check_is_wrong_usage(patient: Patient) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobtrail", "doctor", "--only", "hooks,teeth"],
        env=patient.environment(), capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "there is no check teeth; there are settings, hook-settings" in done.stderr


def test_the_table_has_every_check_and_the_way_out(patient: Patient) -> None:
    patient.write_slurm_conf(without="PrologFlags")
    done = subprocess.run(
        [sys.executable, "-m", "jobtrail", "doctor", "--only", "slurm.conf"],
        env=patient.environment(), capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, "a warning alone is no failure"
    for word in ("slurm.conf", "WARNING", "without PrologFlags", "scontrol reconfigure", "1 warning"):
        assert word in done.stdout, done.stdout
    strict = patient.doctor("slurm.conf", "--strict")
    assert strict.code == 1


def test_the_page_tells_of_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    for check in CHECKS:
        assert f"| `{check}` |" in page, check

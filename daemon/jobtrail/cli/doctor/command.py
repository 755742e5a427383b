"""`jobtrail doctor`: the command itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

import jobtrail
from jobtrail import config as configuration
from jobtrail.cli import exit_codes
from jobtrail.cli.doctor import bounded, daemon, kernel, others, settings, slurm_files, spool
from jobtrail.cli.doctor.findings import Check, Finding, Place, Saying
from jobtrail.cli.output import clean, console, error_console, print_json, table
from jobtrail.domain.errors import ConfigError

# In the order of what rests on what; docs/doctor.md tells of each.
CHECKS: Mapping[str, Check] = {
    "settings": settings.check_settings,
    "hook-settings": settings.check_hook_settings,
    "hooks": slurm_files.check_hooks,
    "slurm.conf": slurm_files.check_slurm_conf,
    "slurmctld": others.check_slurmctld,
    "gres.conf": slurm_files.check_gres_conf,
    "socket": daemon.check_socket,
    "daemon": daemon.check_daemon,
    "limits": daemon.check_limits,
    "sandbox": daemon.check_sandbox,
    "spool": spool.check_spool,
    "cgroups": kernel.check_cgroups,
    "gpus": kernel.check_gpus,
    "energy": kernel.check_energy,
    "clock": kernel.check_clock,
    "database": others.check_database,
    "servers": others.check_servers,
    "slurmrestd": others.check_slurmrestd,
    "sacct": others.check_sacct,
}
MARKS = {"ok": "ok", "warning": "WARNING", "failure": "FAILURE", "not checked": "-"}
STYLES = {"ok": "green", "warning": "yellow", "failure": "bold red", "not checked": "dim"}


def run_doctor(
    context: typer.Context,
    only: Annotated[str, typer.Option(metavar="CHECK[,CHECK]", help="these checks alone")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="exit with 1 for warnings too")] = False,
    deadline: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="how long one check may take")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Check this node or server, and say how to mend what is wrong.

    Nothing is changed. Run it as root; as a user it looks at less, and says so. The daemon need not run.
    """
    wanted = _wanted(only)
    try:
        place = _place(context.obj)
    except ConfigError as error:
        wrong = Saying("settings").failure(str(error), "mend that setting; nothing else was checked")
        _show([wrong], as_json=as_json)
        raise typer.Exit(exit_codes.USAGE) from error
    findings = [one for found in bounded.run_all(wanted, place, seconds=deadline) for one in found]
    _show(findings, as_json=as_json)
    levels = {finding.level for finding in findings}
    if "failure" in levels or (strict and "warning" in levels):
        raise typer.Exit(exit_codes.FAILED)


def _wanted(only: str) -> dict[str, Check]:
    names = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in names if name not in CHECKS]:
        message = f"jobtrail doctor: there is no check {', '.join(unknown)}; there are {', '.join(CHECKS)}"
        error_console().print(message, style="red", markup=False)
        raise typer.Exit(exit_codes.USAGE)
    return {name: check for name, check in CHECKS.items() if not names or name in names}


def _place(named: Path | None) -> Place:
    """Raises ConfigError. Who may not read the default file gets the defaults, which name the usual places."""
    path = named or configuration.find_file(os.environ)
    is_root = os.geteuid() == 0
    by_name = named is not None or "JOBTRAIL_CONFIG" in os.environ
    if path is not None and not by_name and not os.access(path, os.R_OK):
        path = None
    loaded = configuration.load(path, os.environ)
    return Place(config=loaded, settings_file=path, environment=dict(os.environ), is_root=is_root)


def _show(findings: Sequence[Finding], *, as_json: bool) -> None:
    counts = {level: sum(finding.level == level for finding in findings) for level in MARKS}
    as_root = os.geteuid() == 0
    if as_json:
        told = {"version": jobtrail.__version__, "as_root": as_root, "counts": counts, "findings": findings}
        print_json(told)
        return
    made = table("", ("check", "", "found", "what to do"), ())
    for finding in findings:
        mark = clean(MARKS[finding.level])
        mark.stylize(STYLES[finding.level])
        made.add_row(clean(finding.check), mark, clean(finding.found), clean(finding.remedy))
    out = console()
    out.print(made)
    if not as_root:
        out.print("You are not root: what only root may see was not checked.", style="yellow")
    summary = ", ".join(f"{count} {level}" for level, count in counts.items() if count)
    out.print(summary or "nothing of this concerns this machine", markup=False)

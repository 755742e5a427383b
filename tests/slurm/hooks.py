"""The hooks of a test cluster: which there are, and the wrappers that give them their settings."""

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

PARAMETERS = {
    "prolog": "Prolog",
    "epilog": "Epilog",
    "task_epilog": "TaskEpilog",
    "prolog_slurmctld": "PrologSlurmctld",
    "epilog_slurmctld": "EpilogSlurmctld",
}
"""slurm.conf(5)'s name for each hook: of slurmd as root, of a task as its user, of slurmctld as SlurmUser."""

CONTROLLER_CONF = "slurmctld.conf"
"""The file of `hook_conf_directory` that the hooks of slurmctld get."""


class HookFiles(TypedDict, total=False):
    """The arguments of SlurmCluster that concern hooks."""

    prolog: Path
    epilog: Path
    task_epilog: Path
    prolog_slurmctld: Path
    epilog_slurmctld: Path
    hook_conf: Path
    hook_conf_directory: Path


def write_wrappers(directory: Path, files: HookFiles) -> dict[str, Path]:
    """Write a wrapper for each hook in `files`; return them by slurm.conf's name for the hook.

    slurmd and slurmctld give their hooks no environment of their own (slurm.conf(5), Prolog and Epilog Scripts), so
    this is the only way to lead a hook to another file than /etc/jobtrail/hook.conf.
    """
    setting = _conf_setting(files)
    by_name: Mapping[str, object] = files
    wrappers = {}
    for name, parameter in PARAMETERS.items():
        if (hook := by_name.get(name)) is not None:
            wrappers[parameter] = _write_wrapper(directory / name, Path(str(hook)), setting)
    return wrappers


def _conf_setting(files: HookFiles) -> str:
    """Return the shell's assignment before the hook's name, empty when the hooks get no settings."""
    if "hook_conf" in files and "hook_conf_directory" in files:
        raise ValueError("give either hook_conf, one file for all hooks, or hook_conf_directory, a file for each node")
    if "hook_conf" in files:
        return f"JOBTRAIL_HOOK_CONF={shlex.quote(str(files['hook_conf']))} "
    if "hook_conf_directory" in files:
        # All nodes of one machine share slurm.conf, hence the hooks; slurmctld's hooks have no SLURMD_NODENAME.
        name = "${SLURMD_NODENAME:-" + CONTROLLER_CONF.removesuffix(".conf") + "}.conf"
        return f'JOBTRAIL_HOOK_CONF={shlex.quote(str(files["hook_conf_directory"]))}/"{name}" '
    return ""


def _write_wrapper(wrapper: Path, hook: Path, setting: str) -> Path:
    wrapper.write_text(f"#!/bin/sh\n{setting}exec {shlex.quote(str(hook))}\n")
    shutil.chown(wrapper, "root")
    wrapper.chmod(0o755)
    return wrapper

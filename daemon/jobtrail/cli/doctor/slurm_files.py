"""slurm.conf and the hooks it names, as files: no command of Slurm is asked."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

import jobtrail
from jobtrail.adapters.gres_conf import DIRECTORIES, SlurmConf, read_gres_conf, read_slurm_conf
from jobtrail.cli.doctor.findings import Finding, Place, Saying, who_may_write

MARK = b"Jobtrail's Slurm hook"
NEEDED = {"Prolog": "prolog.sh", "Epilog": "epilog.sh"}
OPTIONAL = {
    "TaskEpilog": "task_epilog.sh", "PrologSlurmctld": "prolog_slurmctld.sh", "EpilogSlurmctld": "epilog_slurmctld.sh",
}  # fmt: skip
INSTALLED = "/etc/slurm/jobtrail"
SHARED = Path("/usr/share/jobtrail/hooks/slurm")
LONGEST_SCRIPT = 1 << 20
RECONFIGURE = "then run `scontrol reconfigure`"
_PROGRAM = re.compile(rb"(?<![\w.-])/[\w./+@-]+")


def slurm_conf_of(place: Place) -> SlurmConf:
    """The slurm.conf that this node's daemons use, as far as that can be told."""
    named = place.config.slurm.conf or place.environment.get("SLURM_CONF", "")
    if not named and place.config.gpu.gres_conf:
        named = str(Path(place.config.gpu.gres_conf).with_name("slurm.conf"))
    return read_slurm_conf(named)


def shipped_hook(name: str) -> Path | None:
    """The hook of this release: in the installed package, at the top of the source tree, or where a package puts it."""
    package = Path(jobtrail.__file__).resolve().parent
    places = (package / "hooks/slurm", package.parent.parent / "hooks/slurm", SHARED)
    return next((place / name for place in places if (place / name).is_file()), None)


def check_hooks(place: Place) -> list[Finding]:
    """Those that slurm.conf names: there, executable, safe, and this release's."""
    say = Saying("hooks")
    if not place.has_slurm_jobs:
        return []
    conf = slurm_conf_of(place)
    if conf.problem is not None:
        return [say.unchecked(conf.problem, "name the file in slurm.conf of the settings, or in SLURM_CONF")]
    findings: list[Finding] = []
    for key, name in NEEDED.items():
        findings += _of_hook(say, conf, key, name, needed=True)
    for key, name in OPTIONAL.items():
        findings += _of_hook(say, conf, key, name, needed=False)
    if not any(os.access(f"{directory}/curl", os.X_OK) for directory in ("/usr/bin", "/bin", "/usr/local/bin")):
        findings.append(
            say.failure("the hooks find no curl, so that they only leave files", "install curl 7.40 or newer")
        )
    return findings


def _of_hook(say: Saying, conf: SlurmConf, key: str, name: str, *, needed: bool) -> list[Finding]:
    paths = [path for value in conf.values(key) for path in (_matching(value) or [value])]
    findings, ours = [], False
    for path in paths:
        hook = _behind(Path(path), name)
        if not Path(path).is_file():
            if not glob.has_magic(path):
                harm = "and a failed one drains the node" if key in NEEDED else "so that it fails"
                findings.append(
                    say.failure(
                        f"{key}={path} is not there, {harm}", f"put {path} there, or take the line out of {conf.path}"
                    )
                )
        elif hook is not None:
            ours = True
            findings.append(_of_program(say, key, Path(path), hook, name))
    if not ours and needed:
        lacking = f"{conf.path} names no {key} of Jobtrail's" + (f" ({', '.join(paths)} is another)" if paths else "")
        findings.append(say.failure(lacking, f"install the hooks and add {key}={INSTALLED}/{name}, {RECONFIGURE}"))
    return findings


def _matching(pattern: str) -> list[str]:
    """The files that a value of slurm.conf names, which may be a pattern (glob(7))."""
    found = Path(pattern).parent.glob(Path(pattern).name) if glob.has_magic(pattern) else [Path(pattern)]
    return sorted(str(path) for path in found)


def _behind(path: Path, name: str) -> Path | None:
    """The hook of Jobtrail's that a program is or, being a script, calls."""
    content = _content(path)
    if content is None or MARK in content:
        return path if content else None
    called = [Path(os.fsdecode(match)) for match in _PROGRAM.findall(content)]
    return next((one for one in called if one.name == name and MARK in (_content(one) or b"")), None)


def _content(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_SCRIPT)
    except OSError:
        return None


def _of_program(say: Saying, key: str, path: Path, hook: Path, name: str) -> Finding:
    for one in (path, hook):
        if not os.access(one, os.X_OK):
            return say.failure(f"{key}: {one} is not executable, and a failed hook drains the node", f"chmod 755 {one}")
        for part in (one, one.parent):  # who may write the directory may put another hook there
            if (problem := who_may_write(part)) is not None:
                mend = f"chown root {part} && chmod 755 {part}"
                return say.failure(f"{key}: {part}, from which Slurm runs it, {problem}", mend)
    shipped = shipped_hook(name)
    if shipped is None:
        return say.unchecked(f"{key}: {hook} is there, but not the hook of this release to compare it with")
    if shipped.read_bytes() != hook.read_bytes():
        return say.warning(f"{key}: {hook} is not that of {jobtrail.__version__}", f"install -m 755 {shipped} {hook}")
    return say.ok(f"{key}: {hook} is that of {jobtrail.__version__}")


def check_slurm_conf(place: Place) -> list[Finding]:
    """The lines beside the hooks that jobs' figures rest on."""
    say = Saying("slurm.conf")
    if not place.has_slurm_jobs:
        return []
    conf = slurm_conf_of(place)
    if conf.problem is not None:
        return [say.unchecked(conf.problem, "name the file in slurm.conf of the settings, or in SLURM_CONF")]
    findings = [*_flags(say, conf), *_cgroup_lines(say, conf), *_people(say, conf, place)]
    return findings or [say.ok(f"{conf.path} has what is needed")]


def _flags(say: Saying, conf: SlurmConf) -> list[Finding]:
    findings = []
    flags = {flag.strip().casefold() for flag in (conf.value("PrologFlags") or "").split(",")}
    if not flags & {"alloc", "contain", "runinjob", "x11"}:
        found = "without PrologFlags=Contain,Alloc nodes on which no step runs have no prolog"
        findings.append(say.warning(found, f"add PrologFlags=Contain,Alloc to {conf.path}, {RECONFIGURE}"))
    timeout = conf.value("PrologEpilogTimeout")
    if timeout is None or not timeout.isdigit() or timeout == "65534":
        found = "without PrologEpilogTimeout slurmd waits for a hook of anybody's for ever"
        findings.append(say.warning(found, f"add PrologEpilogTimeout=30 to {conf.path}, {RECONFIGURE}"))
    elif int(timeout) < 5:
        found = (
            f"PrologEpilogTimeout={timeout} is near the two seconds of Jobtrail's hooks, and a late one drains the node"
        )
        findings.append(say.failure(found, f"set PrologEpilogTimeout=30 in {conf.path}, {RECONFIGURE}"))
    return findings


def _cgroup_lines(say: Saying, conf: SlurmConf) -> list[Finding]:
    findings = []
    tracking = conf.value("ProctrackType") or "proctrack/cgroup"  # the default where Slurm was built with cgroups
    if tracking != "proctrack/cgroup":
        found = f"with ProctrackType={tracking} jobs have no cgroups, so nothing of them can be measured"
        findings.append(say.failure(found, f"set ProctrackType=proctrack/cgroup in {conf.path}, and restart slurmd"))
    if "task/cgroup" not in (conf.value("TaskPlugin") or "").split(","):
        found = "without TaskPlugin=task/cgroup memory limits and the memory of jobs are not in their cgroups"
        findings.append(say.warning(found, f"add TaskPlugin=task/cgroup to {conf.path}, and restart slurmd"))
    if (gather := conf.value("JobAcctGatherType")) is None:
        found = "without JobAcctGatherType sacct knows no usage, which is what the last moments of jobs are filled from"
        findings.append(say.warning(found, f"add JobAcctGatherType=jobacct_gather/cgroup to {conf.path}"))
    elif gather not in ("jobacct_gather/cgroup", "jobacct_gather/linux"):
        findings.append(say.warning(f"JobAcctGatherType={gather} is not known here", "use jobacct_gather/cgroup"))
    return findings


def _people(say: Saying, conf: SlurmConf, place: Place) -> list[Finding]:
    user = conf.value("SlurmUser") or "root"
    if user in ("root", place.config.http.slurm_user):
        return []
    found = f"SlurmUser is {user}, and http.slurm_user {place.config.http.slurm_user}: hooks of slurmctld are refused"
    return [say.warning(found, f"set http.slurm_user: {user}")]


def check_gres_conf(place: Place) -> list[Finding]:
    """Where GPUs are: that Slurm's file says which is which."""
    from jobtrail.composition.gpu_role import amd_is_there, nvidia_is_there

    say, root = Saying("gres.conf"), Path(place.config.gpu.root)
    has_gpus = nvidia_is_there(root) or amd_is_there(root)
    if not place.has_slurm_jobs or not (has_gpus or (slurm_conf_of(place).value("GresTypes") or "").find("gpu") >= 0):
        return []
    node = place.config.node_name
    named = place.config.gpu.gres_conf
    directories = (str(Path(named).parent),) if named else DIRECTORIES
    conf = read_gres_conf(
        node=node, slurm_conf=place.environment.get("SLURM_CONF", "") if not named else "", directories=directories
    )
    if conf.problem is not None:
        return [say.failure(f"which GPU a job holds stays unknown: {conf.problem}", "name the file in gpu.gres_conf")]
    findings = [say.warning(f"{conf.source}: {note}", "mend that line of it") for note in conf.notes]
    if not conf.lines and conf.autodetect is None and has_gpus:
        found = f"{conf.source} says nothing of the GPUs of {node}"
        findings.append(
            say.warning(
                found, f"add a line Name=gpu File=… or AutoDetect=nvml for {node}, or set `node` to its NodeName"
            )
        )
    missing = sorted(
        name for line in conf.lines for gpu in line.gpus for name in gpu
        if name not in conf.devices and name != "-"
    )  # fmt: skip
    if missing:
        findings.append(
            say.failure(
                f"{conf.source} names {', '.join(missing)}, which is no device here",
                "load the driver, or mend the line",
            )
        )
    return findings or [say.ok(f"{conf.source} says which GPU is which")]

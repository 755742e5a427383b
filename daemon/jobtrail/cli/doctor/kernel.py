"""What the kernel and the drivers give: cgroups, GPUs, energy counters, the clock."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

from jobtrail.adapters.cgroup import layout
from jobtrail.adapters.rapl import RaplEnergy
from jobtrail.cli.doctor.findings import Finding, Place, Saying
from jobtrail.core.ports import GpuSource
from jobtrail.domain.phrases import counted

V2_NEEDED = ("cpu", "memory", "io", "pids")
V1_NEEDED = ("cpuacct", "memory")
V1_USEFUL = ("blkio", "pids", "freezer")
NO_JOB_YET = "let a job run; if it stays so, see ProctrackType, TaskPlugin and cgroup.conf"
SYNCHRONISE = "start chrony, ntpd or systemd-timesyncd"
LOOKS = 3  # the first look at a driver may only open it
TIME_ERROR = 5  # of adjtimex(2)
STA_UNSYNC = 0x0040
MOST_ERROR_US = 1_000_000


def check_cgroups(place: Place) -> list[Finding]:
    """That there are hierarchies with what is read, and Slurm's jobs in them."""
    say, root = Saying("cgroups"), place.config.sampling.cgroup_root
    if not place.is_node:
        return []
    try:
        mounts = layout.detect(root)
    except layout.RefusedError as error:
        return [say.failure(f"nothing of jobs can be measured: {error}", "mount cgroups, or set sampling.cgroup_root")]
    findings = _of_v1(say, mounts) if mounts.v1 else _of_v2(say, mounts)
    version = "v1" if mounts.v1 else "v2"
    if place.config.scheduler == "slurm":
        findings += _of_slurm(say, mounts, version)
    return findings or [say.ok(f"cgroup {version} at {root}")]


def _of_v1(say: Saying, mounts: layout.Mounts) -> list[Finding]:
    findings = []
    if missing := [name for name in V1_NEEDED if name not in mounts.v1]:
        found = f"cgroup v1 without {', '.join(missing)}: CPU or memory of jobs is not known"
        findings.append(say.failure(found, "boot with these controllers (cgroup_enable=memory), or use cgroup v2"))
    if missing := [name for name in V1_USEFUL if name not in mounts.v1]:
        findings.append(say.warning(f"cgroup v1 without {', '.join(missing)}", "mount them, or use cgroup v2"))
    return findings


def _of_v2(say: Saying, mounts: layout.Mounts) -> list[Finding]:
    assert mounts.unified is not None
    there = Path(mounts.unified, "cgroup.controllers").read_text(encoding="ascii").split()
    if missing := [name for name in V2_NEEDED if name not in there]:
        found = f"cgroup v2 without {', '.join(missing)} at {mounts.unified}"
        return [say.failure(found, "see whether cgroup v1 holds them (boot with systemd.unified_cgroup_hierarchy=1)")]
    return []


def _of_slurm(say: Saying, mounts: layout.Mounts, version: str) -> list[Finding]:
    """Slurm's own cgroups, and that what is below them was given to it."""
    found = layout.Layout(mounts, lambda: 0.0)
    if version == "v1":
        without = [name for name in V1_NEEDED if name in mounts.v1 and not found.v1_parents(None, name)]
        if without:
            text = f"Slurm has no cgroup under {', '.join(mounts.v1[name] for name in without)}"
            return [say.warning(text, NO_JOB_YET)]
        return []
    scopes = list(found.scopes(None))
    if not scopes:
        return [say.warning(f"there is no slurmstepd.scope below {mounts.unified}", NO_JOB_YET)]
    findings = []
    for scope in scopes:
        given = Path(scope, "cgroup.controllers").read_text(encoding="ascii").split()
        if missing := [name for name in ("cpu", "memory") if name not in given]:
            text = f"{scope} was not given {', '.join(missing)}, so its jobs have no such figures"
            findings.append(say.failure(text, "set Delegate=yes in slurmd.service, and restart slurmd"))
    return findings


def check_gpus(place: Place) -> list[Finding]:
    """One look at all GPUs, as the daemon looks: NVML in a child that is killed when a driver hangs."""
    if not place.is_node or place.config.gpu.vendors == "none":
        return []
    return asyncio.run(_of_gpus(place))


async def _of_gpus(place: Place) -> list[Finding]:
    from jobtrail.adapters.amdgpu import AmdGpuSource
    from jobtrail.adapters.nvml.source import NvmlGpus
    from jobtrail.composition.gpu_role import amd_is_there, nvidia_is_there

    gpu, findings = place.config.gpu, []
    root = Path(gpu.root)
    wanted = ("nvidia", "amd") if gpu.vendors == "auto" else gpu.vendors
    sources: dict[str, GpuSource] = {}
    if "nvidia" in wanted and (gpu.vendors != "auto" or nvidia_is_there(root)):
        library = Path(gpu.library_directory) if gpu.library_directory else None
        sources["nvidia"] = NvmlGpus(root=root, library_directory=library, deadline_seconds=gpu.deadline_seconds)
    if "amd" in wanted and (gpu.vendors != "auto" or amd_is_there(root)):
        sources["amd"] = AmdGpuSource(root / "sys", deadline_seconds=gpu.deadline_seconds)
    for vendor, source in sources.items():
        try:
            findings.append(await _of_source(Saying("gpus"), vendor, source))
        finally:
            await source.close()
    return findings


async def _of_source(say: Saying, vendor: str, source: GpuSource) -> Finding:
    for _ in range(LOOKS):
        look = await source.look()
        if look.problem is None:
            break
    if look.problem is not None:
        remedy = "see whether `nvidia-smi` answers and libnvidia-ml.so.1 is found (gpu.library_directory)"
        if vendor == "amd":
            remedy = "see whether the module amdgpu is loaded: `dmesg | grep amdgpu`"
        return say.failure(f"{vendor}: no GPU can be read: {look.problem.replace('_', ' ')}", remedy)
    if not look.readings:
        return say.warning(f"{vendor}: the driver answers, and has no GPU", "see `dmesg` for what became of them")
    many = len(look.readings)
    return say.ok(f"{vendor}: {counted(many, 'GPU')} {'answers' if many == 1 else 'answer'}")


def check_energy(place: Place) -> list[Finding]:
    """RAPL: that its counters are there and can be read."""
    say = Saying("energy")
    if not place.is_node or not place.config.energy.rapl:
        return []
    reading = RaplEnergy(Path(place.config.gpu.root) / "sys").read_energy()
    if reading.counters:
        return [say.ok(f"{', '.join(counter.name for counter in reading.counters)} can be read")]
    reasons = sorted({f"{name}: {reason}" for name, reason in reading.absent.items()})
    if any("EACCES" in reason for reason in reasons):
        if not place.is_root:
            return [say.unchecked("root alone may read energy counters")]
        return [say.failure(f"energy counters may not be read ({'; '.join(reasons)})", "let the daemon run as root")]
    found = f"no energy of CPUs is known here ({'; '.join(reasons)})"
    return [say.warning(found, "modprobe intel_rapl_msr; on a machine without such counters set energy.rapl: false")]


class _Timex(ctypes.Structure):
    """struct timex up to `status`, with room for the rest (adjtimex(2), 208 bytes on 64-bit Linux)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def check_clock(place: Place) -> list[Finding]:
    """What the kernel says of its own clock; to be told, nobody needs a right."""
    del place
    say, timex = Saying("clock"), _Timex()
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        return [say.unchecked(f"the kernel does not tell: {os.strerror(ctypes.get_errno())}")]
    if state == TIME_ERROR or timex.status & STA_UNSYNC:
        found = "the clock is not synchronised: times of events and jobs may be wrong"
        return [say.warning(found, f"{SYNCHRONISE}, on every node of the cluster")]
    if timex.maxerror > MOST_ERROR_US:
        return [say.warning(f"the clock may be wrong by {timex.maxerror / 1e6:.1f} s", SYNCHRONISE)]
    return [say.ok(f"synchronised, to {timex.maxerror / 1e3:.0f} ms at worst")]

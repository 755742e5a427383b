"""The cgroups of this machine: which version it has, and cgroup.conf for it."""

import re
from pathlib import Path

CGROUP_MOUNT = Path("/sys/fs/cgroup")


def has_unified_cgroups(mounts: str) -> bool:
    """Tell from the text of /proc/self/mounts whether /sys/fs/cgroup itself is cgroup v2 (else v1, or hybrid)."""
    fields = (line.split() for line in mounts.splitlines())
    return any(parts[1:3] == [str(CGROUP_MOUNT), "cgroup2"] for parts in fields)


def cgroup_conf_of_this_machine(*, systemd: bool) -> str:
    """Return cgroup.conf(5) for what /proc and /sys say of this machine; `systemd`: slurmd can talk to it."""
    unified = has_unified_cgroups(Path("/proc/self/mounts").read_text())
    swap_total = re.search(r"^SwapTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    swaps = swap_total is not None and int(swap_total[1]) > 0
    can_limit = unified or (CGROUP_MOUNT / "memory/memory.memsw.limit_in_bytes").exists()
    return cgroup_conf(unified=unified, systemd=systemd, swap_limits=swaps and can_limit)


def cgroup_conf(*, unified: bool, systemd: bool, swap_limits: bool) -> str:
    """Return cgroup.conf(5) for the cgroup version of the machine; memory is confined, cores are not.

    `swap_limits`: the machine swaps and the kernel can limit it, so that a job over its limit is killed, not swapped.
    """
    lines = ["ConstrainCores=no", "ConstrainDevices=no", "ConstrainRAMSpace=yes", f"CgroupMountpoint={CGROUP_MOUNT}"]
    lines.append(f"ConstrainSwapSpace={'yes' if swap_limits else 'no'}")
    if unified:
        # Without systemd nobody makes the scope in which slurmstepd is started, unless slurmd makes it itself.
        lines += ["CgroupPlugin=cgroup/v2", f"IgnoreSystemd={'no' if systemd else 'yes'}"]
    else:
        lines += ["CgroupPlugin=cgroup/v1", "CgroupAutomount=no"]
    return "\n".join(lines) + "\n"

"""The configuration files of a small real cluster: slurm.conf, slurmdbd.conf, cgroup.conf, gres.conf."""

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CLUSTER_NAME = "trailtest"
# More than the machine has, so that twenty one-CPU jobs run at once; slurmd reports what slurm.conf says because of
# SlurmdParameters=config_overrides, and cores are not confined (cgroup.conf), so nothing needs CPUs that are not there.
CPUS_PER_NODE = 32
# For accounting only, likewise. What confines a job is its own --mem, through its memory cgroup.
MEMORY_MEGABYTES_PER_NODE = 64_000
CGROUP_MOUNT = Path("/sys/fs/cgroup")
# The user of the same name as the peer of the socket, and no password. One statement a line: mariadbd's --init-file.
INIT_SQL = """\
CREATE DATABASE slurm;
CREATE USER slurm@localhost IDENTIFIED VIA unix_socket;
GRANT ALL ON slurm.* TO slurm@localhost;
"""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a cluster keeps its files, and on which ports and under which names its parts are found."""

    directory: Path
    nodes: Sequence[str]
    slurmd_ports: Sequence[int]
    slurmctld_port: int
    slurmdbd_port: int

    @property
    def etc(self) -> Path:
        """Configuration files; Slurm looks for the others beside slurm.conf."""
        return self.directory / "etc"

    @property
    def logs(self) -> Path:
        """Logs of all daemons; of the user slurm, because slurmctld and slurmdbd write theirs as slurm."""
        return self.directory / "log"

    @property
    def run(self) -> Path:
        """Process id files and the state of slurmctld; of the user slurm."""
        return self.directory / "run"

    @property
    def munge(self) -> Path:
        """Key, socket and log of munged; of root alone, which munged insists on."""
        return self.directory / "munge"

    @property
    def database(self) -> Path:
        """MariaDB's data and socket; of the user mysql."""
        return self.directory / "mysql"

    @property
    def rest(self) -> Path:
        """slurmrestd's socket; of the user nobody."""
        return self.directory / "rest"

    @property
    def jobs(self) -> Path:
        """Working directory and output of the jobs; sticky and open to all, like /tmp."""
        return self.directory / "jobs"

    @property
    def hooks(self) -> Path:
        """The wrappers that slurmd runs as Prolog and Epilog."""
        return self.directory / "hooks"

    @property
    def munge_socket(self) -> Path:
        """What AuthInfo=socket= names."""
        return self.munge / "socket"

    @property
    def munge_key(self) -> Path:
        """The secret that makes the cluster's messages its own."""
        return self.munge / "key"

    @property
    def database_socket(self) -> Path:
        """The only way into MariaDB; it opens no port."""
        return self.database / "socket"

    @property
    def init_sql(self) -> Path:
        """What MariaDB executes before it accepts connections."""
        return self.etc / "init.sql"

    @property
    def accounts_file(self) -> Path:
        """What sacctmgr loads before slurmctld starts."""
        return self.etc / "accounts"

    def directories(self) -> list[tuple[Path, str, int]]:
        """Return all directories to make: path, owner, mode."""
        return [
            (self.etc, "root", 0o755),
            (self.logs, "slurm", 0o755),
            (self.run, "slurm", 0o755),
            (self.munge, "root", 0o755),
            (self.database, "mysql", 0o755),
            (self.rest, "nobody", 0o755),
            (self.jobs, "root", 0o1777),
            (self.hooks, "root", 0o755),
            (self.directory / "spool", "root", 0o755),
        ]


def has_unified_cgroups(mounts: str) -> bool:
    """Tell from the text of /proc/self/mounts whether /sys/fs/cgroup itself is cgroup v2 (else v1, or hybrid)."""
    fields = (line.split() for line in mounts.splitlines())
    return any(parts[1:3] == [str(CGROUP_MOUNT), "cgroup2"] for parts in fields)


def slurm_conf(layout: Layout, *, hooks: Mapping[str, Path], gpus_per_node: int) -> str:
    """Return slurm.conf(5) for a cluster of nodes that all are this machine (several slurmd, told apart by -N).

    `hooks`: programs by the name of their kind in small letters, prolog and epilog.
    """
    host = socket.gethostname().partition(".")[0]
    lines = [
        f"ClusterName={CLUSTER_NAME}",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={layout.slurmctld_port}",
        "SlurmUser=slurm",
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket}",
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={layout.slurmdbd_port}",
        # With auth/munge this is no password but the path of the socket that speaks for slurmdbd.
        f"AccountingStoragePass={layout.munge_socket}",
        "ProctrackType=proctrack/cgroup",
        "TaskPlugin=task/cgroup",
        "JobAcctGatherType=jobacct_gather/cgroup",
        "JobAcctGatherFrequency=1",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        # Without a default, the first job is given all memory of the node and the second waits for it.
        "DefMemPerCPU=256",
        "SlurmdParameters=config_overrides",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1",
        "PrologFlags=Contain,Alloc",
        "PrologEpilogTimeout=20",
        "MinJobAge=300",
        "KillWait=3",
        "SlurmdTimeout=300",
        "ReturnToService=2",
        "MailProg=/bin/true",
        f"StateSaveLocation={layout.run}",
        f"SlurmdSpoolDir={layout.directory}/spool/%n",
        f"SlurmctldPidFile={layout.run}/slurmctld.pid",
        f"SlurmdPidFile={layout.run}/%n.pid",
        f"SlurmctldLogFile={layout.logs}/slurmctld.log",
        f"SlurmdLogFile={layout.logs}/slurmd-%n.log",
        "SlurmctldDebug=verbose",
        "SlurmdDebug=verbose",
        "SlurmctldSyslogDebug=quiet",
        "SlurmdSyslogDebug=quiet",
    ]
    lines += [f"{kind.capitalize()}={path}" for kind, path in hooks.items()]
    gres = ""
    if gpus_per_node:
        lines += ["GresTypes=gpu", "AccountingStorageTRES=gres/gpu"]
        gres = f" Gres=gpu:{gpus_per_node}"
    lines += [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
        f"CPUs={CPUS_PER_NODE} RealMemory={MEMORY_MEGABYTES_PER_NODE}{gres} State=UNKNOWN"
        for node, port in zip(layout.nodes, layout.slurmd_ports, strict=True)
    ]
    lines.append("PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
    return "\n".join(lines) + "\n"


def slurmdbd_conf(layout: Layout) -> str:
    """Return slurmdbd.conf(5); the database's socket comes to slurmdbd through MYSQL_UNIX_PORT, so no password."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={layout.slurmdbd_port}
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm
DebugLevel=verbose
DebugLevelSyslog=quiet
LogFile={layout.logs}/slurmdbd.log
PidFile={layout.run}/slurmdbd.pid
"""


def cgroup_conf_of_this_machine() -> str:
    """Return cgroup.conf(5) for what /proc and /sys say of this machine."""
    unified = has_unified_cgroups(Path("/proc/self/mounts").read_text())
    swap_total = re.search(r"^SwapTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    swaps = swap_total is not None and int(swap_total[1]) > 0
    can_limit = unified or (CGROUP_MOUNT / "memory/memory.memsw.limit_in_bytes").exists()
    systemd = Path("/run/systemd/system").is_dir()
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


def gres_conf(gpu_files: Sequence[Path]) -> str:
    """Return gres.conf(5) that gives each node one GPU for each of `gpu_files` (existing character devices)."""
    return "".join(f"Name=gpu File={path}\n" for path in gpu_files)


def accounts_file(users: Mapping[str, str]) -> str:
    """Return a file for `sacctmgr load` that holds the cluster and its `users`, each with an account.

    One load instead of a command for each costs half the time (sacctmgr(1), FLAT FILE DUMP AND LOAD).
    """
    accounts = sorted(set(users.values()))
    lines = [f"Cluster - '{CLUSTER_NAME}'", "Parent - 'root'", *(f"Account - '{account}'" for account in accounts)]
    for user, account in users.items():
        lines += [f"Parent - '{account}'", f"User - '{user}':DefaultAccount='{account}'"]
    return "\n".join(lines) + "\n"


def munged_argv(layout: Layout) -> list[str]:
    """Return the command that runs munged, as root in its own directory (munged(8))."""
    return [
        "munged", "--foreground", f"--socket={layout.munge_socket}", f"--key-file={layout.munge_key}",
        f"--pid-file={layout.munge}/pid", f"--seed-file={layout.munge}/seed", f"--log-file={layout.munge}/log",
    ]  # fmt: skip


def install_db_argv(layout: Layout) -> list[str]:
    """Return the command that makes MariaDB's system tables."""
    return [
        "mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={layout.database}/data",
        "--auth-root-authentication-method=socket", "--skip-test-db", "--skip-name-resolve",
    ]  # fmt: skip


def mariadbd_argv(layout: Layout) -> list[str]:
    """Return the command that runs MariaDB; it need not survive a power failure, so it does not wait for the disk."""
    return [
        "mariadbd", "--no-defaults", "--user=mysql", f"--datadir={layout.database}/data",
        f"--socket={layout.database_socket}", f"--pid-file={layout.database}/pid", f"--init-file={layout.init_sql}",
        "--skip-networking", "--skip-log-bin", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0",
        "--performance-schema=OFF",
    ]  # fmt: skip

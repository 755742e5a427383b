"""The configuration files of a small real cluster: slurm.conf, slurmdbd.conf, gres.conf, and its daemons' commands."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CLUSTER_NAME = "trailtest"
# More than the machine has, so that twenty one-CPU jobs run at once; slurmd reports what slurm.conf says because of
# SlurmdParameters=config_overrides, and cores are not confined (cgroup.conf), so nothing needs CPUs that are not there.
CPUS_PER_NODE = 32
# For accounting only, likewise. What confines a job is its own --mem, through its memory cgroup.
SHARDS_PER_GPU = 2
MEMORY_MEGABYTES_PER_NODE = 64_000
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
    rest_port: int

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
    def jwt_key(self) -> Path:
        """What slurmctld and slurmdbd sign and check tokens with; of the user slurm."""
        return self.run / "jwt_hs256.key"

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


def rest_socket_of(directory: Path) -> Path:
    """Return where slurmrestd answers without a token, in a cluster's directory that need not exist yet."""
    return directory / "rest" / "slurmrestd.sock"


def slurm_conf(
    layout: Layout, *, hooks: Mapping[str, Path], gpus_per_node: int, prolog_flags: str, extra: Sequence[str] = ()
) -> str:
    """Return slurm.conf(5) for a cluster of nodes that all are this machine (several slurmd, told apart by -N).

    `hooks`: programs by the parameter that names them, such as Prolog. `extra`: lines that take the place of those of
    the same parameter, or are added: all with several entries (PartitionName=) and all that are not set here.
    """
    host = socket.gethostname().partition(".")[0]
    lines = [
        f"ClusterName={CLUSTER_NAME}",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={layout.slurmctld_port}",
        "SlurmUser=slurm",
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket}",
        *jwt_lines(layout),
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
        f"PrologFlags={prolog_flags}",
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
    lines += [f"{parameter}={path}" for parameter, path in hooks.items()]
    gres = ""
    if gpus_per_node:
        lines += ["GresTypes=gpu,shard", "AccountingStorageTRES=gres/gpu"]
        gres = f" Gres=gpu:{gpus_per_node},shard:{SHARDS_PER_GPU * gpus_per_node}"
    lines += [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
        f"CPUs={CPUS_PER_NODE} RealMemory={MEMORY_MEGABYTES_PER_NODE}{gres} State=UNKNOWN"
        for node, port in zip(layout.nodes, layout.slurmd_ports, strict=True)
    ]
    lines.append("PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
    replaced = {parameter_of(line) for line in extra} - {"partitionname", "nodename"}
    return "\n".join([*(line for line in lines if parameter_of(line) not in replaced), *extra]) + "\n"


def parameter_of(line: str) -> str:
    """Return the name that a line of slurm.conf sets, in small letters, for case does not matter there."""
    return line.partition("=")[0].strip().lower()


def preemption(mode: str) -> list[str]:
    """Return lines for slurm.conf that add a partition `urgent`, whose jobs push jobs of `debug` off their CPUs.

    `mode`: what becomes of those, CANCEL or REQUEUE (slurm.conf(5), PreemptMode).
    """
    return [
        "PreemptType=preempt/partition_prio",
        f"PreemptMode={mode}",
        "PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP",
    ]


def jwt_lines(layout: Layout) -> list[str]:
    """Return what slurm.conf and slurmdbd.conf both need for tokens beside munge."""
    return ["AuthAltTypes=auth/jwt", f"AuthAltParameters=jwt_key={layout.jwt_key}"]


def slurmdbd_conf(layout: Layout) -> str:
    """Return slurmdbd.conf(5); the database's socket comes to slurmdbd through MYSQL_UNIX_PORT, so no password."""
    jwt = "\n".join(jwt_lines(layout))
    return f"""\
AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
{jwt}
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


def gres_conf(gpu_files: Sequence[Path]) -> str:
    """Return gres.conf(5) that gives each node one GPU for each of `gpu_files` (existing character devices).

    Each can be shared by jobs that ask for a shard of it.
    """
    lines = [f"Name=gpu File={path}\n" for path in gpu_files]
    return "".join([*lines, f"Name=shard Count={SHARDS_PER_GPU * len(gpu_files)}\n"] if lines else [])


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

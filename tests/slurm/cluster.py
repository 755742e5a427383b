"""A real Slurm cluster on this machine, for tests: munged, MariaDB, slurmdbd, slurmctld, slurmd and slurmrestd.

It has its own directory, ports, keys and cgroups, so it does not disturb a Slurm that the machine may have. Needs root:
slurmd starts jobs as their users and makes cgroups. Debian's slurmd can be several nodes of one machine (-N).
"""

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self, TypedDict

from tests.slurm import configuration, remains
from tests.slurm.commands import SlurmCommands
from tests.slurm.daemons import ClusterError, Daemon, poll_until

USERS = {"jt-alice": "physics", "jt-bob": "chemistry"}
"""The unprivileged Linux users who submit jobs, with their Slurm accounts."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Below the range that the kernel gives to outgoing connections (ip_local_port_range), of which there are many here.
PORTS = range(20_000, 32_000)


class HookFiles(TypedDict, total=False):
    """The arguments of SlurmCluster that concern hooks."""

    prolog: Path
    epilog: Path
    hook_conf: Path


class SlurmCluster(SlurmCommands):
    """Starts the cluster when entered; stops it and removes every trace when left."""

    def __init__(
        self,
        *,
        nodes: int = 1,
        prolog: Path | None = None,
        epilog: Path | None = None,
        hook_conf: Path | None = None,
        gpu_files: Sequence[Path] = (),
        rest: bool = False,
    ) -> None:
        """Describe the cluster.

        `hook_conf`: what JOBTRAIL_HOOK_CONF names for `prolog` and `epilog`. `gpu_files`: character devices that
        each node reports as its GPUs. `rest`: run slurmrestd too.
        """
        self._node_count = nodes
        self._hooks = {"prolog": prolog, "epilog": epilog}
        self._hook_conf = hook_conf
        self._gpu_files = tuple(gpu_files)
        self._with_rest = rest
        self._stack = contextlib.ExitStack()
        self._slurmd: dict[str, Daemon] = {}
        self._layout: configuration.Layout | None = None

    def __enter__(self) -> Self:
        """Start everything; on failure remove what was started and raise ClusterError with the end of the log."""
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(remains.new_directory())
            self._layout = make_layout(directory, self._node_count)
            for user in USERS:
                ensure_user(user)
            self._write_files()
            self._start_all(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel the jobs, stop the daemons in reverse order, remove processes, cgroups and files."""
        self._stack.close()

    @property
    def layout(self) -> configuration.Layout:
        """Directories and ports; raises ClusterError when the cluster was never started."""
        if self._layout is None:
            raise ClusterError("the cluster has not been started")
        return self._layout

    @property
    def directory(self) -> Path:
        """The cluster's own directory."""
        return self.layout.directory

    @property
    def node_names(self) -> list[str]:
        """The names of the nodes, which their cgroups bear too."""
        return list(self.layout.nodes)

    @property
    def env(self) -> dict[str, str]:
        """An environment in which Slurm's commands talk to this cluster.

        What still runs with it when the cluster stops is killed then.
        """
        conf = remains.slurm_conf_of(self.directory)
        return {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "SLURM_CONF": str(conf)}

    @property
    def rest_socket(self) -> Path:
        """The Unix socket of slurmrestd, to which root needs no token (rest_auth/local)."""
        return self.layout.rest / "slurmrestd.sock"

    def stop_slurmd(self, node: str) -> None:
        """Stop one node's slurmd; its jobs go on, each under its slurmstepd."""
        self._slurmd[node].stop()

    def start_slurmd(self, node: str) -> None:
        """Start one node's slurmd and wait until slurmctld may use the node."""
        slurmd = self._slurmd[node]
        slurmd.start()
        slurmd.wait_ready(partial(self._node_is_usable, node), seconds=60)

    def restart_slurmd(self, node: str) -> None:
        """Stop and start one node's slurmd, as an administrator does with jobs running."""
        self.stop_slurmd(node)
        self.start_slurmd(node)

    def _node_is_usable(self, node: str) -> bool:
        return self.node_state(node) in {"idle", "mix", "alloc", "comp"}

    def _write_files(self) -> None:
        layout = self.layout
        for path, user, mode in layout.directories():
            path.mkdir()
            path.chmod(mode)
            shutil.chown(path, user)
        wrappers = {
            name: write_hook_wrapper(layout.hooks / name, hook, self._hook_conf)
            for name, hook in self._hooks.items()
            if hook is not None
        }
        conf = configuration.slurm_conf(layout, hooks=wrappers, gpus_per_node=len(self._gpu_files))
        write(remains.slurm_conf_of(layout.directory), conf)
        write(layout.etc / "gres.conf", configuration.gres_conf(self._gpu_files))
        write(layout.etc / "cgroup.conf", configuration.cgroup_conf_of_this_machine())
        # slurmdbd refuses a file that others can read (slurmdbd.conf(5)).
        write(layout.etc / "slurmdbd.conf", configuration.slurmdbd_conf(layout), mode=0o600, user="slurm")
        write(layout.init_sql, configuration.INIT_SQL)
        write(layout.accounts_file, configuration.accounts_file(USERS))
        layout.munge_key.touch(mode=0o600)
        layout.munge_key.write_bytes(os.urandom(128))

    def _start_all(self, stack: contextlib.ExitStack) -> None:
        layout = self.layout

        def start(name: str, argv: Sequence[str], ready: Callable[[], object], user: str | None = None) -> Daemon:
            # slurmdbd's client library finds the database's socket by MYSQL_UNIX_PORT.
            env = self.env | {"MYSQL_UNIX_PORT": str(layout.database_socket)}
            daemon = Daemon(name, argv, env=env, log_directory=layout.logs, user=user)
            stack.callback(daemon.stop)
            daemon.start()
            daemon.wait_ready(ready, seconds=60)
            return daemon

        start("munged", configuration.munged_argv(layout), layout.munge_socket.exists)
        self.run_tool(*configuration.install_db_argv(layout))
        start("mariadbd", configuration.mariadbd_argv(layout), layout.database_socket.exists)
        start("slurmdbd", ["slurmdbd", "-D"], lambda: accepts(layout.slurmdbd_port))
        self.run_tool("sacctmgr", "--immediate", "load", f"file={layout.accounts_file}")
        start("slurmctld", ["slurmctld", "-D"], lambda: accepts(layout.slurmctld_port))
        for node in layout.nodes:
            self._slurmd[node] = start(f"slurmd-{node}", ["slurmd", "-D", "-N", node], lambda: True)
        for node, slurmd in self._slurmd.items():
            slurmd.wait_ready(partial(self._node_is_usable, node), seconds=60)
        if self._with_rest:
            # It refuses to run as root or as SlurmUser (slurmrestd(8)).
            argv = ["slurmrestd", "-a", "rest_auth/local", f"unix:{self.rest_socket}"]
            start("slurmrestd", argv, self.rest_socket.exists, user="nobody")
        stack.callback(self._cancel_all)

    def _cancel_all(self) -> None:
        """End all jobs in order; what does not end (a stopped slurmd cannot run its epilog) is killed later."""
        self.run_tool("scancel", "--partition=debug")
        poll_until(lambda: not self.run_tool("squeue", "--noheader"), seconds=20, what="all jobs to end")


def make_layout(directory: Path, node_count: int) -> configuration.Layout:
    """Choose names and free ports for a cluster of `node_count` nodes in `directory`."""
    ports = free_ports(node_count + 2)
    return configuration.Layout(
        directory=directory,
        nodes=[remains.node_name(directory, number) for number in range(1, node_count + 1)],
        slurmd_ports=ports[2:],
        slurmctld_port=ports[0],
        slurmdbd_port=ports[1],
    )


def free_ports(count: int) -> list[int]:
    """Return `count` TCP ports on which nothing listens now."""
    free: list[int] = []
    for port in random.sample(PORTS, k=len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("", port))
            free.append(port)
        if len(free) == count:
            return free
    raise ClusterError(f"no {count} free TCP ports in {PORTS}")


def accepts(port: int) -> bool:
    """Tell whether something listens on this port of 127.0.0.1."""
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def ensure_user(name: str) -> None:
    """Create an unprivileged Linux user without a home, unless there is one of that name; it stays afterwards."""
    with contextlib.suppress(KeyError):
        pwd.getpwnam(name)
        return
    argv = ["useradd", "--no-create-home", "--shell", "/bin/sh", name]
    done = subprocess.run(argv, env={"PATH": SYSTEM_PATH}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"useradd could not create the user {name}: {done.stderr}")


def write(path: Path, text: str, *, mode: int = 0o644, user: str = "root") -> None:
    """Write a file with its permissions, which do not depend on the umask."""
    path.touch(mode=0o600)
    path.write_text(text)
    shutil.chown(path, user)
    path.chmod(mode)


def write_hook_wrapper(wrapper: Path, hook: Path, conf: Path | None) -> Path:
    """Write and return a script that runs `hook`, with JOBTRAIL_HOOK_CONF naming `conf` if there is one.

    slurmd gives its hooks no environment of its own (slurm.conf(5), Prolog and Epilog Scripts), so this is the only
    way to lead a hook to another file than /etc/jobtrail/hook.conf.
    """
    setting = f"JOBTRAIL_HOOK_CONF={conf} " if conf else ""
    write(wrapper, f"#!/bin/sh\n{setting}exec {hook}\n", mode=0o755)
    return wrapper

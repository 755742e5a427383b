"""A real Slurm cluster on this machine, for tests: munged, MariaDB, slurmdbd, slurmctld, slurmd and slurmrestd.

It has its own directory, ports, keys and cgroups, so it does not disturb a Slurm that the machine may have. Needs root:
slurmd starts jobs as their users and makes cgroups. Debian's slurmd can be several nodes of one machine (-N).
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self, Unpack

from tests.slurm import cgroups, configuration, remains
from tests.slurm.commands import SlurmCommands
from tests.slurm.daemons import ClusterError, Daemon, poll_until
from tests.slurm.hooks import HookFiles, write_wrappers
from tests.slurm.machine import SYSTEM_PATH, Machine, Root, accepts, accepts_on_socket, free_ports

USERS = {"jt-alice": "physics", "jt-bob": "chemistry"}
"""The unprivileged Linux users who submit jobs, with their Slurm accounts."""


class SlurmCluster(SlurmCommands):
    """Starts the cluster when entered; stops it and removes every trace when left.

    `directory`, `node_names` and `rest_socket` are known before, so that what the cluster's hooks talk to can be
    made and started first.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        gpu_files: Sequence[Path] = (),
        rest: bool = False,
        prolog_flags: str = "Contain,Alloc",
        extra_conf: Sequence[str] = (),
        root: Path | None = None,
        token: str | None = None,
        **hooks: Unpack[HookFiles],
    ) -> None:
        """Describe the cluster.

        `gpu_files`: character devices that each node reports as its GPUs. `rest`: run slurmrestd too, on a Unix socket
        without tokens and on a TCP port with them. `extra_conf`: lines for slurm.conf that take the place of the usual
        ones ("MinJobAge=2") or are added ("PartitionName=...", or configuration.preemption). `root`: a directory that
        scripts/make-slurm-root made, whose Slurm is to be run instead of this machine's. `token`: what the names of the
        cluster's directory and nodes hold, for one that others must find; else a new one.

        Hooks: `prolog`, `epilog` (slurmd, root), `task_epilog` (the job's user), `prolog_slurmctld` and
        `epilog_slurmctld` (the user slurm). JOBTRAIL_HOOK_CONF names `hook_conf` for all of them, or
        `hook_conf_directory`/<node name>.conf on each node and `hook_conf_directory`/slurmctld.conf for slurmctld's.
        """
        self._directory = remains.planned_directory(token)
        self._names = [remains.node_name(self._directory, number) for number in range(1, nodes + 1)]
        self._machine = Machine() if root is None else Root(root)
        self._hooks = hooks
        self._gpu_files = tuple(gpu_files)
        self._with_rest = rest
        self._prolog_flags = prolog_flags
        self._extra_conf = tuple(extra_conf)
        self._stack = contextlib.ExitStack()
        self._daemons: dict[str, Daemon] = {}
        self._layout: configuration.Layout | None = None

    def __enter__(self) -> Self:
        """Start everything; on failure remove what was started and raise ClusterError with the end of the log."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(remains.made_directory(self._directory))
            self._layout = make_layout(self._directory, self._names)
            for user in USERS:
                self._machine.ensure_user(user)
            self._write_files()
            stack.enter_context(self._machine.opened(self.env, self.layout.logs))
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
        """The cluster's own directory; it is there while the cluster runs."""
        return self._directory

    @property
    def node_names(self) -> list[str]:
        """The names of the nodes, which their cgroups bear too."""
        return list(self._names)

    @property
    def machine(self) -> Machine:
        """Whose programs the cluster runs: this machine's, or those of another Debian."""
        return self._machine

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
        return configuration.rest_socket_of(self.directory)

    @property
    def rest_url(self) -> str:
        """Where slurmrestd answers over TCP to those who show a `token`; known once the cluster runs."""
        return f"http://127.0.0.1:{self.layout.rest_port}"

    def stop_slurmd(self, node: str) -> None:
        """Stop one node's slurmd; its jobs go on, each under its slurmstepd."""
        self._daemons[slurmd_of(node)].stop()

    def kill_slurmd(self, node: str) -> None:
        """Kill one node's slurmd (SIGKILL), so that it ends nothing in order; its jobs go on all the same."""
        self._daemons[slurmd_of(node)].kill()

    def start_slurmd(self, node: str) -> None:
        """Start one node's slurmd and wait until slurmctld may use the node."""
        slurmd = self._daemons[slurmd_of(node)]
        slurmd.start()
        slurmd.wait_ready(partial(self._node_is_usable, node))

    def restart_slurmd(self, node: str) -> None:
        """Stop and start one node's slurmd, as an administrator does with jobs running."""
        self.stop_slurmd(node)
        self.start_slurmd(node)

    def stop_controller(self) -> None:
        """Stop slurmctld; it saves its state and knows its jobs when it is started again."""
        self._daemons["slurmctld"].stop()

    def start_controller(self) -> None:
        """Start slurmctld again and wait until it answers."""
        slurmctld = self._daemons["slurmctld"]
        slurmctld.start()
        slurmctld.wait_ready(lambda: accepts(self.layout.slurmctld_port))

    def stop_rest(self) -> None:
        """Stop slurmrestd, on the Unix socket and on TCP; what connects is refused."""
        for name in ("slurmrestd", "slurmrestd-jwt"):
            self._daemons[name].stop()

    def start_rest(self) -> None:
        """Start slurmrestd again and wait until it answers on both."""
        # It does not replace the socket of one that was killed.
        self.rest_socket.unlink(missing_ok=True)
        for name, ready in (("slurmrestd", self._answers_on_socket), ("slurmrestd-jwt", self._answers_on_tcp)):
            self._daemons[name].start()
            self._daemons[name].wait_ready(ready)

    def _answers_on_socket(self) -> bool:
        return accepts_on_socket(self.rest_socket)

    def _answers_on_tcp(self) -> bool:
        return accepts(self.layout.rest_port)

    def _node_is_usable(self, node: str) -> bool:
        return self.node_state(node) in {"idle", "mix", "alloc", "comp"}

    def _write_files(self) -> None:
        layout, write = self.layout, self._machine.write
        for path, user, mode in layout.directories():
            path.mkdir()
            path.chmod(mode)
            self._machine.chown(path, user)
        conf = configuration.slurm_conf(
            layout,
            hooks=write_wrappers(layout.hooks, self._hooks),
            gpus_per_node=len(self._gpu_files),
            prolog_flags=self._prolog_flags,
            extra=self._extra_conf,
        )
        write(remains.slurm_conf_of(layout.directory), conf)
        write(layout.etc / "gres.conf", configuration.gres_conf(self._gpu_files))
        write(layout.etc / "cgroup.conf", cgroups.cgroup_conf_of_this_machine(systemd=self._machine.has_systemd))
        # slurmdbd refuses a file that others can read (slurmdbd.conf(5)).
        write(layout.etc / "slurmdbd.conf", configuration.slurmdbd_conf(layout), mode=0o600, user="slurm")
        write(layout.init_sql, configuration.INIT_SQL)
        write(layout.accounts_file, configuration.accounts_file(USERS))
        write(layout.munge_key, os.urandom(128), mode=0o600)
        write(layout.jwt_key, os.urandom(32), mode=0o600, user="slurm")

    def _start_all(self, stack: contextlib.ExitStack) -> None:
        layout = self.layout
        start = partial(self._start, stack)
        start("munged", configuration.munged_argv(layout), layout.munge_socket.exists)
        self.run_tool(*configuration.install_db_argv(layout))
        start("mariadbd", configuration.mariadbd_argv(layout), layout.database_socket.exists)
        start("slurmdbd", ["slurmdbd", "-D"], lambda: accepts(layout.slurmdbd_port))
        self.run_tool("sacctmgr", "--immediate", "load", f"file={layout.accounts_file}")
        start("slurmctld", ["slurmctld", "-D"], lambda: accepts(layout.slurmctld_port))
        for node in layout.nodes:
            start(slurmd_of(node), ["slurmd", "-D", "-N", node], lambda: True)
        for node in layout.nodes:
            self._daemons[slurmd_of(node)].wait_ready(partial(self._node_is_usable, node))
        if self._with_rest:
            self._start_rest_servers(stack)
        stack.callback(self._cancel_all)

    def _start_rest_servers(self, stack: contextlib.ExitStack) -> None:
        """Start two: one that takes tokens acts as whom they name, and SLURM_JWT would take that from the other too.

        slurmrestd refuses to run as root or as SlurmUser (slurmrestd(8)).
        """
        local = ["slurmrestd", "-a", "rest_auth/local", f"unix:{self.rest_socket}"]
        self._start(stack, "slurmrestd", local, self._answers_on_socket, user="nobody")
        tokens = ["slurmrestd", "-a", "rest_auth/jwt", f"127.0.0.1:{self.layout.rest_port}"]
        self._start(stack, "slurmrestd-jwt", tokens, self._answers_on_tcp, user="nobody", env={"SLURM_JWT": "daemon"})

    def _start(
        self,
        stack: contextlib.ExitStack,
        name: str,
        argv: Sequence[str],
        ready: Callable[[], object],
        *,
        user: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        # slurmdbd's client library finds the database's socket by MYSQL_UNIX_PORT.
        full_env = self.env | {"MYSQL_UNIX_PORT": str(self.layout.database_socket)} | (env or {})
        command = self._machine.command(argv, user=user)
        daemon = Daemon(name, command, env=full_env, log_directory=self.layout.logs)
        self._daemons[name] = daemon
        stack.callback(daemon.stop)
        daemon.start()
        daemon.wait_ready(ready)

    def _cancel_all(self) -> None:
        """End all jobs in order; what does not end (a stopped slurmd cannot run its epilog) is killed later."""
        for partition in self.run_tool("sinfo", "--noheader", "--format=%R").split():
            self.run_tool("scancel", f"--partition={partition}")
        poll_until(lambda: not self.run_tool("squeue", "--noheader"), seconds=60, what="all jobs to end")


def slurmd_of(node: str) -> str:
    """Return the name of a node's slurmd among the daemons."""
    return f"slurmd-{node}"


def make_layout(directory: Path, nodes: Sequence[str]) -> configuration.Layout:
    """Choose free ports for a cluster of the `nodes` in `directory`."""
    ports = free_ports(len(nodes) + 3)
    return configuration.Layout(
        directory=directory,
        nodes=list(nodes),
        slurmctld_port=ports[0],
        slurmdbd_port=ports[1],
        rest_port=ports[2],
        slurmd_ports=ports[3:],
    )

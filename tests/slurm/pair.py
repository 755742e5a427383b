"""Two real Slurm nodes, each with its daemon; the first daemon also asks Slurm what became of the jobs."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from tests.daemon_process import Daemon, wait_until
from tests.slurm import remains
from tests.slurm.cluster import SlurmCluster
from tests.slurm.hooks import HookFiles
from tests.slurm.observed import CLUSTER, HOOKS, Observed, Row

COMPARE_SECONDS = 4.0
POLL_SECONDS = 1.0
GPUS = 2
ALL_HOOKS = ("prolog", "epilog", "task_epilog", "prolog_slurmctld", "epilog_slurmctld")


class Pair(Observed):
    """Both nodes' daemons, the cluster and the database of one test module."""

    def __init__(self, cluster: SlurmCluster, daemons: Sequence[Daemon], url: str) -> None:
        super().__init__(cluster, daemons[0], url)
        self.daemons = daemons

    def runs(self, slurm_id: int) -> list[Row]:
        """All runs of a job, oldest first."""
        return self.rows("SELECT * FROM jobs WHERE job_id = %s ORDER BY run", f"slurm-{slurm_id}")

    def confirmed(self, slurm_id: int, *, runs: int = 1, seconds: float = 120.0) -> Row:
        """The newest run once there are `runs` of them, all confirmed by Slurm."""

        def condition() -> list[Row] | None:
            rows = self.runs(slurm_id)
            return rows if len(rows) >= runs and all(row["state_confirmed"] for row in rows) else None

        try:
            return wait_until(condition, f"{runs} confirmed runs of job {slurm_id}", timeout_seconds=seconds)[-1]
        except AssertionError as error:
            seen = [self._brief(row) for row in self.runs(slurm_id)]
            raise AssertionError(f"{error}; there are {seen}; the daemon warned:\n{self.warnings()}") from None

    def warnings(self) -> str:
        """What the first daemon's log has above the routine, lately."""
        lines = self.daemon.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([line for line in lines if '"level": "debug"' not in line and "accepted" not in line][-15:])

    @staticmethod
    def _brief(row: Row) -> tuple[Any, ...]:
        return row["run"], row["state"], row["raw_state"], row["verdict"], row["state_confirmed"]

    def parts(self, slurm_id: int) -> list[Row]:
        """The nodes' rows of all runs of a job."""
        return self.rows("SELECT * FROM job_nodes WHERE job_id = %s ORDER BY run, node", f"slurm-{slurm_id}")

    def finished(self, script: str, *arguments: str, **options: Any) -> Row:
        """Submit a job, wait for its end, and return its confirmed row."""
        slurm_id = self.cluster.submit(script, *arguments, **options)
        self.cluster.wait_finished(slurm_id)
        return self.confirmed(slurm_id)


@contextmanager
def observed_pair(
    *,
    extra_conf: Sequence[str] = (),
    root: Path | None = None,
    all_hooks: bool = False,
    rest: bool = True,
    slurm: Mapping[str, Any] | None = None,
) -> Iterator[Pair]:
    """Start PostgreSQL, a daemon for each node, and Slurm with the project's hooks.

    `root`: where another Debian is whose Slurm is to be run. `all_hooks`: those of slurmctld and of tasks too. The
    first daemon asks slurmrestd, without `rest` sacct. `slurm`: settings of the first daemon's section of that name.
    """
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-pair-"))
    directory.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        hooks, confs = _copies_of_hooks(directory, ALL_HOOKS if all_hooks else ALL_HOOKS[:2])
        cluster = SlurmCluster(
            nodes=2,
            rest=True,
            gpu_files=_gpu_files(directory),
            extra_conf=extra_conf,
            root=root,
            **hooks,
        )
        url = stack.enter_context(embedded_postgres.running(directory / "postgres"))
        migrate.upgrade(url)
        asks: dict[str, Any] = {"conf": str(remains.slurm_conf_of(cluster.directory))}
        if rest:
            asks |= {"rest_url": f"unix:{cluster.rest_socket}", "sacct": ""}
        asks |= {"poll_seconds": POLL_SECONDS, "compare_seconds": COMPARE_SECONDS, "nodes_seconds": 2.0}
        asks |= slurm or {}
        daemons = [
            _daemon(directory, name, url, roles=["node", "server"] if first else ["node"], slurm=asks)
            for first, name in zip((True, False), cluster.node_names, strict=True)
        ]
        for name, daemon in zip([*cluster.node_names, "slurmctld"], [*daemons, daemons[0]], strict=True):
            poke = f"JOBTRAIL_POKE_SOCKET={daemon.socket.with_name('poke.sock')}\n"
            conf = f"JOBTRAIL_SOCKET={daemon.socket}\nJOBTRAIL_SPOOL={daemon.spool}\n{poke}"
            (confs / f"{name}.conf").write_text(conf)
        for daemon in daemons:
            stack.enter_context(daemon)
        stack.enter_context(cluster)
        yield Pair(cluster, daemons, url)


def _daemon(directory: Path, node: str, url: str, *, roles: list[str], slurm: dict[str, Any]) -> Daemon:
    return Daemon(
        directory / node,
        node=node,
        cluster=CLUSTER,
        roles=roles,
        database={"url": url},
        slurm=slurm,
        http={"slurm_user": "slurm", "socket_group": "slurm"},
    )


def _copies_of_hooks(directory: Path, names: Sequence[str]) -> tuple[HookFiles, Path]:
    """Hooks as an administrator installs them, and the directory of their settings."""
    installed, confs = directory / "hooks", directory / "confs"
    installed.mkdir()
    confs.mkdir()
    hooks = HookFiles(hook_conf_directory=confs)
    for name in names:
        shutil.copy(HOOKS / f"{name}.sh", installed)
        (installed / f"{name}.sh").chmod(0o755)
        hooks[name] = installed / f"{name}.sh"  # type: ignore[literal-required]
    return hooks, confs


def _gpu_files(directory: Path) -> list[Path]:
    """Character devices that can be opened, so that slurmd takes them for GPUs."""
    files = [directory / f"gpu{number}" for number in range(GPUS)]
    for file in files:
        os.mknod(file, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    return files

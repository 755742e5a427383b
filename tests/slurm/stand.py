"""The tests' cluster on its own, for trying things out: `python3 -m tests.slurm.stand`; SIGTERM or Ctrl-C ends it.

The container `slurm` of docker-compose.yml runs this, so what people try there is set up by what the tests use. It
needs what the tests need (root, Slurm, MariaDB), and no module beyond Python's own.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.slurm import remains
from tests.slurm.cluster import USERS, SlurmCluster
from tests.slurm.daemons import ClusterError
from tests.slurm.hooks import HookFiles

TOKEN = "try"
"""In the names of the cluster's directory, /tmp/jobtrail-cluster-try, and of its node, jttryn1."""


def main(arguments: Sequence[str]) -> int:
    """Start the cluster, say how to use it, and stop it at a signal. Exit status 1 where it could not start."""
    options = _parse(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    remains.remove_abandoned()
    try:
        hooks = hooks_in(options.hooks, with_task_epilog=options.task_epilog)
        with SlurmCluster(rest=True, token=options.token, **hooks) as cluster:
            if options.link is not None:
                link(options.link, remains.slurm_conf_of(cluster.directory))
            sys.stdout.write(greeting(cluster))
            sys.stdout.flush()
            stop.wait()
    except ClusterError as error:
        sys.stderr.write(f"stand: {error}\n")
        return 1
    return 0


def hooks_in(directory: Path | None, *, with_task_epilog: bool) -> HookFiles:
    """The hooks of `directory`, named as in hooks/slurm; raises ClusterError where one is missing."""
    found = HookFiles()
    if directory is None:
        return found
    wanted = ["prolog", "epilog", *(["task_epilog"] if with_task_epilog else [])]
    for name in wanted:
        path = directory / f"{name}.sh"
        if not os.access(path, os.X_OK):
            raise ClusterError(f"{path} is no program that can be run")
    if with_task_epilog:
        found["task_epilog"] = directory / "task_epilog.sh"
    found["prolog"], found["epilog"] = directory / "prolog.sh", directory / "epilog.sh"
    return found


def link(place: Path, target: Path) -> None:
    """Make `place` a link to `target`, instead of an older link; raises ClusterError where a file is in the way."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    try:
        place.symlink_to(target)
    except FileExistsError:
        raise ClusterError(f"{place} is there and no link; move it away or leave --link out") from None


def greeting(cluster: SlurmCluster) -> str:
    """What to type now."""
    conf = remains.slurm_conf_of(cluster.directory)
    users = " and ".join(USERS)
    return (
        f"Slurm runs, one node ({cluster.node_names[0]}); users who submit jobs: {users}.\n"
        f"SLURM_CONF={conf}\n"
        f"slurmrestd: unix:{cluster.rest_socket}\n"
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.slurm.stand", description="A single-node Slurm, until told."
    )
    parser.add_argument("--hooks", type=Path, metavar="DIR", help="run prolog.sh and epilog.sh of this directory")
    parser.add_argument("--task-epilog", action="store_true", help="and its task_epilog.sh")
    parser.add_argument("--link", type=Path, metavar="FILE", help="make FILE a link to the cluster's slurm.conf")
    parser.add_argument("--token", default=TOKEN, metavar="WORD", help=f"in the names of node and directory ({TOKEN})")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A real Slurm cluster on which users run benchmarks with the real vLLM, observed by the real daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from tests.daemon_process import REPOSITORY, Daemon, wait_until
from tests.slurm.cluster import SlurmCluster
from tests.slurm.commands import DEFAULT_USER
from tests.slurm.machine import SYSTEM_PATH
from tests.slurm.observed import CLUSTER, HOOKS, Observed, Row
from tests.vllm.meter import Meter

PATIENCE_SECONDS = 150.0  # a job's last samples are waited for during a minute after its end
RUN_SECONDS = 900  # of a run of a minute: machines for tests are small, and shared
SETTLE_SECONDS = 1.0
WATTS = 50.0  # of all processors of the test's machine, by its meter
GRAMS_PER_KWH = 100.0


class Benched(Observed):
    """Cluster, daemon, database, and what a user of benchmarks has: Jobtrail and vLLM in one environment."""

    def __init__(
        self, cluster: SlurmCluster, daemon: Daemon, url: str, *, environment: Path, model: Path, meter: Meter
    ) -> None:
        super().__init__(cluster, daemon, url)
        self.model = model
        self.meter = meter
        self._environment = environment
        self._package = daemon.directory.with_name("package")
        self._home = cluster.jobs_directory / "home"

    def prepare_user(self) -> None:
        """Install Jobtrail as its users have it: a wheel, with the recipes in it; give the user a home."""
        _install_wheel(self._package)
        self._home.mkdir()
        self.cluster.machine.chown(self._home, DEFAULT_USER)

    def user_env(self) -> dict[str, str]:
        """The user's environment, on the login node and in jobs."""
        return {
            **self.cluster.env,
            "HOME": str(self._home),
            "PATH": os.pathsep.join([str(self._environment / "bin"), SYSTEM_PATH]),
            "PYTHONPATH": str(self._package),
            "JOBTRAIL_POKE_SOCKET": str(self.daemon.socket.with_name("poke.sock")),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "2",
        }

    def bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `jobtrail bench …` as the user and wait for its end."""
        return subprocess.run(
            self._argv(*arguments), env=self.user_env(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
        )  # fmt: skip

    def _argv(self, *arguments: str) -> list[str]:
        argv = [str(self._environment / "bin" / "python"), "-m", "jobtrail", "bench", *arguments]
        return self.cluster.machine.command(argv, user=DEFAULT_USER, directory=self._home)

    def run_recipe(self, recipe: str, **settings: object) -> Run:
        """Submit a recipe with the tiny model as the user does, wait for its end, and check that it went well."""
        done = self.bench("run", recipe, *self.settings(**settings), "--wait", "--json")
        assert done.returncode == 0, self._told(done)
        return Run(json.loads(done.stdout))

    def submit_recipe(self, recipe: str, **settings: object) -> Run:
        """Submit a recipe, and do not wait."""
        done = self.bench("run", recipe, *self.settings(**settings), "--json")
        assert done.returncode == 0, self._told(done)
        return Run(json.loads(done.stdout))

    def asked(self, *arguments: str) -> Any:
        """What `jobtrail bench … --json` tells the user."""
        done = self.bench(*arguments, "--json")
        assert done.returncode == 0, self._told(done)
        return json.loads(done.stdout)

    def settings(self, **settings: object) -> list[str]:
        """`--set` for each, and for the model; a place of the recipe is a key with points."""
        named = {"model": self.model, **settings}
        return [word for name, value in named.items() for word in ("--set", f"{name}={value}")]

    def _told(self, done: subprocess.CompletedProcess[str]) -> str:
        logs = [f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in self._home.rglob("*.log")]
        return "\n".join([f"{done.args}: {done.returncode}", done.stdout, done.stderr, *logs, self.daemon.tail()])

    def summary(self, run: Run) -> Row | None:
        """The run's row of view benchmark_run_summary; None before it is stored."""
        rows = self.rows("SELECT * FROM benchmark_run_summary WHERE run_uid = %s", run.uid)
        return rows[0] if rows else None

    def settled(self, run: Run) -> Row:
        """The row once nothing more of it is awaited, from the job's end to its energy."""

        def condition() -> Row | None:
            row = self.summary(run)
            return row if row is not None and row["settled_at"] is not None else None

        try:
            return wait_until(condition, f"the row of run {run.uid}", timeout_seconds=PATIENCE_SECONDS)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; it is {self.summary(run)}; the daemon's log:\n{self.daemon.tail()}"
            ) from None


class Run:
    """What `jobtrail bench run --json` said, and the directory it named."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.uid = str(told["run_uid"])
        self.directory = Path(told["directory"])

    @property
    def slurm_id(self) -> int:
        """The job's id as Slurm has it."""
        return int(json.loads((self.directory / "run.json").read_bytes())["job_id"])

    @property
    def results(self) -> list[Path]:
        """The files that vLLM itself wrote, by repeat."""
        return sorted(self.directory.glob("result-*.json"))

    def manifest(self) -> dict[str, Any]:
        """The run's report."""
        return dict(json.loads((self.directory / "manifest.json").read_bytes()))


@contextmanager
def benched_cluster(environment: Path, model: Path) -> Iterator[Benched]:
    """Start PostgreSQL, the daemon, and Slurm with the project's hooks and slurmrestd."""
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-bench-"))
    directory.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        hooks = directory / "hooks"
        hooks.mkdir()
        for name in ("prolog", "epilog"):
            shutil.copy(HOOKS / f"{name}.sh", hooks)
            (hooks / f"{name}.sh").chmod(0o755)
        conf = hooks / "hook.conf"
        cluster = SlurmCluster(
            rest=True,
            prolog=hooks / "prolog.sh",
            epilog=hooks / "epilog.sh",
            hook_conf=conf,
            extra_conf=["KillWait=30"],  # the default of slurm.conf(5), in which a run stops its server and reports
        )
        url = stack.enter_context(embedded_postgres.running(directory / "postgres"))
        migrate.upgrade(url)
        meter = stack.enter_context(Meter(directory / "root", watts=WATTS))
        daemon = Daemon(directory / "daemon", **_settings(cluster, url, root=directory / "root"))
        conf.write_text(f"JOBTRAIL_SOCKET={daemon.socket}\nJOBTRAIL_SPOOL={daemon.spool}\n")
        stack.enter_context(daemon)
        stack.enter_context(cluster)
        running = Benched(cluster, daemon, url, environment=environment, model=model, meter=meter)
        running.prepare_user()
        yield running


def _settings(cluster: SlurmCluster, url: str, *, root: Path) -> dict[str, Any]:
    return {
        "node": cluster.node_names[0],
        "cluster": CLUSTER,
        "roles": ["node", "server"],
        "database": {"url": url},
        "slurm": {
            "rest_url": f"unix:{cluster.rest_socket}",
            "sacct": "",
            "poll_seconds": 1.0,
            "compare_seconds": 4.0,
            "nodes_seconds": 2.0,
        },
        "http": {"slurm_user": "slurm", "socket_group": "slurm"},
        "gpu": {"vendors": "none", "root": str(root), "interval_seconds": 1.0},
        "energy": {"emission_factor": GRAMS_PER_KWH},
        "benchmarks": {"settle_seconds": SETTLE_SECONDS},
    }


def _install_wheel(target: Path) -> None:
    """What `pip install jobtrail` would bring, without what it needs: that is in vLLM's environment already."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--root-user-action=ignore", "--target", str(target)]
    argv = [sys.executable, "-m", "pip", "install", "--quiet", *options, str(REPOSITORY)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr

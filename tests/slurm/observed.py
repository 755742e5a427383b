"""A real Slurm cluster whose jobs the project's own hooks and daemon observe, with a real PostgreSQL."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from tests.daemon_process import REPOSITORY, Daemon, wait_until
from tests.slurm.cluster import SlurmCluster

HOOKS = REPOSITORY / "hooks" / "slurm"
CLUSTER = "trailtest"
CHECKPOINT_SECONDS = 3.0
# Of a job that is to be requeued: its first run does not end by itself, however late that is asked for.
FIRST_RUN_STAYS = '[ "${SLURM_RESTART_COUNT:-0}" != 0 ] || exec sleep 600'
UNTIL_OPEN = "until [ -e {gate} ]; do sleep 0.1; done"

Row = dict[str, Any]


class Observed:
    """Cluster, daemon and database of one test session."""

    def __init__(self, cluster: SlurmCluster, daemon: Daemon, url: str) -> None:
        self.cluster = cluster
        self.daemon = daemon
        self.url = url

    def rows(self, query: str, *arguments: object) -> list[Row]:
        """Rows of a query on the database."""
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return connection.execute(query, arguments or None).fetchall()  # type: ignore[arg-type]

    def job(self, slurm_id: int) -> Row | None:
        """The newest run of a job, None while it is not stored."""
        rows = self.rows("SELECT * FROM jobs WHERE job_id = %s ORDER BY run DESC", f"slurm-{slurm_id}")
        return rows[0] if rows else None

    def settled(self, slurm_id: int) -> Row:
        """The job once its end and its final usage are stored."""

        def condition() -> Row | None:
            kinds = [row["event_kind"] for row in self.trail(slurm_id)]
            return self.job(slurm_id) if {"job_finished", "usage_recorded"} <= set(kinds) else None

        return wait_until(condition, f"the end of job {slurm_id}; the daemon's log:\n{self.daemon.tail()}")

    def run_to_end(self, script: str, *arguments: str, **options: Any) -> Row:
        """Submit a job, wait for its end, and return its settled row."""
        slurm_id = self.cluster.submit(script, *arguments, **options)
        self.cluster.wait_finished(slurm_id)
        return self.settled(slurm_id)

    def gate(self, name: str) -> Path:
        """A file that is not there; a job that runs UNTIL_OPEN with it ends once the test has made it."""
        return self.cluster.jobs_directory / f"gate-{name}"

    def trail(self, slurm_id: int) -> list[Row]:
        """The job's audit rows, oldest first."""
        return self.rows("SELECT * FROM job_audit_events WHERE job_id = %s ORDER BY changed_at", f"slurm-{slurm_id}")

    def samples(self, slurm_id: int) -> list[Row]:
        """The job's stored samples, oldest first."""
        return self.rows("SELECT * FROM job_samples WHERE job_id = %s ORDER BY sampled_at", f"slurm-{slurm_id}")

    def series(self, slurm_id: int) -> set[str]:
        """Names of the samples that /metrics shows for a job now."""
        wanted = f"slurm-{slurm_id}"
        page = self.daemon.metrics()
        return {name for name, found in page.items() if any(labels.get("job_id") == wanted for labels, _ in found)}

    def incoming(self) -> list[Path]:
        """What hooks left while the daemon was down."""
        return [path for path in (self.daemon.spool / "incoming").glob("*") if not path.name.startswith(".")]

    def rebuild_check(self) -> dict[str, Any]:
        """`jobtrail audit rebuild --check --json`."""
        return dict(json.loads(self.daemon.cli("audit", "rebuild", "--check", "--json").stdout))


@contextmanager
def observed_cluster() -> Iterator[Observed]:
    """Start PostgreSQL, the daemon and Slurm with the hooks copied next to each other, as an administrator would."""
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-slurm-"))
    directory.chmod(0o755)
    try:
        conf = _copy_hooks(directory)
        with embedded_postgres.running(directory / "postgres") as url:
            migrate.upgrade(url)
            daemon = Daemon(
                directory / "daemon",
                database={"url": url},
                sampling={"checkpoint_seconds": CHECKPOINT_SECONDS},
                slurm={"sacct": ""},  # what hooks alone can tell; tests/slurm/test_truth.py has the rest
                http={"slurm_user": "slurm"},
            )
            conf.write_text(f"JOBTRAIL_SOCKET={daemon.socket}\nJOBTRAIL_SPOOL={daemon.spool}\n")
            hooks = directory / "hooks"
            with (
                daemon,
                SlurmCluster(prolog=hooks / "prolog.sh", epilog=hooks / "epilog.sh", hook_conf=conf) as cluster,
            ):
                yield Observed(cluster, daemon, url)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _copy_hooks(directory: Path) -> Path:
    """Copy the two files and say where their settings will be."""
    (directory / "hooks").mkdir()
    for name in ("prolog.sh", "epilog.sh"):
        shutil.copy(HOOKS / name, directory / "hooks" / name)
        (directory / "hooks" / name).chmod(0o755)
    return directory / "hooks" / "hook.conf"

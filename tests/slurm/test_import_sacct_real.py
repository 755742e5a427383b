"""The command that `jobtrail import-sacct` asks for, run by a real sacct on jobs with hostile names."""

from __future__ import annotations

import subprocess

from jobtrail.adapters.sacct.printed import COMMAND, read_printed
from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import poll_until

NAMES = ("plain", "a|b", "two\nlines", "x<0123456789abcdef>y")


def printed(cluster: SlurmCluster) -> str:
    """What the command prints in a shell."""
    done = subprocess.run(
        ["sh", "-c", COMMAND], env=cluster.env, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_printed_command_makes_a_file_that_is_read_whole(cluster: SlurmCluster) -> None:
    jobs = {cluster.submit("exit 0", f"--job-name={name}"): name for name in NAMES}

    def told() -> dict[str, str | None] | None:
        batches = list(read_printed(printed(cluster)))
        assert [complaint for batch in batches for complaint in batch.complaints] == []
        found = {one.job_id: one.facts.job_name for batch in batches for one in batch.records if one.is_final}
        wanted = {f"slurm-{job}": found.get(f"slurm-{job}") for job in jobs}
        return wanted if all(f"slurm-{job}" in found for job in jobs) else None

    names = poll_until(told, what="slurmdbd to know all jobs as over", step_seconds=0.5)
    assert names == {f"slurm-{job}": name for job, name in jobs.items()}

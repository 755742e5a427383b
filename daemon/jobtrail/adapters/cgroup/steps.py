"""Which steps of which jobs have a cgroup on this node."""

from __future__ import annotations

from collections.abc import Iterable

from jobtrail.adapters.cgroup.layout import subdirectories
from jobtrail.domain.samples import FoundJob


def steps_of(found: Iterable[FoundJob]) -> dict[str, frozenset[str]]:
    """Names such as `step_batch`, by public id; none for a job whose cgroup has gone meanwhile.

    Slurm removes a job's cgroup with the last of its steps. So it lasts as long as the job only on the host of the
    batch step, or where each job has an extern step (PrologFlags=Contain in slurm.conf(5)).
    """
    return {
        job.job_id: frozenset(name for name in subdirectories(job.path) if name.startswith("step_")) for job in found
    }

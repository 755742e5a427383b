"""Open runs and sample rows for the tests of core."""

from jobtrail.core.ports import OpenRun, SampleRow
from jobtrail.domain.events import NodeUsage
from jobtrail.domain.samples import Reading, Target

T0 = 1_760_000_000_000_000


def open_run(
    name: str = "a", *, started_us: int = T0, cpus: int | None = 2, usage: NodeUsage | None = None, node: str = "n1"
) -> OpenRun:
    """Run `ref-<name>` of job `slurm-<name>`."""
    target = Target(ref=f"ref-{name}", cluster="c1", job_id=f"slurm-{name}", node=node, uid=1001)
    return OpenRun(target=target, started_us=started_us, cpus=cpus, usage=usage)


def row(number: int) -> SampleRow:
    """A sample row that can be told from others."""
    reading = Reading(time_us=T0 + number, source="cgroup_v2")
    return SampleRow(cluster="c1", job_id="slurm-a", node="n1", ref="ref-a", reading=reading)

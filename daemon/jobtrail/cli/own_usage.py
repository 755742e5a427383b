"""A last look at a local job's own cgroup, by the process that made it."""

from __future__ import annotations

import time
from pathlib import Path

from jobtrail.adapters.cgroup import CgroupReader
from jobtrail.adapters.own_cgroup import OwnCgroup
from jobtrail.config import Config
from jobtrail.domain.events import Whereabouts
from jobtrail.domain.samples import Reading, Target


def read_cgroup(config: Config, cgroup: OwnCgroup, cpu_seconds: float) -> tuple[float, int | None]:
    """CPU seconds of the cgroup, the given ones where it does not tell; its peak memory in bytes, or None."""
    reader = CgroupReader(Path(config.sampling.cgroup_root), clock_us=lambda: time.time_ns() // 1000)
    target = Target(
        ref="own",
        cluster=config.local_cluster,
        job_id="local-0",
        node=config.node_name,
        whereabouts=Whereabouts(cgroup_path=cgroup.path),
    )
    reader.attach(target)
    reading = reader.read(["own"])["own"]
    reader.detach("own")
    if not isinstance(reading, Reading):
        return cpu_seconds, None
    cpu = cpu_seconds if reading.cpu_usage_us is None else reading.cpu_usage_us / 1e6
    return cpu, reading.memory_peak_bytes

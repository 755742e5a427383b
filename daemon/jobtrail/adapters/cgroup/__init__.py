"""Resource counters of jobs from the kernel's control groups, versions 1 and 2."""

from jobtrail.adapters.cgroup.reader import CgroupReader
from jobtrail.adapters.cgroup.steps import steps_of

__all__ = ["CgroupReader", "steps_of"]

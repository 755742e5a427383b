"""Resource counters of jobs from the kernel's control groups, versions 1 and 2."""

from jobtrail.adapters.cgroup.reader import CgroupReader
from jobtrail.adapters.cgroup.steps import StepFinder

__all__ = ["CgroupReader", "StepFinder"]

"""Resource counters of jobs from the kernel's control groups, versions 1 and 2."""

from jobtrail.adapters.cgroup.reader import CgroupReader

__all__ = ["CgroupReader"]

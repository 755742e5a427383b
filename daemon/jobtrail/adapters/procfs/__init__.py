"""Resource counters from /proc: of process trees, and of the node itself."""

from jobtrail.adapters.procfs.node import NodeProc
from jobtrail.adapters.procfs.tree import ProcessTreeReader

__all__ = ["NodeProc", "ProcessTreeReader"]

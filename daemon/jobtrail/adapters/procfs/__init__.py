"""From /proc: resource counters of process trees and of the node itself, where processes stand, the node's boot."""

from jobtrail.adapters.procfs.boot import read_boot_id, read_boot_time_us
from jobtrail.adapters.procfs.node import NodeProc
from jobtrail.adapters.procfs.places import ProcessPlacesReader
from jobtrail.adapters.procfs.tree import ProcessTreeReader

__all__ = ["NodeProc", "ProcessPlacesReader", "ProcessTreeReader", "read_boot_id", "read_boot_time_us"]

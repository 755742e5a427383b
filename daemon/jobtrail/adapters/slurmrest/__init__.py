"""What Slurm says through slurmrestd: tolerant of data versions, sparing of slurmctld.

The modules in the order of a question: client (the ports, paced), conversation (version, failures), exchange (HTTP),
answers (bytes to records), jobs, accounting and nodes (records), normal and tres (values).
"""

from jobtrail.adapters.slurmrest.client import SlurmRest
from jobtrail.adapters.slurmrest.settings import RestSettings

__all__ = ["RestSettings", "SlurmRest"]

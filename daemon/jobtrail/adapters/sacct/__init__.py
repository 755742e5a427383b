"""Slurm's accounting through its commands: sacct(1) for sites that run no slurmrestd, sacctmgr(1) for comments."""

from jobtrail.adapters.sacct.command import Sacct
from jobtrail.adapters.sacct.comments import SlurmComments

__all__ = ["Sacct", "SlurmComments"]

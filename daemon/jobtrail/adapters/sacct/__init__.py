"""Slurm's accounting through its command sacct(1), for sites that run no slurmrestd."""

from jobtrail.adapters.sacct.command import Sacct

__all__ = ["Sacct"]

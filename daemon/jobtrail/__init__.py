"""Event-driven, audited job observability for Slurm clusters."""

__version__ = "0.1.0"

"""The node's durable event queue: one SQLite file, one writer thread, one flush for all events that wait together."""

from jobtrail.adapters.spool.sqlite_spool import SqliteSpool

__all__ = ["SqliteSpool"]

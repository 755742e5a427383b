"""Builds of the daemon with one safety taken out, made from its real sources: what the fault tests must catch."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.daemon_process import REPOSITORY

SPOOL = "jobtrail/adapters/spool"


@dataclass(frozen=True)
class Change:
    """In `file` of daemon/, what stands there once becomes something else."""

    file: str
    there: str
    instead: str


NO_FSYNC = (
    Change(f"{SPOOL}/schema.py", '"PRAGMA synchronous = FULL"', '"PRAGMA synchronous = OFF"'),
    Change(f"{SPOOL}/schema.py", '("synchronous", 2)', '("synchronous", 0)'),
)
# Each transaction is committed when the next one begins, and was acknowledged before.
ACK_BEFORE_COMMIT = (
    Change(
        f"{SPOOL}/journal.py",
        '            self._connection.execute("BEGIN IMMEDIATE")\n            for operation in operations:',
        "            if self._connection.in_transaction:\n"
        '                self._connection.execute("COMMIT")\n'
        '            self._connection.execute("BEGIN IMMEDIATE")\n            for operation in operations:',
    ),
    Change(f"{SPOOL}/journal.py", '            self._connection.execute("COMMIT")\n        except', "        except"),
)
NO_DEDUPLICATION = (
    Change(f"{SPOOL}/journal.py", "held = self._held(event_id)", "held = None"),
    Change(
        f"{SPOOL}/schema.py", "    event_id BLOB NOT NULL UNIQUE,\n    chain_id", "    event_id BLOB,\n    chain_id"
    ),
)
NO_FLOCK = (Change(f"{SPOOL}/directory.py", "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)", "fcntl.LOCK_EX"),)
# SQLite without its own locks (sqlite.org/vfs.html, unix-none), as where a file system's fcntl(2) locks hold nobody.
NO_SQLITE_LOCK = (
    Change(
        f"{SPOOL}/schema.py",
        "sqlite3.connect(path, isolation_level=None, timeout=0)",
        'sqlite3.connect(f"file:{path}?vfs=unix-none", uri=True, isolation_level=None, timeout=0)',
    ),
)


def build(directory: Path, changes: tuple[Change, ...]) -> Path:
    """A copy of daemon/ with `changes`; the sources must be such that each change applies exactly once."""
    source = directory / "broken"
    shutil.copytree(REPOSITORY / "daemon", source, ignore=shutil.ignore_patterns("__pycache__"))
    for change in changes:
        path = source / change.file
        text = path.read_text(encoding="utf-8")
        assert text.count(change.there) == 1, f"{change.file} does not hold once: {change.there}"
        path.write_text(text.replace(change.there, change.instead), encoding="utf-8")
    return source

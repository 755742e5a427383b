"""What a hook does with an event that the daemon did not accept: the same event, durably, in the spool."""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hooks.conftest import Replace, Site
from tests.hooks.hook_process import (
    HOOKS,
    assert_harmless,
    expected_records,
    incoming,
    records,
    run_hook,
    spool_file,
)
from tests.hooks.socket_server import SocketServer
from tests.requirements import require_root, require_tool, unmet

FROZEN_SERVER = """
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(8)
print("listening", flush=True)
while True:
    server.accept()[0].sendall(b"HTTP/1.1 201 Created\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""


@contextmanager
def frozen_server(path: Path) -> Iterator[None]:
    """A server process that listens on `path` and is stopped: the kernel still takes connections for it."""
    process = subprocess.Popen([sys.executable, "-c", FROZEN_SERVER, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        yield
    finally:
        process.kill()
        process.communicate()


def assert_kept(site: Site, hook: str = "prolog") -> None:
    """Assert that one whole event of `hook` lies in the spool, for the daemon alone to read."""
    (path,) = incoming(site.spool)
    kept = spool_file(path)
    assert kept.mode == 0o600
    assert kept.header["JOBTRAIL_HOOK"] == hook
    assert kept.header["JOBTRAIL_EVENT_ID"] == kept.name
    assert re.fullmatch(r"\d{10}\.\d{9}", kept.header["JOBTRAIL_EVENT_TIME"])
    assert records(kept.body) == [b"SLURM_JOB_ID=4711"]


@pytest.mark.parametrize("status", [302, 304, 400, 409, 500, 503])
def test_a_refused_event_is_kept_with_the_id_time_and_body_that_were_tried(site: Site, status: int) -> None:
    """The daemon recognises the spooled event as the one it was offered: same id, same time, same bytes."""
    environment = site.settings(SLURM_JOB_COMMENT=b"a\nb\xff" + b"x" * 90_000, CUDA_VISIBLE_DEVICES="1,0")
    with SocketServer(site.socket, status=status) as server:
        assert_harmless(site.run_with(environment, "epilog"))
    (request,) = server.requests
    (path,) = incoming(site.spool)
    kept = spool_file(path)
    assert kept.name == request.headers["jobtrail-event-id"]
    assert kept.mode == 0o600
    assert kept.header == {
        "JOBTRAIL_HOOK": "epilog",
        "JOBTRAIL_EVENT_ID": request.headers["jobtrail-event-id"],
        "JOBTRAIL_EVENT_TIME": request.headers["jobtrail-event-time"],
    }
    assert kept.body == request.body
    assert records(kept.body) == expected_records(environment)


@pytest.mark.parametrize("status", [200, 201])
def test_an_accepted_event_is_not_kept(site: Site, status: int) -> None:
    """A 2xx answer means that the daemon has it on disk."""
    with SocketServer(site.socket, status=status):
        assert_harmless(site.run())
    assert incoming(site.spool) == []


def test_a_server_that_never_answers(site: Site) -> None:
    """The default limit for the daemon is one second; the event is then kept."""
    with SocketServer(site.socket, status=None) as server:
        run = site.run("epilog")
    assert_harmless(run)
    assert run.seconds >= 1.0
    assert len(server.requests) == 1
    assert_kept(site, "epilog")


def test_a_stopped_server(site: Site) -> None:
    """A daemon frozen by SIGSTOP (or by the freezer) accepts no event, though the kernel takes the connection."""
    with frozen_server(site.socket):
        assert_harmless(site.run())
    assert_kept(site)


def test_no_socket(site: Site) -> None:
    """The daemon is not installed yet, or gone."""
    assert_harmless(site.run())
    assert_kept(site)


def test_a_socket_that_nobody_listens_on(site: Site) -> None:
    """The daemon was killed and left its socket behind."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(site.socket))
    assert_harmless(site.run())
    assert_kept(site)


@pytest.mark.parametrize("what", ["file", "directory", "fifo", "too-long"])
def test_a_socket_that_is_none(site: Site, what: str) -> None:
    """Whatever lies under the socket's name, the event is kept."""
    name = str(site.socket)
    if what == "file":
        site.socket.write_bytes(b"")
    elif what == "directory":
        site.socket.mkdir()
    elif what == "fifo":
        os.mkfifo(site.socket)
    else:
        name = "/" + "x" * 200
    assert_harmless(site.run(JOBTRAIL_SOCKET=name))
    assert_kept(site)


def test_a_missing_spool_directory_is_made_for_root_alone(site: Site) -> None:
    """The package makes the directory; where it is gone, an event is worth making it again."""
    shutil.rmtree(site.spool)
    assert_harmless(site.run())
    assert_kept(site)
    assert stat.S_IMODE((site.spool / "incoming").stat().st_mode) == 0o700


@pytest.mark.parametrize("way", ["spool", "incoming"])
def test_a_file_in_the_way_of_the_spool(site: Site, way: str) -> None:
    """The event is lost then; the job is not harmed."""
    shutil.rmtree(site.spool)
    if way == "incoming":
        site.spool.mkdir()
        (site.spool / "incoming").write_bytes(b"")
    else:
        site.spool.write_bytes(b"")
    assert_harmless(site.run())
    found = site.spool if way == "spool" else site.spool / "incoming"
    assert found.read_bytes() == b""


def test_a_read_only_spool(dash_site: Site) -> None:
    """proc(5) refuses new files also to root."""
    assert_harmless(dash_site.run(JOBTRAIL_SPOOL="/proc/self"))


def test_a_full_disk_leaves_no_half_event(site: Site) -> None:
    """An event that does not fit leaves nothing behind, not even under a temporary name."""
    require_root("only root can mount a file system of limited size")
    mount = require_tool("mount", "it mounts a file system of limited size")
    options = ["-t", "tmpfs", "-o", "size=64k", "none", str(site.spool)]
    if subprocess.run([mount, *options], capture_output=True, check=False).returncode != 0:
        unmet("this machine does not let root mount a tmpfs")
    try:
        (site.spool / "incoming").mkdir()
        assert_harmless(site.run(SLURM_JOB_COMMENT="x" * 100_000))
        assert incoming(site.spool) == []
        assert_harmless(site.run())
        assert_kept(site)
    finally:
        subprocess.run(["umount", str(site.spool)], check=True)


def test_a_file_size_limit_leaves_no_visible_half_event(dash_site: Site) -> None:
    """SIGXFSZ kills whatever writes past the limit; the hook itself lives on."""
    limit = (require_tool("prlimit", "it sets the limit"), "--fsize=1000")
    assert_harmless(Site(dash_site.root, dash_site.shell, limit).run(SLURM_JOB_COMMENT="x" * 5_000))
    assert [path.name for path in incoming(dash_site.spool) if not path.name.startswith(".")] == []


def test_without_curl_the_event_is_kept(site: Site, replaced: Replace) -> None:
    """A node without curl loses nothing."""
    with SocketServer(site.socket) as server:
        run = Site(site.root, site.shell, replaced({"curl": Path("/dev/null")})).run()
    assert_harmless(run)
    assert server.requests == []
    assert_kept(site)


@pytest.mark.parametrize("name", ["grep", "timeout", "sync", "mv", "date", "cat", "logger"])
def test_without_another_tool_it_still_does_no_harm(dash_site: Site, replaced: Replace, name: str) -> None:
    """A broken node may have any tool missing; that is never the job's problem."""
    run = Site(dash_site.root, dash_site.shell, replaced({name: Path("/dev/null")})).run()
    assert_harmless(run)
    visible = [path for path in incoming(dash_site.spool) if not path.name.startswith(".")]
    assert len(visible) == (0 if name in {"grep", "timeout", "mv", "cat"} else 1)


def test_an_environment_without_slurm_leaves_nothing(site: Site) -> None:
    """Run by hand outside Slurm there is no event to keep."""
    environment = site.settings()
    del environment["SLURM_JOB_ID"]
    assert_harmless(site.run_with(environment))
    assert incoming(site.spool) == []


@pytest.mark.parametrize("shell_name", ["dash", "busybox"])
def test_a_shell_that_cannot_fork(shell_name: str) -> None:
    """With no process to be had the shell gives up with status 2; slurmd must see 0.

    bash is left out: it retries a failed fork for 15 s by itself (its make_child), which no script can change.
    """
    require_root("only root can become a user with a process limit")
    why = "it takes the right to fork away"
    prefix = [
        require_tool("setpriv", why),
        "--reuid=65534",
        "--clear-groups",
        require_tool("prlimit", why),
        "--nproc=0",
    ]
    shell = [require_tool(shell_name, "the shell under test")] + (["sh"] if shell_name == "busybox" else [])
    text = (HOOKS / "prolog.sh").read_text(encoding="ascii")
    assert_harmless(run_hook([*prefix, *shell, "-c", text], {"SLURM_JOB_ID": "1"}))


def test_the_event_is_flushed_before_it_gets_its_name(dash_site: Site) -> None:
    """fsync of file, then its name, then fsync of directory: no power cut can leave half an event (fsync(2))."""
    strace = require_tool("strace", "the order of the system calls cannot be seen")
    trace = dash_site.root / "trace"
    calls = "fsync,fdatasync,rename,renameat,renameat2"
    prefix = (strace, "-f", "-y", "-e", f"trace={calls}", "-e", "signal=none", "-o", str(trace))
    run = Site(dash_site.root, dash_site.shell, prefix).run()
    assert run.status == 0
    assert_kept(dash_site)
    directory = dash_site.spool / "incoming"
    name = incoming(dash_site.spool)[0].name
    seen = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines() if "= 0" in line]
    flushed = next(n for n, call in enumerate(seen) if call.startswith("fsync") and f"<{directory}/.{name}>" in call)
    renamed = next(n for n, call in enumerate(seen) if f'".{name}"' in call and f'"{name}"' in call)
    settled = next(n for n, call in enumerate(seen) if call.startswith("fsync") and f"<{directory}>" in call)
    assert flushed < renamed < settled

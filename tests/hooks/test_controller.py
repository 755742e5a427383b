"""slurmctld's hooks: over TCP with a token that nobody can see, and a file of SlurmUser when that fails."""

import os
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hooks.conftest import Replace, Site
from tests.hooks.fuse_mount import hung_directory
from tests.hooks.hook_process import (
    FIXTURES,
    HOOKS,
    Environment,
    assert_harmless,
    captured_environment,
    expected_records,
    incoming,
    records,
    run_hook,
    spool_file,
)
from tests.hooks.socket_server import SocketServer
from tests.requirements import require_root, require_tool

TOKEN = "3f0c5d0e9a7b4c6f8d2e1a0b._~+/="
CONTROLLER = ("prolog_slurmctld", "epilog_slurmctld")
CAPTURES = sorted((FIXTURES / "slurmctld-22.05").glob("*/*.env0"))


def token_file(site: Site, content: str = TOKEN + "\n") -> str:
    path = site.root / "token"
    path.write_text(content)
    path.chmod(0o600)
    return str(path)


def over_tcp(site: Site, server: SocketServer, **more: str | bytes) -> Environment:
    """Settings that lead to `server`; the Unix socket is there too, and must not be used."""
    return site.settings(JOBTRAIL_URL=server.url, JOBTRAIL_TOKEN_FILE=token_file(site), **more)


@pytest.mark.parametrize("hook", CONTROLLER)
def test_over_tcp_the_token_is_shown(site: Site, hook: str) -> None:
    with SocketServer(None) as server, SocketServer(site.socket) as local:
        assert_harmless(site.run_with(over_tcp(site, server), hook))
    (request,) = server.requests
    assert request.line == f"POST /v1/hooks/slurm/{hook.replace('_', '-')} HTTP/1.1"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert records(request.body) == [b"SLURM_JOB_ID=4711"]
    assert (local.requests, incoming(site.spool)) == ([], [])


def test_captured_environments_arrive_to_the_byte_posted_and_spooled(site: Site) -> None:
    """What slurmctld 22.05 gave its hooks, hostile job names among it, and the body of the file equals the posted."""
    assert len(CAPTURES) == 12
    with SocketServer(None, status=503) as server:
        for capture in CAPTURES:
            environment = over_tcp(site, server) | captured_environment(capture)
            assert_harmless(site.run_with(environment, f"{capture.stem}_slurmctld"))
            (path,) = incoming(site.spool)
            assert records(server.requests[-1].body) == expected_records(environment), capture
            assert spool_file(path).body == server.requests[-1].body
            path.unlink()


def test_the_token_is_in_no_process_arguments_or_environment(site: Site) -> None:
    """Everybody can read the arguments of all processes (proc(5)); here is every one that was ever started."""
    strace = require_tool("strace", "what the hook starts cannot be seen")
    trace = site.root / "trace"
    prefix = (strace, "-f", "-v", "-s", "9999", "-e", "trace=execve", "-e", "signal=none", "-o", str(trace))
    with SocketServer(None, status=401) as server:
        # Variables of the hook's own names, exported to it, must not carry the token on.
        run = Site(site.root, site.shell, prefix).run_with(over_tcp(site, server, token="x", url="x"), CONTROLLER[0])
    assert run.status == 0
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    seen = trace.read_text()
    assert "/v1/hooks/slurm/prolog-slurmctld" in seen
    assert TOKEN not in seen
    assert TOKEN.encode() not in spool_file(incoming(site.spool)[0]).body


@pytest.mark.parametrize(
    "content", ["", "\n", 'a"\nurl = "http://127.0.0.1:1/', "two words", "ä" * 20, 'x"\\n', "$(touch pwned)"]
)
def test_a_file_that_holds_no_token_shows_none(site: Site, content: str) -> None:
    """Nothing in it becomes an option of curl's; the daemon refuses, and the event is kept."""
    with SocketServer(None, status=401) as server:
        environment = over_tcp(site, server)
        token_file(site, content)
        assert_harmless(site.run_with(environment, CONTROLLER[1]))
    (request,) = server.requests
    assert request.headers["authorization"] in {"Bearer", "Bearer a"} or "authorization" not in request.headers
    assert len(incoming(site.spool)) == 1


@pytest.mark.parametrize("path", [None, "/nonexistent", "/proc/self", "/dev/zero"])
def test_a_token_file_that_is_none(site: Site, path: str | None) -> None:
    """Not set, missing, a directory, a device without end."""
    with SocketServer(None, status=401) as server:
        environment = site.settings(JOBTRAIL_URL=server.url, **({} if path is None else {"JOBTRAIL_TOKEN_FILE": path}))
        assert_harmless(site.run_with(environment, CONTROLLER[0]))
    assert len(incoming(site.spool)) == 1


@pytest.mark.parametrize("hook", ["prolog", "epilog"])
def test_a_nodes_hooks_know_no_url(site: Site, hook: str) -> None:
    """The controller's machine may be a node too, with one hook.conf for all."""
    with SocketServer(None) as server, SocketServer(site.socket) as local:
        assert_harmless(site.run_with(over_tcp(site, server), hook))
    assert (server.requests, len(local.requests)) == ([], 1)


def test_url_and_token_file_are_read_from_the_conf(site: Site) -> None:
    with SocketServer(None) as server:
        lines = [f"JOBTRAIL_URL={server.url}/", f'JOBTRAIL_TOKEN_FILE="{token_file(site)}" # of the daemon']
        (site.root / "hook.conf").write_text("\n".join(lines))
        assert_harmless(site.run(CONTROLLER[0]))
    (request,) = server.requests
    assert request.line == "POST /v1/hooks/slurm/prolog-slurmctld HTTP/1.1"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://no.such.host.invalid", "file:///etc", "ftp://x", "--help"]
)
def test_a_url_that_leads_nowhere(dash_site: Site, url: str) -> None:
    """Whatever is written there, the event is kept within two seconds, and nothing but HTTP is tried."""
    environment = dash_site.settings(JOBTRAIL_URL=url, JOBTRAIL_TOKEN_FILE=token_file(dash_site))
    assert_harmless(dash_site.run_with(environment, CONTROLLER[0]))
    assert len(incoming(dash_site.spool)) == 1


def test_a_daemon_that_never_answers(site: Site) -> None:
    """A frozen daemon, or a firewall that drops what it gets, costs a second."""
    with SocketServer(None, status=None) as server:
        run = site.run_with(over_tcp(site, server, SLURM_JOB_NAME="x" * 90_000), CONTROLLER[1])
    assert_harmless(run)
    assert run.seconds >= 1.0
    assert len(server.requests) == 1
    assert len(incoming(site.spool)) == 1


def test_a_port_that_takes_no_connection(site: Site) -> None:
    """With the queue of connections full, the kernel lets a client wait."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        clients = [socket.socket() for _ in range(3)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((host, port))
        environment = site.settings(JOBTRAIL_URL=f"http://{host}:{port}", JOBTRAIL_TOKEN_FILE=token_file(site))
        assert_harmless(site.run_with(environment, CONTROLLER[0]))
        for client in clients:
            client.close()
    assert len(incoming(site.spool)) == 1


@pytest.mark.parametrize("timeout", ["1.0", "1.5"])
def test_the_worst_case_ends_by_itself(site: Site, replaced: Replace, timeout: str) -> None:
    """The daemon elsewhere, the disk and the system log hang at once."""
    logger = site.root / "logger"
    logger.write_text("#!/bin/sh\nexec sleep 30\n")
    logger.chmod(0o755)
    with ExitStack() as disk, SocketServer(None, status=None) as server:
        environment = over_tcp(site, server, JOBTRAIL_TIMEOUT=timeout, SLURM_JOB_COMMENT="x" * 100_000)
        disk.enter_context(hung_directory(site.spool / "incoming", killable=False))
        hung = Site(site.root, site.shell, replaced({"logger": logger}))
        assert_harmless(hung.run_with(environment, CONTROLLER[1], then=disk.close))


@pytest.mark.parametrize(("hook", "mode"), [("epilog", 0o600), ("epilog_slurmctld", 0o640)])
def test_the_file_can_be_read_by_whom_it_is_for(site: Site, hook: str, mode: int) -> None:
    """root's by root; SlurmUser's by a daemon in that user's group, for root without capabilities is not exempt."""
    assert_harmless(site.run(hook))
    (path,) = incoming(site.spool)
    kept = spool_file(path)
    assert (kept.mode, kept.header["JOBTRAIL_HOOK"]) == (mode, hook.replace("_", "-"))


def test_slurm_user_leaves_files_in_a_directory_of_its_group(dash_site: Site) -> None:
    """As docs/installation.md sets it up: others cannot enter, the sticky bit keeps each one's files their own."""
    require_root("become SlurmUser")
    uid = 54_322
    setpriv = require_tool("setpriv", "it becomes SlurmUser")
    prefix = (setpriv, f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    # Not below pytest's own: every other run of pytest that starts closes /tmp/pytest-of-root to all but root.
    with tempfile.TemporaryDirectory(prefix="jobtrail-", dir="/tmp") as name:
        site = Site(Path(name), dash_site.shell)
        (site.spool / "incoming").mkdir(parents=True)
        for directory in (site.root, site.spool):
            directory.chmod(0o711)
        os.chown(site.spool / "incoming", 0, uid)
        (site.spool / "incoming").chmod(0o1770)
        script = site.root / "hook"
        script.write_bytes((HOOKS / "prolog_slurmctld.sh").read_bytes())
        script.chmod(0o755)
        assert_harmless(run_hook([*prefix, *site.shell, str(script)], site.settings()))
        (path,) = incoming(site.spool)
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (uid, 0o640)


def test_without_a_spool_it_may_write_to_it_does_no_harm(dash_site: Site) -> None:
    """The usual machine of a controller: no daemon, no directory, another user. The event is lost, the job is not."""
    require_root("become SlurmUser")
    setpriv = require_tool("setpriv", "it becomes SlurmUser")
    text = (HOOKS / "epilog_slurmctld.sh").read_text(encoding="ascii")
    argv = [setpriv, "--reuid=54322", "--clear-groups", *dash_site.shell, "-c", text]
    assert_harmless(run_hook(argv, dash_site.settings(JOBTRAIL_SPOOL="/var/lib/none/spool")))
    assert not Path("/var/lib/none").exists()


def test_curl_of_old_releases_knows_every_option() -> None:
    """RHEL 8 has curl 7.61, and the hooks promise 7.40: options newer than that must not creep in."""
    text = (HOOKS / "prolog.sh").read_text(encoding="ascii")
    used = {word for line in text.splitlines() if not line.lstrip().startswith("#") for word in line.split()}
    options = {
        "--silent", "--output", "--write-out", "--noproxy", "--max-time", "--data-binary", "--header", "--unix-socket",
        "--config", "--globoff", "--proto", "--url",
    }  # fmt: skip
    assert {word for word in used if word.startswith("--") and word != "--"} == options
    manual = subprocess.run(["curl", "--help", "all"], capture_output=True, text=True, check=True).stdout
    assert all(option in manual for option in options)

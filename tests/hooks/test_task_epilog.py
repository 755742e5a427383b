"""The task epilog: one poke for each step on a node, a few numbers and nothing of the user's own."""

import socket
from pathlib import Path

import pytest

from tests.hooks.conftest import Replace, Site, max_seconds, recording_curl
from tests.hooks.hook_process import Environment, HookRun, assert_harmless, records
from tests.hooks.socket_server import SocketServer
from tests.hooks.test_spool import frozen_server

OF_A_TASK = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOBID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}


def settings(site: Site, **more: str | bytes) -> Environment:
    """The environment of the first task of a step."""
    return {"JOBTRAIL_HOOK_CONF": str(site.root / "hook.conf"), "JOBTRAIL_POKE_SOCKET": str(site.socket)} | {
        **OF_A_TASK,
        **more,
    }


def run(site: Site, environment: Environment | None = None) -> HookRun:
    """Run it, and hold it to what must hold after every run."""
    done = site.run_with(settings(site) if environment is None else environment, "task_epilog")
    assert_harmless(done)
    return done


def test_it_pokes_with_the_numbers_of_its_task(site: Site) -> None:
    with SocketServer(site.socket, status=200) as server:
        run(site)
    (request,) = server.requests
    assert request.line == "POST /v1/hooks/slurm/task-epilog HTTP/1.1"
    assert records(request.body) == sorted(f"{name}={value}".encode() for name, value in OF_A_TASK.items())


def test_a_batch_script_has_no_step_number(site: Site) -> None:
    """slurmstepd gives its task epilog no SLURM_STEP_ID."""
    environment = settings(site)
    del environment["SLURM_STEP_ID"]
    with SocketServer(site.socket, status=200) as server:
        run(site, environment)
    assert b"SLURM_STEP_ID" not in server.requests[0].body
    assert b"SLURM_JOB_ID=4711\0" in server.requests[0].body


@pytest.mark.parametrize("local", ["1", "17", "x", "0 ", "-1"])
def test_only_the_first_task_of_a_node_pokes(site: Site, local: str) -> None:
    with SocketServer(site.socket, status=200) as server:
        run(site, settings(site, SLURM_LOCALID=local))
    assert server.requests == []


def test_nothing_of_the_users_environment_is_sent(site: Site) -> None:
    """Neither secrets nor names, nor what Slurm itself put there beside the numbers."""
    private: Environment = {
        "AWS_SECRET_ACCESS_KEY": "s3cret\nSLURM_JOB_ID=s3cret",
        "SLURM_JOB_NAME": "s3cret",
        "SLURM_JOB_COMMENT": b"s3cret\xff",
        "SLURM_JWT": "s3cret",
        "SLURM_SUBMIT_DIR": "/home/s3cret",
        "CUDA_VISIBLE_DEVICES": "s3cret",
        "HOME": str(site.root),
        "http_proxy": "http://s3cret:9",
    }
    with SocketServer(site.socket, status=200) as server:
        run(site, settings(site, **private))
    (request,) = server.requests
    assert b"s3cret" not in request.body
    assert "s3cret" not in str(request.headers)


@pytest.mark.parametrize(
    "value",
    ["", "x", "1\nSLURM_JOB_ID=2", "$(touch pwned)", "`touch pwned`", "1 2", "-1", "*", b"\xff", "@/etc/passwd"],
)
def test_what_is_no_number_is_left_out(site: Site, value: str | bytes) -> None:
    """A user can set these variables too; the daemon believes the kernel about who that is."""
    with SocketServer(site.socket, status=400) as server:
        run(site, settings(site, SLURM_JOB_ID=value, SLURM_JOBID=value, SLURM_PROCID=value))
    assert records(server.requests[0].body) == [b"SLURM_LOCALID=0", b"SLURM_NODEID=1", b"SLURM_STEP_ID=0"]
    assert not Path("pwned").exists()


def test_what_users_load_for_their_programs_does_not_hinder_it(site: Site) -> None:
    """A PATH of their own programs, a library of curl's name that is none, settings for curl."""
    evil = site.root / "evil"
    evil.mkdir()
    for name in ("curl", "printf"):
        (evil / name).write_text(f"#!/bin/sh\n: >{site.root}/pwned\n")
        (evil / name).chmod(0o755)
    (evil / "libcurl.so.4").write_bytes(b"")
    (site.root / ".curlrc").write_text(f'dump-header = "{site.root}/pwned"\n')
    more = {"PATH": str(evil), "LD_LIBRARY_PATH": str(evil), "HOME": str(site.root), "CURL_HOME": str(site.root)}
    with SocketServer(site.socket, status=200) as server:
        run(site, settings(site, **more))
    assert len(server.requests) == 1
    assert not (site.root / "pwned").exists()


@pytest.mark.parametrize("status", [200, 400, 403, 429, 500, 503])
def test_whatever_the_answer_it_is_silent(site: Site, status: int) -> None:
    with SocketServer(site.socket, status=status) as server:
        run(site)
    assert len(server.requests) == 1


def test_a_daemon_that_never_answers(site: Site) -> None:
    """It waits a moment longer than the daemon takes for a look at the very most, and no second time."""
    with SocketServer(site.socket, status=None) as server:
        done = run(site)
    assert done.seconds >= 0.8
    assert len(server.requests) == 1


def test_it_gives_up_before_a_second_is_over(site: Site, replaced: Replace) -> None:
    """Asking the daemon is all that it does, so that is all that can take long."""
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(site.socket))
    run(Site(site.root, site.shell, replaced({"curl": recording_curl(site.root)})))
    assert max_seconds(site.root) == 0.8


def test_a_stopped_daemon(site: Site) -> None:
    with frozen_server(site.socket):
        run(site)


@pytest.mark.parametrize("what", ["nothing", "file", "directory", "too-long"])
def test_a_socket_that_is_none(site: Site, what: str) -> None:
    """Where no daemon takes pokes, as on a node where it is not installed yet."""
    if what == "file":
        site.socket.write_bytes(b"")
    elif what == "directory":
        site.socket.mkdir()
    run(site, settings(site, **({"JOBTRAIL_POKE_SOCKET": "/" + "x" * 200} if what == "too-long" else {})))


@pytest.mark.parametrize(
    "line",
    [
        "JOBTRAIL_POKE_SOCKET={socket}",
        'JOBTRAIL_SOCKET=/nonexistent\nJOBTRAIL_POKE_SOCKET="{socket}"\n',
        "JOBTRAIL_POKE_SOCKET='{socket}'\r\n",
        "JOBTRAIL_POKE_SOCKET=/nonexistent\nJOBTRAIL_POKE_SOCKET={socket}  # why\n#JOBTRAIL_POKE_SOCKET=/x\n",
    ],
)
def test_the_socket_is_read_from_the_conf(site: Site, line: str) -> None:
    (site.root / "hook.conf").write_text(line.format(socket=site.socket))
    environment = settings(site)
    del environment["JOBTRAIL_POKE_SOCKET"]
    with SocketServer(site.socket, status=200) as server:
        run(site, environment)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x01=\x02\n" * 100, b"JOBTRAIL_POKE_SOCKET=$(touch pwned)`touch pwned`\n"]
)
def test_rubbish_in_the_conf_does_no_harm(site: Site, content: bytes) -> None:
    (site.root / "hook.conf").write_bytes(content)
    environment = settings(site)
    del environment["JOBTRAIL_POKE_SOCKET"]
    run(site, environment)
    assert not Path("pwned").exists()


def test_it_runs_with_its_standard_streams_closed(site: Site) -> None:
    closing = ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    with SocketServer(site.socket, status=200) as server:
        run(Site(site.root, site.shell, closing))
    assert b"SLURM_JOB_ID=4711\0" in server.requests[0].body


def test_without_curl_it_does_nothing(site: Site, replaced: Replace) -> None:
    with SocketServer(site.socket, status=200) as server:
        run(Site(site.root, site.shell, replaced({"curl": Path("/dev/null")})))
    assert server.requests == []

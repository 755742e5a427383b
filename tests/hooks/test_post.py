"""What a hook posts: its Slurm and GPU environment to the byte, and nothing else."""

import os
import re
import shutil
import time
import uuid
from decimal import Decimal
from pathlib import Path

import pytest

from tests.hooks.conftest import Replace, Site
from tests.hooks.hook_process import (
    FIXTURES,
    FORWARDING,
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
from tests.requirements import require_tool

HOSTILE = {
    "newline": b"line1\nSLURM_JOB_ID=999\nHOME=/x",
    "starts-with-newline": b"\nSLURM_JOB_UID=0",
    "quotes": b"'\"\\'`\"",
    "substitution": b"$(touch pwned) `touch pwned` ${IFS} $((1/0))",
    "not-utf-8": bytes(range(1, 256)),
    "at-sign": b"@/etc/passwd",
    "empty": b"",
    "equals": b"===a=b",
    "long": b"x" * 100_000,
    "long-lines": b"SLURM_FAKE=1\n" * 8_000,
}


@pytest.mark.parametrize("hook", FORWARDING)
def test_each_hook_posts_to_its_own_address(site: Site, hook: str) -> None:
    """The request is the one that the daemon's hook protocol names."""
    began = Decimal(time.time())
    with SocketServer(site.socket) as server:
        assert_harmless(site.run(hook))
    (request,) = server.requests
    assert request.line == f"POST /v1/hooks/slurm/{hook.replace('_', '-')} HTTP/1.1"
    assert request.headers["content-type"] == "application/octet-stream"
    assert "expect" not in request.headers
    assert uuid.UUID(request.headers["jobtrail-event-id"]).version == 4
    assert re.fullmatch(r"\d{10}\.\d{9}", request.headers["jobtrail-event-time"])
    assert began <= Decimal(request.headers["jobtrail-event-time"]) <= Decimal(time.time())
    assert incoming(site.spool) == []


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_values_arrive_to_the_byte(site: Site, kind: str) -> None:
    """A job's comment can hold any bytes; they arrive unchanged, as one record, and nothing runs."""
    environment = site.settings(SLURM_JOB_COMMENT=HOSTILE[kind], ZE_AFFINITY_MASK="0")
    with SocketServer(site.socket) as server:
        assert_harmless(site.run_with(environment))
    (request,) = server.requests
    assert records(request.body) == expected_records(environment)
    assert [record for record in records(request.body) if record.startswith(b"SLURM_JOB_ID=")] == [b"SLURM_JOB_ID=4711"]
    assert not Path("pwned").exists()


def test_captured_environments_arrive_to_the_byte_posted_and_spooled(site: Site) -> None:
    """What slurmd 22.05 and 24.11 gave their hooks arrives whole, and the spooled body equals the posted one."""
    captures = sorted(FIXTURES.glob("slurm-*/**/*.env0"))
    assert {path.relative_to(FIXTURES).parts[0] for path in captures} == {"slurm-22.05", "slurm-24.11"}
    with SocketServer(site.socket, status=503) as server:
        for capture in captures:
            environment = site.settings() | captured_environment(capture)
            assert_harmless(site.run_with(environment))
            (path,) = incoming(site.spool)
            assert records(server.requests[-1].body) == expected_records(environment), capture
            assert spool_file(path).body == server.requests[-1].body
            path.unlink()
    assert len(server.requests) == len(captures)


def test_nothing_but_slurm_and_gpu_variables_is_forwarded(site: Site) -> None:
    """Secrets, and names that only hold SLURM_ somewhere, stay on the node."""
    private = {
        "HOME": "/root",
        "AWS_SECRET_ACCESS_KEY": "s3cret\nSLURM_X=s3cret",
        "MY_SLURM_KEY": "s3cret",
        "slurm_lower": "s3cret",
        "SLURMX": "s3cret",
        "SPANK_TOKEN": "s3cret",
    }
    wanted = {"CUDA_VISIBLE_DEVICES": "0", "GPU_DEVICE_ORDINAL": "0", "ROCR_VISIBLE_DEVICES": "0", "SLURMD_X": "y"}
    environment = site.settings(**private, **wanted)
    with SocketServer(site.socket) as server:
        assert_harmless(site.run_with(environment))
    body = server.requests[0].body
    assert records(body) == sorted(
        [b"SLURM_JOB_ID=4711", *(f"{key}={value}".encode() for key, value in wanted.items())]
    )
    assert b"s3cret" not in body


@pytest.mark.parametrize("path", [None, "", "/nonexistent", "evil"])
def test_the_path_of_the_environment_is_not_used(site: Site, path: str | None) -> None:
    """slurmd gives no PATH; one that is there, were it full of traps, changes nothing."""
    evil = site.root / "evil"
    evil.mkdir()
    for name in ("curl", "grep", "date"):
        (evil / name).write_text(f"#!/bin/sh\n: >{site.root}/pwned\n")
        (evil / name).chmod(0o755)
    environment = site.settings()
    if path is not None:
        environment["PATH"] = str(evil) if path == "evil" else path
    with SocketServer(site.socket) as server:
        assert_harmless(site.run_with(environment))
    assert len(server.requests) == 1
    assert not (site.root / "pwned").exists()


def test_curl_settings_and_proxies_of_the_environment_are_not_used(site: Site) -> None:
    """Neither a .curlrc nor a proxy can lead an event elsewhere."""
    (site.root / ".curlrc").write_text(f'dump-header = "{site.root}/pwned"\n')
    proxy = "http://127.0.0.1:9"
    with SocketServer(site.socket) as server:
        assert_harmless(site.run(HOME=str(site.root), http_proxy=proxy, ALL_PROXY=proxy))
    assert [request.line for request in server.requests] == ["POST /v1/hooks/slurm/prolog HTTP/1.1"]
    assert not (site.root / "pwned").exists()


def test_an_environment_above_a_mebibyte_is_posted_at_once(site: Site) -> None:
    """curl would ask for leave with `Expect: 100-continue`, and wait a second for it, before a body of that size."""
    environment = site.settings(**{f"SLURM_LONG_{n}": "x" * 120_000 for n in range(10)})
    with SocketServer(site.socket) as server:
        assert_harmless(site.run_with(environment))
    (request,) = server.requests
    assert "expect" not in request.headers
    assert records(request.body) == expected_records(environment)
    assert incoming(site.spool) == []


def test_a_utf8_locale_changes_no_byte(site: Site) -> None:
    """Whatever locale the environment asks for, bytes that are not UTF-8 arrive."""
    environment = site.settings(LC_ALL="C.UTF-8", LANG="C.UTF-8", SLURM_JOB_COMMENT=b"\xff\xfe\nSLURM_\xc3")
    with SocketServer(site.socket) as server:
        assert_harmless(site.run_with(environment))
    assert records(server.requests[0].body) == expected_records(environment)


def test_it_runs_with_its_standard_streams_closed(site: Site) -> None:
    """Closed streams must not make the pipes of the hook land on descriptors 0 to 2."""
    closing = ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    with SocketServer(site.socket) as server:
        assert_harmless(Site(site.root, site.shell, closing).run())
    assert records(server.requests[0].body) == [b"SLURM_JOB_ID=4711"]


def test_each_run_has_its_own_event_id(dash_site: Site) -> None:
    """The id stands for one hook run, not for the job."""
    with SocketServer(dash_site.socket) as server:
        for _ in range(3):
            assert_harmless(dash_site.run())
    assert len({request.headers["jobtrail-event-id"] for request in server.requests}) == 3


def test_a_date_without_nanoseconds_gives_whole_seconds(dash_site: Site, replaced: Replace) -> None:
    """busybox's date knows no %N; the time stays a well-formed number."""
    prefix = replaced({"date": Path(require_tool("busybox", "its date has no %N"))})
    began = int(time.time())
    with SocketServer(dash_site.socket) as server:
        assert_harmless(Site(dash_site.root, dash_site.shell, prefix).run())
    stamp = server.requests[0].headers["jobtrail-event-time"]
    assert re.fullmatch(r"\d{10}\.\d{9}", stamp)
    assert began <= Decimal(stamp) <= Decimal(time.time())


def test_two_copied_files_are_a_whole_installation(tmp_path: Path, shell: list[str]) -> None:
    """Nothing beside the two files is needed, under whatever name they are installed."""
    installed = tmp_path / "etc"
    installed.mkdir()
    shutil.copy(HOOKS / "prolog.sh", installed / "50-start")
    shutil.copy(HOOKS / "epilog.sh", installed / "50-end")
    environment: Environment = {
        "JOBTRAIL_SOCKET": str(tmp_path / "s"),
        "JOBTRAIL_SPOOL": str(tmp_path / "spool"),
        "SLURM_JOB_ID": "1",
    }
    with SocketServer(tmp_path / "s") as server:
        assert_harmless(run_hook([*shell, str(installed / "50-start")], environment))
        assert_harmless(run_hook([*shell, str(installed / "50-end")], environment))
    kinds = [request.line.split()[1].rpartition("/")[2] for request in server.requests]
    assert kinds == ["prolog", "epilog"]
    assert sorted(os.listdir(tmp_path)) == ["etc", "s"]


@pytest.mark.parametrize("hook", FORWARDING[1:])
def test_the_hooks_that_forward_are_one_text(hook: str) -> None:
    """They differ in the one line that names them, so that a repair of one cannot be forgotten in another."""
    prolog = (HOOKS / "prolog.sh").read_text(encoding="ascii").splitlines()
    other = (HOOKS / f"{hook}.sh").read_text(encoding="ascii").splitlines()
    different = [pair for pair in zip(prolog, other, strict=True) if pair[0] != pair[1]]
    assert different == [("hook=prolog", f"hook={hook.replace('_', '-')}")]


def test_every_hook_can_be_run() -> None:
    names = sorted(path.stem for path in HOOKS.iterdir() if os.access(path, os.X_OK))
    assert names == sorted([*FORWARDING, "task_epilog"])

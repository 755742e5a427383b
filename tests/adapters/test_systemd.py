"""What the daemon tells systemd, over real sockets."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobtrail.adapters import systemd


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """systemd's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.settimeout(5)
        server.bind(address)
        yield server


@pytest.mark.parametrize("state", ["READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=forwarding to db1, 3 jobs"])
def test_a_state_arrives_as_one_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """Each state is one datagram, byte for byte."""
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with listening(path) as server:
        assert systemd.notify(state) is True
        assert server.recv(4096) == state.encode()


def test_an_at_sign_stands_for_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd writes the leading NUL of an abstract address as `@` (sd_notify(3))."""
    name = f"jobtrail-test-{uuid.uuid4()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with listening(f"\0{name}") as server:
        assert systemd.notify("READY=1") is True
        assert server.recv(4096) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "/nonexistent/notify"])
def test_without_a_listener_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    """Run by hand, or with the socket gone, the daemon works on."""
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.notify("READY=1") is False


@pytest.mark.parametrize(
    ("microseconds", "pid", "expected"),
    [
        ("30000000", None, 30.0),
        ("30000000", str(os.getpid()), 30.0),
        ("500000", "", 0.5),
        ("30000000", "1", None),  # meant for another process
        (None, None, None),
        ("", None, None),
        ("0", None, None),
        ("soon", None, None),
        ("-1", None, None),
    ],
)
def test_the_watchdogs_interval(
    monkeypatch: pytest.MonkeyPatch, microseconds: str | None, pid: str | None, expected: float | None
) -> None:
    """WATCHDOG_USEC counts only for the process that WATCHDOG_PID names (sd_watchdog_enabled(3))."""
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval() == expected

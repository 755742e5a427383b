"""Tells systemd how the daemon is (sd_notify(3)).

Twenty lines of our own: the protocol is one datagram, and systemd-python on PyPI comes as source and wants a compiler
and libsystemd's headers.
"""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Send `state`, such as READY=1, STOPPING=1 or WATCHDOG=1; False when systemd did not ask to be told.

    A socket that is gone is no reason to stop: it is treated as nobody asking.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path  # an abstract socket (unix(7))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.connect(address)
            connection.sendall(state.encode())
        except OSError:
            return False
    return True


def watchdog_interval() -> float | None:
    """Seconds within which systemd expects a WATCHDOG=1 (sd_watchdog_enabled(3)); None when it expects none."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant_for = os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or (meant_for and meant_for != str(os.getpid())):
        return None
    return int(microseconds) / 1e6 or None

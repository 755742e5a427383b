"""Tells systemd how the daemon is (sd_notify(3)), and takes the sockets that it opened for it (sd_listen_fds(3)).

Twenty lines of our own: the protocol is one datagram, and systemd-python on PyPI comes as source and wants a compiler
and libsystemd's headers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from jobtrail.domain.errors import ConfigError

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
MOST_SOCKETS = 16


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


@contextmanager
def inherited_sockets() -> Iterator[dict[str, socket.socket]]:
    """The Unix sockets that systemd listens on for this process, by path; it keeps them when this process ends.

    Raises ConfigError for one that is no listening Unix stream socket: another daemon's, or the unit file is wrong.
    Those of a parent's (LISTEN_PID) are left alone. The variables are taken out of the environment, so that no program
    that this one starts takes the descriptors for its own.
    """
    count, meant_for = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    sockets: dict[str, socket.socket] = {}
    if not count.isdigit() or meant_for != str(os.getpid()):
        yield sockets
        return
    if int(count) > MOST_SOCKETS:
        raise ConfigError("LISTEN_FDS", f"{count} sockets were handed over, at most {MOST_SOCKETS} make sense")
    try:
        for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
            os.set_inheritable(descriptor, False)
            listener = _listener(descriptor)
            sockets[listener.getsockname()] = listener
        yield sockets
    finally:
        for listener in sockets.values():
            listener.close()


def _listener(descriptor: int) -> socket.socket:
    wanted = "the unit must have ListenStream=/PATH of http.socket or http.poke_socket"
    with suppress(OSError):
        listener = socket.socket(fileno=descriptor)
        is_ours = listener.family == socket.AF_UNIX and listener.type == socket.SOCK_STREAM
        if is_ours and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.setblocking(False)
            return listener
        raise ConfigError("LISTEN_FDS", f"descriptor {descriptor} is no listening Unix socket; {wanted}")
    raise ConfigError("LISTEN_FDS", f"descriptor {descriptor} is no socket; {wanted}")

"""Opens the Unix socket and the TCP port."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jobtrail.domain.errors import ConfigError

BACKLOG = 1024  # hooks of a burst wait here; connect(2) on a Unix socket fails with EAGAIN beyond it
TCP_BACKLOG = 4096  # all nodes may come at once; net.core.somaxconn, by default as much, bounds it (listen(2))
# asyncio accepts as many as its `backlog` in one turn, before any of them can be served or turned away. Were that all
# that wait, a crowd could take the last descriptor, and asyncio logs a traceback for each further one of that turn. One
# that is turned away holds its descriptor for three turns.
ACCEPTED_AT_ONCE = 8
# From Python 3.13 on a closed server removes its socket's name, also that of one which systemd goes on with.
KEEP_ITS_NAME: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
MAX_PATH_BYTES = 107  # sun_path without its NUL, unix(7)


@contextmanager
def unix_socket(
    setting: str, path: Path, *, group: str = "", mode: int = 0o660, inherited: socket.socket | None = None
) -> Iterator[socket.socket]:
    """A listening socket at `path`, which the setting `setting` names; removed afterwards.

    `inherited` is one that systemd listens on at `path` and keeps: taken with the owner and mode of its unit, but for
    `group`, and left in its place. Clients who connect while no daemon runs wait in its queue.

    Another appears under its name with its final owner and mode, so nobody can slip in before. A socket left over by a
    crash is replaced, one that somebody answers on is not. Raises ConfigError.
    """
    if inherited is not None:
        _give_to_group(setting, path, group)
        yield inherited
        return
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ConfigError(setting, f"{path} is longer than the {MAX_PATH_BYTES} bytes a Unix socket may have")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_free(setting, path)
        listener = _listening(path, _group_id(group), mode)
    except OSError as error:
        raise ConfigError(setting, f"{path}: {error.strerror or error}") from error
    inode = path.stat().st_ino
    try:
        yield listener
    finally:
        listener.close()
        with suppress(OSError):
            if path.stat().st_ino == inode:
                path.unlink()


def _group_id(group: str) -> int:
    if not group:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError("http.socket_group", f"there is no group {group!r} on this machine") from None


def _give_to_group(setting: str, path: Path, group: str) -> None:
    """Let a group connect to a socket that is there, unless it may already. Raises ConfigError."""
    try:
        if group and path.stat().st_gid != _group_id(group):
            os.chown(path, -1, _group_id(group))
    except OSError as error:
        problem = f"{path} cannot be given to the group {group}: {error.strerror}; set SocketGroup={group} in its unit"
        raise ConfigError(setting, problem) from error


def _check_free(setting: str, path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(setting, f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return  # nobody listens: a crash left it, and it is replaced
        except TimeoutError:
            pass  # somebody listens and is busy
    raise ConfigError(setting, f"another process answers on {path}")


def _listening(path: Path, group_id: int, mode: int) -> socket.socket:
    hidden = path.with_name(f".{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX)
    try:
        hidden.unlink(missing_ok=True)
        listener.bind(str(hidden))
        os.chown(hidden, -1, group_id)
        hidden.chmod(mode)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        hidden.rename(path)
    except BaseException:
        listener.close()
        hidden.unlink(missing_ok=True)
        raise
    return listener


async def unix_server(make: Callable[[], asyncio.Protocol], listener: socket.socket) -> asyncio.Server:
    """A server on a listening socket, whose queue stays as long as it is."""
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(make, sock=listener, backlog=ACCEPTED_AT_ONCE, **KEEP_ITS_NAME)
    listener.listen(BACKLOG)
    return server


async def tcp_server(make: Callable[[], asyncio.Protocol], host: str, port: int) -> asyncio.Server:
    """A server on `host`:`port`. Raises ConfigError."""
    try:
        server = await asyncio.get_running_loop().create_server(make, host, port, backlog=ACCEPTED_AT_ONCE)
    except OSError as error:
        raise ConfigError("http.port", f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    for opened in server.sockets:
        with socket.fromfd(opened.fileno(), opened.family, opened.type) as same:
            same.listen(TCP_BACKLOG)
    return server

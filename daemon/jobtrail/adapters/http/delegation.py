"""Which local users may read of others' jobs: by the groups that the kernel says they are in."""

from __future__ import annotations

import array
import grp
import socket
from collections.abc import Sequence

from jobtrail.domain.errors import ConfigError

# <asm-generic/socket.h>, Linux 4.13: all groups of the peer when it connected, socket(7) calls its kin SO_PEERCRED.
SO_PEERGROUPS = 59
MOST_BYTES = 1024  # that Python's getsockopt takes: of who is in more than 256 groups, none but the first is known
OVERFLOW_GID = 65534  # stands for any group that has no mapping here


class Delegation:
    """Who is in a group reads of all jobs, or of those of some accounts."""

    def __init__(self, readers_group: str = "", account_readers: Sequence[str] = ()) -> None:
        """Raises ConfigError for a group that is not there."""
        self._readers = _gid("http.readers_group", readers_group) if readers_group else None
        accounts: dict[int, set[str]] = {}
        for entry in account_readers:
            group, colon, account = entry.partition(":")
            if not group or not colon or not account:
                raise ConfigError("http.account_readers", f"must be GROUP:ACCOUNT, such as pis:physics, not {entry!r}")
            accounts.setdefault(_gid("http.account_readers", group), set()).add(account)
        self._accounts = {gid: frozenset(names) for gid, names in accounts.items()}

    def of(self, peer: socket.socket, gid: int) -> tuple[bool, frozenset[str]]:
        """`gid`: the peer's own group. Whether the peer reads of all jobs, and of the jobs of which accounts."""
        if self._readers is None and not self._accounts:
            return False, frozenset()
        groups = (groups_of(peer) | {gid}) - {OVERFLOW_GID}
        accounts = (names for gid, names in self._accounts.items() if gid in groups)
        return self._readers in groups, frozenset[str]().union(*accounts)


def groups_of(peer: socket.socket) -> frozenset[int]:
    """The supplementary groups of a Unix socket's peer when it connected; none where the kernel does not say."""
    try:
        told = peer.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MOST_BYTES)
    except OSError:
        return frozenset()
    return frozenset(array.array("I", told))


def _gid(setting: str, group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(setting, f"there is no group {group!r} on this machine") from None

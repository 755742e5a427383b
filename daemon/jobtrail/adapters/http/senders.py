"""Who sends: the peer of a Unix socket, as the kernel says."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct

import msgspec
from aiohttp import web

from jobtrail.adapters.http.delegation import Delegation
from jobtrail.adapters.http.refusals import Note, Refused, forbidden

# user_namespaces(7): what the kernel shows for a uid that has no mapping here. It could be anybody.
OVERFLOW_UID = 65534
_CREDENTIALS = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """The user behind a request. Who is not trusted may only speak about their own local jobs."""

    uid: int
    trusted: bool
    reads_all: bool = False  # may read of every job, and do no more than others
    accounts: frozenset[str] = frozenset()  # of whose jobs this user may read beside the own ones

    async def user_name(self) -> str:
        """The login name, or the uid where it has none. Asks the name service, which may take its time."""
        try:
            return (await asyncio.to_thread(pwd.getpwuid, self.uid)).pw_name
        except KeyError:
            return str(self.uid)

    def is_user(self, uid: int | None) -> bool:
        """Whether the sender is surely the user `uid`."""
        return self.uid == uid and uid != OVERFLOW_UID


class Gate:
    """Decides who may send what."""

    def __init__(
        self, trusted_uids: frozenset[int], *, local_scheduler: bool, delegation: Delegation | None = None
    ) -> None:
        self._delegation = delegation or Delegation()
        self._trusted = trusted_uids | {0, os.geteuid()}
        self._local_scheduler = local_scheduler

    def sender(self, request: web.Request) -> Sender:
        """The peer of this connection, with the credentials it had when it connected. Raises Refused."""
        peer = None if request.transport is None else request.transport.get_extra_info("socket")
        if peer is None:
            raise forbidden("the sender is gone")
        _, uid, gid = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid in self._trusted and uid != OVERFLOW_UID:
            return Sender(uid=uid, trusted=True)
        reads_all, accounts = (False, frozenset[str]()) if uid == OVERFLOW_UID else self._delegation.of(peer, gid)
        return Sender(uid=uid, trusted=False, reads_all=reads_all, accounts=accounts)

    def local_peer(self, request: web.Request) -> Sender | None:
        """The peer on a Unix socket; None over TCP, which does not tell who it is. Raises Refused."""
        peer = None if request.transport is None else request.transport.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX:
            return None
        return self.sender(request)

    def hook_sender(self, request: web.Request) -> Sender:
        """The peer, if it may speak for Slurm. Raises Refused."""
        sender = self.sender(request)
        if not sender.trusted:
            raise _wrong_sender(sender, f"uid {sender.uid} may not send hook events; root and Slurm's user may")
        return sender

    def poke_sender(self, request: web.Request) -> Sender:
        """The peer, who may be anybody the kernel can name. Raises Refused."""
        sender = self.sender(request)
        if sender.uid == OVERFLOW_UID:
            raise forbidden(f"uid {OVERFLOW_UID} stands for any user who is unknown here")
        return sender

    def event_sender(self, request: web.Request) -> Sender:
        """The peer, if it may send any JSON event. Raises Refused."""
        sender = self.sender(request)
        if sender.trusted or (self._local_scheduler and sender.uid != OVERFLOW_UID):
            return sender
        raise _wrong_sender(sender, f"uid {sender.uid} may not send events; root and Slurm's user may")


def _wrong_sender(sender: Sender, message: str) -> Refused:
    return forbidden(message, Note("wrong_sender", f"uid {sender.uid}"))

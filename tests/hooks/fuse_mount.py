"""A file system that hangs: a FUSE mount whose server answers its first request and then no other.

The kernel side is documented in Documentation/filesystems/fuse/fuse.rst and in include/uapi/linux/fuse.h. A request
that the server has read but not answered cannot be interrupted, not even by SIGKILL: its process is in the state D of
ps(1), as with a dead disk. A request that nobody has read can be killed, as with a lost NFS server.
"""

import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.requirements import require_root, unmet

FUSE_INIT = 26
IN_HEADER = struct.Struct("<IIQQIIIHH")
OUT_HEADER = struct.Struct("<IiQ")
INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
MNT_FORCE = 1
MNT_DETACH = 2


@contextmanager
def hung_directory(path: Path, *, killable: bool) -> Iterator[None]:
    """Let every access to `path` hang until the block is left."""
    require_root("only root can mount")
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        unmet(f"no hanging file system can be made here: /dev/fuse: {error.strerror}")
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"jobtrail-test", os.fsencode(path), b"fuse", 0, options) != 0:
        os.close(device)
        unmet(f"no hanging file system can be made here: mount: {os.strerror(ctypes.get_errno())}")
    # A daemon, so that a connection that could not be aborted does not keep the test run from ending.
    reader = threading.Thread(target=_swallow_requests, args=(device,), daemon=True)
    if not killable:
        reader.start()
    try:
        yield
    finally:
        # umount2(2): MNT_FORCE aborts the connection, so that every hanging request and the reader's read end.
        libc.umount2(os.fsencode(path), MNT_FORCE)
        libc.umount2(os.fsencode(path), MNT_DETACH)
        if not killable:
            reader.join(timeout=5)
            assert not reader.is_alive()
        os.close(device)


def _swallow_requests(device: int) -> None:
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            return
        _, opcode, unique, *_ = IN_HEADER.unpack_from(request)
        if opcode == FUSE_INIT:
            answer = INIT_OUT.pack(7, 31, 4096, 0, 12, 10, 4096, 1, 1, 0, 0)
            os.write(device, OUT_HEADER.pack(OUT_HEADER.size + len(answer), 0, unique) + answer)

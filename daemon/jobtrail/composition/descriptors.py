"""How many connections the process may hold, beside the descriptors it needs itself."""

from __future__ import annotations

import resource

# Spool, logs, pools of the database, the reader of GPUs, cgroups of the jobs that are read in one tick, and those that
# are accepted to be told that there is no room.
RESERVED = 40
LOCAL_LISTENERS = 2  # the hooks' socket and the one open to all users
MOST_LOCAL = (
    2048  # on each of these: no node begins as many jobs at once, while a server has a connection for each node
)


def connections_that_fit(wanted: int) -> tuple[int, int]:
    """How many connections TCP and each Unix socket may have: `wanted`, or fewer where RLIMIT_NOFILE (getrlimit(2))
    does not allow for as many.

    The limit is raised as far as it may be. A connection too many is told so; a descriptor too many would fail whatever
    needed it.
    """
    local = min(wanted, MOST_LOCAL)
    needed = RESERVED + wanted + LOCAL_LISTENERS * local
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= needed:
        return wanted, local
    there = max(1 + LOCAL_LISTENERS, soft - RESERVED)
    local = min(local, there // (1 + LOCAL_LISTENERS))
    return min(wanted, there - LOCAL_LISTENERS * local), local

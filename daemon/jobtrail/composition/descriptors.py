"""How many connections the process may hold, beside the descriptors it needs itself."""

from __future__ import annotations

import resource

# Spool, logs, pools of the database, the reader of GPUs, cgroups of the jobs that are read in one tick, and those that
# are accepted to be told that there is no room.
RESERVED = 40
LISTENERS = 3  # the hooks' socket, the one open to all users, TCP


def connections_that_fit(wanted: int) -> int:
    """`wanted` connections on each listener, or fewer where RLIMIT_NOFILE (getrlimit(2)) does not allow for as many.

    The limit is raised as far as it may be. A connection too many is told so; a descriptor too many would fail whatever
    needed it.
    """
    needed = RESERVED + LISTENERS * wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, (soft - RESERVED) // LISTENERS))

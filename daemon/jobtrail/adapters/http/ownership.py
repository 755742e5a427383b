"""What an ordinary user may say about local jobs: only what is theirs.

The daemon reads counters as root, so a user who could name any process or cgroup would have it read, and charge, what
belongs to somebody else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jobtrail.adapters.http.refusals import forbidden
from jobtrail.adapters.http.senders import Sender
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import Event, EventKind

OwnerOfRun = Callable[[str, str], int | None]


class Ownership:
    """Checks events of ordinary users. `owner_of_run(cluster, job_id)` is the uid of a run open on this node."""

    def __init__(self, owner_of_run: OwnerOfRun, *, proc_root: Path, cgroup_root: Path) -> None:
        self._owner_of_run = owner_of_run
        self._proc_root = proc_root
        self._cgroup_root = cgroup_root

    def check(self, sender: Sender, event: Event) -> None:
        """Raises Refused when `event` is about something of another user's, InvalidEvent when it may become so."""
        if sender.trusted:
            return
        owner = self._owner_of_run(event.cluster, event.job_id or "")
        if event.kind is EventKind.JOB_FINISHED and owner != sender.uid:
            raise forbidden(f"uid {sender.uid} has no running job {event.job_id} here")
        if owner not in (None, sender.uid):
            raise forbidden(f"job {event.job_id} is of another user")
        where = event.whereabouts
        if where is not None and where.root_pid is not None:
            if where.root_pid_start_ticks is None:
                raise InvalidEvent(
                    "root_pid_start_ticks", "is needed beside root_pid: a pid alone may become another's"
                )
            self._check_owner(sender, self._proc_root / str(where.root_pid), f"process {where.root_pid}")
        if where is not None and where.cgroup_path is not None:
            self._check_owner(sender, self._cgroup_root / where.cgroup_path.lstrip("/"), where.cgroup_path)

    @staticmethod
    def _check_owner(sender: Sender, path: Path, what: str) -> None:
        try:
            owner = path.lstat().st_uid
        except OSError as error:
            raise forbidden(f"{what} is not there to be observed") from error
        if owner != sender.uid:
            raise forbidden(f"{what} is not of uid {sender.uid}")

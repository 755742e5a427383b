"""The spool's directory: whose it is, what it promises, and how full it is. Nothing in it is opened for writing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from jobtrail.adapters.spool.directory import durability_of
from jobtrail.cli.doctor.findings import Finding, Place, Saying
from jobtrail.cli.output import size
from jobtrail.domain.phrases import counted

NEARLY = 0.8
MANY_LEFT = 100  # files of hooks: a short restart leaves some
WAITING_REMEDY = "see why events do not reach their database: `jobtrail doctor --only daemon,database,servers`"


def check_spool(place: Place) -> list[Finding]:
    """Owner, mode, durability, room."""
    say, path = Saying("spool"), Path(place.config.spool.directory)
    try:
        status = path.lstat()
    except FileNotFoundError:
        return [say.failure(f"there is no {path}", "the daemon makes it when it starts: systemctl start jobtrail")]
    except PermissionError:
        return [say.unchecked(f"{path} may be looked at by root alone")]
    if not stat.S_ISDIR(status.st_mode):
        return [say.failure(f"{path} is no directory", "name a real directory in spool.directory; a link is refused")]
    findings = _of_owner(say, path, status)
    durability = durability_of(path)
    if durability.level != "disk":
        remedy = (
            "put spool.directory on a local disk; where the node has none, this stays so, and is said in each answer"
        )
        findings.append(say.warning(f"a power cut loses what was not forwarded: {durability.note}", remedy))
    if not os.access(path, os.R_OK | os.X_OK):
        return [*findings, say.unchecked(f"what is in {path} may be looked at by root alone")]
    findings += [*_of_room(say, path, place.config.spool.max_bytes), *_of_remains(say, path)]
    return findings or [say.ok(f"{durability.note}, {size(_used(path))} of {size(place.config.spool.max_bytes)} used")]


def _of_owner(say: Saying, path: Path, status: os.stat_result) -> list[Finding]:
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        return [say.failure(f"{path} has mode {mode:04o}, so others can put events there", f"chmod 700 {path}")]
    if status.st_uid != 0 and os.geteuid() == 0 and not _is_the_daemons(status.st_uid):
        found = f"{path} belongs to uid {status.st_uid}; the daemon refuses a spool that is not its own"
        return [say.failure(found, f"chown -R the daemon's user {path} (root on a node, jobtrail on a server)")]
    return []


def _is_the_daemons(uid: int) -> bool:
    import pwd

    try:
        return pwd.getpwnam("jobtrail").pw_uid == uid
    except KeyError:
        return False


def _used(path: Path) -> int:
    total = 0
    for entry in os.scandir(path):
        if entry.name.startswith("spool.db") and "." not in entry.name.removeprefix("spool.db"):
            total += entry.stat(follow_symlinks=False).st_size
    return total


def _of_room(say: Saying, path: Path, limit: int) -> list[Finding]:
    used, status = _used(path), os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    findings = []
    if used > NEARLY * limit:
        findings.append(say.failure(f"{size(used)} of spool.max_bytes ({size(limit)}) are used", WAITING_REMEDY))
    if free < min(16 << 20, limit):
        findings.append(say.failure(f"{size(free)} are free on the file system of {path}", "make room on it"))
    elif free < limit - used:
        found = (
            f"{size(free)} are free on the file system of {path}, and spool.max_bytes allows {size(limit - used)} more"
        )
        findings.append(say.warning(found, "make room, or set spool.max_bytes to what there is"))
    if status.f_files and status.f_favail < 1000:
        findings.append(
            say.failure(
                f"there is room for {counted(status.f_favail, 'more file')} there", "remove files, or make more inodes"
            )
        )
    return findings


def _of_remains(say: Saying, path: Path) -> list[Finding]:
    findings = []
    if aside := sorted(one.name for one in path.glob("spool.db.*-*") if not one.name.endswith(("-wal", "-shm"))):
        found = f"{counted(len(aside), 'file')} moved aside, the last {aside[-1]}: damaged, or of a chain given up"
        findings.append(say.warning(found, "read the log of that time; remove them once nothing in them is wanted"))
    incoming = path / "incoming"
    try:
        left = sum(1 for entry in os.scandir(incoming) if not entry.name.startswith("."))
    except FileNotFoundError:
        left = 0
    if left > MANY_LEFT:
        found = f"{left} events lie in {incoming} as hooks left them"
        findings.append(say.warning(found, "start the daemon, which takes them; if it runs, read its log about them"))
    return findings

"""Reports that other users leave as files: taken in their owner's name, and never a way to anything else."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobtrail.adapters.benchmark_drop import ABANDONED_SECONDS, EACH_USER, MODE, UNFINISHED_SECONDS, BenchmarkDrop
from jobtrail.adapters.incoming import watched
from jobtrail.core.benchmarks.ports import Reporter
from jobtrail.core.facts import ChoreFailed, DroppedReportRefused, DroppedReportTaken, Fact
from jobtrail.core.ports import Receipt
from jobtrail.domain.benchmarks.report import BaselineDecision
from jobtrail.domain.benchmarks.submitted import MAX_REPORT_BYTES
from jobtrail.domain.errors import ConfigError, EventConflict, InvalidEvent, SpoolFull, TooManyReports
from jobtrail.domain.events import Actor
from tests.adapters.test_http_senders import OVERFLOW_UID, STRANGER_UID, reachable
from tests.requirements import require_root

__all__ = ["reachable"]
BODY = b'{"run_uid": "x"}'
# Becomes another user and leaves standard input as a file, under a hidden name first. It goes to the directory first:
# those above are pytest's, and every other run of pytest that starts closes /tmp/pytest-of-root to other users.
LEAVER = """
import os, sys
os.chdir(os.path.dirname(sys.argv[1]))
os.setgroups([]); os.setresgid(*[int(sys.argv[2])] * 3); os.setresuid(*[int(sys.argv[2])] * 3)
with open(".left", "wb") as file:
    file.write(sys.stdin.buffer.read())
os.rename(".left", os.path.basename(sys.argv[1]))
"""


class Site:
    """A directory, and an intake that notes what it gets and refuses what a test says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "benchmarks"
        self.got: list[tuple[bytes, int, bool, Actor]] = []
        self.refuse: Exception | None = None
        self.busy: set[int] = set()
        self.full = False
        self.told: list[Fact] = []
        self.changed = asyncio.Event()
        self.passed = 0.0
        self.drop = BenchmarkDrop(
            self.directory,
            intake=self,
            tell=self.tell,
            watch=watched,
            now_seconds=lambda: time.time() + self.passed,
        )

    def admit(self, reporter: Reporter) -> None:
        if self.full:
            raise SpoolFull(1000, 1)
        if reporter.uid in self.busy:
            raise TooManyReports(reporter.uid, 1)

    async def take(self, body: bytes, reporter: Reporter, *, by: Actor, event_id: str | None = None) -> Receipt:
        if self.refuse is not None:
            raise self.refuse
        self.got.append((body, reporter.uid, reporter.trusted, by))
        return Receipt(event_id="e", seq=1, durability="disk")

    async def decide(
        self, decision: BaselineDecision, *, event_id: str, by: Actor, source: str, note: str | None
    ) -> Receipt:
        raise AssertionError("no file is a decision")

    def tell(self, fact: Fact) -> None:
        self.told.append(fact)
        self.changed.set()

    def leave(self, content: bytes = BODY, *, name: str | None = None, uid: int | None = None) -> Path:
        """A file as a user leaves it."""
        path = self.directory / (name or f"{uuid.uuid4()}.json")
        hidden = self.directory / ".hidden"
        hidden.write_bytes(content)
        if uid is not None:
            os.chown(hidden, uid, uid)
        return hidden.rename(path)

    def reasons(self) -> dict[str, str]:
        return {fact.name: fact.reason for fact in self.told if isinstance(fact, DroppedReportRefused)}

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; it is asked again whenever a fact was told."""
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(self.drop.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, 20)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    require_root("it leaves files of other users")
    one = Site(tmp_path)
    one.drop.prepare()
    return one


def left_by(uid: int, path: Path, content: bytes = BODY) -> None:
    subprocess.run([sys.executable, "-c", LEAVER, str(path), str(uid)], input=content, check=True, timeout=30)


def test_it_is_made_for_everybody_to_put_into_and_nobody_to_list(site: Site) -> None:
    status = site.directory.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (MODE, 0)
    site.drop.prepare()


@pytest.mark.parametrize("wrong", ["parent", "file", "mode", "owner", "link"])
def test_a_place_that_is_not_safe_is_refused(tmp_path: Path, wrong: str) -> None:
    """By the setting's name; nobody's mode is changed."""
    require_root("it gives directories away")
    one = Site(tmp_path / "nowhere" if wrong == "parent" else tmp_path)
    directory = one.directory
    if wrong == "file":
        directory.write_bytes(b"")
    elif wrong == "link":
        (tmp_path / "other").mkdir()
        directory.symlink_to(tmp_path / "other")
    elif wrong in ("mode", "owner"):
        directory.mkdir()
        directory.chmod(0o1777 if wrong == "mode" else MODE)
        os.chown(directory, STRANGER_UID if wrong == "owner" else 0, 0)
    with pytest.raises(ConfigError) as refused:
        one.drop.prepare()
    assert refused.value.where == "benchmarks.drop_directory"
    if wrong == "mode":
        assert "mode 1777" in refused.value.problem
        assert stat.S_IMODE(directory.stat().st_mode) == 0o1777


async def test_a_users_file_comes_in_in_their_name_and_goes(reachable: Path) -> None:
    site = Site(reachable)
    site.drop.prepare()
    name = f"{uuid.uuid4()}.json"
    await asyncio.to_thread(left_by, STRANGER_UID, site.directory / name)
    assert not await site.drop.take_all()
    assert site.got == [(BODY, STRANGER_UID, False, Actor.CLI)]
    assert site.told == [DroppedReportTaken(name=name, uid=STRANGER_UID, event_id="e")]
    assert site.names() == []


async def test_files_are_taken_at_the_start_and_as_they_appear(site: Site) -> None:
    first = site.leave(uid=STRANGER_UID)
    async with site.running():
        await site.until(lambda: len(site.got) == 1)
        second = site.leave(b"{}")
        await site.until(lambda: len(site.told) == 2)
    assert [fact.name for fact in site.told if isinstance(fact, DroppedReportTaken)] == [first.name, second.name]
    assert site.got[1] == (b"{}", 0, True, Actor.CLI)


async def test_what_is_no_plain_file_of_its_user_is_removed_unread(site: Site, tmp_path: Path) -> None:
    """Links do not lead anywhere, pipes do not hold anybody up, and somebody else's file is not sent in their name."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"theirs")
    os.link(secret, site.directory / f"{uuid.UUID(int=1)}.json")
    (site.directory / f"{uuid.UUID(int=2)}.json").symlink_to(secret)
    os.mkfifo(site.directory / f"{uuid.UUID(int=3)}.json")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s"))  # a longer path is no address
    (tmp_path / "s").rename(site.directory / f"{uuid.UUID(int=4)}.json")
    (site.directory / f"{uuid.UUID(int=5)}.json").mkdir()
    site.leave(name="report.json")
    site.leave(name=f"{uuid.UUID(int=6)}.json", content=b" " * (MAX_REPORT_BYTES + 1))
    site.leave(name=f"{uuid.UUID(int=7)}.json", uid=OVERFLOW_UID)
    async with asyncio.timeout(20):
        await site.drop.take_all()
    kinds = ["linked", *["not_regular"] * 4, "too_large", "owner"]
    assert site.reasons() == {
        "report.json": "name", **{f"{uuid.UUID(int=n)}.json": kind for n, kind in enumerate(kinds, 1)}
    }  # fmt: skip
    assert (site.got, site.names(), secret.read_bytes()) == ([], [], b"theirs")


async def test_a_directory_with_something_in_it_is_told_once_and_holds_nobody_up(site: Site) -> None:
    (site.directory / "deep" / "er").mkdir(parents=True)
    for _ in range(3):
        site.leave()
        await site.drop.take_all()
    assert (len(site.got), site.reasons(), site.names()) == (3, {"deep": "not_regular"}, ["deep"])
    assert len(site.told) == 4


async def test_what_is_no_report_is_removed_once_nobody_can_be_writing_it(site: Site) -> None:
    site.refuse = InvalidEvent("status", "is needed")
    path = site.leave(uid=STRANGER_UID)
    assert await site.drop.take_all()
    assert (site.told, path.exists()) == ([], True)
    site.passed = UNFINISHED_SECONDS + 5
    await site.drop.take_all()
    assert (site.reasons(), site.names()) == ({path.name: "no_report"}, [])
    (fact,) = site.told
    assert isinstance(fact, DroppedReportRefused)
    assert (fact.uid, fact.detail) == (STRANGER_UID, "status: is needed")


async def test_the_time_of_a_file_is_not_its_users_to_set(site: Site) -> None:
    """Or what is no report could stay for ever."""
    site.refuse = InvalidEvent("body", "is empty")
    path = site.leave()
    os.utime(path, (4_000_000_000, 4_000_000_000))
    site.passed = UNFINISHED_SECONDS + 5
    await site.drop.take_all()
    assert site.names() == []


async def test_unfinished_files_wait_until_they_are_abandoned(site: Site) -> None:
    (site.directory / ".half.json").write_bytes(b"{")
    await site.drop.take_all()
    assert (site.names(), site.told) == ([".half.json"], [])
    site.passed = ABANDONED_SECONDS + 5
    await site.drop.take_all()
    assert (site.reasons(), site.names()) == ({".half.json": "abandoned"}, [])


async def test_a_conflict_is_told_and_removed(site: Site) -> None:
    site.refuse = EventConflict("e")
    path = site.leave()
    await site.drop.take_all()
    assert (site.reasons(), site.names()) == ({path.name: "conflict"}, [])


async def test_a_user_who_left_too_much_does_not_hold_up_another(site: Site) -> None:
    """So many of each in one look; and who has had their share waits, with all their files."""
    for _ in range(EACH_USER + 3):
        site.leave(uid=STRANGER_UID)
    site.leave(b"other", uid=1)
    assert await site.drop.take_all()
    assert [uid for _, uid, _, _ in site.got].count(STRANGER_UID) == EACH_USER
    assert (b"other", 1, False, Actor.CLI) in site.got
    site.busy = {STRANGER_UID}
    site.leave(b"another", uid=1)
    assert await site.drop.take_all()
    assert (len(site.names()), site.got[-1][0]) == (3, b"another")
    site.busy = set()
    assert not await site.drop.take_all()
    assert site.names() == []


async def test_a_full_spool_leaves_them_there_until_there_is_room(site: Site) -> None:
    site.full = True
    path = site.leave()
    with pytest.raises(SpoolFull):
        await site.drop.take_all()
    assert path.exists()
    async with site.running():
        site.full = False
        await site.until(lambda: len(site.got) == 1)


async def test_a_directory_that_goes_is_made_again_and_one_that_is_taken_is_told(site: Site) -> None:
    """It is no reason to stop the daemon."""
    site.leave()
    async with site.running():
        await site.until(lambda: len(site.got) == 1)
        site.directory.rmdir()
        site.directory.write_bytes(b"")
        await site.until(lambda: any(isinstance(fact, ChoreFailed) for fact in site.told))
    site.directory.unlink()
    await site.drop.take_all()
    assert stat.S_IMODE(site.directory.stat().st_mode) == MODE


async def test_who_may_not_be_read_is_removed_with_the_reason(reachable: Path) -> None:
    """The daemon's unit has no capability to read what only its owner may; here another user plays that daemon."""
    parent = reachable / "theirs"
    parent.mkdir()
    os.chown(parent, STRANGER_UID, STRANGER_UID)
    script = f"""
import asyncio, concurrent.futures.thread, os, sys
from pathlib import Path
from tests.adapters.test_benchmark_drop import Site
os.chdir({str(parent)!r})
os.setgroups([]); os.setresgid(*[{STRANGER_UID}] * 3); os.setresuid(*[{STRANGER_UID}] * 3)
site = Site(Path())
site.drop.prepare()
print("made", flush=True)
sys.stdin.readline()
asyncio.run(site.drop.take_all())
print(sorted(site.reasons().values()), len(site.got), site.names())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "made\n"
    for mode in (0o600, 0o644):
        path = parent / "benchmarks" / f"{uuid.uuid4()}.json"
        path.write_bytes(BODY)
        path.chmod(mode)
    out, _ = child.communicate("go\n", timeout=30)
    assert out == "['unreadable'] 1 []\n"

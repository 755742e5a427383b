"""Events that hooks left as files: taken up in order, once, and never deleted before they are held."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from jobtrail.adapters.incoming import MAX_BYTES, RESCAN_SECONDS, IncomingDirectory, read_hook_file
from jobtrail.core.facts import Fact, IncomingQuarantined, IncomingTaken
from jobtrail.domain.errors import ConfigError, EventConflict, InvalidEvent, SpoolBroken, SpoolFull
from jobtrail.domain.events import request_digest
from tests.hooks.hook_process import HOOKS, Environment, run_hook
from tests.hooks.socket_server import SocketServer
from tests.requirements import require_root

SLURM_UID = 54_322
NOW = "1767225600.123456789"
BODY = b"SLURM_JOB_ID=7\0SLURM_JOB_COMMENT=a\nb=\xff\0"


@dataclass(frozen=True)
class Taken:
    """One call of `take`."""

    hook: str
    body: bytes
    event_id: str
    time_us: int
    time_text: str


@dataclass
class Site:
    """A spool directory, and an intake that notes what it gets and refuses what it is told to refuse."""

    spool: Path
    got: list[Taken] = field(default_factory=list)
    told: list[Fact] = field(default_factory=list)
    refuse: dict[str, Exception] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.incoming, self.quarantine = self.spool / "incoming", self.spool / "quarantine"
        self.directory = IncomingDirectory(
            self.spool,
            take=self.take,
            tell=self.tell,
            trusted_uids=frozenset({SLURM_UID}),
            now_seconds=lambda: self.now,
        )

    async def take(self, hook: str, body: bytes, *, event_id: str, time_us: int, time_text: str) -> None:
        if event_id in self.refuse:
            self.changed.set()
            raise self.refuse[event_id]
        self.got.append(Taken(hook, body, event_id, time_us, time_text))

    def tell(self, fact: Fact) -> None:
        self.told.append(fact)
        self.changed.set()

    def leave(self, name: str, content: bytes | None = None, *, age: float = 0.0, body: bytes = BODY) -> Path:
        """A file as a hook leaves it: under another name first."""
        self.incoming.mkdir(exist_ok=True)
        if content is None:
            content = f"JOBTRAIL_HOOK=prolog\0JOBTRAIL_EVENT_ID={name}\0JOBTRAIL_EVENT_TIME={NOW}\0".encode() + body
        hidden = self.incoming / f".{name}.part"
        hidden.write_bytes(content)
        os.utime(hidden, (self.now - age, self.now - age))
        return hidden.rename(self.incoming / name)

    def names(self, directory: Path) -> list[str]:
        return sorted(path.name for path in directory.iterdir())

    def reasons(self) -> dict[str, str]:
        return {fact.name: fact.reason for fact in self.told if isinstance(fact, IncomingQuarantined)}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; it is asked again whenever a fact was told."""
        async with asyncio.timeout(RESCAN_SECONDS * 0.9):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """The directory watched, until the end of the block."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.directory.run(stop))
        try:
            yield task
        finally:
            stop.set()
            await asyncio.wait_for(task, RESCAN_SECONDS * 0.9)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, now=1_767_229_200.0)


async def test_a_file_comes_in_as_the_hook_wrote_it(site: Site) -> None:
    """Hook, id, time and body, to the byte; then the file is gone and the fact told."""
    site.leave("a")
    await site.directory.take_all()
    assert site.got == [Taken("prolog", BODY, "a", 1_767_225_600_123_456, NOW)]
    assert site.told == [IncomingTaken(event_id="a", name="a")]
    assert site.names(site.incoming) == []


async def test_files_come_in_by_age(site: Site) -> None:
    """A prolog before its epilog, whatever their names."""
    for name, age in (("c", 30), ("a", 10), ("b", 20)):
        site.leave(name, age=age)
    await site.directory.take_all()
    assert [taken.event_id for taken in site.got] == ["c", "b", "a"]


async def test_the_daemon_makes_its_directories(site: Site) -> None:
    """Nothing there yet is no error; what is made is closed to others."""
    await site.directory.take_all()
    assert [path.stat().st_mode & 0o777 for path in (site.incoming, site.quarantine)] == [0o700, 0o700]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not begin"),
        (b"garbage", "does not begin"),
        (b"JOBTRAIL_HOOK=prolog\0JOBTRAIL_EVENT_ID=a\0", "does not begin"),
        (b"JOBTRAIL_EVENT_ID=a\0JOBTRAIL_HOOK=prolog\0JOBTRAIL_EVENT_TIME=1767225600.1\0A=b\0", "does not begin"),
        (b"JOBTRAIL_HOOK=prolog\0JOBTRAIL_EVENT_ID=a\0JOBTRAIL_EVENT_TIME=1767225600.1\0SLURM_JOB_ID=7", "cut off"),
        (b"JOBTRAIL_HOOK=prolog\0JOBTRAIL_EVENT_ID=a\0JOBTRAIL_EVENT_TIME=1767225600.1\0", "cut off"),
        (b"JOBTRAIL_HOOK=prolog\0JOBTRAIL_EVENT_ID=a\0JOBTRAIL_EVENT_TIME=soon\0A=b\0", "JOBTRAIL_EVENT_TIME"),
        (b"JOBTRAIL_HOOK=prolog\0JOBTRAIL_EVENT_ID=a\0JOBTRAIL_EVENT_TIME=-1\0A=b\0", "JOBTRAIL_EVENT_TIME"),
        (b"JOBTRAIL_HOOK=prolog\0JOBTRAIL_EVENT_ID=a\0JOBTRAIL_EVENT_TIME=1\0A=b\0", "JOBTRAIL_EVENT_TIME"),
        (b"\0" * 4096, "does not begin"),
        (b"x" * (MAX_BYTES + 1), "longer than 2097152 bytes"),
    ],
)
async def test_what_is_no_event_is_put_aside_whole(site: Site, content: bytes, reason: str) -> None:
    """Moved to quarantine byte for byte with the reason told; good files beside it come in."""
    site.leave("bad", content, age=60)
    site.leave("good")
    await site.directory.take_all()
    assert reason in site.reasons()["bad"]
    assert (site.quarantine / "bad").read_bytes() == content
    assert [taken.event_id for taken in site.got] == ["good"]
    assert site.names(site.incoming) == []


@pytest.mark.parametrize("error", [InvalidEvent("SLURM_JOB_ID", "is missing"), EventConflict("a")])
async def test_what_the_intake_refuses_is_put_aside(site: Site, error: Exception) -> None:
    """Not an event, or another body under a held id: kept for people to look at."""
    site.refuse["a"] = error
    content = site.leave("a").read_bytes()
    await site.directory.take_all()
    assert site.reasons() == {"a": str(error)}
    assert (site.quarantine / "a").read_bytes() == content


async def test_quarantine_overwrites_nothing(site: Site) -> None:
    """Two bad files of one name are both kept."""
    for content in (b"one", b"two", b"three"):
        site.leave("a", content)
        await site.directory.take_all()
    kept = {name: (site.quarantine / name).read_bytes() for name in site.names(site.quarantine)}
    assert kept == {"a": b"one", "a.1": b"two", "a.2": b"three"}


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [_link, os.mkfifo, Path.mkdir, _socket])
async def test_what_is_no_regular_file_is_put_aside_unopened(site: Site, make: Callable[[Path], None]) -> None:
    """Links are not followed, pipes not waited for."""
    site.incoming.mkdir()
    make(site.incoming / "odd")
    await asyncio.wait_for(site.directory.take_all(), 20)
    assert site.reasons() == {"odd": "odd: is not a regular file"}
    assert site.names(site.incoming) == []
    assert site.names(site.quarantine) == ["odd"]


async def test_only_root_and_the_daemon_may_leave_events(site: Site) -> None:
    """A file of another user is no event, whoever let it in."""
    require_root("give a file to another user")
    os.chown(site.leave("a"), 65534, 65534)
    await site.directory.take_all()
    assert "belongs to uid 65534" in site.reasons()["a"]
    assert site.got == []


async def test_slurms_user_may_leave_events(site: Site) -> None:
    """slurmctld runs its hooks as SlurmUser, and what they could not post is that user's file."""
    require_root("give a file to another user")
    os.chown(site.leave("a"), SLURM_UID, SLURM_UID)
    await site.directory.take_all()
    assert [taken.event_id for taken in site.got] == ["a"]
    assert site.names(site.incoming) == []


async def test_a_file_being_written_is_left_alone(site: Site) -> None:
    """A dot in front: its hook may still be at work."""
    site.leave("a", age=3000).rename(site.incoming / ".a.part")
    await site.directory.take_all()
    assert (site.names(site.incoming), site.told) == ([".a.part"], [])


async def test_an_abandoned_half_file_is_put_aside_after_an_hour(site: Site) -> None:
    """Its hook died in the middle; hooks end within seconds."""
    site.leave("a", age=3700).rename(site.incoming / ".a.part")
    await site.directory.take_all()
    assert "half written" in site.reasons()[".a.part"]
    assert site.names(site.quarantine) == ["a.part"]


async def test_an_abandoned_complete_file_comes_in_after_an_hour(site: Site) -> None:
    """The hook renames from `.part` once all bytes are written; it died before the disk had confirmed them."""
    site.leave("a", age=3700).rename(site.incoming / ".a")
    await site.directory.take_all()
    assert [taken.event_id for taken in site.got] == ["a"]


async def test_without_a_time_the_files_own_counts(site: Site) -> None:
    """A node without date(1): the hook leaves the time empty."""
    site.leave("a", b"JOBTRAIL_HOOK=epilog\0JOBTRAIL_EVENT_ID=a\0JOBTRAIL_EVENT_TIME=\0A=b\0", age=100)
    await site.directory.take_all()
    assert site.got == [Taken("epilog", b"A=b\0", "a", int((site.now - 100) * 1e6), "")]


async def test_a_full_spool_leaves_the_files_where_they_are(site: Site) -> None:
    """The start of the daemon goes on; order is kept: what follows the refused event waits too."""
    site.leave("a", age=3)
    site.leave("b", age=2)
    site.leave("c", age=1)
    site.refuse["b"] = SpoolFull(1)
    await site.directory.take_all()
    assert [taken.event_id for taken in site.got] == ["a"]
    assert site.names(site.incoming) == ["b", "c"]
    site.refuse.clear()
    await site.directory.take_all()
    assert [taken.event_id for taken in site.got] == ["a", "b", "c"]


async def test_a_full_spool_is_asked_again(site: Site) -> None:
    """While watching, the files are tried again after the time the spool names."""
    site.leave("a")
    site.refuse["a"] = SpoolFull(1, retry_after_seconds=0)
    async with site.running():
        await site.until(site.changed.is_set)
        site.refuse.clear()
        await site.until(lambda: len(site.got) == 1)


async def test_a_broken_spool_stops_the_watch_and_keeps_the_file(site: Site) -> None:
    """The daemon ends; the event is still there for the next one."""
    site.leave("a")
    site.refuse["a"] = SpoolBroken("I/O error")
    with pytest.raises(SpoolBroken):
        await asyncio.wait_for(site.directory.run(asyncio.Event()), 20)
    assert site.names(site.incoming) == ["a"]


async def test_files_are_taken_as_they_appear(site: Site) -> None:
    """By rename, as hooks do; far sooner than the slow rescan, and without ever blocking the event loop."""
    site.leave("before")
    async with site.running():
        await site.until(lambda: len(site.got) == 1)
        site.leave("after")
        await site.until(lambda: len(site.got) == 2)
        assert [taken.event_id for taken in site.got] == ["before", "after"]
        with blockbuster_ctx():
            await asyncio.to_thread(site.leave, "last")
            await site.until(lambda: site.got[-1].event_id == "last")


def watches() -> int:
    """How many inotify descriptors this process has; others, of tests before, may be closed at any time."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # a thread that just then flushes the directory closes its own
            count += "inotify" in os.readlink(f"/proc/self/fd/{descriptor}")
    return count


async def test_watching_ends_at_once_when_asked(site: Site) -> None:
    """Stopping the daemon does not wait for the rescan, and leaves no descriptor behind."""
    before = watches()
    async with site.running() as task:
        site.leave("a")
        await site.until(lambda: len(site.got) == 1)
        assert watches() == before + 1
    assert task.done()
    assert watches() == before


async def test_two_takers_take_each_file_once(site: Site) -> None:
    """The start's sweep and the watch may run side by side."""
    for number in range(20):
        site.leave(f"e{number:02}", age=100 - number)
    await asyncio.gather(*(site.directory.take_all() for _ in range(3)))
    assert [taken.event_id for taken in site.got] == [f"e{number:02}" for number in range(20)]


@pytest.mark.parametrize("name", ["incoming", "quarantine"])
async def test_a_link_in_the_place_of_a_directory_is_refused(site: Site, tmp_path: Path, name: str) -> None:
    """Events are neither read from nor moved to where somebody else's link leads."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=name):
        await site.directory.take_all()


def test_a_hooks_file_has_the_digest_of_its_post(tmp_path: Path) -> None:
    """The real hook, first answered with an error: what it spooled digests like what it had posted."""
    environment: Environment = {
        "JOBTRAIL_SOCKET": str(tmp_path / "s"),
        "JOBTRAIL_SPOOL": str(tmp_path / "spool"),
        "JOBTRAIL_HOOK_CONF": str(tmp_path / "hook.conf"),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_COMMENT": b"a\nb\xff",
    }
    with SocketServer(tmp_path / "s", status=500) as server:
        run_hook(["/bin/sh", str(HOOKS / "epilog.sh")], environment)
    (request,) = server.requests
    (path,) = (tmp_path / "spool" / "incoming").iterdir()
    found = read_hook_file(path)
    assert found.event_id == request.headers["jobtrail-event-id"]
    posted = request_digest("epilog", request.headers["jobtrail-event-time"], request.body)
    assert request_digest(found.hook, found.time_text, found.body) == posted

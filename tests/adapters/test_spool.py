"""The spool on SQLite: what it keeps, what it refuses, and how it gets along with time and with its own past."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from jobtrail.adapters.spool import SqliteSpool
from jobtrail.adapters.spool.directory import durability_of
from jobtrail.adapters.spool.schema import check_setting, connect, pragma
from jobtrail.domain.errors import ConfigError, EventConflict, SpoolBroken
from jobtrail.domain.events import EventKind, decode
from tests.adapters.spools import MIB, add, event, opened, rows_after, verified
from tests.fakes import FakeClock
from tests.requirements import require_root


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("locking_mode", "exclusive"),
        ("auto_vacuum", "2"),
        ("page_size", "4096"),
        ("max_page_count", str(64 * MIB // 4096)),
        ("journal_size_limit", str(8 * MIB)),
        ("wal_autocheckpoint", "1000"),
        ("mmap_size", "0"),
    ],
)
def test_sqlite_reports_the_settings_the_promises_rest_on(tmp_path: Path, name: str, value: str) -> None:
    """Read back from the connection that the writer thread uses."""
    connection = connect(tmp_path / "spool.db", 64 * MIB)
    try:
        assert pragma(connection, name) == value
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("name", "promised"), [("synchronous", 2), ("journal_mode", "wal"), ("locking_mode", "exclusive")]
)
def test_a_setting_that_does_not_hold_breaks_the_spool(name: str, promised: str | int) -> None:
    """SQLite takes a PRAGMA it cannot fulfil without a word: a database in memory has no WAL and no flush."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        with pytest.raises(SpoolBroken, match=name):
            check_setting(connection, name, promised)
    finally:
        connection.close()


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    """Chain, position, open runs, refusals, and the memory of what was sent already."""
    first, second = event(job=1), event(job=2)
    async with opened(tmp_path / "spool") as spool:
        for one in (first, second, event(EventKind.JOB_FINISHED, job=1, at=5)):
            await add(spool, one)
        await spool.mark_forwarded(2)
        await spool.record_refusal(2, "why")
        before, runs, rows = spool.status(), await spool.open_runs(), await rows_after(spool)
    async with opened(tmp_path / "spool") as spool:
        assert spool.status() == before
        assert await spool.open_runs() == runs
        assert await rows_after(spool) == rows
        assert (await add(spool, first)).duplicate
        with pytest.raises(EventConflict):
            await spool.append(second, b"another body")
        assert (await add(spool, event())).seq == before.head_seq + 1
        await verified(spool)
        assert await spool.last_cluster() == "c1"


async def test_a_thousand_senders_at_once(tmp_path: Path) -> None:
    """Every event is held once, in one gapless chain."""
    events = [event(job=number) for number in range(1000)]
    async with opened(tmp_path / "spool") as spool:
        receipts = await asyncio.gather(*(add(spool, one) for one in events))
        held = await verified(spool)
    assert {receipt.event_id for receipt in receipts} == {one.event_id for one in events} <= held.keys()
    assert sorted(receipt.seq for receipt in receipts) == list(range(2, 1002))


async def test_a_large_group_is_committed_in_parts(tmp_path: Path) -> None:
    """Thirty events of 1 MiB at once: the write-ahead log stays near its limit."""
    async with opened(tmp_path / "spool") as spool:
        await asyncio.gather(*(add(spool, event(job=number, note="x" * MIB)) for number in range(30)))
        assert len(await verified(spool)) == 31
        assert (tmp_path / "spool" / "spool.db-wal").stat().st_size < 20 * MIB


async def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    """Events under way when the daemon stops are held; later ones are told that the spool is closed."""
    async with opened(tmp_path / "spool") as spool:
        under_way = [asyncio.ensure_future(add(spool, event(job=number))) for number in range(300)]
        await asyncio.sleep(0)
    receipts = await asyncio.gather(*under_way)
    assert len({receipt.seq for receipt in receipts}) == 300
    with pytest.raises(SpoolBroken, match="closed"):
        await add(spool, event())
    assert not (tmp_path / "spool" / "spool.db-wal").exists()
    async with opened(tmp_path / "spool") as spool:
        assert spool.status().head_seq == 301


async def test_who_gives_up_waiting_harms_nobody(tmp_path: Path) -> None:
    """The event of a sender that went away is held (it may come again), and the others are answered."""
    async with opened(tmp_path / "spool") as spool:
        impatient, patient = event(job=1), event(job=2)
        gone = asyncio.ensure_future(add(spool, impatient))
        await asyncio.sleep(0)
        gone.cancel()
        assert not (await add(spool, patient)).duplicate
        assert (await add(spool, impatient)).duplicate


async def test_the_event_loop_never_waits_for_the_disk(tmp_path: Path) -> None:
    """No call of the spool blocks the loop, from opening to closing."""
    with blockbuster_ctx():
        async with opened(tmp_path / "spool") as spool:
            await add(spool, event())
            await rows_after(spool)
            await spool.mark_forwarded(2)
            await spool.open_runs()
            spool.status()


async def _until_held(spool: SqliteSpool, seqs: list[int]) -> None:
    """Return when exactly `seqs` are held: events are purged in small parts, between the spool's other work."""
    async with asyncio.timeout(60):
        while [row.seq for row in await rows_after(spool)] != seqs:
            pass


async def test_forwarded_events_go_when_their_time_is_over(tmp_path: Path) -> None:
    """Only forwarded ones, only old ones, never the head; what is left still verifies after reopening."""
    clock = FakeClock()
    keep = {"keep_forwarded_us": 3600 * 1_000_000, "clock": clock}
    async with opened(tmp_path / "spool", **keep) as spool:
        for number in range(250):
            await add(spool, event(job=number))
        await spool.mark_forwarded(240)
        clock.advance(3000)
        await add(spool, event(job=250))
        assert (await rows_after(spool))[0].seq == 1
        clock.advance(700)
        await add(spool, event(job=251))
        left = list(range(241, 254))
        await _until_held(spool, left)
        assert spool.status().oldest_unforwarded_us == (await rows_after(spool, 240))[0].received_us
        await spool.mark_forwarded(10)  # the store was restored from an old backup
    async with opened(tmp_path / "spool", **keep) as spool:
        assert [row.seq for row in await rows_after(spool)] == left
        assert "damaged" not in " ".join(spool.notices)
        await spool.mark_forwarded(253)
        clock.advance(7200)
        await spool.mark_forwarded(253)
        await _until_held(spool, [253])
        assert (await add(spool, event(job=252))).seq == 254


async def test_the_id_of_a_purged_event_is_remembered(tmp_path: Path) -> None:
    """A hook's file that comes to light after the purge is the same event still, and another body a conflict."""
    clock = FakeClock()
    async with opened(tmp_path / "spool", keep_forwarded_us=0, clock=clock) as spool:
        first = event()
        held = await add(spool, first)
        await add(spool, event(job=8))
        await add(spool, event(job=9))
        async with asyncio.timeout(60):
            while [row.seq for row in await rows_after(spool)] != [4]:
                clock.advance(100)  # a purge is due at most once a minute
                await spool.mark_forwarded(3)
        again = await add(spool, first)
        assert (again.seq, again.duplicate) == (held.seq, True)
        with pytest.raises(EventConflict):
            await spool.append(first, b"another digest")
        assert [row.seq for row in await rows_after(spool)] == [4]


async def test_a_second_daemon_is_refused_by_pid(tmp_path: Path) -> None:
    """The first goes on undisturbed; once it is gone the spool is free."""
    async with opened(tmp_path / "spool") as spool:
        with pytest.raises(ConfigError, match=rf"in use by the process with pid {os.getpid()}"):
            async with opened(tmp_path / "spool"):
                pytest.fail("two daemons hold one spool")
        await add(spool, event())
    async with opened(tmp_path / "spool") as spool:
        assert spool.status().head_seq == 2


async def test_a_daemon_that_is_frozen_still_holds_its_spool(tmp_path: Path) -> None:
    """The lock belongs to the process, not to its pulse."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.adapters.spool_child", str(tmp_path / "spool"), "1", "1000000"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        os.kill(child.pid, 19)  # SIGSTOP
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        with pytest.raises(ConfigError, match=str(child.pid)):
            async with opened(tmp_path / "spool"):
                pytest.fail("two daemons hold one spool")
    finally:
        child.kill()
        child.communicate()
    async with opened(tmp_path / "spool") as spool:
        await verified(spool)


async def _refused(directory: Path, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refusal:
        async with opened(directory):
            pytest.fail("the directory was accepted")
    assert str(directory) in str(refusal.value)


async def test_a_symbolic_link_is_no_spool(tmp_path: Path) -> None:
    """Nothing is written where it leads."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "spool").symlink_to(tmp_path / "elsewhere")
    await _refused(tmp_path / "spool", "symbolic link")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["spool.db", "lock", "ballast"])
async def test_a_planted_link_is_not_followed(tmp_path: Path, name: str) -> None:
    """A link among the spool's own files is refused and its target left alone."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "spool" / name).symlink_to(tmp_path / "victim")
    await _refused(tmp_path / "spool", "symbolic link" if name == "spool.db" else "cannot be used")
    assert (tmp_path / "victim").read_bytes() == b"precious"


async def test_a_directory_others_can_write_into_is_refused(tmp_path: Path) -> None:
    """Who can write there can forge or remove events."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(0o770)
    await _refused(tmp_path / "spool", "mode 0770")


async def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    """Its owner could replace what is in it."""
    require_root("give a directory to another user")
    (tmp_path / "spool").mkdir(mode=0o700)
    os.chown(tmp_path / "spool", 65534, 65534)
    await _refused(tmp_path / "spool", "belongs to uid 65534")


async def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    """With a sentence, not a traceback."""
    (tmp_path / "spool").write_bytes(b"")
    await _refused(tmp_path / "spool", "not a directory")


async def test_the_spool_is_for_the_daemon_alone_to_read(tmp_path: Path) -> None:
    """Directory 0700, files 0600: hook environments name users, jobs and paths."""
    async with opened(tmp_path / "deep" / "spool") as spool:
        await add(spool, event())
        assert (tmp_path / "deep" / "spool").stat().st_mode & 0o777 == 0o700
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "deep" / "spool").iterdir()}
    assert modes == dict.fromkeys(("lock", "ballast", "spool.db", "spool.db-wal"), 0o600)


@pytest.mark.parametrize(
    ("kind", "level"),
    [("ext4", "disk"), ("xfs", "disk"), ("btrfs", "disk"), ("zfs", "disk")]
    + [(kind, "volatile") for kind in ("tmpfs", "ramfs", "overlay", "nfs", "nfs4", "lustre", "gpfs", "beegfs")]
    + [(kind, "volatile") for kind in ("fuse.sshfs", "virtiofs", "wekafs", "panfs", "orangefs")],
)
def test_durability_follows_the_file_system(tmp_path: Path, kind: str, level: str) -> None:
    """An acknowledgement claims `disk` only where a flush reaches one; the note names the mount."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext3 /dev/root rw\n"
        f"23 22 8:2 / /var rw shared:2 master:1 - {kind} source rw\n"
        "24 22 8:3 / /variable rw - tmpfs none rw\n"
    )
    judged = durability_of(Path("/var/lib/spool-that-is-not-there"), mountinfo)
    assert judged.level == level
    assert f"{kind} (mounted at /var)" in judged.note


def test_the_mount_in_sight_decides(tmp_path: Path) -> None:
    """Of two mounts on one directory the later one covers the earlier; blanks are written as \\040."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "1 0 8:1 / / rw - ext4 a rw\n"
        "2 1 8:2 / /not\\040there rw - ext4 b rw\n"
        "3 1 0:3 / /not\\040there rw - tmpfs c rw\n"
    )
    assert durability_of(Path("/not there/spool"), mountinfo).level == "volatile"
    assert durability_of(Path("/not"), mountinfo).level == "disk"
    assert durability_of(Path("/x"), tmp_path / "missing").level == "volatile"


async def test_a_receipt_tells_that_it_is_volatile(tmp_path: Path) -> None:
    """On a file system in memory nobody is told `disk`, and the administrator is warned."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("1 0 0:1 / / rw - tmpfs none rw\n")
    async with opened(tmp_path / "spool", mountinfo=mountinfo) as spool:
        assert (await add(spool, event())).durability == "volatile"
        assert spool.status().durability == "volatile"
        assert "tmpfs" in spool.durability_note
        assert any("power cut" in notice for notice in spool.notices)


async def test_an_affected_sqlite_is_named(tmp_path: Path) -> None:
    """Up to 3.51.2 two connections at once can corrupt a file in WAL mode (sqlite.org/wal.html)."""
    async with opened(tmp_path / "spool") as spool:
        named = any(sqlite3.sqlite_version in remark for remark in spool.remarks)
    assert named == (sqlite3.sqlite_version_info < (3, 51, 3))


async def test_the_first_event_names_its_writer(tmp_path: Path) -> None:
    """Node and cluster of the chain's beginning are the daemon's."""
    async with opened(tmp_path / "spool", node="n9", cluster="c9") as spool:
        (row,) = await rows_after(spool)
    begun = decode(row.payload)
    assert (begun.kind, begun.node, begun.cluster, begun.note) == (EventKind.CHAIN_STARTED, "n9", "c9", "a new spool")


async def test_the_first_event_says_whose_chain_it_is_where_it_is_no_nodes(tmp_path: Path) -> None:
    """As an import's, which follows no other chain of the host."""
    async with opened(tmp_path / "spool", note="a chain of its own") as spool:
        (row,) = await rows_after(spool)
    assert decode(row.payload).note == "a chain of its own"

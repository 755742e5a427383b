"""A damaged spool file: the spool serves at once, saves what is whole, deletes nothing, and says what happened."""

import asyncio
import hashlib
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jobtrail.adapters.spool.schema import SCHEMA_VERSION
from jobtrail.adapters.spool.sealing import seal, unseal
from jobtrail.domain.audit import ChainedEvent
from jobtrail.domain.errors import ConfigError, SpoolBroken
from jobtrail.domain.events import Event, EventKind, decode
from tests.adapters.spools import add, event, opened, rows_after, verified

EVENTS = 120
FORWARDED = 41
FLIPS, CUTS = 30, 10


async def _fill(directory: Path, events: list[Event]) -> None:
    async with opened(directory) as spool:
        for one in events:
            await add(spool, one)
        for number in range(0, EVENTS, 2):
            await add(spool, event(EventKind.JOB_FINISHED, job=number, at=60))
        await spool.mark_forwarded(FORWARDED)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """A spool of 120 events, some forwarded, some runs still open; and the events."""
    directory = tmp_path_factory.mktemp("pristine") / "spool"
    events = [event(job=number, note=f"note {number} " * 40) for number in range(EVENTS)]
    asyncio.run(_fill(directory, events))
    return directory, events


@pytest.fixture
def copied(pristine: tuple[Path, list[Event]], tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(pristine[0], tmp_path / "spool"))


def patched(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def run_sql(directory: Path, statement: str) -> None:
    connection = sqlite3.connect(directory / "spool.db")
    connection.execute(statement)
    connection.commit()
    connection.close()


def halve(directory: Path) -> None:
    path = directory / "spool.db"
    os.truncate(path, path.stat().st_size // 2)


def garble_a_note(directory: Path) -> None:
    """One letter inside one payload: the file's structure is untouched."""
    path = directory / "spool.db"
    patched(path, path.read_bytes().index(b"note 77 note 77") + 2, b"T")


def sql(statement: str) -> Callable[[Path], None]:
    """Damage by a statement: what a page with a valid structure and wrong content looks like."""
    return lambda directory: run_sql(directory, statement)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "header": lambda directory: patched(directory / "spool.db", 0, b"this is not a database at all..."),
    "header's word on writing": lambda directory: patched(directory / "spool.db", 18, b"\x06"),
    "schema page": lambda directory: patched(directory / "spool.db", 100, bytes(400)),
    "pages in the middle": lambda directory: patched(directory / "spool.db", 15 * 4096, b"\xff" * 3 * 4096),
    "second half": halve,
    "one letter": garble_a_note,
    "a changed hash": sql("UPDATE events SET prev_hash = zeroblob(32) WHERE seq = 70"),
    "a missing event": sql("DELETE FROM events WHERE seq = 70"),
    "a missing first event": sql("DELETE FROM events WHERE seq = 1"),
    "a missing last event": sql("DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)"),
    "its state": sql("UPDATE meta SET state = zeroblob(300)"),
    "no state": sql("DELETE FROM meta"),
    "a dropped table": sql("DROP TABLE open_runs"),
    "an open run": sql("UPDATE open_runs SET run = zeroblob(80) WHERE job_id = 'slurm-3'"),
    "a type": sql("UPDATE events SET salt = 'text' WHERE seq = 60"),
}
ALL_SAVED = {
    "header's word on writing", "a missing first event", "its state", "no state", "a dropped table", "an open run",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_put_aside_and_the_spool_serves(
    copied: Path, pristine: tuple[Path, list[Event]], damage: str
) -> None:
    """Whatever is wrong: a new chain begins and names the old one, and the old file is kept as it was found."""
    DAMAGES[damage](copied)
    damaged = hashlib.sha256((copied / "spool.db").read_bytes()).digest()
    async with opened(copied) as spool:
        held = await verified(spool)
        begun = decode((await rows_after(spool))[0].payload)
        assert begun.kind is EventKind.CHAIN_STARTED
        assert "damaged" in (begun.note or "")
        assert any("damaged" in notice for notice in spool.notices)
        assert not (await add(spool, event())).duplicate
    (aside,) = copied.glob("spool.db.corrupt-*")
    assert aside.name in (begun.note or "")
    assert hashlib.sha256(aside.read_bytes()).digest() == damaged
    unforwarded = {one.event_id for one in pristine[1][FORWARDED - 1 :]}
    if damage in ALL_SAVED:
        assert unforwarded <= held.keys()
    async with opened(copied) as spool:  # and all is well from now on
        assert held.keys() < (await verified(spool)).keys()
        assert not any("damaged" in notice for notice in spool.notices)


@pytest.mark.parametrize("damage", ["one letter", "a changed hash", "a type", "a missing event"])
async def test_one_bad_event_costs_one_event(copied: Path, pristine: tuple[Path, list[Event]], damage: str) -> None:
    """All other events that were not forwarded are saved under their ids, in order, byte for byte; no forwarded one."""
    before = await _all_rows(pristine[0])
    DAMAGES[damage](copied)
    async with opened(copied) as spool:
        rows = await rows_after(spool, 1)
        saved = [(row.event_id, row.payload, row.salt, row.time_us, row.received_us) for row in rows]
        one = pristine[1][-1]
        assert (await add(spool, one)).duplicate
    expected = [(row.event_id, row.payload, row.salt, row.time_us, row.received_us) for row in before[FORWARDED:]]
    assert len(saved) == len(expected) - 1
    assert [row for row in expected if row in saved] == saved


async def _all_rows(directory: Path) -> list[ChainedEvent]:
    scratch = Path(shutil.copytree(directory, directory.parent / "reading", dirs_exist_ok=True))
    async with opened(scratch) as spool:
        return await rows_after(spool)


async def test_the_new_chain_names_the_end_of_the_old_one(copied: Path) -> None:
    """Chain, sequence number and hash: an auditor can tell where the old chain broke off."""
    async with opened(copied) as spool:
        chain_id, last = spool.status().chain_id, (await rows_after(spool))[-1]
    garble_a_note(copied)
    async with opened(copied) as spool:
        assert spool.status().chain_id != chain_id
        note = decode((await rows_after(spool))[0].payload).note or ""
    assert f"chain {chain_id} up to sequence {last.seq} with hash {last.row_hash.hex()}" in note


@pytest.mark.parametrize("damage", ["one letter", "a dropped table", "an open run", "its state"])
async def test_open_runs_are_saved(copied: Path, damage: str) -> None:
    """From the list itself where it is whole, else from the events that were saved: no running job is forgotten."""
    async with opened(copied) as spool:
        runs = {run.target.job_id: run for run in await spool.open_runs()}
    assert len(runs) == EVENTS // 2
    DAMAGES[damage](copied)
    async with opened(copied) as spool:
        saved = {run.target.job_id: run for run in await spool.open_runs()}
    lost = runs.keys() - saved.keys()
    assert all(saved[job_id] == runs[job_id] for job_id in saved)
    if damage in ("one letter", "its state"):
        assert not lost
    else:  # what was forwarded already is gone with the list; the scan of cgroups finds such jobs again
        assert {int(job_id.removeprefix("slurm-")) for job_id in lost} <= set(range(FORWARDED))


async def test_damage_found_while_reading_is_never_forwarded(tmp_path: Path) -> None:
    """A sector that goes bad under a running daemon breaks the spool; the restart then saves the rest."""
    async with opened(tmp_path / "spool") as spool:
        await asyncio.gather(*(add(spool, event(job=number, note=f"note {number} " * 800)) for number in range(900)))
    async with opened(tmp_path / "spool") as spool:
        garble_a_note(tmp_path / "spool")  # it is read from the disk: SQLite's cache is smaller than the file
        with pytest.raises(SpoolBroken, match="damaged on disk"):
            await rows_after(spool)
        assert isinstance(await spool.failure(), SpoolBroken)
    async with opened(tmp_path / "spool") as spool:
        assert len(await verified(spool)) == 901
        assert any("damaged" in notice for notice in spool.notices)


async def test_any_flipped_bit_and_any_cut_leave_a_spool_that_serves(
    copied: Path, pristine: tuple[Path, list[Event]]
) -> None:
    """Thirty flips and ten cuts: never an error at the start, never a row that differs from what was sent."""
    seed = int(os.environ.get("JOBTRAIL_TEST_SEED") or random.SystemRandom().randrange(2**32))
    sys.stderr.write(f"JOBTRAIL_TEST_SEED={seed}\n")
    draw = random.Random(seed)
    sent = {one.event_id: one for one in pristine[1]}
    whole = (pristine[0] / "spool.db").read_bytes()
    for number in range(FLIPS + CUTS):
        content = bytearray(whole)
        if number < FLIPS:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        else:
            del content[draw.randrange(len(content)) :]
        (copied / "spool.db").write_bytes(content)
        async with opened(copied) as spool:
            rows = await rows_after(spool)
            for row in rows:
                if row.event_id in sent:
                    assert decode(row.payload) == sent[row.event_id]
            if not any("damaged" in one for one in spool.notices):  # SQLite takes a file of one byte for an empty one
                assert len(rows) == (EVENTS + EVENTS // 2 + 1 if len(content) > 1 else 1)
            await add(spool, event())
            await verified(spool)


async def test_a_missing_file_in_a_used_directory_is_told_in_the_chain(copied: Path) -> None:
    """Somebody deleted the events: the new chain says that there was one before."""
    (copied / "spool.db").unlink()
    async with opened(copied) as spool:
        note = decode((await rows_after(spool))[0].payload).note or ""
    assert "used before" in note


@pytest.mark.parametrize("moment", ["both aside", "none aside", "half written"])
async def test_a_crash_while_replacing_loses_nothing(
    copied: Path, pristine: tuple[Path, list[Event]], tmp_path: Path, moment: str
) -> None:
    """Killed between the renames: the next start takes up the finished replacement, or makes it anew."""
    other = Path(shutil.copytree(copied, tmp_path / "other"))
    garble_a_note(other)
    async with opened(other) as spool:
        expected = (await verified(spool)).keys()
    garble_a_note(copied)
    aside = copied / "spool.db.corrupt-20260101T000000Z"
    if moment == "half written":
        (copied / "spool.db.new").write_bytes(b"SQLite format 3\0 and no more")
    else:
        shutil.copy(other / "spool.db", f"{aside}.replacement")
    if moment == "both aside":
        (copied / "spool.db").rename(aside)
    async with opened(copied) as spool:
        held = (await verified(spool)).keys()
    assert len(held) == len(expected)
    assert {one.event_id for one in pristine[1]} & held == {one.event_id for one in pristine[1]} & expected
    assert len(list(copied.glob("spool.db.corrupt-*"))) == 1
    assert not list(copied.glob("*.replacement"))


def become_newer(directory: Path, version: int) -> None:
    connection = sqlite3.connect(directory / "spool.db")
    (sealed,) = connection.execute("SELECT state FROM meta").fetchone()
    state = msgspec.json.decode(unseal(sealed) or b"")
    state |= {"schema": version, "something": "this version does not know"}
    connection.execute("UPDATE meta SET state = ?", (seal(msgspec.json.encode(state)),))
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()


async def test_a_newer_schema_is_refused_and_left_alone(copied: Path) -> None:
    """After a downgrade: a clear message, and not a byte changed."""
    become_newer(copied, SCHEMA_VERSION + 1)
    before = (copied / "spool.db").read_bytes()
    with pytest.raises(ConfigError, match="newer Jobtrail"):
        async with opened(copied):
            pytest.fail("a newer schema was opened")
    assert (copied / "spool.db").read_bytes() == before
    assert not list(copied.glob("spool.db.corrupt-*"))


async def test_a_version_number_alone_is_no_newer_schema(copied: Path) -> None:
    """A flipped bit in the header must not keep the daemon from starting."""
    patched(copied / "spool.db", 60, (1 << 20).to_bytes(4, "big"))
    async with opened(copied) as spool:
        assert len(await verified(spool)) >= EVENTS


async def test_a_flipped_bit_in_a_columns_name_is_damage_and_loses_no_event(
    copied: Path, pristine: tuple[Path, list[Event]]
) -> None:
    """SQLite finds nothing wrong with such a schema; only that no query of ours works any more."""
    async with opened(pristine[0]) as whole:
        status = whole.status()
        waiting = {row.event_id for row in await rows_after(whole) if row.seq > status.forwarded_seq}
    file = copied / "spool.db"
    content = file.read_bytes()
    at = content.index(b"event_id BLOB NOT NULL UNIQUE,\n    chain_id")
    file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    async with opened(copied) as spool:
        assert any("its schema lacks events.event_id" in notice for notice in spool.notices)
        assert waiting <= {row.event_id for row in await rows_after(spool)}
        await add(spool, event())
        await verified(spool)
    assert len(waiting) > EVENTS / 2

"""A full spool refuses what is new, keeps what it has acknowledged, and drains by itself once the store is back."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from jobtrail.adapters.spool import SqliteSpool
from jobtrail.adapters.spool.directory import Ballast
from jobtrail.domain.errors import EventConflict, SpoolFull
from jobtrail.domain.events import Event, EventKind
from tests.adapters.spools import MIB, add, event, opened, rows_after, verified
from tests.requirements import require_root, unmet

NOTE = "x" * 8000


async def fill(spool: SqliteSpool) -> list[Event]:
    """Append until the spool is full; what it acknowledged."""
    held: list[Event] = []
    while True:
        one = event(job=len(held), note=NOTE)
        try:
            await add(spool, one)
        except SpoolFull:
            return held
        held.append(one)


async def test_at_its_byte_limit_the_spool_refuses_and_forgets_nothing(tmp_path: Path) -> None:
    """Held events stay readable, duplicates and conflicts are still told from new ones, the file keeps to its cap."""
    async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
        held = await fill(spool)
        assert len(held) > 80
        assert (await add(spool, held[0])).duplicate
        with pytest.raises(EventConflict):
            await spool.append(held[0], b"another body")
        with pytest.raises(SpoolFull, match=str(MIB)):
            await add(spool, event(note=NOTE))
        assert {one.event_id for one in held} <= (await verified(spool)).keys()
        status = spool.status()
        assert status.bytes_used <= status.bytes_limit == MIB
        assert (tmp_path / "spool" / "spool.db").stat().st_size <= MIB
        assert len(await spool.open_runs()) == len(held)


async def test_a_full_spool_takes_events_again_when_old_ones_were_forwarded(tmp_path: Path) -> None:
    """Forwarded events give way before their time; those not forwarded never do."""
    async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
        held = await fill(spool)
        half = len(held) // 2
        await spool.mark_forwarded(half)
        more = [event(job=1000 + number, note=NOTE) for number in range(half // 2)]
        for one in more:
            await add(spool, one)
        kept = {row.event_id for row in await rows_after(spool)}
        assert {one.event_id for one in held[half:]} | {one.event_id for one in more} <= kept
        assert held[0].event_id not in kept
        assert spool.status().forwarded_seq == half
    async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
        assert kept >= {row.event_id for row in await rows_after(spool)} >= {one.event_id for one in held[half:]}


async def test_an_end_is_taken_when_a_large_event_finds_no_room(tmp_path: Path) -> None:
    """In one group a small event that fits is held although a large one beside it is refused."""
    async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
        await add(spool, event(job=1))
        with pytest.raises(SpoolFull):
            await add(spool, event(note="x" * 2 * MIB))
        receipt = await add(spool, event(EventKind.JOB_FINISHED, job=1, at=9))
        assert receipt.closed is not None
        await verified(spool)


async def test_before_the_limit_forwarded_events_make_room(tmp_path: Path) -> None:
    """With the store keeping up no event is ever refused, however many pass through a small spool."""
    async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
        for number in range(400):
            receipt = await add(spool, event(job=number, note=NOTE))
            await spool.mark_forwarded(receipt.seq)
        assert spool.status().bytes_used <= MIB


def test_ballast_is_real_space(tmp_path: Path) -> None:
    """Its blocks are allocated, not a hole; releasing gives them back."""
    ballast = Ballast(tmp_path / "ballast", 64 * MIB)
    assert ballast.restore()
    status = (tmp_path / "ballast").stat()
    assert status.st_size == 4 * MIB
    assert status.st_blocks * 512 >= 4 * MIB
    ballast.release()
    assert not (tmp_path / "ballast").exists()
    assert ballast.restore()


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB."""
    require_root("mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "none", str(place)]
    else:
        image = tmp_path / "image"
        image.write_bytes(bytes(16 * MIB))
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        unmet(f"cannot mount a small {request.param} ({done.stderr.strip()}): a full disk cannot be tested")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill_disk(place: Path) -> Path:
    """Somebody else's file that takes all the space there is."""
    path = place / "somebody-elses"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return path


async def test_a_full_disk_refuses_and_drains_through_the_ballast(small_disk: Path) -> None:
    """The disk fills with the spool's own events. Once they are forwarded they are purged, though the disk is full."""
    async with opened(small_disk / "spool") as spool:
        held = await fill(spool)
        assert {one.event_id for one in held} <= (await verified(spool)).keys()
        assert (await add(spool, held[0])).duplicate
        other = fill_disk(small_disk)
        await spool.mark_forwarded(spool.status().head_seq)
        again = await fill(spool)
        assert len(again) > len(held) // 2
        other.unlink()
        assert {one.event_id for one in again} <= {row.event_id for row in await rows_after(spool)}


async def test_a_disk_filled_by_others_refuses_until_there_is_space(small_disk: Path) -> None:
    """Refused as full, not broken; accepted again as soon as the other files are gone."""
    async with opened(small_disk / "spool", max_bytes=16 * MIB) as spool:
        first = event(job=1)
        await add(spool, first)
        other = fill_disk(small_disk)
        await fill(spool)
        assert (await add(spool, first)).duplicate
        other.unlink()
        assert not (await add(spool, event(job=2))).duplicate
        await verified(spool)
    async with opened(small_disk / "spool", max_bytes=16 * MIB) as spool:
        assert first.event_id in await verified(spool)


async def test_a_spool_opens_on_a_full_disk_and_can_be_read(small_disk: Path) -> None:
    """A restart while the disk is full: what is held can be forwarded, and that makes room."""
    async with opened(small_disk / "spool", max_bytes=16 * MIB) as spool:
        held = [event(job=number, note=NOTE) for number in range(100)]
        for one in held:
            await add(spool, one)
    os.unlink(small_disk / "spool" / "ballast")
    other = fill_disk(small_disk)
    async with opened(small_disk / "spool", max_bytes=16 * MIB) as spool:
        assert {one.event_id for one in held} <= (await verified(spool)).keys()
        with pytest.raises(SpoolFull):
            await add(spool, event())
        await spool.mark_forwarded(spool.status().head_seq)
        assert spool.status().depth == 0
        other.unlink()
        await add(spool, event())


@pytest.mark.parametrize("note", ["", "x" * 300, "x" * 900, "x" * 3000])
async def test_a_spool_full_to_its_last_page_drains(tmp_path: Path, note: str) -> None:
    """Deleting must keep the ids of what is deleted, which takes pages where there are none left."""
    async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
        jobs = count(1)
        with suppress(SpoolFull):
            while True:
                await add(spool, event(job=next(jobs), note=note))
        with suppress(SpoolFull):  # small ones still fit where a large one did not
            while True:
                await add(spool, event(job=next(jobs)))
        await spool.mark_forwarded(spool.status().head_seq)
        for _ in range(300):
            await spool.mark_forwarded((await add(spool, event(job=next(jobs), note=note))).seq)
        assert spool.status().bytes_used <= MIB
        assert (tmp_path / "spool" / "spool.db").stat().st_size <= MIB

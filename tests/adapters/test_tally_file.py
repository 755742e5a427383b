"""What was given up and is not on record yet lives through the end of the daemon, also where the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobtrail.adapters.tally_file import SIZE, TallyFile
from jobtrail.core.trail.gap_ports import Tally

EVENT_ID = "6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21"
NOW_US = 4_000_000_000_000_000
LONGEST = Tally(
    event_id=EVENT_ID,
    since_us=NOW_US,
    noted_us=NOW_US,
    shed=dict.fromkeys(("samples_thinned", "samples_dropped", "retained_events", "events_refused"), 2**53 - 1),
    goes_on=True,
    uncounted_since_us=NOW_US,
)
SHORT = Tally(event_id=EVENT_ID, since_us=1, noted_us=2, shed={})


def tally_file(directory: Path) -> TallyFile:
    return TallyFile(directory / "shed.tally", clock_us=lambda: NOW_US)


async def test_the_last_one_is_there_after_the_end_and_takes_no_more_room(tmp_path: Path) -> None:
    file = tally_file(tmp_path)
    assert await file.read() is None
    for tally in (LONGEST, SHORT, LONGEST):
        await file.write(tally)
        assert await tally_file(tmp_path).read() == tally
        assert (tmp_path / "shed.tally").stat().st_size == SIZE
    assert (tmp_path / "shed.tally").stat().st_mode & 0o027 == 0


@pytest.mark.parametrize("damage", [b"", b"x" * SIZE, b"\0" * 100])
async def test_a_damaged_one_says_that_nobody_knows_how_much(tmp_path: Path, damage: bytes) -> None:
    file, path = tally_file(tmp_path), tmp_path / "shed.tally"
    await file.write(LONGEST)
    path.write_bytes(damage)
    os.utime(path, (1_790_000_000, 1_790_000_000))
    left = await file.read()
    assert left is not None
    assert (left.shed, left.goes_on, left.noted_us) == ({}, True, 1_790_000_000_000_000)
    os.utime(path, (9_000_000_000, 9_000_000_000))  # by a clock that was set back since
    left = await file.read()
    assert left is not None
    assert left.noted_us == NOW_US
    await file.write(SHORT)
    assert await file.read() == SHORT


async def test_nothing_is_written_through_a_link_nor_more_than_a_sector(tmp_path: Path) -> None:
    (tmp_path / "shed.tally").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        await tally_file(tmp_path).write(SHORT)
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "shed.tally").unlink()
    with pytest.raises(OSError, match="a tally of"):
        await tally_file(tmp_path).write(Tally(event_id="x" * SIZE, since_us=1, noted_us=2, shed={}))

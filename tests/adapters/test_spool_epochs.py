"""A chain that is given up ends for good; what the store is not known to hold begins the next one."""

from pathlib import Path

import pytest

from jobtrail.domain.errors import EventConflict, SpoolBroken
from jobtrail.domain.events import decode
from tests.adapters.spools import MIB, add, event, opened, rows_after, verified
from tests.fakes import FakeClock

REASON = "the store ends at sequence 4"


async def test_a_new_chain_begins_with_what_follows(tmp_path: Path) -> None:
    """At the next start, under their own ids and byte for byte; the first row names the old chain's end and why."""
    async with opened(tmp_path / "spool") as spool:
        held = [event(job=number) for number in range(8)]
        for one in held:
            await add(spool, one)
        old, last = spool.status().chain_id, (await rows_after(spool))[-1]
        with pytest.raises(SpoolBroken, match=f"a new chain begins with the next start: {REASON}"):
            await spool.give_up_chain(4, REASON)
        with pytest.raises(SpoolBroken):
            await add(spool, event())
        assert isinstance(await spool.failure(), SpoolBroken)
    async with opened(tmp_path / "spool") as spool:
        assert spool.status().chain_id != old
        assert spool.status().forwarded_seq == 0
        rows = await verified(spool)
        note = decode((await rows_after(spool))[0].payload).note or ""
        assert REASON in note
        assert f"chain {old} up to sequence {last.seq} with hash {last.row_hash.hex()}" in note
        assert [one.event_id for one in held[3:]] == [row.event_id for row in (await rows_after(spool, 1))]
        assert held[0].event_id not in rows
        assert {run.target.job_id for run in await spool.open_runs()} == {one.job_id for one in held}
        assert any(REASON in notice for notice in spool.notices)
    assert len(list((tmp_path / "spool").glob("spool.db.ended-*"))) == 1
    async with opened(tmp_path / "spool") as spool:  # and only once
        assert (await verified(spool)).keys() == rows.keys()
        assert not any(REASON in notice for notice in spool.notices)


async def test_retries_of_events_of_the_old_chain_are_still_known(tmp_path: Path) -> None:
    """Their ids outlive the chain, also those of events that were purged: no retry is taken for a new event."""
    held = [event(job=number, note="x" * 8000) for number in range(150)]
    async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
        for one in held:
            await spool.mark_forwarded((await add(spool, one)).seq)
        assert (await rows_after(spool))[0].seq > 1
        with pytest.raises(SpoolBroken):
            await spool.give_up_chain(spool.status().head_seq, REASON)
    for _ in range(2):
        async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
            for one in (held[60], held[-1]):
                again = await add(spool, one)
                assert (again.duplicate, again.seq) == (True, 0)
            with pytest.raises(EventConflict):
                await spool.append(held[-1], b"another body")
            assert not (await add(spool, event())).duplicate


async def test_events_that_give_way_before_their_time_are_counted(tmp_path: Path) -> None:
    """Those that went when their time was over are not."""
    async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
        for number in range(200):
            await spool.mark_forwarded((await add(spool, event(job=number, note="x" * 8000))).seq)
        first = (await rows_after(spool))[0].seq
        assert spool.status().purged_early == first - 1 > 0
    async with opened(tmp_path / "spool", max_bytes=MIB, keep_forwarded_us=0) as spool:
        await add(spool, event())
        assert spool.status().purged_early == 0


async def test_files_that_are_kept_beside_the_spool_are_counted_until_they_are_gone(tmp_path: Path) -> None:
    """An alert goes by them: the process in which a chain ended is over before anybody could ask it."""
    clock = FakeClock()
    async with opened(tmp_path / "spool", clock=clock) as spool:
        await add(spool, event())
        assert (spool.status().files_ended, spool.status().files_damaged) == (0, 0)
        with pytest.raises(SpoolBroken):
            await spool.give_up_chain(0, REASON)
    (tmp_path / "spool" / "spool.db.corrupt-20260101T000000Z").touch()
    (tmp_path / "spool" / "spool.db.corrupt-20260101T000000Z-wal").touch()
    async with opened(tmp_path / "spool", clock=clock) as spool:
        assert (spool.status().files_ended, spool.status().files_damaged) == (1, 1)
        for path in (tmp_path / "spool").glob("spool.db.*-2*"):
            path.unlink()
        for number in range(2):  # the files are counted after the first, and the second tells
            clock.advance(61)
            await add(spool, event(job=number))
            await spool.open_runs()
        assert (spool.status().files_ended, spool.status().files_damaged) == (0, 0)

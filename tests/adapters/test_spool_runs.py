"""Open runs on disk: over restarts, from older releases, and for no longer than they are of use."""

from pathlib import Path

import msgspec

from jobtrail.adapters.spool import SqliteSpool
from jobtrail.adapters.spool.runs import OpenRuns
from jobtrail.adapters.spool.schema import connect
from jobtrail.adapters.spool.sealing import seal, unseal
from jobtrail.domain.events import Closing, Event, EventKind
from tests.adapters.spools import MIB, T0, add, event, opened

DAY_US = 86_400_000_000


def closing(ref: str, *, at: int, job: int = 7) -> Event:
    inferred = Closing(reason="cgroup_gone", not_before_us=T0 + at * 1_000_000)
    return event(EventKind.JOB_CLOSED, at=at, job=job, opened_by=ref, closing=inferred)


async def closed_run(spool: SqliteSpool, *, at: int = 60, job: int = 7) -> str:
    """A run that began and was closed by inference; the id of its first event."""
    started = event(job=job)
    await add(spool, started)
    assert (await add(spool, closing(started.event_id, at=at, job=job))).closed is not None
    return started.event_id


async def opener_of_end(spool: SqliteSpool, *, job: int = 7) -> str | None:
    receipt = await add(spool, event(EventKind.JOB_FINISHED, at=9000, job=job))
    (row,) = await spool.read_after(receipt.seq - 1, limit=1, max_bytes=1)
    return msgspec.json.decode(row.payload, type=Event).opened_by


async def test_a_closed_run_is_known_after_a_restart_and_not_open(tmp_path: Path) -> None:
    """slurmd comes back days later, and the epilog it runs then is still that run's."""
    async with opened(tmp_path / "spool") as spool:
        ref = await closed_run(spool)
    async with opened(tmp_path / "spool") as spool:
        assert list(await spool.open_runs()) == []
        assert await opener_of_end(spool) == ref


async def test_a_run_of_another_boot_keeps_its_boot_id(tmp_path: Path) -> None:
    """The id is that of the daemon's start under which the run began; None where it could not be read."""
    async with opened(tmp_path / "spool", boot_id="first") as spool:
        await add(spool, event(job=1))
    async with opened(tmp_path / "spool") as spool:
        await add(spool, event(at=1, job=2))
    async with opened(tmp_path / "spool", boot_id="second") as spool:
        await add(spool, event(at=2, job=3))
        assert [run.boot_id for run in await spool.open_runs()] == ["first", None, "second"]


async def test_a_run_an_older_release_opened_is_still_open(tmp_path: Path) -> None:
    """Its row names no boot; which boot it began in is then unknown."""
    async with opened(tmp_path / "spool", boot_id="first") as spool:
        run = (await add(spool, event())).opened
        assert run is not None
    connection = connect(tmp_path / "spool" / "spool.db", 64 * MIB)
    (sealed,) = connection.execute("SELECT run FROM open_runs").fetchone()
    payload = unseal(sealed)
    assert payload is not None
    fields = msgspec.json.decode(payload)
    del fields["boot_id"]
    connection.execute("UPDATE open_runs SET run = ?", (seal(msgspec.json.encode(fields)),))
    connection.close()
    async with opened(tmp_path / "spool", boot_id="second") as spool:
        assert list(await spool.open_runs()) == [msgspec.structs.replace(run, boot_id=None)]


async def test_closed_runs_are_forgotten_in_time_and_open_ones_are_not(tmp_path: Path) -> None:
    """Once their own end can hardly come any more."""
    async with opened(tmp_path / "spool") as spool:
        await closed_run(spool, at=60, job=1)
        late = await closed_run(spool, at=86_400, job=2)
        await add(spool, event(job=3))
    connection = connect(tmp_path / "spool" / "spool.db", 64 * MIB)
    OpenRuns(connection).forget_closed(T0 + DAY_US)
    connection.close()
    async with opened(tmp_path / "spool") as spool:
        assert [run.target.job_id for run in await spool.open_runs()] == ["slurm-3"]
        assert await opener_of_end(spool, job=1) is None
        assert await opener_of_end(spool, job=2) == late

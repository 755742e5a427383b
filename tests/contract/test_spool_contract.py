"""What every EventSpool promises, on the one in memory and on the real one alike."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters.spool import SqliteSpool
from jobtrail.core.ports import EventSpool, OpenRun, Receipt
from jobtrail.domain.audit import EMPTY_CHAIN, ChainHead, broken_link
from jobtrail.domain.errors import EventConflict, InvalidEvent, SpoolBroken
from jobtrail.domain.events import Actor, Closing, Event, EventKind, NodeUsage, Whereabouts, decode
from jobtrail.domain.gpu_allocation import HookValues
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.samples import Target
from tests.fake_spool import MemorySpool
from tests.fakes import FakeClock

EVERYTHING = {"limit": 10_000, "max_bytes": 1 << 30}
T0 = FakeClock().time_us()
BOOT_ID = "0b1c3f62-8a4e-4a39-9f0a-2f3c6f1e9d11"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
async def spool(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[EventSpool]:
    """A new, empty spool."""
    if request.param == "memory":
        yield MemorySpool(clock=clock, boot_id=BOOT_ID)
        return
    async with SqliteSpool.opened(
        tmp_path / "spool", node="n1", max_bytes=64 << 20, keep_forwarded_us=10**12, clock=clock, boot_id=BOOT_ID
    ) as real:
        yield real


def event(
    kind: EventKind = EventKind.JOB_STARTED, *, at: int = 0, job_id: str | None = "slurm-7", **more: Any
) -> Event:
    """An event of job slurm-7 on n1, `at` seconds after the clock's first moment."""
    fields: dict[str, Any] = {
        "event_id": str(uuid.uuid4()),
        "cluster": "c1",
        "node": "n1",
        "changed_by": Actor.SLURM_PROLOG,
        "source": "test",
    }
    return Event(kind=kind, time_us=T0 + at * 1_000_000, job_id=job_id, **(fields | more))


def digest(one: Event) -> bytes:
    return hashlib.sha256(one.event_id.encode()).digest()


async def add(spool: EventSpool, one: Event) -> Receipt:
    return await spool.append(one, digest(one))


async def held(spool: EventSpool, seq: int) -> Event:
    """The event held under `seq`."""
    (row,) = await spool.read_after(seq - 1, limit=1, max_bytes=1)
    assert row.seq == seq
    return decode(row.payload)


async def test_a_new_spool_begins_a_chain_and_says_so(spool: EventSpool) -> None:
    """Sequence 1 of every chain is the event that it began."""
    first = await held(spool, 1)
    assert (first.kind, first.job_id, first.node) == (EventKind.CHAIN_STARTED, None, "n1")
    assert spool.status().head_seq == 1


async def test_the_same_event_again_is_held_once(spool: EventSpool) -> None:
    """A retry gets the first receipt's number, opens nothing again, and leaves no row."""
    started = event()
    first, again = await add(spool, started), await add(spool, started)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.seq == first.seq
    assert first.opened is not None
    assert (again.opened, again.closed) == (None, None)
    assert spool.status().head_seq == first.seq


async def test_the_same_event_at_the_same_time_is_held_once(spool: EventSpool) -> None:
    """Ten senders of one event: one holds it, nine are duplicates with its number."""
    started = event()
    receipts = await asyncio.gather(*(add(spool, started) for _ in range(10)))
    assert sorted(receipt.duplicate for receipt in receipts) == [False] + [True] * 9
    assert {receipt.seq for receipt in receipts} == {2}


async def test_an_event_id_is_one_id_however_it_is_written(spool: EventSpool) -> None:
    """Upper case is the same UUID; receipt and row hold the canonical form."""
    lower = event()
    upper = event(event_id=lower.event_id.upper())
    first = await spool.append(upper, b"d")
    again = await spool.append(lower, b"d")
    assert again.duplicate
    assert first.event_id == again.event_id == lower.event_id
    assert (await held(spool, first.seq)).event_id == lower.event_id


async def test_another_body_under_a_held_id_is_a_conflict(spool: EventSpool) -> None:
    """The first body stands."""
    started = event()
    await spool.append(started, b"one")
    with pytest.raises(EventConflict, match=started.event_id):
        await spool.append(started, b"two")
    assert spool.status().head_seq == 2
    assert (await spool.append(started, b"one")).duplicate


@pytest.mark.parametrize(
    "bad", [{"event_id": "7"}, {"event_id": ""}, {"time_us": 0}, {"time_us": -1}, {"time_us": 2**70}]
)
async def test_what_cannot_be_chained_is_refused_and_harms_no_other(spool: EventSpool, bad: dict[str, Any]) -> None:
    """A bad event among good ones is refused alone."""
    fields: dict[str, Any] = {
        "kind": EventKind.JOB_STARTED,
        "cluster": "c",
        "job_id": "slurm-1",
        "node": "n1",
        "source": "test",
    }
    fields |= {"event_id": str(uuid.uuid4()), "time_us": T0, "changed_by": Actor.API}
    results = await asyncio.gather(
        add(spool, event()),
        spool.append(Event(**(fields | bad)), b""),
        add(spool, event(job_id="slurm-8")),
        return_exceptions=True,
    )
    assert isinstance(results[1], InvalidEvent)
    assert spool.status().head_seq == 3


async def test_a_conflict_harms_no_other_event(spool: EventSpool) -> None:
    """Conflicts beside good events: the good ones are held, gapless."""
    first = event()
    await spool.append(first, b"one")
    good = [event(job_id=f"slurm-{n}") for n in range(10, 15)]
    results = await asyncio.gather(
        *(add(spool, one) for one in good), spool.append(first, b"two"), return_exceptions=True
    )
    assert [type(result) for result in results] == [Receipt] * 5 + [EventConflict]
    assert sorted(result.seq for result in results if isinstance(result, Receipt)) == [3, 4, 5, 6, 7]


async def test_rows_follow_each_other_without_a_gap_and_verify(spool: EventSpool) -> None:
    """Concurrent appends give consecutive numbers, and every link of the chain holds."""
    events = {one.event_id: one for one in (event(at=n, job_id=f"slurm-{n}") for n in range(60))}
    receipts = await asyncio.gather(*(add(spool, one) for one in events.values()))
    assert sorted(receipt.seq for receipt in receipts) == list(range(2, 62))
    head = EMPTY_CHAIN
    for row in await spool.read_after(0, **EVERYTHING):
        assert broken_link(row, head) is None
        assert row.chain_id == spool.status().chain_id
        if row.seq > 1:
            assert decode(row.payload) == events[row.event_id]
            assert (row.kind, row.time_us) == ("job_started", events[row.event_id].time_us)
        head = ChainHead(row.seq, row.row_hash)
    assert head.seq == spool.status().head_seq == 61


async def test_one_sender_after_another_keeps_their_order(spool: EventSpool) -> None:
    """What was acknowledged first has the smaller number."""
    ids = [(await add(spool, event(job_id=f"slurm-{n}"))).event_id for n in range(20)]
    assert [row.event_id for row in await spool.read_after(1, **EVERYTHING)] == ids


async def test_read_after_keeps_to_its_limits(spool: EventSpool) -> None:
    """At most `limit` rows; about `max_bytes`, but never nothing while there is something."""
    for number in range(10):
        await add(spool, event(note="x" * 1000, job_id=f"slurm-{number}"))
    assert [row.seq for row in await spool.read_after(0, limit=3, max_bytes=1 << 20)] == [1, 2, 3]
    assert [row.seq for row in await spool.read_after(4, limit=99, max_bytes=1)] == [5]
    some = await spool.read_after(1, limit=99, max_bytes=4000)
    assert [row.seq for row in some] == [2, 3, 4]
    assert sum(len(row.payload) for row in some) <= 4000
    assert await spool.read_after(11, limit=99, max_bytes=1 << 20) == []


async def test_mark_forwarded_goes_forth_and_back(spool: EventSpool, clock: FakeClock) -> None:
    """A store restored from a backup holds less than before; a store never holds more than there is."""
    for number in range(4):
        clock.advance(10)
        await add(spool, event(job_id=f"slurm-{number}"))
    await spool.mark_forwarded(4)
    status = spool.status()
    assert (status.forwarded_seq, status.depth) == (4, 1)
    assert status.oldest_unforwarded_us == clock.time_us()
    await spool.mark_forwarded(2)
    assert spool.status().forwarded_seq == 2
    assert spool.status().oldest_unforwarded_us == clock.time_us() - 20_000_000
    await spool.mark_forwarded(99)
    assert spool.status().depth == 0
    assert spool.status().oldest_unforwarded_us is None
    assert [row.seq for row in await spool.read_after(2, **EVERYTHING)] == [3, 4, 5]


async def test_wait_beyond_returns_when_the_head_has_moved(spool: EventSpool) -> None:
    """At once when it already has, and else with the append that moves it, for every waiter."""
    await asyncio.wait_for(spool.wait_beyond(0), 60)
    waiters = [asyncio.ensure_future(spool.wait_beyond(seq)) for seq in (1, 1, 2)]
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiters)
    await add(spool, event())
    await asyncio.wait_for(asyncio.gather(*waiters[:2]), 60)
    assert not waiters[2].done()
    await add(spool, event(job_id="slurm-8"))
    await asyncio.wait_for(waiters[2], 60)


async def test_status_tells_what_is_held(spool: EventSpool) -> None:
    """Bytes grow with what is held; refusals are counted."""
    before = spool.status()
    for number in range(50):
        await add(spool, event(note="x" * 2000, job_id=f"slurm-{number}"))
    after = spool.status()
    assert after.bytes_used >= before.bytes_used + 50 * 2000
    assert after.bytes_used < after.bytes_limit
    assert (after.depth, after.refused) == (51, 0)
    await spool.record_refusal(3, "no such state")
    assert spool.status().refused == 1


async def test_a_start_opens_a_run_with_what_its_event_says(spool: EventSpool) -> None:
    """The receipt and the list of open runs hold the same run."""
    facts = JobFacts(
        user_name="ada", uid=1001, account="phys", partition="p1", qos="high", cpus=8, gpu_devices=("0", "3")
    )
    started = event(at=5, facts=facts, sluid="s7", whereabouts=Whereabouts(cgroup_path="/x"))
    receipt = await add(spool, started)
    assert receipt.opened == OpenRun(
        target=Target(
            ref=started.event_id,
            cluster="c1",
            job_id="slurm-7",
            node="n1",
            uid=1001,
            sluid="s7",
            whereabouts=Whereabouts(cgroup_path="/x"),
        ),
        started_us=started.time_us,
        user_name="ada",
        account="phys",
        partition="p1",
        qos="high",
        cpus=8,
        gpus=2,
        boot_id=BOOT_ID,
        gpu_hook=HookValues(slurm_job_gpus="0,3"),
    )
    assert list(await spool.open_runs()) == [receipt.opened]


async def test_what_a_prolog_says_of_gpus_stays_with_the_run(spool: EventSpool) -> None:
    """Its variables, and where gres.conf is; a prolog that names none says that there are none."""
    variables = {"SLURM_JOB_GPUS": "1", "CUDA_VISIBLE_DEVICES": "GPU-1", "SLURM_CONF": "/x/slurm.conf"}
    run = (await add(spool, event(environment=variables))).opened
    assert run is not None
    assert run.gpu_hook == HookValues(slurm_job_gpus="1", cuda_visible_devices="GPU-1")
    assert run.slurm_conf == "/x/slurm.conf"
    without = (await add(spool, event(job_id="slurm-8", environment={"SLURM_JOB_ID": "8"}))).opened
    assert without is not None
    assert without.gpu_hook == HookValues()


async def test_what_an_event_does_not_say_stays_unknown(spool: EventSpool) -> None:
    """No facts: None everywhere, also for GPUs; none allocated: 0."""
    silent = (await add(spool, event())).opened
    assert silent is not None
    assert (silent.user_name, silent.cpus, silent.gpus, silent.target.uid) == (None, None, None, None)
    none = (await add(spool, event(job_id="slurm-8", facts=JobFacts(gpu_devices=())))).opened
    assert none is not None
    assert none.gpus == 0


@pytest.mark.parametrize("kind", [EventKind.JOB_FINISHED, EventKind.CHECKPOINT, EventKind.USAGE_RECORDED])
async def test_events_of_an_open_run_are_told_who_opened_it(spool: EventSpool, kind: EventKind) -> None:
    """The stored, hashed event names the run's first event."""
    started = event()
    await add(spool, started)
    receipt = await add(spool, event(kind, at=1))
    assert (await held(spool, receipt.seq)).opened_by == started.event_id


@pytest.mark.parametrize("other", [{"job_id": "slurm-8"}, {"cluster": "c2"}, {"node": "n2"}])
async def test_runs_are_told_apart_by_cluster_job_and_node(spool: EventSpool, other: dict[str, str]) -> None:
    """The end of another job, cluster or node closes nothing and belongs to nothing."""
    run = (await add(spool, event())).opened
    receipt = await add(spool, event(EventKind.JOB_FINISHED, at=1, **other))
    assert receipt.closed is None
    assert (await held(spool, receipt.seq)).opened_by is None
    assert list(await spool.open_runs()) == [run]


async def test_an_end_closes_the_run(spool: EventSpool) -> None:
    """The run is handed back, is open no more, and its final usage still carries who opened it."""
    started = event()
    run = (await add(spool, started)).opened
    receipt = await add(spool, event(EventKind.JOB_FINISHED, at=9))
    assert (receipt.closed, receipt.opened) == (run, None)
    assert list(await spool.open_runs()) == []
    usage = event(EventKind.USAGE_RECORDED, at=10, opened_by=started.event_id, usage=NodeUsage(sample_count=3))
    assert (await held(spool, (await add(spool, usage)).seq)).opened_by == started.event_id


async def test_an_event_that_names_another_run_leaves_the_open_one_alone(spool: EventSpool) -> None:
    """The late usage of the run before does not become this run's; its end does not end this one."""
    run = (await add(spool, event())).opened
    before = str(uuid.uuid4())
    for kind in (EventKind.USAGE_RECORDED, EventKind.CHECKPOINT, EventKind.JOB_FINISHED):
        receipt = await add(spool, event(kind, at=1, opened_by=before, usage=NodeUsage(sample_count=1)))
        assert receipt.closed is None
        assert (await held(spool, receipt.seq)).opened_by == before
    assert list(await spool.open_runs()) == [run]


async def test_a_second_start_replaces_the_run(spool: EventSpool) -> None:
    """A requeued job: the run before is handed back, so that its sampling stops."""
    first = (await add(spool, event())).opened
    second = await add(spool, event(at=60))
    assert second.closed == first
    assert list(await spool.open_runs()) == [second.opened]


async def test_the_end_of_a_run_that_is_replaced_is_held_with_the_start_that_shows_it(spool: EventSpool) -> None:
    """Else nobody would ever tell the store: the run is no longer open here. The chain stays whole."""
    first, second = event(slurm_start_time=100), event(at=60, slurm_start_time=160)
    await add(spool, first)
    await add(spool, event(EventKind.CHECKPOINT, at=50, usage=NodeUsage(sample_count=1, last_sample_us=T0 + 50)))
    receipt = await add(spool, second)
    assert spool.status().head_seq == receipt.seq + 1
    over = await held(spool, receipt.seq + 1)
    assert over == receipt.inferred
    assert (over.kind, over.opened_by, over.slurm_start_time) == (EventKind.JOB_CLOSED, first.event_id, 100)
    assert (over.node, over.time_us) == ("n1", second.time_us)
    assert over.closing is not None
    assert (over.closing.reason, over.closing.not_before_us) == ("later_run_began", T0 + 50)
    again = await add(spool, second)
    assert (again.seq, again.duplicate, again.inferred) == (receipt.seq, True, None)
    assert spool.status().head_seq == receipt.seq + 1
    rows = await spool.read_after(0, **EVERYTHING)
    head = EMPTY_CHAIN
    for row in rows:
        assert broken_link(row, head) is None
        head = ChainHead(row.seq, row.row_hash)


async def test_a_prolog_that_is_told_twice_ends_nothing(spool: EventSpool) -> None:
    """Slurm's start time says that both are of one run."""
    await add(spool, event(slurm_start_time=100))
    receipt = await add(spool, event(at=1, slurm_start_time=100))
    assert (receipt.inferred, spool.status().head_seq) == (None, receipt.seq)


async def test_a_late_start_of_an_earlier_run_ends_that_run(spool: EventSpool) -> None:
    """Its prolog's file comes in after the next prolog was posted, and its epilog may never come."""
    await add(spool, event(at=60))
    late = event(at=0)
    receipt = await add(spool, late)
    assert (receipt.opened, receipt.closed) == (None, None)
    over = await held(spool, receipt.seq + 1)
    assert over == receipt.inferred
    assert (over.opened_by, over.time_us) == (late.event_id, T0 + 60_000_000)


@pytest.mark.parametrize("keys", [(None, None), (100, 200)])
async def test_late_words_about_an_earlier_run_leave_the_open_one_alone(
    spool: EventSpool, keys: tuple[int | None, int | None]
) -> None:
    """A requeued job's first prolog and epilog, left as files, come in after the second prolog was posted."""
    first, second = keys
    running = (await add(spool, event(at=60, slurm_start_time=second))).opened
    late_end = await add(spool, event(EventKind.JOB_FINISHED, at=50, slurm_start_time=first))
    assert (late_end.closed, await opener_of(spool, late_end)) == (None, None)
    late_start = await add(spool, event(at=0, slurm_start_time=first))
    assert (late_start.opened, late_start.closed) == (None, None)
    assert list(await spool.open_runs()) == [running]


async def test_slurms_start_time_outweighs_a_clock_that_was_set_back(spool: EventSpool) -> None:
    """The epilog's time lies before the prolog's, and still it is that run's end."""
    started = await add(spool, event(at=60, slurm_start_time=100))
    ended = await add(spool, event(EventKind.JOB_FINISHED, at=50, slurm_start_time=100))
    assert ended.closed == started.opened


async def opener_of(spool: EventSpool, receipt: Receipt) -> str | None:
    (row,) = await spool.read_after(receipt.seq - 1, limit=1, max_bytes=1)
    return decode(row.payload).opened_by


async def test_a_start_takes_over_a_found_run(spool: EventSpool) -> None:
    """The prolog's file comes in after the cgroup was found: what was announced counts."""
    found = await add(spool, event(EventKind.JOB_FOUND, at=30, facts=JobFacts(uid=1001)))
    assert found.opened is not None
    assert found.opened.found
    started = await add(spool, event(at=0))
    assert started.closed == found.opened
    assert started.opened is not None
    assert not started.opened.found
    assert list(await spool.open_runs()) == [started.opened]


async def test_a_found_job_that_is_open_already_opens_nothing(spool: EventSpool) -> None:
    """The announced run stays."""
    run = (await add(spool, event())).opened
    receipt = await add(spool, event(EventKind.JOB_FOUND, at=1))
    assert (receipt.opened, receipt.closed) == (None, None)
    assert list(await spool.open_runs()) == [run]


async def test_slurms_word_on_a_job_opens_and_closes_nothing(spool: EventSpool) -> None:
    """It is of the node that asked, or took slurmctld's hook in, which is seldom one of the job's."""
    before = await add(spool, event(EventKind.SLURM_REPORTED, changed_by=Actor.SLURM_CONTROLLER))
    run = (await add(spool, event(at=1))).opened
    after = await add(spool, event(EventKind.SLURM_REPORTED, at=2, changed_by=Actor.RECONCILER))
    assert [(one.opened, one.closed) for one in (before, after)] == [(None, None)] * 2
    assert await opener_of(spool, after) is None
    assert list(await spool.open_runs()) == [run]


async def test_a_start_that_comes_after_its_end_opens_nothing(spool: EventSpool) -> None:
    """The epilog was posted before the prolog's file was taken up: no run stays open for ever."""
    await add(spool, event(EventKind.JOB_FINISHED, at=10))
    late = await add(spool, event(at=2))
    assert (late.opened, late.closed) == (None, None)
    assert list(await spool.open_runs()) == []
    requeued = await add(spool, event(at=3))
    assert requeued.opened is not None


async def test_a_start_after_an_end_without_start_opens_its_own_run(spool: EventSpool) -> None:
    """The end belonged to an earlier run whose start never came."""
    await add(spool, event(EventKind.JOB_FINISHED, at=10))
    assert (await add(spool, event(at=20))).opened is not None


async def test_a_checkpoint_is_remembered_with_its_run(spool: EventSpool) -> None:
    """A restarted daemon counts on from the last checkpoint."""
    await add(spool, event())
    usage = NodeUsage(cpu_usage_us=5_000_000, sample_count=2)
    await add(spool, event(EventKind.CHECKPOINT, at=600, usage=usage))
    (run,) = await spool.open_runs()
    assert run.usage == usage


async def test_open_runs_come_oldest_first(spool: EventSpool) -> None:
    """The order of their starts, whatever the order of arrival."""
    for number in (3, 1, 2):
        await add(spool, event(at=number, job_id=f"slurm-{number}"))
    assert [run.target.job_id for run in await spool.open_runs()] == ["slurm-1", "slurm-2", "slurm-3"]


def closing(ref: str | None, *, at: int, not_before: int, **more: Any) -> Event:
    """The node's inference that the run was over `not_before` to `at` seconds after the first moment."""
    inferred = Closing(reason="cgroup_gone", not_before_us=T0 + not_before * 1_000_000)
    return event(EventKind.JOB_CLOSED, at=at, opened_by=ref, closing=inferred, changed_by=Actor.COLLECTOR, **more)


async def test_a_run_remembers_the_boot_it_began_in(spool: EventSpool) -> None:
    """After a reboot the kernel has another boot id, and none of the run's processes is left."""
    opened = (await add(spool, event())).opened
    assert opened is not None
    assert opened.boot_id == BOOT_ID
    assert [run.boot_id for run in await spool.open_runs()] == [BOOT_ID]


async def test_an_inferred_end_closes_the_run(spool: EventSpool) -> None:
    """As a reported one does: the run is handed back, so that its usage is settled, and is open no more."""
    started = event()
    run = (await add(spool, started)).opened
    receipt = await add(spool, closing(started.event_id, at=60, not_before=50))
    assert (receipt.closed, receipt.opened) == (run, None)
    assert list(await spool.open_runs()) == []
    again = await add(spool, closing(started.event_id, at=60, not_before=50))
    assert again.closed is None


@pytest.mark.parametrize("names_another", [True, False])
async def test_an_inferred_end_of_another_run_or_of_the_whole_job_closes_nothing(
    spool: EventSpool, names_another: bool
) -> None:
    """A requeued job's next run has begun meanwhile; or the reconciler, beside this spool, speaks of all nodes."""
    run = (await add(spool, event())).opened
    ref = str(uuid.uuid4()) if names_another else None
    receipt = await add(spool, closing(ref, at=60, not_before=50))
    assert receipt.closed is None
    assert (await held(spool, receipt.seq)).opened_by == ref
    assert list(await spool.open_runs()) == [run]


async def test_the_late_epilog_of_a_closed_run_names_its_opener(spool: EventSpool) -> None:
    """slurmd was away and runs it when it is back; it is of the run that was closed, and closes it no second time."""
    started = event()
    await add(spool, started)
    await add(spool, closing(started.event_id, at=60, not_before=50))
    late = await add(spool, event(EventKind.JOB_FINISHED, at=4000))
    assert (late.closed, await opener_of(spool, late)) == (None, started.event_id)
    other = await add(spool, event(EventKind.JOB_FINISHED, at=5000))
    assert await opener_of(spool, other) is None


@pytest.mark.parametrize(("at", "start_time"), [(4000, 200), (4000, 50), (-5, None)])
async def test_an_end_of_another_run_than_the_closed_one_does_not_name_it(
    spool: EventSpool, at: int, start_time: int | None
) -> None:
    """Slurm's start time tells them apart, or the time does where that is unknown."""
    started = event(slurm_start_time=100)
    await add(spool, started)
    await add(spool, closing(started.event_id, at=60, not_before=50))
    other = await add(spool, event(EventKind.JOB_FINISHED, at=at, slurm_start_time=start_time))
    assert await opener_of(spool, other) is None
    own = await add(spool, event(EventKind.JOB_FINISHED, at=70, slurm_start_time=100))
    assert await opener_of(spool, own) == started.event_id


async def test_an_end_that_names_another_opener_keeps_it(spool: EventSpool) -> None:
    """Who says which run is meant is believed, also where another run was closed last."""
    started, other = event(), str(uuid.uuid4())
    await add(spool, started)
    await add(spool, closing(started.event_id, at=60, not_before=50))
    assert await opener_of(spool, await add(spool, event(EventKind.JOB_FINISHED, at=70, opened_by=other))) == other


async def test_a_closed_run_takes_no_more_usage_and_is_not_opened_by_its_late_start(spool: EventSpool) -> None:
    """It had been found without its prolog, whose file comes in when all is over."""
    found = event(EventKind.JOB_FOUND, at=30)
    await add(spool, found)
    await add(spool, closing(found.event_id, at=60, not_before=50))
    usage = await add(spool, event(EventKind.CHECKPOINT, at=61, usage=NodeUsage(sample_count=1)))
    late = await add(spool, event(at=2))
    assert (usage.closed, late.opened, late.closed) == (None, None, None)
    assert list(await spool.open_runs()) == []


@pytest.mark.parametrize(("at", "start_time"), [(70, None), (70, 200), (20, 200)])
async def test_the_next_run_after_a_closed_one_opens(spool: EventSpool, at: int, start_time: int | None) -> None:
    """A requeued job; its end is its own. (A clock may have been set back meanwhile: Slurm's start time decides.)"""
    first = event(slurm_start_time=100)
    await add(spool, first)
    await add(spool, closing(first.event_id, at=60, not_before=50))
    second = await add(spool, event(at=at, slurm_start_time=start_time))
    assert (second.closed, list(await spool.open_runs())) == (None, [second.opened])
    ended = await add(spool, event(EventKind.JOB_FINISHED, at=90, slurm_start_time=start_time))
    assert ended.closed == second.opened


async def test_a_chain_that_is_given_up_takes_nothing_more(spool: EventSpool) -> None:
    """The new one begins with the next start; until then nothing is acknowledged."""
    with pytest.raises(SpoolBroken, match="begins with the next start: it does not fit"):
        await spool.give_up_chain(0, "it does not fit")
    with pytest.raises(SpoolBroken):
        await add(spool, event())

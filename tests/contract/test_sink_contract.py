"""What every EventSink promises, held by the fake, by PostgreSQL, and by a server in front of PostgreSQL alike."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresSink, close_pool, open_pool, session
from jobtrail.core.ports import TRAIL_ONLY, EventSink
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent
from jobtrail.domain.errors import ChainGap, StoreRefused
from jobtrail.domain.events import Actor, EventKind, NodeUsage
from jobtrail.domain.job import Job
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.slurm import Origin, SlurmRecord
from jobtrail.domain.states import State
from tests.benchmark_reports import claim, report, tell, uid
from tests.chains import SECOND, T0, ChainWriter
from tests.fakes import MemorySink
from tests.served_link import ManyNodes, Site, in_postgres, site


class Bench(Protocol):
    """A sink and a look behind it."""

    sink: EventSink

    async def jobs(self) -> list[Job]:
        """The runs that are not withdrawn."""
        ...

    async def benchmarks(self) -> dict[str, str | None]:
        """Who is said to have reported each run of a benchmark."""
        ...


class MemoryBench:
    def __init__(self) -> None:
        self.sink = MemorySink()

    async def jobs(self) -> list[Job]:
        held = [run.job for key in sorted(self.sink.runs) for run in self.sink.runs[key]]
        return [job for job in held if job.withdrawn is None]

    async def benchmarks(self) -> dict[str, str | None]:
        events = self.sink.benchmarks.items()
        return {uid: event.benchmark.user_name for uid, event in events if event.benchmark is not None}


class PostgresBench:
    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.sink: EventSink = PostgresSink(pool, timeout_seconds=10.0)

    async def jobs(self) -> list[Job]:
        async with session(self.pool, 10.0) as connection:
            rows = await connection.fetch("SELECT projection FROM jobs ORDER BY cluster_name, job_id, run")
        return [msgspec.json.decode(row["projection"], type=Job) for row in rows]

    async def benchmarks(self) -> dict[str, str | None]:
        async with session(self.pool, 10.0) as connection:
            rows = await connection.fetch("SELECT run_uid::text, user_name FROM benchmark_run")
        return {row["run_uid"]: row["user_name"] for row in rows}


class ServerBench(PostgresBench):
    """Over real TLS: nodes show the token, the server has the database."""

    def __init__(self, pool: Any, at: Site) -> None:
        super().__init__(pool)
        self.sink = ManyNodes(at)


@pytest.fixture(params=["memory", "postgres", "server"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "memory":
        yield MemoryBench()
        return
    pool = await open_pool(request.getfixturevalue("database"), size=2, timeout_seconds=10.0)
    if request.param == "postgres":
        yield PostgresBench(pool)
    else:
        async with site(tmp_path, in_postgres(pool)) as at:
            yield ServerBench(pool, at)
    await close_pool(pool, timeout_seconds=5.0)


# What people say of jobs that stand comes from daemons with a database: no server takes it from a node.
at_a_database = pytest.mark.parametrize("bench", ["memory", "postgres"], indirect=True)


async def store(bench: Bench, writer: ChainWriter, **options: Any) -> Any:
    return await bench.sink.store(writer.rows, node=writer.node, **options)


async def test_an_unknown_chain_is_empty(bench: Bench) -> None:
    assert await bench.sink.head(str(uuid.uuid4())) == EMPTY_CHAIN


async def test_a_batch_is_in_the_trail_and_in_the_projection(bench: Bench) -> None:
    writer = ChainWriter()
    writer.begin()
    writer.whole_job("slurm-1", exit_code=3)
    report = await store(bench, writer)
    assert (report.stored, report.replayed, report.conflicts, dict(report.unapplied)) == (4, 0, (), {})
    assert report.head == writer.head == await bench.sink.head(writer.chain_id)
    (job,) = await bench.jobs()
    assert (job.job_id, job.run, job.state) == ("slurm-1", 1, State.FAILED)
    assert job.usage is not None
    assert job.usage.cpu_usage_us == 30 * SECOND


async def test_every_split_into_batches_gives_the_same_jobs(bench: Bench) -> None:
    writer = ChainWriter()
    for number in range(4):
        writer.whole_job(f"slurm-{number}", exit_code=number)
    for row in writer.rows[:5]:
        await bench.sink.store([row], node="n1")
    await bench.sink.store(writer.rows[5:], node="n1")
    one_by_one = await bench.jobs()
    reference = MemoryBench()
    await store(reference, writer)
    assert one_by_one == await reference.jobs()


async def test_a_replay_changes_nothing_and_is_counted(bench: Bench) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    await store(bench, writer)
    before = await bench.jobs()
    report = await store(bench, writer)
    assert (report.stored, report.replayed, report.conflicts) == (0, 3, ())
    assert report.head == writer.head
    assert await bench.jobs() == before


async def test_a_batch_that_overlaps_what_is_held_stores_the_rest(bench: Bench) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    await bench.sink.store(writer.rows[:2], node="n1")
    report = await store(bench, writer)
    assert (report.stored, report.replayed, report.head) == (1, 2, writer.head)


async def test_a_batch_beyond_the_held_end_says_where_to_resume(bench: Bench) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    await bench.sink.store(writer.rows[:1], node="n1")
    with pytest.raises(ChainGap) as caught:
        await bench.sink.store(writer.rows[2:], node="n1")
    assert caught.value.head_seq == 1


async def test_another_event_under_a_held_number_is_a_conflict_and_the_first_stands(bench: Bench) -> None:
    writer, twin = ChainWriter(), ChainWriter()
    twin.chain_id = writer.chain_id
    writer.whole_job("slurm-1")
    twin.started("slurm-66")
    await store(bench, writer)
    report = await store(bench, twin)
    assert (report.stored, report.replayed, report.conflicts) == (0, 0, (1,))
    assert report.head == writer.head
    assert [job.job_id for job in await bench.jobs()] == ["slurm-1"]


async def test_an_event_that_does_not_link_is_refused_and_what_precedes_it_is_stored(bench: Bench) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    forged = msgspec.structs.replace(writer.rows[2], payload=writer.rows[2].payload + b" ")
    report = await bench.sink.store([*writer.rows[:2], forged], node="n1")
    assert (report.stored, report.head.seq) == (2, 2)
    for trail_only in (None, TRAIL_ONLY):
        with pytest.raises(StoreRefused, match="sequence 3: payload differs from its commitment"):
            await bench.sink.store([forged], node="n1", trail_only=trail_only)
    assert (await store(bench, writer)).stored == 1


BYTES_OF_NO_EVENT = [
    b"\xff\x00 no JSON", b'{"kind":"no such kind"}', b"[]", b'{"kind":"job_started","node":"\xff\xfe"}',
    b'{"kind":"job_started","node":"n1","note":"\xc3("}', b'{"node":"n1","note":"\\ud800"}',
]  # fmt: skip


@pytest.mark.parametrize("payload", BYTES_OF_NO_EVENT)
async def test_bytes_that_are_no_event_are_kept_and_hold_nothing_up(bench: Bench, payload: bytes) -> None:
    writer = ChainWriter()
    writer.raw(payload)
    writer.started("slurm-1")
    report = await store(bench, writer)
    assert (report.stored, list(report.unapplied)) == (2, [1])
    assert "payload" in report.unapplied[1]
    assert len(await bench.jobs()) == 1


async def test_an_event_kind_that_is_not_about_a_run_is_kept_and_named(bench: Bench) -> None:
    writer = ChainWriter()
    writer.event(EventKind.CHAIN_STARTED, "slurm-1", 0)
    report = await store(bench, writer)
    assert "chain_started" in report.unapplied[1]
    assert await bench.jobs() == []


async def test_trail_only_leaves_the_projection_alone(bench: Bench) -> None:
    writer = ChainWriter()
    writer.started("slurm-1")
    report = await store(bench, writer, trail_only=TRAIL_ONLY)
    assert (report.stored, report.head) == (1, writer.head)
    assert await bench.jobs() == []


async def test_a_batch_of_two_chains_or_none_is_refused(bench: Bench) -> None:
    one, other = ChainWriter(), ChainWriter()
    one.begin()
    other.begin()
    mixed: list[ChainedEvent] = [*one.rows, *other.rows]
    for batch in (mixed, []):
        with pytest.raises(StoreRefused):
            await bench.sink.store(batch, node="n1")


async def test_nodes_of_one_job_join_one_run_whatever_their_order(bench: Bench) -> None:
    nodes = ["n1", "n2", "n3"]
    writers = [ChainWriter(node) for node in nodes]
    for writer in writers:
        opened_by = writer.started("slurm-9", nodes=nodes)
        writer.finished("slurm-9", 5 * SECOND, opened_by=opened_by)
    for writer in reversed(writers):
        await bench.sink.store(writer.rows[:1], node=writer.node)
    for writer in writers:
        await bench.sink.store(writer.rows[1:], node=writer.node)
    (job,) = await bench.jobs()
    assert (job.nodes_started, job.nodes_ended, job.cpus_allocated, job.state) == (3, 3, 12, State.ENDED)


async def test_a_job_started_again_after_its_end_is_a_second_run(bench: Bench) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    writer.started("slurm-1", 60 * SECOND)
    await store(bench, writer)
    assert [(job.run, job.state) for job in await bench.jobs()] == [(1, State.ENDED), (2, State.RUNNING)]


async def test_a_report_of_a_benchmark_is_held_and_changes_no_run_of_its_job(bench: Bench) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    await store(bench, writer)
    before = await bench.jobs()
    tell(writer, report(), at=11 * SECOND)
    tell(writer, report(2, jobs=(claim("slurm-404"),)), at=12 * SECOND)
    assert (await store(bench, writer)).unapplied == {}
    assert await bench.jobs() == before
    assert await bench.benchmarks() == {uid(1): None, uid(2): None}


async def test_of_reports_of_one_run_the_first_stands_and_the_word_from_inside_the_job_counts(bench: Bench) -> None:
    inside = msgspec.structs.replace(report(), from_job=True, user_name="ada")
    writer, other = ChainWriter("n1"), ChainWriter("n2")
    tell(writer, msgspec.structs.replace(report(), user_name="bob"))
    tell(other, inside, at=60 * SECOND)
    tell(other, msgspec.structs.replace(report(), user_name="eve"))
    tell(other, report(throughput=1.0))
    await store(bench, writer)
    assert (await store(bench, other)).unapplied == {3: f"benchmark run {uid(1)} is held with other contents"}
    assert await bench.benchmarks() == {uid(1): "ada"}


async def test_what_is_no_report_is_kept_and_named(bench: Bench) -> None:
    writer = ChainWriter()
    writer.event(EventKind.BENCHMARK_RECORDED, "slurm-1", 0)
    assert list((await store(bench, writer)).unapplied) == [1]
    assert (await bench.jobs(), await bench.benchmarks()) == ([], {})


@at_a_database
async def test_a_job_kept_by_hand_goes_its_way_by_peoples_word(bench: Bench) -> None:
    writer = ChainWriter()
    writer.said(EventKind.JOB_CREATED, 0, account="chem", start_us=T0)
    writer.said(EventKind.JOB_AMENDED, SECOND, account="phys", state=State.COMPLETED, end_us=T0 + SECOND)
    writer.said(EventKind.JOB_CREATED, 0, "manual-b")
    assert (await store(bench, writer)).unapplied == {}
    one, other = await bench.jobs()
    assert (one.job_id, one.run, one.facts.account, one.state) == ("manual-a", 1, "phys", State.COMPLETED)
    assert (one.start_us, one.end_us, one.state_confirmed) == (T0, T0 + SECOND, True)
    assert (other.job_id, other.state) == ("manual-b", State.PENDING)


@at_a_database
async def test_a_withdrawn_job_is_none_any_more_whatever_comes_later_from_wherever(bench: Bench) -> None:
    writer, late = ChainWriter("n1"), ChainWriter("n2")
    writer.said(EventKind.JOB_CREATED, 0, account="chem")
    writer.said(EventKind.JOB_WITHDRAWN, SECOND)
    late.said(EventKind.JOB_AMENDED, 0, state=State.RUNNING)
    late.said(EventKind.JOB_CREATED, 2 * SECOND, comment="again")
    late.said(EventKind.JOB_WITHDRAWN, 2 * SECOND)
    await store(bench, writer)
    assert await bench.jobs() == []
    assert (await store(bench, late)).unapplied == {}
    assert await bench.jobs() == []


@at_a_database
async def test_a_withdrawal_may_come_before_what_it_withdraws(bench: Bench) -> None:
    writer, late = ChainWriter("n1"), ChainWriter("n2")
    writer.said(EventKind.JOB_WITHDRAWN, SECOND)
    late.said(EventKind.JOB_CREATED, 0, account="chem")
    await store(bench, writer)
    await store(bench, late)
    assert await bench.jobs() == []


@at_a_database
async def test_what_people_cannot_say_is_kept_in_the_trail_and_named(bench: Bench) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    before = len(writer.rows)
    writer.said(EventKind.JOB_WITHDRAWN, SECOND, "slurm-1", run=1)
    writer.said(EventKind.JOB_AMENDED, SECOND, "slurm-1", run=1, partition="p")
    writer.said(EventKind.JOB_AMENDED, SECOND, "slurm-2", run=1, comment="of nothing")
    writer.started("manual-a")
    writer.said(EventKind.JOB_AMENDED, SECOND, "slurm-1", run=1, comment="ran hot")
    unapplied = (await store(bench, writer)).unapplied
    assert list(unapplied) == [before + number for number in range(1, 5)]
    assert unapplied[before + 3] == "no run 1 of slurm-2 is held to be amended"
    (job,) = await bench.jobs()
    assert (job.job_id, job.facts.comment, job.facts.partition) == ("slurm-1", "ran hot", "p1")


@at_a_database
async def test_a_node_that_slurm_does_not_name_changes_nothing_of_the_job(bench: Bench) -> None:
    """Its claims are in the trail, with the reason why nothing came of them."""
    node, server, thief = ChainWriter("n1"), ChainWriter("s1"), ChainWriter("n9")
    node.started("slurm-1", slurm_start_time=T0 // SECOND)
    await store(bench, node)
    record = SlurmRecord(
        origin=Origin.SLURMCTLD, job_id="slurm-1", state="RUNNING", start_time=T0 // SECOND,
        facts=JobFacts(nodes=("n1",), user_name="ada"),
    )  # fmt: skip
    server.event(EventKind.SLURM_REPORTED, "slurm-1", SECOND, Actor.RECONCILER, slurm=record)
    await store(bench, server)
    before = await bench.jobs()
    usage = NodeUsage(cpu_usage_us=1 << 40, memory_peak_bytes=1 << 50, sample_count=1)
    opened_by = thief.started("slurm-1", 2 * SECOND, slurm_start_time=T0 // SECOND)
    thief.started("slurm-1", 2 * SECOND)
    thief.used("slurm-1", 3 * SECOND, usage, opened_by=opened_by)
    thief.finished("slurm-1", 4 * SECOND, 137, opened_by=opened_by)
    report = await store(bench, thief)
    reason = "Slurm says that run 1 of the job is on n1, and not on n9"
    assert (report.stored, dict(report.unapplied)) == (4, dict.fromkeys(range(1, 5), reason))
    assert await bench.jobs() == before

"""What a node may claim at a server: its site's clusters, its own part in jobs, and slurmctld's word where that runs.

Over real TLS, in front of a real database.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.http import sample_rights
from jobtrail.adapters.http.sample_rights import FRESH_SECONDS, PART_SECONDS, Sampled, SampleRights
from jobtrail.adapters.postgres import PostgresJobParts, PostgresSamples, PostgresSink, rebuild_check, session
from jobtrail.adapters.server_link import LinkEvents, LinkSamples
from jobtrail.core.facts import NodeContradicted, SamplesDropped
from jobtrail.core.link.protocol import JobKey, PartOfJob
from jobtrail.core.link.scope import ANYTHING, Allowed
from jobtrail.core.ports import TRAIL_ONLY, SampleRow
from jobtrail.domain.errors import StoreRefused, StoreUnavailable
from jobtrail.domain.events import LATEST_US, Actor, EventKind, NodeUsage
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.slurm import Origin, SlurmRecord
from tests.adapters import test_postgres_energy_samples as energy
from tests.adapters import test_postgres_gpu_samples as gpus
from tests.adapters import test_postgres_samples as samples
from tests.chains import SECOND, T0, ChainWriter
from tests.served_link import SECONDS, Site, in_postgres, site

KEY = T0 // SECOND  # SLURM_JOB_START_TIME of the job


@pytest.fixture
async def open_site(tmp_path: Path, pool: Any) -> AsyncIterator[Site]:
    async with site(tmp_path, in_postgres(pool)) as one:
        yield one


def word(at: int, *, state: str = "RUNNING", job_id: str = "slurm-1", end_time: int | None = None) -> ChainWriter:
    """What the reconciler of a daemon with a database heard of Slurm: the job is on n1."""
    writer = ChainWriter("s1")
    record = SlurmRecord(
        origin=Origin.SLURMCTLD, job_id=job_id, state=state, start_time=KEY, end_time=end_time,
        facts=JobFacts(nodes=("n1",), user_name="ada"),
    )  # fmt: skip
    writer.event(EventKind.SLURM_REPORTED, job_id, at, Actor.RECONCILER, slurm=record)
    return writer


async def a_job_on_n1(pool: Any, job_id: str = "slurm-1") -> None:
    """Its prolog told of it, and then Slurm."""
    node = ChainWriter("n1")
    node.started(job_id, slurm_start_time=KEY)
    sink = PostgresSink(pool, **SECONDS)
    await sink.store(node.rows, node="n1")
    await sink.store(word(SECOND, job_id=job_id).rows, node="s1")


async def held(pool: Any) -> list[Any]:
    """All that is held of jobs, but the trail."""
    async with session(pool, 10.0) as connection:
        return [
            [tuple(row) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3")]
            for table in ("jobs", "job_nodes", "job_gpus")
        ]


def contradicted(at: Site) -> list[tuple[str, str]]:
    return [(fact.node, fact.what) for fact in at.server.facts if isinstance(fact, NodeContradicted)]


def dropped(at: Site) -> list[int]:
    return [fact.rows for fact in at.asked if isinstance(fact, SamplesDropped)]


# --- part of a job


async def test_a_node_has_no_part_in_a_job_that_slurm_says_is_elsewhere(open_site: Site, pool: Any) -> None:
    """Its trail keeps what it said, with the reason; the job's rows stay, and are what the trail gives."""
    await a_job_on_n1(pool)
    before = await held(pool)
    thief = ChainWriter("n9")
    opened_by = thief.started("slurm-1", 2 * SECOND, slurm_start_time=KEY)
    thief.used("slurm-1", 3 * SECOND, NodeUsage(cpu_usage_us=1 << 40, sample_count=1), opened_by=opened_by)
    thief.finished("slurm-1", 4 * SECOND, 137, opened_by=opened_by)
    report = await LinkEvents(open_site.link("n9")).store(thief.rows, node="n9")
    reason = "Slurm says that run 1 of the job is on n1, and not on n9"
    assert dict(report.unapplied) == dict.fromkeys((1, 2, 3), reason)
    assert await held(pool) == before
    async with session(pool, 10.0) as connection:
        rows = await connection.fetch("SELECT run, unapplied FROM audit_log WHERE chain_id = $1", thief.chain_id)
        assert (await rebuild_check(connection)).equal
    assert [tuple(row) for row in rows] == [(None, reason)] * 3


async def test_what_a_node_said_before_slurm_did_is_held_and_can_be_rebuilt(open_site: Site, pool: Any) -> None:
    """A node's own part counts until Slurm speaks, and what was given back while the job ran counts on."""
    node, early = ChainWriter("n1"), ChainWriter("n2")
    node.started("slurm-1", nodes=["n1", "n2"], slurm_start_time=KEY)
    opened_by = early.started("slurm-1", SECOND, nodes=["n1", "n2"], slurm_start_time=KEY)
    early.finished("slurm-1", 5 * SECOND, opened_by=opened_by)
    await LinkEvents(open_site.link("n1")).store(node.rows, node="n1")
    await LinkEvents(open_site.link("n2")).store(early.rows[:1], node="n2")
    await PostgresSink(pool, **SECONDS).store(word(3 * SECOND).rows, node="s1")
    report = await LinkEvents(open_site.link("n2")).store(early.rows[1:], node="n2")
    assert dict(report.unapplied) == {}
    async with session(pool, 10.0) as connection:
        assert await connection.fetchval("SELECT ended_at IS NOT NULL FROM job_nodes WHERE node = 'n2'")
        assert (await rebuild_check(connection)).equal


# --- samples


def of_all_kinds(node: str, job_id: str, at: int | None = None, cluster: str = "c1") -> tuple[Any, Any, Any]:
    now = samples.now_us() if at is None else at
    used = energy.row(now, cluster=cluster, job_id=job_id)
    return (
        samples.row(samples.whole_reading(now), node=node, job_id=job_id, cluster=cluster),
        gpus.row(gpus.whole_reading(now), node=node, job_id=job_id, cluster=cluster),
        msgspec.structs.replace(used, sample=msgspec.structs.replace(used.sample, node=node)),
    )


async def send(at: Site, node: str, *jobs: tuple[Any, Any, Any]) -> None:
    link = LinkSamples(at.link(node))
    for rows, write in zip(zip(*jobs, strict=True), (link.write, link.write_gpus, link.write_energy), strict=True):
        with suppress(StoreRefused):
            told = len(dropped(at))
            assert await write(rows) == len(rows) - sum(dropped(at)[told:])


async def jobs_with_samples(pool: Any) -> list[set[tuple[str, str]]]:
    kinds = [await kind.held(pool) for kind in (samples, gpus, energy)]
    return [{(row["cluster_name"], row["job_id"]) for row in rows} for rows in kinds]


async def test_of_a_job_that_slurm_says_is_elsewhere_no_sample_is_taken(open_site: Site, pool: Any) -> None:
    """The node drops these rows and sends the others again; the job's own node goes on."""
    await a_job_on_n1(pool)
    await send(
        open_site, "n9", of_all_kinds("n9", "slurm-2"), of_all_kinds("n9", "slurm-1"), of_all_kinds("n9", "slurm-3")
    )
    assert await jobs_with_samples(pool) == [{("c1", "slurm-2"), ("c1", "slurm-3")}] * 3
    assert dropped(open_site) == [1, 1, 1]
    assert contradicted(open_site) == [("n9", "sample")] * 3
    assert [told[:2] for told in open_site.server.noticed] == [("forged_node", "n9")] * 3
    await send(open_site, "n1", of_all_kinds("n1", "slurm-1"))
    assert [("c1", "slurm-1") in jobs for jobs in await jobs_with_samples(pool)] == [True] * 3
    assert len(contradicted(open_site)) == 3


async def test_where_none_can_be_taken_all_are_refused(open_site: Site, pool: Any) -> None:
    await a_job_on_n1(pool)
    with pytest.raises(
        StoreRefused, match="sends this sample, which is of 'slurm-1', which Slurm says is on other nodes"
    ):
        await LinkSamples(open_site.link("n9")).write(of_all_kinds("n9", "slurm-1")[:1])
    assert await jobs_with_samples(pool) == [set()] * 3


class Hesitating(PostgresSamples):
    """Takes rows when it is asked again."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pool, **SECONDS, tell=[].append)
        self.asked = 0

    async def write(self, rows: Sequence[SampleRow]) -> int:
        self.asked += 1
        if self.asked == 1:
            raise StoreUnavailable("the database is away")
        return await super().write(rows)


async def test_a_row_is_counted_as_dropped_once_though_the_others_come_again(tmp_path: Path, pool: Any) -> None:
    await a_job_on_n1(pool)
    async with site(tmp_path, in_postgres(pool, samples=Hesitating(pool))) as at:
        link = LinkSamples(at.link("n9"))
        batch = [of_all_kinds("n9", "slurm-1")[0], of_all_kinds("n9", "slurm-2")[0]]
        with pytest.raises(StoreUnavailable):
            await link.write(batch)
        assert dropped(at) == []
        await link.write(batch)
        assert dropped(at) == [1]
    assert (await jobs_with_samples(pool))[0] == {("c1", "slurm-2")}


class Learning:
    """A JobParts that knows of one job more each time it is asked, as of several servers each knows other ones."""

    def __init__(self) -> None:
        self.elsewhere = ["slurm-3", "slurm-1"]

    async def parts(self, jobs: Sequence[JobKey], node: str) -> Mapping[JobKey, PartOfJob]:
        known = {("c1", self.elsewhere.pop())} if self.elsewhere else set()
        return {job: PartOfJob(refused_until_us=LATEST_US) for job in jobs if job in known}


async def test_rows_that_are_refused_one_after_another_cost_the_others_nothing(
    tmp_path: Path, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_rights, "FRESH_SECONDS", -1.0)
    async with site(tmp_path, in_postgres(pool, parts=Learning())) as at:
        await LinkSamples(at.link("n9")).write([of_all_kinds("n9", f"slurm-{number}")[0] for number in (1, 2, 3, 4)])
        assert dropped(at) == [2]
    assert (await jobs_with_samples(pool))[0] == {("c1", "slurm-2"), ("c1", "slurm-4")}


async def test_what_is_not_contradicted_is_taken(open_site: Site, pool: Any) -> None:
    """Of a job of which nothing is known, or nothing by Slurm; that ended before; that is none of Slurm's; of none."""
    node = ChainWriter("n1")
    node.started("slurm-7", slurm_start_time=KEY)
    await PostgresSink(pool, **SECONDS).store(node.rows, node="n1")
    await a_job_on_n1(pool, "slurm-8")
    ended = word(60 * SECOND, state="COMPLETED", job_id="slurm-8", end_time=KEY + 50)
    await PostgresSink(pool, **SECONDS).store(ended.rows, node="s1")
    names = ("slurm-6", "slurm-7", "slurm-8", "local-1", "slurm-\N{BLACK HEART SUIT}", "slurm-" + "9" * 2000)
    await send(open_site, "n9", *(of_all_kinds("n9", name) for name in names))
    assert await jobs_with_samples(pool) == [{("c1", name) for name in names}] * 3
    nobody = msgspec.structs.replace(of_all_kinds("n9", "slurm-8")[1], cluster=None, job_id=None)
    await LinkSamples(open_site.link("n9")).write_gpus([nobody])
    assert dropped(open_site) == []
    assert contradicted(open_site) == []


async def test_a_name_that_no_column_holds_is_refused_as_before(open_site: Site, pool: Any) -> None:
    with pytest.raises(StoreRefused):
        await LinkSamples(open_site.link("n9")).write(of_all_kinds("n9", "slurm-\0")[:1])
    assert await jobs_with_samples(pool) == [set()] * 3


class Counting(PostgresJobParts):
    """Knows what it was asked."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pool, **SECONDS)
        self.asked: list[Sequence[JobKey]] = []

    async def parts(self, jobs: Sequence[JobKey], node: str) -> Mapping[JobKey, PartOfJob]:
        self.asked.append(jobs)
        return await super().parts(jobs, node)


async def test_the_database_is_asked_once_a_batch_and_then_not_for_a_while(
    tmp_path: Path, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_rights, "FRESH_SECONDS", 600.0)
    await a_job_on_n1(pool)
    parts = Counting(pool)
    async with site(tmp_path, in_postgres(pool, parts=parts)) as at:
        link = LinkSamples(at.link("n1"))
        rows = [of_all_kinds("n1", name)[0] for name in ("slurm-1", "slurm-2") for _ in range(50)]
        for _ in range(3):
            await link.write([*rows, of_all_kinds("n1", "local-5")[0]])
    assert parts.asked == [[("c1", "slurm-1"), ("c1", "slurm-2")]]


class Scripted:
    """A JobParts that answers what a test put there."""

    def __init__(self, **parts: PartOfJob) -> None:
        self.known = {("c1", f"slurm-{name}"): part for name, part in parts.items()}
        self.asked: list[Sequence[JobKey]] = []

    async def parts(self, jobs: Sequence[JobKey], node: str) -> Mapping[JobKey, PartOfJob]:
        self.asked.append(jobs)
        return {job: self.known[job] for job in jobs if job in self.known}


def sampled(name: str, time_us: int = 5) -> Sampled:
    return Sampled("c1", f"slurm-{name}", time_us)


async def test_what_may_change_is_asked_again_soon_and_a_part_much_later() -> None:
    now = [100.0]
    parts = Scripted(own=PartOfJob(has_part=True), other=PartOfJob(refused_until_us=9))
    rights = SampleRights(parts, ANYTHING, now=lambda: now[0])
    batch = [sampled("own"), sampled("other"), sampled("other", 9), sampled("other", 10), sampled("none")]
    for moment, asked in ((0.0, 3), (FRESH_SECONDS, 0), (FRESH_SECONDS + 0.1, 2), (PART_SECONDS + 0.1, 3)):
        now[0], parts.asked = 100.0 + moment, []
        assert set(await rights.problems(batch, "n1")) == {1, 2}
        assert sum(map(len, parts.asked)) == asked
    parts.known = {}
    now[0] += FRESH_SECONDS + 0.1
    assert await rights.problems(batch, "n1") == {}
    parts.asked = []
    await rights.problems(batch, "n2")
    assert parts.asked, "what is known is known of one node"


async def test_no_more_is_remembered_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_rights, "MOST_KNOWN", 10)
    rights = SampleRights(Scripted(), ANYTHING)
    for number in range(40):
        await rights.problems([sampled(str(number))], "n1")
    assert len(rights._known) == 10
    many = [sampled(str(number)) for number in range(25)]
    assert await rights.problems(many, "n1") == {}


async def test_what_a_batch_is_about_is_not_forgotten_for_the_rest_of_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or whoever claims enough jobs beside it could claim any."""
    monkeypatch.setattr(sample_rights, "MOST_KNOWN", 10)
    rights = SampleRights(Scripted(other=PartOfJob(refused_until_us=9)), ANYTHING)
    assert set(await rights.problems([sampled("other")], "n1")) == {0}
    batch = [sampled("other"), *(sampled(str(number)) for number in range(10))]
    assert set(await rights.problems(batch, "n1")) == {0}
    assert len(rights._known) == 10


# --- clusters and controllers


async def test_a_node_names_no_cluster_but_the_sites(tmp_path: Path, pool: Any) -> None:
    async with site(tmp_path, in_postgres(pool, allowed=Allowed(clusters=frozenset({"c1", "local"})))) as at:
        events = LinkEvents(at.link("n1"))
        ours, theirs = ChainWriter("n1"), ChainWriter("n1", cluster="c2")
        ours.started("slurm-1")
        theirs.started("slurm-1")
        assert (await events.store(ours.rows, node="n1")).stored == 1
        with pytest.raises(StoreRefused, match=r"which is of cluster 'c2', which is none of link\.clusters"):
            await events.store(theirs.rows, node="n1")
        assert (await events.store(theirs.rows, node="n1", trail_only=TRAIL_ONLY)).stored == 1
        await send(at, "n1", of_all_kinds("n1", "slurm-1"), of_all_kinds("n1", "slurm-1", cluster="c2"))
        assert contradicted(at) == [("n1", "event"), *[("n1", "sample")] * 3]
        assert {told[0] for told in at.server.noticed} == {"forged_node"}
        assert dropped(at) == [1, 1, 1]
    assert await jobs_with_samples(pool) == [{("c1", "slurm-1")}] * 3
    async with session(pool, 10.0) as connection:
        assert [row["cluster_name"] for row in await connection.fetch("SELECT cluster_name FROM jobs")] == ["c1"]


async def test_slurmctld_speaks_through_its_own_machines_alone(tmp_path: Path, pool: Any) -> None:
    record = SlurmRecord(
        origin=Origin.CONTROLLER_HOOK, job_id="slurm-1", facts=JobFacts(user_name="eve", nodes=("n1",))
    )
    async with site(tmp_path, in_postgres(pool, allowed=Allowed(controllers=frozenset({"ctl"})))) as at:
        for node in ("n1", "ctl"):
            writer = ChainWriter(node)
            writer.event(EventKind.SLURM_REPORTED, "slurm-1", 0, Actor.SLURM_CONTROLLER, slurm=record)
            events = LinkEvents(at.link(node))
            if node == "ctl":
                assert (await events.store(writer.rows, node=node)).stored == 1
                continue
            with pytest.raises(
                StoreRefused, match=r"which is slurmctld's word, and the node is none of link\.controllers"
            ):
                await events.store(writer.rows, node=node)
            assert (await events.store(writer.rows, node=node, trail_only=TRAIL_ONLY)).stored == 1
            assert await held(pool) == [[], [], []]
        assert contradicted(at) == [("n1", "event")]
    async with session(pool, 10.0) as connection:
        assert await connection.fetchval("SELECT user_name FROM jobs") == "eve"
        assert uuid.UUID(await connection.fetchval("SELECT correlation_id::text FROM jobs"))

"""Which daemons the database knows of: Slurm's nodes, and those that wrote to the trail of late."""

from typing import Any

import pytest

from jobtrail.adapters.postgres import PostgresNodes, PostgresSink, PostgresTargets, session
from jobtrail.core.target_ports import ScrapeTarget, TargetFilter
from jobtrail.domain.errors import StoreUnavailable
from jobtrail.domain.events import Actor, EventKind
from jobtrail.domain.slurm import NodeRecord, Origin, SlurmRecord
from tests.chains import ChainWriter

ALL = TargetFilter()
N1 = ScrapeTarget(node="n1", cluster="c1", state="mixed", flags=("drain", "planned"), partitions=("batch", "gpu"))


@pytest.fixture
async def targets(pool: Any) -> PostgresTargets:
    nodes = PostgresNodes(pool, timeout_seconds=10.0)
    told = (
        NodeRecord(name="n2", state="down", partitions=("batch",)),
        NodeRecord(name="n1", state="mixed", flags=("planned", "drain"), partitions=("batch", "gpu")),
    )
    await nodes.write_nodes("c1", told, asked_us=1)
    await nodes.write_nodes("c2", [NodeRecord(name="m1", state="idle")], asked_us=1)
    return PostgresTargets(pool, timeout_seconds=10.0)


async def write_of(pool: Any, node: str, cluster: str = "c1", *, job: bool = True) -> None:
    """A daemon's chain: its beginning, and a job."""
    writer = ChainWriter(node=node, cluster=cluster)
    writer.begin()
    if job:
        writer.started("slurm-1")
    await PostgresSink(pool).store(writer.rows, node=node)


async def names(targets: PostgresTargets, wanted: TargetFilter = ALL) -> list[str]:
    return [one.node for one in await targets.targets(wanted)]


async def test_slurm_s_nodes_come_with_what_slurm_told(targets: PostgresTargets) -> None:
    found = await targets.targets(ALL)
    assert [one.node for one in found] == ["n1", "n2", "m1"], "by cluster and node"
    assert found[0] == N1
    assert found[2] == ScrapeTarget(node="m1", cluster="c2", state="idle")


async def test_they_are_narrowed_by_cluster_and_partition(targets: PostgresTargets) -> None:
    assert await names(targets, TargetFilter(cluster="c2")) == ["m1"]
    assert await names(targets, TargetFilter(partition="batch")) == ["n1", "n2"]
    assert await names(targets, TargetFilter(cluster="c1", partition="gpu")) == ["n1"]
    assert await names(targets, TargetFilter(cluster="c2", partition="gpu")) == []


async def test_who_wrote_of_late_is_there_where_slurm_has_told_nothing(pool: Any, targets: PostgresTargets) -> None:
    """A daemon in the role server alone, and every node where no slurmrestd is asked."""
    await write_of(pool, "n1")  # Slurm's own: not twice
    await write_of(pool, "admin")
    await write_of(pool, "new", job=False)
    found = {one.node: one for one in await targets.targets(ALL)}
    assert found.keys() == {"n1", "n2", "m1", "admin", "new"}
    assert found["n1"] == N1
    assert found["admin"] == ScrapeTarget(node="admin", cluster="c1")
    assert found["new"].state is None
    assert "admin" in await names(targets, TargetFilter(cluster="c1"))
    assert "admin" not in await names(targets, TargetFilter(partition="batch"))


async def test_who_is_no_daemon_is_no_target(pool: Any, targets: PostgresTargets) -> None:
    """Or Prometheus would find silent who only imported past jobs, the demo's made-up ones, or the database itself."""
    for node in ("workstation", "admin"):
        imported = ChainWriter(node=node)
        imported.begin()
        record = SlurmRecord(origin=Origin.SACCT, job_id="slurm-9", state="COMPLETED")
        imported.event(EventKind.SLURM_REPORTED, "slurm-9", 0, Actor.CLI, slurm=record)
        await PostgresSink(pool).store(imported.rows, node=node)
    seeded = ChainWriter(node="demo-generator", cluster="demo")
    seeded.begin()
    seeded.event(EventKind.JOB_STARTED, "slurm-1", 0, Actor.CLI, source="synthetic")
    await PostgresSink(pool).store(seeded.rows, node="demo-generator")
    await write_of(pool, "admin")  # a daemon is there as well
    async with session(pool, 10.0) as connection:
        await connection.execute(
            "INSERT INTO audit_chain (chain_id, node, head_seq, head_hash)"
            " VALUES (gen_random_uuid(), '@store', 0, sha256(''))"
        )
    assert set(await names(targets)) == {"n1", "n2", "m1", "admin"}


async def test_who_has_two_chains_is_one_and_who_was_silent_for_a_week_is_none(
    pool: Any, targets: PostgresTargets
) -> None:
    """A node whose spool was lost begins a new chain."""
    await write_of(pool, "admin", "old")
    await write_of(pool, "gone")
    async with session(pool, 10.0) as connection:
        await connection.execute("UPDATE audit_chain SET updated_at = now() - interval '2 hours' WHERE node = 'admin'")
        await connection.execute("UPDATE audit_chain SET updated_at = now() - interval '8 days' WHERE node = 'gone'")
    await write_of(pool, "admin", "c1")
    found = [one for one in await targets.targets(ALL) if one.node in {"admin", "gone"}]
    assert found == [ScrapeTarget(node="admin", cluster="c1")]


async def test_a_database_that_is_away_is_told(pool: Any, targets: PostgresTargets) -> None:
    await pool.close()
    with pytest.raises(StoreUnavailable):
        await targets.targets(ALL)

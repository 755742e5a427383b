"""Table nodes: what Slurm last said of each node, and since when it says so."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresNodes, session
from jobtrail.core.query_ports import NodeFilter
from jobtrail.domain.errors import StoreRefused, StoreUnavailable
from jobtrail.domain.slurm import NodeRecord

MINUTE_US = 60_000_000
T0_US = 1_800_000_000_000_000
FIRST = datetime.fromtimestamp(T0_US // 1_000_000, tz=UTC)
WHOLE = NodeRecord(
    name="n1", state="mixed", flags=("planned", "drain"), reason="fan \x00", cpus=64, cpus_allocated=3, cpu_load=2.5,
    memory_bytes=1 << 38, memory_allocated_bytes=1 << 30, memory_free_bytes=1 << 37, gpus=4, gpus_allocated=1,
    boot_time=1_790_000_000, slurmd_start_time=1_790_000_100, partitions=("batch", "gpu"), version="22.05.8",
)  # fmt: skip
BARE = NodeRecord(name="n2", state="down")
ALL = NodeFilter()


@pytest.fixture
async def nodes(pool: Any) -> PostgresNodes:
    return PostgresNodes(pool, timeout_seconds=10.0)


async def held(nodes: PostgresNodes, wanted: NodeFilter = ALL) -> dict[str, dict[str, Any]]:
    page = await nodes.list_nodes(wanted, limit=100, offset=0)
    assert page.total == len(page.nodes)
    return {row["node"]: row for row in page.nodes}


async def test_every_value_is_held_and_what_slurm_does_not_say_is_null(nodes: PostgresNodes) -> None:
    await nodes.write_nodes("c1", [WHOLE, BARE], asked_us=T0_US)
    rows = await held(nodes)
    assert rows["n1"] == {
        "cluster_name": "c1", "node": "n1", "state": "mixed", "state_flags": ["drain", "planned"],
        "reason": "fan \ufffd",
        "cpus": 64, "cpus_allocated": 3, "cpu_load": 2.5, "memory_bytes": 1 << 38, "memory_allocated_bytes": 1 << 30,
        "memory_free_bytes": 1 << 37, "gpus": 4, "gpus_allocated": 1, "slurmd_version": "22.05.8",
        "boot_time": datetime.fromtimestamp(1_790_000_000, tz=UTC),
        "slurmd_start_time": datetime.fromtimestamp(1_790_000_100, tz=UTC), "partitions": ["batch", "gpu"],
        "first_seen_at": FIRST, "updated_at": FIRST, "state_changed_at": FIRST,
    }  # fmt: skip
    absent = {name for name, value in rows["n2"].items() if value is None}
    assert absent == {
        "reason", "cpus", "cpus_allocated", "cpu_load", "memory_bytes", "memory_allocated_bytes", "memory_free_bytes",
        "gpus", "gpus_allocated", "boot_time", "slurmd_start_time", "slurmd_version",
    }  # fmt: skip
    msgspec.json.encode(list(rows.values()))  # the API sends them as they are


async def test_the_moment_of_change_is_that_of_the_state_or_a_flag(nodes: PostgresNodes) -> None:
    await nodes.write_nodes("c1", [WHOLE, BARE], asked_us=T0_US)
    same = msgspec.structs.replace(WHOLE, flags=("drain", "planned"), cpu_load=9.0)
    await nodes.write_nodes("c1", [same, msgspec.structs.replace(BARE, flags=("drain",))], asked_us=T0_US + MINUTE_US)
    rows = await held(nodes)
    assert rows["n1"]["cpu_load"] == 9.0
    changed = {name: (row["state_changed_at"] - FIRST).total_seconds() for name, row in rows.items()}
    assert changed == {"n1": 0, "n2": 60}
    assert {(row["updated_at"] - row["first_seen_at"]).total_seconds() for row in rows.values()} == {60}


async def test_a_node_that_slurm_no_longer_has_goes_and_other_clusters_stay(nodes: PostgresNodes) -> None:
    await nodes.write_nodes("c1", [WHOLE, BARE], asked_us=T0_US)
    await nodes.write_nodes("c2", [BARE], asked_us=T0_US)
    await nodes.write_nodes("c1", [WHOLE], asked_us=T0_US + 1)
    assert set(await held(nodes, NodeFilter(cluster="c1"))) == {"n1"}
    assert set(await held(nodes, NodeFilter(cluster="c2"))) == {"n2"}
    await nodes.write_nodes("c1", [], asked_us=T0_US + 2)
    assert set(await held(nodes)) == {"n2"}


async def test_an_older_answer_changes_nothing(nodes: PostgresNodes) -> None:
    """Two servers ask; the slower one's answer may come last."""
    await nodes.write_nodes("c1", [WHOLE, BARE], asked_us=T0_US)
    await nodes.write_nodes("c1", [msgspec.structs.replace(WHOLE, state="idle")], asked_us=T0_US - 1)
    rows = await held(nodes)
    assert (set(rows), rows["n1"]["state"]) == ({"n1", "n2"}, "mixed")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (NodeFilter(state="down"), {"n2"}),
        (NodeFilter(state="drain"), {"n1"}),
        (NodeFilter(partition="gpu"), {"n1"}),
        (NodeFilter(partition="gpu", state="down"), set()),
        (NodeFilter(cluster="c9"), set()),
    ],
)
async def test_each_filter_picks_its_nodes(nodes: PostgresNodes, wanted: NodeFilter, names: set[str]) -> None:
    await nodes.write_nodes("c1", [WHOLE, BARE], asked_us=T0_US)
    assert set(await held(nodes, wanted)) == names


async def test_nodes_come_in_pages_with_the_total(nodes: PostgresNodes) -> None:
    await nodes.write_nodes("c1", [NodeRecord(name=f"n{n}", state="idle") for n in (3, 1, 2)], asked_us=T0_US)
    page = await nodes.list_nodes(ALL, limit=1, offset=1)
    assert ([row["node"] for row in page.nodes], page.total) == (["n2"], 3)


@pytest.mark.parametrize("seconds", [0, -5, 253_402_300_800, 2**64 - 1])
async def test_a_time_beyond_all_calendars_is_unknown(nodes: PostgresNodes, seconds: int) -> None:
    await nodes.write_nodes("c1", [NodeRecord(name="n1", state="idle", boot_time=seconds)], asked_us=T0_US)
    assert (await held(nodes))["n1"]["boot_time"] is None


async def test_a_number_that_no_column_holds_is_refused_whole(nodes: PostgresNodes) -> None:
    with pytest.raises(StoreRefused):
        await nodes.write_nodes("c1", [BARE, NodeRecord(name="n1", state="idle", cpus=1 << 40)], asked_us=T0_US)
    assert await held(nodes) == {}


async def test_ten_thousand_nodes_are_one_statement(nodes: PostgresNodes, pool: Any) -> None:
    many = [msgspec.structs.replace(WHOLE, name=f"n{number:05}") for number in range(10_000)]
    await nodes.write_nodes("c1", many, asked_us=T0_US)
    await nodes.write_nodes("c1", many[1:], asked_us=T0_US + MINUTE_US)
    async with session(pool, 10.0) as connection:
        assert await connection.fetchval("SELECT count(*) FROM nodes WHERE updated_at > first_seen_at") == 9_999


async def test_a_database_that_is_not_migrated_is_unavailable(empty_database: str) -> None:
    from jobtrail.adapters.postgres import close_pool, open_pool

    opened = await open_pool(empty_database, size=1, timeout_seconds=5.0)
    with pytest.raises(StoreUnavailable, match="nodes"):
        await PostgresNodes(opened, timeout_seconds=5.0).list_nodes(ALL, limit=1, offset=0)
    await close_pool(opened, timeout_seconds=5.0)

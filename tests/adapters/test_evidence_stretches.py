"""Evidence of a job that several checkpoints cover: it ran for longer than it takes to the next one, as most do."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters.postgres import PostgresSink
from jobtrail.adapters.postgres.export import PostgresExport, encoded
from jobtrail.domain.events import NodeUsage
from tests.chains import SECOND
from tests.sealed_trail import TrailBench, verify_offline

JOB = "slurm-900"


async def long_job(bench: TrailBench, *, minutes_between: int) -> None:
    """Its start, a word about it and its end, each under a checkpoint of its own, some minutes apart."""
    writer = bench.writers["n1"]
    for told in (
        lambda: writer.started(JOB),
        lambda: writer.used(JOB, 5 * SECOND, NodeUsage(covered_us=5 * SECOND)),
        lambda: writer.finished(JOB, 10 * SECOND),
    ):
        for _ in range(minutes_between):
            await bench.jobs()
            await bench.seal()
        known = len(writer.rows)
        told()
        await PostgresSink(bench.pool, timeout_seconds=10.0).store(writer.rows[known:], node="n1")
        await bench.seal()
    await bench.jobs()
    await bench.seal()


async def evidence(bench: TrailBench) -> list[dict[str, Any]]:
    lines = [line async for line in PostgresExport(bench.pool, timeout_seconds=10.0).evidence(JOB, None)]
    return [json.loads(encoded(line)) for line in lines]


def verified(bench: TrailBench, lines: list[dict[str, Any]]) -> tuple[set[tuple[str, int | None]], int, int]:
    """Codes and rows of what is wrong; how many rows there are, and how many of them no checkpoint covers."""
    path = bench.directory / "evidence.jsonl"
    path.write_bytes(b"".join(map(encoded, lines)))
    found = verify_offline(path, anchors=bench.anchors, key=Path(f"{bench.key}.pub"))
    wrong = {(one["code"], one["seq"]) for one in found["findings"]}
    return wrong, found["rows"], found["rows_not_covered_yet"]


@pytest.fixture
def bench(pool: Any, tmp_path: Path) -> TrailBench:
    return TrailBench(pool, tmp_path)


@pytest.mark.parametrize("minutes_between", [0, 1, 3])
async def test_stretches_of_one_chain_are_verified_one_by_one(bench: TrailBench, minutes_between: int) -> None:
    await long_job(bench, minutes_between=minutes_between)
    lines = await evidence(bench)
    stretches = [line for line in lines if line.get("type") == "chain"]
    assert (len(stretches), len({line["chain_id"] for line in stretches})) == (3, 1)
    rows = [line for line in lines if line.get("type") == "row"]
    assert verified(bench, lines) == (set(), len(rows), 0)
    for shown in (row for row in rows if row["payload"]):  # a row of each stretch
        forged = [line | {"source": "forged"} if line is shown else line for line in lines]
        assert verified(bench, forged)[0] == {("columns_changed", shown["seq"])}
        gone = [line for line in lines if line is not shown]
        assert verified(bench, gone)[0] != set()


async def test_a_stretch_that_does_not_begin_behind_the_one_before_is_refused(bench: TrailBench) -> None:
    """A second time, nothing would be left of what checkpoints say of its rows."""
    await long_job(bench, minutes_between=1)
    lines = await evidence(bench)
    first, second = [number for number, line in enumerate(lines) if line.get("type") == "chain"][:2]
    with pytest.raises(AssertionError, match="is there twice"):
        verified(bench, [*lines, *lines[first:second]])
    with pytest.raises(AssertionError, match="is there twice"):
        verified(bench, [*lines[:second], lines[second] | {"begin": None}, *lines[second + 1 :]])


async def test_a_stretch_whose_beginning_no_checkpoint_covers_shows(bench: TrailBench) -> None:
    await long_job(bench, minutes_between=3)
    lines = await evidence(bench)
    begins = [line["begin"] for line in lines if line.get("type") == "chain"]
    for begin in filter(None, begins):
        seq = begin[0]
        other = [line | {"begin": [seq, "ab" * 32, begin[2]]} if line.get("begin") == begin else line for line in lines]
        assert ("leaf_differs", seq) in verified(bench, other)[0]

"""Evidence of a job that several checkpoints cover: it ran for longer than it takes to the next one, as most do."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

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


Neighbours = list[str]
WRONG_PATHS: dict[str, Callable[[int, Neighbours], tuple[int, Neighbours]]] = {
    "a neighbour is missing": lambda index, path: (index, path[:-1]),
    "one too many": lambda index, path: (index, [*path, "ab" * 32]),
    "another place": lambda index, path: (index ^ 1, path),
    "no place of the checkpoint": lambda index, path: (index + 64, path),
    "before the first place": lambda _, path: (-1, path),
    "two neighbours in one": lambda index, path: (index, ["".join(path)]),
    "the root's two children, known from any other evidence": lambda index, _: (index, ["ab" * 64]),
}


@pytest.mark.parametrize("case", list(WRONG_PATHS))
async def test_a_leaf_is_of_a_checkpoint_only_by_a_path_that_can_be(bench: TrailBench, case: str) -> None:
    await long_job(bench, minutes_between=1)
    lines = await evidence(bench)
    for line in lines:
        if line.get("type") == "checkpoint":
            for proof in line["proofs"]:
                proof["index"], proof["path"] = WRONG_PATHS[case](proof["index"], proof["path"])
    assert {code for code, _ in verified(bench, lines)[0]} == {"root_differs"}


def children(leaf: bytes, index: int, count: int, path: Neighbours) -> tuple[bytes, bytes]:
    """The two hashes that the root over `count` leaves is made of (RFC 9162, 2.1.3)."""
    split = 1 << (count - 1).bit_length() - 1
    inner, within = (index, split) if index < split else (index - split, count - split)
    own = leaf if within == 1 else sha256(b"\1" + b"".join(children(leaf, inner, within, path[:-1]))).digest()
    other = bytes.fromhex(path[-1])
    return (own, other) if index < split else (other, own)


async def test_another_chain_cannot_be_put_under_a_checkpoint_by_the_children_of_its_root(bench: TrailBench) -> None:
    """Who has an honest evidence knows both, and with them as one neighbour any leaf would lead to the true root."""
    await long_job(bench, minutes_between=1)
    lines = await evidence(bench)
    tried = 0
    for checkpoint in (line for line in lines if line.get("type") == "checkpoint" and line["leaf_count"] > 1):
        for proof in checkpoint["proofs"]:
            chain, seq, *hashes = proof["leaf"]
            place = UUID(chain).bytes + seq.to_bytes(8, "big") + b"".join(map(bytes.fromhex, hashes))
            leaf = sha256(b"\0jobtrail-audit-leaf-v1\0" + place).digest()
            both = b"".join(children(leaf, proof["index"], checkpoint["leaf_count"], proof["path"]))
            assert sha256(b"\1" + both).hexdigest() == checkpoint["root"]
            honest = proof["index"], proof["path"]
            proof["path"] = [both.hex()]
            for proof["index"] in range(checkpoint["leaf_count"]):
                assert "root_differs" in {code for code, _ in verified(bench, lines)[0]}
                tried += 1
            proof["index"], proof["path"] = honest
    assert tried >= 4

"""Checkpoints in PostgreSQL: made from recomputed rows, one chain of them whoever seals, told to the writers."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.anchor_file import read_all
from jobtrail.adapters.postgres import PostgresSeals, PostgresSink, PostgresVerifier, session
from jobtrail.adapters.postgres.export import PostgresExport, encoded
from jobtrail.adapters.signing import PublicKeys
from jobtrail.core.trail.facts import CheckpointSealed, TrailBroken
from jobtrail.domain.errors import StoreRefused
from tests.sealed_trail import NODES, TrailBench, as_superuser, export, verify_offline


@pytest.fixture
def bench(pool: Any, tmp_path: Path) -> TrailBench:
    return TrailBench(pool, tmp_path)


async def fetch(pool: Any, query: str, *values: Any) -> list[dict[str, Any]]:
    async with session(pool, 10.0) as connection:
        return [dict(row) for row in await connection.fetch(query, *values)]


async def test_a_checkpoint_covers_what_moved_and_follows_the_one_before(bench: TrailBench) -> None:
    await bench.jobs()
    await bench.seal()
    await bench.jobs(nodes=["n2"])
    await bench.seal()
    await bench.seal()  # nothing moved: none is made
    held = await fetch(bench.pool, "SELECT * FROM audit_checkpoint ORDER BY number")
    assert [(row["number"], row["leaf_count"], row["total_rows"]) for row in held] == [(1, 3, 9), (2, 1, 12)]
    assert held[1]["previous"] == held[0]["digest"]
    sealed = [fact for fact in bench.facts if isinstance(fact, CheckpointSealed)]
    assert [(fact.number, fact.rows, fact.signed) for fact in sealed] == [(1, 9, True), (2, 3, True)]
    anchors = list(read_all(bench.anchors))
    assert [one.checkpoint.digest() for one in anchors] == [row["digest"] for row in held]
    keys = PublicKeys.load([Path(f"{bench.key}.pub")])
    for one in anchors:
        assert one.signature is not None
        assert keys.check(one.key_id, one.signature, one.checkpoint.encoded()) is None


async def test_a_writer_is_told_the_newest_checkpoint_and_its_own_place_in_one(bench: TrailBench) -> None:
    await bench.jobs()
    await bench.seal()
    await bench.jobs(nodes=["n1"])
    await bench.seal()
    writer = bench.writers["n2"]
    report = await PostgresSink(bench.pool).store(writer.rows, node="n2")
    assert report.anchor is not None
    assert report.anchor.newest.checkpoint.number == 2
    own = report.anchor.own
    assert own is not None
    assert (own.sealed.checkpoint.number, own.leaf.chain_id, own.leaf.head_seq) == (1, writer.chain_id, 3)
    assert own.leaf.head_hash == writer.rows[2].row_hash
    assert own.holds()


async def test_before_the_first_checkpoint_nothing_is_told(bench: TrailBench) -> None:
    await bench.jobs(nodes=["n1"])
    writer = bench.writers["n1"]
    assert (await PostgresSink(bench.pool).store(writer.rows, node="n1")).anchor is None


async def test_what_is_not_as_it_was_stored_is_not_sealed_beyond_its_break(bench: TrailBench, database: str) -> None:
    await bench.jobs(2)
    chain = bench.writers["n2"].chain_id
    as_superuser(database, f"UPDATE audit_log SET kind = 'forged' WHERE chain_id = '{chain}' AND seq = 4")
    await bench.seal()
    leaves = await fetch(bench.pool, "SELECT chain_id::text, head_seq FROM audit_checkpoint_leaf")
    ends = {row["chain_id"]: row["head_seq"] for row in leaves}
    assert ends == {writer.chain_id: 3 if node == "n2" else 6 for node, writer in bench.writers.items()}
    (broken,) = [fact for fact in bench.facts if isinstance(fact, TrailBroken)]
    assert (broken.code, broken.where) == ("row_changed", f"chain {chain} sequence 4")
    await bench.seal()
    assert len([fact for fact in bench.facts if isinstance(fact, TrailBroken)]) == 1  # told once


async def test_rows_cut_off_below_a_checkpoint_are_told(bench: TrailBench, database: str) -> None:
    await bench.jobs()
    await bench.seal()
    chain = bench.writers["n1"].chain_id
    as_superuser(database, f"DELETE FROM audit_log WHERE chain_id = '{chain}' AND seq = 3")
    await bench.seal()
    assert ("tail_missing", f"chain {chain} sequence 3") in {
        (fact.code, fact.where) for fact in bench.facts if isinstance(fact, TrailBroken)
    }


async def test_a_checkpoint_of_something_else_is_refused(bench: TrailBench) -> None:
    await bench.jobs()
    state = await PostgresSeals(bench.pool, timeout_seconds=10.0).recompute()
    proofs = bench.sealer._next(state)
    forged = msgspec.structs.replace(proofs[1].leaf, head_hash=b"x" * 32)
    with pytest.raises(StoreRefused, match="leaf 2"):
        await PostgresSeals(bench.pool, timeout_seconds=10.0).keep(
            proofs[0].sealed, [proofs[0], msgspec.structs.replace(proofs[1], leaf=forged), proofs[2]]
        )
    assert await fetch(bench.pool, "SELECT FROM audit_checkpoint") == []


async def test_the_script_and_the_daemon_agree_that_nothing_is_wrong(
    bench: TrailBench, database: str, tmp_path: Path
) -> None:
    await bench.sealed_story()
    await bench.jobs(nodes=["n3"])  # not sealed yet
    exported = await export(database, tmp_path / "export.jsonl")
    found = verify_offline(exported, anchors=bench.anchors, key=Path(f"{bench.key}.pub"))
    assert found == {
        "rows": 57, "rows_not_covered_yet": 3, "checkpoints": 3, "payloads_removed_by_order": 0,
        "signatures_checked": 3,
        "anchored_up_to": 3, "findings": [],
    }  # fmt: skip
    verifier = PostgresVerifier(bench.pool, timeout_seconds=10.0, anchors=list(read_all(bench.anchors)))
    first = await verifier.verify(full=False)  # nothing was verified before: all is
    assert (first.rows, first.chains, first.unsealed, first.checkpoint, list(first.findings)) == (57, 3, 3, 3, [])
    again = await verifier.verify(full=False)
    assert (again.rows, again.chains, list(again.findings)) == (3, 1, [])


async def test_an_incremental_verification_goes_on_where_the_last_good_one_ended(
    bench: TrailBench, database: str
) -> None:
    await bench.sealed_story(1)
    verifier = PostgresVerifier(bench.pool, timeout_seconds=10.0)
    assert (await verifier.verify(full=False)).rows == 18
    await bench.jobs()
    as_superuser(database, "UPDATE audit_log SET job_id = 'slurm-99' WHERE seq = 8 AND node = 'n2'")
    for _ in range(2):  # and again, until somebody acts
        checked = await verifier.verify(full=False)
        assert (checked.rows, [(one.code, one.seq) for one in checked.findings]) == (9, [("columns_changed", 8)])


async def test_evidence_of_a_job_proves_its_rows_and_tells_nothing_of_others(
    bench: TrailBench, database: str, tmp_path: Path
) -> None:
    await bench.sealed_story()
    path = tmp_path / "evidence.jsonl"
    lines = [line async for line in PostgresExport(bench.pool, timeout_seconds=10.0).evidence("slurm-9", None)]
    path.write_bytes(b"".join(map(encoded, lines)))
    found = verify_offline(path, anchors=bench.anchors, key=Path(f"{bench.key}.pub"))
    assert (found["findings"], found["rows_not_covered_yet"], found["anchored_up_to"]) == ([], 0, 2)
    shown = [line for line in lines if line.get("payload")]
    assert {line["job_id"] for line in shown} == {"slurm-9"}
    assert len(shown) == 3
    forged = [line | {"kind": "job_found"} if line in shown[:1] else line for line in lines]
    path.write_bytes(b"".join(map(encoded, forged)))
    assert [one["code"] for one in verify_offline(path)["findings"]] == ["row_changed"]
    checked = await PostgresVerifier(bench.pool, timeout_seconds=10.0).verify_job("slurm-9", None)
    assert (checked.rows, list(checked.findings)) == (6, [])
    as_superuser(database, "UPDATE audit_payload p SET payload = 'x' FROM audit_log l WHERE l.chain_id = p.chain_id"
                 " AND l.seq = p.seq AND l.job_id = 'slurm-9' AND l.kind = 'job_finished'")  # fmt: skip
    checked = await PostgresVerifier(bench.pool, timeout_seconds=10.0).verify_job("slurm-9", None)
    assert [one.code for one in checked.findings] == ["payload_changed"]


async def test_rows_stored_before_the_store_hashed_are_verified_by_what_they_copy(
    bench: TrailBench, database: str
) -> None:
    await bench.jobs(2)
    old = "UPDATE audit_log SET store_hash = NULL, snapshot_commitment = NULL"
    heads = "UPDATE audit_chain SET store_hash = decode(repeat('00', 32), 'hex')"
    as_superuser(database, old, heads)
    await bench.jobs()
    await bench.seal()
    verifier = PostgresVerifier(bench.pool, timeout_seconds=10.0)
    assert list((await verifier.verify(full=True)).findings) == []
    as_superuser(database, "UPDATE audit_log SET source = 'forged' WHERE seq = 2 AND node = 'n1'")
    (finding,) = (await verifier.verify(full=True)).findings
    assert (finding.code, finding.seq) == ("columns_changed", 2)


async def test_the_export_is_lines_of_json(bench: TrailBench, database: str, tmp_path: Path) -> None:
    await bench.sealed_story(1)
    lines = [json.loads(line) for line in (await export(database, tmp_path / "e")).read_text().splitlines()]
    assert lines[0] == {"jobtrail_export": 1, "scope": "trail"}
    assert [line["type"] for line in lines[1:]] == ["checkpoint", *(["chain", *["row"] * 6] * len(NODES))]
    assert all(uuid.UUID(line["chain_id"]) for line in lines if line.get("type") == "row")


async def test_two_sealers_at_once_make_one_chain_of_checkpoints(bench: TrailBench, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = TrailBench(bench.pool, tmp_path / "other", signed=False, anchored=False)
    other.clock = bench.clock
    for _ in range(6):
        await bench.jobs()
        await asyncio.gather(bench.sealer.turn(), other.sealer.turn())
        bench.clock.advance(60.0)
    numbers = await fetch(bench.pool, "SELECT number, total_rows FROM audit_checkpoint ORDER BY number")
    assert [row["number"] for row in numbers] == list(range(1, len(numbers) + 1))
    assert numbers[-1]["total_rows"] == 54
    checked = await PostgresVerifier(bench.pool, timeout_seconds=10.0).verify(full=True)
    assert (list(checked.findings), checked.unsealed) == ([], 0)


async def test_when_everything_was_verified_last_is_on_record_whatever_was_found(bench: TrailBench) -> None:
    await bench.jobs()
    verifier = PostgresVerifier(bench.pool, timeout_seconds=10.0)
    assert await verifier.since_full() is None
    await verifier.verify(full=False)
    await PostgresVerifier(bench.pool, timeout_seconds=10.0, record=False).verify(full=True)
    assert await verifier.since_full() is None
    await verifier.verify(full=True)
    since = await verifier.since_full()
    assert since is not None
    assert 0 <= since < 60
    await bench.pool.execute("UPDATE audit_verification SET verified_at = now() - interval '8 days', findings = 1")
    since = await verifier.since_full()
    assert since is not None
    assert abs(since - 8 * 86_400) < 60

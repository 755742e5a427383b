"""T-46, by those who know the code: signatures stripped, removals forged, rows offered so that checks misread them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from jobtrail.adapters.anchor_file import read_all
from jobtrail.adapters.postgres import PostgresSink, PostgresVerifier
from jobtrail.adapters.signing import FileSigner, PublicKeys, generate
from jobtrail.domain.audit import ChainedEvent
from tests.chains import SECOND, T0, ChainWriter
from tests.faults.figures import Figures
from tests.sealed_trail import SCRIPT, TrailBench, as_superuser, export, places, verify_offline

pytestmark = [pytest.mark.fault("T-46")]
FORGED = ("ab" * 32, "cd" * 32)


@pytest.fixture
def bench(pool: Any, tmp_path: Path) -> TrailBench:
    return TrailBench(pool, tmp_path)


async def found(bench: TrailBench, url: str, *, keys: bool = True, anchors: bool = True) -> set[tuple[Any, ...]]:
    """What script and daemon find alike."""
    key = Path(f"{bench.key}.pub")
    exported = await export(url, bench.directory / "export.jsonl")
    offline = verify_offline(exported, anchors=bench.anchors if anchors else None, key=key if keys else None)
    checked = await PostgresVerifier(
        bench.pool,
        timeout_seconds=10.0,
        keys=PublicKeys.load([key]) if keys else None,
        anchors=list(read_all(bench.anchors)) if anchors else [],
        record=False,
    ).verify(full=True)
    assert places(checked.findings) == places(offline["findings"])
    return places(checked.findings)


async def test_who_has_the_key_and_no_anchor_is_told_that_nothing_is_signed(bench: TrailBench, database: str) -> None:
    """Or a trail that was made anew as a whole, and left unsigned, would look right."""
    await bench.sealed_story(2)
    as_superuser(database, "UPDATE audit_checkpoint SET signature = NULL, key_id = NULL")
    assert await found(bench, database, anchors=False) == {("signature_missing", None, None, 2)}
    job = await PostgresVerifier(
        bench.pool, timeout_seconds=10.0, keys=PublicKeys.load([Path(f"{bench.key}.pub")]), record=False
    ).verify_job("slurm-1", None)
    assert [one.code for one in job.findings] == ["signature_missing"]


async def test_a_signature_that_is_missing_behind_what_was_verified_shows(bench: TrailBench, database: str) -> None:
    await bench.sealed_story(2)
    verifier = PostgresVerifier(
        bench.pool, timeout_seconds=10.0, keys=PublicKeys.load([Path(f"{bench.key}.pub")]), record=True
    )
    assert (await verifier.verify(full=False)).findings == []
    await bench.sealed_story(1)
    as_superuser(database, "UPDATE audit_checkpoint SET signature = NULL, key_id = NULL WHERE number = 3")
    assert places((await verifier.verify(full=False)).findings) == {("signature_missing", None, None, 3)}


async def test_checkpoints_of_two_keys_verify_with_both(bench: TrailBench, database: str) -> None:
    """After a change of the key, or where each server has its own; the old one alone does not do."""
    await bench.sealed_story(1)
    generate(bench.directory / "next.key")
    second = TrailBench(bench.pool, bench.directory)
    second._signer, second.writers, second._jobs = FileSigner.load(bench.directory / "next.key"), bench.writers, 50
    second.use(bench.pool)
    await second.sealed_story(1)
    assert await found(bench, database) == {("signature_wrong", None, None, 2)}
    pems = [Path(f"{bench.directory / name}.pub") for name in ("seal.key", "next.key")]
    both = bench.directory / "both.pem"
    both.write_text("".join(pem.read_text() for pem in pems))
    bench.key.with_suffix(".key.pub").write_text(both.read_text())
    assert await found(bench, database) == set()


def forged_prune(chain: str, upto: int) -> tuple[str, Any]:
    removal = {"basis": "retention", "actor": "officer", "ranges": [[chain, 1, upto, *FORGED]]}
    return "SELECT jobtrail_note('trail_pruned', %s::jsonb)", (json.dumps({"removal": removal}),)


def rows_gone(chain: str) -> list[str]:
    return [f"DELETE FROM {table} WHERE chain_id = '{chain}'" for table in ("audit_payload", "audit_log", "audit_seal")]


@pytest.mark.parametrize("beyond", [0, 3])
async def test_a_forged_removal_does_not_hide_a_chain_that_was_made_anew(
    bench: TrailBench, database: str, beyond: int, figures: Figures
) -> None:
    """It says the chain begins behind what is sealed, with hashes as the forger likes; what follows links to them."""
    await bench.sealed_story(2)
    writer = bench.writers["n1"]
    upto = writer.head.seq + beyond
    as_superuser(
        database,
        forged_prune(writer.chain_id, upto),
        *rows_gone(writer.chain_id),
        ("UPDATE audit_chain SET head_seq = %s, head_hash = %s, store_hash = %s WHERE chain_id = %s",
         (upto, *map(bytes.fromhex, FORGED), writer.chain_id)),
    )  # fmt: skip
    assert await found(bench, database) == {("leaf_differs", writer.chain_id, upto, None)}
    figures.set(detected=1)


async def test_a_forged_removal_does_not_hide_that_a_chain_is_gone(
    bench: TrailBench, database: str, figures: Figures
) -> None:
    await bench.sealed_story(2)
    chain, head = bench.writers["n1"].chain_id, bench.writers["n1"].head.seq
    as_superuser(
        database, forged_prune(chain, head), *rows_gone(chain), f"DELETE FROM audit_chain WHERE chain_id = '{chain}'"
    )
    assert ("chain_missing", chain, None, None) in await found(bench, database)
    exported = bench.directory / "export.jsonl"  # and where the forger edits the export as well
    lines = [line for line in exported.read_text().splitlines() if f'"chain","chain_id":"{chain}"' not in line]
    exported.write_text("\n".join(lines))
    assert ("chain_missing", chain, head + 1, None) in places(verify_offline(exported)["findings"])
    figures.set(detected=1)


async def test_what_prometheus_keeps_of_the_newest_checkpoint_covers_those_before(
    bench: TrailBench, database: str, figures: Figures
) -> None:
    """Its root would not: that is of the chains which moved last. Older figures are gone after some weeks."""
    await bench.sealed_story(3)
    newest = list(read_all(bench.anchors))[-1].checkpoint
    changes: list[str | tuple[str, Any]] = []
    before = bytes(32)
    for one in read_all(bench.anchors):
        held = one.checkpoint
        time_us = held.time_us + (1 if held.number == 1 else 0)
        again = replace(held, previous=before, time_us=time_us)
        before = again.digest()
        changes.append(
            ("UPDATE audit_checkpoint SET previous = %s, digest = %s, sealed_at = sealed_at + %s * interval"
             " '1 microsecond' WHERE number = %s",
             (again.previous, before, time_us - held.time_us, held.number))
        )  # fmt: skip
    as_superuser(database, *reversed(changes))
    exported = await export(database, bench.directory / "export.jsonl")
    for digits, expected in (
        (newest.root.hex()[:16], set()),
        (newest.digest().hex()[:16], {("anchor_differs", None, None, 3)}),
    ):
        bench.anchors.write_text(f"3\t{digits}\n")
        assert places(verify_offline(exported, anchors=bench.anchors)["findings"]) == expected
    figures.set(detected=1)


async def test_a_chain_that_an_export_holds_twice_is_refused(bench: TrailBench, database: str) -> None:
    """The second time nothing would be left of what checkpoints say of it."""
    await bench.sealed_story(1)
    exported = await export(database, bench.directory / "export.jsonl")
    assert verify_offline(exported)["findings"] == []
    lines = exported.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if '"type":"chain"' in line)
    again = lines[first : first + 1 + 6]
    exported.write_text("\n".join([*lines, *again]))
    done = run_script(exported)
    assert done.returncode == 2
    assert "is there twice" in done.stderr


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


async def test_a_line_of_anchors_that_a_power_cut_tore_costs_itself_alone(bench: TrailBench, database: str) -> None:
    await bench.sealed_story(3)
    exported = await export(database, bench.directory / "export.jsonl")
    lines = bench.anchors.read_bytes().splitlines(keepends=True)
    bench.anchors.write_bytes(lines[0] + lines[1][:50] + b"\n" + lines[2])
    done = run_script(exported, "--anchors", bench.anchors, "--json")
    assert (done.returncode, json.loads(done.stdout)["anchored_up_to"]) == (0, 3), done.stderr
    assert "no checkpoint" in done.stderr


async def test_a_file_without_any_anchor_is_no_anchor(bench: TrailBench, database: str) -> None:
    """Whoever names the wrong file is not told that all is well."""
    await bench.sealed_story(1)
    exported = await export(database, bench.directory / "export.jsonl")
    bench.anchors.write_text("")
    assert run_script(exported, "--anchors", bench.anchors).returncode == 2
    command = [sys.executable, "-m", "jobtrail", "audit", "verify", "--full", "--anchors", str(bench.anchors)]
    environment = {"DATABASE_URL": database, "PATH": "/usr/bin:/bin", "PYTHONPATH": "daemon", "HOME": "/nonexistent"}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, "holds no checkpoint" in done.stderr) == (2, True), done.stderr


INGEST = (
    "SELECT * FROM jobtrail_ingest(%(chain)s, %(node)s, %(seqs)s::bigint[], %(events)s::uuid[], %(kinds)s::text[],"
    " %(times)s::bigint[], %(times)s::bigint[], %(payloads)s::bytea[], %(salts)s::bytea[], %(previous)s::bytea[],"
    " %(commitments)s::bytea[], %(hashes)s::bytea[], %(none)s::text[], %(none)s::text[], %(none)s::text[],"
    " %(none)s::text[], %(none)s::text[], %(none)s::integer[], %(nodes)s::text[], %(none)s::uuid[], %(none)s::text[],"
    " %(none)s::uuid[], %(none)s::jsonb[], %(none)s::text[], %(none)s::text[])"
)


def offer(url: str, writer: ChainWriter, **instead: Any) -> Any:
    """Call the function as a daemon's login could, with other arguments than a daemon's."""
    rows: list[ChainedEvent] = writer.rows
    arguments: dict[str, Any] = {
        "chain": writer.chain_id, "node": writer.node, "seqs": [row.seq for row in rows],
        "events": [row.event_id for row in rows], "kinds": [row.kind for row in rows],
        "times": [row.time_us for row in rows], "payloads": [row.payload for row in rows],
        "salts": [row.salt for row in rows], "previous": [row.prev_hash for row in rows],
        "commitments": [row.commitment for row in rows], "hashes": [row.row_hash for row in rows],
        "none": [None for _ in rows], "nodes": [writer.node for _ in rows],
    }  # fmt: skip
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE jobtrail_ingest")
        return connection.execute(INGEST, arguments | instead).fetchone()


def counted_from_0(hashes: list[bytes]) -> str:
    return "[0:1]={" + ",".join(f'"\\\\x{one.hex()}"' for one in hashes) + "}"


CUNNING: dict[str, Callable[[list[bytes]], dict[str, Any]]] = {
    "numbers counted from 2": lambda _: {"seqs": "[2:3]={1,2}"},
    "numbers in two dimensions": lambda _: {"seqs": "{{1,2}}"},
    "hashes counted from 0": lambda hashes: {"hashes": counted_from_0(hashes)},
    "in the name of the store": lambda _: {"nodes": ["@store", "@store"]},
}


@pytest.mark.parametrize("trick", sorted(CUNNING))
def test_a_daemons_login_cannot_leave_a_chain_that_does_not_verify(database: str, trick: str, figures: Figures) -> None:
    writer = ChainWriter("n1")
    writer.raw(b'{"removal": {"ranges": []}}', kind="payload_erased")
    writer.raw(b"{}")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        offer(database, writer, **CUNNING[trick]([row.row_hash for row in writer.rows]))
    assert offer(database, writer)[2] == 2
    figures.set(refused=1)


def test_a_kind_that_its_hash_cannot_hold_is_refused(database: str) -> None:
    writer = ChainWriter("n1")
    writer.raw(b"{}")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="65535"):
        offer(database, writer, kinds=["k" * 65_536])


async def test_a_time_that_no_float_can_hold_is_kept_to_the_microsecond(bench: TrailBench, database: str) -> None:
    """A node whose clock stands in the year 2300 is no forger."""
    writer = ChainWriter("n1")
    for beyond in (1, 3, 2**40 + 1):
        writer.raw(b"{}", at=2**53 + beyond - T0)
    await PostgresSink(bench.pool).store(writer.rows, node="n1")
    await bench.seal()
    assert await found(bench, database) == set()


async def test_what_is_pruned_while_the_trail_is_read_is_no_finding(bench: TrailBench, database: str) -> None:
    """A table that is dropped is gone at once for everybody, also for whoever reads the trail as it was before."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE audit_payload_202510 PARTITION OF audit_payload"
            " FOR VALUES FROM ('2025-10-01 00:00:00+00') TO ('2025-11-01 00:00:00+00')"
        )
        connection.execute("ALTER TABLE audit_payload_202510 OWNER TO jobtrail_owner")  # as jobtrail_keep_partitions
    await bench.sealed_story(2)
    for writer in bench.writers.values():
        writer.started("slurm-late", at=40 * 86_400 * SECOND)  # the last row of a chain stays, with its payload
        await PostgresSink(bench.pool).store(writer.rows[-1:], node=writer.node)
    await bench.seal()
    anchor = list(read_all(bench.anchors))[-1].checkpoint
    pruned: list[Any] = []

    def prune(rows: int, checkpoints: int) -> None:
        if pruned:
            return
        with psycopg.connect(database) as connection:
            order = "SELECT * FROM jobtrail_prune('2025-11-02 00:00:00+00', 'age', 'officer', %s, %s, true)"
            pruned.append(connection.execute(order, (anchor.number, anchor.digest())).fetchone())

    verifier = PostgresVerifier(bench.pool, timeout_seconds=10.0, record=False, progress=prune)
    checked = await verifier.verify(full=True)
    assert (checked.findings, pruned[0][1]) == ([], 36)
    assert (await PostgresVerifier(bench.pool, timeout_seconds=10.0, record=False).verify(full=True)).findings == []


def test_nobody_creates_what_the_owners_functions_would_call(database: str) -> None:
    """As before PostgreSQL 15, and in databases that come from there."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        connection.execute("SELECT jobtrail_apply_grants()")
        connection.execute("SET ROLE jobtrail_ingest")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'")

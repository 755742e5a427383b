"""T-46: whoever owns the database changes the trail. The script finds it from anchors alone, and says where."""

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from jobtrail.adapters.anchor_file import read_all
from jobtrail.adapters.postgres import PostgresVerifier, close_pool, open_pool
from jobtrail.adapters.signing import FileSigner, PublicKeys, generate
from jobtrail.domain.audit import commit, hash_row
from jobtrail.domain.checkpoints import Checkpoint, Leaf, merkle_root, sort_leaves
from tests.faults.figures import Figures
from tests.postgres import TEMPLATE, PostgresServer
from tests.sealed_trail import TrailBench, as_superuser, export, places, verify_offline

pytestmark = [pytest.mark.fault("T-46")]
Place = tuple[Any, ...]


class Story:
    """A sealed trail to copy: three checkpoints, and a copy of how it was after the first."""

    def __init__(self, server: PostgresServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.whole = server.create_database(TEMPLATE)
        self.backup = ""
        self.chains: dict[str, str] = {}

    @property
    def anchors(self) -> Path:
        return self.directory / "anchors.jsonl"

    @property
    def key(self) -> Path:
        return self.directory / "seal.key.pub"

    async def tell(self) -> None:
        pool = await open_pool(self.server.url(self.whole), size=2, timeout_seconds=10.0)
        bench = TrailBench(pool, self.directory)
        await bench.sealed_story(1)
        await close_pool(pool, timeout_seconds=5.0)
        self.backup = self.server.create_database(self.whole)
        pool = await open_pool(self.server.url(self.whole), size=2, timeout_seconds=10.0)
        bench.use(pool)
        await bench.sealed_story(2)
        await close_pool(pool, timeout_seconds=5.0)
        self.chains = {node: writer.chain_id for node, writer in bench.writers.items()}


@pytest.fixture(scope="module")
def story(postgres_server: PostgresServer) -> Iterator[Story]:
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-t46-"))
    told = Story(postgres_server, directory)
    asyncio.run(told.tell())
    yield told
    for name in (told.whole, told.backup):
        postgres_server.drop_database(name)
    shutil.rmtree(directory)


@pytest.fixture
def copy(story: Story) -> Iterator[str]:
    """The URL of a copy of the story's database."""
    name = story.server.create_database(story.whole)
    yield story.server.url(name)
    story.server.drop_database(name)


async def find(story: Story, url: str, *, keys: bool = True) -> set[Place]:
    """What the script finds with anchors; the daemon finds the same."""
    exported = await export(url, story.directory / f"{uuid.uuid4()}.jsonl")
    found = places(verify_offline(exported, anchors=story.anchors, key=story.key if keys else None)["findings"])
    exported.unlink()
    pool = await open_pool(url, size=1, timeout_seconds=10.0)
    verifier = PostgresVerifier(
        pool,
        timeout_seconds=10.0,
        keys=PublicKeys.load([story.key]) if keys else None,
        anchors=list(read_all(story.anchors)),
        record=False,
    )
    checked = await verifier.verify(full=True)
    await close_pool(pool, timeout_seconds=5.0)
    of_daemon = {place for place in places(checked.findings) if place not in found}
    assert bool(checked.findings) == bool(found), (checked.findings, found)
    assert all(place[0] in {"payload_changed", "tail_missing"} for place in of_daemon), (of_daemon, found)
    return found


async def test_the_trail_as_it_was_stored_is_right(story: Story, copy: str, figures: Figures) -> None:
    assert await find(story, copy) == set()
    figures.set(checkpoints=sum(1 for _ in read_all(story.anchors)))


OTHER = {
    "uuid": "gen_random_uuid()",
    "int8": "{} + 1000000",
    "int4": "coalesce({}, 0) + 1",
    "text": "'forged'",
    "bytea": "sha256('forged')",
    "timestamptz": "{} + interval '1 microsecond'",
    "jsonb": "'{{\"forged\": true}}'",
}
# Bookkeeping that says nothing about what happened.
UNSEALED_COLUMNS = {("audit_chain", "updated_at"), ("audit_chain", "pruned_seq"), ("audit_chain", "node")}
KEYS = {"audit_log": "seq = 4", "audit_payload": "seq = 4", "audit_chain": "true"}


def columns(url: str, table: str) -> list[tuple[str, str]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT column_name, udt_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position",
            (table,),
        ).fetchall()


TABLES = ("audit_log", "audit_payload", "audit_chain", "audit_checkpoint", "audit_checkpoint_leaf")


@pytest.mark.parametrize("table", TABLES)
async def test_every_column_that_is_edited_shows_and_where(story: Story, table: str, figures: Figures) -> None:
    detected = 0
    for column, kind in columns(story.server.url(story.whole), table):
        if (table, column) in UNSEALED_COLUMNS:
            continue
        name = story.server.create_database(story.whole)
        url = story.server.url(name)
        chain = story.chains["n2"]
        if table in ("audit_checkpoint", "audit_checkpoint_leaf"):
            where = f"number = 2{' AND position = 1' if table.endswith('leaf') else ''}"
        else:
            where = f"chain_id = '{chain}' AND {KEYS[table]}"
        changed = OTHER[kind].format(column)
        if column == "change_type":
            changed = "'delete'"
        as_superuser(
            url,
            "ALTER TABLE audit_checkpoint_leaf DROP CONSTRAINT audit_checkpoint_leaf_number_fkey",
            f"UPDATE {table} SET {column} = {changed} WHERE {where}",
        )
        found = await find(story, url)
        if table == "audit_log" and column != "chain_id":
            assert any(place[1] == chain and place[2] in (4, 5) for place in found), (column, found)
        elif table == "audit_payload":
            assert any(place[1:3] == (chain, 4) for place in found), (column, found)
        elif table in ("audit_chain", "audit_log"):
            assert any(place[1] == chain for place in found), (column, found)
        else:
            assert any(place[3] == 2 or place[1] is not None for place in found), (column, found)
        detected += 1
        story.server.drop_database(name)
    assert detected >= 4
    figures.set(columns=detected, detected=detected)


def rows_of(chain: str, condition: str) -> list[str]:
    return [
        f"DELETE FROM {table} WHERE chain_id = '{chain}' AND {condition}" for table in ("audit_payload", "audit_log")
    ]


def follow_head(chain: str) -> str:
    """Let audit_chain say what is there, as somebody who cuts off a tail would."""
    return (
        "UPDATE audit_chain c SET head_seq = l.seq, head_hash = l.row_hash, store_hash = l.store_hash"
        f" FROM (SELECT * FROM audit_log WHERE chain_id = '{chain}' ORDER BY seq DESC LIMIT 1) l"
        " WHERE c.chain_id = l.chain_id"
    )


def statements(case: str, chain: str) -> list[str]:
    """What is done to the trail."""
    gone = [f"DELETE FROM {table} WHERE chain_id = '{chain}'" for table in
            ("audit_payload", "audit_log", "audit_chain", "audit_seal")]  # fmt: skip
    seals = ["DELETE FROM audit_checkpoint_leaf WHERE number = 3", "DELETE FROM audit_checkpoint WHERE number = 3",
             "DELETE FROM audit_seal"]  # fmt: skip
    swap = [f"UPDATE audit_log SET seq = {new} WHERE chain_id = '{chain}' AND seq = {old}"
            for old, new in ((6, -1), (7, 6), (-1, 7))]  # fmt: skip
    insert = (
        "INSERT INTO audit_log (chain_id, seq, event_id, kind, prev_hash, commitment, row_hash, changed_at,"
        " received_at)"
        f" SELECT chain_id, 7, gen_random_uuid(), kind, sha256('a'), commitment, sha256('b'), changed_at, received_at"
        f" FROM audit_log WHERE chain_id = '{chain}' AND seq = 6"
    )
    shift = [f"UPDATE audit_log SET seq = -seq - 1 WHERE chain_id = '{chain}' AND seq >= 7",
             f"UPDATE audit_log SET seq = -seq WHERE chain_id = '{chain}' AND seq < 0"]  # fmt: skip
    return {
        "first row": rows_of(chain, "seq = 1"),
        "middle row": rows_of(chain, "seq = 9"),
        "last row": [*rows_of(chain, "seq = 18"), follow_head(chain)],
        "whole chain": gone,
        "whole chain and its leaves": [*gone, f"DELETE FROM audit_checkpoint_leaf WHERE chain_id = '{chain}'"],
        "rows swapped": swap,
        "row inserted": [*shift, insert],
        "tail truncated with its checkpoint": [
            *rows_of(chain, "seq > 12"), follow_head(chain), *seals,
        ],
        "payloads of a partition": ["DROP TABLE audit_payload_default"],
        "all checkpoints": [
            f"DELETE FROM {table}" for table in ("audit_checkpoint_leaf", "audit_checkpoint", "audit_seal")
        ],
        "everything": [f"TRUNCATE {', '.join((*TABLES, 'audit_seal'))}"],
        "signature stripped": ["UPDATE audit_checkpoint SET signature = NULL, key_id = NULL WHERE number = 2"],
        "a byte moved from salt to payload": [
            "UPDATE audit_payload SET salt = substr(salt, 1, 31), payload = substr(salt, 32) || payload"
            f" WHERE chain_id = '{chain}' AND seq = 9"
        ],
    }[case]  # fmt: skip


EXPECTED: dict[str, tuple[str, Any, Any]] = {  # code, row or checkpoint
    "first row": ("row_missing", 1, None),
    "middle row": ("row_missing", 9, None),
    "last row": ("tail_missing", 18, None),
    "whole chain": ("tail_missing", 6, None),
    "whole chain and its leaves": ("root_differs", None, 1),
    "rows swapped": ("link_broken", 6, None),
    "row inserted": ("row_changed", 7, None),
    "tail truncated with its checkpoint": ("anchor_missing", None, 3),
    "payloads of a partition": ("payload_missing", 1, None),
    "all checkpoints": ("anchor_missing", None, 1),
    "everything": ("anchor_missing", None, 1),
    "signature stripped": ("signature_missing", None, 2),
    "a byte moved from salt to payload": ("payload_changed", 9, None),
}


@pytest.mark.parametrize("case", sorted(EXPECTED))
async def test_what_is_deleted_swapped_or_inserted_shows_and_where(
    story: Story, copy: str, case: str, figures: Figures
) -> None:
    chain = story.chains["n1"]
    as_superuser(copy, *statements(case, chain))
    code, seq, checkpoint = EXPECTED[case]
    found = await find(story, copy)
    assert (code, chain if seq is not None else None, seq, checkpoint) in found, found
    figures.set(detected=1)


async def test_an_old_backup_in_the_place_of_the_database_shows(story: Story, figures: Figures) -> None:
    url = story.server.url(story.backup)
    assert await find(story, url) == {("anchor_missing", None, None, 2), ("anchor_missing", None, None, 3)}
    figures.set(detected=1)


async def test_checkpoints_signed_with_another_key_show(story: Story, copy: str, figures: Figures) -> None:
    generate(story.directory / "other.key")
    other = FileSigner.load(story.directory / "other.key")
    with psycopg.connect(copy) as connection:
        held = checkpoints_of(connection)
    as_superuser(
        copy,
        *(
            ("UPDATE audit_checkpoint SET signature = %s, key_id = %s WHERE number = %s",
             (other.sign(one.encoded()), other.key_id, one.number))
            for one in held
        ),
    )  # fmt: skip
    assert await find(story, copy) == {("signature_wrong", None, None, number) for number in (1, 2, 3)}
    figures.set(detected=1)


def checkpoints_of(connection: Any) -> list[Checkpoint]:
    rows = connection.execute(
        "SELECT number, previous, root, leaf_count, total_rows, (extract(epoch FROM sealed_at) * 1000000)::bigint"
        " FROM audit_checkpoint ORDER BY number"
    ).fetchall()
    names = ("number", "previous", "root", "leaf_count", "total_rows", "time_us")
    return [Checkpoint(**dict(zip(names, row, strict=True))) for row in rows]


async def test_a_trail_rewritten_as_a_whole_contradicts_its_anchors(story: Story, copy: str, figures: Figures) -> None:
    """Every hash anew, from the payload to the last checkpoint: only what is kept elsewhere tells."""
    chain = story.chains["n3"]
    with psycopg.connect(copy, autocommit=True) as connection:
        rewrite(connection, copy, chain)
    pool = await open_pool(copy, size=1, timeout_seconds=10.0)
    alone = await PostgresVerifier(pool, timeout_seconds=10.0, record=False).verify(full=True)
    await close_pool(pool, timeout_seconds=5.0)
    assert places(alone.findings) == set()  # nothing within the database contradicts anything
    found = await find(story, copy, keys=False)
    assert found == {("anchor_differs", None, None, number) for number in (1, 2, 3)}
    figures.set(detected=1)


def rewrite(connection: Any, url: str, chain: str) -> None:
    """Change what the second row of a chain says, and make all hashes follow; without those of the store."""
    rows = connection.execute(
        "SELECT l.seq, l.event_id::text, l.kind, (extract(epoch FROM l.changed_at) * 1000000)::bigint, p.payload,"
        " p.salt FROM audit_log l JOIN audit_payload p USING (chain_id, seq) WHERE l.chain_id = %s ORDER BY l.seq",
        (chain,),
    ).fetchall()
    previous = bytes(32)
    changes: list[str | tuple[str, Any]] = [
        ("UPDATE audit_log SET prev_hash = sha256(prev_hash) WHERE chain_id = %s", (chain,))
    ]
    for seq, event_id, kind, time_us, held, salt in rows:
        payload = held.replace(b'"exit_code":', b'"exit_code":1') if seq == 2 else held
        commitment = commit(salt, payload)
        row_hash = hash_row(chain, seq, previous, time_us, kind, event_id, commitment)
        changes.append(
            ("UPDATE audit_payload SET payload = %s WHERE chain_id = %s AND seq = %s", (payload, chain, seq))
        )
        changes.append(
            (
                "UPDATE audit_log SET commitment = %s, row_hash = %s, prev_hash = %s, store_hash = NULL,"
                " snapshot_commitment = NULL WHERE chain_id = %s AND seq = %s",
                (commitment, row_hash, previous, chain, seq),
            )
        )
        previous = row_hash
    changes.append(("UPDATE audit_chain SET head_hash = %s, store_hash = decode(repeat('00', 32), 'hex')"
                    " WHERE chain_id = %s", (previous, chain)))  # fmt: skip
    as_superuser(url, *changes)
    reseal(connection, url, chain)


def reseal(connection: Any, url: str, chain: str) -> None:
    changes: list[str | tuple[str, Any]] = []
    before = bytes(32)
    for old in checkpoints_of(connection):
        leaves = [
            Leaf(chain_id=one, head_seq=seq, head_hash=head, store_hash=store or bytes(32))
            for one, seq, head, store in connection.execute(
                "SELECT f.chain_id::text, f.head_seq, l.row_hash, l.store_hash FROM audit_checkpoint_leaf f"
                " JOIN audit_log l ON l.chain_id = f.chain_id AND l.seq = f.head_seq WHERE f.number = %s",
                (old.number,),
            )
        ]
        new = msgspec.structs.replace(old, previous=before, root=merkle_root(sort_leaves(leaves)))
        before = new.digest()
        anew = "UPDATE audit_checkpoint SET previous = %s, root = %s, digest = %s, signature = NULL, key_id = NULL"
        changes.append((f"{anew} WHERE number = %s", (new.previous, new.root, before, new.number)))
        for leaf in leaves:
            anew = "UPDATE audit_checkpoint_leaf SET head_hash = %s, store_hash = %s"
            values = (leaf.head_hash, leaf.store_hash, leaf.chain_id, leaf.head_seq)
            changes.append((f"{anew} WHERE chain_id = %s AND head_seq = %s", values))
    as_superuser(url, *changes)

"""T-46, chains that begin anew: what a node's first row says it follows is held against what the store holds."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.anchor_file import read_all
from jobtrail.adapters.postgres import PostgresSink, PostgresVerifier
from jobtrail.adapters.signing import PublicKeys
from jobtrail.domain.chain_beginnings import NEW, OF_IMPORT, Predecessor
from jobtrail.domain.events import Actor, EventKind
from tests.adapters.spools import add, event, opened, rows_after
from tests.chains import SECOND, ChainWriter
from tests.faults.figures import Figures
from tests.sealed_trail import TrailBench, as_superuser, export, places, verify_offline

pytestmark = [pytest.mark.fault("T-46")]


@pytest.fixture
def bench(pool: Any, tmp_path: Path) -> TrailBench:
    return TrailBench(pool, tmp_path)


async def found(bench: TrailBench, url: str, *accepted: str) -> set[tuple[str, str]]:
    """Codes and chains that script and daemon find alike, in all and in what is new."""
    exported = await export(url, bench.directory / "export.jsonl")
    key = Path(f"{bench.key}.pub")
    offline = places(verify_offline(exported, anchors=bench.anchors, key=key, accepted=accepted)["findings"])
    for full in (True, False):
        checked = await PostgresVerifier(
            bench.pool,
            timeout_seconds=10.0,
            keys=PublicKeys.load([key]),
            anchors=list(read_all(bench.anchors)),
            record=not full,
            accepted=accepted,
        ).verify(full=full)
        assert places(checked.findings) == offline
    assert all(seq == 1 for _code, _chain, seq, _checkpoint in offline)
    return {(code, chain) for code, chain, _seq, _checkpoint in offline}


async def another(bench: TrailBench, note: str, node: str = "n1") -> str:
    """One more chain of a node; its id."""
    writer = ChainWriter(node)
    writer.event(EventKind.CHAIN_STARTED, None, 60 * SECOND, Actor.COLLECTOR, note=note)
    await PostgresSink(bench.pool, timeout_seconds=10.0).store(writer.rows, node=node)
    return writer.chain_id


def naming(writer: ChainWriter, **changed: Any) -> str:
    named = Predecessor(chain_id=writer.chain_id, seq=writer.head.seq, row_hash=writer.head.row_hash, carried=0)
    named = msgspec.structs.replace(named, **changed)
    return f"the spool's file was damaged (x) and the file moved aside as y; {named} that are not known to be forwarded"


async def test_a_chain_that_does_not_say_what_it_follows_shows_until_it_is_accepted(
    bench: TrailBench, database: str, figures: Figures
) -> None:
    await bench.sealed_story(2)
    assert await found(bench, database) == set()
    chain = await another(bench, NEW)
    for _ in range(2):
        assert await found(bench, database) == {("chain_unexplained", chain)}
        await bench.seal()
    assert await found(bench, database, chain) == set()
    unknown = await another(bench, "the chain before this one: unknown; 0 of its events")
    assert await found(bench, database, chain) == {("chain_unexplained", unknown)}
    figures.set(detected=2)


async def test_no_line_but_a_row_says_how_a_chain_began(bench: TrailBench, database: str, figures: Figures) -> None:
    """The script looks for that before it knows what the lines are."""
    await bench.sealed_story(2)
    chain = await another(bench, NEW)
    exported = await export(database, bench.directory / "export.jsonl")
    lines = [json.loads(line) for line in exported.read_text().splitlines()]
    last = [line for line in lines if line.get("type") == "checkpoint"][-1]
    pretended = {"kind": "chain_started", "seq": 1, "chain_id": chain, "payload": OF_IMPORT.encode().hex()}
    lines.append(last | {"number": last["number"] + 1, "leaves": []} | pretended)
    exported.write_text("".join(json.dumps(line) + "\n" for line in lines))
    offline = places(verify_offline(exported, anchors=bench.anchors)["findings"])
    assert ("chain_unexplained", chain) in {(code, of) for code, of, *_ in offline}
    figures.set(detected=1)


@pytest.mark.parametrize("case", ["first of a node", "import", "named", "carried over", "renamed", "pruned behind"])
async def test_a_chain_that_says_what_it_follows_is_right(bench: TrailBench, database: str, case: str) -> None:
    await bench.sealed_story(2)
    before = bench.writers["n1"]
    match case:
        case "first of a node":
            await another(bench, NEW, "n9")
        case "import":
            await another(bench, OF_IMPORT, "n9")
            await another(bench, NEW, "n9")
            await another(bench, OF_IMPORT, "n9")
        case "named" | "renamed":
            await another(bench, naming(before), "n1" if case == "named" else "n9")
        case "carried over":
            await another(bench, naming(before, seq=before.head.seq + 3, row_hash=b"x" * 32, carried=3))
        case _:
            await another(bench, naming(before, seq=4, row_hash=before.rows[3].row_hash))
    assert await found(bench, database) == set()


@pytest.mark.parametrize("case", ["another hash", "a hole", "never held"])
async def test_a_chain_that_follows_what_is_not_held_shows(
    bench: TrailBench, database: str, case: str, figures: Figures
) -> None:
    await bench.sealed_story(2)
    before = bench.writers["n1"]
    changed: dict[str, dict[str, Any]] = {
        "another hash": {"row_hash": b"x" * 32},
        "a hole": {"seq": before.head.seq + 3, "carried": 2},
        "never held": {"chain_id": "9" * 8 + "-0000-4000-8000-" + "9" * 12},
    }
    chain = await another(bench, naming(before, **changed[case]))
    assert await found(bench, database) == {("chain_predecessor_differs", chain)}
    assert await found(bench, database, chain) == set()
    figures.set(detected=1)


async def test_an_end_that_was_cut_off_before_a_checkpoint_covered_it_shows_in_the_chain_that_follows(
    bench: TrailBench, database: str, figures: Figures
) -> None:
    """The one thing that no checkpoint can show: the node has sent it, and its chain is over."""
    await bench.sealed_story(2)
    writer = bench.writers["n1"]
    sealed = writer.head.seq
    await bench.jobs(1, ["n1"])
    chain = await another(bench, naming(writer))
    last = writer.rows[sealed - 1].row_hash
    as_superuser(
        database,
        *(f"DELETE FROM {table} WHERE chain_id = '{writer.chain_id}' AND seq > {sealed}"
          for table in ("audit_payload", "audit_log")),
        ("UPDATE audit_chain SET head_seq = %s, head_hash = %s, store_hash = (SELECT store_hash FROM audit_log"
         " WHERE chain_id = %s AND seq = %s) WHERE chain_id = %s",
         (sealed, last, writer.chain_id, sealed, writer.chain_id)),
    )  # fmt: skip
    assert await found(bench, database) == {("chain_predecessor_differs", chain)}
    figures.set(detected=1)


@pytest.mark.parametrize("damaged", [3, 8])
async def test_a_real_spool_that_is_damaged_explains_itself_and_one_that_is_gone_does_not(
    bench: TrailBench, database: str, tmp_path: Path, damaged: int, figures: Figures
) -> None:
    """Rows 1 to 4 are stored before. Where one of them is damaged nothing is lost; where row 8 is, that is."""
    await bench.sealed_story(1)
    place, chains = tmp_path / "spool", list[str]()

    async def life(count: int, forwarded: int | None = None) -> None:
        async with opened(place, node="n9") as spool:
            for number in range(count):
                await add(spool, event(job=number, at=len(chains), node="n9"))
            rows = (await rows_after(spool))[:forwarded]
            await PostgresSink(bench.pool, timeout_seconds=10.0).store(rows, node="n9")
            await spool.mark_forwarded(rows[-1].seq)
            chains.append(rows[0].chain_id)

    await life(9, forwarded=4)
    with closing(sqlite3.connect(place / "spool.db")) as connection:
        connection.execute("UPDATE events SET kind = 'job_paused' WHERE seq = ?", (damaged,))
        connection.commit()
    await life(2)
    lost = {("chain_predecessor_differs", chains[1])} if damaged == 8 else set()
    assert await found(bench, database) == lost
    shutil.rmtree(place)
    await life(1)
    assert len(set(chains)) == 3
    assert await found(bench, database) == lost | {("chain_unexplained", chains[2])}
    figures.set(detected=1 + len(lost))

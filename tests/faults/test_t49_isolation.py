"""T-49: PostgreSQL's own isolation tester takes two connections through every order of their steps on one chain.

Of the specs in `isolation/` the sessions and steps are read; the permutations are all orders in which nobody is asked
for a step while the one before still waits for a lock, as no client could be. The tester itself sees who waits.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from jobtrail.adapters.postgres import PostgresVerifier, close_pool, open_pool
from jobtrail.adapters.postgres.folding import Offered, Taken
from jobtrail.adapters.postgres.trail import _record
from tests.chains import SECOND, ChainWriter
from tests.faults.clusters import newest_program
from tests.faults.figures import Figures
from tests.faults.test_t49_races import interleavings
from tests.postgres import PostgresServer
from tests.requirements import unmet

pytestmark = pytest.mark.fault("T-49")
SPECS = Path(__file__).parent / "isolation"
TESTER = "lib/postgresql/pgxs/src/test/isolation/isolationtester"  # as PostgreSQL's extension makefiles install it
BASE, LAST = 2, 5  # rows that a permutation begins with, and has at its end
# At which steps a session takes the lock that the other one may hold; it holds it until its last step.
LOCKS = {
    "writers": ("a_lock", "b_lock"),
    "rollback": ("a_lock", "b_lock"),
    "replay": ("a_store", "b_store"),
    "sealers": ("s_keep", "t_keep"),
    "prune": ("a_lock", "p_prune"),
    "seal": (),
    "erase": (),
}
REMOVALS = ("erase", "prune")  # each leaves one row in the database's own chain, which these specs do not seal
WRONG = re.compile("ERROR|FATAL|deadlock|failed|timed out|invalid")


def sessions_of(spec: str) -> list[list[str]]:
    """The steps of each session."""
    return [
        re.findall(r"^step (\w+)", part, re.MULTILINE) for part in re.split(r"^session ", spec, flags=re.MULTILINE)[1:]
    ]


def orders_of(sessions: Sequence[Sequence[str]], locks: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every order of two sessions' steps that clients can ask for."""
    for which in interleavings(*map(len, sessions)):
        left = [list(steps) for steps in sessions]
        order, holder, waiting = [], None, None
        for session in which:
            if session == waiting:
                break
            step = left[session].pop(0)
            order.append(step)
            if step in locks:
                holder, waiting = (session, waiting) if holder is None else (holder, session)
            if not left[session] and session == holder:
                holder, waiting = waiting, None
        else:
            yield tuple(order)


def program_of(server: PostgresServer) -> Path:
    """The program, of the server's own version."""
    found = newest_program(server.data_dir).parents[1] / TESTER
    if not found.exists():
        unmet(f"{found} is not there: this PostgreSQL came without its isolation tester")
    return found


async def prepare(url: str, permutations: int) -> None:
    """Functions for the specs, and for each permutation rows of a chain, some of them in two versions."""
    connection = await asyncpg.connect(url)
    await connection.execute((SPECS / "schedule.sql").read_text())
    await connection.execute(f"INSERT INTO iso.turn VALUES (0, {BASE}, {LAST})")
    records: list[tuple[Any, ...]] = []
    for turn in range(1, permutations + 1):
        mine = ChainWriter(f"n{turn}")
        mine.begin()
        mine.started(f"slurm-{turn}", SECOND)
        other = ChainWriter(mine.node, chain_id=mine.chain_id)
        other.rows += mine.rows
        for variant, writer in (("mine", mine), ("other", other)):
            while len(writer.rows) < LAST:
                writer.started(f"slurm-{turn}{len(writer.rows)}", len(writer.rows) * SECOND)
            records += [
                (turn, variant, row.chain_id, mine.node, *_record(Taken(row=row, event=Offered.of(row).event)))
                for row in writer.rows
            ]
    await connection.copy_records_to_table("offered", schema_name="iso", records=records)
    await connection.close()


def run(program: Path, url: str, name: str, orders: Sequence[Sequence[str]]) -> str:
    """What the tester says of a spec in these orders."""
    spec = (SPECS / f"{name}.spec").read_text()
    spec += "".join(f"permutation {' '.join(order)}\n" for order in orders)
    done = subprocess.run([program, url], input=spec, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def orders_in(name: str) -> list[tuple[str, ...]]:
    """All orders of a spec."""
    return list(orders_of(sessions_of((SPECS / f"{name}.spec").read_text()), LOCKS[name]))


@pytest.mark.parametrize("name", sorted(LOCKS))
async def test_every_order_of_steps_leaves_a_trail_that_verifies(
    name: str, database: str, postgres_server: PostgresServer, figures: Figures
) -> None:
    orders = orders_in(name)
    await prepare(database, len(orders))
    said = run(program_of(postgres_server), database, name, orders)
    assert said.count("starting permutation") == len(orders), said
    assert not WRONG.search(said), said
    waits = said.count("<waiting ...>")
    assert (waits > 0) == bool(LOCKS[name]), said
    pool = await open_pool(database, size=2, timeout_seconds=30.0)
    try:
        checked = await PostgresVerifier(pool, timeout_seconds=30.0).verify(full=True)
    finally:
        await close_pool(pool, timeout_seconds=5.0)
    assert list(checked.findings) == [], said
    assert checked.unsealed == (len(orders) if name in REMOVALS else 0)
    figures.set(permutations=len(orders), waits=waits, checkpoints=checked.checkpoint)


async def test_without_the_lock_on_the_chain_the_tester_finds_it(
    database: str, postgres_server: PostgresServer, figures: Figures
) -> None:
    """Else it would prove nothing."""
    orders = orders_in("replay")
    await prepare(database, len(orders))
    with psycopg.connect(database, autocommit=True) as connection:
        found = connection.execute("SELECT pg_get_functiondef('jobtrail_ingest'::regproc)").fetchone()
        assert found is not None
        connection.execute(found[0].replace("FOR UPDATE", "").encode())
    said = run(program_of(postgres_server), database, "replay", orders)
    assert "duplicate key value violates unique constraint" in said
    figures.set(permutations=len(orders), detected=1)


def test_the_orders_are_all_that_clients_can_ask_for() -> None:
    """Without a lock all twenty; where the first step locks, the second session can begin at three places."""
    steps = [["a1", "a2", "a3"], ["b1", "b2", "b3"]]
    assert len(set(orders_of(steps, ()))) == 20
    locked = set(orders_of(steps, ("a1", "b1")))
    assert len(locked) == 6
    assert ("a1", "b1", "a2", "a3", "b2", "b3") in locked
    assert {name.stem for name in SPECS.glob("*.spec")} == set(LOCKS)

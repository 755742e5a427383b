"""T-48: a person is erased, old rows are pruned. The trail still verifies and says by whose order; nothing is left."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobtrail.adapters.anchor_file import read_all
from jobtrail.adapters.postgres import PostgresSink, PostgresVerifier, order, rebuild_check, session
from jobtrail.domain.errors import StoreRefused
from jobtrail.domain.events import EventKind
from tests.chains import SECOND, T0, ChainWriter
from tests.faults.figures import Figures
from tests.sealed_trail import TrailBench, export, places, verify_offline

pytestmark = [pytest.mark.fault("T-48")]
DAY = 86_400 * SECOND


@pytest.fixture
def bench(pool: Any, tmp_path: Path) -> TrailBench:
    return TrailBench(pool, tmp_path)


async def verified(bench: TrailBench, database: str) -> tuple[int, set[tuple[Any, ...]]]:
    """Payloads removed by order, and what is wrong, as the script finds it; the daemon agrees."""
    exported = await export(database, bench.directory / "export.jsonl")
    offline = verify_offline(exported, anchors=bench.anchors, key=Path(f"{bench.key}.pub"))
    checked = await PostgresVerifier(
        bench.pool, timeout_seconds=10.0, anchors=list(read_all(bench.anchors)), record=False
    ).verify(full=True)
    assert places(checked.findings) == places(offline["findings"])
    assert checked.removed == offline["payloads_removed_by_order"]
    return checked.removed, places(offline["findings"])


async def one(pool: Any, query: str, *values: Any) -> Any:
    async with session(pool, 10.0) as connection:
        return await connection.fetchval(query, *values)


def anywhere(url: str, text: str) -> list[str]:
    """Tables of the database in which a text stands, in whatever column; payloads decoded."""
    found = []
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(f"SELECT t.* FROM public.{table} t".encode()).fetchall()
            quoted = (f"'{text}'".encode(), f'"{text}"'.encode())  # not within an id
            if any(one in _bytes(value) for row in rows for value in row for one in quoted):
                found.append(table)
    return found


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else repr(value).encode()


async def test_an_erased_person_is_nowhere_and_the_trail_verifies(
    bench: TrailBench, database: str, figures: Figures
) -> None:
    await bench.sealed_story()  # all jobs are of one user
    assert anywhere(database, "ada")
    done = await order(bench.pool, "audit_erase", "ada", "request 2026-17", "privacy officer")
    assert (done["payloads"], done["runs"]) == (54, 18)
    assert anywhere(database, "ada") == []
    removed, wrong = await verified(bench, database)
    assert (removed, wrong) == (54, set())
    await bench.seal()  # the row that says so is sealed as any other
    assert (await verified(bench, database))[1] == set()
    names = await one(bench.pool, "SELECT array_agg(DISTINCT user_name) FROM jobs")
    assert len(names) == 1
    assert names[0].startswith("erased-")
    async with session(bench.pool, 10.0) as connection:
        report = await rebuild_check(connection)
    assert report.equal
    assert len(report.unverifiable) == 18
    kinds = await one(bench.pool, "SELECT array_agg(kind) FROM audit_log WHERE node = '@store'")
    assert kinds == ["payload_erased"]
    figures.set(payloads_erased=removed)


async def test_an_erased_person_is_not_among_those_turned_away_or_who_made_tokens(
    bench: TrailBench, database: str
) -> None:
    async with session(bench.pool, 10.0) as connection:
        await connection.execute(
            "INSERT INTO security_log (what, who, peer, detail, reporter, first_at, last_at, times)"
            " VALUES ('password', 'ada', '10.0.0.9', 'user \"ada\"', 'n1', now(), now(), 3)"
        )
        await connection.execute(
            "INSERT INTO node_tokens (digest, node, created_by, revoked_by, revoked_at)"
            " VALUES (sha256('a'), 'n1', 'ada', 'eve', now()), (sha256('b'), 'n1', 'eve', 'ada', now())"
        )
    await order(bench.pool, "audit_erase", "ada", "request", "privacy officer")
    assert anywhere(database, "ada") == []
    assert anywhere(database, "eve") == ["node_tokens"]
    assert await one(bench.pool, "SELECT peer FROM security_log") == "10.0.0.9"


async def test_what_people_said_is_recomputed_after_an_erasure_and_a_prune(bench: TrailBench, database: str) -> None:
    """Jobs kept by hand, withdrawn ones among them, beside those of Slurm, in part erased and in part pruned."""
    writer = bench.writers["n1"]
    writer.said(EventKind.JOB_CREATED, 0, "manual-a", user_name="ada", state="running")
    writer.said(EventKind.JOB_CREATED, SECOND, "manual-b", user_name="eve", state="running")
    writer.said(EventKind.JOB_AMENDED, 2 * SECOND, "manual-b", run=1, job_name="x")
    writer.said(EventKind.JOB_CREATED, 3 * SECOND, "manual-c", user_name="ada")
    writer.said(EventKind.JOB_WITHDRAWN, 4 * SECOND, "manual-a", run=1)
    writer.said(EventKind.JOB_WITHDRAWN, 5 * SECOND, "manual-c", run=1)
    await PostgresSink(bench.pool).store(writer.rows, node="n1")
    assert await one(bench.pool, "SELECT count(*) FROM jobs_withdrawn") == 2
    second_day = await stretch(bench)
    await order(bench.pool, "audit_erase", "ada", "request", "officer")
    assert anywhere(database, "ada") == []
    anchor = list(read_all(bench.anchors))[-1].checkpoint
    await order(bench.pool, "audit_prune", second_day, "age", "officer", anchor.number, anchor.digest(), False)
    await bench.seal()
    assert (await verified(bench, database))[1] == set()
    async with session(bench.pool, 10.0) as connection:
        report = await rebuild_check(connection)
    assert report.equal, report.differences


async def test_what_is_erased_beyond_what_the_row_says_is_missing(bench: TrailBench, database: str) -> None:
    await bench.sealed_story(1)
    stranger = ChainWriter("n9")
    stranger.begin()
    await PostgresSink(bench.pool).store(stranger.rows, node="n9")
    await order(bench.pool, "audit_erase", "ada", "request", "officer")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE audit_payload DISABLE TRIGGER ALL")
        for partition in ("audit_payload_default",):
            connection.execute(f"ALTER TABLE {partition} DISABLE TRIGGER ALL".encode())
        connection.execute("DELETE FROM audit_payload WHERE chain_id = %s", (stranger.chain_id,))
    assert await verified(bench, database) == (18, {("payload_missing", stranger.chain_id, 1, None)})


async def test_who_still_runs_cannot_be_erased_and_a_hold_stops_everything(bench: TrailBench, database: str) -> None:
    await bench.jobs(nodes=["n1"])
    bench.writers["n1"].started("slurm-77", at=20 * SECOND)
    await PostgresSink(bench.pool).store(bench.writers["n1"].rows[3:], node="n1")
    with pytest.raises(StoreRefused, match="not over"):
        await order(bench.pool, "audit_erase", "ada", "request", "officer")
    with pytest.raises(StoreRefused, match="basis"):
        await order(bench.pool, "audit_erase", "ada", " ", "officer")
    await order(bench.pool, "audit_hold", "case 12", "counsel", False)
    await bench.seal()
    anchor = list(read_all(bench.anchors))[-1].checkpoint
    for name, values in (
        ("audit_erase", ("bob", "request", "officer")),
        ("audit_prune", (datetime.now(UTC), "retention", "officer", anchor.number, anchor.digest(), False)),
    ):
        with pytest.raises(StoreRefused, match=r"legal hold.*case 12"):
            await order(bench.pool, name, *values)
    await order(bench.pool, "audit_hold", "case closed", "counsel", True)
    assert (await order(bench.pool, "audit_erase", "bob", "request", "officer"))["payloads"] == 0
    kinds = await one(bench.pool, "SELECT array_agg(kind ORDER BY seq) FROM audit_log WHERE node = '@store'")
    assert kinds == ["hold_placed", "hold_lifted", "payload_erased"]
    assert (await verified(bench, database))[1] == set()


async def stretch(bench: TrailBench) -> datetime:
    """Three days of events, sealed; the time at which the second began."""
    for day in range(3):
        for writer in bench.writers.values():
            known = len(writer.rows)
            opened = writer.started(f"slurm-{day}{writer.node[1]}", at=day * DAY)
            writer.finished(f"slurm-{day}{writer.node[1]}", at=day * DAY + SECOND, opened_by=opened)
            await PostgresSink(bench.pool).store(writer.rows[known:], node=writer.node)
        await bench.seal()
    return datetime.fromtimestamp((T0 + DAY) / 1e6, UTC)


@pytest.mark.parametrize("payloads_only", [False, True])
async def test_pruned_rows_are_gone_and_each_chain_begins_where_the_row_says(
    bench: TrailBench, database: str, payloads_only: bool, figures: Figures
) -> None:
    second_day = await stretch(bench)
    anchor = list(read_all(bench.anchors))[-1].checkpoint
    done = await order(
        bench.pool, "audit_prune", second_day, "retention", "officer", anchor.number, anchor.digest(), payloads_only
    )
    assert (done["log_rows"], done["payloads"]) == (0 if payloads_only else 6, 6)
    assert await one(bench.pool, "SELECT count(*) FROM audit_payload WHERE received_at < $1", second_day) == 0
    removed, wrong = await verified(bench, database)
    assert (removed, wrong) == (6 if payloads_only else 0, set())
    async with session(bench.pool, 10.0) as connection:
        report = await rebuild_check(connection)
    assert report.equal, report.differences
    writer = bench.writers["n1"]
    report2 = await PostgresSink(bench.pool).store(writer.rows, node="n1")  # a node that replays from the beginning
    assert (report2.replayed, report2.conflicts) == (6, ())
    with psycopg.connect(database, autocommit=True) as connection2:
        for table in ("audit_log", "audit_payload", "audit_payload_default"):
            connection2.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL".encode())
        for table in ("audit_log", "audit_payload"):
            connection2.execute(f"DELETE FROM {table} WHERE chain_id = %s AND seq = 3".encode(), (writer.chain_id,))
    assert ("row_missing", writer.chain_id, 3, None) in (await verified(bench, database))[1]
    figures.set(rows_pruned=done["log_rows"])


async def test_nothing_is_pruned_that_no_anchored_checkpoint_covers(bench: TrailBench) -> None:
    second_day = await stretch(bench)
    anchors = [one.checkpoint for one in read_all(bench.anchors)]
    late = second_day + timedelta(days=1)
    with pytest.raises(StoreRefused, match="not covered up to sequence 4 by checkpoint 1"):
        await order(bench.pool, "audit_prune", late, "r", "o", 1, anchors[0].digest(), False)
    with pytest.raises(StoreRefused, match="as the anchor has it"):
        await order(bench.pool, "audit_prune", late, "r", "o", 3, anchors[0].digest(), False)
    with pytest.raises(StoreRefused, match="past"):
        await order(
            bench.pool, "audit_prune", datetime.now(UTC) + timedelta(days=1), "r", "o", 3, anchors[2].digest(), False
        )
    assert await one(bench.pool, "SELECT count(*) FROM audit_log") == 18


async def test_what_is_left_of_an_erased_job_still_says_what_happened(bench: TrailBench, database: str) -> None:
    """The kinds of its rows name nobody and are under the hashes; what they said is gone."""
    await bench.sealed_story()
    await order(bench.pool, "audit_erase", "ada", "request", "officer")
    job = await one(bench.pool, "SELECT min(job_id) FROM audit_log WHERE kind = 'job_started'")
    kinds = await one(
        bench.pool, "SELECT array_agg(kind ORDER BY changed_at, seq) FROM audit_log WHERE job_id = $1", job
    )
    command = [sys.executable, "-m", "jobtrail", "audit", "log", job]
    environment = {
        "DATABASE_URL": database,
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": "daemon",
        "HOME": str(bench.directory),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [line.split()[3] for line in done.stdout.splitlines()[1:]] == kinds


def test_orders_are_given_by_command(database: str, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobtrail", "audit", *words]
        environment = {"DATABASE_URL": database, "PATH": "/usr/bin:/bin", "PYTHONPATH": "daemon", "HOME": str(tmp_path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    done = run("hold", "--reason", "case 1")
    assert done.returncode == 0, done.stderr
    refused = run("erase", "--user", "ada", "--basis", "request", "--yes")
    assert refused.returncode == 1
    assert "legal hold" in refused.stderr
    assert run("hold", "--reason", "closed", "--lift").returncode == 0
    done = run("erase", "--user", "ada", "--basis", "request", "--yes")
    assert "0 payloads erased" in done.stdout
    assert run("prune", "--before", "2025-01-01", "--yes").returncode == 2  # no anchor is named
    done = run("verify", "--full")
    assert (done.returncode, "nothing is wrong" in done.stdout) == (0, True), done.stderr
    done = run("keygen", str(tmp_path / "seal.key"))
    assert (done.returncode, (tmp_path / "seal.key").stat().st_mode & 0o777) == (0, 0o600)

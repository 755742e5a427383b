"""The PostgreSQL sink beyond the contract: what it writes, races, foreign errors, a frozen server."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from jobtrail.adapters.postgres import PostgresSink, close_pool, migrate, open_pool, session
from jobtrail.adapters.postgres.folding import decode_storable
from jobtrail.adapters.postgres.pool import transaction, translated
from jobtrail.core.ports import TRAIL_ONLY, StoreReport
from jobtrail.domain.audit import ChainedEvent, ChainHead, broken_link
from jobtrail.domain.errors import ConfigError, StoreRefused, StoreUnavailable
from jobtrail.domain.events import Actor, EventKind, NodeUsage
from jobtrail.domain.job_facts import Outcome
from jobtrail.domain.slurm import Origin, SlurmRecord
from tests.chains import SECOND, T0, ChainWriter
from tests.daemon_process import wait_until
from tests.postgres import PostgresServer


async def store(pool: Any, writer: ChainWriter, **options: Any) -> Any:
    return await PostgresSink(pool).store(writer.rows, node=writer.node, **options)


async def fetch(pool: Any, query: str, *values: Any) -> list[dict[str, Any]]:
    async with session(pool, 10.0) as connection:
        return [dict(row) for row in await connection.fetch(query, *values)]


async def test_a_job_has_the_columns_its_events_give(pool: Any) -> None:
    writer = ChainWriter()
    opened_by = writer.started("slurm-1", account="physics", memory_limit_bytes=2 << 30, job_name="täst 'x'")
    usage = NodeUsage(
        cpu_usage_us=1_500_000, cpu_user_us=1_000_000, memory_peak_bytes=1 << 30, sample_count=3, covered_us=9 * SECOND,
        last_sample_us=T0 + 9 * SECOND, sources={"cpu": "cgroup_v1"}, absent={"io_read_bytes": "no blkio"},
    )  # fmt: skip
    writer.used("slurm-1", 9 * SECOND, usage, opened_by=opened_by)
    writer.finished("slurm-1", 10 * SECOND, exit_code=3, opened_by=opened_by)
    await store(pool, writer)
    (job,) = await fetch(pool, "SELECT *, extract(epoch FROM start_time) * 1e6 AS start_us FROM jobs")
    assert job["start_us"] == T0
    expected = {
        "cluster_name": "c1", "job_id": "slurm-1", "run": 1, "user_name": "ada", "account": "physics",
        "job_name": "täst 'x'", "nodes": ["n1"], "state": "failed", "verdict": "failed", "exit_code": 3,
        "exit_signal": None, "cpus_allocated": 4, "memory_limit_bytes": 2 << 30, "cpu_seconds": 1.5,
        "cpu_user_seconds": 1.0, "cpu_system_seconds": None, "memory_peak_bytes": 1 << 30, "io_read_bytes": None,
        "oom_kills": None, "energy_joules": None, "sample_count": 3, "coverage_ratio": 0.9, "submit_time": None,
    }  # fmt: skip
    assert {name: job[name] for name in expected} == expected
    assert msgspec.json.decode(job["usage_absent"]) == {"io_read_bytes": "no blkio"}
    (node,) = await fetch(pool, "SELECT * FROM job_nodes")
    assert (node["node"], node["cpus"], node["cpu_seconds"], str(node["opened_by"])) == ("n1", 4, 1.5, opened_by)
    assert (node["ended_at"] - node["started_at"]).total_seconds() == 10.0


async def test_coverage_and_usage_are_null_before_anything_is_known(pool: Any) -> None:
    writer = ChainWriter()
    writer.started("slurm-1")
    await store(pool, writer)
    (job,) = await fetch(
        pool, "SELECT cpu_seconds, memory_peak_bytes, coverage_ratio, sample_count, end_time FROM jobs"
    )
    assert job == dict.fromkeys(job, None) | {"sample_count": 0}


async def test_the_trail_holds_the_bytes_and_its_chain_recomputes(pool: Any) -> None:
    writer = ChainWriter()
    writer.begin()
    writer.whole_job("slurm-1")
    await store(pool, writer)
    rows = await fetch(
        pool,
        "SELECT l.*, p.payload, p.salt, (extract(epoch FROM l.changed_at) * 1000000)::bigint AS time_us "
        "FROM audit_log l JOIN audit_payload p USING (chain_id, seq, received_at) ORDER BY seq",
    )
    head = ChainHead(0, bytes(32))
    for held, sent in zip(rows, writer.rows, strict=True):
        rebuilt = msgspec.structs.replace(
            sent, seq=held["seq"], event_id=str(held["event_id"]), kind=held["kind"], time_us=held["time_us"],
            payload=held["payload"], salt=held["salt"], prev_hash=held["prev_hash"], commitment=held["commitment"],
            row_hash=held["row_hash"],
        )  # fmt: skip
        assert broken_link(rebuilt, head) is None
        head = ChainHead(held["seq"], held["row_hash"])
    assert [row["change_type"] for row in rows] == [None, "create", "update", "update"]
    assert len({row["correlation_id"] for row in rows[1:]}) == 1
    assert [row["changed_by"] for row in rows] == ["collector", "slurm-prolog", "slurm-epilog", "collector"]


async def test_the_last_snapshot_is_the_job_row(pool: Any) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1", exit_code=1)
    await store(pool, writer)
    events = await fetch(pool, "SELECT * FROM job_audit_events WHERE job_id = 'slurm-1' ORDER BY changed_at, seq")
    states = [msgspec.json.decode(event["job_snapshot"])["state"] for event in events]
    assert states == ["running", "failed", "failed"]
    assert msgspec.json.decode(events[0]["event"])["kind"] == "job_started"
    same = await fetch(
        pool,
        "SELECT to_jsonb(jsonb_populate_record(NULL::jobs, e.job_snapshot)) - 'updated_at' - 'projection' "
        "= to_jsonb(j) - 'updated_at' - 'projection' AS equal "
        "FROM jobs j, job_audit_events e WHERE e.seq = 3",
    )
    assert same == [{"equal": True}]


async def test_text_that_jsonb_cannot_hold_is_kept_in_the_bytes_and_replaced_in_the_job(pool: Any) -> None:
    writer = ChainWriter()
    name = "nul \x00, backslash \\u0000, both \\\x00"
    writer.started("slurm-1", job_name=name)
    report = await store(pool, writer)
    assert dict(report.unapplied) == {}
    shown = name.replace("\x00", "\ufffd")
    (job,) = await fetch(pool, "SELECT job_name FROM jobs")
    assert job["job_name"] == shown
    (event,) = await fetch(pool, "SELECT event, job_snapshot FROM job_audit_events")
    assert msgspec.json.decode(event["event"])["facts"]["job_name"] == shown
    assert msgspec.json.decode(event["job_snapshot"])["job_name"] == shown
    (held,) = await fetch(pool, "SELECT payload FROM audit_payload")
    assert held["payload"] == writer.rows[0].payload
    stored = decode_storable(held["payload"])
    assert stored.facts is not None
    assert stored.facts.job_name == shown


async def test_bytes_that_are_no_json_do_not_break_the_view(pool: Any) -> None:
    writer = ChainWriter()
    writer.raw(b"\xff\xfe")
    writer.raw(b"{not json")
    writer.started("slurm-1")
    await store(pool, writer)
    rows = await fetch(pool, "SELECT jobtrail_event_json(payload) AS event FROM audit_payload ORDER BY seq")
    assert [row["event"] is None for row in rows] == [True, True, False]
    log = await fetch(pool, "SELECT job_id, run, unapplied FROM audit_log ORDER BY seq")
    assert [(row["job_id"], row["run"], row["unapplied"] is None) for row in log] == [
        (None, None, False), (None, None, False), ("slurm-1", 1, True),
    ]  # fmt: skip


async def test_a_conflict_is_on_record_once_with_what_was_offered(pool: Any) -> None:
    writer, twin = ChainWriter(), ChainWriter()
    twin.chain_id = writer.chain_id
    writer.started("slurm-1")
    twin.started("slurm-66")
    await store(pool, writer)
    for _ in range(3):
        assert (await store(pool, twin)).conflicts == (1,)
    (conflict,) = await fetch(pool, "SELECT * FROM audit_conflict")
    assert (conflict["held_hash"], conflict["offered_hash"]) == (writer.rows[0].row_hash, twin.rows[0].row_hash)
    assert conflict["payload"] == twin.rows[0].payload


async def test_a_forked_chain_is_on_record_although_its_batch_is_refused(pool: Any) -> None:
    writer, twin = ChainWriter(), ChainWriter()
    twin.chain_id = writer.chain_id
    writer.started("slurm-1")
    twin.started("slurm-66")
    twin.started("slurm-67")
    await store(pool, writer)
    with pytest.raises(StoreRefused, match="previous hash differs"):
        await PostgresSink(pool).store(twin.rows[1:], node="n1")
    (conflict,) = await fetch(pool, "SELECT seq, reason FROM audit_conflict")
    assert conflict["seq"] == 2
    assert "previous hash" in conflict["reason"]


async def test_trail_only_names_the_job_and_says_why_it_is_not_applied(pool: Any) -> None:
    writer = ChainWriter()
    writer.started("slurm-1")
    await store(pool, writer, trail_only=TRAIL_ONLY)
    (row,) = await fetch(pool, "SELECT job_id, run, change_type, unapplied FROM audit_log")
    assert (row["job_id"], row["run"], row["change_type"]) == ("slurm-1", None, None)
    assert "trail only" in row["unapplied"]


async def test_a_value_no_column_can_hold_is_refused_and_fits_into_the_trail(pool: Any) -> None:
    writer = ChainWriter()
    writer.started("slurm-1")
    writer.event(EventKind.JOB_FINISHED, "slurm-1", SECOND, outcome=Outcome(exit_code=2**40))
    with pytest.raises(StoreRefused, match="SQLSTATE 22"):
        await store(pool, writer)
    assert (await PostgresSink(pool).head(writer.chain_id)).seq == 0
    sink = PostgresSink(pool)
    await sink.store(writer.rows[:1], node="n1")
    report = await sink.store(writer.rows[1:], node="n1", trail_only=TRAIL_ONLY)
    assert report.head == writer.head


async def test_an_event_id_seen_before_in_the_chain_is_refused(pool: Any) -> None:
    writer = ChainWriter()
    event_id = str(uuid.uuid4())
    writer.raw(b"1", event_id=event_id)
    writer.raw(b"2", event_id=event_id)
    with pytest.raises(StoreRefused, match="SQLSTATE 23505"):
        await store(pool, writer)


async def test_a_time_beyond_the_calendar_is_refused(pool: Any) -> None:
    writer = ChainWriter()
    writer.raw(b"{}", at=2**60)
    with pytest.raises(StoreRefused, match="no time"):
        await store(pool, writer)


async def test_two_sinks_on_one_chain_neither_fork_nor_block(pool: Any) -> None:
    """As after a restart, while the old process's last batch is still on its way."""
    writer = ChainWriter()
    for number in range(40):
        writer.whole_job(f"slurm-{number}")
    one, other = PostgresSink(pool), PostgresSink(pool)
    async with asyncio.timeout(120):
        for begin in range(0, len(writer.rows), 30):
            batch = writer.rows[begin : begin + 30]
            reports = await asyncio.gather(*(sink.store(batch, node="n1") for sink in (one, other, one, other)))
            assert sorted(report.stored for report in reports) == [0, 0, 0, len(batch)]
            assert all(not report.conflicts for report in reports)
    (count,) = await fetch(pool, "SELECT count(*) AS n, max(seq) AS last FROM audit_log")
    assert (count["n"], count["last"]) == (120, 120)
    assert await fetch(pool, "SELECT count(*) AS n FROM jobs") == [{"n": 40}]


async def test_many_nodes_of_the_same_jobs_join_one_run_each_without_deadlock(pool: Any) -> None:
    nodes = [f"n{number}" for number in range(6)]
    writers = [ChainWriter(node) for node in nodes]
    jobs = [f"slurm-{number}" for number in range(12)]
    for index, writer in enumerate(writers):
        order = jobs[index:] + jobs[:index]  # each node tells of them in another order
        opened = {job_id: writer.started(job_id, nodes=nodes) for job_id in order}
        for job_id in reversed(order):
            writer.finished(job_id, 3 * SECOND, opened_by=opened[job_id])
    async with asyncio.timeout(120):
        await asyncio.gather(*(store(pool, writer) for writer in writers))
    rows = await fetch(pool, "SELECT run, nodes_started, nodes_ended, cpus_allocated, state FROM jobs")
    assert len(rows) == len(jobs)
    assert all(
        row == {"run": 1, "nodes_started": 6, "nodes_ended": 6, "cpus_allocated": 24, "state": "ended"} for row in rows
    )
    assert await fetch(pool, "SELECT count(*) AS n FROM job_nodes") == [{"n": 72}]
    correlations = await fetch(
        pool, "SELECT count(DISTINCT correlation_id) AS n FROM audit_log WHERE job_id = 'slurm-3'"
    )
    assert correlations == [{"n": 1}]


async def test_the_ingest_role_can_do_all_the_sink_does(postgres_server: PostgresServer, database: str) -> None:
    postgres_server.execute("CREATE ROLE node_login LOGIN IN ROLE jobtrail_ingest")
    opened = await open_pool(database.replace("//postgres@", "//node_login@"), size=2, timeout_seconds=10.0)
    try:
        writer = ChainWriter()
        writer.whole_job("slurm-1")
        twin = ChainWriter(chain_id=writer.chain_id)
        twin.begin()
        assert (await store(opened, writer)).stored == 3
        assert (await store(opened, writer)).replayed == 3
        assert (await store(opened, twin)).conflicts == (1,)
    finally:
        await close_pool(opened, timeout_seconds=5.0)
        postgres_server.execute("DROP ROLE node_login")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.TooManyConnectionsError("x"), StoreUnavailable),
        (asyncpg.DiskFullError("x"), StoreUnavailable),
        (asyncpg.AdminShutdownError("x"), StoreUnavailable),
        (asyncpg.CannotConnectNowError("x"), StoreUnavailable),
        (asyncpg.SerializationError("x"), StoreUnavailable),
        (asyncpg.DeadlockDetectedError("x"), StoreUnavailable),
        (asyncpg.LockNotAvailableError("x"), StoreUnavailable),
        (asyncpg.QueryCanceledError("x"), StoreUnavailable),
        (asyncpg.UndefinedTableError("x"), StoreUnavailable),
        (asyncpg.InsufficientPrivilegeError("x"), StoreUnavailable),
        (asyncpg.ReadOnlySQLTransactionError("x"), StoreUnavailable),
        (asyncpg.InvalidPasswordError("x"), StoreUnavailable),
        (asyncpg.InterfaceError("connection is closed"), StoreUnavailable),
        (ConnectionResetError("x"), StoreUnavailable),
        (TimeoutError(), StoreUnavailable),
        (asyncpg.NumericValueOutOfRangeError("x"), StoreRefused),
        (asyncpg.UntranslatableCharacterError("x"), StoreRefused),
        (asyncpg.UniqueViolationError("x"), StoreRefused),
        (asyncpg.CheckViolationError("x"), StoreRefused),
        (asyncpg.ProgramLimitExceededError("x"), StoreRefused),
    ],
)
def test_foreign_errors_are_told_as_retry_or_refusal(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected), translated():
        raise error


async def test_a_value_that_no_row_can_hold_is_refused_and_its_event_stays_in_the_trail(pool: Any) -> None:
    """A time that Slurm is said to have told; the forwarder then offers the event for the trail alone."""
    writer = ChainWriter()
    told = SlurmRecord(origin=Origin.SLURMCTLD, job_id="slurm-1", state="RUNNING", submit_time=10**13)
    writer.event(EventKind.SLURM_REPORTED, "slurm-1", 0, Actor.RECONCILER, slurm=told)
    with pytest.raises(StoreRefused, match="date value out of range"):
        await store(pool, writer)
    assert await fetch(pool, "SELECT job_id FROM jobs") == []
    assert (await store(pool, writer, trail_only=TRAIL_ONLY)).stored == 1
    writer.started("slurm-2", 1)
    assert (await store(pool, writer)).stored == 1
    assert [row["job_id"] for row in await fetch(pool, "SELECT job_id FROM jobs")] == ["slurm-2"]


@pytest.mark.parametrize("error", [OverflowError("out of range"), ValueError("no surrogates"), UnicodeError("x")])
async def test_what_cannot_be_written_is_refused_and_what_cannot_be_read_is_tried_again(
    pool: Any, error: Exception
) -> None:
    with pytest.raises(StoreRefused, match=str(error)):
        async with transaction(pool, 10.0):
            raise error
    with pytest.raises(StoreUnavailable, match=str(error)):
        async with transaction(pool, 10.0, readonly=True):
            raise error
    with pytest.raises(StoreUnavailable), translated():
        raise error


async def test_a_wrong_use_of_the_connection_is_no_refusal_of_values(pool: Any) -> None:
    with pytest.raises(StoreUnavailable):
        async with transaction(pool, 10.0):
            raise asyncpg.ClientConfigurationError("a ValueError by birth")


@pytest.mark.parametrize("url", ["mysql://x", "host=localhost", ""])
async def test_a_url_of_another_kind_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigError, match=r"database\.url.*postgresql://"):
        await open_pool(url, size=1, timeout_seconds=1.0)


async def test_a_server_that_is_not_there_and_a_database_not_migrated_are_unavailable(empty_database: str) -> None:
    for url, problem in (("postgresql://x@127.0.0.1:1/x", "refused|Connect"), (empty_database, "audit_chain")):
        opened = await open_pool(url, size=1, timeout_seconds=5.0)
        with pytest.raises(StoreUnavailable, match=problem):
            await PostgresSink(opened).head(str(uuid.uuid4()))
        await close_pool(opened, timeout_seconds=1.0)


async def test_a_batch_the_server_cuts_off_leaves_nothing_and_goes_through_the_next_time(
    pool: Any, database: str
) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    await PostgresSink(pool).store(writer.rows[:1], node="n1")
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with await open_pool(database, size=1, timeout_seconds=10.0) as single:
        sink = PostgresSink(single)
        async with session(pool, 10.0) as holder, connection_locking_chains(holder), asyncio.timeout(60):
            batch = asyncio.create_task(sink.store(writer.rows, node="n1"))
            while not (found := await fetch(pool, waiting)):
                await asyncio.sleep(0)
            await fetch(pool, "SELECT pg_terminate_backend($1)", found[0]["pid"])
            with pytest.raises(StoreUnavailable, match=r"57P01|was closed"):
                await batch
        assert await fetch(pool, "SELECT count(*) AS n FROM audit_log") == [{"n": 1}]
        assert (await sink.store(writer.rows, node="n1")).stored == 2


@asynccontextmanager
async def connection_locking_chains(connection: Any) -> AsyncIterator[None]:
    """Nobody else can store anything meanwhile."""
    async with connection.transaction():
        await connection.execute("SELECT FROM audit_chain FOR UPDATE")
        yield


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    """The whole server stopped in its tracks, connections open, nothing answered."""
    main = server.postmaster_pid()
    pids = [main]
    os.kill(main, signal.SIGSTOP)
    try:
        # Only a stopped one neither begins processes nor takes leave of those that end.
        wait_until(lambda: state_of(main) == "T", "the server's main process to be stopped")
        pids += map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def state_of(pid: int) -> str:
    """As proc_pid_stat(5) names it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def stored_in_time(sink: PostgresSink, rows: list[ChainedEvent]) -> StoreReport | None:
    """The report of what was stored; None where the deadline was missed."""
    try:
        return await sink.store(rows, node="n1")
    except StoreUnavailable:
        return None


async def test_a_frozen_server_is_given_up_within_the_deadline_also_at_closing(
    postgres_server: PostgresServer, database: str
) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    opened = await open_pool(database, size=2, timeout_seconds=0.5)
    sink = PostgresSink(opened, timeout_seconds=0.5)
    async with asyncio.timeout(60):
        while (await stored_in_time(sink, writer.rows[:1])) is None:  # a busy machine may take longer to connect
            pass
    with frozen(postgres_server):
        for _ in range(2):  # once on the open connection, once on one that cannot be made
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await sink.store(writer.rows[1:], node="n1")
            assert time.monotonic() - began < 20
        began = time.monotonic()
        await close_pool(opened, timeout_seconds=0.5)
        assert time.monotonic() - began < 20
    again = await open_pool(database, size=1, timeout_seconds=10.0)
    assert (await PostgresSink(again).store(writer.rows[1:], node="n1")).head == writer.head
    await close_pool(again, timeout_seconds=5.0)


async def test_a_lock_held_by_somebody_else_is_waited_for_no_longer_than_the_deadline(pool: Any, database: str) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    await PostgresSink(pool).store(writer.rows[:1], node="n1")
    impatient = await open_pool(database, size=1, timeout_seconds=0.3)
    async with session(pool, 10.0) as holder, connection_locking_chains(holder):
        with pytest.raises(StoreUnavailable, match="in time"):
            await PostgresSink(impatient, timeout_seconds=0.3).store(writer.rows, node="n1")
    assert (await PostgresSink(pool).store(writer.rows, node="n1")).head == writer.head
    await close_pool(impatient, timeout_seconds=5.0)


async def test_a_client_that_falls_silent_in_a_batch_holds_its_chain_no_longer_than_twice_the_deadline(
    pool: Any, database: str
) -> None:
    """As behind a network that swallows all: the server's side of the connection stays open and says nothing."""
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    await PostgresSink(pool).store(writer.rows[:1], node="n1")
    silent = await open_pool(database, size=1, timeout_seconds=60.0)

    async def lock_and_fall_silent() -> None:
        async with transaction(silent, 1.5) as connection:
            await connection.execute("SELECT FROM audit_chain FOR UPDATE")
            assert (await PostgresSink(pool).store(writer.rows, node="n1")).head == writer.head
            await connection.execute("SELECT 1")

    with pytest.raises(StoreUnavailable, match=r"25P03|was closed"):
        await lock_and_fall_silent()
    await close_pool(silent, timeout_seconds=5.0)


async def test_narrower_limits_of_an_administrator_stay(database: str) -> None:
    """Those of the transaction are for logins that have none, or wider ones."""
    for given, held in (("15s", "15s"), ("2h", "20s"), ("0", "20s")):
        limited = await open_pool(f"{database}{'&' if '?' in database else '?'}statement_timeout={given}", size=1,
                                  timeout_seconds=10.0)  # fmt: skip
        async with transaction(limited, 10.0) as connection:
            assert await connection.fetchval("SHOW statement_timeout") == held
            assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "20s"
        async with session(limited, 10.0) as connection:
            assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "0"
        await close_pool(limited, timeout_seconds=5.0)


def test_migrating_is_what_loads_alembic_and_nothing_else() -> None:
    """The daemon's memory has no room for an ORM."""
    import subprocess
    import sys

    code = "import sys, jobtrail.adapters.postgres; print({'alembic', 'sqlalchemy', 'psycopg'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(Path(migrate.__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "set()"


async def test_a_report_tells_the_databases_time(pool: Any) -> None:
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    before = time.time_ns() // 1000
    told = (await PostgresSink(pool).store(writer.rows, node="n1")).store_time_us
    assert told is not None
    assert before <= told <= time.time_ns() // 1000

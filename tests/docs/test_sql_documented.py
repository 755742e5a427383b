"""docs/sql.md names every table and view, and each of its queries runs with the rights of those who read."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.rows import dict_row

from tests.sql_page import QUERIES, TEXT, role_of


@pytest.fixture
def now() -> datetime:
    """The time of the test, not that of its collection: the queries look at the last hour."""
    return datetime.now(UTC)


def insert(connection: Any, table: str, **values: Any) -> None:
    names, places = ", ".join(values), ", ".join(["%s"] * len(values))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", tuple(values.values()))


def add_job(connection: Any, job_id: str, state: str, **values: Any) -> None:
    correlation = "11111111-1111-1111-1111-111111111111"
    known = {"cluster_name": "c1", "job_id": job_id, "run": 1, "correlation_id": correlation, "projection": "{}"}
    insert(connection, "jobs", **known, state=state, **values)


def ask(connection: Any, beginning: str) -> list[dict[str, Any]]:
    (query,) = [query for title, query in QUERIES.items() if title.startswith(beginning)]
    with connection.cursor(row_factory=dict_row) as cursor:
        found: list[dict[str, Any]] = cursor.execute(query).fetchall()
    return found


@pytest.mark.parametrize("title", sorted(QUERIES))
def test_each_query_runs_with_the_rights_of_those_who_read(database: str, title: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(f"SET ROLE {role_of(title)}".encode())
        assert connection.execute(QUERIES[title].encode()).fetchall() == []


TRAIL = {"audit_log", "audit_payload", "audit_chain", "audit_conflict", "job_audit_events", "jobs_withdrawn"}
NAMED = set(re.findall(r"^\| `(\w+)` \|", TEXT.partition("\n## ")[0], re.MULTILINE))


def test_the_auditor_asks_all_that_the_trail_alone_can_answer(database: str) -> None:
    allowed = set()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET ROLE jobtrail_auditor")
        for title, query in QUERIES.items():
            try:
                connection.execute(query.encode())
            except psycopg.errors.InsufficientPrivilege:
                continue
            allowed.add(title)
    words = {title: set(re.findall(r"\w+", re.sub("--.*", "", query))) for title, query in QUERIES.items()}
    of_the_trail = {title for title, used in words.items() if used & NAMED <= TRAIL}
    assert allowed == of_the_trail
    assert len(allowed) > 10


def test_every_table_and_view_is_named_and_no_other(database: str) -> None:
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')"
            " AND NOT relispartition AND relname <> 'alembic_version'"
        ).fetchall()
    assert {name for (name,) in rows} == NAMED


def test_only_gpus_that_did_nothing_for_the_whole_hour_are_listed_as_idle(database: str, now: datetime) -> None:
    """Not one whose utilisation is unknown, one of a run that has just begun, or one that was used once."""
    runs = {"idle": (0.0, 0.0, 5), "used": (0.0, 90.0, 5), "unknown": (0.0, None, 5), "new": (0.0, 0.0, 0)}
    with psycopg.connect(database) as connection:
        for job_id, (one, other, hours) in runs.items():
            add_job(connection, job_id, "running", user_name="ada", start_time=now - timedelta(hours=hours))
            for minutes, percent in ((9, one), (5, other)):
                insert(
                    connection, "gpu_samples", sampled_at=now - timedelta(minutes=minutes), node="n1",
                    gpu_id=f"GPU-{job_id}", vendor="nvidia", cluster_name="c1", job_id=job_id,
                    utilization_percent=percent, memory_used_bytes=minutes,
                )  # fmt: skip
        assert ask(connection, "GPUs that are held") == [
            {"node": "n1", "gpu_id": "GPU-idle", "job_id": "idle", "user_name": "ada", "looks": 2,
             "memory_used_bytes": 9},
        ]  # fmt: skip


def test_energy_by_account_counts_what_has_no_number(database: str, now: datetime) -> None:
    last_month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
    with psycopg.connect(database) as connection:
        connection.execute("SET timezone = 'UTC'")
        known = {"account": "physics", "end_time": last_month}
        add_job(
            connection, "1", "completed", energy_joules=3.6e6, emissions_grams=100, energy_coverage_ratio=1, **known
        )
        add_job(connection, "2", "completed", energy_joules=7.2e6, energy_coverage_ratio=0.5, **known)
        add_job(connection, "3", "completed", **known)
        add_job(connection, "4", "completed", account="physics", energy_joules=1e9, end_time=now)
        assert ask(connection, "Energy and emissions of the last month") == [
            {"account": "physics", "jobs": 3, "kwh": 3.0, "grams": 100.0, "without_energy": 1, "without_grams": 2,
             "mean_coverage": 0.75},
        ]  # fmt: skip


def test_gpu_errors_add_up(database: str, now: datetime) -> None:
    with psycopg.connect(database) as connection:
        for number, errors in (("1", {"31": 2, "79": 1}), ("2", {"31": 3}), ("3", None)):
            key = {"cluster_name": "c1", "job_id": number, "run": 1, "node": "n1"}
            began = now - timedelta(hours=int(number))
            add_job(connection, number, "completed", user_name="ada", end_time=now)
            insert(connection, "job_nodes", **key, started_at=began, ended_at=now, projection="{}")
            insert(
                connection, "job_gpus", **key, gpu_id="GPU-a", observed_seconds=7200, unused_seconds=3600,
                errors=None if errors is None else msgspec.json.encode(errors).decode(),
            )  # fmt: skip
        found = [tuple(row.values()) for row in ask(connection, "GPU errors")]
        assert found == [
            ("n1", "GPU-a", "31", 5, 2, now - timedelta(hours=1)),
            ("n1", "GPU-a", "79", 1, 1, now - timedelta(hours=1)),
        ]


def test_memory_not_used_is_that_of_all_nodes(database: str, now: datetime) -> None:
    """Limit and peak are of one node each: a job of four nodes wastes four times as much."""
    with psycopg.connect(database) as connection:
        for job_id, nodes in (("slurm-1", 1), ("slurm-2", 4)):
            add_job(
                connection, job_id, "completed", user_name="ada", start_time=now - timedelta(hours=2),
                end_time=now - timedelta(hours=1), memory_limit_bytes=3 << 30, memory_peak_bytes=1 << 30,
                nodes_total=nodes,
            )  # fmt: skip
        (row,) = ask(connection, "Top wasters")
        assert row["memory_gib_hours_unused"] == pytest.approx(10)


def test_unused_gpu_hours_stand_beside_all_that_were_looked_at(database: str, now: datetime) -> None:
    """Those of GPUs that were in use all the time too, or everybody's share would look like waste."""
    with psycopg.connect(database) as connection:
        for job_id, unused in (("slurm-1", 3600), ("slurm-2", 0), ("slurm-3", None)):
            add_job(
                connection,
                job_id,
                "completed",
                user_name="ada",
                end_time=now,
                gpu_seconds=7200,
                gpu_unused_seconds=unused,
            )
        assert ask(connection, "GPU hours") == [{"user_name": "ada", "unused_hours": 1.0, "hours": 4.0}]


def test_watts_are_the_energy_between_two_looks_of_one_run(database: str, now: datetime) -> None:
    """Not from the last look at one run to the first at the next."""
    looks = [("1", 0, 0.0), ("1", 15, 1500.0), ("1", 20, None), ("1", 30, 6000.0), ("2", 60, 5.0), ("2", 61, 205.0)]
    with psycopg.connect(database) as connection:
        for run, seconds, joules in looks:
            insert(
                connection, "energy_samples", sampled_at=now + timedelta(seconds=seconds), cluster_name="c1",
                job_id="slurm-123", node="n1", opened_by=f"00000000-0000-0000-0000-00000000000{run}",
                gpu_joules=joules,
            )  # fmt: skip
        found = [row["gpu_watts"] for row in ask(connection, "Watts of a job over time")]
    assert found == [None, 100.0, 300.0, None, 200.0]


UID = "6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21"  # the one that the queries name
METRIC = "output_token_throughput"


def add_benchmark(connection: Any, uid: str, started_at: datetime, job_id: str | None = None, **values: Any) -> None:
    """A run, linked to a job unless `job_id` is None; what of `values` is no column of it is a number of the run."""
    numbers = {name: values.pop(name) for name in (METRIC, "output_tokens_per_joule") if name in values}
    known: dict[str, Any] = {
        "cluster_name": "c1", "node": "n1", "recipe_name": "llama8b-chat", "recipe_sha256": "a", "mode": "serve",
        "model": "llama", "parameters": "{}", "fingerprint": "f" * 64, "fingerprint_without_version": "f",
        "fingerprint_parts": "{}", "hardware": "ffffffff", "gpu_model": "H100", "gpu_count": 1, "gpus": [],
        "ended_at": started_at + timedelta(minutes=1), "status": "ok", "error_rate": 0, "repeats": 1, "notes": [],
        "measured": "{}", "counts": True, "gates": "{}", "claims": "[]", "argv": [], "files": "[]", "raw": "[]",
        "report_sha256": uid, "from_job": True, "event_id": uid, "reported_at": started_at,
    }  # fmt: skip
    insert(connection, "benchmark_run", run_uid=uid, started_at=started_at, **{**known, **values})
    for metric, value in numbers.items():
        insert(connection, "benchmark_metric", run_uid=uid, repeat=0, metric=metric, stat="value", value=value)
    if job_id is not None:
        insert(
            connection, "benchmark_run_job", run_uid=uid, position=0, role="both", link_state="linked",
            link_source="manifest", cluster_name="c1", job_id=job_id, run=1,
        )  # fmt: skip


def test_every_column_of_the_summary_of_benchmarks_is_named_and_no_other(database: str) -> None:
    section = TEXT.partition("## Benchmarks")[2].partition("## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    with psycopg.connect(database) as connection:
        described = connection.execute("SELECT * FROM benchmark_run_summary").description
    assert described is not None
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(column.name for column in described)


def test_a_recipes_results_are_told_by_hardware_in_order_of_time(database: str, now: datetime) -> None:
    with psycopg.connect(database) as connection:
        for minutes, hardware, status in ((1, "bb", "ok"), (3, "aa", "ok"), (2, "aa", "ok"), (4, "aa", "failed")):
            begun = now + timedelta(minutes=minutes)
            add_benchmark(connection, str(uuid.uuid4()), begun, hardware=hardware, status=status, **{METRIC: minutes})
        add_benchmark(connection, str(uuid.uuid4()), now, recipe_name="other")
        found = ask(connection, "How a recipe's results")
    assert [(row["hardware"], row["output_tokens_per_second"]) for row in found] == [("aa", 2), ("aa", 3), ("bb", 1)]


def test_the_best_tokens_per_joule_are_of_runs_whose_energy_was_measured(database: str, now: datetime) -> None:
    runs: tuple[tuple[str, float, float, dict[str, Any]], ...] = (
        ("H100", 5.0, 0.95, {}), ("H100", 6.0, 1.0, {}), ("H100", 9.0, 0.5, {}), ("L4", 7.0, 1.0, {}),
        ("L4", 9.0, 1.0, {"error_rate": 0.5}), ("L4", 9.0, 1.0, {"energy_invalid_reason": "the GPU was shared"}),
    )  # fmt: skip
    with psycopg.connect(database) as connection:
        for gpu, tokens, coverage, more in runs:
            uid = str(uuid.uuid4())
            add_benchmark(connection, uid, now, gpu_model=gpu, output_tokens_per_joule=tokens, **more)
            insert(
                connection, "benchmark_energy", run_uid=uid, time_window="bench", domain="total", joules=1,
                method="counter", coverage=coverage,
            )  # fmt: skip
        found = ask(connection, "Most output tokens per joule")
    assert [(row["gpu_model"], row["output_tokens_per_joule"]) for row in found] == [("L4", 7.0), ("H100", 6.0)]


def test_regressions_of_this_month_are_those_that_count(database: str, now: datetime) -> None:
    verdicts = (("regression", False, -0.1), ("suspect", False, -0.3), ("regression", True, -0.4), ("ok", False, 0.0))
    old = now.replace(day=1) - timedelta(days=3)
    with psycopg.connect(database) as connection:
        for begun in (now, old):
            for word, advisory, change in verdicts:
                uid = str(uuid.uuid4())
                add_benchmark(connection, uid, begun)
                insert(
                    connection, "benchmark_verdict", run_uid=uid, metric=METRIC, stat="value", verdict=word,
                    advisory=advisory, baseline_n=9, relative_change=change, rule_version=1,
                )  # fmt: skip
        (found,) = ask(connection, "Regressions of this month")
    assert (found["started_at"], found["metric"], float(found["percent"])) == (now, METRIC, -10.0)


def test_a_users_benchmarks_are_those_of_their_jobs_with_energy(database: str, now: datetime) -> None:
    with psycopg.connect(database) as connection:
        for job_id, user in (("slurm-1", "alice"), ("slurm-2", "bob")):
            add_job(connection, job_id, "completed", user_name=user)
            add_benchmark(connection, str(uuid.uuid4()), now, job_id, user_name="alice", output_tokens=10)
        found = ask(connection, "Benchmarks of one user")
    assert [(row["job_id"], row["output_tokens"], row["total_joules"]) for row in found] == [("slurm-1", 10.0, None)]


def test_everything_about_a_benchmarks_job_is_one_query(database: str, now: datetime) -> None:
    with psycopg.connect(database) as connection:
        add_job(connection, "slurm-1", "completed", user_name="alice", cpus_allocated=2, energy_joules=7)
        key = {"cluster_name": "c1", "job_id": "slurm-1", "run": 1, "node": "n1"}
        insert(connection, "job_gpus", **key, gpu_id="GPU-a", energy_joules=5)
        add_benchmark(connection, UID, now, "slurm-1")
        add_benchmark(connection, str(uuid.uuid4()), now, "slurm-2")
        zero = b"\0" * 32
        for number, run in ((1, 1), (2, None), (3, 2)):
            insert(
                connection, "audit_log", chain_id=UID, seq=number, event_id=str(uuid.uuid4()), kind=f"kind{number}",
                prev_hash=bytes([number]) * 32, commitment=zero, row_hash=zero, changed_at=now, received_at=now,
                cluster_name="c1", job_id="slurm-1", run=run,
            )  # fmt: skip
        (found,) = ask(connection, "Everything about the job of one benchmark")
    assert (found["recipe"], found["user_name"], found["energy_joules"]) == ("llama8b-chat", "alice", 7)
    assert found["gpus"] == [{"node": "n1", "gpu": "GPU-a", "errors": None, "joules": 5}]
    assert sorted(event["what"] for event in found["trail"]) == ["kind1", "kind2"]

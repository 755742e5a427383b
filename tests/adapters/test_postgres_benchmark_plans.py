"""With 20,000 runs the questions about benchmarks are answered through indexes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from jobtrail.adapters.postgres import PostgresBenchmarkReader, close_pool, open_pool
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.core.benchmarks.ports import RunFilter
from tests.postgres import EVERY_ROW, TEMPLATE, PostgresServer

ROWS = (Path(__file__).parent / "many_benchmarks.sql").read_text(encoding="utf-8")
ANY = ("NULL",) * 10


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of 20,000 runs."""
    name = postgres_server.create_database(TEMPLATE)
    with psycopg.connect(postgres_server.url(name), autocommit=True) as connection:
        connection.execute(ROWS.encode())
        for table, column in (
            ("benchmark_metric", "repeat"), ("benchmark_energy", "time_window"), ("benchmark_verdict", "rule_version"),
        ):  # fmt: skip
            connection.execute(EVERY_ROW.format(table=table, column=column).encode())
        connection.execute("ANALYZE")
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def many(url: str) -> Iterator[Any]:
    """A connection to it that prepares nothing by itself."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        yield connection


def plan(connection: Any, query: str, *values: str) -> list[dict[str, Any]]:
    """The nodes of the plan that is made for these values, as the reader has it made."""
    connection.execute("SET plan_cache_mode = force_custom_plan")
    connection.execute(f"PREPARE asked AS {SQL[query]}".encode())
    (row,) = connection.execute(f"EXPLAIN (FORMAT JSON) EXECUTE asked({', '.join(values)})".encode()).fetchall()
    (top,) = row[0] if isinstance(row[0], list) else msgspec.json.decode(row[0])
    return list(nodes_of(top["Plan"]))


def nodes_of(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from nodes_of(child)


def read_wholly(nodes: list[dict[str, Any]]) -> set[str]:
    return {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}


def indexes(nodes: list[dict[str, Any]]) -> set[str]:
    return {node["Index Name"] for node in nodes if "Index Name" in node}


LARGE = {"benchmark_run", "benchmark_run_job", "benchmark_metric", "benchmark_energy", "benchmark_verdict", "jobs"}
FINGERPRINT = "md5('7')"


@pytest.mark.parametrize(
    ("query", "values", "index"),
    [
        ("benchmark_list_newest", (*ANY, "50", "0"), "benchmark_run_started_at_idx"),
        # Every tenth run is of it: the newest fifty are found as fast by time.
        ("benchmark_list_newest", ("'recipe3'", *ANY[1:], "50", "0"), "benchmark_run_started_at_idx"),
        ("benchmark_list_newest", ("'rare'", *ANY[1:], "50", "0"), "benchmark_run_recipe_idx"),
        ("benchmark_list_newest", (*ANY[:6], f"left({FINGERPRINT}, 8)", *ANY[7:], "50", "0"),
         "benchmark_run_hardware_idx"),
        ("benchmark_history", (FINGERPRINT, "now()", "gen_random_uuid()::text", "10"), "benchmark_run_series_idx"),
        ("benchmark_summary", ("ARRAY[gen_random_uuid()::text]",), "benchmark_run_pkey"),
        ("benchmark_numbers", ("ARRAY[gen_random_uuid()::text]",), "benchmark_metric_pkey"),
        ("benchmark_uids", (f"'0a0b0c0d{'0' * 24}'", f"'0a0b0c0d{'f' * 24}'"), "benchmark_run_pkey"),
        ("benchmark_unsettled", ("100",), "benchmark_run_open_idx"),
        ("benchmark_unjudged", ("100",), "benchmark_run_unjudged_idx"),
        ("benchmark_candidates", ("ARRAY[NULL]", "ARRAY['slurm-77']"), "jobs_job_id_idx"),
    ],
)  # fmt: skip
def test_a_question_about_a_few_runs_reads_no_large_table_wholly(
    many: Any, query: str, values: tuple[str, ...], index: str
) -> None:
    nodes = plan(many, query, *values)
    assert read_wholly(nodes) & LARGE == set()
    assert index in indexes(nodes)


def test_a_list_of_one_jobs_benchmarks_goes_through_its_links(many: Any) -> None:
    nodes = plan(many, "benchmark_list_newest", *ANY[:4], "'slurm-77'", *ANY[5:], "50", "0")
    assert "benchmark_run_job_job_idx" in indexes(nodes)
    assert read_wholly(nodes) & LARGE == set()


def test_a_leaderboard_reads_the_numbers_of_its_metric_only(many: Any) -> None:
    nodes = plan(many, "benchmark_leaderboard", *ANY, "20", "'output_token_throughput'", "'value'", "true", "0.01")
    assert "benchmark_metric_value_idx" in indexes(nodes)
    assert not read_wholly(nodes) & {"benchmark_metric", "benchmark_energy", "benchmark_verdict"}


@pytest.mark.parametrize("wanted", [RunFilter(sort="total_joules"), RunFilter(user_name="user3", verdict="regression")])
async def test_a_question_asked_again_and_again_is_planned_for_its_values(url: str, wanted: RunFilter) -> None:
    """PostgreSQL makes a plan for any values from the sixth time on, and that one takes minutes here."""
    pool = await open_pool(url, size=1, timeout_seconds=30.0)
    reader = PostgresBenchmarkReader(pool, timeout_seconds=30.0)
    totals = [(await reader.list_runs(wanted, limit=5, offset=0))[1] for _ in range(8)]
    assert totals == [totals[0]] * 8
    await close_pool(pool, timeout_seconds=5.0)

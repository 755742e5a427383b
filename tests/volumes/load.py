"""Fills a migrated, empty database with a year of a cluster: `load(url)`, as a superuser."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

DIRECTORY = Path(__file__).parent
TRAIL = ("audit_log", "audit_payload")
SAMPLES = ("job_samples", "gpu_samples", "energy_samples")
HELPERS = ("volume_job", "volume_node", "volume_entry", "volume_run")


def load(url: str) -> None:
    """Runs first; then the trail and the samples beside each other, without indexes, which are made anew at the end."""
    with _settings(url):
        _load(url)


def _load(url: str) -> None:
    with _connected(url) as connection:
        _run(connection, "partitions.sql")
        _unlogged(connection, (*TRAIL, *SAMPLES))
        _run(connection, "jobs.sql", "benchmarks.sql")
    problems: list[psycopg.Error] = []
    parts = [("trail.sql", TRAIL), ("samples.sql", SAMPLES)]
    threads = [threading.Thread(target=_fill, args=(url, *part, problems)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    with _connected(url) as connection:
        connection.execute(f"DROP TABLE {', '.join(HELPERS)}".encode())
        # As autovacuum would have: it comes by after a fifth of a table was inserted.
        connection.execute("VACUUM audit_log, audit_payload, jobs, job_nodes, job_gpus")
        connection.execute("ANALYZE")


@contextmanager
def _settings(url: str) -> Iterator[None]:
    """Of the whole server, for the while: nothing is vacuumed under our hands, and checkpoints are rare."""
    wanted = {"autovacuum": "off", "max_wal_size": "'4GB'"}
    with _connected(url) as connection:
        for name, value in wanted.items():
            connection.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            for name in wanted:
                connection.execute(f"ALTER SYSTEM RESET {name}".encode())
            connection.execute("SELECT pg_reload_conf()")


def _fill(url: str, file: str, tables: Sequence[str], problems: list[psycopg.Error]) -> None:
    try:
        with _connected(url) as connection, _without_indexes(connection, tables):
            _run(connection, file)
    except psycopg.Error as error:
        problems.append(error)


def _unlogged(connection: psycopg.Connection[Any], tables: Sequence[str]) -> None:
    """Without write-ahead log: half the time, half the disk, and to the planner the same."""
    parts = connection.execute(
        "SELECT relid::regclass FROM unnest(%s::text[]) AS name, pg_partition_tree(name::regclass) WHERE isleaf"
        " UNION SELECT name::regclass FROM unnest(%s::text[]) AS name"
        " WHERE NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = name::regclass)",
        (list(tables), list(tables)),
    ).fetchall()
    for (part,) in parts:
        connection.execute(f"ALTER TABLE {part} SET UNLOGGED".encode())


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '512MB'")
        connection.execute("SET work_mem = '256MB'")
        connection.execute("SET synchronous_commit = off")
        yield connection


def _run(connection: psycopg.Connection[Any], *names: str) -> None:
    for name in names:
        connection.execute((DIRECTORY / name).read_bytes())


@contextmanager
def _without_indexes(connection: psycopg.Connection[Any], tables: Sequence[str]) -> Iterator[None]:
    """Take off indexes and keys, and put the same ones back: building them once is several times faster."""
    regclasses = [f"public.{table}" for table in tables]
    keys = connection.execute(
        "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = ANY (%s::text[]::regclass[]) AND contype IN ('p', 'u') ORDER BY contype",
        (regclasses,),
    ).fetchall()
    indexes = connection.execute(
        "SELECT i.indexrelid::regclass, pg_get_indexdef(i.indexrelid) FROM pg_index i"
        " WHERE i.indrelid = ANY (%s::text[]::regclass[])"
        " AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)",
        (regclasses,),
    ).fetchall()
    for table, name, _ in keys:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}".encode())
    yield
    for table, name, definition in keys:
        connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}".encode())
    for _, definition in indexes:
        connection.execute(definition.replace(" ON ONLY ", " ON ").encode())

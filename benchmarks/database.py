"""Rows into PostgreSQL: samples beside `psql \\copy`, trail rows beside plain unnest inserts of the same bytes."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from benchmarks.daemon import prolog_body
from benchmarks.figures import Figure, at_least
from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import PostgresSamples, PostgresSink, close_pool, migrate, open_pool
from jobtrail.adapters.slurm_env import hook_decoder
from jobtrail.core.ports import TRAIL_ONLY, SampleRow
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead, link
from jobtrail.domain.events import encode
from jobtrail.domain.samples import Reading

ROUNDS = 5
SAMPLE_ROWS = 20_000
SAMPLE_BATCH = 2_000
EVENTS = 3_000
EVENT_BATCH = 500


def _samples(round_number: int) -> list[SampleRow]:
    now_us = time.time_ns() // 1_000
    return [
        SampleRow(
            cluster="bench",
            job_id=f"slurm-{number % 100}",
            node="bench1",
            ref=str(uuid.UUID(int=round_number * SAMPLE_ROWS + number + 1)),
            cpu_percent=12.5,
            reading=Reading(
                time_us=now_us + number,
                source="cgroup_v2",
                cpu_usage_us=number * 1_000,
                cpu_user_us=number * 900,
                cpu_system_us=number * 100,
                memory_current_bytes=number << 12,
                memory_peak_bytes=number << 13,
                memory_rss_bytes=number << 11,
                memory_cache_bytes=number << 10,
                oom_kills=0,
                processes=3,
                threads=7,
            ),
        )
        for number in range(SAMPLE_ROWS)
    ]


async def _write_samples(pool: object, rows: Sequence[SampleRow]) -> float:
    sink = PostgresSamples(pool, timeout_seconds=60.0, tell=lambda _fact: None)  # type: ignore[arg-type]
    began = time.perf_counter()
    for start in range(0, len(rows), SAMPLE_BATCH):
        await sink.write(rows[start : start + SAMPLE_BATCH])
    return len(rows) / (time.perf_counter() - began)


def _psql_copy(url: str, text: Path) -> float:
    """Rows a second of `\\copy` from a text file of the same columns into the same table."""
    psql = shutil.which("psql")
    if psql is None:
        raise RuntimeError("psql is needed as the reference; scripts/install-test-packages installs it")
    began = time.perf_counter()
    subprocess.run(
        [psql, "--quiet", "--no-psqlrc", url, "-c", f"\\copy job_samples from '{text}'"], check=True, env=os.environ
    )
    return SAMPLE_ROWS / (time.perf_counter() - began)


def _events(chain_id: str, head: ChainHead, first_job: int) -> list[ChainedEvent]:
    decode = hook_decoder(own_node="controller")
    rows: list[ChainedEvent] = []
    for number in range(EVENTS):
        event_id = str(uuid.uuid4())
        now_us = time.time_ns() // 1_000
        event = decode("prolog", prolog_body(first_job + number), event_id=event_id, time_us=now_us)
        row = link(
            head,
            chain_id=chain_id,
            event_id=event_id,
            kind=event.kind,
            time_us=now_us,
            received_us=now_us,
            payload=encode(event),
            salt=os.urandom(32),
        )
        rows.append(row)
        head = ChainHead(row.seq, row.row_hash)
    return rows


async def _store(pool: object, rows: Sequence[ChainedEvent], *, trail_only: str | None) -> float:
    sink = PostgresSink(pool, timeout_seconds=60.0)  # type: ignore[arg-type]
    began = time.perf_counter()
    for start in range(0, len(rows), EVENT_BATCH):
        await sink.store(rows[start : start + EVENT_BATCH], node="bench1", trail_only=trail_only)
    return len(rows) / (time.perf_counter() - began)


async def _unnest(connection: asyncpg.Connection[asyncpg.Record], rows: Sequence[ChainedEvent]) -> float:
    """The same bytes, inserted into a table of the trail's shape and nothing else done."""
    began = time.perf_counter()
    for start in range(0, len(rows), EVENT_BATCH):
        batch = rows[start : start + EVENT_BATCH]
        await connection.execute(
            "INSERT INTO bench_trail SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[],"
            " $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[])",
            [row.chain_id for row in batch],
            [row.seq for row in batch],
            [row.event_id for row in batch],
            [row.kind for row in batch],
            [row.prev_hash for row in batch],
            [row.commitment for row in batch],
            [row.row_hash for row in batch],
            [row.payload for row in batch],
            [row.salt for row in batch],
        )
    return len(rows) / (time.perf_counter() - began)


async def _rounds(url: str, directory: Path) -> tuple[list[float], ...]:
    pool = await open_pool(url, size=2, timeout_seconds=60.0)
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE TABLE bench_trail (chain_id uuid, seq bigint, event_id uuid, kind text, prev_hash bytea,"
        " commitment bytea, row_hash bytea, payload bytea, salt bytea, PRIMARY KEY (chain_id, seq),"
        " UNIQUE (chain_id, event_id))"
    )
    copied, psql, stored, trail, unnested = [], [], [], [], []
    text = directory / "samples.tsv"
    for number in range(ROUNDS):
        copied.append(await _write_samples(pool, _samples(number)))
        if number == 0:
            await connection.copy_from_query("SELECT * FROM job_samples", output=str(text))
        psql.append(await asyncio.to_thread(_psql_copy, url, text))
        await connection.execute("TRUNCATE job_samples")
        events = _events(str(uuid.uuid4()), EMPTY_CHAIN, number * EVENTS + 1)
        stored.append(await _store(pool, events, trail_only=None))
        alone = _events(str(uuid.uuid4()), EMPTY_CHAIN, number * EVENTS + 1)
        trail.append(await _store(pool, alone, trail_only=TRAIL_ONLY))
        unnested.append(await _unnest(connection, events))
    await connection.close()
    await close_pool(pool, timeout_seconds=5.0)
    return copied, psql, stored, trail, unnested


def measure() -> list[Figure]:
    """Medians of interleaved rounds on an embedded PostgreSQL 18 with its default, durable settings."""
    with (
        tempfile.TemporaryDirectory(prefix="jobtrail-bench-pg-") as name,
        embedded_postgres.running(Path(name) / "postgres") as url,
    ):
        migrate.upgrade(url)
        rounds = asyncio.run(_rounds(url, Path(name)))
    copied, psql, stored, trail, unnested = (statistics.median(values) for values in rounds)
    return [
        Figure(
            what="sample rows into PostgreSQL",
            value=copied,
            unit="rows/s",
            reference="psql \\copy, text",
            reference_value=psql,
            target="≥ 0.6 × reference",
            met=at_least(0.6, copied / psql),
        ),
        Figure(
            what="trail rows into PostgreSQL",
            value=trail,
            unit="rows/s",
            reference="plain unnest of the same bytes",
            reference_value=unnested,
            target="≥ 0.7 × reference",
            met=at_least(0.7, trail / unnested),
        ),
        Figure(
            what="events into PostgreSQL: trail, snapshots and a new job each",
            value=stored,
            unit="rows/s",
            reference="plain unnest of the trail's bytes",
            reference_value=unnested,
        ),
    ]

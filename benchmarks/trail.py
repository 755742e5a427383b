"""The trail recomputed: by the daemon against the database, and by the script that needs neither."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.database import EVENT_BATCH, EVENTS, _events
from benchmarks.figures import Figure
from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.postgres import (
    PostgresSeals,
    PostgresSink,
    PostgresVerifier,
    close_pool,
    migrate,
    open_pool,
)
from jobtrail.adapters.postgres.export import PostgresExport, encoded
from jobtrail.core.ports import TRAIL_ONLY
from jobtrail.core.trail.sealer import Sealer
from jobtrail.domain.audit import EMPTY_CHAIN, commit, hash_row

CHAINS = 8
SCRIPT = Path(__file__).parents[1] / "scripts" / "verify_trail.py"


async def _leads() -> bool:
    return True


async def _measured(url: str, directory: Path) -> tuple[float, float, Path]:
    """Rows a second of sealing and of verifying, and an export."""
    pool = await open_pool(url, size=2, timeout_seconds=60.0)
    sink = PostgresSink(pool, timeout_seconds=60.0)
    for number in range(CHAINS):
        rows = _events(str(uuid.uuid4()), EMPTY_CHAIN, number * EVENTS + 1)
        for start in range(0, len(rows), EVENT_BATCH):
            await sink.store(rows[start : start + EVENT_BATCH], node=f"bench{number}", trail_only=TRAIL_ONLY)
    sealer = Sealer(
        PostgresSeals(pool, timeout_seconds=60.0), leads=_leads, signer=None, anchors=None, clock=SystemClock(),
        tell=lambda _fact: None, every_seconds=60.0,
    )  # fmt: skip
    began = time.perf_counter()
    await sealer.turn()
    sealed = CHAINS * EVENTS / (time.perf_counter() - began)
    began = time.perf_counter()
    checked = await PostgresVerifier(pool, timeout_seconds=60.0).verify(full=True)
    verified = checked.rows / (time.perf_counter() - began)
    assert not checked.findings
    path = directory / "export.jsonl"
    with path.open("wb") as file:
        async for line in PostgresExport(pool, timeout_seconds=60.0).trail():
            file.write(encoded(line))
    await close_pool(pool, timeout_seconds=5.0)
    return sealed, verified, path


def _offline(path: Path) -> float:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, str(SCRIPT), str(path), "--json"], check=True, capture_output=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return float(result["rows"] / (time.perf_counter() - began))


def _hashing() -> float:
    """Rows a second of the two hashes of each row's own content alone, in one thread."""
    rows = _events(str(uuid.uuid4()), EMPTY_CHAIN, 1)
    began = time.perf_counter()
    for row in rows:
        commit(row.salt, row.payload)
        hash_row(row.chain_id, row.seq, row.prev_hash, row.time_us, row.kind, row.event_id, row.commitment)
    return len(rows) / (time.perf_counter() - began)


def measure() -> list[Figure]:
    """One round over 24,000 rows on an embedded PostgreSQL."""
    with (
        tempfile.TemporaryDirectory(prefix="jobtrail-bench-trail-") as name,
        embedded_postgres.running(Path(name) / "postgres") as url,
    ):
        migrate.upgrade(url)
        sealed, verified, export = asyncio.run(_measured(url, Path(name)))
        offline = _offline(export)
    reference, hashing = "the row's and the payload's hash alone, in memory", _hashing()
    return [
        Figure(what=what, value=value, unit="rows/s", reference=reference, reference_value=hashing)
        for what, value in (
            ("trail rows recomputed for a checkpoint", sealed),
            ("trail rows verified with their payloads, by the daemon", verified),
            ("trail rows verified with their payloads, by the script", offline),
        )
    ]

"""The real daemon with a login that has its two roles only: it seals, verifies, witnesses; a change is found."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jobtrail.adapters.anchor_file import read_all
from jobtrail.adapters.signing import generate
from tests.daemon_process import Daemon, wait_until
from tests.postgres import PostgresServer
from tests.sealed_trail import as_superuser, verify_offline


@pytest.fixture
def daemon(postgres_server: PostgresServer, database: str) -> Iterator[Daemon]:
    postgres_server.execute("CREATE ROLE server_login LOGIN IN ROLE jobtrail_ingest, jobtrail_sealer")
    with tempfile.TemporaryDirectory(prefix="jobtrail-sealed-") as name:
        directory = Path(name)
        generate(directory / "seal.key")
        with Daemon(
            directory / "daemon",
            scheduler="local",
            database={"url": database.replace("//postgres@", "//server_login@")},
            audit={
                "seal_seconds": 0.3, "verify_seconds": 0.3, "heartbeat_seconds": 0.5,
                "signing_key_file": str(directory / "seal.key"), "anchor_file": str(directory / "anchors.jsonl"),
            },
        ) as running:  # fmt: skip
            yield running
    postgres_server.execute("DROP OWNED BY server_login")
    postgres_server.execute("DROP ROLE server_login")


def figure(daemon: Daemon, name: str, **labels: str) -> float | None:
    for found, value in daemon.metrics().get(name, []):
        if labels.items() <= found.items():
            return value
    return None


def audit(daemon: Daemon, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command as somebody with another login than the daemon's."""
    return subprocess.run(
        [sys.executable, "-m", "jobtrail", "audit", *words],
        env={**daemon.environment(), "JOBTRAIL_DATABASE__URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_trail_is_sealed_told_kept_and_verified_and_a_change_is_found(daemon: Daemon, database: str) -> None:
    directory = daemon.directory.parent
    anchors, kept = directory / "anchors.jsonl", daemon.spool / "checkpoints.jsonl"
    assert daemon.cli("exec", "--", "true").returncode == 0
    wait_until(lambda: (figure(daemon, "jobtrail_audit_checkpoint_number") or 0) >= 3, "three checkpoints")
    wait_until(lambda: figure(daemon, "jobtrail_audit_last_verified_timestamp_seconds", kind="incremental"), "verified")
    wait_until(lambda: kept.exists() and len(list(read_all(kept))) >= 2, "the node to keep what it is told")
    told = list(read_all(kept))  # the daemon goes on sealing, and a node may be told of a checkpoint before the file is
    newest = told[-1].checkpoint.number
    wait_until(lambda: any(one.checkpoint.number == newest for one in read_all(anchors)), "the file to have the newest")
    by_number = {one.checkpoint.number: one for one in read_all(anchors)}
    assert all(by_number[one.checkpoint.number] == one for one in told)
    assert all(one.signature is not None for one in by_number.values())
    with psycopg.connect(database, autocommit=True) as connection:
        beat = "SELECT 1 FROM audit_log WHERE kind = 'chain_heartbeat'"
        wait_until(lambda: connection.execute(beat).fetchone(), "a heartbeat of the chain in which nothing happens")
    witnessed = directory / "witnessed.jsonl"
    witnessed.write_bytes(kept.read_bytes())  # the daemon goes on sealing while the trail is written out
    assert audit(daemon, database, "export", "-o", str(directory / "trail.jsonl")).returncode == 0
    found = verify_offline(directory / "trail.jsonl", anchors=witnessed, key=directory / "seal.key.pub")
    assert (found["findings"], found["anchored_up_to"] >= 2) == ([], True)

    as_superuser(database, "UPDATE audit_log SET changed_at = changed_at + interval '1 s' WHERE seq = 2")
    done = audit(daemon, database, "verify", "--full", "--anchors", str(anchors))
    assert done.returncode == 1
    assert "row_changed" in done.stdout
    assert "sequence 2" in done.stdout

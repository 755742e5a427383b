"""Trails for tests: stored through the sink, sealed by the sealer, exported, verified without the daemon."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from jobtrail.adapters.anchor_file import AnchorFile
from jobtrail.adapters.postgres import PostgresSeals, PostgresSink, close_pool, open_pool
from jobtrail.adapters.postgres.export import PostgresExport, encoded
from jobtrail.adapters.signing import FileSigner, generate
from jobtrail.core.trail.sealer import Sealer
from tests.chains import ChainWriter
from tests.fakes import Facts, FakeClock

SCRIPT = Path(__file__).parents[1] / "scripts" / "verify_trail.py"
NODES = ("n1", "n2", "n3")


async def yes() -> bool:
    return True


class TrailBench:
    """One database with chains of some nodes, and a sealer that leads."""

    def __init__(self, pool: Any, directory: Path, *, signed: bool = True, anchored: bool = True) -> None:
        self.directory = directory
        self.clock, self.facts = FakeClock(), Facts()
        self.anchors = directory / "anchors.jsonl"
        self.key = directory / "seal.key"
        if signed and not self.key.exists():
            generate(self.key)
        self._signer = FileSigner.load(self.key) if signed else None
        self._anchors = AnchorFile(self.anchors) if anchored else None
        self.writers = {node: ChainWriter(node) for node in NODES}
        self._jobs = 0
        self.use(pool)

    def use(self, pool: Any) -> None:
        """Go on with the same database on another pool, as after a restart."""
        self.pool = pool
        self.sealer = Sealer(
            PostgresSeals(pool, timeout_seconds=10.0),
            leads=yes,
            signer=self._signer,
            anchors=self._anchors,
            clock=self.clock,
            tell=self.facts,
            every_seconds=60.0,
        )

    async def jobs(self, count: int = 1, nodes: Iterable[str] = NODES) -> None:
        """Whole jobs on each node."""
        for node in nodes:
            writer = self.writers[node]
            known = len(writer.rows)
            for _ in range(count):
                self._jobs += 1
                writer.whole_job(f"slurm-{self._jobs}", exit_code=self._jobs % 3)
            await PostgresSink(self.pool, timeout_seconds=10.0).store(writer.rows[known:], node=node)

    async def seal(self) -> None:
        """One turn of the sealer."""
        self.clock.advance(60.0)
        await self.sealer.turn()

    async def sealed_story(self, checkpoints: int = 3) -> None:
        """Some jobs on each node before each of some checkpoints."""
        for _ in range(checkpoints):
            await self.jobs(2)
            await self.seal()


async def export(url: str, path: Path) -> Path:
    """The whole trail of a database as a file."""
    pool = await open_pool(url, size=1, timeout_seconds=10.0)
    try:
        with path.open("wb") as file:
            async for line in PostgresExport(pool, timeout_seconds=10.0).trail():
                file.write(encoded(line))
    finally:
        await close_pool(pool, timeout_seconds=5.0)
    return path


def verify_offline(
    exported: Path, *, anchors: Path | None = None, key: Path | None = None, accepted: Iterable[str] = ()
) -> dict[str, Any]:
    """What the script finds; its exit code is held to what it prints."""
    command = [sys.executable, str(SCRIPT), str(exported), "--json"]
    command += ["--anchors", str(anchors)] if anchors is not None else []
    command += ["--public-key", str(key)] if key is not None else []
    command += [word for chain in accepted for word in ("--accept-chain", chain)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, 1), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 1) == bool(result["findings"])
    return result


def places(findings: Iterable[Any]) -> set[tuple[Any, ...]]:
    """Code and place of findings, of the script's and of the daemon's alike."""
    names = ("code", "chain_id", "seq", "checkpoint")
    return {tuple(one[name] if isinstance(one, dict) else getattr(one, name) for name in names) for one in findings}


def as_superuser(url: str, *statements: str | tuple[str, Any]) -> None:
    """Run statements with every trigger of the trail off, as only the tables' owner and a superuser can."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND relname ~ '^audit_'"
            " AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for (table,) in tables:
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL".encode())
        for statement in statements:
            text, values = (statement, None) if isinstance(statement, str) else statement
            connection.execute(text.encode(), values)

"""docs/client.md: its example runs, and it names every method that there is."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters.postgres import PostgresReader
from jobtrail.client import Client
from tests.adapters.stored_jobs import served_from, store, stories

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
SOCKET = "/run/jobtrail/poke.sock"


async def test_the_example_runs(tmp_path: Path, pool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the real API on a real database with two failed jobs."""
    await store(pool, [stories()[0]])
    (example,) = re.findall(r"```python\n(.+?)```", TEXT, re.S)
    async with served_from(pool, tmp_path, jobs=PostgresReader(pool, timeout_seconds=10.0)) as api:
        assert example.count(SOCKET) == 1
        program = compile(example.replace(SOCKET, api.settings.socket), "docs/client.md", "exec")
        await asyncio.to_thread(exec, program, {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["slurm-3", "slurm-1", "404"]
    assert "exit code 1" in lines[0]
    assert lines[-1] == "404 not_found"


def test_every_method_is_named() -> None:
    table = TEXT.partition("## What it can ask")[2]
    named = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    there = {name for name in dir(Client) if not name.startswith("_")} - {"where", "check"}
    assert named == there

"""A reader of benchmark runs that holds one run and notes what it is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jobtrail.core.benchmarks.ports import RunFilter
from jobtrail.domain.errors import NotFound

UID = "6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21"
SECRET = "/home/alice/secret"
ROW: dict[str, Any] = {
    "run_uid": UID, "recipe": "chat", "model": "=HYPERLINK(1)", "status": "ok", "error_ratio": None, "gain": -0.5,
    "started_at": datetime(2026, 11, 21, 8, tzinfo=UTC), "accepted": False, "notes": ["a", "b"],
    "user_name": "a\tb,\"c\"", "tool": "-v",
}  # fmt: skip


class ScriptedRuns:
    """A BenchmarkReader that holds one run, reported by `owner`."""

    def __init__(self, owner: int | None = None, *, status: str = "ok") -> None:
        self.owner = owner
        self.status = status
        self.asked: list[tuple[Any, ...]] = []
        self.problem: Exception | None = None

    async def list_runs(self, wanted: RunFilter, *, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        await self._note("list", wanted, limit, offset)
        return [ROW], 41

    async def show_run(self, run_uid: str) -> dict[str, Any]:
        await self._note("show", run_uid)
        if not UID.startswith(run_uid):
            raise NotFound(f"no benchmark run {run_uid} is stored")
        private = dict.fromkeys(("argv", "files", "claims", "recipe_body"), SECRET)
        details = {"uid": self.owner, "node": "n1", "parameters": {"dtype": "bfloat16"}, **private}
        return {
            **ROW,
            "status": self.status,
            "metrics": [],
            "repeats": [],
            "links": [],
            "energies": [],
            "verdicts": [],
            "details": details,
        }

    async def leaderboard(self, metric: str, stat: str, wanted: RunFilter, *, limit: int) -> list[dict[str, Any]]:
        await self._note("leaderboard", metric, stat, wanted, limit)
        return [{"rank": 1, "value": 2.5, **ROW}]

    async def compare(self, one: str, other: str) -> dict[str, Any]:
        await self._note("compare", one, other)
        return {"one": ROW, "other": ROW, "metrics": []}

    async def _note(self, *question: Any) -> None:
        self.asked.append(question)
        if self.problem is not None:
            raise self.problem

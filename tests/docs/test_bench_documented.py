"""docs/cli.md names every command of `bench` that people call."""

from __future__ import annotations

import re
from pathlib import Path

from jobtrail.cli.bench.commands import HIDDEN, MODULES

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def test_every_command_is_documented() -> None:
    rows = [cell for line in TEXT.splitlines() if (cell := line.partition("|")[2].partition("|")[0])]
    words = {word for row in rows if "jobtrail bench " in row for word in re.findall(r"\b[a-z]+\b", row)}
    assert [name for name in MODULES if name not in HIDDEN and name not in words] == []
    assert not words & set(HIDDEN)

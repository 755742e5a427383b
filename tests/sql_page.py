"""The queries of docs/sql.md, by their titles."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "docs" / "sql.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
QUERIES: dict[str, str] = {
    query.strip().partition("\n")[0].removeprefix("-- "): query.strip().removesuffix(";")
    for block in BLOCKS
    for query in block.split(";\n")
    if query.strip()
}


def role_of(title: str) -> str:
    """Who may run the query."""
    return "jobtrail_auditor" if "(auditor)" in title else "jobtrail_reader"

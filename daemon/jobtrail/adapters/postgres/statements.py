"""The SQL of this package: one query a file in `queries/`, described in its first line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

DIRECTORY = Path(__file__).parent / "queries"


def _read_all() -> Mapping[str, str]:
    return MappingProxyType({path.stem: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.sql")})


# Read when the package is loaded, so that no event loop ever waits for a file.
SQL = _read_all()

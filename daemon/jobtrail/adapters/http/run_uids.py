"""How a benchmark's run is named in an address: by its UUID, or by a beginning of it."""

from __future__ import annotations

import re

from jobtrail.adapters.http import query

ALLOWED = "must be a run's UUID or its first 8 or more characters"
_UID = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,28}")


def run_uid(field: str, text: str) -> str:
    """The name in its canonical small letters. Raises Refused naming `field`."""
    if not _UID.fullmatch(text.lower()):
        raise query.invalid(field, f"{ALLOWED}, not {text[:64]!r}")
    return text.lower()

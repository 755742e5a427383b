"""Values that tell when they were damaged: SQLite checks the structure of its pages, not what is written in them."""

from __future__ import annotations

import hashlib


def seal(payload: bytes) -> bytes:
    """`payload` behind its SHA-256."""
    return hashlib.sha256(payload).digest() + payload


def unseal(sealed: object) -> bytes | None:
    """What was sealed, or None when it is not that any more."""
    if not isinstance(sealed, bytes):
        return None
    payload = sealed[32:]
    return payload if hashlib.sha256(payload).digest() == sealed[:32] else None

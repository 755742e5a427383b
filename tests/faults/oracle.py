"""The oracle file: what the daemon owes. One JSON object a line, each flushed before anything else happens.

`{"sent": id, …}` is written before the event is first sent, `{"ack": id, …}` after the answer 2xx was read whole,
`{"refused": id, "status": n}` for every other answer. Of the standard library only, as whoever judges must trust it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class OracleWriter:
    """Appends to an oracle file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def sent(self, event_id: str, **details: Any) -> None:
        """The event is about to be sent for the first time."""
        self._write({"sent": event_id, **details})

    def ack(self, event_id: str, **details: Any) -> None:
        """The daemon answered 2xx: from now on it owes this event."""
        self._write({"ack": event_id, **details})

    def refused(self, event_id: str, status: int) -> None:
        """The daemon answered, and took on nothing."""
        self._write({"refused": event_id, "status": status})

    def _write(self, record: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(record).encode() + b"\n")
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Be done with it."""
        os.close(self._descriptor)


@dataclass
class Obligations:
    """What oracle files say: by event id what was sent, and the answers that came."""

    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    acks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    refusals: dict[str, list[int]] = field(default_factory=dict)

    @property
    def owed(self) -> set[str]:
        """Ids of events that must be in the trail exactly once."""
        return set(self.acks)

    def seconds(self) -> list[float]:
        """How long each acknowledgement took, of the try that got it."""
        return sorted(ack["seconds"] for acks in self.acks.values() for ack in acks if "seconds" in ack)


def read(*paths: Path) -> Obligations:
    """The obligations in oracle files; a last line that was cut off counts for nothing."""
    found = Obligations()
    for path in paths:
        for record in _records(path):
            if "sent" in record:
                found.sent.setdefault(record["sent"], record)
            elif "ack" in record:
                found.acks.setdefault(record["ack"], []).append(record)
            else:
                found.refusals.setdefault(record["refused"], []).append(record["status"])
    return found


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)


def fingerprint(records: list[bytes]) -> str:
    """SHA-256 over `KEY=VALUE` records, whatever their order: the payload that was sent, and the one that is held."""
    return hashlib.sha256(b"\0".join(sorted(records))).hexdigest()

"""The judge: a process that reads PostgreSQL and the oracle files and says what became of each obligation.

It imports nothing of the daemon's: the layout of a row's hash stands here a second time, written from docs/promises.md
and the comments of the tables, so that a mistake in the daemon's own code cannot hide itself. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.oracle import Obligations, fingerprint, read

ROW_TAG = b"jobtrail-audit-row-v1\x00"
PAYLOAD_TAG = b"jobtrail-audit-payload-v1\x00"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SENDERS = ("slurm-prolog", "slurm-epilog", "slurm-controller")
ROWS = """
    SELECT log.chain_id, log.seq, log.event_id, log.kind, log.prev_hash, log.commitment, log.row_hash, log.changed_at,
           log.changed_by, load.payload, load.salt
    FROM audit_log AS log LEFT JOIN audit_payload AS load USING (chain_id, seq)
    ORDER BY log.chain_id, log.seq
"""


@dataclass
class Findings:
    """What the judge found. Every list must be empty."""

    sent: int = 0
    acknowledged: int = 0
    stored: int = 0  # of the producer's events
    rows: int = 0
    chains: int = 0
    lost: list[str] = field(default_factory=list)  # I1: acknowledged and not in the trail
    duplicated: list[str] = field(default_factory=list)  # I1: more than once in the trail
    invented: list[str] = field(default_factory=list)  # I2: in the trail and never sent
    altered: list[str] = field(default_factory=list)  # I3: held with another payload than was sent
    broken: list[str] = field(default_factory=list)  # I4: a chain that does not hold together
    running: list[str] = field(default_factory=list)  # I5: a job that is over and not shown so
    conflicts: list[str] = field(default_factory=list)  # I10: the database was offered two events under one number
    gap_rows: int = 0  # I10: events of kind `gap` on record
    shed: dict[str, int] = field(default_factory=dict)  # I10: what they say was shed, by what it was


def judge(connection: psycopg.Connection[Any], owed: Obligations) -> Findings:
    """All of it, in one reading of the trail."""
    found = Findings(sent=len(owed.sent), acknowledged=len(owed.acks))
    times: Counter[str] = Counter()
    for row in _verified(connection, found):
        found.rows += 1
        event = json.loads(row["payload"]) if row["payload"] is not None else {}
        if event.get("kind") == "gap":
            _add_gap(found, event)
        if row["changed_by"] in SENDERS:
            _compare(found, owed, str(row["event_id"]), event)
            times[str(row["event_id"])] += 1
    found.stored = len(times)
    found.duplicated = sorted(event_id for event_id, count in times.items() if count > 1)
    found.lost = sorted(owed.owed - times.keys())
    found.running = sorted(_still_running(connection, owed, times.keys()))
    found.conflicts = [
        f"{chain}/{seq}: {reason}"
        for chain, seq, reason in connection.execute("SELECT chain_id, seq, reason FROM audit_conflict")
    ]
    return found


def _verified(connection: psycopg.Connection[Any], found: Findings) -> Iterator[dict[str, Any]]:
    """Every row of the trail; chains are checked link by link on the way, and against their recorded heads."""
    heads = {str(chain): (seq, bytes(head)) for chain, seq, head in
             connection.execute("SELECT chain_id, head_seq, head_hash FROM audit_chain")}  # fmt: skip
    ends: dict[str, tuple[int, bytes]] = {}
    with connection.cursor(name="rows", row_factory=psycopg.rows.dict_row) as cursor:
        cursor.itersize = 5000
        for row in cursor.execute(ROWS):
            chain = str(row["chain_id"])
            seq, prev = ends.get(chain, (0, bytes(32)))
            problem = _problem(row, seq, prev)
            if problem:
                found.broken.append(f"{chain}/{row['seq']}: {problem}")
            ends[chain] = (row["seq"], bytes(row["row_hash"]))
            yield row
    found.chains = len(ends)
    for chain in heads.keys() | ends.keys():
        if heads.get(chain, (0, bytes(32))) != ends.get(chain, (0, bytes(32))):
            found.broken.append(f"{chain}: its head {heads.get(chain)} is not its last row {ends.get(chain)}")


def _problem(row: dict[str, Any], before: int, prev: bytes) -> str | None:
    if row["seq"] != before + 1:
        return f"follows {before}"
    if bytes(row["prev_hash"]) != prev:
        return "does not name the row before it"
    if row["payload"] is None:
        return "has no payload"
    commitment = hashlib.sha256(PAYLOAD_TAG + bytes(row["salt"]) + bytes(row["payload"])).digest()
    if commitment != bytes(row["commitment"]):
        return "its payload is another than it committed to"
    kind = row["kind"].encode()
    layout = (
        row["chain_id"].bytes + struct.pack(">Q", row["seq"]) + prev
        + struct.pack(">QH", (row["changed_at"] - EPOCH) // timedelta(microseconds=1), len(kind)) + kind
        + row["event_id"].bytes + commitment
    )  # fmt: skip
    return None if hashlib.sha256(ROW_TAG + layout).digest() == bytes(row["row_hash"]) else "its hash is another"


def _compare(found: Findings, owed: Obligations, event_id: str, event: dict[str, Any]) -> None:
    sent = owed.sent.get(event_id)
    if sent is None:
        found.invented.append(event_id)
    elif fingerprint(list(_records(event))) != sent["sha"]:
        found.altered.append(event_id)


def _records(event: dict[str, Any]) -> Iterator[bytes]:
    """The variables as they were sent, byte for byte."""
    escaped = set(event.get("environment_escaped", ()))
    for name, value in event.get("environment", {}).items():
        raw = value.encode()
        if name in escaped:
            raw = re.sub(
                rb"\\(?:(\\)|x([0-9a-f]{2}))", lambda found: found[1] or bytes([int(found[2], 16)]), raw
            )  # fmt: skip
        yield name.encode() + b"=" + raw


def _add_gap(found: Findings, event: dict[str, Any]) -> None:
    found.gap_rows += 1
    for what, count in event.get("gap", {}).get("shed", {}).items():
        found.shed[what] = found.shed.get(what, 0) + count


def _still_running(connection: psycopg.Connection[Any], owed: Obligations, stored: Any) -> Iterator[str]:
    """Jobs whose epilog the trail has, and those whose prolog it has and the table does not."""
    states = dict(connection.execute("SELECT job_id, array_agg(state) FROM jobs GROUP BY job_id").fetchall())
    for event_id in owed.acks:
        sent = owed.sent[event_id]
        if sent.get("kind") not in ("job_started", "job_finished") or event_id not in stored:
            continue
        held = states.get(f"slurm-{sent['job']}")
        if held is None:
            yield f"slurm-{sent['job']}: no row in jobs"
        elif sent["kind"] == "job_finished" and "running" in held:
            yield f"slurm-{sent['job']}"


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("oracles", nargs="*", type=Path)
    options = parser.parse_args(given)
    with psycopg.connect(options.url) as connection:
        found = judge(connection, read(*options.oracles))
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

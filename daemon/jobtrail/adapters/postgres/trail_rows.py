"""Rows of the trail as those who recompute them need them."""

from __future__ import annotations

from typing import Any

from jobtrail.adapters.postgres.anchors import to_us
from jobtrail.domain.store_chain import StoreNote
from jobtrail.domain.verification import TrailRow


def trail_row(row: Any, *, payload: bool = False) -> TrailRow:
    """A row of `audit_log`, with that of `audit_payload` where it was asked for."""
    note = StoreNote(
        received_us=to_us(row["received_at"]),
        stored_us=to_us(row["stored_at"]),
        changed_by=row["changed_by"],
        source=row["source"],
        change_type=row["change_type"],
        cluster_name=row["cluster_name"],
        job_id=row["job_id"],
        run=row["run"],
        node=row["node"],
        correlation_id=row["correlation_id"],
        unapplied=row["unapplied"],
        request_id=row["request_id"],
    )
    return TrailRow(
        chain_id=row["chain_id"],
        seq=row["seq"],
        event_id=row["event_id"],
        kind=row["kind"],
        time_us=to_us(row["changed_at"]),
        prev_hash=row["prev_hash"],
        commitment=row["commitment"],
        row_hash=row["row_hash"],
        note=note,
        snapshot_commitment=row["snapshot_commitment"],
        store_hash=row["store_hash"],
        payload=row["payload"] if payload else None,
        salt=row["salt"] if payload else None,
        snapshot=row["snapshot"] if payload else None,
        person=row["person"] if payload else None,
        sent_by=row["sent_by"] if payload else None,
    )

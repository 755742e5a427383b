"""The part of the composition that seals the trail, verifies it, and keeps what the store answers of it."""

from __future__ import annotations

import uuid
from pathlib import Path

from jobtrail.adapters.anchor_file import AnchorFile
from jobtrail.adapters.signing import FileSigner
from jobtrail.composition.slurm_role import Leads
from jobtrail.composition.storage import Store
from jobtrail.config import Config
from jobtrail.core.access.retention import SecurityRetention
from jobtrail.core.facts import Observer
from jobtrail.core.ports import Clock, EventIntake, EventSpool
from jobtrail.core.trail.heartbeat import Heartbeat
from jobtrail.core.trail.own_events import OwnEvents
from jobtrail.core.trail.sealer import Sealer
from jobtrail.core.trail.verifying import Verifying
from jobtrail.core.trail.witness import Witness

WITNESSED_FILE = "checkpoints.jsonl"
WITNESSED_LINES = 4096


def make_auditors(
    config: Config, store: Store, *, leads: Leads, clock: Clock, tell: Observer
) -> tuple[Sealer | Verifying | SecurityRetention, ...]:
    """What seals the trail, recomputes it, and ends the record of who was turned away; nothing where this is no server.

    Raises ConfigError for a key that cannot be used.
    """
    if "server" not in config.roles:
        return ()
    audit = config.audit
    sealer = Sealer(
        store.seals,
        leads=leads,
        signer=FileSigner.load(Path(audit.signing_key_file)) if audit.signing_key_file else None,
        anchors=AnchorFile(Path(audit.anchor_file)) if audit.anchor_file else None,
        clock=clock,
        tell=tell,
        every_seconds=audit.seal_seconds,
    )
    verifying = Verifying(
        store.verifier,
        leads=leads,
        clock=clock,
        tell=tell,
        every_seconds=audit.verify_seconds,
        full_seconds=audit.full_verify_seconds,
    )
    retention = SecurityRetention(store.old_security, leads=leads, tell=tell, keep_days=audit.security_retention_days)
    return sealer, verifying, retention


def make_own_events(config: Config, *, intake: EventIntake, clock: Clock) -> OwnEvents:
    """What this daemon says of itself and its chain."""
    return OwnEvents(
        intake,
        node=config.node_name,
        cluster=config.cluster,
        clock=clock,
        new_event_id=lambda: str(uuid.uuid4()),
    )


def make_heartbeat(config: Config, *, spool: EventSpool, events: OwnEvents, tell: Observer) -> Heartbeat:
    """What keeps this daemon's chain from falling silent."""
    return Heartbeat(spool, events, tell=tell, every_seconds=config.audit.heartbeat_seconds)


def make_witness(config: Config, *, spool: EventSpool, events: OwnEvents, tell: Observer) -> Witness:
    """What checks and keeps the checkpoints that come with the store's answers, beside the spool."""
    kept = AnchorFile(Path(config.spool.directory) / WITNESSED_FILE, keep_lines=WITNESSED_LINES)
    return Witness(spool, events, kept, tell=tell)

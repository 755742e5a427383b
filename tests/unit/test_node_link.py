"""Whom an event speaks for, as a server sees it."""

import msgspec
import pytest

from jobtrail.core.forwarder import BATCH_BYTES, BATCH_EVENTS
from jobtrail.core.node_link import MAX_BODY_BYTES, MAX_EVENTS, MAX_ROWS, EventBatch, foreign_event
from jobtrail.core.sample_buffer import BATCH_ROWS
from tests.chains import ChainWriter


def test_the_first_event_of_another_node_is_found() -> None:
    writer, other = ChainWriter("n1"), ChainWriter("n2", chain_id="6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21")
    writer.whole_job("slurm-1")
    assert foreign_event(writer.rows, "n1") is None
    assert foreign_event(writer.rows, "n2") == (1, "n1")
    other.started("slurm-1")
    assert foreign_event([*writer.rows, *other.rows], "n1") == (1, "n2")


@pytest.mark.parametrize("payload", [b"\xff", b"[]", b'{"node":7}', b"", b'{"cluster":"c1"}'])
def test_bytes_that_are_no_event_speak_for_nobody(payload: bytes) -> None:
    writer = ChainWriter("n1")
    writer.raw(payload)
    assert foreign_event(writer.rows, "n9") is None


def test_what_a_node_sends_at_a_time_a_server_takes() -> None:
    """Each side has bounds of its own; the node's must lie below."""
    assert BATCH_EVENTS <= MAX_EVENTS
    assert BATCH_ROWS <= MAX_ROWS
    writer = ChainWriter()
    for _ in range(BATCH_EVENTS):
        writer.raw(b"x" * (BATCH_BYTES // BATCH_EVENTS))
    largest = len(msgspec.msgpack.encode(EventBatch(events=tuple(writer.rows)))) + (1 << 20)  # one event may exceed
    assert largest < MAX_BODY_BYTES

"""The bounds of the node link."""

import msgspec

from jobtrail.core.forwarder import BATCH_BYTES, BATCH_EVENTS
from jobtrail.core.link.protocol import MAX_BODY_BYTES, MAX_EVENTS, MAX_ROWS, EventBatch
from jobtrail.core.sample_buffer import BATCH_ROWS
from tests.chains import ChainWriter


def test_what_a_node_sends_at_a_time_a_server_takes() -> None:
    """Each side has bounds of its own; the node's must lie below."""
    assert BATCH_EVENTS <= MAX_EVENTS
    assert BATCH_ROWS <= MAX_ROWS
    writer = ChainWriter()
    for _ in range(BATCH_EVENTS):
        writer.raw(b"x" * (BATCH_BYTES // BATCH_EVENTS))
    largest = len(msgspec.msgpack.encode(EventBatch(events=tuple(writer.rows)))) + (1 << 20)  # one event may exceed
    assert largest < MAX_BODY_BYTES

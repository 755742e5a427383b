"""The hash chain: what it covers, and that its layout never changes unnoticed."""

import hashlib
import struct
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.audit import (
    EMPTY_CHAIN,
    SALT_BYTES,
    ChainedEvent,
    ChainHead,
    broken_link,
    commit,
    hash_row,
    link,
)

CHAIN = "6f1a8a52-60f4-4d0e-9d0b-6a1b5e7c9d21"
EVENT = "0b8f3c6e-2d0a-4f57-8a43-9f1e6cbb0a11"
SALT = bytes(range(SALT_BYTES))
PAYLOAD = b'{"kind":"job_started"}'


def make(head: ChainHead = EMPTY_CHAIN, event_id: str = EVENT, kind: str = "job_started") -> ChainedEvent:
    return link(
        head,
        chain_id=CHAIN,
        event_id=event_id,
        kind=kind,
        time_us=1_760_000_000_000_000,
        received_us=1_760_000_000_000_123,
        payload=PAYLOAD,
        salt=SALT,
    )


def test_the_layout_is_pinned() -> None:
    """Chains written by any release verify with any other: these literals may never change."""
    row = make()
    assert row.commitment.hex() == "a433d6efb28e05154273c155acccbd7bf5c1b57f9470fb680d7cc42aae8cdfc4"
    assert row.row_hash.hex() == "e767e697ad2c47d916b3d01f8bd37ef7ecd67b3ac552e112f06a81c3c1be3cba"
    assert (row.seq, row.prev_hash) == (1, bytes(32))


def test_the_layout_is_the_documented_one() -> None:
    """Rebuilt here from the documentation, byte by byte, as an auditor's own program would."""
    row = make(ChainHead(41, b"\x01" * 32))
    commitment = hashlib.sha256(b"jobtrail-audit-payload-v1\x00" + SALT + PAYLOAD).digest()
    layout = (
        b"jobtrail-audit-row-v1\x00"
        + uuid.UUID(CHAIN).bytes
        + (42).to_bytes(8, "big")
        + b"\x01" * 32
        + (1_760_000_000_000_000).to_bytes(8, "big")
        + len(b"job_started").to_bytes(2, "big")
        + b"job_started"
        + uuid.UUID(EVENT).bytes
        + commitment
    )
    assert row.row_hash == hashlib.sha256(layout).digest()


def flips(value: object) -> Iterator[object]:
    """Every value that differs from `value` in one bit and is still of its type."""
    if isinstance(value, bytes):
        for bit in range(len(value) * 8):
            flipped = bytearray(value)
            flipped[bit // 8] ^= 1 << bit % 8
            yield bytes(flipped)
    elif isinstance(value, str):
        for changed in flips(value.encode()):
            assert isinstance(changed, bytes)
            try:
                yield changed.decode()
            except UnicodeDecodeError:
                continue
    else:
        assert isinstance(value, int)
        for bit in range(64):
            yield value ^ 1 << bit


HASHED = [name for name in ChainedEvent.__struct_fields__ if name != "received_us"]


@pytest.mark.parametrize("field", HASHED)
def test_any_changed_bit_of_any_field_is_found(field: str) -> None:
    """In the middle of a chain, each bit of each field; only the time of receipt is outside the hash."""
    head = ChainHead(1, make().row_hash)
    row = make(head, event_id="99999999-2d0a-4f57-8a43-9f1e6cbb0a11", kind="job_finished")
    assert broken_link(row, head) is None
    for changed in flips(getattr(row, field)):
        assert broken_link(msgspec.structs.replace(row, **{field: changed}), head) is not None, changed


@given(st.integers(0, 255), st.data())
def test_any_changed_bit_of_the_head_is_found(bit: int, data: st.DataObject) -> None:
    """A row removed, put in between or altered shows in the row after it."""
    head = ChainHead(1, make().row_hash)
    row = make(head)
    flipped = bytearray(head.row_hash)
    flipped[bit // 8] ^= 1 << bit % 8
    assert "previous hash" in (broken_link(row, ChainHead(1, bytes(flipped))) or "")
    seq = data.draw(st.integers(0, 2**63).filter(lambda seq: seq != 1))
    assert f"does not follow {seq}" in (broken_link(row, ChainHead(seq, head.row_hash)) or "")


def test_a_broken_row_is_told_with_its_sequence_and_what_is_wrong() -> None:
    row = make()
    cases: dict[str, dict[str, Any]] = {
        "payload differs from its commitment": {"payload": b"{}"},
        "row hash differs from its content": {"kind": "job_finished"},
        "not the canonical form": {"event_id": EVENT.upper()},
        "badly formed": {"chain_id": "no uuid"},
        "does not fit the layout": {"time_us": -1},
    }
    for words, change in cases.items():
        told = broken_link(msgspec.structs.replace(row, **change), EMPTY_CHAIN)
        assert told is not None
        assert told.startswith("sequence 1: ")
        assert words in told


def test_no_byte_passes_between_salt_and_payload() -> None:
    """The hash is over both, one after the other."""
    row = make()
    for salt, payload in ((row.salt[:-1], row.salt[-1:] + row.payload), (row.salt + row.payload[:1], row.payload[1:])):
        moved = msgspec.structs.replace(row, salt=salt, payload=payload)
        assert commit(salt, payload) == row.commitment
        assert "payload differs from its commitment" in (broken_link(moved, EMPTY_CHAIN) or "")


def test_ids_are_chained_in_their_canonical_form() -> None:
    """Two spellings of one id are one id."""
    assert make(event_id=EVENT.upper().replace("-", "")) == make()


def test_the_length_of_the_kind_is_part_of_the_layout() -> None:
    """So that no two rows share their bytes by moving the border between two fields."""

    def digest(kind: str, event_id: str) -> bytes:
        return hash_row(CHAIN, 1, bytes(32), 1, kind, event_id, bytes(32))

    one = digest("ab", EVENT)
    assert one != digest("a", EVENT)
    assert one != digest("ab", CHAIN)
    with pytest.raises(ValueError, match="does not fit"):
        digest("x" * 65536, EVENT)


def test_equal_payloads_have_unlike_commitments() -> None:
    """The salt hides what was erased: without it, a job's user is found by hashing a list of names."""
    assert commit(SALT, PAYLOAD) != commit(bytes(SALT_BYTES), PAYLOAD)


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_a_chain_of_links_holds(payloads: list[bytes]) -> None:
    head = EMPTY_CHAIN
    for payload in payloads:
        row = link(head, chain_id=CHAIN, event_id=EVENT, kind="é", time_us=5, received_us=6, payload=payload, salt=SALT)
        assert broken_link(row, head) is None
        head = ChainHead(row.seq, row.row_hash)
    assert head.seq == len(payloads)


def test_struct_packs_as_documented() -> None:
    """The layout relies on `>`: big-endian without padding."""
    assert struct.calcsize(">16sQ32sQH11s16s32s") == 16 + 8 + 32 + 8 + 2 + 11 + 16 + 32

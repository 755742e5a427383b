"""Recomputing rows and checkpoints: what is whole passes, each kind of break is told by its name and place."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.audit import ChainedEvent
from jobtrail.domain.checkpoint_check import CheckpointCheck, StoredCheckpoint, compare_anchors
from jobtrail.domain.checkpoints import ZERO_HASH, Checkpoint, Leaf, Sealed, merkle_root
from jobtrail.domain.store_chain import StoreNote, commit_snapshot, hash_note
from jobtrail.domain.verification import CODES, ChainCheck, Finding, Position, Removals, TrailRow
from tests.chains import ChainWriter


def stored(events: Sequence[ChainedEvent], *, hashed: bool = True) -> list[TrailRow]:
    """Rows as the database would hold them."""
    rows: list[TrailRow] = []
    previous = ZERO_HASH
    for event in events:
        note = StoreNote(received_us=event.received_us, stored_us=event.received_us + 5, node="n1", run=1,
                         changed_by="slurm-prolog", source="test", cluster_name="c1")  # fmt: skip
        shot = commit_snapshot(event.salt, '{"a": 1}', None, "ada") if hashed else None
        previous = hash_note(previous, event.row_hash, shot, note) if shot else ZERO_HASH
        rows.append(
            TrailRow(
                chain_id=event.chain_id, seq=event.seq, event_id=event.event_id, kind=event.kind, time_us=event.time_us,
                prev_hash=event.prev_hash, commitment=event.commitment, row_hash=event.row_hash, note=note,
                snapshot_commitment=shot, store_hash=previous if hashed else None, payload=event.payload,
                salt=event.salt, snapshot='{"a": 1}', sent_by="ada",
            )
        )  # fmt: skip
    return rows


def trail(count: int = 6, *, hashed: bool = True) -> list[TrailRow]:
    writer = ChainWriter()
    for number in range(count):
        payload = {"changed_by": "slurm-prolog", "source": "test", "node": "n1", "cluster": "c1", "n": number}
        writer.raw(json.dumps(payload).encode())
    return stored(writer.rows, hashed=hashed)


def check(rows: Sequence[TrailRow], removals: Removals | None = None) -> list[tuple[str, int | None]]:
    run = ChainCheck(rows[0].chain_id, Position(), removals or Removals())
    return [(one.code, one.seq) for row in rows for one in run.take(row)]


replace = msgspec.structs.replace


def test_what_is_whole_passes_and_leads_to_the_head() -> None:
    rows = trail()
    run = ChainCheck(rows[0].chain_id, Position())  # without payloads, as a sealer recomputes
    assert [run.take(row) for row in rows] == [[]] * 6
    head = Position(seq=6, row_hash=rows[-1].row_hash, store_hash=rows[-1].store_hash or b"")
    assert (run.position, run.good, run.rows) == (head, head, 6)
    leaf = head.leaf(rows[0].chain_id)
    assert Position.of(leaf) == head


CHANGES: list[tuple[dict[str, Any], set[tuple[str, int | None]]]] = [
    ({"kind": "other"}, {("row_changed", 3)}),
    ({"event_id": "no uuid"}, {("row_changed", 3)}),
    ({"prev_hash": b"x" * 32}, {("link_broken", 3), ("row_changed", 3)}),
    ({"payload": b"{}"}, {("payload_changed", 3)}),
    ({"payload": None}, {("payload_missing", 3)}),
    ({"salt": None}, {("payload_missing", 3)}),
    ({"snapshot": "{}"}, {("snapshot_changed", 3)}),
    ({"sent_by": "eve"}, {("snapshot_changed", 3)}),
    ({"store_hash": None}, {("hash_missing", 3)}),
    ({"snapshot_commitment": b"x" * 32}, {("columns_changed", 3), ("snapshot_changed", 3)}),
]


@pytest.mark.parametrize(("changes", "expected"), CHANGES)
def test_a_change_is_told_where_it_is(changes: dict[str, Any], expected: set[tuple[str, int | None]]) -> None:
    rows = trail()
    rows[2] = replace(rows[2], **changes)
    found = set(check(rows))
    assert expected <= found
    assert all(code in {"columns_changed", "hash_missing"} and seq == 4 for code, seq in found - expected)


@pytest.mark.parametrize("hashed", [True, False])
def test_a_byte_that_passes_from_the_salt_to_the_payload_is_told(hashed: bool) -> None:
    rows = trail(hashed=hashed)
    salt, payload = rows[2].salt, rows[2].payload
    assert salt is not None
    assert payload is not None
    rows[2] = replace(rows[2], salt=salt[:-1], payload=salt[-1:] + payload)
    assert ("payload_changed", 3) in check(rows)


@pytest.mark.parametrize("field", list(StoreNote.__struct_fields__))
def test_each_thing_the_store_noted_is_covered(field: str) -> None:
    rows = trail()
    note = rows[2].note
    other = getattr(note, field) + 1 if isinstance(getattr(note, field), int) else "forged"
    rows[2] = replace(rows[2], note=replace(note, **{field: other}))
    assert check(rows) == [("columns_changed", 3)]


def test_missing_rows_are_told_once_with_their_numbers() -> None:
    rows = trail()
    assert check([*rows[:2], *rows[3:]]) == [("row_missing", 3)]
    run = ChainCheck(rows[0].chain_id, Position())
    (finding,) = run.take(rows[3])
    assert "rows 1 to 3 are not there" in str(finding)
    assert run.good == Position()


def test_a_chain_is_good_up_to_its_first_break_only() -> None:
    rows = trail()
    rows[2] = replace(rows[2], kind="other")
    run = ChainCheck(rows[0].chain_id, Position())
    for row in rows:
        run.take(row)
    assert (run.good.seq, run.position.seq) == (2, 6)


def test_rows_without_the_stores_hashes_are_compared_with_their_payload() -> None:
    rows = trail(hashed=False)
    assert check(rows) == []
    rows[1] = replace(rows[1], note=replace(rows[1].note, node="n2"))
    assert check(rows) == [("columns_changed", 2)]
    for payload in (b"no json", b"[]"):
        writer = ChainWriter()
        writer.raw(payload)
        assert check(stored(writer.rows, hashed=False)) == []


@given(st.lists(st.sampled_from(range(8)), min_size=1, max_size=7, unique=True))
def test_any_rows_left_out_are_noticed_unless_they_are_the_last(gone: list[int]) -> None:
    rows = trail(8)
    left = [row for index, row in enumerate(rows) if index not in gone]
    is_tail = sorted(gone) == list(range(8 - len(gone), 8))
    assert bool(left and check(left)) == (not is_tail)


def test_what_was_removed_by_order_is_told_from_what_is_missing() -> None:
    rows = trail()
    chain = rows[0].chain_id
    removals = Removals()
    removals.add("payload_erased", {"ranges": [[chain, 2, 3]]}, 7)
    removals.add("chain_started", {}, 8)
    bare = [replace(row, payload=None, salt=None, snapshot=None) if row.seq in (2, 3, 5) else row for row in rows]
    run = ChainCheck(chain, Position(), removals)
    assert [(one.code, one.seq) for row in bare for one in run.take(row)] == [("payload_missing", 5)]
    assert run.removed == 2
    assert [removals.of_payload(chain, seq) for seq in (1, 2, 4)] == [None, 7, None]
    assert removals.of_payload("another chain", 2) is None
    assert removals.beginning(chain) == Position()


def test_a_pruned_chain_begins_behind_what_was_pruned() -> None:
    rows = trail()
    chain, last = rows[0].chain_id, rows[2]
    removals = Removals()
    hashes = [last.row_hash.hex(), (last.store_hash or b"").hex()]
    removals.add("trail_pruned", {"ranges": [[chain, 1, 3, *hashes]]}, 1)
    run = ChainCheck(chain, removals.beginning(chain), removals)
    assert [run.take(row) for row in rows[3:]] == [[], [], []]


@pytest.mark.parametrize("removal", [{}, {"ranges": [[1]]}, {"ranges": [["c", 1, 2, "zz", "zz"]]}])
def test_a_removal_that_is_none_is_refused(removal: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Removals().add("trail_pruned", removal, 1)


def test_a_finding_says_where() -> None:
    assert str(Finding(code="root_differs", detail="d", checkpoint=3)) == "root_differs: checkpoint 3: d"
    assert str(Finding(code="row_changed", detail="d", chain_id="c", seq=4)) == "row_changed: chain c, sequence 4: d"
    assert str(Finding(code="x", detail="d")) == "x: d"
    assert len(set(CODES)) == len(CODES)


# --- checkpoints


class OneKey:
    """Believes in signatures that are the key's id and the message's hash."""

    def check(self, key_id: str | None, signature: bytes, message: bytes) -> str | None:
        return None if signature == b"k" + hashlib.sha256(message).digest() else f"not that of {key_id}"


def checkpoints(count: int = 4, *, signed: bool = False) -> list[StoredCheckpoint]:
    made: list[StoredCheckpoint] = []
    before = ZERO_HASH
    for number in range(1, count + 1):
        leaf = Leaf(chain_id="00112233-4455-6677-8899-aabbccddeeff", head_seq=number, head_hash=b"h" * 32)
        one = Checkpoint(
            number=number, previous=before, root=merkle_root([leaf]), leaf_count=1, total_rows=number, time_us=number
        )
        before = one.digest()
        signature = b"k" + hashlib.sha256(one.encoded()).digest() if signed else None
        made.append(StoredCheckpoint(sealed=Sealed(checkpoint=one, signature=signature), digest=before, leaves=[leaf]))
    return made


def found(made: Sequence[StoredCheckpoint], **options: Any) -> list[tuple[str, int | None]]:
    run = CheckpointCheck(**options)
    return [(one.code, one.checkpoint) for each in made for one in run.take(each)]


def test_checkpoints_that_follow_each_other_pass() -> None:
    made = checkpoints()
    assert found(made) == []
    assert found(made[2:], before=made[1].sealed.checkpoint) == []
    run = CheckpointCheck()
    run.take(made[0])
    assert (run.newest, run.count) == (made[0].sealed.checkpoint, 1)


def test_breaks_among_checkpoints_are_told_by_number() -> None:
    made = checkpoints()
    assert found(made[1:]) == [("checkpoint_missing", 1)]
    assert found([made[0], made[3]]) == [("checkpoint_missing", 2)]
    assert found([made[0], replace(made[1], digest=b"x" * 32)]) == [("checkpoint_changed", 2)]
    other = replace(made[1].sealed.checkpoint, previous=b"x" * 32)
    unlinked = StoredCheckpoint(sealed=Sealed(checkpoint=other), digest=other.digest(), leaves=made[1].leaves)
    assert found([made[0], unlinked]) == [("checkpoint_changed", 2)]
    assert found([replace(made[0], leaves=[])]) == [("root_differs", 1)]
    (leaf,) = made[0].leaves
    assert found([replace(made[0], leaves=[replace(leaf, head_seq=9)])]) == [("root_differs", 1)]
    assert found([replace(made[0], leaves=[replace(leaf, head_hash=b"short")])]) == [("root_differs", 1)]


def test_from_the_first_signature_on_each_has_to_be_there_and_right() -> None:
    plain, signed = checkpoints(), checkpoints(signed=True)
    assert found(plain, keys=OneKey()) == []
    assert found(signed, keys=OneKey()) == []
    assert found([plain[0], *signed[1:3], plain[3]], keys=OneKey()) == [("signature_missing", 4)]
    wrong = replace(signed[1], sealed=replace(signed[1].sealed, signature=b"no"))
    assert found([signed[0], wrong], keys=OneKey()) == [("signature_wrong", 2)]
    assert found([signed[0], wrong]) == []  # nobody asked


def test_who_has_a_key_is_told_when_nothing_is_signed() -> None:
    """Or whoever makes all checkpoints anew would only have to leave the signatures out."""
    plain, signed = checkpoints(), checkpoints(signed=True)
    for made, options, expected in (
        (plain, {"keys": OneKey()}, [("signature_missing", 4)]),
        ([*plain[:3], signed[3]], {"keys": OneKey()}, []),
        (plain, {}, []),
        ([], {"keys": OneKey()}, []),
        ([], {"keys": OneKey(), "before": plain[0].sealed.checkpoint}, []),
    ):
        run = CheckpointCheck(**options)
        for one in made:
            run.take(one)
        assert [(one.code, one.checkpoint) for one in run.end()] == expected
    behind = {"keys": OneKey(), "before": signed[2].sealed.checkpoint, "signed": True}
    assert found(plain[3:], **behind) == [("signature_missing", 4)]


def test_anchors_are_held_against_what_is_there() -> None:
    made = checkpoints()
    held = {one.sealed.checkpoint.number: one.digest for one in made[:2]}
    anchors = [one.sealed for one in made]
    assert compare_anchors(anchors[:2], held, 2) == []
    (beyond,) = compare_anchors(anchors[2:3], held, 2)
    assert (beyond.code, beyond.checkpoint, "newest is 2" in beyond.detail) == ("anchor_missing", 3, True)
    del held[1]
    (gone,) = compare_anchors(anchors[:1], held, 2)
    assert (gone.code, "gone" in gone.detail) == ("anchor_missing", True)
    held[2] = b"x"
    (differs,) = compare_anchors(anchors[1:2], held, 2)
    assert (differs.code, differs.checkpoint) == ("anchor_differs", 2)

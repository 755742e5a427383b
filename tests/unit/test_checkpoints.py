"""Checkpoints: their tree is RFC 9162's, a place in it is proved, their bytes are fixed."""

import hashlib
import uuid
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.checkpoints import (
    CHECKPOINT_TAG,
    LEAF_TAG,
    Checkpoint,
    Inclusion,
    Leaf,
    Sealed,
    merkle_root,
    path_in,
    sort_leaves,
    tree,
    verify_path,
)

LEAF = Leaf(chain_id="00112233-4455-6677-8899-aabbccddeeff", head_seq=258, head_hash=b"h" * 32, store_hash=b"s" * 32)
CHECKPOINT = Checkpoint(number=7, previous=b"p" * 32, root=b"r" * 32, leaf_count=2, total_rows=99, time_us=1)


def make(count: int) -> list[Leaf]:
    return [
        Leaf(chain_id=str(uuid.UUID(int=n)), head_seq=n + 1, head_hash=hashlib.sha256(b"%d" % n).digest())
        for n in range(count)
    ]


def mth(data: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, as it is written there."""
    if not data:
        return hashlib.sha256(b"").digest()
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    k = 1
    while k * 2 < len(data):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(data[:k]) + mth(data[k:])).digest()


def path_of(m: int, data: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 9162, section 2.1.3.1, as it is written there."""
    if len(data) == 1:
        return []
    k = 1
    while k * 2 < len(data):
        k *= 2
    if m < k:
        return [*path_of(m, data[:k]), mth(data[k:])]
    return [*path_of(m - k, data[k:]), mth(data[:k])]


@given(st.integers(0, 70))
def test_the_root_is_that_of_the_rfc(count: int) -> None:
    leaves = make(count)
    assert merkle_root(leaves) == mth([leaf.encoded() for leaf in leaves])


@given(st.integers(1, 70), st.data())
def test_the_path_is_that_of_the_rfc_and_leads_to_the_root(count: int, data: st.DataObject) -> None:
    leaves = make(count)
    index = data.draw(st.integers(0, count - 1))
    path = path_in(tree(leaves), index)
    assert list(path) == path_of(index, [leaf.encoded() for leaf in leaves])
    assert verify_path(leaves[index], index=index, count=count, path=path, root=merkle_root(leaves))


@given(st.integers(2, 40), st.data())
def test_no_other_leaf_place_count_or_path_is_believed(count: int, data: st.DataObject) -> None:
    leaves = make(count)
    index = data.draw(st.integers(0, count - 1))
    other = data.draw(st.integers(0, count - 1).filter(lambda n: n != index))
    root, path = merkle_root(leaves), path_in(tree(leaves), index)
    assert not verify_path(leaves[other], index=index, count=count, path=path, root=root)
    assert not verify_path(leaves[index], index=count, count=count, path=path, root=root)
    assert not verify_path(leaves[index], index=-1, count=count, path=path, root=root)
    assert not verify_path(leaves[index], index=index, count=count, path=path[:-1], root=root)
    assert not verify_path(leaves[index], index=index, count=count, path=[*path, b"x" * 32], root=root)
    moved = msgspec.structs.replace(leaves[index], head_seq=leaves[index].head_seq + 1)
    assert not verify_path(moved, index=index, count=count, path=path, root=root)


def test_a_leaf_and_a_checkpoint_have_fixed_bytes() -> None:
    assert (
        LEAF.encoded()
        == LEAF_TAG + bytes.fromhex("00112233445566778899aabbccddeeff") + b"\0" * 6 + b"\1\2" + b"h" * 32 + b"s" * 32
    )
    numbers = b"".join(value.to_bytes(8, "big") for value in (2, 99, 1))
    expected = CHECKPOINT_TAG + (7).to_bytes(8, "big") + b"p" * 32 + b"r" * 32 + numbers
    assert CHECKPOINT.encoded() == expected
    assert CHECKPOINT.digest() == hashlib.sha256(expected).digest()


@pytest.mark.parametrize(
    ("field", "value"),
    [("number", -1), ("total_rows", 2**64), ("root", b"short"), ("previous", b"x" * 33), ("time_us", -5)],
)
def test_a_checkpoint_that_its_layout_cannot_hold_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"layout|bytes"):
        msgspec.structs.replace(CHECKPOINT, **{field: value}).digest()


def test_another_spelling_of_a_chain_is_no_leaf() -> None:
    with pytest.raises(ValueError, match="canonical"):
        msgspec.structs.replace(LEAF, chain_id=LEAF.chain_id.upper()).encoded()


def test_leaves_stand_in_the_order_of_their_chains_once_each() -> None:
    leaves = make(5)
    assert sort_leaves(leaves[::-1]) == leaves
    with pytest.raises(ValueError, match="two leaves"):
        sort_leaves([leaves[1], leaves[0], leaves[1]])


def test_a_proof_holds_for_its_own_checkpoint_only() -> None:
    leaves = make(3)
    checkpoint = msgspec.structs.replace(CHECKPOINT, root=merkle_root(leaves), leaf_count=3)
    proof = Inclusion(sealed=Sealed(checkpoint=checkpoint), leaf=leaves[1], index=1, path=path_in(tree(leaves), 1))
    assert proof.holds()
    assert not msgspec.structs.replace(proof, sealed=Sealed(checkpoint=CHECKPOINT)).holds()
    misspelt = msgspec.structs.replace(leaves[1], chain_id="no uuid")
    assert not msgspec.structs.replace(proof, leaf=misspelt).holds()


def test_a_single_leaf_has_an_empty_path() -> None:
    (leaf,) = make(1)
    assert verify_path(leaf, index=0, count=1, path=(), root=merkle_root([leaf]))
    assert not verify_path(leaf, index=0, count=1, path=(b"x" * 32,), root=merkle_root([leaf]))

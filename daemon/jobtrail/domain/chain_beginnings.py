"""Chains of a node that had one before: whether the first row of each says which, and whether that is what is held."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping

import msgspec

from jobtrail.domain.verification import Finding

NEW = "a new spool"
OF_IMPORT = "a chain of its own for an import"  # it follows none, and none follows it
_NAMED = re.compile(
    "the chain before this one: chain ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) up to sequence "
    "([0-9]{1,18}) with hash ([0-9a-f]{64}); ([0-9]{1,18}) of its events"
)


class Predecessor(msgspec.Struct, frozen=True, kw_only=True):
    """The chain before, and its last row, as the first row of the next one names them."""

    chain_id: str
    seq: int
    row_hash: bytes
    carried: int  # its events that stand in the new chain, since nobody was known to have them

    def __str__(self) -> str:
        return (
            f"the chain before this one: chain {self.chain_id} up to sequence {self.seq} with hash "
            f"{self.row_hash.hex()}; {self.carried} of its events"
        )


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """The first row that is held of a chain."""

    chain_id: str
    node: str
    stored_us: int
    head_seq: int  # the last that is held
    note: str | None = None  # what the first row of the chain says of it; None where that is not there any more


def note_of(payload: bytes) -> str:
    """What a first row says of its chain; empty where it says nothing."""
    try:
        said = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return ""
    note = said.get("note") if isinstance(said, dict) and said.get("kind") == "chain_started" else None
    return note if isinstance(note, str) else ""


def predecessor_in(note: str) -> Predecessor | None:
    """The chain that a first row names as the one before."""
    named = _NAMED.search(note)
    if named is None:
        return None
    chain_id, seq, row_hash, carried = named.groups()
    return Predecessor(chain_id=chain_id, seq=int(seq), row_hash=bytes.fromhex(row_hash), carried=int(carried))


def followers(
    beginnings: Iterable[Beginning], accepted: Container[str] = ()
) -> Iterator[tuple[Beginning, Predecessor | None]]:
    """Chains that are to follow another, with the one they name: those that name one, or whose node had one before.

    Not those that somebody accepted, those of imports, and those whose first row was removed by order.
    """
    known: set[str] = set()
    for one in sorted(beginnings, key=lambda one: (one.stored_us, one.chain_id)):
        if one.node.startswith("@") or (one.note or "").startswith(OF_IMPORT):
            continue
        named = predecessor_in(one.note or "")
        if one.note is not None and one.chain_id not in accepted and (named is not None or one.node in known):
            yield one, named
        known.add(one.node)


def judge(
    one: Beginning, named: Predecessor | None, heads: Mapping[str, int], held: bytes | None, pruned_seq: int = 0
) -> Finding | None:
    """What is wrong with how a chain follows another.

    `heads` has the last row that is held of each chain, `held` the hash of the row that is named, `pruned_seq` up to
    where that chain was pruned by order.
    """
    if named is None:
        detail = f"node {one.node} had a chain before, and the first row of this one does not name it"
        return Finding(code="chain_unexplained", chain_id=one.chain_id, seq=1, detail=detail)
    if held is not None:
        detail = f"it names row {named.seq} of chain {named.chain_id} with another hash than is held"
        wrong = held != named.row_hash
    else:
        head = heads.get(named.chain_id, 0)
        lost = named.seq - head - named.carried
        detail = f"it names row {named.seq} of chain {named.chain_id}, which is not held, though later ones are"
        if head < named.seq:
            detail = f"of chain {named.chain_id}, up to row {named.seq} that it names, {lost} rows or more never came"
        wrong = lost > 0 if head < named.seq else named.seq > pruned_seq
    return Finding(code="chain_predecessor_differs", chain_id=one.chain_id, seq=1, detail=detail) if wrong else None

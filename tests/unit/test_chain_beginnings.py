"""Chains of a node that had one before: each is to say which, and rightly, or somebody is to have looked into it."""

import json
from typing import Any

import pytest

from jobtrail.domain.chain_beginnings import (
    NEW,
    OF_IMPORT,
    Beginning,
    Predecessor,
    followers,
    judge,
    note_of,
    predecessor_in,
)
from jobtrail.domain.verification import CODES

OLD, FRESH, THIRD = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "123")
NAMED = Predecessor(chain_id=OLD, seq=9, row_hash=b"h" * 32, carried=2)


def begun(chain: str, at: int, note: str | None = NEW, node: str = "n1") -> Beginning:
    return Beginning(chain_id=chain, node=node, stored_us=at, head_seq=5, note=note)


def test_what_a_first_row_says_can_be_read_again() -> None:
    note = f"the spool's file was damaged (x) and the file moved aside as y; {NAMED} that are not known to be forwarded"
    assert predecessor_in(note) == NAMED
    assert predecessor_in("the chain before this one: unknown; 0 of its events") is None
    assert predecessor_in(str(NAMED).replace(OLD, "-" * 36)) is None


@pytest.mark.parametrize(
    ("payload", "note"),
    [({"kind": "chain_started", "note": "why"}, "why"), ({"kind": "chain_started"}, ""), ([], ""),
     ({"kind": "job_started", "note": "why"}, ""), ({"kind": "chain_started", "note": 7}, "")],
)  # fmt: skip
def test_the_note_of_a_first_row(payload: Any, note: str) -> None:
    assert note_of(json.dumps(payload).encode()) == note


def test_what_is_no_json_says_nothing() -> None:
    assert note_of(b"\xff") == ""


def test_the_first_chain_of_a_node_follows_none_and_every_later_one_does() -> None:
    chains = [begun(THIRD, 3), begun(FRESH, 2), begun(OLD, 1), begun("other", 4, node="n2")]
    assert list(followers(chains)) == [(chains[1], None), (chains[0], None)]
    assert list(followers(chains, {FRESH})) == [(chains[0], None)]


@pytest.mark.parametrize("node", ["@store", "n1"])
def test_the_databases_own_chains_and_those_of_imports_follow_none(node: str) -> None:
    note = NEW if node == "@store" else OF_IMPORT
    assert list(followers([begun(OLD, 1, note, node), begun(FRESH, 2, note, node)])) == []
    assert list(followers([begun(OLD, 1, OF_IMPORT), begun(FRESH, 2)])) == []  # nor does the first one behind an import


def test_a_first_row_that_was_removed_by_order_is_not_asked_but_its_node_is_known() -> None:
    assert list(followers([begun(OLD, 1), begun(FRESH, 2, None)])) == []
    late = begun(FRESH, 2)
    assert list(followers([begun(OLD, 1, None), late])) == [(late, None)]


def test_a_chain_that_names_one_is_looked_at_even_where_its_node_is_new() -> None:
    one = begun(FRESH, 2, str(NAMED), "renamed")
    assert list(followers([begun(OLD, 1), one])) == [(one, NAMED)]


@pytest.mark.parametrize(
    ("named", "head", "held", "pruned", "code", "words"),
    [
        (None, 9, None, 0, "chain_unexplained", "node n1 had a chain before"),
        (NAMED, 9, b"h" * 32, 0, None, ""),
        (NAMED, 12, b"h" * 32, 0, None, ""),
        (NAMED, 9, b"x" * 32, 0, "chain_predecessor_differs", "another hash"),
        (NAMED, 7, None, 0, None, ""),  # what is not held was carried over
        (NAMED, 6, None, 0, "chain_predecessor_differs", "1 rows or more never came"),
        (NAMED, None, None, 0, "chain_predecessor_differs", "7 rows or more never came"),
        (NAMED, 12, None, 0, "chain_predecessor_differs", "though later ones are"),
        (NAMED, 12, None, 10, None, ""),  # pruned by order
    ],
)
def test_what_is_wrong_with_how_a_chain_follows(
    named: Predecessor | None, head: int | None, held: bytes | None, pruned: int, code: str | None, words: str
) -> None:
    found = judge(begun(FRESH, 2), named, {} if head is None else {OLD: head}, held, pruned)
    assert (found and found.code) == code
    assert code is None or (code in CODES and found is not None and words in found.detail)
    assert found is None or (found.chain_id, found.seq) == (FRESH, 1)

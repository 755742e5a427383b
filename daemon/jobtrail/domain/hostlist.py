"""Slurm's host lists: `gpu[001-128,130],login1` (scontrol(1), `show hostnames`).

Library parsers sort what they expand (ClusterShell's NodeSet does), but in a job's list the order has a meaning: the
first node is the batch host. They also expand whatever they are given, and `n[1-999999999]` is eleven bytes.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

from jobtrail.domain.errors import InvalidEvent

MAX_NODES = 100_000
MAX_NAME = 255  # bytes of a host name (gethostname(2): HOST_NAME_MAX is 64; DNS names reach 255)
MAX_CHARACTERS = 4_194_304  # of all names together

_PIECE = re.compile(r"(?:[^\s,\[\]]|\[[0-9,-]+\])+")
_BRACKET = re.compile(r"\[([^\]]+)\]")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


def expand_nodes(field: str, text: str) -> tuple[str, ...]:
    """The nodes of a host list in its own order, each once.

    Raises InvalidEvent naming `field` for anything else, and for more than 100,000 nodes before any is expanded.
    """
    # Every piece names at least one node, so there is no need to look at more pieces than nodes are allowed.
    pieces = [_parse(field, piece) for piece in itertools.islice(_pieces(field, text), MAX_NODES + 1)]
    counts = [math.prod(len(choice) for choice in piece) for piece in pieces]
    if sum(counts) > MAX_NODES:
        raise InvalidEvent(field, f"names more than {MAX_NODES} nodes")
    lengths = [sum(choice.width for choice in piece) for piece in pieces]
    if max(lengths) > MAX_NAME:
        raise InvalidEvent(field, f"has a node name of more than {MAX_NAME} characters")
    if sum(map(math.prod, zip(counts, lengths, strict=True))) > MAX_CHARACTERS:
        raise InvalidEvent(field, f"names nodes with more than {MAX_CHARACTERS} characters together")
    names = ("".join(parts) for piece in pieces for parts in itertools.product(*piece))
    return tuple(dict.fromkeys(names))


class _Choice:
    """One part of a name: a fixed text or the numbers of a bracket. Knows its size without being expanded."""

    __slots__ = ("_length", "_ranges", "_text", "width")

    def __init__(self, text: str = "", ranges: tuple[tuple[int, int, int], ...] = ()) -> None:
        self._text = text
        self._ranges = ranges
        self._length = sum(high - low + 1 for low, high, _ in ranges) if ranges else 1
        self.width = max((max(digits, len(str(high))) for _, high, digits in ranges), default=len(text))

    def __len__(self) -> int:
        # A bracket may name more than a len() can say; that many are too many anyway.
        return min(self._length, MAX_NODES + 1)

    def __iter__(self) -> Iterator[str]:
        if not self._ranges:
            yield self._text
        for low, high, digits in self._ranges:
            for number in range(low, high + 1):
                yield f"{number:0{digits}d}"


def _pieces(field: str, text: str) -> Iterator[str]:
    """The parts between the commas outside brackets."""
    place = 0
    while True:
        match = _PIECE.match(text, place)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            raise InvalidEvent(field, "must be a host list such as n[001-004,7],gpu1")
        yield match[0]
        if match.end() == len(text):
            return
        place = match.end() + 1


def _parse(field: str, piece: str) -> list[_Choice]:
    # With a group in the pattern, split() gives text and bracket in turn.
    parts = _BRACKET.split(piece)
    choices = [_ranges(field, part) if number % 2 else _Choice(part) for number, part in enumerate(parts)]
    return [choice for choice in choices if choice.width]


def _ranges(field: str, text: str) -> _Choice:
    found = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        low, high = (match[1], match[2] or match[1]) if match else ("1", "0")
        if int(low) > int(high):
            raise InvalidEvent(field, "must have ranges such as [001-004,7] in its brackets")
        found.append((int(low), int(high), len(low)))
    return _Choice(ranges=tuple(found))

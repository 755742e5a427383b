"""JSON as loosely as it comes: what slurmrestd writes and JSON has not is put right in place.

In place, because an answer can be as large as the cluster: a second copy of it, or all of it as objects, is not to be
afforded. Bytes that are no UTF-8 may stay; each record is decoded on its own.
"""

from __future__ import annotations

import re

_STRING_OR_NUMBER = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-?(?:NaN|Infinity)', re.DOTALL)
_SUSPECT = re.compile(rb"[\x00-\x1f]|\\u[dD][89a-fA-F]")
# What is sound and looks like the rest comes first: other escapes, and a pair of surrogates, which is one character.
_WRONG = re.compile(
    rb"\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<surrogate>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|(?P<control>[\x00-\x1f])",
    re.DOTALL,
)


def put_right(body: bytearray) -> None:
    """Make JSON of NaN and Infinity, control characters and lone surrogates in texts, each as long as it was.

    A number that is none becomes -1, which no figure of Slurm's is: all are counts, and are read as absent then.
    """
    changes = []
    for match in _STRING_OR_NUMBER.finditer(body):
        if body[match.start()] != 0x22:  # a quotation mark
            changes.append((match.span(), b"-1".ljust(match.end() - match.start())))
        elif _SUSPECT.search(body, *match.span()):
            changes.append((match.span(), _WRONG.sub(_right, match[0])))
    for (start, end), right in changes:
        body[start:end] = right


def _right(match: re.Match[bytes]) -> bytes:
    if match["control"] is not None:
        return b" "
    return match[0] if match["surrogate"] is None else rb"\ufffd"

"""What is kept of a result's own JSON: no lists of single requests, no secrets, no more than a bound; what was cut is
named under `jobtrail_cut`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from jobtrail.domain.benchmarks.report import MAX_RAW_BYTES
from jobtrail.domain.benchmarks.secrets import without_secrets

CUT = "jobtrail_cut"
MAX_CLAIMS = 64
MAX_TEXT = 2_000  # characters of one text
_MAX_LIST = 32
_MAX_KEYS = 1_000  # of one object
_MAX_DEPTH = 12
_MAX_LOOKED_AT = 50_000  # values; more than what fits
_MAX_NAMED, _MAX_NAME = 40, 80  # at most 13 kB
_BUDGET = MAX_RAW_BYTES - 13_500
_WORTH_DESCENDING = 256  # bytes left
_FIT_DEPTH = 4
_MISSING = object()
# Tools write the request's headers, their own command line and the key of the server into their results.
_SECRET = re.compile(
    r"(^|[_-])(api_?key|password|passwd|secrets?|authorization|access_token|auth_token|hf_token|bearer|cookies?"
    r"|headers|cli_command|request_args)$",
    re.IGNORECASE,
)
_LONGEST_SECRET_NAME = 48  # a key may be as long as the file
# A surrogate cannot be encoded, and PostgreSQL's text and jsonb refuse U+0000.
_REFUSED = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


def plain(text: str, limit: int = MAX_TEXT) -> str:
    """The text without what a database refuses and what looks like a secret, cut to `limit` characters."""
    return without_secrets(_REFUSED.sub("\N{REPLACEMENT CHARACTER}", text[:MAX_TEXT]))[:limit]


def text_or_none(value: Any, limit: int = 256) -> str | None:
    """A text that says something, else None."""
    return plain(value, limit) if isinstance(value, str) and value.strip() else None


def claims_of(said: Mapping[str, Any]) -> dict[str, str]:
    """The texts among what a file says of itself, keys that look like secrets left out; at most 64."""
    texts = ((key, value) for key, value in said.items() if isinstance(value, str) and not _secret(key))
    return {plain(key, _MAX_NAME): plain(value, 512) for (key, value), _ in zip(texts, range(MAX_CLAIMS), strict=False)}


def kept(document: Mapping[str, Any], *, lists: bool = True, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The document as it may be stored. Without `lists` no list stays at all; else the short ones do."""
    cuts = _Cuts()
    for key in sorted(without & document.keys()):
        cuts.name(key, "left out")
    chosen = {key: value for key, value in document.items() if key not in without and key != CUT}
    cleaned = _Cleaner(cuts, lists=lists).members(chosen, "", 0)
    raw = _fitted(cleaned, "", _BUDGET, 0, cuts)
    if cuts.names:
        raw[CUT] = cuts.listed()
    return raw


def _secret(key: str) -> bool:
    return _SECRET.search(key[-_LONGEST_SECRET_NAME:]) is not None


def _place(path: str, key: str) -> str:
    return f"{path[:_MAX_NAME]}.{key[:_MAX_NAME]}" if path else key[:_MAX_NAME]


class _Cuts:
    def __init__(self) -> None:
        self.names: list[str] = []
        self._more = 0

    def name(self, path: str, why: str) -> None:
        if len(self.names) < _MAX_NAMED:
            self.names.append(f"{_CONTROL.sub('?', path[: _MAX_NAME - 25])}: {why}")
        else:
            self._more += 1

    def listed(self) -> list[str]:
        return [*self.names, f"and {self._more} more"] if self._more else self.names


class _Cleaner:
    def __init__(self, cuts: _Cuts, *, lists: bool) -> None:
        self._cuts = cuts
        self._lists = lists
        self._left = _MAX_LOOKED_AT

    def members(self, value: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for number, (key, child) in enumerate(value.items()):
            place = _place(path, key)
            self._left -= 1
            if number >= _MAX_KEYS or self._left < 0:
                self._cuts.name(place, f"{len(value) - number} keys from here on")
                break
            if _secret(key) and child is not None:
                self._cuts.name(place, "may hold a secret")
                continue
            cleaned = self._value(child, place, depth + 1)
            if cleaned is not _MISSING:
                made[plain(key, 256)] = cleaned
        return made

    def _value(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, str):
            return plain(value) if len(value) <= MAX_TEXT else self._cut(path, f"a text of {len(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            return self._cut(path, "not finite")
        if not isinstance(value, dict | list):
            return value
        if depth >= _MAX_DEPTH:
            return self._cut(path, "too deep")
        if isinstance(value, dict):
            return self.members(value, path, depth)
        if not self._lists or len(value) > _MAX_LIST:
            return self._cut(path, f"a list of {len(value)}")
        cleaned = (self._value(child, f"{path}[{index}]", depth + 1) for index, child in enumerate(value))
        return [child for child in cleaned if child is not _MISSING]

    def _cut(self, path: str, why: str) -> object:
        self._cuts.name(path, why)
        return _MISSING


def _fitted(value: dict[str, Any], path: str, budget: int, depth: int, cuts: _Cuts) -> dict[str, Any]:
    """As many members as fit, the smallest first; of the one that does not fit any more, what fits of it."""
    sizes = {key: len(msgspec.json.encode({key: child})) for key, child in value.items()}
    if sum(sizes.values()) <= budget:
        return value
    chosen: dict[str, Any] = {}
    for key in sorted(sizes, key=sizes.__getitem__):
        place = _place(path, key)
        child, left = value[key], budget - len(msgspec.json.encode(key)) - 4
        if sizes[key] <= budget:
            chosen[key] = child
        elif isinstance(child, dict) and depth < _FIT_DEPTH and left > _WORTH_DESCENDING:
            chosen[key] = _fitted(child, place, left, depth + 1, cuts)
        else:
            cuts.name(place, f"{sizes[key]} bytes")
            continue
        budget -= len(msgspec.json.encode({key: chosen[key]}))
    return {key: chosen[key] for key in value if key in chosen}

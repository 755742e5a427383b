"""When to ask about which run again: soon at first, then ever more rarely."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

import msgspec

Key = TypeVar("Key", bound=Hashable)


class _Asked(msgspec.Struct):
    times: int
    due: float


class Patience(Generic[Key]):
    """Remembers how often each thing was asked about. A thing nobody asks about any more is forgotten by `keep`."""

    def __init__(self, first_seconds: float, most_seconds: float) -> None:
        self._first = first_seconds
        self._most = most_seconds
        self._asked: dict[Key, _Asked] = {}

    def is_due(self, key: Key, now: float) -> bool:
        """Whether it is time to ask about `key`; at once for one that is new."""
        asked = self._asked.get(key)
        return asked is None or now >= asked.due

    def asked(self, key: Key, now: float) -> None:
        """It was asked about. The second time follows after the first delay again, then delays double."""
        asked = self._asked.setdefault(key, _Asked(0, now))
        asked.times += 1
        asked.due = now + min(self._most, self._first * 2.0 ** max(0, min(asked.times, 40) - 2))

    def keep(self, keys: Collection[Key]) -> None:
        """Forget all but `keys`."""
        self._asked = {key: asked for key, asked in self._asked.items() if key in keys}

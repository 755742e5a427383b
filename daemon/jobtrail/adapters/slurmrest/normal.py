"""One reading for the many ways in which slurmrestd writes the same thing.

Up to v0.0.38 a number is a number and one that is not set is null; from v0.0.39 on more and more of them are objects
{set, infinite, number}, in which `number` is 0 when it is not set. Words became arrays of words. The readers here take
every form, so that what reads a record need not ask for the version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Self

from jobtrail.adapters.slurmrest.shared import Shared
from jobtrail.domain.errors import SlurmAnswerInvalid

# Slurm's "not set" and "no limit", in 16, 32 and 64 bits (slurm/slurm.h: NO_VAL16, NO_VAL, INFINITE, ...). The 16-bit
# ones are not among them here: 65534 is a sound number of seconds or MiB, and no field read here has only 16 bits.
_NOT_A_NUMBER = frozenset({0xFFFF_FFFE, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFE, 0xFFFF_FFFF_FFFF_FFFF})
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_TEXT = 65_536  # characters kept of one text, or of one array of words; users choose comments and directories
MAX_NUMBER = 2**53 - 1  # the largest that every reader of JSON takes as it is
EARLIEST, LATEST = 946_684_800, 4_102_444_800  # Unix seconds: the years 2000 to 2100, in which events lie too


class Fields:
    """The fields of one object of an answer, with its path, such as jobs[3], for the errors.

    A field that is missing reads like one that is null. A field of an unknown shape raises SlurmAnswerInvalid naming
    it; from `lenient` it reads as missing and the error is kept in `problems`.
    """

    __slots__ = ("_lenient", "_values", "path", "problems", "shared")

    def __init__(
        self,
        values: object,
        path: str,
        *,
        problems: list[SlurmAnswerInvalid] | None = None,
        shared: Shared | None = None,
    ) -> None:
        if not isinstance(values, dict):
            raise SlurmAnswerInvalid(path, f"must be an object, is {_kind(values)}")
        self._values: dict[str, Any] = values
        self._lenient = False
        self.path = path
        self.problems: list[SlurmAnswerInvalid] = [] if problems is None else problems
        self.shared = Shared() if shared is None else shared

    @property
    def lenient(self) -> Self:
        """The same fields, of which the unreadable ones are missing."""
        other = type(self)(self._values, self.path, problems=self.problems, shared=self.shared)
        other._lenient = True
        return other

    def raw(self, name: str) -> Any:
        """The field as it came."""
        return self._values.get(name)

    def number(self, *names: str) -> int | None:
        """The first of `names` that is there, as a whole number; None where Slurm has none or no limit."""
        name = self._first(names)
        try:
            return whole_number(self._values.get(name), f"{self.path}.{name}")
        except SlurmAnswerInvalid as problem:
            self._tell(problem)
            return None

    def time(self, name: str) -> int | None:
        """A time in Unix seconds; None where Slurm has none, which it writes 0."""
        return self.checked_time(name, self.number(name))

    def checked_time(self, name: str, value: int | None) -> int | None:
        """`value`, what was read of `name`, if it is a time between the years 2000 and 2100."""
        if not value:
            return None
        if not EARLIEST <= value < LATEST:
            self._tell(self.unreadable(name, "must be a time between the years 2000 and 2100"))
            return None
        return value

    def exact(self, name: str, value: int | None) -> int | None:
        """`value`, what was worked out from `name`, if it is a number that can be stored."""
        if value is not None and value > MAX_NUMBER:
            self._tell(self.unreadable(name, f"must come to at most {MAX_NUMBER}"))
            return None
        return value

    def text(self, *names: str) -> str | None:
        """The first of `names` that is there; None when it is empty. At most 65,536 characters."""
        name = self._first(names)
        value = self._values.get(name)
        # slurmdb's reservation up to v0.0.38 has the number 0 for a name.
        if value is None or value in (0, ""):
            return None
        if not isinstance(value, str):
            self._tell(self.unreadable(name, f"must be a text or null, is {_kind(value)}"))
            return None
        return self.shared.text(storable(value))

    def words(self, name: str) -> tuple[str, ...]:
        """A word or an array of words; those beyond 65,536 characters in all are left out."""
        value = self._values.get(name)
        if value is None or value == "":
            return ()
        if isinstance(value, str):
            return (self.shared.text(storable(value)),)
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return tuple(map(self.shared.text, _within_limit(value)))
        self._tell(self.unreadable(name, f"must be a word or an array of words, is {_kind(value)}"))
        return ()

    def section(self, name: str) -> Fields:
        """The fields of an object in this one; without any when there is none."""
        value = self._values.get(name)
        path = f"{self.path}.{name}"
        # slurmdb writes null for an association it does not know.
        if value is not None and not isinstance(value, dict):
            self._tell(SlurmAnswerInvalid(path, f"must be an object, is {_kind(value)}"))
            value = None
        inner = Fields(value or {}, path, problems=self.problems, shared=self.shared)
        return inner.lenient if self._lenient else inner

    def items(self, name: str) -> Iterator[Fields]:
        """The objects of an array in this one."""
        value = self._values.get(name)
        if value is None:
            return
        if not isinstance(value, list):
            self._tell(self.unreadable(name, f"must be an array, is {_kind(value)}"))
            return
        for place, item in enumerate(value):
            try:
                inner = Fields(item, f"{self.path}.{name}[{place}]", problems=self.problems, shared=self.shared)
            except SlurmAnswerInvalid as problem:
                self._tell(problem)
                continue
            yield inner.lenient if self._lenient else inner

    def unreadable(self, name: str, reason: str) -> SlurmAnswerInvalid:
        """The error that names this field."""
        return SlurmAnswerInvalid(f"{self.path}.{name}", reason)

    def forgive(self, problem: SlurmAnswerInvalid) -> None:
        """Keep a problem with a field that the record can do without."""
        self.problems.append(problem)

    def _first(self, names: tuple[str, ...]) -> str:
        if len(names) == 1:
            return names[0]
        return next((name for name in names if self._values.get(name) is not None), names[0])

    def _tell(self, problem: SlurmAnswerInvalid) -> None:
        if not self._lenient:
            raise problem
        self.forgive(problem)


def whole_number(value: Any, path: str) -> int | None:
    """A whole number of 0 or more from an integer, a digit string, null or {set, infinite, number}.

    None is null, not set, without limit, and Slurm's numbers that say so. Raises SlurmAnswerInvalid, for a number above
    2^53 - 1 too.
    """
    if isinstance(value, dict):
        if "number" not in value and "set" not in value:
            raise SlurmAnswerInvalid(path, "must be a number, null or {set, infinite, number}, is another object")
        if value.get("set", True) is False or value.get("infinite", False) is True:
            return None
        value = value.get("number")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if isinstance(value, float):  # NaN and infinity, which JSON has not, are written all the same
        value = int(value) if math.isfinite(value) and abs(value) < 2**64 else None
    if value is None:
        return None
    if type(value) is not int:  # true is an int to Python
        raise SlurmAnswerInvalid(path, f"must be a number, null or {{set, infinite, number}}, is {_kind(value)}")
    # A negative count is a "not set" of 64 bits that was read as signed.
    if value < 0 or value in _NOT_A_NUMBER:
        return None
    if value > MAX_NUMBER:
        raise SlurmAnswerInvalid(path, f"must be a number up to {MAX_NUMBER}")
    return value


def storable(text: str) -> str:
    """At most 65,536 characters of a text, each one a character.

    A lone surrogate, which JSON can spell and UTF-8 cannot, is none.
    """
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text[:MAX_TEXT])


def _within_limit(words: list[str]) -> list[str]:
    left = MAX_TEXT
    kept = []
    for word in words:
        left -= len(word) + 1  # an empty one takes room too
        if left < 0:
            break
        kept.append(storable(word))
    return kept


def _kind(value: object) -> str:
    """What a JSON value is, for people; the value itself can be anybody's text."""
    names = {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")

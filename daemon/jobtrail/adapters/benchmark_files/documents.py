"""From a file's bytes to JSON values, within bounds of size, and without what JSON in the database refuses."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NoReturn

from jobtrail.domain.errors import UnknownResult

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_VALUES = 6_000_000  # values parsed take some 50 bytes each; a file of this size may hold ten times as many
MAX_CONTAINERS = 1_000_000  # objects and lists; an object of one key takes 230 bytes
MAX_LINES = 100_000
MAX_KEYS = 10_000  # of one object; tools write a few hundred
_LONGEST_NUMBER = 64  # characters; Python writes at most 25
_EXACT_DIGITS = 18  # beyond them an integer may not fit 64 bits
_SHOWN = 60  # characters of a key in a message


class Document:
    """One JSON value of a file. `sha256` is of the bytes it stands in, without blanks around it; `line` is 0 where it
    is the whole file."""

    __slots__ = ("line", "sha256", "value")

    def __init__(self, value: Any, content: bytes, line: int = 0) -> None:
        self.value = value
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.line = line


def shown(text: str) -> str:
    """A text of the file, quoted and escaped, fit for a message on a terminal."""
    return ascii(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def decoded(content: bytes) -> str:
    """The file's text. Raises UnknownResult where it is empty, too large or no UTF-8."""
    if len(content) > MAX_FILE_BYTES:
        raise UnknownResult("", f"the file has {len(content)} bytes; at most {MAX_FILE_BYTES} are read")
    if not content.strip():
        raise UnknownResult("", "the file is empty")
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise UnknownResult("", "the file is UTF-16; benchmark tools write UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnknownResult("", f"the file is no UTF-8 text: byte {error.start} cannot be decoded") from None
    if text.count(",") > MAX_VALUES or text.count("{") + text.count("[") > MAX_CONTAINERS:
        most = f"{MAX_VALUES} values or {MAX_CONTAINERS} objects and lists"
        raise UnknownResult("", f"the file holds more than {most}; have the tool write it without single requests")
    return text


def documents(text: str) -> list[Document]:
    """The file's one JSON value, or those of its lines where it is JSON Lines, as `vllm bench serve --append-result`
    writes: objects with a newline between them and none at the end. Raises UnknownResult."""
    try:
        return [Document(parsed(text), _own_bytes(text))]
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise UnknownResult(f"line {error.lineno} column {error.colno}", f"is no JSON: {error.msg}") from None
    return _lines(text)


def _own_bytes(text: str) -> bytes:
    """What the value itself stands in: the first line of a file is the same whether others follow or not."""
    return text.strip().encode()


def parsed(text: str) -> Any:
    """A JSON value. NaN and Infinity, which Python writes and JSON does not know, are None. Raises UnknownResult, and
    JSONDecodeError where it is no JSON."""
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_nothing, parse_int=_integer, parse_float=_real
        )
    except RecursionError:
        raise UnknownResult("", "objects and lists stand too deep in each other") from None


def _lines(text: str) -> list[Document]:
    if text.count("\n") > MAX_LINES:
        raise UnknownResult("", f"the file has more than {MAX_LINES} lines")
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(Document(parsed(line), _own_bytes(line), number))
        except json.JSONDecodeError as error:
            raise UnknownResult(f"line {number} column {error.colno}", f"is no JSON: {error.msg}") from None
        if not isinstance(found[-1].value, dict):
            raise UnknownResult(f"line {number}", "is no JSON object")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise UnknownResult(shown(pairs[0][0]), f"begins an object of {len(pairs)} keys; at most {MAX_KEYS} are read")
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise UnknownResult(shown(key), "the key stands twice in one object; no benchmark tool writes that")
            seen.add(key)
    return made


def _nothing(_constant: str) -> None:
    return None


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _EXACT_DIGITS else _real(text)


def _real(text: str) -> float:
    return float(text) if len(text) <= _LONGEST_NUMBER else _too_long(text)


def _too_long(text: str) -> NoReturn:
    raise UnknownResult("", f"a number of {len(text)} digits begins with {text[:12]}; no benchmark tool writes that")

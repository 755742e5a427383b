"""Places of a recipe: dotted names such as `workload.max_concurrency` or `server.args.dtype`, and what may be there."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import inspect

from jobtrail.domain.benchmarks.recipe import Recipe
from jobtrail.domain.errors import RecipeInvalid

INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
INFINITE = re.compile(r"\+?\.?inf(inity)?", re.IGNORECASE)
RECIPE = inspect.type_info(Recipe)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a value is, key by key, and which types are allowed there."""

    path: tuple[str, ...]
    types: tuple[inspect.Type, ...]

    @property
    def name(self) -> str:
        """The dotted name."""
        return ".".join(self.path)

    def allows(self, *kinds: type[inspect.Type]) -> bool:
        """Whether a value of one of these kinds may be there."""
        return any(isinstance(one, kinds) for one in self.types)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where something known is written alike, else nothing."""
    found = difflib.get_close_matches(name, [str(one) for one in known], n=1)
    return f"; did you mean {found[0]}?" if found else ""


def listed(names: Iterable[str]) -> str:
    """Names for a sentence."""
    return ", ".join(names)


def find(dotted: str) -> Place:
    """The place of this name. Raises RecipeInvalid when a recipe has no such place, or it is a whole section."""
    kind: inspect.Type = RECIPE
    rest = tuple(dotted.split("."))
    path: tuple[str, ...] = ()
    while rest:
        before = path
        kind, path, rest = _step(kind, path, rest, dotted)
        if path == before:
            raise RecipeInvalid(dotted, f"{'.'.join(path)} has nothing below it")
    if keys := _keys(kind):
        raise RecipeInvalid(dotted, f"a section; name one of its keys: {listed(keys)}")
    if isinstance(kind, inspect.DictType):
        raise RecipeInvalid(dotted, f"a section; name a key in it, as {dotted}.NAME")
    return Place(path=path, types=alternatives(kind))


def _step(
    kind: inspect.Type, path: tuple[str, ...], rest: tuple[str, ...], dotted: str
) -> tuple[inspect.Type, tuple[str, ...], tuple[str, ...]]:
    """One key further down; the same path when there is nothing below."""
    kind = _section(kind)
    if isinstance(kind, inspect.StructType):
        fields = {field.encode_name: field.type for field in kind.fields}
        if rest[0] not in fields:
            near = nearest(rest[0], fields)
            raise RecipeInvalid(dotted, f"unknown key {rest[0]!r}{near}; known here: {listed(fields)}")
        return fields[rest[0]], (*path, rest[0]), rest[1:]
    if isinstance(kind, inspect.DictType):
        # Its keys may have dots in them, as the option `a.b` or the gate `time_to_first_token.p50`.
        below = 1 if _keys(kind.value_type) and len(rest) > 1 else 0
        cut = len(rest) - below
        return kind.value_type, (*path, ".".join(rest[:cut])), rest[cut:]
    return kind, path, rest


def _section(kind: inspect.Type) -> inspect.Type:
    """What a section may be besides absent."""
    structs = [one for one in alternatives(kind) if isinstance(one, inspect.StructType)]
    return structs[0] if structs else kind


def _keys(kind: inspect.Type) -> list[str]:
    section = _section(kind)
    return [field.encode_name for field in section.fields] if isinstance(section, inspect.StructType) else []


def keys_of(section: str) -> list[str]:
    """Keys of a section that msgspec names, as `server.ready` or `gate[...]`; "" is the recipe itself."""
    kind: inspect.Type = RECIPE
    for part in filter(None, section.replace("[...]", ".").split(".")):
        fields = {field.encode_name: field.type for field in getattr(_section(kind), "fields", ())}
        kind = fields[part]
        if isinstance(kind, inspect.DictType):
            kind = kind.value_type
    return _keys(kind)


def alternatives(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """The types of a union, or the one type."""
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def named(last: str, document: dict[str, Any]) -> list[str]:
    """Every place whose last key is this one: keys of the schema, and the free keys that the document has."""
    return [name for name, key in _leaves(RECIPE, (), document) if key == last]


def _leaves(kind: inspect.Type, path: tuple[str, ...], document: object) -> Iterator[tuple[str, str]]:
    section = _section(kind)
    if isinstance(section, inspect.StructType):
        for field in section.fields:
            below = document.get(field.encode_name) if isinstance(document, dict) else None
            yield from _leaves(field.type, (*path, field.encode_name), below)
    elif isinstance(section, inspect.DictType):
        for key in document if isinstance(document, dict) else ():
            yield from _leaves(section.value_type, (*path, str(key)), None)
    else:
        yield ".".join(path), path[-1]


def read(place: Place, text: str) -> Any:
    """The value that somebody wrote as `text`. Raises RecipeInvalid where no allowed type can be read from it."""
    if place.allows(inspect.NoneType) and text == "null":
        return None
    if place.allows(inspect.BoolType) and text in ("true", "false"):
        return text == "true"
    free = place.allows(inspect.StrType)  # then 007 or 1e5 stays the word that it is
    if place.allows(inspect.IntType) and INTEGER.fullmatch(text) and not (free and word(int(text)) != text):
        return int(text)
    value = number(text) if place.allows(inspect.FloatType) else None
    if value is not None and not (free and word(value) != text):
        return value
    if place.allows(inspect.StrType, inspect.EnumType):
        return text
    if place.allows(inspect.VarTupleType):
        return _list(place, text)
    raise RecipeInvalid(place.name, f"{text!r} is not {allowed(place)}")


def word(value: str | float) -> str:
    """As it stands on a command line: 2 for 2.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def number(text: str) -> float | None:
    """The number that is written, `inf` among them; None for anything else."""
    if NUMBER.fullmatch(text):
        return float(text)
    return math.inf if INFINITE.fullmatch(text) else None


def _list(place: Place, text: str) -> list[Any]:
    """`[…]` as JSON, else words with commas between."""
    if text.startswith("["):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise RecipeInvalid(place.name, f"{text!r} is no list as JSON writes it: {error}") from error
        return list(values)
    words = [word.strip() for word in text.split(",")]
    items = [one.item_type for one in place.types if isinstance(one, inspect.VarTupleType)]
    return [read(Place(path=place.path, types=alternatives(items[0])), word) for word in words]


WORDS: dict[type[inspect.Type], str] = {
    inspect.IntType: "an integer",
    inspect.FloatType: "a number",
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.NoneType: "null",
    inspect.VarTupleType: "a list",
    inspect.EnumType: "a word of a list",
}


def allowed(place: Place) -> str:
    """In words, what may be at a place."""
    return " or ".join(WORDS[type(one)] for one in place.types)

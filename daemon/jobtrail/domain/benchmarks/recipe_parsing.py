"""From what a recipe's file says, and what somebody sets on top of it, to the recipe that is followed."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from jobtrail.domain.benchmarks import recipe_parameters
from jobtrail.domain.benchmarks.recipe import Recipe, Server
from jobtrail.domain.benchmarks.recipe_checks import check_recipe
from jobtrail.domain.benchmarks.recipe_parameters import Parameter, place_of, text_of, value_at
from jobtrail.domain.benchmarks.recipe_places import INFINITE, Place, find, keys_of, listed, nearest
from jobtrail.domain.benchmarks.report import Mode
from jobtrail.domain.errors import RecipeInvalid

SECTIONS = (*Recipe.__struct_fields__, "parameters")
UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`")
MISSING_FIELD = re.compile(r"Object missing required field `(.*)`")
BAD_ENUM = re.compile(r"Invalid enum value '(.*)'")
EXPECTED = re.compile(r"Expected `(.*)`, got `(.*)`")
TYPE_NAME = re.compile(r"`([^`]*)`")
TYPE_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
}
HINTS = {
    ("array", "str"): "a list of words is needed, as [vllm, serve]: no shell reads it",
    ("str", "int"): "text is needed: put it in quotes",
    ("str", "float"): "text is needed: put it in quotes",
    ("str", "bool"): "text is needed: put it in quotes",
    ("object", "str"): "a mapping of keys to values is needed, not text",
    ("object", "array"): "a mapping of keys to values is needed, not a list",
}


class RecipeSource(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe as written: its document without the parameters, the parameters, and the place each sets."""

    document: dict[str, Any]
    parameters: dict[str, Parameter]
    places: dict[str, Place]


def read_source(document: object) -> RecipeSource:
    """Take apart what a recipe's file holds. Raises RecipeInvalid."""
    if not isinstance(document, dict):
        raise RecipeInvalid("", "a recipe is a mapping of keys to values, beginning with name, mode and model")
    for key in document:
        if key not in SECTIONS:
            raise RecipeInvalid(str(key), f"unknown key{nearest(str(key), SECTIONS)}; known: {listed(SECTIONS)}")
    rest = {name: value for name, value in document.items() if name != "parameters"}
    try:
        parameters = msgspec.convert({"parameters": document.get("parameters") or {}}, _Parameters).parameters
    except msgspec.ValidationError as error:
        raise _translated(error, document, _Parameters) from error
    for name, parameter in parameters.items():
        recipe_parameters.check(name, parameter)
    places = {name: place_of(name, parameter, rest) for name, parameter in parameters.items()}
    setters: dict[str, str] = {}
    for name, place in places.items():
        first = setters.setdefault(place.name, name)
        if first != name:
            raise RecipeInvalid(f"parameters.{name}", f"sets {place.name}, as parameter {first} does")
        _check_default(name, parameters[name], place, rest)
    return RecipeSource(document=rest, parameters=parameters, places=places)


def _check_default(name: str, parameter: Parameter, place: Place, document: dict[str, Any]) -> None:
    """A default beside a value in the recipe must be that value: one of the two would mislead the reader."""
    if parameter.default is None:
        return
    default = value_at(place, text_of(parameter.default), where=f"parameters.{name}.default")
    written: Any = document
    for key in place.path:
        if not isinstance(written, dict) or key not in written:
            return
        written = written[key]
    if isinstance(written, str) and isinstance(default, float) and INFINITE.fullmatch(written):
        written = math.inf
    if written != default:
        raise RecipeInvalid(f"parameters.{name}.default", f"{default!r}, but {place.name} is {written!r} in the recipe")


def missing(source: RecipeSource, settings: Mapping[str, str]) -> list[str]:
    """Required parameters that nobody has set."""
    return [
        name
        for name, parameter in source.parameters.items()
        if parameter.required and not {name, source.places[name].name} & settings.keys()
    ]


def resolve(source: RecipeSource, settings: Mapping[str, str]) -> Recipe:
    """The recipe with defaults and settings in it. A setting's key is a parameter, or a dotted place of the recipe.

    Raises RecipeInvalid, naming the place and what is allowed there.
    """
    values = _overrides(source, settings)
    if lacking := missing(source, settings):
        need = "; ".join(f"{name}: {source.parameters[name].description or 'no description'}" for name in lacking)
        raise RecipeInvalid(f"parameters.{lacking[0]}", f"must be set, as --set {lacking[0]}=VALUE ({need})")
    document = copy.deepcopy(source.document)
    for name, parameter in source.parameters.items():
        if parameter.default is not None:
            place = source.places[name]
            _put(document, place, value_at(place, text_of(parameter.default), where=f"parameters.{name}.default"))
    for place, value in values:
        _put(document, place, value)
    return parse(document)


def _overrides(source: RecipeSource, settings: Mapping[str, str]) -> list[tuple[Place, Any]]:
    made: dict[str, tuple[Place, Any]] = {}
    for key, text in settings.items():
        if key in source.parameters:
            recipe_parameters.check_value(key, source.parameters[key], text)
            place = source.places[key]
        else:
            place = _dotted(key, source)
        if place.name in made:
            raise RecipeInvalid(key, f"{place.name} is set twice")
        made[place.name] = (place, value_at(place, text, where=key))
    return list(made.values())


def _dotted(key: str, source: RecipeSource) -> Place:
    try:
        return find(key)
    except RecipeInvalid as error:
        if "." in key or key in SECTIONS:
            raise
        known = listed(source.parameters) or "none"
        near = nearest(key, (*source.parameters, *SECTIONS))
        raise RecipeInvalid(
            key, f"no parameter of this recipe{near}; its parameters: {known}; anything else by its place, as model.id"
        ) from error


def _put(document: dict[str, Any], place: Place, value: object) -> None:
    section = document
    for depth, key in enumerate(place.path[:-1], start=1):
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise RecipeInvalid(".".join(place.path[:depth]), HINTS["object", "str"])
    section[place.path[-1]] = value


def parse(document: dict[str, Any]) -> Recipe:
    """The recipe of a document without parameters. Raises RecipeInvalid."""
    workload = document.get("workload")
    if isinstance(workload, dict):
        rate = workload.get("request_rate")
        if isinstance(rate, str) and INFINITE.fullmatch(rate):
            document = {**document, "workload": {**workload, "request_rate": math.inf}}
    try:
        recipe = msgspec.convert(document, Recipe)
    except msgspec.ValidationError as error:
        raise _translated(error, document, Recipe) from error
    if recipe.mode is Mode.SERVE and recipe.server is None and not recipe.workload.command:
        recipe = msgspec.structs.replace(recipe, server=Server())
    check_recipe(recipe)
    return recipe


class _Parameters(msgspec.Struct, frozen=True):
    parameters: dict[str, Parameter] = {}


def _translated(error: msgspec.ValidationError, document: dict[str, Any], shape: type[msgspec.Struct]) -> RecipeInvalid:
    """What msgspec says, with the place as people write it and what is allowed."""
    what, _, where = str(error).partition(" - at `")
    section = where.partition("$")[2].strip("`.")
    place = _with_key(section, document, shape)
    below = f"{place}." if place else ""
    if unknown := UNKNOWN_FIELD.fullmatch(what):
        known = Parameter.__struct_fields__ if shape is _Parameters else keys_of(section)
        return RecipeInvalid(
            below + unknown[1], f"unknown key{nearest(unknown[1], known)}; known here: {listed(known)}"
        )
    if lacking := MISSING_FIELD.fullmatch(what):
        return RecipeInvalid(below + lacking[1], "is missing, and needed")
    if bad := BAD_ENUM.fullmatch(what):
        words = list(recipe_parameters.ParameterType if shape is _Parameters else Mode)
        return RecipeInvalid(place, f"{bad[1]!r} is none of {listed(words)}{nearest(bad[1], words)}")
    if where.startswith("key`"):
        return RecipeInvalid(place, "a key in it is not text: put it in quotes")
    types = EXPECTED.fullmatch(what)
    hint = HINTS.get((types[1].split(" | ")[0], types[2])) if types else None
    return RecipeInvalid(place, hint or TYPE_NAME.sub(_in_words, what[:1].lower() + what[1:]))


def _with_key(section: str, document: dict[str, Any], shape: type[msgspec.Struct]) -> str:
    """msgspec writes `[...]` for the key of a mapping; find the first key there whose value is refused too."""
    before, anything, after = section.partition("[...]")
    if not anything:
        return section
    path = tuple(before.split("."))
    mapping: Any = document
    for key in path:
        mapping = mapping[key]
    refused = [name for name, value in mapping.items() if _refuses(shape, document, path, {name: value})]
    return ".".join(filter(None, (before, *map(str, refused[:1]), after.lstrip("."))))


def _refuses(
    shape: type[msgspec.Struct], document: dict[str, Any], path: tuple[str, ...], mapping: dict[str, Any]
) -> bool:
    """Whether msgspec refuses the document with this mapping at the place."""
    alone: dict[str, Any] = copy.deepcopy(document) if shape is Recipe else {}
    _put(alone, Place(path=path, types=()), mapping)
    try:
        msgspec.convert(alone, shape)
    except msgspec.ValidationError:
        return True
    return False


def _in_words(found: re.Match[str]) -> str:
    return " or ".join(TYPE_WORDS.get(name, name) for name in found[1].split(" | "))

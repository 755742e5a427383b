"""Parameters of a recipe: the settings its author means to be changed, each with a type and a range."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import msgspec

from jobtrail.domain.benchmarks.recipe_places import INTEGER, Place, find, listed, named, number, read
from jobtrail.domain.errors import RecipeInvalid

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
Scalar = str | int | float | bool


class ParameterType(StrEnum):
    """What a parameter's value is."""

    INTEGER = "integer"
    NUMBER = "number"
    STRING = "string"
    BOOLEAN = "boolean"
    CHOICE = "choice"


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One typed override. `at` is the place it sets; without it the one place with the parameter's name."""

    type: ParameterType
    description: str = ""
    default: Scalar | None = None
    at: str | None = None
    required: bool = False
    min: int | float | None = None
    max: int | float | None = None
    choices: tuple[Scalar, ...] = ()


def text_of(value: Scalar) -> str:
    """As one would write it after `--set name=`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def place_of(name: str, parameter: Parameter, document: dict[str, Any]) -> Place:
    """What the parameter sets. Raises RecipeInvalid, naming the parameter, where that is nothing or not clear."""
    where = f"parameters.{name}"
    dotted = parameter.at
    if dotted is None:
        candidates = named(name, document)
        if not candidates:
            raise RecipeInvalid(where, f"no place of the recipe is called {name}; say which with `at`")
        if len(candidates) > 1:
            raise RecipeInvalid(where, f"could be any of {listed(candidates)}; say which with `at`")
        dotted = candidates[0]
    try:
        return find(dotted)
    except RecipeInvalid as error:
        raise RecipeInvalid(f"{where}.at", str(error)) from error


def check(name: str, parameter: Parameter) -> None:
    """Whether the parameter makes sense in itself. Raises RecipeInvalid."""
    where = f"parameters.{name}"
    if not NAME.fullmatch(name):
        raise RecipeInvalid(where, "a name has letters, digits, _ and -, begins with a letter, and is not over 64 long")
    if (parameter.type is ParameterType.CHOICE) != bool(parameter.choices):
        raise RecipeInvalid(f"{where}.choices", "goes with type choice, and type choice needs it")
    numeric = parameter.type in (ParameterType.INTEGER, ParameterType.NUMBER)
    if not numeric and (parameter.min is not None or parameter.max is not None):
        raise RecipeInvalid(where, "min and max go with types integer and number")
    if parameter.required and parameter.default is not None:
        raise RecipeInvalid(f"{where}.default", "a required parameter has no default")
    if parameter.default is not None:
        check_value(name, parameter, text_of(parameter.default), where=f"{where}.default")


def check_value(name: str, parameter: Parameter, text: str, *, where: str | None = None) -> None:
    """Whether the parameter may have this value. Raises RecipeInvalid saying what it may have."""
    where = where or name
    if parameter.type is ParameterType.INTEGER and not INTEGER.fullmatch(text):
        raise RecipeInvalid(where, f"{text!r} is not an integer")
    if parameter.type is ParameterType.NUMBER and number(text) is None:
        raise RecipeInvalid(where, f"{text!r} is not a number")
    if parameter.type is ParameterType.BOOLEAN and text not in ("true", "false"):
        raise RecipeInvalid(where, f"{text!r} is not true or false")
    choices = [text_of(choice) for choice in parameter.choices]
    if choices and text not in choices:
        raise RecipeInvalid(where, f"{text!r} is not one of {listed(choices)}")
    if parameter.min is not None and float(text) < parameter.min:
        raise RecipeInvalid(where, f"{text} is less than {parameter.min}, the least allowed")
    if parameter.max is not None and float(text) > parameter.max:
        raise RecipeInvalid(where, f"{text} is more than {parameter.max}, the most allowed")


def value_at(place: Place, text: str, *, where: str) -> Any:
    """The value for the place that `text` gives. Raises RecipeInvalid naming `where` it was said."""
    try:
        return read(place, text)
    except RecipeInvalid as error:
        raise RecipeInvalid(where, f"{error.problem}, which {place.name} must be") from error

"""Which recipe a run followed: one spelling of a resolved recipe, and the hash over what decides its results.

Left out of the hash is what changes no result that is compared: the name and description, where and how long the job
may run and how much memory it may use, how long to wait for the server, which of the tool's figures are kept, and the
gate that judges them. The same benchmark in another partition, or judged more strictly, so keeps its history. What a
partition changes of the hardware is in the run's fingerprint. `version` is in the hash: by it an author says that
results from here on are not to be compared with those before, as when a data set changed under one name.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import msgspec

from jobtrail.domain.benchmarks.recipe import Argument, Recipe
from jobtrail.domain.benchmarks.recipe_places import word
from jobtrail.domain.benchmarks.report import RecipeIdentity

INFINITY = "inf"  # JSON has no number for it
PLACE_OF_RATE = ("workload", "request_rate")
# Places of the resolved recipe that are no part of the hash.
NOT_IDENTIFYING = (
    ("name",),
    ("description",),
    ("gate",),
    ("resources", "partition"),
    ("resources", "account"),
    ("resources", "qos"),
    ("resources", "mem"),
    ("resources", "time"),
    ("resources", "options"),
    ("server", "ready"),
    ("measure", "metrics"),
    ("measure", "percentiles"),
)


def body(recipe: Recipe) -> dict[str, Any]:
    """The whole resolved recipe as values of JSON, with every default written out and an endless rate as `inf`."""
    made: dict[str, Any] = msgspec.to_builtins(recipe)
    if math.isinf(recipe.workload.request_rate):
        made["workload"]["request_rate"] = INFINITY
    return made


def from_body(values: dict[str, Any]) -> Recipe:
    """The recipe of a `body`. Raises msgspec.ValidationError for anything else."""
    workload = values.get("workload")
    if isinstance(workload, dict) and workload.get("request_rate") == INFINITY:
        values = {**values, "workload": {**workload, "request_rate": math.inf}}
    return msgspec.convert(values, Recipe)


def canonical(recipe: Recipe) -> str:
    """What is hashed: JSON of the identifying parts, keys sorted, no blanks; options as the words of a command line."""
    made = body(recipe)
    for place in NOT_IDENTIFYING:
        *parents, last = place
        section: dict[str, Any] | None = made
        for name in parents:
            section = section[name] if section is not None else None
        if section is not None:
            del section[last]
    for name in ("server", "workload"):
        if made[name] is not None:
            made[name]["args"] = _words(made[name]["args"])
    return json.dumps(made, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _words(arguments: dict[str, Argument]) -> dict[str, str | bool]:
    """An option given as 1, 1.0 or "1" is one command line, one that is false or null is not on it."""
    return {
        name: True if value is True else word(value)
        for name, value in arguments.items()
        if value is not None and value is not False
    }


def identify(recipe: Recipe) -> RecipeIdentity:
    """Its name, version, whole body, and the SHA-256 (hex) of its canonical form."""
    digest = hashlib.sha256(canonical(recipe).encode()).hexdigest()
    return RecipeIdentity(name=recipe.name, sha256=digest, version=recipe.version, body=body(recipe))

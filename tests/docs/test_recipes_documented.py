"""docs/recipes.md names every key of a recipe and no other, and its examples are recipes; so are the shipped ones."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml
from msgspec import inspect

from jobtrail.cli.bench import recipes
from jobtrail.cli.bench.load import PLACEHOLDERS
from jobtrail.domain.benchmarks.recipe import Gate, Recipe
from jobtrail.domain.benchmarks.recipe_identity import NOT_IDENTIFYING
from jobtrail.domain.benchmarks.recipe_parameters import Parameter
from jobtrail.domain.benchmarks.recipe_parsing import read_source, resolve
from jobtrail.domain.benchmarks.report import Mode

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
ROWS = {
    match[1]: (match[2].strip(), match[3].strip())
    for match in re.finditer(r"^\| `([a-z_.*]+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", TEXT, re.MULTILINE)
}
SHIPPED = sorted((REPOSITORY / "recipes").iterdir())


def keys(struct: type[msgspec.Struct], place: str = "") -> list[str]:
    """Dotted names of all keys, sections too."""
    found = []
    for field in msgspec.structs.fields(struct):
        name = f"{place}{field.encode_name}"
        found.append(name)
        kind = inspect.type_info(field.type)
        kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
        for one in kinds:
            if isinstance(one, inspect.StructType):
                found += keys(one.cls, f"{name}.")
    return found


def test_every_key_is_documented_and_no_other() -> None:
    of_gates = [f"gate.*.{name}" for name in Gate.__struct_fields__]
    of_parameters = [f"parameters.*.{name}" for name in Parameter.__struct_fields__]
    assert sorted(ROWS) == sorted([*keys(Recipe), "parameters", *of_gates, *of_parameters])


def test_needed_keys_are_called_so() -> None:
    def needed(struct: type[msgspec.Struct], place: str) -> set[str]:
        return {f"{place}{field.name}" for field in msgspec.structs.fields(struct) if field.required}

    from jobtrail.domain.benchmarks.recipe import Model

    expected = needed(Recipe, "") | needed(Model, "model.") | needed(Parameter, "parameters.*.")
    assert {name for name, (_, default) in ROWS.items() if default == "needed"} == expected


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
def test_each_example_is_a_recipe(example: str) -> None:
    assert resolve(read_source(yaml.load(example, recipes.UniqueKeys)), {}).mode is Mode.SERVE


def test_there_are_examples_and_shipped_recipes() -> None:
    """The tests above and below have something to test."""
    assert len(re.findall("```yaml", TEXT)) == 3
    assert re.findall(r"^\| `(vllm-[\w-]+)` ", TEXT, re.MULTILINE) != []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_shipped_recipe_is_one_and_named_like_its_file(path: Path) -> None:
    recipe = resolve(recipes.read(path).source, {})
    assert recipe.name == path.stem
    assert recipe.description
    assert recipe.gate


def test_shipped_recipes_are_documented() -> None:
    documented = re.findall(r"^\| `(vllm-[\w-]+)` ", TEXT, re.MULTILINE)
    assert sorted(documented) == [path.stem for path in SHIPPED]
    modes = {resolve(recipes.read(path).source, {}).mode for path in SHIPPED}
    assert modes == {Mode.SERVE, Mode.LATENCY, Mode.THROUGHPUT}


def test_what_is_left_out_of_the_hash_is_told() -> None:
    section = TEXT.partition("Not in the hash")[2].partition("So a recipe")[0]
    named = set(re.findall(r"`([a-z_.]+)`", section))
    assert named == {".".join(place).removeprefix("resources.") for place in NOT_IDENTIFYING}


def test_placeholders_are_told() -> None:
    assert set(re.findall(r"`\{(\w+)\}`", TEXT.partition("with placeholders, each")[2].partition("```")[0])) == set(
        PLACEHOLDERS
    )

"""Where recipes lie, and reading one: the file of a path, or the first of that name in the directories."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import typer
import yaml

from jobtrail.cli import exit_codes
from jobtrail.cli.output import error_console
from jobtrail.domain.benchmarks.recipe_parsing import RecipeSource, read_source
from jobtrail.domain.benchmarks.recipe_places import listed, nearest
from jobtrail.domain.errors import ConfigError, NotFound, RecipeInvalid

SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 262_144
PACKAGED = Path(__file__).parents[2] / "recipes"  # in an installed wheel
IN_REPOSITORY = Path(__file__).parents[4] / "recipes"
SITE = Path("/etc/jobtrail/recipes")


class FoundRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe and the file it is from."""

    path: Path
    source: RecipeSource


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key twice is a mistake; plain YAML keeps the last and tells nobody."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping. Raises ConstructorError at the second of two equal keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def directories(environ: Mapping[str, str]) -> list[Path]:
    """Where recipes are looked for, the first first: JOBTRAIL_RECIPES (with colons), the site's, those shipped."""
    named = [Path(part).expanduser() for part in environ.get("JOBTRAIL_RECIPES", "").split(os.pathsep) if part]
    return [*named, SITE, PACKAGED if PACKAGED.is_dir() else IN_REPOSITORY]


def files(environ: Mapping[str, str]) -> dict[str, Path]:
    """Every recipe's file by its name without the suffix; of equal names the one found first."""
    found: dict[str, Path] = {}
    for directory in directories(environ):
        for path in _in_directory(directory):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def _in_directory(directory: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES and path.is_file())
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(str(directory), f"cannot be read: {error.strerror}") from error


def find(wanted: str, environ: Mapping[str, str]) -> FoundRecipe:
    """The recipe of a name, or of a path with a / or a YAML suffix. Raises NotFound, ConfigError."""
    if "/" in wanted or wanted.endswith(SUFFIXES):
        path = Path(wanted).expanduser()
        if not path.is_file():
            raise NotFound(f"{wanted}: no such file")
        return read(path)
    known = files(environ)
    if wanted not in known:
        places = listed(str(directory) for directory in directories(environ))
        here = next((wanted + suffix for suffix in SUFFIXES if Path(wanted + suffix).is_file()), None)
        hint = nearest(wanted, known) if here is None else f"; the file in this directory is {here}"
        raise NotFound(f"no recipe {wanted!r}{hint}; known: {listed(known)}; looked in {places}")
    return read(known[wanted])


def read(path: Path) -> FoundRecipe:
    """The recipe of a file. Raises ConfigError with the file, the place and what is allowed there."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(str(path), f"larger than {MAX_BYTES} bytes: no recipe is")
    try:
        document = yaml.load(content, UniqueKeys)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(_line(path, error), f"not YAML that can be read: {_said(error)}") from error
    except RecursionError as error:
        raise ConfigError(str(path), "nested too deep") from error
    try:
        return FoundRecipe(path=path, source=read_source(document))
    except RecipeInvalid as error:
        raise ConfigError(str(path), str(error)) from error


def _line(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return str(path) if mark is None else f"{path}, line {mark.line + 1}, column {mark.column + 1}"


def _said(error: yaml.YAMLError) -> str:
    return " ".join(str(getattr(error, "problem", None) or error).split())


def settings_of(assignments: list[str]) -> dict[str, str]:
    """`k=v` each, by k. Raises ConfigError naming one that is not, or is there twice."""
    made: dict[str, str] = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign or not name.strip():
            raise ConfigError(f"--set {assignment}", "must be NAME=VALUE, as --set workload.num_prompts=100")
        if name.strip() in made:
            raise ConfigError(f"--set {assignment}", f"{name.strip()} is set twice")
        made[name.strip()] = value
    return made


def refuse(error: ConfigError | NotFound | RecipeInvalid, *, file: Path | None = None) -> typer.Exit:
    """Say what is wrong, on standard error; what to raise then."""
    where = f"{file}: " if file is not None else ""
    error_console().print(f"jobtrail bench: {where}{error}", style="red", markup=False)
    return typer.Exit(exit_codes.NOT_FOUND if isinstance(error, NotFound) else exit_codes.USAGE)

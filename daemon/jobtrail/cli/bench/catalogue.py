"""`jobtrail bench list` and `bench show`: which recipes there are, and what one of them would do."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from jobtrail.cli import exit_codes
from jobtrail.cli.bench import recipes
from jobtrail.cli.bench.directory import RunDirectory
from jobtrail.cli.bench.recipes import FoundRecipe, settings_of
from jobtrail.cli.bench.submit import script, submission
from jobtrail.cli.output import UNKNOWN, clean, console, error_console, print_json, table
from jobtrail.domain.benchmarks.recipe import Recipe, Resources
from jobtrail.domain.benchmarks.recipe_identity import body, identify
from jobtrail.domain.benchmarks.recipe_parameters import Parameter, text_of
from jobtrail.domain.benchmarks.recipe_parsing import RecipeSource, missing, resolve
from jobtrail.domain.errors import ConfigError, NotFound, RecipeInvalid

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="set a parameter, or a place such as workload.num_prompts"),
]
RecipeName = Annotated[str, typer.Argument(metavar="NAME|FILE", help="a recipe's name, or the path of its file")]
SHOWN_PORT = 8000
SHOWN_DIRECTORY = Path("/RUN_DIRECTORY")
SHOWN_UID = "RUN_UID"


def list_command(as_json: Json = False) -> None:
    """Recipes there are, and what each needs.

    Those shipped, the site's in /etc/jobtrail/recipes, those in the directories of $JOBTRAIL_RECIPES.
    """
    rows: list[dict[str, Any]] = []
    refused = False
    try:
        found = recipes.files(os.environ)
    except ConfigError as error:
        raise recipes.refuse(error) from error
    for name, path in found.items():
        try:
            rows.append(_row(name, recipes.read(path)))
        except ConfigError as error:
            recipes.refuse(error)
            refused = True
        except RecipeInvalid as error:
            recipes.refuse(error, file=path)
            refused = True
    if as_json:
        print_json(rows)
    else:
        columns = ("recipe", "mode", "model", "needs", "description")
        console().print(table("", columns, [[row["name"], *(row[name] for name in columns[1:])] for row in rows]))
    if refused:
        raise typer.Exit(exit_codes.FAILED)


def _row(name: str, found: FoundRecipe) -> dict[str, Any]:
    lacking = missing(found.source, {})
    if lacking:
        document = found.source.document
        need = "set " + ", ".join(lacking)
        return {
            "name": name,
            "mode": str(document.get("mode", UNKNOWN)),
            "model": UNKNOWN,
            "needs": need,
            "description": str(document.get("description", "")),
            "path": str(found.path),
            "required": lacking,
        }
    recipe = resolve(found.source, {})
    return {
        "name": name,
        "mode": recipe.mode.value,
        "model": recipe.model.id,
        "needs": needs(recipe.resources),
        "description": recipe.description,
        "path": str(found.path),
        "required": [],
    }


def needs(resources: Resources) -> str:
    """What a recipe asks Slurm for, in a line."""
    parts = [_count(resources.nodes, "node")]
    if resources.gpus_per_node:
        parts.append(_count(resources.gpus_per_node, "GPU"))
    if resources.cpus_per_task:
        parts.append(_count(resources.cpus_per_task, "CPU"))
    return ", ".join([*parts, *(value for value in (resources.mem, resources.time) if value)])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def load(wanted: str, settings: dict[str, str]) -> tuple[FoundRecipe, Recipe]:
    """The recipe with the settings in it, or exit saying what is wrong with which file or setting."""
    try:
        found = recipes.find(wanted, os.environ)
    except (ConfigError, NotFound) as error:
        raise recipes.refuse(error) from error
    try:
        return found, resolve(found.source, settings)
    except RecipeInvalid as error:
        raise recipes.refuse(error, file=found.path) from error


def assignments(given: list[str] | None) -> dict[str, str]:
    """What `--set` was given, or exit saying which is no assignment."""
    try:
        return settings_of(given or [])
    except ConfigError as error:
        raise recipes.refuse(error) from error


def show_command(context: typer.Context, recipe: RecipeName, setting: Setting = None, as_json: Json = False) -> None:
    """One recipe with all defaults and settings in it.

    Its parameters, the commands that would run, its hash.
    """
    settings = assignments(setting)
    found, resolved = load(recipe, settings)
    identity = identify(resolved)
    directory = RunDirectory(SHOWN_DIRECTORY, SHOWN_UID, resolved, identity)
    commands = _commands(directory)
    if as_json:
        parameters = {name: _parameter(found.source, name, body(resolved)) for name in found.source.parameters}
        shown = {"path": str(found.path), "sha256": identity.sha256, "recipe": body(resolved)}
        print_json({**shown, "parameters": parameters, "commands": commands})
        return
    _print(console(), found, directory, commands, script(directory, context.obj, os.environ))


def _commands(directory: RunDirectory) -> dict[str, list[str]]:
    """The words of each command by what it does; the port is one that is free at the time."""
    from jobtrail.cli.bench.load import Place, load_words, server_of, server_words

    recipe = directory.recipe
    made = {"submit": submission(directory, sbatch="sbatch")}
    server = server_of(recipe)
    if server is not None:
        made["server"] = server_words(recipe, server, SHOWN_PORT)
    port = SHOWN_PORT if server is not None else None
    place = Place(repeat=1, result=directory.result_file(1), run_uid=directory.run_uid, port=port)
    made["load"] = load_words(recipe, place)
    return made


def _parameter(source: RecipeSource, name: str, values: dict[str, Any]) -> dict[str, Any]:
    parameter, place = source.parameters[name], source.places[name]
    value: Any = values
    for key in place.path:
        value = value.get(key) if isinstance(value, dict) else None
    return {
        "type": parameter.type.value,
        "value": value,
        "sets": place.name,
        "required": parameter.required,
        "allowed": allowed(parameter),
        "description": parameter.description,
    }


def allowed(parameter: Parameter) -> str:
    """The range or the choices of a parameter; empty when anything of its type will do."""
    if parameter.choices:
        return ", ".join(text_of(choice) for choice in parameter.choices)
    if parameter.min is not None and parameter.max is not None:
        return f"{parameter.min} to {parameter.max}"
    if parameter.min is not None:
        return f"from {parameter.min}"
    return "" if parameter.max is None else f"up to {parameter.max}"


def _print(
    out: Console, found: FoundRecipe, directory: RunDirectory, commands: dict[str, list[str]], submitted: str
) -> None:
    recipe = directory.recipe
    out.print(clean(recipe.name), style="bold")
    if recipe.description:
        out.print(clean(recipe.description))
    out.print(clean(f"file    {found.path}"))
    out.print(clean(f"sha256  {directory.identity.sha256}"))
    if found.source.parameters:
        out.print()
        rows = [(name, _parameter(found.source, name, body(recipe))) for name in found.source.parameters]
        columns = ("type", "value", "allowed", "sets", "description")
        cells = [[name, *(_cell(row[column]) for column in columns)] for name, row in rows]
        out.print(table("", ("parameter", *columns), cells))
    out.print()
    # One value may be on several lines, so this is not cleaned as a whole: YAML escapes what cannot be printed.
    out.print(yaml.safe_dump(body(recipe), sort_keys=False, allow_unicode=False), markup=False, end="")
    for what, words in commands.items():
        out.print()
        out.print(what, style="bold")
        out.print(clean(shlex.join(words)))
        if what == "submit":
            out.print("with this script on its standard input:", style="dim")
            out.print(submitted, markup=False, end="")
    out.print()
    if recipe.server is not None:
        error_console().print(
            f"port {SHOWN_PORT} stands for one that is free when the server starts", style="dim", markup=False
        )


def _cell(value: object) -> str:
    if value is None:
        return UNKNOWN
    return text_of(value) if isinstance(value, str | int | float | bool) else str(value)

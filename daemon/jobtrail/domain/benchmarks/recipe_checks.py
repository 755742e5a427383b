"""What the types of a recipe cannot say: names, ranges, and which keys go together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from jobtrail.domain.benchmarks.metrics import METRICS, PERCENTILE, STATS, Direction
from jobtrail.domain.benchmarks.recipe import Argument, Measure, Recipe, Resources, Workload
from jobtrail.domain.benchmarks.recipe_places import listed, nearest
from jobtrail.domain.benchmarks.report import Mode
from jobtrail.domain.benchmarks.secrets import holds_secret, names_secret
from jobtrail.domain.errors import RecipeInvalid

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WORD = re.compile(r"[^\s-]\S*")  # no option of a command line by accident
OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MEMORY = re.compile(r"[0-9]+[KMGT]?", re.IGNORECASE)  # sbatch(1), --mem
# sbatch(1), --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes[:seconds]
TIME = re.compile(r"[0-9]+(:[0-9]+){0,2}|[0-9]+-[0-9]+(:[0-9]+){0,2}|UNLIMITED", re.IGNORECASE)
MEASURED = ("ttft", "tpot", "itl", "e2el")
MAX_REPEATS = 100  # a report of one mebibyte holds three times as many of what the tools measure
BOUNDED = ("ttft", "tpot", "e2el")
SECTION_OPTIONS = ("partition", "account", "qos", "nodes", "gpus-per-node", "cpus-per-task", "mem", "time")
# Without these the run's directory, its end and its job could not be found.
OWN_OPTIONS = ("parsable", "output", "error", "signal", "array", "wrap", "input", "test-only", "wait", "quiet")
_EXPORT = "and recipes are recorded for everybody to read; export it before the call: the job inherits your environment"
MODES_OF_KEY: dict[str, tuple[Mode, ...]] = {
    "num_prompts": (Mode.SERVE, Mode.THROUGHPUT),
    "batch_size": (Mode.LATENCY,),
    "iterations": (Mode.LATENCY,),
    "max_concurrency": (Mode.SERVE,),
    "temperature": (Mode.SERVE,),
}


def check_recipe(recipe: Recipe) -> None:
    """Raises RecipeInvalid for the first thing that cannot be."""
    _check_texts(recipe)
    if recipe.mode is Mode.EXTERNAL:
        modes = listed(mode for mode in Mode if mode is not Mode.EXTERNAL)
        raise RecipeInvalid("mode", f"external results are brought in, not run; a recipe's mode is one of {modes}")
    _check_resources(recipe.resources)
    _check_environment(recipe.environment)
    if recipe.server is not None:
        if recipe.mode is not Mode.SERVE:
            raise RecipeInvalid("server", f"mode {recipe.mode} has no server; leave it out, or use mode serve")
        _check_command("server.command", recipe.server.command, empty=False)
        _check_arguments("server.args", recipe.server.args)
        _check_port(recipe.server.args.get("port"))
        if not recipe.server.ready.path.startswith("/"):
            raise RecipeInvalid("server.ready.path", f"{recipe.server.ready.path!r} must begin with /, as /health")
    _check_workload(recipe.workload, recipe.mode)
    _check_measure(recipe.measure, recipe.mode)
    for key in recipe.gate:
        _check_gate(key, recipe)


def _check_texts(recipe: Recipe) -> None:
    if not NAME.fullmatch(recipe.name):
        allowed = "letters, digits, '.', '_' and '-', begins with a letter or digit, and is at most 64 long"
        raise RecipeInvalid("name", f"{recipe.name!r}: a name has only {allowed}")
    if recipe.version is not None and not NAME.fullmatch(recipe.version):
        raise RecipeInvalid("version", f"{recipe.version!r}: only letters, digits, '.', '_' and '-', at most 64")
    if not all(char.isprintable() or char == "\n" for char in recipe.description):
        raise RecipeInvalid("description", "has control characters")
    for place, text in (("model.id", recipe.model.id), ("model.revision", recipe.model.revision)):
        if text is not None and not (WORD.fullmatch(text) and text.isprintable()):
            raise RecipeInvalid(place, f"{text!r} must be a name or path without blanks that begins with no '-'")


def _check_resources(resources: Resources) -> None:
    for place in ("partition", "account", "qos"):
        value: str | None = getattr(resources, place)
        if value is not None and not (WORD.fullmatch(value) and value.isprintable()):
            raise RecipeInvalid(f"resources.{place}", f"{value!r} must be a name without blanks")
    if resources.mem is not None and not MEMORY.fullmatch(resources.mem):
        raise RecipeInvalid("resources.mem", f"{resources.mem!r} must be a number with K, M, G or T, as 64G")
    if resources.time is not None and not TIME.fullmatch(resources.time):
        raise RecipeInvalid("resources.time", f"{resources.time!r} must be as 30, 00:30:00 or 1-12:00:00, in quotes")
    for name, text in resources.options.items():
        place = f"resources.options.{name}"
        if not OPTION.fullmatch(name):
            raise RecipeInvalid(place, "an option of sbatch is named by its long name without dashes")
        if name in SECTION_OPTIONS:
            raise RecipeInvalid(place, f"has a key of its own: resources.{name.replace('-', '_')}")
        if name in OWN_OPTIONS:
            raise RecipeInvalid(place, "is set by `jobtrail bench run` itself")
        _check_text(place, text)


def _check_environment(environment: Mapping[str, str]) -> None:
    for name, text in environment.items():
        if not VARIABLE.fullmatch(name):
            raise RecipeInvalid(f"environment.{name}", "a variable's name has only letters, digits and _")
        _check_secret(f"environment.{name}", name)
        _check_text(f"environment.{name}", text)


def _check_secret(place: str, name: str) -> None:
    if names_secret(name):
        raise RecipeInvalid(place, f"looks like a secret, {_EXPORT}")


def _check_text(place: str, text: str) -> None:
    if "\0" in text:
        raise RecipeInvalid(place, "has a NUL character, which no command line can carry")
    if holds_secret(text):
        raise RecipeInvalid(place, f"has what looks like a secret in it, {_EXPORT}")


def _check_command(place: str, words: tuple[str, ...], *, empty: bool) -> None:
    if not words and not empty:
        raise RecipeInvalid(place, "needs a program at least")
    for word in words:
        _check_text(place, word)
        if word.startswith("--"):
            _check_secret(place, word)
    if words and not WORD.fullmatch(words[0]):
        example = listed(words[0].split()) or "vllm, serve"
        raise RecipeInvalid(
            place, f"{words[0]!r} is no program; give a list of words, as [{example}]: no shell reads it"
        )


def _check_arguments(place: str, arguments: Mapping[str, Argument]) -> None:
    for name, value in arguments.items():
        if not OPTION.fullmatch(name):
            raise RecipeInvalid(f"{place}.{name}", "an option is named without dashes in front, as max-model-len")
        _check_secret(f"{place}.{name}", name)
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeInvalid(f"{place}.{name}", "must be finite")
        if isinstance(value, str):
            _check_text(f"{place}.{name}", value)


def _check_port(port: Argument) -> None:
    if port is not None and (isinstance(port, bool | float) or not re.fullmatch("[0-9]{1,5}", str(port))):
        raise RecipeInvalid("server.args.port", f"{port!r} is no port; without it a free one is taken")


def _check_workload(workload: Workload, mode: Mode) -> None:
    _check_command("workload.command", workload.command, empty=True)
    _check_arguments("workload.args", workload.args)
    if not NAME.fullmatch(workload.dataset):
        raise RecipeInvalid("workload.dataset", f"{workload.dataset!r} must be a name, as random")
    for key, modes in MODES_OF_KEY.items():
        if getattr(workload, key) is not None and mode not in modes:
            raise RecipeInvalid(f"workload.{key}", f"means nothing in mode {mode}, only in {listed(modes)}")
    if workload.warmups and mode is Mode.THROUGHPUT:
        raise RecipeInvalid("workload.warmups", "means nothing in mode throughput, only in serve and latency")
    if not workload.request_rate > 0:  # of NaN too
        raise RecipeInvalid("workload.request_rate", "must be above 0 requests per second, or inf")
    if mode is not Mode.SERVE and not math.isinf(workload.request_rate):
        raise RecipeInvalid("workload.request_rate", f"means nothing in mode {mode}, only in serve")
    if workload.temperature is not None and not 0 <= workload.temperature <= 2:
        raise RecipeInvalid("workload.temperature", f"{workload.temperature} must be from 0 to 2")


def _check_measure(measure: Measure, mode: Mode) -> None:
    for key in ("metrics", "percentiles"):
        if not getattr(measure, key):
            raise RecipeInvalid(f"measure.{key}", "must name one at least")
    if measure.repeats > MAX_REPEATS:
        raise RecipeInvalid("measure.repeats", f"{measure.repeats} are more than a report holds; at most {MAX_REPEATS}")
    _check_known("measure.metrics", measure.metrics, MEASURED)
    for percentile in measure.percentiles:
        if not 0 < percentile < 100:
            raise RecipeInvalid("measure.percentiles", f"{percentile:g} must be above 0 and below 100")
        if percentile != round(percentile, 3):
            raise RecipeInvalid("measure.percentiles", f"{percentile} has more than three decimals")
    _check_unique("measure.percentiles", [f"{percentile:g}" for percentile in measure.percentiles])
    _check_known("measure.goodput", measure.goodput, BOUNDED)
    if measure.goodput and mode is not Mode.SERVE:
        raise RecipeInvalid("measure.goodput", f"means nothing in mode {mode}, only in serve")
    for name, bound in measure.goodput.items():
        if not 0 < bound < math.inf:
            raise RecipeInvalid(f"measure.goodput.{name}", f"{bound} must be milliseconds above 0")


def _check_known(place: str, names: Iterable[str], known: Iterable[str]) -> None:
    names = list(names)
    for name in names:
        if name not in known:
            raise RecipeInvalid(place, f"{name!r} is none of {listed(known)}{nearest(name, known)}")
    _check_unique(place, names)


def _check_unique(place: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RecipeInvalid(place, f"{name} is named twice")


def _check_gate(key: str, recipe: Recipe) -> None:
    name, dot, stat = key.partition(".")
    judged = [metric.name for metric in METRICS.values() if metric.direction is not Direction.NONE]
    if name not in judged:
        raise RecipeInvalid(f"gate.{key}", f"{name!r} is no metric that can be judged{nearest(name, judged)}")
    if not dot:
        return
    if stat not in STATS and not re.fullmatch(PERCENTILE, stat):
        raise RecipeInvalid(f"gate.{key}", f"{stat!r} is none of {listed(STATS)}{nearest(stat, STATS)}")
    percentiles = {f"p{percentile:g}" for percentile in recipe.measure.percentiles}
    if recipe.mode is Mode.SERVE and stat.startswith("p") and stat not in percentiles:
        raise RecipeInvalid(f"gate.{key}", f"{stat} is not among measure.percentiles, so it would never be measured")

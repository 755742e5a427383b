"""The words of the commands that a recipe runs: the server, and the load on it.

vLLM's own commands get the options that belong to the recipe's fields. Any other command is run as the recipe gives it,
with `{url}`, `{host}`, `{port}`, `{model}`, `{result}`, `{run_uid}`, `{job_id}`, `{repeat}`, `{seed}` and
`{num_prompts}` replaced in each of its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from jobtrail.domain.benchmarks.recipe import Argument, Recipe, Server
from jobtrail.domain.benchmarks.report import Mode

HOST = "127.0.0.1"
VLLM = ("vllm",)
PLACEHOLDERS = ("url", "host", "port", "model", "result", "run_uid", "job_id", "repeat", "seed", "num_prompts")
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one load happens. `repeat` is from 1; 0 is the warm-up, whose result nobody keeps."""

    repeat: int
    result: Path
    run_uid: str
    port: int | None = None  # of the server, where there is one
    job_id: str | None = None  # public id
    cluster: str | None = None


def option_words(options: Mapping[str, Argument]) -> Iterator[str]:
    """`--name value`; true is the bare option, false and None leave it out."""
    for name, value in options.items():
        if value is None or value is False:
            continue
        yield f"--{name}"
        if value is not True:
            yield number_word(value) if isinstance(value, int | float) else value


def number_word(value: float) -> str:
    """50 for 50.0, 99.9, inf."""
    return str(int(value)) if float(value).is_integer() else str(value)


def server_of(recipe: Recipe) -> Server | None:
    """The server that the recipe's load needs; None where it needs none of ours."""
    return recipe.server or (Server() if recipe.mode is Mode.SERVE and not recipe.workload.command else None)


def fixed_port(server: Server) -> int | None:
    """The port that the recipe insists on; None where it does not, or with what is no port: its server will say so."""
    port = str(server.args.get("port", ""))
    return int(port) if port.isdecimal() and 0 < int(port) < 65_536 else None


def served_name(recipe: Recipe) -> str:
    """The name under which the server offers the model."""
    named = recipe.server.args.get("served-model-name") if recipe.server is not None else None
    return str(named) if named else recipe.model.id


def server_words(recipe: Recipe, server: Server, port: int) -> list[str]:
    """The server's command. One with placeholders is taken as it is, with the recipe's options behind it."""
    values = {"host": HOST, "port": str(port), "model": recipe.model.id, "url": f"http://{HOST}:{port}"}
    if any(_PLACEHOLDER.search(word) for word in server.command):
        return [*_filled(server.command, values), *option_words(server.args)]
    options: dict[str, Argument] = {"host": HOST, "port": port, "served-model-name": served_name(recipe)}
    if recipe.model.revision is not None:
        options["revision"] = recipe.model.revision
    return [*server.command, recipe.model.id, *option_words({**options, **server.args})]


def load_words(recipe: Recipe, place: Place) -> list[str]:
    """The load's command."""
    command = _vllm_command(recipe)
    if command is None:
        return [*_filled(recipe.workload.command, _values(recipe, place)), *option_words(recipe.workload.args)]
    build = {Mode.LATENCY: _latency, Mode.THROUGHPUT: _throughput}.get(recipe.mode, _serve)
    return [*command, *build(recipe, place)]


def vllm_program(recipe: Recipe) -> tuple[str, ...] | None:
    """What precedes vLLM's subcommands in the recipe's load; None for another tool."""
    command = _vllm_command(recipe)
    return None if command is None else command[:-2]


def can_warm_up(recipe: Recipe) -> bool:
    """Whether a load of `warmups` requests can come first: of the tools without a server, each warms itself up."""
    return recipe.workload.warmups > 0 and server_of(recipe) is not None


def _vllm_command(recipe: Recipe) -> tuple[str, ...] | None:
    """`… bench serve|latency|throughput`, by the program that serves if the recipe does not say; None: not vLLM's."""
    kinds = (Mode.SERVE, Mode.LATENCY, Mode.THROUGHPUT)
    if command := recipe.workload.command:
        return command if command[-2:] in {("bench", kind.value) for kind in kinds} else None
    server = server_of(recipe)
    program = server.command[:-1] if server is not None and server.command[-1] == "serve" else VLLM
    return (*program, "bench", recipe.mode.value)


def _seed(recipe: Recipe, place: Place) -> int:
    """Each repeat has prompts of its own, or the server would answer from what it remembers of the one before."""
    work = recipe.workload
    return work.seed + (place.repeat - 1 if place.repeat else recipe.measure.repeats)


def _num_prompts(recipe: Recipe, place: Place) -> int | None:
    return recipe.workload.num_prompts if place.repeat else recipe.workload.warmups


def _serve(recipe: Recipe, place: Place) -> Iterator[str]:
    work, measure = recipe.workload, recipe.measure
    name = served_name(recipe)
    options: dict[str, Argument] = {
        "host": HOST,
        "port": place.port,
        "model": name,
        "tokenizer": recipe.model.id if name != recipe.model.id else None,
        "dataset-name": work.dataset,
        **_lengths(recipe),
        "num-prompts": _num_prompts(recipe, place),
        "request-rate": work.request_rate,
        "max-concurrency": work.max_concurrency,
        "seed": _seed(recipe, place),
        "temperature": work.temperature,
        "ignore-eos": work.ignore_eos,
        "disable-tqdm": True,
        # Without these vLLM writes the 99th percentile alone, and no end-to-end latency.
        "percentile-metrics": ",".join(measure.metrics),
        "metric-percentiles": ",".join(number_word(percentile) for percentile in measure.percentiles),
    }
    if place.repeat:
        options |= {"save-result": True, "result-dir": str(place.result.parent), "result-filename": place.result.name}
    yield from option_words({**options, **work.args})
    if measure.goodput:
        yield from ("--goodput", *(f"{metric}:{number_word(bound)}" for metric, bound in measure.goodput.items()))
    yield from ("--metadata", f"jobtrail_run_uid={place.run_uid}", f"jobtrail_repeat={place.repeat}")
    for key, value in (("job_id", place.job_id), ("cluster", place.cluster)):
        if value:
            yield f"jobtrail_{key}={value}"


def _lengths(recipe: Recipe) -> dict[str, Argument]:
    """How long prompts and answers are; each dataset of vLLM has its own options for it."""
    work = recipe.workload
    match work.dataset:
        case "random" | "sonnet":
            prefix = work.dataset
            return {f"{prefix}-input-len": work.input_len, f"{prefix}-output-len": work.output_len}
        case "sharegpt":
            return {"sharegpt-output-len": work.output_len}
        case _:
            return {}


def _latency(recipe: Recipe, place: Place) -> Iterator[str]:
    work = recipe.workload
    options: dict[str, Argument] = {
        "model": recipe.model.id,
        "revision": recipe.model.revision,
        "input-len": work.input_len,
        "output-len": work.output_len,
        "batch-size": work.batch_size,
        "num-iters": work.iterations,
        "num-iters-warmup": work.warmups or None,
        "seed": _seed(recipe, place),
        "output-json": str(place.result),
    }
    return option_words({**options, **work.args})


def _throughput(recipe: Recipe, place: Place) -> Iterator[str]:
    work = recipe.workload
    options: dict[str, Argument] = {
        "model": recipe.model.id,
        "revision": recipe.model.revision,
        "dataset-name": work.dataset,
        **_lengths(recipe),  # with --input-len it would assert on the model's longest input
        "num-prompts": work.num_prompts,
        "seed": _seed(recipe, place),
        "output-json": str(place.result),
    }
    return option_words({**options, **work.args})


def _values(recipe: Recipe, place: Place) -> dict[str, str]:
    count = _num_prompts(recipe, place)
    return {
        "url": "" if place.port is None else f"http://{HOST}:{place.port}",
        "host": HOST,
        "port": "" if place.port is None else str(place.port),
        "model": served_name(recipe),
        "result": str(place.result),
        "run_uid": place.run_uid,
        "job_id": place.job_id or "",
        "repeat": str(place.repeat),
        "seed": str(_seed(recipe, place)),
        "num_prompts": "" if count is None else str(count),
    }


def _filled(words: Sequence[str], values: Mapping[str, str]) -> Iterator[str]:
    """Each word with its placeholders replaced; other braces, as of JSON, stay."""
    for word in words:
        yield _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)

"""A recipe to change, and what is said of a changed one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jobtrail.domain.benchmarks.recipe_identity import identify
from jobtrail.domain.benchmarks.recipe_parsing import read_source, resolve
from jobtrail.domain.errors import RecipeInvalid

CHAT: dict[str, Any] = {
    "name": "chat",
    "mode": "serve",
    "model": {"id": "some/model"},
    "resources": {"gpus_per_node": 1, "time": "00:30:00"},
    "environment": {"HF_HUB_OFFLINE": "1"},
    "server": {"command": ["vllm", "serve"], "args": {"dtype": "auto", "max-model-len": 4096, "enforce-eager": True}},
    "workload": {"num_prompts": 500, "max_concurrency": 32, "request_rate": "inf"},
    "measure": {"repeats": 3, "goodput": {"ttft": 500}},
    "gate": {"output_token_throughput": {"min_rel": 0.05}, "time_per_output_token.p50": {}},
}
PARAMETERS: dict[str, Any] = {
    "max_concurrency": {"type": "integer", "default": 32, "min": 1, "max": 512},
    "rate": {"type": "number", "at": "workload.request_rate", "default": math.inf},
    "dtype": {"type": "choice", "choices": ["auto", "float32"]},
    "eager": {"type": "boolean", "at": "server.args.enforce-eager"},
    "model": {"type": "string", "at": "model.id", "description": "which model"},
}


def chat(**sections: Any) -> dict[str, Any]:
    """The recipe with sections replaced; None leaves one out."""
    return {name: value for name, value in {**CHAT, **sections}.items() if value is not None}


def offline(mode: str, **sections: Any) -> dict[str, Any]:
    """A recipe without a server."""
    return {"name": "offline", "mode": mode, "model": {"id": "m"}, **sections}


def sha(document: dict[str, Any], **settings: str) -> str:
    return identify(resolve(read_source(document), settings)).sha256


def problem(document: object, **settings: str) -> tuple[str, str]:
    """Place and words of what is refused."""
    with pytest.raises(RecipeInvalid) as caught:
        resolve(read_source(document), settings)
    return caught.value.place, caught.value.problem


def with_parameters(**parameters: Any) -> dict[str, Any]:
    return chat(parameters={**PARAMETERS, **parameters})

"""Which of two recipes are the same."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.benchmarks import recipe_identity
from jobtrail.domain.benchmarks.recipe_identity import body, canonical, from_body, identify
from jobtrail.domain.benchmarks.recipe_parsing import parse
from tests.unit.recipes import chat, offline, sha


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other", "description": "text"},
        {"resources": {"gpus_per_node": 1, "partition": "p", "account": "a", "qos": "q", "mem": "1G", "time": "5",
                       "options": {"constraint": "x"}}},
        {"gate": None},
        {"schema": 1, "version": None},
        {"server": {"args": {"dtype": "auto", "max-model-len": 4096.0, "enforce-eager": True}}},
        {"workload": {"num_prompts": 500, "max_concurrency": 32}},
        {"workload": {"num_prompts": 500, "max_concurrency": 32, "request_rate": math.inf, "temperature": None}},
        {"server": {"args": {"enforce-eager": True, "max-model-len": "4096", "dtype": "auto", "x": False, "y": None},
                    "ready": {"timeout_s": 5}}},
        {"measure": {"repeats": 3, "goodput": {"ttft": 500.0}, "percentiles": [99, 50], "metrics": ["ttft"]},
         "gate": None},
    ],
)  # fmt: skip
def test_what_changes_no_result_keeps_the_hash(changes: dict[str, Any]) -> None:
    assert sha(chat(**changes)) == sha(chat())


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "2"},
        {"model": {"id": "some/model", "revision": "main"}},
        {"environment": {}},
        {"resources": {"gpus_per_node": 2, "time": "00:30:00"}},
        {"resources": {"gpus_per_node": 1, "nodes": 2}},
        {"resources": {"gpus_per_node": 1, "cpus_per_task": 8}},
        {"server": {"args": {"dtype": "auto", "max-model-len": 4096, "enforce-eager": "true"}}},
        {"server": {"args": {"dtype": "auto", "max-model-len": 4096}}},
        {"workload": {"num_prompts": 500, "max_concurrency": 32, "request_rate": 10}},
        {"workload": {"num_prompts": 500, "max_concurrency": 32, "seed": 1}},
        {"measure": {"repeats": 2, "goodput": {"ttft": 500}}},
        {"measure": {"repeats": 3}},
    ],
)
def test_what_changes_results_changes_the_hash(changes: dict[str, Any]) -> None:
    assert sha(chat(**changes)) != sha(chat())


def test_the_canonical_form_of_a_recipe_stays_what_it_is() -> None:
    """A changed hash would cut every recipe off from its history."""
    assert canonical(parse(offline("latency", workload={"batch_size": 1, "args": {"b": 1, "a": True}}))) == (
        '{"environment":{},"measure":{"goodput":{},"repeats":1},"mode":"latency","model":{"id":"m","revision":null},'
        '"resources":{"cpus_per_task":null,"gpus_per_node":0,"nodes":1},"schema":1,"server":null,"version":null,'
        '"workload":{"args":{"a":true,"b":"1"},"batch_size":1,"command":[],"dataset":"random","ignore_eos":true,'
        '"input_len":null,"iterations":null,"max_concurrency":null,"num_prompts":null,"output_len":null,'
        '"request_rate":"inf","seed":0,"temperature":null,"warmups":0}}'
    )


def test_the_identity_holds_the_whole_recipe() -> None:
    recipe = parse(chat(version="2026.1"))
    identity = identify(recipe)
    assert (identity.name, identity.version, len(identity.sha256)) == ("chat", "2026.1", 64)
    assert identity.body == body(recipe)
    assert from_body(msgspec.json.decode(msgspec.json.encode(identity.body))) == recipe


def test_a_body_that_is_none_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        from_body({"workload": []})


words = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=8)
option_names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(
    lambda name: not name.endswith(("token", "secret", "password", "key", "passwd", "credential", "credentials"))
)
arguments = st.dictionaries(
    option_names.filter(lambda name: name != "port"),
    st.one_of(st.booleans(), st.none(), st.integers(-(10**9), 10**9), words, st.floats(-1e6, 1e6)),
    max_size=5,
)
documents = st.fixed_dictionaries(
    {
        "name": st.just("any"),
        "mode": st.just("serve"),
        "model": st.fixed_dictionaries({"id": st.from_regex(r"[a-z/][a-z0-9/.-]{0,12}", fullmatch=True)}),
        "server": st.fixed_dictionaries({"args": arguments}),
        "workload": st.fixed_dictionaries(
            {
                "request_rate": st.one_of(st.just("inf"), st.just(math.inf), st.floats(0.01, 1e4)),
                "seed": st.integers(-(2**62), 2**62),
                "temperature": st.one_of(st.none(), st.floats(0, 2)),
                "args": arguments,
            }
        ),
        "measure": st.fixed_dictionaries({"repeats": st.integers(1, 9)}),
    }
)


@given(documents, st.randoms(use_true_random=False))
def test_a_recipe_comes_back_from_its_body_and_no_order_changes_its_hash(
    document: dict[str, Any], chance: random.Random
) -> None:
    recipe = parse(document)
    again = from_body(msgspec.json.decode(msgspec.json.encode(body(recipe))))
    assert again == recipe
    assert identify(parse(_shuffled(document, chance))).sha256 == identify(recipe).sha256
    json.loads(canonical(recipe), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def _shuffled(value: Any, chance: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    items = [(key, _shuffled(below, chance)) for key, below in value.items()]
    chance.shuffle(items)
    return dict(items)


def test_what_does_not_identify_is_there_in_every_recipe() -> None:
    made = body(parse(chat()))
    for place in recipe_identity.NOT_IDENTIFYING:
        value: Any = made
        for key in place:
            assert key in value
            value = value[key]

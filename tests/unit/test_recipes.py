"""What a recipe may say, what may be set on top of it, and which of two recipes are the same."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.benchmarks import recipe_identity, recipe_parsing
from jobtrail.domain.benchmarks.recipe import Recipe, Server
from jobtrail.domain.benchmarks.recipe_identity import body, canonical, from_body, identify
from jobtrail.domain.benchmarks.recipe_parsing import missing, parse, read_source, resolve
from jobtrail.domain.benchmarks.recipe_places import find, keys_of, read
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


# --- what the file may say


def test_defaults_are_filled_in() -> None:
    recipe = parse(chat(server=None, measure=None))
    assert recipe.server == Server()
    assert math.isinf(recipe.workload.request_rate)
    assert recipe.measure.percentiles == (50, 90, 95, 99)


def test_a_load_of_its_own_needs_no_server_of_ours() -> None:
    """As when the command starts what it measures."""
    assert parse(chat(server=None, workload={"command": ["my-load", "{result}"]})).server is None


@pytest.mark.parametrize(
    ("document", "place", "said"),
    [
        ([], "", "a recipe is a mapping"),
        (chat(modle={}), "modle", "did you mean mode"),
        (chat(model=None), "model", "is missing, and needed"),
        (chat(model={"revision": "x"}), "model.id", "is missing, and needed"),
        (chat(model={"id": "m", "revison": "x"}), "model.revison", "did you mean revision?"),
        (chat(mode="serv"), "mode", "'serv' is none of serve, latency, throughput, external; did you mean serve?"),
        (chat(server={"command": "vllm serve"}), "server.command", "a list of words is needed, as [vllm, serve]"),
        (chat(server={"command": ["vllm serve"]}), "server.command", "give a list of words, as [vllm, serve]"),
        (chat(server={"command": [""]}), "server.command", "give a list of words, as [vllm, serve]"),
        (chat(server={"command": []}), "server.command", "needs a program at least"),
        (chat(server={"command": ["a", "b\0"]}), "server.command", "NUL"),
        (chat(server={"args": {"--dtype": "auto"}}), "server.args.--dtype", "without dashes"),
        (chat(server={"args": {"a": 1, "x": [1]}}), "server.args.x", "got a list"),
        (chat(server={"args": {"x": math.nan}}), "server.args.x", "must be finite"),
        (chat(server={"args": {"x": "a\0"}}), "server.args.x", "NUL"),
        (chat(server={"args": {"port": "http"}}), "server.args.port", "'http' is no port"),
        (chat(server={"args": {"port": True}}), "server.args.port", "True is no port"),
        (chat(server={"args": {"api-key": "x"}}), "server.args.api-key", "looks like a secret"),
        (chat(server={"args": {1: 2}}), "server.args", "put it in quotes"),
        (chat(server={"ready": {"path": "health"}}), "server.ready.path", "must begin with /"),
        (chat(server={"ready": {"timeout_s": 0}}), "server.ready.timeout_s", "expected an integer >= 1"),
        (chat(workload=[]), "workload", "a mapping of keys to values is needed, not a list"),
        (chat(workload="x"), "workload", "a mapping of keys to values is needed, not text"),
        (chat(workload={"num_prompts": "many"}), "workload.num_prompts", "expected an integer or null, got text"),
        (chat(workload={"dataset": "-x"}), "workload.dataset", "must be a name"),
        (chat(workload={"request_rate": 0}), "workload.request_rate", "above 0"),
        (chat(workload={"request_rate": math.nan}), "workload.request_rate", "above 0"),
        (chat(workload={"request_rate": "fast"}), "workload.request_rate", "expected a number, got text"),
        (chat(workload={"temperature": 3}), "workload.temperature", "from 0 to 2"),
        (chat(workload={"temperature": -0.1}), "workload.temperature", "from 0 to 2"),
        (chat(workload={"batch_size": 1}), "workload.batch_size", "means nothing in mode serve, only in latency"),
        (chat(environment={"B": "b", "A": 1}), "environment.A", "text is needed: put it in quotes"),
        (chat(environment={"A B": "b"}), "environment.A B", "only letters, digits and _"),
        (chat(environment={"HF_TOKEN": "hf_x"}), "environment.HF_TOKEN", "looks like a secret"),
        (chat(environment={"A": "b\0"}), "environment.A", "NUL"),
        (chat(resources={"partition": "a b"}), "resources.partition", "a name without blanks"),
        (chat(resources={"qos": "--wrap=x"}), "resources.qos", "a name without blanks"),
        (chat(resources={"mem": "much"}), "resources.mem", "as 64G"),
        (chat(resources={"time": "soon"}), "resources.time", "in quotes"),
        (chat(resources={"time": 30}), "resources.time", "put it in quotes"),
        (chat(resources={"options": {"--hold": ""}}), "resources.options.--hold", "without dashes"),
        (chat(resources={"options": {"cpus-per-task": "1"}}), "resources.options.cpus-per-task", "cpus_per_task"),
        (chat(resources={"options": {"wrap": "x"}}), "resources.options.wrap", "is set by `jobtrail bench run` itself"),
        (chat(resources={"options": {"comment": "\0"}}), "resources.options.comment", "NUL"),
        (chat(measure={"metrics": ["ttfs"]}), "measure.metrics", "did you mean ttft?"),
        (chat(measure={"metrics": ["ttft", "ttft"]}), "measure.metrics", "ttft is named twice"),
        (chat(measure={"metrics": []}), "measure.metrics", "must name one at least"),
        (chat(measure={"percentiles": [50, 100]}), "measure.percentiles", "100 must be above 0 and below 100"),
        (chat(measure={"percentiles": [0]}), "measure.percentiles", "0 must be above 0"),
        (chat(measure={"percentiles": [50.12345]}), "measure.percentiles", "more than three decimals"),
        (chat(measure={"percentiles": [50, 50.0]}), "measure.percentiles", "50 is named twice"),
        (chat(measure={"percentiles": ["p50"]}), "measure.percentiles[0]", "expected a number, got text"),
        (chat(measure={"goodput": {"itl": 5}}), "measure.goodput", "'itl' is none of ttft, tpot, e2el"),
        (chat(measure={"goodput": {"ttft": 0}}), "measure.goodput.ttft", "milliseconds above 0"),
        (chat(measure={"goodput": {"ttft": math.inf}}), "measure.goodput.ttft", "milliseconds above 0"),
        (chat(measure={"goodput": {"tpot": 1.0, "ttft": "x"}}), "measure.goodput.ttft", "expected a number, got text"),
        (chat(gate={"throughput": {}}), "gate.throughput", "no metric that can be judged"),
        (chat(gate={"duration": {}}), "gate.duration", "no metric that can be judged"),
        (chat(gate={"request_latency.men": {}}), "gate.request_latency.men", "did you mean mean?"),
        (chat(gate={"request_latency.p75": {}}), "gate.request_latency.p75", "not among measure.percentiles"),
        (chat(gate={"request_latency": {"min_rel": 1}}), "gate.request_latency.min_rel", "expected a number < 1.0"),
        (chat(gate={"request_latency": {"min": 1}}), "gate.request_latency.min", "did you mean min_rel?"),
        (chat(name="a b"), "name", "a name has only letters"),
        (chat(name="x" * 65), "name", "at most 64 long"),
        (chat(version="1 2"), "version", "only letters"),
        (chat(description="\x1b[31m"), "description", "control characters"),
        (chat(model={"id": "-m"}), "model.id", "begins with no '-'"),
        (chat(model={"id": "m", "revision": "a\u0007"}), "model.revision", "without blanks"),
        (chat(schema=2), "schema", "expected an integer <= 1"),
        (chat(mode="external", server=None), "mode", "one of serve, latency, throughput"),
        (offline("latency", server={}), "server", "mode latency has no server"),
        (offline("latency", workload={"request_rate": 3}), "workload.request_rate", "only in serve"),
        (offline("latency", workload={"num_prompts": 3}), "workload.num_prompts", "only in serve, throughput"),
        (offline("throughput", workload={"max_concurrency": 3}), "workload.max_concurrency", "only in serve"),
        (offline("throughput", workload={"temperature": 0}), "workload.temperature", "only in serve"),
        (offline("throughput", workload={"warmups": 1}), "workload.warmups", "only in serve and latency"),
        (offline("throughput", measure={"goodput": {"ttft": 1}}), "measure.goodput", "only in serve"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_place(document: object, place: str, said: str) -> None:
    where, what = problem(document)
    assert where == place
    assert said in what


@pytest.mark.parametrize(
    "document",
    [
        offline("latency", gate={"batch_latency.p75": {}}),  # its tool has percentiles of its own
        chat(environment={"TOKENIZERS_PARALLELISM": "false"}),
        chat(resources={"time": "UNLIMITED", "mem": "64G", "partition": "a,b", "options": {"exclusive": ""}}),
        chat(resources={"time": "1-12:00:00"}),
        chat(measure={"percentiles": [99.9]}, gate={"request_latency.p99.9": {}, "request_latency.mean": {}}),
        chat(server={"args": {"port": "8000"}}),
        chat(description="two\nlines"),
    ],
)
def test_what_is_unusual_and_right_is_taken(document: dict[str, Any]) -> None:
    assert from_body(body(parse(document))) == parse(document)


# --- parameters and settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_concurrency": "64"}, {"workload": {"max_concurrency": 64}}),
        ({"rate": "2.5"}, {"workload": {"request_rate": 2.5}}),
        ({"eager": "false"}, {"server": {"args": {"enforce-eager": False}}}),
        ({"model": "/some/dir"}, {"model": {"id": "/some/dir"}}),
        ({"model.id": "/some/dir", "server.args.dtype": "float32"}, {"server": {"args": {"dtype": "float32"}}}),
        ({"model.revision": "null"}, {"model": {"revision": None}}),
        ({"model.revision": "abc"}, {"model": {"revision": "abc"}}),
        ({"server.args.new": "0.9"}, {"server": {"args": {"new": 0.9}}}),
        ({"server.args.new": "8"}, {"server": {"args": {"new": 8}}}),
        ({"server.args.new": "null"}, {"server": {"args": {"new": None}}}),
        ({"server.ready.timeout_s": "5"}, {"server": {"ready": {"timeout_s": 5}}}),
        ({"workload.request_rate": ".inf"}, {"workload": {"request_rate": "inf"}}),
        ({"measure.percentiles": "50, 99.9"}, {"measure": {"percentiles": [50.0, 99.9]}}),
        ({"measure.metrics": "ttft,tpot"}, {"measure": {"metrics": ["ttft", "tpot"]}}),
        ({"server.command": '["python", "-m", "a b"]'}, {"server": {"command": ["python", "-m", "a b"]}}),
        ({"gate.time_per_output_token.p50.min_rel": "0.2"}, {"gate": {"time_per_output_token.p50": {"min_rel": 0.2}}}),
        ({"resources.options.constraint": "a100"}, {"resources": {"options": {"constraint": "a100"}}}),
        ({"environment.A": "1"}, {"environment": {"A": "1"}}),
        ({"name": "other"}, {"name": "other"}),
    ],
)
def test_settings_become_the_type_of_their_place(settings: dict[str, str], expected: dict[str, Any]) -> None:
    made = body(resolve(read_source(with_parameters()), settings))

    def holds(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(holds(value, whole[key]) for key, value in part.items())
        return bool(whole == part and type(whole) is type(part))

    assert holds(expected, msgspec.json.decode(msgspec.json.encode(made)))


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({"max_concurrency": "many"}, "max_concurrency", "'many' is not an integer"),
        ({"max_concurrency": "0"}, "max_concurrency", "0 is less than 1, the least allowed"),
        ({"max_concurrency": "1000"}, "max_concurrency", "1000 is more than 512, the most allowed"),
        ({"rate": "fast"}, "rate", "'fast' is not a number"),
        ({"eager": "yes"}, "eager", "'yes' is not true or false"),
        ({"dtype": "float64"}, "dtype", "'float64' is not one of auto, float32"),
        ({"max_concurency": "4"}, "max_concurency", "did you mean max_concurrency?"),
        ({"name.x": "4"}, "name.x", "name has nothing below it"),
        ({"workload.num_prompt": "4"}, "workload.num_prompt", "did you mean num_prompts?"),
        ({"workload.num_prompts": "x"}, "workload.num_prompts", "'x' is not an integer or null"),
        ({"workload.ignore_eos": "1"}, "workload.ignore_eos", "'1' is not true or false"),
        ({"workload.request_rate": "inf inf"}, "workload.request_rate", "is not a number"),
        ({"workload": "x"}, "workload", "a section; name one of its keys: command"),
        ({"server.args": "x"}, "server.args", "name a key in it, as server.args.NAME"),
        ({"gate.x": "x"}, "gate.x", "name one of its keys: min_rel"),
        ({"measure.percentiles": "a"}, "measure.percentiles", "'a' is not a number"),
        ({"measure.percentiles": "[1"}, "measure.percentiles", "no list as JSON writes it"),
        ({"model": "a", "model.id": "b"}, "model.id", "model.id is set twice"),
        ({"server.command": "vllm serve"}, "server.command", "give a list of words"),
        ({"mode": "latency"}, "server", "mode latency has no server"),
        ({"model": "-x"}, "model.id", "begins with no '-'"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, str], place: str, said: str) -> None:
    where, what = problem(with_parameters(), **settings)
    assert where == place
    assert said in what


@pytest.mark.parametrize(
    ("parameters", "place", "said"),
    [
        ({"x": {"type": "int"}}, "parameters.x.type", "did you mean integer?"),
        ({"x": {"typ": "integer"}}, "parameters.x.typ", "did you mean type?"),
        ({"x": {}}, "parameters.x.type", "is missing, and needed"),
        ({"x": []}, "parameters.x", "a mapping of keys to values is needed, not a list"),
        ({"9": {"type": "integer"}}, "parameters.9", "begins with a letter"),
        ({"x": {"type": "integer"}}, "parameters.x", "no place of the recipe is called x"),
        ({"command": {"type": "string"}}, "parameters.command", "any of server.command, workload.command"),
        ({"x": {"type": "integer", "at": "workload.x"}}, "parameters.x.at", "unknown key 'x'"),
        ({"x": {"type": "integer", "at": "model.id"}}, "parameters.x", "as parameter model does"),
        ({"x": {"type": "choice", "at": "name"}}, "parameters.x.choices", "type choice needs it"),
        ({"x": {"type": "string", "at": "name", "choices": ["a"]}}, "parameters.x.choices", "goes with type choice"),
        ({"x": {"type": "string", "at": "name", "min": 1}}, "parameters.x", "min and max go with"),
        ({"x": {"type": "string", "at": "name", "required": True, "default": "a"}}, "parameters.x.default", "has no"),
        ({"seed": {"type": "integer", "default": True}}, "parameters.seed.default", "'true' is not an integer"),
        ({"seed": {"type": "string", "default": "x"}}, "parameters.seed.default", "'x' is not an integer"),
        ({"num_prompts": {"type": "integer", "default": 7}}, "parameters.num_prompts.default", "is 500 in the recipe"),
    ],
)
def test_a_wrong_parameter_is_refused(parameters: dict[str, Any], place: str, said: str) -> None:
    where, what = problem(with_parameters(**parameters))
    assert where == place
    assert said in what


def test_parameters_may_be_empty_or_without_a_section() -> None:
    assert sha(chat(parameters=None)) == sha(chat()) == sha({**chat(), "parameters": None})


def test_a_default_stands_where_the_recipe_says_nothing() -> None:
    document = chat(workload=None, parameters={"num_prompts": {"type": "integer", "default": 7}})
    assert resolve(read_source(document), {}).workload.num_prompts == 7
    assert resolve(read_source(document), {"num_prompts": "8"}).workload.num_prompts == 8


def test_a_setting_makes_the_sections_above_it() -> None:
    document = chat(server=None, parameters={"x": {"type": "integer", "at": "server.args.x", "default": 1}})
    server = resolve(read_source(document), {"server.args.y": "2"}).server
    assert server is not None
    assert server.args == {"x": 1, "y": 2}


def test_a_setting_below_what_is_no_section_is_refused() -> None:
    assert problem(chat(model="x"), **{"model.id": "y"}) == ("model", "a mapping of keys to values is needed, not text")


def test_a_default_below_what_is_no_section_is_left_to_the_check_of_the_recipe() -> None:
    document = chat(model="x", parameters={"id": {"type": "string", "default": "m"}})
    assert problem(document)[0] == "model"


def test_a_required_parameter_must_be_set_by_its_name_or_place() -> None:
    document = chat(model=None, parameters={"id": {"type": "string", "required": True, "description": "which model"}})
    source = read_source(document)
    assert missing(source, {}) == ["id"]
    assert problem(document) == ("parameters.id", "must be set, as --set id=VALUE (id: which model)")
    assert resolve(source, {"id": "m"}).model.id == resolve(source, {"model.id": "m"}).model.id == "m"


def test_a_required_parameter_without_a_description_says_so() -> None:
    document = chat(parameters={"id": {"type": "string", "required": True}})
    assert "no description" in problem(document)[1]


def test_an_unknown_name_says_that_there_are_no_parameters() -> None:
    assert "its parameters: none" in problem(chat(), x="1")[1]


def test_resolving_changes_nothing_of_the_source() -> None:
    source = read_source(with_parameters())
    before = json.dumps(source.document)
    resolve(source, {"model": "other", "server.args.x": "1"})
    assert json.dumps(source.document) == before


@pytest.mark.parametrize(
    ("section", "key"), [("", "model"), ("server.ready", "path"), ("gate[...]", "min_rel"), ("server.args[...]", None)]
)
def test_the_keys_of_a_section_are_known(section: str, key: str | None) -> None:
    assert (key in keys_of(section)) if key is not None else keys_of(section) == []


# --- the same recipe


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other", "description": "text"},
        {"resources": {"gpus_per_node": 1, "partition": "p", "account": "a", "qos": "q", "mem": "1G", "time": "5",
                       "options": {"constraint": "x"}}},
        {"gate": None},
        {"schema": 1, "version": None},
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


@given(st.sampled_from(["workload.num_prompts", "measure.repeats", "resources.nodes"]), st.integers(1, 10**6))
def test_a_number_that_is_set_is_the_number_in_the_recipe(place: str, number: int) -> None:
    section, key = place.split(".")
    assert body(resolve(read_source(chat()), {place: str(number)}))[section][key] == number
    assert sha(chat(), **{place: str(number)}) == sha(chat(**{section: {**CHAT[section], key: number}}))


@given(words)
def test_text_at_an_option_is_taken_or_refused_and_never_changed(text: str) -> None:
    """As 12, 1.5, true and null are read as what they look like, their words are the same on a command line."""
    value = read(find("server.args.some"), text)
    if isinstance(value, str):
        assert value == text


def test_every_message_of_msgspec_is_understood() -> None:
    """Also one that names no place."""
    error = recipe_parsing._translated(msgspec.ValidationError("Something new"), {}, Recipe)
    assert (error.place, error.problem) == ("", "something new")


def test_what_does_not_identify_is_there_in_every_recipe() -> None:
    made = body(parse(chat()))
    for place in recipe_identity.NOT_IDENTIFYING:
        value: Any = made
        for key in place:
            assert key in value
            value = value[key]

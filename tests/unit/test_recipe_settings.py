"""What may be set on top of a recipe: its parameters, and any place of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.benchmarks.recipe_identity import body
from jobtrail.domain.benchmarks.recipe_parsing import missing, read_source, resolve
from jobtrail.domain.benchmarks.recipe_places import find, keys_of, read, word
from tests.unit.recipes import CHAT, chat, problem, sha, with_parameters

SWITCHES = ("true", "false", "null")
words = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=8)


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


@given(st.sampled_from(["workload.num_prompts", "workload.max_concurrency", "resources.nodes"]), st.integers(1, 10**6))
def test_a_number_that_is_set_is_the_number_in_the_recipe(place: str, number: int) -> None:
    section, key = place.split(".")
    assert body(resolve(read_source(chat()), {place: str(number)}))[section][key] == number
    assert sha(chat(), **{place: str(number)}) == sha(chat(**{section: {**CHAT[section], key: number}}))


@given(
    st.one_of(
        words, st.from_regex(r"[-+]?[0-9]{1,4}(\.[0-9]{0,3})?(e[0-9])?", fullmatch=True), st.sampled_from(SWITCHES)
    )
)
def test_text_at_an_option_is_taken_or_refused_and_never_changed(text: str) -> None:
    """The command line has the very word that was set, also 007 and 1e5; true, false and null are switches."""
    value = read(find("server.args.some"), text)
    assert value is {"true": True, "false": False, "null": None}[text] if text in SWITCHES else word(value) == text

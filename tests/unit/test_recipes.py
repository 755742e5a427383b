"""What a recipe's file may say."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from jobtrail.domain.benchmarks import recipe_parsing
from jobtrail.domain.benchmarks.recipe import Recipe, Server
from jobtrail.domain.benchmarks.recipe_identity import body, from_body
from jobtrail.domain.benchmarks.recipe_parsing import parse
from tests.unit.recipes import chat, offline, problem


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
        (chat(server={"command": ["env", "HF_TOKEN=abc", "vllm", "serve"]}), "server.command", "like a secret"),
        (chat(server={"command": ["vllm", "serve", "--api-key", "x"]}), "server.command", "looks like a secret"),
        (chat(workload={"args": {"header": "Authorization=Bearer abc"}}), "workload.args.header", "like a secret"),
        (chat(resources={"options": {"export": "ALL,HF_TOKEN=abc"}}), "resources.options.export", "like a secret"),
        (chat(environment={"HTTPS_PROXY": "http://ada:pw@proxy"}), "environment.HTTPS_PROXY", "like a secret"),
        (chat(environment={"NOTE": "hf_abcdefghijklmnopqrst"}), "environment.NOTE", "like a secret"),
        (chat(server={"args": {1: 2}}), "server.args", "put it in quotes"),
        (chat(server={"ready": {"path": "health"}}), "server.ready.path", "must begin with /"),
        (chat(server={"ready": {"timeout_s": 0}}), "server.ready.timeout_s", "expected an integer >= 1"),
        (chat(measure={"repeats": 101}), "measure.repeats", "at most 100"),
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


def test_every_message_of_msgspec_is_understood() -> None:
    """Also one that names no place."""
    error = recipe_parsing._translated(msgspec.ValidationError("Something new"), {}, Recipe)
    assert (error.place, error.problem) == ("", "something new")

"""The words of vLLM's commands, and of any other's."""

from __future__ import annotations

from pathlib import Path

import msgspec

from jobtrail.cli.bench.load import Place, can_warm_up, load_words, server_of, server_words
from jobtrail.cli.bench.manifest import decisive_parameters
from jobtrail.domain.benchmarks.recipe import Measure, Model, Recipe, Server, Workload
from jobtrail.domain.benchmarks.report import Mode

PLACE = Place(repeat=1, result=Path("/runs/a/result-1.json"), run_uid="u", port=8123, job_id="slurm-42", cluster="lab")
CHAT = Recipe(
    name="chat",
    mode=Mode.SERVE,
    model=Model(id="org/model", revision="abc"),
    server=Server(args={"max-model-len": 4096, "enforce-eager": True, "trust-remote-code": False, "dtype": "bfloat16"}),
    workload=Workload(input_len=1024, output_len=128, num_prompts=500, max_concurrency=32, warmups=16, temperature=0),
    measure=Measure(repeats=3, percentiles=(50, 99.9), goodput={"ttft": 500, "tpot": 50.5}),
)


def test_the_server_of_vllm() -> None:
    """The model, where to listen, and the recipe's own options; false leaves an option out."""
    assert CHAT.server is not None
    assert server_words(CHAT, CHAT.server, 8123) == [
        "vllm", "serve", "org/model", "--host", "127.0.0.1", "--port", "8123", "--served-model-name", "org/model",
        "--revision", "abc", "--max-model-len", "4096", "--enforce-eager", "--dtype", "bfloat16",
    ]  # fmt: skip


def test_another_server_is_started_as_the_recipe_says() -> None:
    """Braces that are no placeholder stay."""
    server = Server(command=("serve-it", "--on={host}:{port}", '{"a": {model}}', "{unknown}"), args={"x": 1.5})
    assert server_words(CHAT, server, 81) == [
        "serve-it", "--on=127.0.0.1:81", '{"a": org/model}', "{unknown}", "--x", "1.5",
    ]  # fmt: skip


def test_the_load_of_vllm_serve() -> None:
    """All percentiles and the end-to-end latency are asked for: vLLM leaves them out by itself."""
    assert load_words(CHAT, PLACE) == [
        "vllm", "bench", "serve", "--host", "127.0.0.1", "--port", "8123", "--model", "org/model",
        "--dataset-name", "random", "--random-input-len", "1024", "--random-output-len", "128",
        "--num-prompts", "500", "--request-rate", "inf", "--max-concurrency", "32", "--seed", "0", "--temperature", "0",
        "--ignore-eos", "--disable-tqdm", "--percentile-metrics", "ttft,tpot,itl,e2el",
        "--metric-percentiles", "50,99.9", "--save-result",
        "--result-dir", "/runs/a", "--result-filename", "result-1.json",
        "--goodput", "ttft:500", "tpot:50.5",
        "--metadata", "jobtrail_run_uid=u", "jobtrail_repeat=1", "jobtrail_job_id=slurm-42", "jobtrail_cluster=lab",
    ]  # fmt: skip


def test_the_warm_up_saves_nothing_and_has_prompts_of_its_own() -> None:
    """As many as the recipe says, with a seed that no repeat has."""
    words = load_words(CHAT, msgspec.structs.replace(PLACE, repeat=0))
    assert "--save-result" not in words
    assert words[words.index("--num-prompts") + 1] == "16"
    seeds = [load_words(CHAT, msgspec.structs.replace(PLACE, repeat=number)) for number in (1, 2, 3)]
    of_repeats = [words[words.index("--seed") + 1] for words in seeds]
    assert [*of_repeats, words[words.index("--seed") + 1]] == ["0", "1", "2", "3"]
    assert can_warm_up(CHAT)


def test_a_served_name_needs_the_tokenizer_by_its_own() -> None:
    """And the load is by the same program as the server."""
    server = Server(command=("/opt/v/bin/vllm", "serve"), args={"served-model-name": "short"})
    words = load_words(msgspec.structs.replace(CHAT, server=server), PLACE)
    assert words[:3] == ["/opt/v/bin/vllm", "bench", "serve"]
    assert words[words.index("--model") + 1] == "short"
    assert words[words.index("--tokenizer") + 1] == "org/model"


def test_options_of_the_recipe_win() -> None:
    """Whatever vLLM learns to do."""
    work = msgspec.structs.replace(CHAT.workload, args={"backend": "openai-chat", "seed": 7, "ignore-eos": None})
    words = load_words(msgspec.structs.replace(CHAT, workload=work), PLACE)
    assert words[words.index("--backend") + 1] == "openai-chat"
    assert words[words.index("--seed") + 1] == "7"
    assert "--ignore-eos" not in words


def test_other_datasets_have_their_own_lengths() -> None:
    """sharegpt knows the answer's alone; of others the recipe's options say it."""
    for dataset, options in {"sonnet": 2, "sharegpt": 1, "custom": 0}.items():
        work = msgspec.structs.replace(CHAT.workload, dataset=dataset)
        words = load_words(msgspec.structs.replace(CHAT, workload=work), PLACE)
        lengths = [word for word in words if word.endswith(("-input-len", "-output-len"))]
        assert len(lengths) == options
        assert all(word.startswith(f"--{dataset}-") for word in lengths)


def test_latency_and_throughput_need_no_server() -> None:
    """Throughput takes the lengths of its dataset; with --input-len it asserts."""
    work = Workload(input_len=32, output_len=8, batch_size=4, iterations=10, warmups=2, num_prompts=40)
    latency = Recipe(name="l", mode=Mode.LATENCY, model=Model(id="m"), workload=work)
    throughput = Recipe(name="t", mode=Mode.THROUGHPUT, model=Model(id="m"), workload=work)
    assert server_of(latency) is None
    assert not can_warm_up(latency)
    assert load_words(latency, PLACE) == [
        "vllm", "bench", "latency", "--model", "m", "--input-len", "32", "--output-len", "8", "--batch-size", "4",
        "--num-iters", "10", "--num-iters-warmup", "2", "--seed", "0", "--output-json", "/runs/a/result-1.json",
    ]  # fmt: skip
    assert load_words(throughput, PLACE) == [
        "vllm", "bench", "throughput", "--model", "m", "--dataset-name", "random", "--random-input-len", "32",
        "--random-output-len", "8", "--num-prompts", "40", "--seed", "0", "--output-json", "/runs/a/result-1.json",
    ]  # fmt: skip


def test_any_other_load_is_run_with_its_placeholders_filled() -> None:
    """Options of the recipe stand behind it."""
    command = (
        "guide",
        "--target={url}",
        "{model}",
        "{result}",
        "{run_uid}-{repeat}",
        "{seed}",
        "{num_prompts}",
        "{job_id}",
    )
    work = msgspec.structs.replace(CHAT.workload, command=command, args={"rate": 2})
    assert load_words(msgspec.structs.replace(CHAT, workload=work), PLACE) == [
        "guide", "--target=http://127.0.0.1:8123", "org/model", "/runs/a/result-1.json", "u-1", "0", "500", "slurm-42",
        "--rate", "2",
    ]  # fmt: skip


def test_a_load_without_a_server_of_ours() -> None:
    """It has no address to be told."""
    work = Workload(command=("measure", "{url}", "{port}"))
    recipe = Recipe(name="x", mode=Mode.EXTERNAL, model=Model(id="m"), workload=work)
    place = msgspec.structs.replace(PLACE, port=None, job_id=None)
    assert load_words(recipe, place) == ["measure", "", ""]
    assert server_of(recipe) is None


def test_what_decides_the_speed_is_told_under_one_name() -> None:
    """However the recipe writes it."""
    server = Server(args={"tensor_parallel_size": 2, "dtype": "auto", "quantization": None, "max-model-len": 1})
    assert decisive_parameters(msgspec.structs.replace(CHAT, server=server)) == {
        "dtype": "auto",
        "tensor_parallel_size": "2",
    }

"""A program with the command line, the endpoints and the result files of vLLM, and a few words instead of a model.

It really serves and really measures; only the answers are not those of a language model. What goes wrong in it is told
by environment variables: SERVER_FAULT die | never_ready | die_under_load | stubborn |
port_taken_once, LOAD_FAULT exit | no_result | hang
| refuse_all | unknown. STATE names a directory where it leaves the ids of its processes.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

VERSION = "0.32.0"


def note(name: str, text: str) -> None:
    """Leave a whole file in STATE."""
    if state := os.environ.get("STATE"):
        path = Path(state) / name
        path.with_suffix(".part").write_text(text, encoding="utf-8")
        path.with_suffix(".part").rename(path)


def serve(arguments: list[str]) -> None:
    """`serve MODEL --host H --port P --served-model-name N …`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    for name in ("--host", "--port", "--served-model-name", "--dtype", "--tensor-parallel-size"):
        parser.add_argument(name)
    options = parser.parse_args(arguments)
    fault = os.environ.get("SERVER_FAULT")
    note("server.pid", str(os.getpid()))
    if fault == "die":
        sys.stderr.write("ValueError: no such quantization\n")
        sys.exit(4)
    if fault == "port_taken_once" and not Path(os.environ["STATE"], "taken.pid").exists():
        note("taken.pid", options.port)
        sys.stderr.write("OSError: [Errno 98] Address already in use\n")
        sys.exit(1)
    if fault == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    engine = subprocess.Popen(["sleep", "600"], start_new_session=True)
    note("engine.pid", str(engine.pid))
    # Not before: on a busy machine this takes seconds, in which a server that is given up would leave no ids behind.
    from aiohttp import web

    generated = 0

    async def health(request: web.Request) -> web.Response:
        return web.Response(status=503 if fault == "never_ready" else 200)

    async def version(request: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def metrics(request: web.Request) -> web.Response:
        labels = f'engine="0",model_name="{options.served_model_name}"'
        return web.Response(text=f"vllm:generation_tokens_total{{{labels}}} {float(generated)}\n")

    async def completions(request: web.Request) -> web.StreamResponse:
        nonlocal generated
        asked = await request.json()
        if fault == "die_under_load":
            os._exit(9)
        if asked["model"] != options.served_model_name or os.environ.get("LOAD_FAULT") == "refuse_all":
            return web.json_response({"error": "no such model"}, status=404)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(asked["max_tokens"]):
            generated += 1
            await answer.write(f"data: {json.dumps({'choices': [{'text': f' {number}'}]})}\n\n".encode())
        await answer.write(b"data: [DONE]\n\n")
        return answer

    application = web.Application()
    application.router.add_get("/health", health)
    application.router.add_get("/version", version)
    application.router.add_get("/metrics", metrics)
    application.router.add_post("/v1/completions", completions)
    web.run_app(application, host=options.host, port=int(options.port), print=None, handle_signals=fault != "stubborn")


def one_request(options: argparse.Namespace) -> list[float] | None:
    """Seconds from the request to each token; None if it was refused."""
    connection = http.client.HTTPConnection(options.host, int(options.port), timeout=30)
    began = time.perf_counter()
    body = json.dumps({"model": options.model, "prompt": "0", "max_tokens": options.random_output_len, "stream": True})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        connection.close()
        return None
    times = []
    for line in response:
        if line.startswith(b"data: {"):
            times.append(time.perf_counter() - began)
    connection.close()
    return times


def bench_serve(arguments: list[str]) -> None:
    """`bench serve`: one request after the other."""
    parser = argparse.ArgumentParser()
    for name in (
        "--host", "--port", "--model", "--tokenizer", "--dataset-name", "--request-rate", "--max-concurrency",
        "--temperature", "--percentile-metrics", "--metric-percentiles", "--result-dir", "--result-filename",
    ):  # fmt: skip
        parser.add_argument(name)
    for name in ("--num-prompts", "--random-input-len", "--random-output-len", "--seed"):
        parser.add_argument(name, type=int)
    for name in ("--ignore-eos", "--disable-tqdm", "--save-result"):
        parser.add_argument(name, action="store_true")
    for name in ("--metadata", "--goodput"):
        parser.add_argument(name, nargs="*", default=[])
    options = parser.parse_args(arguments)
    fault = os.environ.get("LOAD_FAULT") if options.save_result else None
    note(f"load-{options.seed}.json", json.dumps(vars(options)))
    if fault == "exit":
        sys.stderr.write("RuntimeError: the tokenizer cannot be found\n")
        sys.exit(3)
    if fault == "hang":
        note("load.pid", str(os.getpid()))
        while True:
            signal.pause()
    began = time.perf_counter()
    requests = [one_request(options) for _ in range(options.num_prompts)]
    result = measured(options, requests, time.perf_counter() - began)
    if options.save_result and fault != "no_result":
        text = '{"hello": 1}' if fault == "unknown" else json.dumps(result)
        Path(options.result_dir, options.result_filename).write_text(text, encoding="utf-8")


def measured(options: argparse.Namespace, requests: list[list[float] | None], duration: float) -> dict[str, Any]:
    """The result file's content, in milliseconds where vLLM's is."""
    good = [times for times in requests if times]
    tokens = sum(len(times) for times in good)
    gaps = [b - a for times in good for a, b in itertools.pairwise(times)]
    per_token = [(times[-1] - times[0]) / (len(times) - 1) for times in good if len(times) > 1]
    seconds = {
        "ttft": [times[0] for times in good], "tpot": per_token, "itl": gaps, "e2el": [times[-1] for times in good],
    }  # fmt: skip
    result: dict[str, Any] = {
        "date": time.strftime("%Y%m%d-%H%M%S"), "endpoint_type": "openai", "backend": "openai", "label": None,
        "model_id": options.model, "tokenizer_id": options.model, "num_prompts": options.num_prompts,
        **dict(pair.split("=", 1) for pair in options.metadata),
        "request_rate": "inf", "burstiness": 1.0, "max_concurrency": None, "duration": duration,
        "completed": len(good), "failed": len(requests) - len(good), "total_input_tokens": len(good),
        "total_output_tokens": tokens, "request_throughput": len(good) / duration, "request_goodput": None,
        "output_throughput": tokens / duration, "total_token_throughput": (tokens + len(good)) / duration,
    }  # fmt: skip
    for name in options.percentile_metrics.split(","):
        values = sorted(seconds[name]) or [0.0]
        result |= {
            f"mean_{name}_ms": statistics.fmean(values) * 1e3,
            f"median_{name}_ms": statistics.median(values) * 1e3,
            f"std_{name}_ms": statistics.pstdev(values) * 1e3,
        }
        for percentile in options.metric_percentiles.split(","):
            place = min(len(values) - 1, int(float(percentile) / 100 * len(values)))
            result[f"p{percentile}_{name}_ms"] = values[place] * 1e3
    return result


def bench_offline(kind: str, arguments: list[str]) -> None:
    """`bench latency` and `bench throughput`: they count to a number instead."""
    parser = argparse.ArgumentParser()
    for name in ("--model", "--output-json", "--dtype", "--dataset-name"):
        parser.add_argument(name)
    for name in (
        "--input-len", "--output-len", "--batch-size", "--num-iters", "--num-iters-warmup", "--seed", "--num-prompts",
        "--random-input-len", "--random-output-len",
    ):  # fmt: skip
        parser.add_argument(name, type=int)
    options = parser.parse_args(arguments)
    latencies = []
    for _ in range(options.num_iters or options.num_prompts):
        began = time.perf_counter()
        sum(range(200_000))
        latencies.append(time.perf_counter() - began)
    if kind == "latency":
        ordered = sorted(latencies)
        places = {str(p): ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (10, 25, 50, 75, 90, 99)}
        result = {"avg_latency": statistics.fmean(latencies), "latencies": latencies, "percentiles": places}
    else:
        tokens = options.num_prompts * (options.random_input_len + options.random_output_len)
        result = {
            "elapsed_time": sum(latencies), "num_requests": options.num_prompts, "total_num_tokens": tokens,
            "requests_per_second": options.num_prompts / sum(latencies), "tokens_per_second": tokens / sum(latencies),
        }  # fmt: skip
    Path(options.output_json).write_text(json.dumps(result), encoding="utf-8")


def main() -> None:
    """By the first words."""
    match sys.argv[1:]:
        case ["--version"]:
            sys.stdout.write(f"{VERSION}\n")
        case ["serve", *rest]:
            serve(rest)
        case ["bench", "serve", *rest]:
            bench_serve(rest)
        case ["bench", ("latency" | "throughput") as kind, *rest]:
            bench_offline(kind, rest)
        case _:
            sys.exit(f"unknown: {sys.argv[1:]}")


if __name__ == "__main__":
    main()

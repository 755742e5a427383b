"""A recipe: how to run one benchmark, with all parameters resolved. Commands are lists of words, no shell's line."""

from __future__ import annotations

from typing import Annotated

import msgspec

from jobtrail.domain.benchmarks.report import Mode

Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Argument = str | int | float | bool | None


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model: a name or a directory, and the revision of it."""

    id: str
    revision: str | None = None


class Resources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to ask Slurm for; what is None is not asked for. `time` is as sbatch(1) takes it; `options` are more of its
    long options by name."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    nodes: Positive = 1
    gpus_per_node: NotNegative = 0
    cpus_per_task: Positive | None = None
    mem: str | None = None
    time: str | None = None
    options: dict[str, str] = {}


class Ready(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the server is ready: its `path` answers 200 within `timeout_s` seconds of the start."""

    path: str = "/health"
    timeout_s: Positive = 900


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server under load. Options are `--name value`; true is the bare option, false and null leave it out."""

    command: tuple[str, ...] = ("vllm", "serve")
    args: dict[str, Argument] = {}
    ready: Ready = Ready()


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The load. `request_rate` is in requests per second, or inf. `args` are more options of the load's command."""

    command: tuple[str, ...] = ()  # empty: what belongs to the mode, as `vllm bench serve`
    dataset: str = "random"
    input_len: Positive | None = None
    output_len: Positive | None = None
    num_prompts: Positive | None = None
    batch_size: Positive | None = None
    iterations: Positive | None = None
    request_rate: float = float("inf")
    max_concurrency: Positive | None = None
    warmups: NotNegative = 0
    seed: int = 0
    temperature: float | None = None
    ignore_eos: bool = True
    args: dict[str, Argument] = {}


class Measure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is measured, and how often. `goodput` are upper bounds in milliseconds by metric: ttft, tpot, e2el."""

    metrics: tuple[str, ...] = ("ttft", "tpot", "itl", "e2el")
    percentiles: tuple[float, ...] = (50, 90, 95, 99)
    repeats: Positive = 1
    goodput: dict[str, float] = {}


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By how much a metric must change for the worse to count, relative to the baseline."""

    min_rel: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.05


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One benchmark. `gate` is by metric, or metric.stat, of the vocabulary."""

    name: str
    mode: Mode
    model: Model
    schema: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    version: str | None = None
    description: str = ""
    resources: Resources = Resources()
    environment: dict[str, str] = {}
    server: Server | None = None  # only of mode serve
    workload: Workload = Workload()
    measure: Measure = Measure()
    gate: dict[str, Gate] = {}

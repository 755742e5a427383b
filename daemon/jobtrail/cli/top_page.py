"""What `jobtrail top` shows: a node's jobs as its daemon's metrics tell them. What is not exported is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from types import MappingProxyType

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobtrail.cli.output import UNKNOWN, clean, size
from jobtrail.domain.errors import StoreUnavailable

Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]


class JobLine(msgspec.Struct, frozen=True, kw_only=True):
    """A job on this node now. Per cent of the CPUs it has here, watts of its GPUs together."""

    job_id: str
    cluster: str
    user: str | None = None
    account: str | None = None
    partition: str | None = None
    cpu_percent: float | None = None
    cpus: float | None = None
    memory_bytes: float | None = None
    memory_limit_bytes: float | None = None
    gpus: float | None = None
    gpus_active: float | None = None
    gpu_percent: float | None = None
    gpu_memory_bytes: float | None = None
    gpu_watts: float | None = None
    runtime_seconds: float | None = None
    sample_age_seconds: float | None = None


class NodeNow(msgspec.Struct, frozen=True, kw_only=True):
    """The node and its jobs at one moment."""

    node: str
    cpu_percent: float | None = None
    memory_bytes: float | None = None
    gpu_percent: float | None = None
    gpu_watts: float | None = None
    jobs: tuple[JobLine, ...] = ()


def read(page: bytes) -> NodeNow:
    """What a page of metrics says. Raises StoreUnavailable when it is none of Jobtrail's."""
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    try:
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    except (ValueError, KeyError) as error:
        raise StoreUnavailable(f"what answers gives no metrics: {error}") from error
    if not any(name.startswith("jobtrail_") for name in samples):
        raise StoreUnavailable("what answers is not Jobtrail: it has no metric that begins with jobtrail_")
    jobs = [_job(labels, samples) for labels, _ in samples.get("hpc_job_info", ())]
    return NodeNow(
        node=_node(samples),
        cpu_percent=_sum(samples, "hpc_node_cpu_usage_percent"),
        memory_bytes=_sum(samples, "hpc_node_memory_usage_bytes"),
        gpu_percent=_sum(samples, "hpc_node_gpu_usage_percent"),
        gpu_watts=_sum(samples, "hpc_node_gpu_power_watts"),
        jobs=tuple(jobs),
    )


def _job(info: Mapping[str, str], samples: Samples) -> JobLine:
    job = info["job_id"]

    def of(name: str, **labels: str) -> float | None:
        return _sum(samples, f"hpc_job_{name}", job_id=job, **labels)

    return JobLine(
        job_id=job,
        cluster=info.get("cluster", ""),
        user=info.get("user") or None,
        account=info.get("account") or None,
        partition=info.get("partition") or None,
        cpu_percent=of("cpu_usage_percent"),
        cpus=of("cpus_allocated"),
        memory_bytes=of("memory_usage_bytes"),
        memory_limit_bytes=of("memory_limit_bytes"),
        gpus=of("gpus_allocated"),
        gpus_active=of("gpus_active"),
        gpu_percent=of("gpu_usage_percent"),
        gpu_memory_bytes=of("gpu_device_memory_used_bytes"),
        gpu_watts=of("gpu_device_power_watts"),
        runtime_seconds=of("runtime_seconds"),
        sample_age_seconds=of("sample_age_seconds"),
    )


def _sum(samples: Samples, name: str, **labels: str) -> float | None:
    """The sum over series with these labels; None where there is no such series."""
    known = [value for has, value in samples.get(name, ()) if labels.items() <= has.items()]
    return sum(known) if known else None


def _node(samples: Samples) -> str:
    return next((labels["node"] for rows in samples.values() for labels, _ in rows if "node" in labels), "this node")


# How to sort, by the key that is pressed: its name, and what it goes by, the largest first.
ORDERS: Mapping[str, tuple[str, Callable[[JobLine], float | None]]] = MappingProxyType(
    {
        "c": ("cpu", lambda job: job.cpu_percent),
        "m": ("memory", lambda job: job.memory_bytes),
        "g": ("gpu", lambda job: job.gpu_percent),
        "p": ("power", lambda job: job.gpu_watts),
        "t": ("time", lambda job: job.runtime_seconds),
    }
)


def in_order(now: NodeNow, order: str) -> NodeNow:
    """The jobs by the order of that name, those of which the value is not known last."""
    by = dict(ORDERS.values())[order]
    jobs = sorted(now.jobs, key=lambda job: (by(job) is None, -(by(job) or 0.0), job.job_id))
    return msgspec.structs.replace(now, jobs=tuple(jobs))


def shown(now: NodeNow, *, width: int, height: int | None = None, problem: str | None = None) -> RenderableType:
    """A line on the node and one for each job; with `height` as many as fit, and what is wrong before all else."""
    parts: list[RenderableType] = []
    if problem:
        parts.append(Text(f"not current: {problem}", style="red", overflow="ellipsis", no_wrap=True))
    parts.append(_head(now))
    room = len(now.jobs) if height is None else height - len(parts) - LINES_AROUND
    if room < 1 and now.jobs:
        return Group(*parts)
    jobs = now.jobs[:room]
    parts += ["", _table(jobs, width) if jobs else Text("no job runs here", style="dim")]
    if len(jobs) < len(now.jobs):
        parts.append(Text(f"{len(now.jobs) - len(jobs)} more", style="dim"))
    return Group(*parts)


def _head(now: NodeNow) -> Text:
    gpus = "" if now.gpu_percent is None else f"   GPUs {_percent(now.gpu_percent)} {_watts(now.gpu_watts)}"
    count = f"{len(now.jobs)} job{'s' if len(now.jobs) != 1 else ''}"
    head: Text = clean(
        f"{now.node}   CPU {_percent(now.cpu_percent)}   memory {size(now.memory_bytes)}{gpus}   {count}"
    )
    head.stylize("bold")
    head.no_wrap, head.overflow = True, "ellipsis"
    return head


def _table(jobs: Sequence[JobLine], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    wanted = [width >= least for _, _, least in COLUMNS]
    for name, is_number, _ in compress(COLUMNS, wanted):
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
    for job in jobs:
        table.add_row(*(clean(cell) for cell in compress(_cells(job), wanted)))
    return table


LINES_AROUND = 3  # an empty one, the names of the columns, how many more there are
# Name, whether it is a number, and the width from which on there is room for it.
COLUMNS = (("JOB", False, 0), ("USER", False, 58), ("CPUS", True, 80), ("CPU%", True, 0), ("MEMORY", True, 36),
           ("LIMIT", True, 80), ("GPUS", True, 80), ("GPU%", True, 58), ("GPU W", True, 80), ("RAN", True, 58),
           ("AGE", True, 90))  # fmt: skip


def _cells(job: JobLine) -> tuple[str, ...]:
    active = "?" if job.gpus_active is None else f"{job.gpus_active:.0f}"
    return (
        job.job_id,
        (job.user or UNKNOWN)[:8],
        UNKNOWN if job.cpus is None else f"{job.cpus:.0f}",
        UNKNOWN if job.cpu_percent is None else f"{job.cpu_percent:.0f}",
        _short(job.memory_bytes),
        _short(job.memory_limit_bytes),
        f"{active}/{job.gpus:.0f}" if job.gpus else UNKNOWN,
        UNKNOWN if job.gpu_percent is None else f"{job.gpu_percent:.0f}",
        UNKNOWN if job.gpu_watts is None else f"{job.gpu_watts:.0f}",
        _time(job.runtime_seconds),
        UNKNOWN if job.sample_age_seconds is None else f"{job.sample_age_seconds:.0f}s",
    )


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f} %"


def _watts(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} W"


def _short(value: float | None) -> str:
    """Bytes in six characters: 1.5G."""
    return UNKNOWN if value is None else size(value).replace(" ", "").removesuffix("iB").removesuffix("B") or "0"


def _time(seconds: float | None) -> str:
    """Hours and minutes, or days and hours: six characters."""
    if seconds is None:
        return UNKNOWN
    if seconds < 3600:
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
    hours, minutes = divmod(int(seconds // 60), 60)
    return f"{hours}h{minutes:02d}" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"

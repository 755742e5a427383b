"""What a benchmark runs on and in: the job's identity from its environment, the GPUs it may use, the CPU."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobtrail.domain.benchmarks.report import Hardware, JobClaim, LinkSource, Role

NVML_SECONDS = 10.0  # a driver can hang; the benchmark goes on without knowing its GPUs
_MIG = re.compile(r"\bMIG (\S+)")
_NO_GPUS = frozenset({"", "-1", "none", "void", "NoDevFiles"})


def job_claim(environment: Mapping[str, str], role: Role) -> JobClaim | None:
    """The Slurm job of this environment (sbatch(1), OUTPUT ENVIRONMENT VARIABLES), else the local job that
    `jobtrail exec` made of it; None outside of one."""
    number = environment.get("SLURM_JOB_ID", "")
    if not number.isdecimal():
        local, cluster = environment.get("JOBTRAIL_JOB_ID"), environment.get("JOBTRAIL_JOB_CLUSTER")
        return JobClaim(job_id=local, role=role, source=LinkSource.MANIFEST, cluster=cluster) if local else None
    restarts = environment.get("SLURM_RESTART_COUNT", "")
    return JobClaim(
        job_id=f"slurm-{int(number)}",
        role=role,
        source=LinkSource.MANIFEST,
        cluster=environment.get("SLURM_CLUSTER_NAME") or None,
        restart_count=int(restarts) if restarts.isdecimal() else None,
        step_id=environment.get("SLURM_STEP_ID") or None,
        array_job_id=environment.get("SLURM_ARRAY_JOB_ID") or None,
        array_task_id=environment.get("SLURM_ARRAY_TASK_ID") or None,
        node_list=environment.get("SLURM_JOB_NODELIST") or None,
    )


def hardware(environment: Mapping[str, str], *, cpuinfo: Path = Path("/proc/cpuinfo")) -> Hardware:
    """CPU and GPUs that this process may use. What cannot be told is None; it takes ten seconds at most."""
    return Hardware(
        cpu_model=_cpu_model(cpuinfo),
        cpu_count=len(os.sched_getaffinity(0)),
        **_within(NVML_SECONDS, lambda: _gpus(environment)),
    )


def _cpu_model(cpuinfo: Path) -> str | None:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)  # not on every architecture
    return found[1].strip() if found else None


def _within(seconds: float, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `ask` gives, or nothing when it takes too long. A thread that hangs does not hold up the end."""
    answers: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True, name="nvml")
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else {}


def visible(environment: Mapping[str, str]) -> Sequence[str] | None:
    """Indices or UUIDs of the GPUs that CUDA shows; None for all that the driver shows.

    In a job without that variable there are none: Slurm sets it for each job with GPUs (gres.conf(5), slurm.conf(5)).
    """
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return () if environment.get("SLURM_JOB_ID") else None
    words = [word.strip() for word in shown.split(",")]
    return () if words[0] in _NO_GPUS else words


def _gpus(environment: Mapping[str, str]) -> dict[str, Any]:
    wanted = visible(environment)
    if wanted is not None and not wanted:
        return {}
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    try:
        handles = _handles(pynvml, wanted)
        return _facts(pynvml, handles) if handles else {}
    except pynvml.NVMLError:
        return {}
    finally:
        pynvml.nvmlShutdown()


def _handles(nvml: Any, wanted: Sequence[str] | None) -> list[Any]:
    if wanted is None:
        every = range(nvml.nvmlDeviceGetCount())
        return [handle for index in every if (handle := _ask(nvml.nvmlDeviceGetHandleByIndex, index)) is not None]
    found = []
    for word in wanted:
        by, name = (
            (nvml.nvmlDeviceGetHandleByIndex, int(word)) if word.isdecimal() else (nvml.nvmlDeviceGetHandleByUUID, word)
        )
        handle = _ask(by, name)
        if handle is None:
            break  # CUDA takes no notice of what follows a word that it does not know
        found.append(handle)
    return found


def _facts(nvml: Any, handles: Sequence[Any]) -> dict[str, Any]:
    boards = [_board(nvml, handle) for handle in handles]
    profiles = sorted({profile for handle in handles if (profile := _mig_profile(nvml, handle))})
    models = sorted({name for board in boards if (name := _ask(nvml.nvmlDeviceGetName, board))})
    uuids = [uuid for handle in handles if (uuid := _ask(nvml.nvmlDeviceGetUUID, handle))]
    limits = [watts for board in boards if (watts := _ask(nvml.nvmlDeviceGetEnforcedPowerLimit, board)) is not None]
    clocks = [
        mhz for board in boards if (mhz := _ask(nvml.nvmlDeviceGetMaxClockInfo, board, nvml.NVML_CLOCK_SM)) is not None
    ]
    return {
        "gpu_model": " + ".join(models) or None,
        "gpu_count": len(handles),
        "mig_profile": " + ".join(profiles) or None,
        "driver_version": _ask(nvml.nvmlSystemGetDriverVersion),
        "gpus": tuple(uuids),
        "power_limit_watts": min(limits) / 1000 if limits else None,  # the driver counts mW; the least holds all up
        "max_clock_mhz": min(clocks) if clocks else None,
    }


def _board(nvml: Any, handle: Any) -> Any:
    """The GPU that an instance is a part of."""
    if _is_instance(nvml, handle):
        return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    return handle


def _is_instance(nvml: Any, handle: Any) -> bool:
    answer = _ask(nvml.nvmlDeviceIsMigDeviceHandle, handle)  # of the binding a ctypes.c_uint; older drivers have no MIG
    return answer is not None and bool(getattr(answer, "value", answer))


def _mig_profile(nvml: Any, handle: Any) -> str | None:
    """As 1g.5gb; the driver tells it in the instance's name, as `NVIDIA A100-SXM4-40GB MIG 1g.5gb`."""
    if not _is_instance(nvml, handle):
        return None
    found = _MIG.search(_ask(nvml.nvmlDeviceGetName, handle) or "")
    return found[1] if found else None


def _ask(call: Callable[..., Any], *arguments: Any) -> Any:
    """What the driver answers, None where it does not know."""
    import pynvml

    try:
        answer = call(*arguments)
    except pynvml.NVMLError:
        return None
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer

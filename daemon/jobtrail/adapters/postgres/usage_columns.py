"""What runs used, as columns of `jobs` and `job_nodes` and as rows of `job_gpus`."""

from __future__ import annotations

from jobtrail.adapters.postgres.values import Row, from_millionths, to_datetime, to_seconds
from jobtrail.domain.energy import Method
from jobtrail.domain.events import EmissionBasis, GpuUsage, NodeUsage
from jobtrail.domain.job import Job, NodeRun
from jobtrail.domain.usage import energy_microjoules

_GPUS_AND_ENERGY = tuple(name for name in NodeUsage.__struct_fields__ if name.startswith(("gpu_", "energy_")))


def usage_columns(usage: NodeUsage | None, window_us: int) -> Row:
    """The columns that `jobs` and `job_nodes` share, of a run or a part that lasted `window_us`; 0 is not known."""
    usage = usage or NodeUsage()
    return {
        "cpu_seconds": to_seconds(usage.cpu_usage_us),
        "cpu_user_seconds": to_seconds(usage.cpu_user_us),
        "cpu_system_seconds": to_seconds(usage.cpu_system_us),
        "throttled_seconds": to_seconds(usage.cpu_throttled_us),
        "memory_peak_bytes": usage.memory_peak_bytes,
        "oom_kills": usage.oom_kills,
        "io_read_bytes": usage.io_read_bytes,
        "io_write_bytes": usage.io_write_bytes,
        "processes_peak": usage.processes_peak,
        "usage_sources": usage.sources or None,
        "usage_absent": usage.absent or None,
        "coverage_ratio": _covered(usage.covered_us, window_us),
        "sample_count": usage.sample_count,
        "first_sample_at": to_datetime(usage.first_sample_us),
        "last_sample_at": to_datetime(usage.last_sample_us),
        **_gpu_and_energy_columns(usage, window_us),
    }


def _gpu_and_energy_columns(usage: NodeUsage, window_us: int) -> Row:
    """Nothing where nothing is known: so many NULLs in each row and snapshot would slow down all clusters without."""
    if all(getattr(usage, name) is None for name in _GPUS_AND_ENERGY):
        return {}
    return {
        "gpu_seconds": to_seconds(usage.gpu_observed_us),
        "gpu_busy_seconds": to_seconds(usage.gpu_busy_us),
        "gpu_unused_seconds": to_seconds(usage.gpu_unused_us),
        "gpu_utilization_mean_percent": _mean_percent(usage.gpu_busy_us, usage.gpu_observed_us),
        "gpu_memory_peak_bytes": usage.gpu_memory_peak_bytes,
        "energy_covered_seconds": to_seconds(usage.energy_covered_us),
        "energy_coverage_ratio": _covered(usage.energy_covered_us, window_us),
        **_energy_columns(usage),
    }


def _energy_columns(usage: NodeUsage) -> Row:
    """Energy and emissions. Grams that are of a part of the energy only, because a node had no factor, are left out."""
    energy = energy_microjoules(usage)
    whole = energy is not None and usage.emissions_energy_microjoules == energy
    bases = usage.emission_bases if whole else ()
    one = bases[0] if len(bases) == 1 else None
    return {
        "energy_joules": from_millionths(energy),
        "energy_gpu_joules": from_millionths(usage.energy_gpu_microjoules),
        "energy_cpu_joules": from_millionths(usage.energy_cpu_microjoules),
        "energy_dram_joules": from_millionths(usage.energy_dram_microjoules),
        "energy_method": _energy_method(usage),
        "emissions_grams": from_millionths(usage.emissions_micrograms) if whole else None,
        "emission_factor_grams_per_kwh": None if one is None else from_millionths(one.micrograms_per_kwh),
        "emission_factor_year": None if one is None else one.year,
        "emission_factor_source": ("; ".join(map(_basis, bases)) or None) if one is None else one.source,
        "pue": None if one is None else from_millionths(one.pue_millionths),
    }


def _basis(basis: EmissionBasis) -> str:
    year = "" if basis.year is None else f" {basis.year}"
    return f"{basis.micrograms_per_kwh / 1e6:g} g/kWh, PUE {basis.pue_millionths / 1e6:g}, {basis.source}{year}"


def _energy_method(usage: NodeUsage) -> str | None:
    """How the energy of the components that have a number came about, as `sources` says of each."""
    known = [part for part in ("gpu", "cpu", "dram") if getattr(usage, f"energy_{part}_microjoules") is not None]
    methods = {word for part in known for word in usage.sources.get(f"energy_{part}", "").split(",") if word}
    return next(iter(methods)) if len(methods) == 1 else (Method.MIXED if methods else None)


def gpu_rows(job: Job, part: NodeRun) -> list[Row]:
    """The rows of `job_gpus` of one node's part of a run."""
    found = () if part.usage is None else part.usage.gpus
    return [
        {
            "cluster_name": job.cluster_name,
            "job_id": job.job_id,
            "run": job.run,
            "node": part.node,
            **_gpu_columns(gpu, window_us(part)),
        }
        for gpu in found
    ]


def _gpu_columns(gpu: GpuUsage, window_us: int) -> Row:
    return {
        "gpu_id": gpu.gpu_id,
        "vendor": gpu.vendor,
        "minor": gpu.minor,
        "name": gpu.name,
        "memory_total_bytes": gpu.memory_total_bytes,
        "resolved_by": gpu.resolved_by,
        "observed_seconds": to_seconds(gpu.observed_us),
        "busy_seconds": to_seconds(gpu.busy_us),
        "unused_seconds": to_seconds(gpu.unused_us),
        "utilization_mean_percent": _mean_percent(gpu.busy_us, gpu.observed_us),
        "memory_peak_bytes": gpu.memory_peak_bytes,
        "energy_joules": from_millionths(gpu.energy_microjoules),
        "energy_covered_seconds": to_seconds(gpu.energy_covered_us),
        "energy_coverage_ratio": _covered(gpu.energy_covered_us, window_us),
        "energy_method": gpu.energy_method,
        "errors": gpu.errors or None,
        "attribution_mismatch": gpu.mismatch,
    }


def window_us(part: NodeRun) -> int:
    """How long the node had the run; 0 while that goes on or is unknown."""
    return 0 if part.started_us is None or part.over_us is None else part.over_us - part.started_us


def _covered(covered_us: int | None, window_us: int) -> float | None:
    return None if covered_us is None or window_us <= 0 else min(1.0, covered_us / window_us)


def _mean_percent(busy_us: int | None, observed_us: int | None) -> float | None:
    return None if busy_us is None or not observed_us else 100.0 * busy_us / observed_us

"""What decides how fast a benchmark can be: only runs with the same fingerprint are compared.

Clocks and the power limit are no part of it: they change from day to day, and that is something to find.
"""

from __future__ import annotations

import hashlib

import msgspec

from jobtrail.domain.benchmarks.report import BenchmarkReport

TOOL_VERSION = "tool_version"
SHORT_DIGITS = 8
_encoder = msgspec.json.Encoder(order="sorted")


def fingerprint_parts(report: BenchmarkReport) -> dict[str, str]:
    """The parts by name; what is not known is left out. What the report does not say of tool, version and model is
    taken from the first result that says it."""
    hardware, results = report.hardware, [repeat.result for repeat in report.repeats if repeat.result is not None]
    parts = {
        "gpu_model": hardware.gpu_model,
        "gpu_count": str(hardware.gpu_count),
        "mig_profile": hardware.mig_profile,
        "driver_major": (hardware.driver_version or "").strip().partition(".")[0],
        "cpu_model": hardware.cpu_model,
        "tool": report.tool or next((result.tool for result in results), None),
        TOOL_VERSION: report.tool_version or next((r.tool_version for r in results if r.tool_version), None),
        "recipe": None if report.recipe is None else report.recipe.sha256,
        "model": report.model or next((result.model for result in results if result.model), None),
        "model_revision": report.model_revision,
        "job": None if report.jobs else "none",  # nobody can tell where it ran
        **{f"parameter:{name}": value for name, value in report.parameters.items()},
    }
    return {name: value for name, value in sorted(parts.items()) if value}


def fingerprint(parts: dict[str, str], *, with_version: bool = True) -> str:
    """SHA-256, in hex, of the parts; the tool's version is left out where the question is what a version changed."""
    counted = {name: value for name, value in parts.items() if with_version or name != TOOL_VERSION}
    return hashlib.sha256(_encoder.encode(counted)).hexdigest()


def short(digest: str) -> str:
    """The beginning of a fingerprint, as label `hardware` of the gauges."""
    return digest[:SHORT_DIGITS]

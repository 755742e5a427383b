"""The words that figures are split by: fixed sets, so that nobody outside can make series."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType

from jobtrail.domain.events import EventKind
from jobtrail.domain.slurm import Origin
from jobtrail.domain.verification import CODES

OTHER = "other"
KINDS = tuple(kind.value for kind in EventKind)
ROUTINE = (EventKind.CHECKPOINT, EventKind.USAGE_RECORDED, EventKind.CHAIN_HEARTBEAT)
REJECT_REASONS = (
    "invalid", "conflict", "too_large", "forbidden", "spool_full", "spool_broken", "timeout", "busy", "unknown_hook",
    "unsupported",
)  # fmt: skip
SECURITY_WHATS = (
    "wrong_sender", "wrong_token", "wrong_password", "wrong_scope", "certificate_refused", "tls_refused", "forged_node",
    "node_token_refused",
)  # fmt: skip
DROP_REASONS = (
    "no_report", "conflict", "not_regular", "linked", "too_large", "name", "unreadable", "owner", "abandoned",
)  # fmt: skip
MISS_REASONS = ("not_yet", "gone", "unreadable")
FOUND_BY = ("spool", "cgroup_scan")
QUESTIONS = ("jobs", "accounting", "nodes")
ORIGINS = tuple(origin.value for origin in Origin)
CLOSINGS = (
    "node_rebooted",
    "cgroup_gone",
    "process_gone",
    "later_run_began",
    "ended_in_slurm",
    "unknown_to_slurm",
)
MISFITS = ("set_back", "purged", "another_row")
COMMENT_RESULTS = ("written", "found", "left", "superseded", "failed")
GPU_VENDORS = ("nvidia", "amd")
GPU_PROBLEMS = (
    "no_driver", "no_library", "no_binding", "driver_not_loaded", "version_mismatch", "driver_reloaded", "denied",
    "driver_error", "starting", "hung", "slow", "crashed", "stuck",
)  # fmt: skip
GPU_ABSENT_REASONS = ("not_supported", "no_permission", "lost", "timeout", "no_interval", "unknown")
GPU_MISMATCHES = ("not_held", "held_by_another")
BENCHMARK_LINKS = ("linked", "conflict", "none")
VERDICTS = ("ok", "suspect", "regression", "improvement", "suspect_improvement", "insufficient")
LINK_SUBJECTS = ("head", "events", "job_samples", "gpu_samples", "energy_samples", "over_runs", "security_events")
LINK_OUTCOMES = (
    "ok", "gap", "refused", "denied", "busy", "unavailable", "timeout", "unreachable", "tls", "credentials", "odd",
)  # fmt: skip
LINK_CONTRADICTIONS = ("chain", "event", "sample", "run")
FINDINGS = CODES
VERIFICATIONS = ("incremental", "full")
WITNESS_PROBLEMS = ("set_back", "replaced", "unlinked", "no_proof", "other_chain", "beyond", "row_differs")
READERS = MappingProxyType(
    {"CgroupReader": "cgroup", "ProcessTreeReader": "processes", "NodeProc": "node", "GpuWatch": "gpus"}
)
READER_REASONS = MappingProxyType(
    {
        "PermissionError": "permission",
        "FileNotFoundError": "missing",
        "OSError": "io",
        "TimeoutError": "timeout",
        "ValueError": "unparsable",
        "IndexError": "unparsable",
        "KeyError": "unparsable",
        "UnicodeDecodeError": "unparsable",
    }
)
# By the first two characters of the SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
SQLSTATE_CLASSES = MappingProxyType(
    {"08": "connection", "28": "login", "3D": "login", "42": "schema", "53": "resources", "57": "shutdown"}
)
# Of those, what another word fits better: query_canceled is what statement_timeout ends a statement with.
SQLSTATES = MappingProxyType({"57014": "timeout"})
FORWARD_REASONS = ("timeout", "connection", "login", "schema", "resources", "shutdown")


def forward_reason(text: str) -> str:
    """One of FORWARD_REASONS or `other`, from the sentence that says why the database was not reached."""
    if found := re.search(r"\(SQLSTATE (\w{5})\)", text):
        return SQLSTATES.get(found[1]) or SQLSTATE_CLASSES.get(found[1][:2], OTHER)
    if "in time" in text or "timed out" in text:
        return "timeout"
    if "let this node in" in text or "link." in text:
        return "login"
    return "connection" if re.search(r"Errno|[Cc]onnect|is not reached|no TLS", text) else OTHER


def one_of(allowed: Iterable[str], value: str) -> str:
    """The value if it is one of the set, else `other`."""
    return str(value) if value in allowed else OTHER

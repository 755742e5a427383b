"""Nodes of slurmctld (`/slurm/<version>/nodes`), v0.0.36 to v0.0.43, as NodeRecord."""

from __future__ import annotations

from jobtrail.adapters.slurmrest.normal import Fields
from jobtrail.adapters.slurmrest.tres import MEBIBYTE, gpus_of_gres
from jobtrail.domain.slurm import NodeRecord

# `enum node_states` in slurm/slurm.h; everything else that an array of states holds is a flag.
_BASE_STATES = frozenset({"unknown", "down", "idle", "allocated", "error", "mixed", "future"})


def node_record(fields: Fields) -> NodeRecord:
    """The node that slurmctld's object describes. v0.0.36 says nothing of flags, partitions and what is allocated.

    Raises SlurmAnswerInvalid where name or state cannot be understood; other unreadable fields are absent and told in
    `fields.problems`.
    """
    name = fields.text("name")
    if name is None:
        raise fields.unreadable("name", "is missing")
    state, flags = _state(fields)
    return _node(fields.lenient, name, state, flags)


def _state(fields: Fields) -> tuple[str, tuple[str, ...]]:
    """Base state and flags: a word and `state_flags` up to v0.0.39, from v0.0.40 on one array."""
    words = [word.lower() for word in (*fields.words("state"), *fields.words("state_flags"))]
    state = next((word for word in words if word in _BASE_STATES), None)
    if state is None:
        raise fields.unreadable("state", f"holds none of {', '.join(sorted(_BASE_STATES))}")
    return state, tuple(word for word in dict.fromkeys(words) if word != state)


def _node(fields: Fields, name: str, state: str, flags: tuple[str, ...]) -> NodeRecord:
    load = fields.number("cpu_load")
    gpus = _gpus(fields)
    return NodeRecord(
        name=name,
        state=state,
        flags=flags,
        reason=fields.text("reason"),
        cpus=fields.number("cpus"),
        cpus_allocated=fields.number("alloc_cpus"),
        cpu_load=None if load is None else load / 100,
        memory_bytes=_mebibytes(fields, "real_memory"),
        memory_allocated_bytes=_mebibytes(fields, "alloc_memory"),
        memory_free_bytes=_mebibytes(fields, "free_mem", "free_memory"),
        gpus=gpus,
        gpus_allocated=_gpus_allocated(fields, gpus),
        boot_time=fields.time("boot_time"),
        slurmd_start_time=fields.time("slurmd_start_time"),
        last_busy=fields.time("last_busy"),
        partitions=fields.words("partitions"),
        version=fields.text("version", "slurmd_version"),
    )


def _mebibytes(fields: Fields, *names: str) -> int | None:
    count = fields.number(*names)
    return fields.exact(names[0], None if count is None else count * MEBIBYTE)


def _gpus(fields: Fields) -> int | None:
    """GPUs by the node's configuration. `gres` names all it has, so that an empty one says there is none."""
    gres = fields.text("gres")
    if gres is None:
        return 0 if fields.raw("gres") == "" else None
    return gpus_of_gres(gres) or 0


def _gpus_allocated(fields: Fields, gpus: int | None) -> int | None:
    if gpus == 0:
        return 0
    return gpus_of_gres(fields.text("gres_used") or "")

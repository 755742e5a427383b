"""Of what a node speaks that reaches the store through a server: what its own daemon sees, and no more.

The word of Slurm's controller and accounting, of people about jobs that stand, and of the store about its own trail
comes from daemons with a database. A node that says such things is no node: somebody made its events by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jobtrail.domain.audit import ChainedEvent
from jobtrail.domain.claims import made_id
from jobtrail.domain.events import EventKind
from jobtrail.domain.slurm import Origin

NODES_KINDS = frozenset({
    EventKind.CHAIN_STARTED, EventKind.CHAIN_HEARTBEAT, EventKind.WITNESS_MISMATCH, EventKind.GAP,
    EventKind.CLOCK_STEPPED,
    EventKind.JOB_STARTED, EventKind.JOB_FOUND, EventKind.CHECKPOINT, EventKind.JOB_FINISHED, EventKind.USAGE_RECORDED,
    EventKind.JOB_CLOSED, EventKind.BENCHMARK_RECORDED,
    EventKind.SLURM_REPORTED,  # slurmctld's hooks, on the machine where it runs
    EventKind.JOB_CREATED,  # without a database a job can be made and not be changed
})  # fmt: skip
_KINDS = frozenset(EventKind)


class _Closing(msgspec.Struct):
    whole_run: bool = False


class _Record(msgspec.Struct):
    origin: str = ""


class _Words(msgspec.Struct):
    """The fields of an event that say whose word it is; no field is held to more than the event's own type."""

    node: str
    kind: str
    event_id: str = ""
    job_id: str | None = None
    closing: _Closing | None = None
    slurm: _Record | None = None


_words = msgspec.json.Decoder(_Words)


class Overstepped(msgspec.Struct, frozen=True):
    """An event that its sender may not send. `claimed`: the node in whose name it is."""

    seq: int
    claimed: str
    problem: str


def overstepped(events: Sequence[ChainedEvent], node: str) -> Overstepped | None:
    """The first event that speaks for another node than `node`, or of what no node can know; None if all are its own.

    Bytes that are no event speak for nobody: they are kept, and change nothing.
    """
    for row in events:
        try:
            said = _words.decode(row.payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        except RecursionError:
            return Overstepped(row.seq, "", "holds values in values without end")
        if said.node != node:
            return Overstepped(row.seq, said.node, f"is of node {said.node[:256]!r}")
        if (problem := _beyond_a_node(said, row.kind)) is not None:
            return Overstepped(row.seq, node, problem)
    return None


def _beyond_a_node(said: _Words, kind: str) -> str | None:
    """Why no node says this in a row of that kind; None if one may."""
    if said.kind not in _KINDS:
        return None  # of a later release: no event here, and of no effect
    if said.kind != kind:
        return f"is of kind {said.kind} in a row of kind {kind[:32]!r}"
    if said.kind not in NODES_KINDS:
        return f"is of kind {said.kind}, which no node sends"
    if said.closing is not None and said.closing.whole_run:
        return "closes a whole run, and a node knows of its own part"
    if said.slurm is not None and said.slurm.origin != Origin.CONTROLLER_HOOK:
        return f"is the word of {said.slurm.origin[:32]}, which a node does not ask"
    if said.kind == EventKind.JOB_CREATED and said.job_id != made_id(said.event_id):
        return "makes a job under a name that was chosen, and only a database knows which are free"
    return None

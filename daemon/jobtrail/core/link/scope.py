"""Of what a node speaks that reaches the store through a server: what its own daemon sees, and no more.

The word of Slurm's controller and accounting, of people about jobs that stand, and of the store about its own trail
comes from daemons with a database. A node that says such things is no node: somebody made its events by hand. Sites say
besides which clusters their nodes are of, and which of them run slurmctld.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jobtrail.domain.audit import ChainedEvent
from jobtrail.domain.claims import made_id
from jobtrail.domain.events import BENCHMARK_KINDS, Actor, EventKind
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
_OF_NO_NODE = frozenset({Actor.RECONCILER})  # daemons with a database ask Slurm, and no others
_OF_CONTROLLERS = frozenset({Actor.SLURM_CONTROLLER})


class _Closing(msgspec.Struct):
    whole_run: bool = False


class _Record(msgspec.Struct):
    origin: str = ""
    cluster: str | None = None


class _Words(msgspec.Struct):
    """The fields of an event that say whose word it is; no field is held to more than the event's own type."""

    node: str
    kind: str
    event_id: str = ""
    job_id: str | None = None
    cluster: str = ""
    changed_by: str = ""
    closing: _Closing | None = None
    slurm: _Record | None = None


_words = msgspec.json.Decoder(_Words)


class Overstepped(msgspec.Struct, frozen=True):
    """An event that its sender may not send. `claimed`: the node in whose name it is."""

    seq: int
    claimed: str
    problem: str


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What a site lets nodes say; where a set is empty, that is not held against any node."""

    clusters: frozenset[str] = frozenset()  # that nodes may name
    controllers: frozenset[str] = frozenset()  # nodes on which slurmctld runs its hooks

    def problem_of_cluster(self, cluster: str | None) -> str | None:
        """Why no node speaks of a job of that cluster; None if one may, or where it names none."""
        if cluster is None or not self.clusters or cluster in self.clusters:
            return None
        return f"is of cluster {cluster[:256]!r}, which is none of link.clusters"


ANYTHING = Allowed()


def overstepped(events: Sequence[ChainedEvent], node: str, allowed: Allowed = ANYTHING) -> Overstepped | None:
    """The first event that speaks for another node than `node`, of what no node can know, or of what this one may not
    say; None if all are its own.

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
        problem = _beyond_a_node(said, row.kind) or _not_allowed(said, allowed)
        if problem is not None:
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
    if said.changed_by in _OF_NO_NODE:
        return f"is said by {said.changed_by}, and a node does not ask Slurm"
    if said.kind == EventKind.JOB_CREATED and said.job_id != made_id(said.event_id):
        return "makes a job under a name that was chosen, and only a database knows which are free"
    return None


def _not_allowed(said: _Words, allowed: Allowed) -> str | None:
    """Why this node, or any of this site, may not say so."""
    if said.kind not in _KINDS:
        return None
    of_controller = said.kind == EventKind.SLURM_REPORTED or said.changed_by in _OF_CONTROLLERS
    if of_controller and allowed.controllers and said.node not in allowed.controllers:
        return "is slurmctld's word, and the node is none of link.controllers"
    if said.job_id is None and said.kind not in BENCHMARK_KINDS:
        return None  # about the chain itself, of a daemon that may not know its cluster yet
    told = None if said.slurm is None else said.slurm.cluster
    return allowed.problem_of_cluster(said.cluster) or allowed.problem_of_cluster(told)

"""The part of the composition that asks Slurm: whom, how often, and what becomes of the answers."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from jobtrail.adapters.sacct import Sacct, SlurmComments
from jobtrail.adapters.slurmrest import RestSettings, SlurmRest
from jobtrail.composition.storage import ClusterOf, Store
from jobtrail.config import Config
from jobtrail.core.facts import Observer
from jobtrail.core.ports import Clock, EventIntake, RunStore, SlurmAccounting, SlurmController
from jobtrail.core.runs.board import Board
from jobtrail.core.slurm.accounting import FirstToAnswer
from jobtrail.core.slurm.admin_comments import Commenter
from jobtrail.core.slurm.cluster_name import ClusterName
from jobtrail.core.slurm.nodes import NodeWatcher
from jobtrail.core.slurm.reconciler import Reconciler, Rhythm
from jobtrail.core.slurm.words import SlurmWords

NOBODY_TO_ASK = (
    "slurm.rest_url is not set and there is no sacct: whether a job succeeded or was cancelled stays unknown where its "
    "epilog said 0"
)


Leads = Callable[[], Awaitable[bool]]


class SlurmSources(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the server role may ask. `notices` are sentences for the administrator."""

    controller: SlurmController | None = None
    accounting: SlurmAccounting | None = None
    notices: tuple[str, ...] = ()


@asynccontextmanager
async def slurm_sources(config: Config, clock: Clock) -> AsyncIterator[SlurmSources]:
    """slurmrestd where one is configured, and sacct where there is one; nobody but for the server role of a cluster."""
    if "server" not in config.roles or config.scheduler != "slurm" or not config.database.url:
        yield SlurmSources()
        return
    asked = config.slurm
    sacct = _sacct(config)
    if not asked.rest_url:
        yield SlurmSources(accounting=sacct, notices=() if sacct else (NOBODY_TO_ASK,))
        return
    settings = RestSettings(
        url=asked.rest_url,
        version=asked.rest_version,
        user=asked.rest_user,
        token=asked.token,
        token_file=asked.token_file,
        timeout_seconds=asked.timeout_seconds,
        poll_seconds=asked.poll_seconds,
    )
    async with SlurmRest.opened(settings, clock=clock) as rest:
        sources: list[SlurmAccounting] = [rest]
        accounting = FirstToAnswer(sources if sacct is None else [rest, sacct])
        yield SlurmSources(controller=rest, accounting=accounting, notices=rest.notices)


def _sacct(config: Config) -> Sacct | None:
    """sacct, unless switched off or not installed."""
    asked = config.slurm
    if not asked.sacct or shutil.which(asked.sacct) is None:
        return None
    return Sacct(asked.sacct, asked.conf, timeout_seconds=asked.timeout_seconds, pace_seconds=asked.poll_seconds)


def make_reconciler(
    config: Config,
    sources: SlurmSources,
    *,
    store: RunStore,
    board: Board,
    intake: EventIntake,
    cluster_of: ClusterOf,
    leads: Leads,
    clock: Clock,
    tell: Observer,
) -> Reconciler | None:
    """The reconciler, None where there is nobody to ask."""
    if sources.controller is None and sources.accounting is None:
        return None

    def node_states(names: Sequence[str]) -> dict[str, str]:
        """The states that the watch over the nodes last saw."""
        known = {node.name: ",".join((node.state, *node.flags)) for node in board.cluster_nodes or ()}
        return {name: known[name] for name in names if name in known}

    words = SlurmWords(
        intake=intake,
        clock=clock,
        tell=tell,
        new_event_id=lambda: str(uuid.uuid4()),
        node=config.node_name,
        node_states=node_states,
    )
    return Reconciler(
        controller=sources.controller,
        accounting=sources.accounting,
        store=store,
        words=words,
        clock=clock,
        tell=tell,
        cluster_of=cluster_of,
        leads=leads,
        rhythm=Rhythm(poll_seconds=config.slurm.poll_seconds, compare_seconds=config.slurm.compare_seconds),
        check_cluster=not config.cluster,  # a site may call its cluster by another name than Slurm does
    )


def make_node_watcher(
    config: Config,
    sources: SlurmSources,
    *,
    store: Store,
    board: Board,
    cluster_of: ClusterOf,
    leads: Leads,
    clock: Clock,
    tell: Observer,
) -> NodeWatcher | None:
    """The watch over the nodes, None where there is no controller to ask."""
    if sources.controller is None:
        return None
    return NodeWatcher(
        sources.controller,
        store.nodes,
        board=board,
        clock=clock,
        tell=tell,
        cluster_of=cluster_of,
        leads=leads,
        seconds=config.slurm.nodes_seconds,
    )


def make_commenter(
    config: Config,
    *,
    store: Store,
    intake: EventIntake,
    cluster_of: ClusterOf,
    leads: Leads,
    clock: Clock,
    tell: Observer,
) -> Commenter | None:
    """What writes summaries for sacct, None where that is not wished."""
    asked = config.slurm
    if asked.admin_comment == "none" or "server" not in config.roles or config.scheduler != "slurm":
        return None
    comments = SlurmComments(
        sacct=asked.sacct or "sacct",
        sacctmgr=asked.sacctmgr,
        conf=asked.conf,
        timeout_seconds=asked.timeout_seconds,
    )
    return Commenter(
        comments,
        store.settled_runs,
        intake=intake,
        clock=clock,
        tell=tell,
        cluster_of=cluster_of,
        leads=leads,
        new_event_id=lambda: str(uuid.uuid4()),
        node=config.node_name,
        seconds=asked.admin_comment_seconds,
        replace=asked.admin_comment_replace,
    )


def make_cluster_of(
    config: Config, sources: SlurmSources, *, runs: RunStore, last_cluster: ClusterOf, clock: Clock
) -> ClusterOf:
    """Finds the cluster's name: the settings', Slurm's own, what hooks here told, that of all runs in the store."""
    guesses = (last_cluster, runs.only_cluster)
    return ClusterName(config.cluster, controller=sources.controller, guesses=guesses, clock=clock)

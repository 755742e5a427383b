"""The part of the composition that looks at the whole cluster: chores, Slurm's words, nodes, benchmarks."""

from __future__ import annotations

import msgspec

from jobtrail.composition.audit_role import make_auditors
from jobtrail.composition.slurm_role import (
    Leads,
    SlurmSources,
    make_cluster_of,
    make_commenter,
    make_node_watcher,
    make_reconciler,
)
from jobtrail.composition.storage import ClusterOf, Store
from jobtrail.config import Config
from jobtrail.core.access.retention import SecurityRetention
from jobtrail.core.benchmarks.energy import EnergyOfRuns
from jobtrail.core.benchmarks.settler import BenchmarkSettler, SettlerSettings
from jobtrail.core.facts import Observer
from jobtrail.core.housekeeping import Housekeeper
from jobtrail.core.ports import Clock, EventIntake
from jobtrail.core.runs.board import Board
from jobtrail.core.slurm.admin_comments import Commenter
from jobtrail.core.slurm.nodes import NodeWatcher
from jobtrail.core.slurm.reconciler import Reconciler
from jobtrail.core.trail.sealer import Sealer
from jobtrail.core.trail.verifying import Verifying


class ServerParts(msgspec.Struct, frozen=True, kw_only=True):
    """What runs where there is a store; each None where it has nothing to do."""

    reconciler: Reconciler | None = None
    node_watcher: NodeWatcher | None = None
    housekeeper: Housekeeper | None = None
    settler: BenchmarkSettler | None = None
    commenter: Commenter | None = None
    auditors: tuple[Sealer | Verifying | SecurityRetention, ...] = ()


def make_server_parts(
    config: Config,
    store: Store | None,
    slurm: SlurmSources,
    *,
    board: Board,
    intake: EventIntake,
    last_cluster: ClusterOf,
    clock: Clock,
    tell: Observer,
) -> ServerParts:
    """The parts of the server role. `last_cluster`: what a hook on this machine last called the cluster."""
    if store is None:
        return ServerParts()
    cluster_of = make_cluster_of(config, slurm, runs=store.runs, last_cluster=last_cluster, clock=clock)
    leads = store.leadership_of(cluster_of).held  # of all daemons that may do the cluster's work, one does
    reconciler = make_reconciler(
        config,
        slurm,
        store=store.runs,
        board=board,
        intake=intake,
        cluster_of=cluster_of,
        leads=leads,
        clock=clock,
        tell=tell,
    )
    return ServerParts(
        reconciler=reconciler,
        node_watcher=make_node_watcher(
            config, slurm, store=store, board=board, cluster_of=cluster_of, leads=leads, clock=clock, tell=tell
        ),
        housekeeper=_housekeeper(config, store, reconciler, board=board, clock=clock, tell=tell),
        settler=_settler(config, store, board=board, leads=leads, clock=clock, tell=tell),
        commenter=make_commenter(
            config, store=store, intake=intake, cluster_of=cluster_of, leads=leads, clock=clock, tell=tell
        ),
        auditors=make_auditors(config, store, leads=leads, clock=clock, tell=tell),
    )


def _housekeeper(
    config: Config, store: Store, reconciler: Reconciler | None, *, board: Board, clock: Clock, tell: Observer
) -> Housekeeper | None:
    if "server" not in config.roles:
        return None
    return Housekeeper(
        store.central,
        board=board,
        clock=clock,
        tell=tell,
        retention_days=config.sampling.retention_days,
        pending_jobs=lambda: None if reconciler is None else reconciler.pending_jobs,
    )


def _settler(
    config: Config, store: Store, *, board: Board, leads: Leads, clock: Clock, tell: Observer
) -> BenchmarkSettler | None:
    if "server" not in config.roles:
        return None
    return BenchmarkSettler(
        store.benchmarks,
        energy=EnergyOfRuns(store.benchmarks, clock=clock, interval_us=round(config.gpu.interval_seconds * 1e6)),
        board=board.benchmarks,
        clock=clock,
        tell=tell,
        leads=leads,
        settings=SettlerSettings(
            seconds=config.benchmarks.settle_seconds,
            max_error_ratio=config.benchmarks.max_error_ratio,
            stale_days=config.benchmarks.stale_days,
        ),
    )

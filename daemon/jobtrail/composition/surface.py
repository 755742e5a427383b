"""What the daemon answers on its sockets, and what it takes from its directory."""

from __future__ import annotations

import pwd
import socket
from collections.abc import Mapping
from pathlib import Path

from jobtrail.adapters import job_html
from jobtrail.adapters.benchmark_drop import BenchmarkDrop
from jobtrail.adapters.exposition import Exposition
from jobtrail.adapters.http import HtmlPages, HttpApi, HttpSettings, Services
from jobtrail.adapters.http.node_identity import shared_token
from jobtrail.adapters.http.verified_nodes import TokenBook, VerifiedNodes
from jobtrail.adapters.incoming import IncomingDirectory, watched
from jobtrail.adapters.slurm_env import decode_poke, hook_decoder
from jobtrail.composition.descriptors import connections_that_fit
from jobtrail.composition.node_role import user_name
from jobtrail.composition.parts import Parts
from jobtrail.config import Config
from jobtrail.core.benchmarks.reported import ReportedBenchmarks
from jobtrail.core.link.protocol import ForwardedTo
from jobtrail.core.link.scope import Allowed
from jobtrail.core.manual.jobs import ManualJobs
from jobtrail.core.ports import Health
from jobtrail.core.runs.pokes import LOOKS, Pokes, WholeLook
from jobtrail.domain.events import request_digest


def make_incoming(parts: Parts) -> IncomingDirectory:
    """What hooks left in the spool directory comes in like what they post."""
    decode = hook_decoder(parts.config.cluster, own_node=parts.config.node_name)

    async def take(hook: str, body: bytes, *, event_id: str, time_us: int, time_text: str) -> None:
        event = decode(hook, body, event_id=event_id, time_us=time_us)
        await parts.intake.accept(event, request_digest(hook, time_text, body))

    return IncomingDirectory(
        Path(parts.config.spool.directory),
        take=take,
        tell=parts.telemetry.observe,
        trusted_uids=frozenset(_uid_of(parts.config.http.slurm_user)),
    )


def make_drop(parts: Parts) -> BenchmarkDrop | None:
    """What users leave among the reports of benchmarks comes in like what they post; None without such a place."""
    directory = parts.config.benchmarks.drop_directory
    if not directory:
        return None
    return BenchmarkDrop(Path(directory), intake=make_reported(parts), tell=parts.telemetry.observe, watch=watched)


def make_reported(parts: Parts) -> ReportedBenchmarks:
    """The way in of what people report of benchmarks; each has its own count of users' shares."""
    config = parts.config
    return ReportedBenchmarks(
        parts.intake,
        owner_of_run=parts.sampler.owner_of,
        user_name_of=user_name,
        spool_status=parts.spool.status,
        clock=parts.clock,
        node=config.node_name,
        cluster=config.cluster,
        local_cluster=config.local_cluster,
    )


def make_job_keeper(parts: Parts) -> ManualJobs:
    """The way in of what people say of jobs."""
    config, store = parts.config, parts.store
    return ManualJobs(
        parts.intake,
        jobs=store.archive.jobs if store else None,
        samples=store.posted_samples if store else None,
        spool_status=parts.spool.status,
        user_name_of=user_name,
        uid_of=lambda name: next(iter(_uid_of(name)), None),
        clock=parts.clock,
        node=config.node_name,
        cluster=config.cluster or config.local_cluster,
    )


def make_http(parts: Parts, inherited: Mapping[str, socket.socket] | None = None) -> HttpApi:
    """The sockets and what is answered there; `inherited` are those that systemd opened, by path."""
    config, clock = parts.config, parts.clock
    page = Exposition(
        parts.board, parts.telemetry.render, node=config.node_name, clock=clock, aliases=config.metrics.aliases
    )
    return HttpApi(
        _services(parts, page),
        tell=parts.telemetry.observe,
        clock=clock,
        settings=_http_settings(config),
        notice=parts.security.notice,
        inherited=inherited,
    )


def _services(parts: Parts, page: Exposition) -> Services:
    """What answers: this daemon's parts, and those of the database where it has one."""
    config, clock, store = parts.config, parts.clock, parts.store
    return Services(
        intake=parts.intake,
        decode_hook=hook_decoder(config.cluster, own_node=config.node_name),
        metrics=page.render,
        scraped=lambda: parts.board.scraped(clock.monotonic()),
        health=lambda: _health(parts),
        owner_of_run=parts.sampler.owner_of,
        pokes=Pokes(parts.sampler, clock),
        decode_poke=decode_poke,
        looks=_looks(parts),
        jobs=store.asked_jobs if store else None,
        archive=store.archive if store else None,
        report_pages=HtmlPages(render=job_html.render, policy=job_html.POLICY),
        nodes=store.asked_nodes if store else None,
        targets=store.asked_targets if store else None,
        benchmark_intake=make_reported(parts),
        benchmarks=store.asked_benchmarks if store else None,
        job_keeper=make_job_keeper(parts),
        security=store.asked_security if store else None,
        forwarded_to=_forwarded_to(parts),
        node_identity=VerifiedNodes(
            TokenBook(store.node_tokens) if store else None,
            domain=config.http.node_domain,
            otherwise=shared_token(config.http.node_token_file),
        ),
    )


def _http_settings(config: Config) -> HttpSettings:
    """What of the settings the sockets need."""
    most_remote, most_local = connections_that_fit(config.http.max_connections)
    return HttpSettings(
        host=config.http.host,
        port=config.http.port,
        target_port=config.metrics.target_port or config.http.port,
        socket=config.http.socket,
        poke_socket=config.poke_socket,
        read_token_file=config.http.read_token_file,
        write_token_file=config.http.write_token_file,
        admin_token_file=config.http.admin_token_file,
        tokens_file=config.http.tokens_file,
        web_config_file=config.http.web_config_file,
        client_crl_file=config.http.client_crl_file,
        insecure=config.http.insecure,
        readers_group=config.http.readers_group,
        account_readers=config.http.account_readers,
        hook_token_file=config.slurm.hook_token_file,
        socket_group=config.http.socket_group,
        trusted_uids=frozenset(_uid_of(config.http.slurm_user)),
        local_scheduler=config.scheduler == "local",
        node=config.node_name,
        cluster=config.cluster,
        local_cluster=config.local_cluster,
        proc_root=config.sampling.proc_root,
        cgroup_root=config.sampling.cgroup_root,
        max_body_bytes=config.http.max_body_bytes,
        header_timeout_seconds=config.http.header_timeout_seconds,
        body_timeout_seconds=config.http.body_timeout_seconds,
        max_connections=most_remote,
        max_local_connections=most_local,
    )


def _forwarded_to(parts: Parts) -> ForwardedTo | None:
    """Where a server puts what nodes forward."""
    store, link = parts.store, parts.config.link
    if store is None or "server" not in parts.config.roles:
        return None
    return ForwardedTo(
        events=store.events,
        owners=store.owners,
        parts=store.job_parts,
        samples=store.samples,
        gpu_samples=store.gpu_samples,
        energy_samples=store.energy_samples,
        over_runs=store.over_runs,
        security=store.security,
        at_a_time=parts.config.database.pool_size,
        allowed=Allowed(clusters=frozenset(link.clusters), controllers=link.controller_nodes),
    )


def _looks(parts: Parts) -> Pokes | None:
    """What jobs' users may ask for, where jobs run."""
    if "node" not in parts.config.roles:
        return None
    watch = None if parts.gpus is None else parts.gpus.watch
    return Pokes(WholeLook(parts.sampler, watch), parts.clock, LOOKS)


def _health(parts: Parts) -> Health:
    """Ready means that events are taken and reach the store."""
    spool = parts.spool.status()
    problems: list[str] = []
    if parts.forwarder is None:
        problems.append("no database is configured: events wait in the spool")
    elif (problem := parts.forwarder.last_problem or _chore_problem(parts)) is not None:
        what = "no server takes this node's events" if parts.store is None else "the database is not reached"
        problems.append(f"{what}: {problem}")
    if spool.bytes_used > 0.9 * spool.bytes_limit:
        problems.append(f"the spool is nearly full: {spool.bytes_used} of {spool.bytes_limit} bytes")
    return Health(
        ready=not problems,
        problems=tuple(problems),
        warnings=tuple(_warnings(parts)),
        details={
            "spool_depth": spool.depth,
            "spool_bytes": spool.bytes_used,
            "durability": spool.durability,
            "clock_ahead_of_store_seconds": None if parts.store_clock is None else parts.store_clock.ahead_seconds,
            "live_jobs": parts.board.live_jobs(),
            "forwards_to": parts.config.forward_target,
            "slurm": None if parts.reconciler is None else parts.reconciler.last_problem or "answers",
        },
    )


def _warnings(parts: Parts) -> list[str]:
    off = None if parts.store_clock is None else parts.store_clock.problem()
    refused = None if parts.forwarder is None else parts.forwarder.refusal()
    return [warning for warning in (off, refused) if warning is not None]


def _chore_problem(parts: Parts) -> str | None:
    return None if parts.housekeeper is None else parts.housekeeper.last_problem


def _uid_of(user: str) -> tuple[int, ...]:
    """The user id of SlurmUser; none where there is no such user, as on a machine without Slurm."""
    try:
        return (pwd.getpwnam(user).pw_uid,)
    except KeyError:
        return ()

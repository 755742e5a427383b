"""What the fleet goes through, one after another, and what is measured of each."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import Any

from benchmarks.fleet import SAMPLE_SECONDS
from benchmarks.fleet.crew import Crew, Report
from benchmarks.fleet.reference import reference
from benchmarks.fleet.site import Site
from benchmarks.fleet.watch import Usage, Watch

EVENTS_A_JOB = 3
OF_NODES = "FROM audit_log l JOIN audit_chain c USING (chain_id) WHERE c.node LIKE 'f%'"
LOOK_SECONDS = 6.0
IDLE_SECONDS = 6.0
LOOK_EVERY_MINUTES = 5.0  # jobtrail.core.forwarder.LOOK_SECONDS
DOWN_SECONDS = 8.0  # how long the database is away while its minutes' worth of events comes up


class Fleet:
    """The run."""

    def __init__(self, site: Site, crew: Crew, options: argparse.Namespace, *, limit: float) -> None:
        assert site.server is not None
        self._site, self._crew, self._options, self._limit = site, crew, options, limit
        self._watch = Watch(site.server.pid, site.postmaster)
        self._watch.start()
        self._stored = 0
        self.found: dict[str, Any] = {}

    def close(self) -> None:
        """Stop watching."""
        self._watch.stop()

    async def run(self) -> dict[str, Any]:
        """All phases."""
        options, nodes = self._options, self._crew.nodes
        found = self.found
        found["connect"] = await self._phase("connect", "connect")
        found["idle"] = await self._idle()
        if options.looks:
            for name, fresh in (("look_kept", False), ("look_new", True)):
                found[name] = await self._looks(name, min(nodes, options.looks), fresh=fresh)
            found["idle"]["node_minute"] = _node_minute(found, nodes)
        if options.rate:
            found["sustained"] = await self._sustained(round(options.rate * options.seconds / EVENTS_A_JOB))
        if options.jobs_on_a_node:
            found["samples"] = await self._samples()
        found["storm"] = await self._phase(
            "storm", "storm", seconds=options.storm_seconds, width=options.nodes_per_job,
            first_job=900_000_000, total=nodes,
        )  # fmt: skip
        if options.outage_minutes:
            found["outage"] = await self._outage()
        found["check"] = self._check(await self._crew.report())
        found["reference"] = await reference(self._site, connections=options.pool, seconds=6.0)
        found["database"] = self._database()
        return found

    async def _phase(self, name: str, what: str, **arguments: Any) -> dict[str, Any]:
        """Do something on all nodes, wait until the trail has it all, and say what that took."""
        _tell(f"{name} …")
        self._watch.peaks()
        before, began = self._watch.usage(), time.monotonic()
        await self._crew.do(what, **arguments)
        asked = time.monotonic() - began
        await self._crew.do("settled", seconds=self._limit)
        return self._found(name, await self._crew.report(), time.monotonic() - began, before, asked_seconds=asked)

    def _found(self, name: str, report: Report, seconds: float, before: Usage, **more: Any) -> dict[str, Any]:
        after, peaks = self._watch.usage(), self._watch.peaks()
        events, self._stored = report.events - self._stored, report.events
        done = max(1, len(report.lags))
        found = {
            "seconds": seconds, "events": events, "done": len(report.lags), "per_second": len(report.lags) / seconds,
            "lag_p50": report.lag(0.5), "lag_p99": report.lag(0.99), "lag_max": report.lag(1.0),
            "server_cpu_ms_each": 1e3 * (after.server - before.server) / done,
            "postgres_cpu_ms_each": 1e3 * (after.postgres - before.postgres) / done,
            "server_cores": (after.server - before.server) / seconds,
            "postgres_cores": (after.postgres - before.postgres) / seconds,
            "generator_cores": report.cpu_seconds / seconds,
            "machine_cores": (after.machine - before.machine) / seconds,
            "server_rss_mib": peaks.server_rss_bytes / 2**20, "server_descriptors": peaks.server_connections,
            "postgres_connections": peaks.postgres_connections, "nodes_connected": report.open,
            "not_done": report.waiting, "answers": dict(report.counts), **more,
        }  # fmt: skip
        if report.ended:
            raise RuntimeError(f"nodes gave up: {report.ended}")
        _tell(
            f"{name}: {found['done']} in {seconds:.1f} s, p50 {_spoken(found['lag_p50'])}, "
            f"p99 {_spoken(found['lag_p99'])}, "
            f"server {found['server_cpu_ms_each']:.2f} ms each, {found['answers']}"
        )
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}

    async def _idle(self) -> dict[str, Any]:
        """Every node is connected and has nothing to say."""
        before, began = self._watch.usage(), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        return self._found("idle", await self._crew.report(), time.monotonic() - began, before)

    async def _looks(self, name: str, nodes: int, *, fresh: bool) -> dict[str, Any]:
        before, began = self._watch.usage(), time.monotonic()
        await self._crew.do_parts("looks", "nodes", nodes, seconds=LOOK_SECONDS, fresh=fresh)
        return self._found(name, await self._crew.report(), time.monotonic() - began, before)

    async def _sustained(self, jobs: int) -> dict[str, Any]:
        before, began = self._watch.usage(), time.monotonic()
        await self._crew.do_parts("some_jobs", "jobs", jobs, seconds=self._options.seconds)
        await self._crew.do("settled", seconds=self._limit)
        seconds = time.monotonic() - began
        return self._found("sustained", await self._crew.report(), seconds, before, rate=self._options.rate)

    async def _samples(self) -> dict[str, Any]:
        """One interval's readings of all nodes, spread over the interval."""
        before, began = self._watch.usage(), time.monotonic()
        await self._crew.do("samples", jobs=self._options.jobs_on_a_node, seconds=SAMPLE_SECONDS)
        return self._found("samples", await self._crew.report(), time.monotonic() - began, before)

    async def _outage(self) -> dict[str, Any]:
        """The database goes; what its absence would bring up comes up at once; it comes back."""
        options = self._options
        each = round(options.jobs_per_node_hour * options.outage_minutes / 60)
        self._site.stop_database()
        _tell(f"the database is away; {each * EVENTS_A_JOB * self._crew.nodes} events come up …")
        began = time.monotonic()
        await self._crew.do("whole_jobs", each=each, seconds=0.0)
        await asyncio.sleep(max(0.0, DOWN_SECONDS - (time.monotonic() - began)))
        await asyncio.to_thread(self._site.start_database)
        self._watch.peaks()
        before, back = self._watch.usage(), time.monotonic()
        await self._crew.do("settled", seconds=self._limit)
        report = await self._crew.report()
        drained = sorted(max(0.0, at - back) for at in report.emptied_at)
        return self._found(
            "drain", report, time.monotonic() - back, before, away_seconds=back - began,
            events_each=each * EVENTS_A_JOB,
            node_drained_p50=drained[len(drained) // 2], node_drained_p99=drained[int(0.99 * len(drained))],
            node_drained_max=drained[-1],
        )  # fmt: skip

    def _check(self, report: Report) -> dict[str, Any]:
        """Whether the trail holds each event once, in whole chains."""
        _tell("checking the trail …")
        ((rows, ids, conflicts, wrong),) = self._site.ask(
            f"SELECT (SELECT count(*) {OF_NODES}), (SELECT count(DISTINCT event_id) {OF_NODES}),"
            " (SELECT count(*) FROM audit_conflict),"
            " (SELECT count(*) FROM audit_chain c WHERE head_seq <>"
            "  (SELECT count(*) FROM audit_log l WHERE l.chain_id = c.chain_id))"
        )
        held = {
            "made": report.events,
            "rows": rows,
            "different_ids": ids,
            "conflicts": conflicts,
            "broken_chains": wrong,
        }
        if (rows, ids, conflicts, wrong) != (report.events, report.events, 0, 0):
            raise RuntimeError(f"the trail does not hold what the nodes made: {held}")
        return held

    def _database(self) -> dict[str, Any]:
        """What a row takes, with its indexes, and what was written ahead."""
        sizes = dict(
            self._site.ask(
                "SELECT relname, sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relkind = 'r'"
                " AND relnamespace = 'public'::regnamespace GROUP BY relname"
            )
        )
        counts = {}
        for table in ("audit_log", "audit_payload", "jobs", "job_nodes", "job_samples"):
            ((count,),) = self._site.ask(f"SELECT count(*) FROM {table}")
            held = sum(int(size) for name, size in sizes.items() if name == table or name.startswith(f"{table}_"))
            counts[table] = {"rows": count, "bytes": held, "bytes_a_row": round(held / count) if count else None}
        ((wal,),) = self._site.ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
        return {"tables": counts, "wal_bytes": wal}


def _node_minute(found: dict[str, Any], nodes: int) -> dict[str, float]:
    """Milliseconds of CPU that a node costs in a minute in which it has nothing to say: its looks, each over a new
    connection, since it comes after more than the minute that one is kept."""
    look = found["look_new"]
    idle = found["idle"]
    base = idle["server_cores"] * 60e3 / nodes
    return {
        "server_ms": round(base + look["server_cpu_ms_each"] / LOOK_EVERY_MINUTES, 3),
        "postgres_ms": round(look["postgres_cpu_ms_each"] / LOOK_EVERY_MINUTES, 3),
        "of_which_the_server_by_itself_ms": round(base, 3),
    }


def _spoken(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"


def _tell(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()

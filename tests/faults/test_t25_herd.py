"""T-25: server and database are gone, every node has something to say, and all come back in the same moment."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from benchmarks.fleet.crew import Crew, Report
from benchmarks.fleet.site import Site
from benchmarks.fleet.watch import Watch

from tests.faults.figures import Figures, often
from tests.requirements import require_tool

POOL = 4
BESIDE_THE_POOL = 3  # those who ask over HTTP have two, the lock of the cluster's regular work one
JOBS_EACH = 2
LIMIT_SECONDS = 240.0
MOST_BACKOFF_SECONDS = 45.0  # jobtrail.core.waiting: half a minute, and half more where a server named a time


@pytest.mark.fault("T-25")
def test_a_herd_of_nodes_comes_back_at_once(place: Path, figures: Figures) -> None:
    """The database sees no more connections than the server's pool has, each event is there once, no node starves."""
    require_tool("openssl", "TLS stays untested")
    nodes = often(quick=200, full=2_000)
    site = Site(place, nodes=nodes, pool=POOL)
    try:
        site.start_server()
        asyncio.run(_herd(site, nodes, figures))
    finally:
        site.close()


async def _herd(site: Site, nodes: int, figures: Figures) -> None:
    async with Crew(site, nodes=nodes, processes=1) as crew:
        await crew.do("connect")
        assert (await _settled(crew)).counts["ok_events"] >= nodes
        site.stop_database()
        assert site.server is not None
        site.server.kill()
        site.server.wait()
        await crew.do("whole_jobs", each=JOBS_EACH, seconds=0.0)
        await asyncio.to_thread(site.start_database)
        await asyncio.to_thread(site.start_server)
        back = time.monotonic()
        watch = Watch(site.server.pid, site.postmaster)
        watch.start()
        report = await _settled(crew)
        seconds = time.monotonic() - back
        watch.stop()
    _judge(site, report)
    drained = sorted(at - back for at in report.emptied_at)
    middle, late = drained[len(drained) // 2], drained[int(0.99 * len(drained))]
    most = watch.peaks().postgres_connections
    figures.set(
        nodes=nodes, events=len(report.lags), postgres_connections=most, drain_s=round(seconds, 1),
        node_p50_s=round(middle, 1), node_p99_s=round(late, 1), turned_away=report.counts["busy"],
    )  # fmt: skip
    assert 0 < most <= POOL + BESIDE_THE_POOL
    assert late <= 2 * max(middle, 1.0) + MOST_BACKOFF_SECONDS


async def _settled(crew: Crew) -> Report:
    await crew.do("settled", seconds=LIMIT_SECONDS)
    report = await crew.report()
    assert report.ended == []
    assert report.waiting == 0, f"{report.waiting_nodes} nodes still wait: {report.counts}"
    return report


def _judge(site: Site, report: Report) -> None:
    """Each event is in the trail once (I1, I2), in whole chains (I4), and every job is over (I5)."""
    of_nodes = "FROM audit_log l JOIN audit_chain c USING (chain_id) WHERE c.node ~ '^f[0-9]{5}$'"
    assert site.ask(f"SELECT count(*), count(DISTINCT event_id) {of_nodes}") == [(report.events, report.events)]
    assert site.ask("SELECT count(*) FROM audit_conflict") == [(0,)]
    whole = "(SELECT count(*) FROM audit_log l WHERE l.chain_id = c.chain_id)"
    assert site.ask(f"SELECT count(*) FROM audit_chain c WHERE head_seq <> {whole}") == [(0,)]
    assert site.ask("SELECT count(*) FROM jobs WHERE state = 'running'") == [(0,)]

"""Reports of benchmarks on their way into the intake: whose word they carry, and how many of them one user may send."""

from __future__ import annotations

import hashlib
import uuid

import msgspec
import pytest

from jobtrail.core.benchmarks.ports import Reporter
from jobtrail.core.benchmarks.reported import ReportedBenchmarks
from jobtrail.core.benchmarks.shares import BURST, BYTES_PER_SECOND
from jobtrail.core.ports import Receipt, SpoolStatus
from jobtrail.domain.benchmarks.report import BaselineDecision, Decision, LinkSource, report_event_id
from jobtrail.domain.errors import InvalidEvent, SpoolFull, TooManyReports
from jobtrail.domain.events import Actor, Event, EventKind
from tests.benchmark_reports import claim, report, uid
from tests.fakes import FakeClock

ALICE, ROOT = Reporter(uid=1001), Reporter(uid=0, trusted=True)


class World:
    """An intake that remembers, one open job, and a spool of which a test says how full it is."""

    def __init__(self, cluster: str = "lab") -> None:
        self.accepted: list[tuple[Event, bytes]] = []
        self.owners = {("lab", "slurm-1"): 1001, ("lab", "slurm-2"): 1002, ("here", "local-1"): 1001}
        self.used = 0
        self.clock = FakeClock(report().ended_us)
        self.reports = ReportedBenchmarks(
            self,
            owner_of_run=lambda cluster, job_id: self.owners.get((cluster, job_id)),
            user_name_of={1001: "alice"}.get,
            spool_status=self._status,
            clock=self.clock,
            node="n1",
            cluster=cluster,
            local_cluster="here",
        )

    def _status(self) -> SpoolStatus:
        return SpoolStatus(
            chain_id="c", durability="disk", head_seq=0, forwarded_seq=0, bytes_used=self.used, bytes_limit=1000,
            oldest_unforwarded_us=None,
        )  # fmt: skip

    async def accept(self, event: Event, digest: bytes) -> Receipt:
        self.accepted.append((event, digest))
        return Receipt(event_id=event.event_id, seq=len(self.accepted), durability="disk")

    async def take(self, reporter: Reporter = ALICE, **fields: object) -> Event:
        body = msgspec.json.encode(report(**fields))  # type: ignore[arg-type]
        await self.reports.take(body, reporter, by=Actor.API)
        return self.accepted[-1][0]


async def test_a_report_becomes_an_event_with_the_kernels_word() -> None:
    world = World()
    event = await world.take()
    body = msgspec.json.encode(report())
    assert (event.kind, event.event_id) == (EventKind.BENCHMARK_RECORDED, report_event_id(uid(1), body))
    assert (event.cluster, event.job_id, event.node, event.source) == ("lab", None, "n1", "bench")
    assert (event.changed_by, event.time_us) == (Actor.API, world.clock.time_us())
    assert event.benchmark == msgspec.structs.replace(report(), uid=1001, user_name="alice", from_job=True)
    assert world.accepted[0][1] == hashlib.sha256(b"benchmark\0\0" + body).digest()


async def test_its_id_is_that_of_its_bytes() -> None:
    world, body = World(), msgspec.json.encode(report())
    right = report_event_id(uid(1), body)
    assert (await world.reports.take(body, ALICE, by=Actor.API, event_id=right)).event_id == right
    with pytest.raises(InvalidEvent, match=f"Jobtrail-Event-Id: must be {right}"):
        await world.reports.take(body, ALICE, by=Actor.API, event_id=str(uuid.uuid4()))
    assert len(world.accepted) == 1


@pytest.mark.parametrize(
    ("claims", "reporter", "believed"),
    [
        ([claim()], ALICE, True),
        ([claim(cluster="lab")], ALICE, True),
        ([claim("local-1")], ALICE, True),
        ([claim(cluster="other")], ALICE, False),
        ([claim("slurm-2")], ALICE, False),
        ([claim("slurm-9")], ALICE, False),
        ([claim(), claim("slurm-2")], ALICE, False),
        ([claim()], ROOT, False),
        ([], ALICE, False),
        ([msgspec.structs.replace(claim(), source=LinkSource.PATH)], ALICE, False),
    ],
)
async def test_only_the_user_of_all_its_jobs_here_reports_from_the_job(
    claims: list[object], reporter: Reporter, believed: bool
) -> None:
    event = await World().take(reporter, jobs=tuple(claims))
    assert event.benchmark is not None
    assert event.benchmark.from_job is believed


async def test_the_cluster_is_the_settings_else_the_claims_else_this_machine() -> None:
    assert (await World().take(jobs=(claim(cluster="other"),))).cluster == "lab"
    assert (await World("").take(jobs=(claim(), claim(cluster="other")))).cluster == "other"
    assert (await World("").take(jobs=(claim(),))).cluster == "here"
    assert (await World("").take(jobs=())).cluster == "here"


async def test_a_decision_becomes_an_event() -> None:
    world = World()
    decision = BaselineDecision(run_uid=uid(1), decision=Decision.PIN, by="alice")
    for identity, note in (("e1", "the release"), ("e2", None)):
        await world.reports.decide(decision, event_id=identity, by=Actor.API, source="portal", note=note)
    (first, digest), (second, other) = world.accepted
    assert (first.kind, first.event_id, first.note) == (EventKind.BASELINE_DECIDED, "e1", "the release")
    assert (first.baseline, first.source, first.cluster) == (decision, "portal", "lab")
    assert second.note is None
    assert digest != other


def test_a_user_has_a_burst_and_then_two_a_second() -> None:
    world = World()
    for _ in range(BURST):
        world.reports.admit(ALICE)
    with pytest.raises(TooManyReports) as refused:
        world.reports.admit(ALICE)
    assert refused.value.retry_after_seconds == 1
    world.reports.admit(Reporter(uid=1002))
    for _ in range(2 * BURST):
        world.reports.admit(ROOT)
    world.clock.advance(1)
    world.reports.admit(ALICE)
    world.reports.admit(ALICE)
    with pytest.raises(TooManyReports):
        world.reports.admit(ALICE)


async def test_large_reports_cost_more() -> None:
    """Also those that are refused: reading them was the work."""
    world = World()
    world.reports.admit(ALICE)
    with pytest.raises(InvalidEvent):
        await world.reports.take(b" " * (BYTES_PER_SECOND * 10), ALICE, by=Actor.API)
    with pytest.raises(TooManyReports) as refused:
        world.reports.admit(ALICE)
    assert refused.value.retry_after_seconds == 1
    with pytest.raises(InvalidEvent):
        await world.reports.take(b" " * (BYTES_PER_SECOND * 10), ROOT, by=Actor.API)
    world.reports.admit(ROOT)


def test_the_last_tenth_of_the_spool_is_for_hooks() -> None:
    """Root's reports wait too: they can be sent again, a prolog's event is told once."""
    world = World()
    world.used = 900
    world.reports.admit(ALICE)
    world.used = 901
    for reporter in (ALICE, ROOT):
        with pytest.raises(SpoolFull):
            world.reports.admit(reporter)

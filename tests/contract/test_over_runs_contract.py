"""What every OverRuns promises, held by the fake, by PostgreSQL, and by a server in front of PostgreSQL alike."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters.postgres import PostgresOverRuns, PostgresSink, close_pool, open_pool
from jobtrail.adapters.server_link import LinkOverRuns
from jobtrail.core.ports import EventSink
from jobtrail.core.runs.over_runs import Over, OverRuns
from jobtrail.domain.errors import StoreUnavailable
from jobtrail.domain.events import Event, encode
from jobtrail.domain.records import SKEW_US
from jobtrail.domain.samples import Target
from jobtrail.domain.slurm import Origin
from tests.chains import T0, ChainWriter
from tests.fake_over_runs import MemoryOverRuns
from tests.fakes import MemorySink
from tests.served_link import Site, in_postgres, site
from tests.unit.stories import CLUSTER, JOB, SECOND, closed, finished, found, reported, started


class Bench:
    """A store, and what it says of runs that are over."""

    def __init__(self, sink: EventSink, runs: OverRuns) -> None:
        self.sink, self.runs = sink, runs

    async def tell(self, *events: Event) -> None:
        """Store `events` as one node's chain."""
        writer = ChainWriter("n1")
        for event in events:
            writer.raw(encode(event), kind=str(event.kind), event_id=event.event_id)
        await self.sink.store(writer.rows, node="n1")

    async def over(self, refs: Sequence[str], *, node: str = "n1") -> dict[str, tuple[str, float]]:
        """Of those that are over: the reason, and the latest end in seconds after T0."""
        targets = [Target(ref=ref, cluster=CLUSTER, job_id=JOB, node=node) for ref in refs]
        known = await self.runs.over(targets)
        return {ref: (over.reason, (over.latest_us - T0) / SECOND) for ref, over in known.items()}


class RunsOfManyNodes:
    """An OverRuns for several nodes: each asks through its own link."""

    def __init__(self, at: Site) -> None:
        self.site = at

    async def over(self, targets: Sequence[Target]) -> Mapping[str, Over]:
        node = targets[0].node if targets else "n1"
        return await LinkOverRuns(self.site.link(node)).over(targets)


@pytest.fixture(params=["memory", "postgres", "server"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "memory":
        sink = MemorySink()
        yield Bench(sink, MemoryOverRuns(sink))
        return
    pool = await open_pool(request.getfixturevalue("database"), size=2, timeout_seconds=10.0)
    if request.param == "postgres":
        yield Bench(PostgresSink(pool, timeout_seconds=10.0), PostgresOverRuns(pool, timeout_seconds=10.0))
    else:
        async with site(tmp_path, in_postgres(pool)) as at:
            yield Bench(PostgresSink(pool, timeout_seconds=10.0), RunsOfManyNodes(at))
    await close_pool(pool, timeout_seconds=5.0)


FIRST = started("n1", 0, "first", nodes=["n1", "n2"])
OTHER = started("n2", 1, "other", nodes=["n1", "n2"])
COMPLETED: dict[str, Any] = {"state": "COMPLETED", "start_time": 0, "end_time": 100, "submit_time": -5}


async def test_a_run_that_goes_on_is_not_over(bench: Bench) -> None:
    word = reported(Origin.SLURMCTLD, 60 * SECOND, run=1, state="RUNNING", start_time=0)
    await bench.tell(FIRST, OTHER, finished("n2", 50 * SECOND), word)
    assert await bench.over([FIRST.event_id]) == {}
    assert await bench.over([]) == {}


async def test_slurms_final_word_ends_the_parts_that_are_open(bench: Bench) -> None:
    """Not the part whose epilog came, and nothing of runs that the store does not know."""
    word = reported(Origin.SLURMDBD, 200 * SECOND, run=1, **COMPLETED)
    await bench.tell(FIRST, OTHER, finished("n2", 99 * SECOND), word)
    said = ("ended_in_slurm", 100 + SKEW_US / SECOND)
    assert await bench.over([FIRST.event_id, "00000000-0000-4000-8000-000000000000"]) == {FIRST.event_id: said}
    assert await bench.over([OTHER.event_id], node="n2") == {}
    assert await bench.over([FIRST.event_id], node="n2") == {}


async def test_a_run_that_was_closed_as_a_whole_is_over(bench: Bench) -> None:
    """Slurm no longer knew it, and nobody told when it ended."""
    whole = closed("n1", 600 * SECOND, reason="unknown_to_slurm", not_before=500 * SECOND, run=1)
    await bench.tell(FIRST, whole)
    assert await bench.over([FIRST.event_id]) == {FIRST.event_id: ("unknown_to_slurm", 600)}


async def test_a_part_that_the_node_closed_is_not_asked_for_again(bench: Bench) -> None:
    word = reported(Origin.SLURMDBD, 200 * SECOND, run=1, **COMPLETED)
    await bench.tell(FIRST, OTHER, word, closed("n1", 105 * SECOND, reason="ended_in_slurm", opened_by=FIRST.event_id))
    assert await bench.over([FIRST.event_id]) == {}
    assert await bench.over([OTHER.event_id], node="n2") == {OTHER.event_id: ("ended_in_slurm", 100 + SKEW_US / SECOND)}


async def test_another_run_of_the_same_job_is_told_apart_by_its_opener(bench: Bench) -> None:
    """The first is over; the requeued one goes on."""
    second = started("n1", 300 * SECOND, "second", nodes=["n1"])
    word = reported(Origin.SLURMDBD, 200 * SECOND, run=1, **COMPLETED)
    await bench.tell(FIRST, word, second)
    assert list(await bench.over([FIRST.event_id, second.event_id])) == [FIRST.event_id]


async def test_a_part_is_known_by_every_event_that_told_its_beginning(bench: Bench) -> None:
    """The run was found without a prolog, whose file came in later: the spool names the one or the other."""
    guess = found("n1", 10 * SECOND, "guess")
    word = reported(Origin.SLURMDBD, 200 * SECOND, run=1, **COMPLETED)
    await bench.tell(guess, FIRST, word)
    assert sorted(await bench.over([guess.event_id, FIRST.event_id])) == sorted([guess.event_id, FIRST.event_id])


async def test_a_store_that_is_away_is_told(bench: Bench) -> None:
    if isinstance(bench.runs, MemoryOverRuns):
        bench.runs.error = StoreUnavailable("away")
    elif isinstance(bench.runs, RunsOfManyNodes):
        bench.runs = LinkOverRuns(bench.runs.site.link(urls=("https://127.0.0.1:9",)))
    else:
        pool = await open_pool("postgresql://nobody@127.0.0.1:9/none", size=1, timeout_seconds=2.0)
        bench.runs = PostgresOverRuns(pool, timeout_seconds=2.0)
    with pytest.raises(StoreUnavailable):
        await bench.over([FIRST.event_id])

"""What `jobtrail jobs` prints of a stored job: no outcome that nobody confirmed, no figure without what it covers."""

import io
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from rich.console import Console

from jobtrail.adapters.postgres import PostgresReader, PostgresSink
from jobtrail.cli.jobs import print_job, print_jobs
from jobtrail.domain.events import Actor, Closing, EventKind, NodeUsage
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import Origin, SlurmRecord
from tests.chains import SECOND, T0, ChainWriter

T0_SECONDS = T0 // SECOND
Show = Callable[[ChainWriter], Awaitable[str]]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are printed as local ones; T0 is 08:53:20 UTC. Later tests have the machine's time zone again."""
    with monkeypatch.context() as here:
        here.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def show(pool: Any) -> Show:
    """Store a chain and print job 7."""

    async def store_and_print(writer: ChainWriter) -> str:
        await PostgresSink(pool).store(writer.rows, node=writer.node)
        out = io.StringIO()
        detail = await PostgresReader(pool, timeout_seconds=10.0).show_job("7")
        print_job(Console(file=out, width=400, highlight=False), detail)
        page = out.getvalue()
        assert page.startswith(detail.sentence)
        return page

    return store_and_print


def line(page: str, name: str) -> str:
    """The one line that begins with `name`, without it."""
    (found,) = [text for text in page.splitlines() if text.startswith(f"{name:<14}")]
    return found[14:].rstrip()


def says(writer: ChainWriter, at: int, origin: Origin, state: str, **fields: Any) -> None:
    """Slurm's word, `at` seconds after T0."""
    record = SlurmRecord(origin=origin, job_id="slurm-7", state=state, start_time=T0_SECONDS, **fields)
    writer.event(EventKind.SLURM_REPORTED, "slurm-7", at * SECOND, Actor.RECONCILER, run=1, slurm=record)


def whole(nodes: Sequence[str] = ("n1",), exit_code: int = 0, **facts: Any) -> ChainWriter:
    """Job 7 on n1 from T0 for ten seconds, with its usage."""
    writer = ChainWriter()
    opened_by = writer.started("slurm-7", nodes=nodes, **facts)
    usage = NodeUsage(
        cpu_usage_us=30 * SECOND, memory_peak_bytes=1 << 30, sample_count=7, covered_us=9 * SECOND,
        sources={"usage": "cgroup_v1", "cpu": "parent_counter"},
    )  # fmt: skip
    writer.finished("slurm-7", 10 * SECOND, exit_code, opened_by=opened_by)
    writer.used("slurm-7", 10 * SECOND + 1, usage, opened_by=opened_by)
    return writer


async def test_an_epilogs_zero_is_no_outcome(show: Show, pool: Any) -> None:
    page = await show(whole())
    assert line(page, "outcome").startswith("ended, outcome unknown: the epilog reports the same for a success")
    assert "the epilog, 2025-10-09 08:53:30: exit code 0" in page
    assert line(page, "cpu") == "30.00 s, 75 % of 4 CPUs (by parent counter)"
    assert line(page, "coverage") == "samples: 7 from cgroup v1, last at 90 % of the run"
    out = io.StringIO()
    listed = await PostgresReader(pool, timeout_seconds=10.0).list_jobs()
    print_jobs(Console(file=out, width=200), listed.jobs)
    assert "ended (outcome unknown)" in out.getvalue()


async def test_a_confirmed_outcome_names_who_confirmed_it_and_each_word_that_was_said(show: Show) -> None:
    writer = whole()
    says(writer, 12, Origin.SLURMCTLD, "CANCELLED", outcome=Outcome(exit_signal=15), cancelled_by_uid=1000)
    page = await show(writer)
    assert line(page, "outcome") == "cancelled, signal 15 (confirmed by Slurm's controller)"
    assert "the epilog, 2025-10-09 08:53:30: exit code 0" in page
    assert "Slurm's controller, 2025-10-09 08:53:32: CANCELLED, signal 15, cancelled by uid 1000" in page


async def test_a_run_of_which_one_node_reported_says_so(show: Show) -> None:
    writer = whole(nodes=("n1", "n2"))
    says(writer, 12, Origin.SLURMDBD, "NODE_FAIL", reason="NodeDown", node_states={"n2": "down"},
         flags=("REQUEUE_HOLD",))  # fmt: skip
    page = await show(writer)
    assert line(page, "coverage").endswith("usage covers 1 of 2 nodes")
    rows = [text.split() for text in page.splitlines() if text.startswith(("n1 ", "n2 "))]
    assert [row[0] for row in rows] == ["n1", "n2"]
    assert rows[0][-2:] == ["90", "%"]
    assert rows[1] == ["n2", "-", "-", "-", "-", "-", "no", "report"]
    assert "Slurm's accounting, 2025-10-09 08:53:32: NODE_FAIL+REQUEUE_HOLD, reason NodeDown, n2 down" in page


async def test_an_inferred_end_is_an_interval(show: Show) -> None:
    writer = ChainWriter()
    writer.started("slurm-7")
    closing = Closing(reason="unknown_to_slurm", not_before_us=T0 + 5 * SECOND, detail="nobody knows", whole_run=True)
    writer.event(EventKind.JOB_CLOSED, "slurm-7", 60 * SECOND, Actor.RECONCILER, run=1, closing=closing)
    page = await show(writer)
    assert line(page, "ended") == "between 2025-10-09 08:53:25 and 2025-10-09 08:54:20 (inferred)"
    assert line(page, "outcome") == "ended, outcome unknown: no end was reported"
    assert "the reconciler: unknown to slurm (nobody knows)" in page


async def test_what_slurm_alone_knows_is_shown(show: Show) -> None:
    writer = whole()
    facts = JobFacts(
        array_job_id="slurm-5", array_task_id=3, het_leader_job_id="slurm-6", het_job_offset=0,
        memory_limit_bytes=1 << 31,
    )  # fmt: skip
    says(writer, 12, Origin.SLURMDBD, "FAILED", facts=facts, submit_time=T0_SECONDS - 60, suspended_seconds=4,
         outcome=Outcome(exit_code=1, derived_raw_status=2 << 8), out_of_memory_step=True)  # fmt: skip
    page = await show(writer)
    assert line(page, "array") == "task 3 of slurm-5"
    assert line(page, "part of") == "slurm-6, component 0"
    assert line(page, "submitted") == "2025-10-09 08:52:20"
    assert line(page, "ran").endswith("suspended for 4.00 s of it")
    assert line(page, "outcome") == (
        "failed, exit code 1, highest exit code of a step 2, a step ran out of memory (confirmed by Slurm's accounting)"
    )
    assert line(page, "peak memory") == "1.0 GiB of a limit of 2.0 GiB"


async def test_a_provisional_verdict_is_not_confirmed(show: Show) -> None:
    writer = ChainWriter()
    opened_by = writer.started("slurm-7")
    killed = Outcome(exit_signal=9)
    writer.event(EventKind.JOB_FINISHED, "slurm-7", SECOND, Actor.SLURM_EPILOG, outcome=killed, opened_by=opened_by)
    assert line(await show(writer), "outcome") == "failed, killed by signal 9 (by the epilog, not confirmed)"


async def test_cpu_time_so_far_is_of_the_time_up_to_its_last_sample(show: Show) -> None:
    """It is told minutes apart, and T0 is long ago: of the time since then nothing is known."""
    writer = ChainWriter()
    opened_by = writer.started("slurm-7")
    usage = NodeUsage(
        cpu_usage_us=20 * SECOND, sample_count=3, last_sample_us=T0 + 10 * SECOND, sources={"usage": "cgroup_v1"}
    )
    writer.used("slurm-7", 10 * SECOND, usage, opened_by=opened_by)
    assert line(await show(writer), "cpu") == "20.00 s, 50 % of 4 CPUs"


async def test_a_running_and_a_waiting_job_have_no_end_yet(show: Show) -> None:
    writer = ChainWriter()
    writer.started("slurm-7")
    page = await show(writer)
    assert (line(page, "ended"), line(page, "outcome")) == ("still running", "running")
    says(writer, 12, Origin.SLURMCTLD, "SUSPENDED")
    assert line(await show(writer), "outcome") == "running (SUSPENDED in Slurm)"
    assert "what was said" not in page


async def test_a_senders_word_is_told_as_such(show: Show) -> None:
    writer = ChainWriter()
    opened_by = writer.started("slurm-7")
    said = Outcome(final_state="failed", out_of_memory=True)
    writer.event(EventKind.JOB_FINISHED, "slurm-7", SECOND, Actor.API, outcome=said, opened_by=opened_by)
    page = await show(writer)
    assert line(page, "outcome") == "failed, out of memory (confirmed by its sender)"
    assert "the sender, who knows, 2025-10-09 08:53:21: state failed, out of memory" in page

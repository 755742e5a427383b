"""What every SlurmAccounting promises, held by the fake and by slurmrestd's client in two shapes of its answers."""

from collections.abc import AsyncIterator

import pytest

from jobtrail.domain.errors import SlurmDenied, SlurmUnavailable
from jobtrail.domain.slurm import Origin
from tests.contract.slurm_bench import Bench, T, benches


@pytest.fixture(params=["memory", "slurmrestd v0.0.38", "slurmrestd v0.0.42"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with benches(request.param) as made:
        yield made


async def test_it_knows_all_runs_of_the_jobs_asked_for_and_no_others(bench: Bench) -> None:
    bench.add_run(1, "REQUEUED", submit=T + 10, start=T + 11, end=T + 12)
    bench.add_run(1, "RUNNING", submit=T + 12, start=T + 13)
    bench.add_run(2, "FAILED", submit=T + 10, start=T + 11, end=T + 15)
    bench.add_run(3, "COMPLETED", submit=T + 10, start=T + 11, end=T + 15)
    answer = await bench.accounting.runs_of([2, 1, 9, 1], since=0)
    runs = sorted((record.job_id, record.submit_time, record.state) for record in answer.records)
    assert runs == [
        ("slurm-1", T + 10, "REQUEUED"),
        ("slurm-1", T + 12, "RUNNING"),
        ("slurm-2", T + 10, "FAILED"),
    ]
    assert {record.origin for record in answer.records} == {Origin.SLURMDBD}


async def test_it_still_knows_what_slurmctld_has_forgotten(bench: Bench) -> None:
    bench.add_run(7, "COMPLETED", submit=T + 10, start=T + 11, end=T + 12)
    bench.forget(7)
    assert [record.end_time for record in (await bench.accounting.runs_of([7], since=0)).records] == [T + 12]


async def test_runs_that_were_over_before_are_left_out(bench: Bench) -> None:
    for submit, end in ((T + 10, T + 19), (T + 20, T + 29), (T + 30, T + 39)):
        bench.add_run(1, "FAILED", submit=submit, start=submit + 1, end=end)
    bench.add_run(1, "RUNNING", submit=T + 40, start=T + 41)
    answer = await bench.accounting.runs_of([1], since=T + 29)
    assert sorted(record.submit_time or 0 for record in answer.records) == [T + 20, T + 30, T + 40]


async def test_of_unknown_jobs_and_of_none_there_are_no_records(bench: Bench) -> None:
    assert (await bench.accounting.runs_of([5, 6], since=0)).records == ()
    bench.break_down()
    assert (await bench.accounting.runs_of([], since=0)).records == ()


async def test_one_unreadable_run_is_told_and_leaves_the_others(bench: Bench) -> None:
    bench.add_run(1, "FAILED", submit=T + 10, start=T + 11, end=T + 12)
    bench.add_unreadable(2)
    answer = await bench.accounting.runs_of([1, 2], since=0)
    assert [record.job_id for record in answer.records] == ["slurm-1"]
    assert [one.job_id for one in answer.unreadable] == ["slurm-2"]


async def test_accounting_that_does_not_answer_and_one_that_refuses_are_two_errors(bench: Bench) -> None:
    bench.break_down()
    with pytest.raises(SlurmUnavailable):
        await bench.accounting.runs_of([1], since=0)
    bench.refuse()
    with pytest.raises(SlurmDenied):
        await bench.accounting.runs_of([1], since=0)
    bench.recover()
    assert (await bench.accounting.runs_of([1], since=0)).records == ()

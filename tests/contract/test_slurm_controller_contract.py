"""What every SlurmController promises, held by the fake and by slurmrestd's client in two shapes of its answers."""

from collections.abc import AsyncIterator

import pytest

from jobtrail.domain.errors import SlurmDenied, SlurmUnavailable
from jobtrail.domain.slurm import NodeRecord, Origin
from tests.contract.slurm_bench import Bench, T, benches


@pytest.fixture(params=["memory", "slurmrestd v0.0.38", "slurmrestd v0.0.42"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with benches(request.param) as made:
        yield made


async def test_it_knows_the_newest_run_of_each_job(bench: Bench) -> None:
    bench.add_run(1, "REQUEUED", submit=T + 10, start=T + 11, end=T + 12)
    bench.add_run(1, "RUNNING", submit=T + 12, start=T + 13)
    bench.add_run(2, "FAILED", submit=T + 10, start=T + 11, end=T + 15)
    bench.add_run(3, "PENDING", submit=T + 20)
    answer = await bench.controller.current_jobs()
    known = {record.job_id: (record.state, record.submit_time, record.end_time) for record in answer.records}
    assert known == {
        "slurm-1": ("RUNNING", T + 12, None),
        "slurm-2": ("FAILED", T + 10, T + 15),
        "slurm-3": ("PENDING", T + 20, None),
    }
    assert {record.origin for record in answer.records} == {Origin.SLURMCTLD}
    assert answer.unreadable == ()


async def test_it_knows_one_job_and_not_one_it_never_had_or_forgot(bench: Bench) -> None:
    bench.add_run(7, "COMPLETED", submit=T + 10, start=T + 11, end=T + 12)
    bench.add_run(8, "RUNNING", submit=T + 10, start=T + 11)
    (record,) = (await bench.controller.job(7)).records
    assert (record.job_id, record.state) == ("slurm-7", "COMPLETED")
    assert (record.is_final, record.is_running, record.is_pending) == (True, False, False)
    assert (await bench.controller.job(9)).records == ()
    bench.forget(7)
    assert (await bench.controller.job(7)).records == ()
    assert [record.job_id for record in (await bench.controller.current_jobs()).records] == ["slurm-8"]


async def test_without_jobs_there_are_no_records(bench: Bench) -> None:
    answer = await bench.controller.current_jobs()
    assert (answer.records, answer.unreadable) == ((), ())


async def test_one_unreadable_job_is_told_and_leaves_the_others(bench: Bench) -> None:
    bench.add_run(1, "RUNNING", submit=T + 10, start=T + 11)
    bench.add_unreadable(2)
    answer = await bench.controller.current_jobs()
    assert [record.job_id for record in answer.records] == ["slurm-1"]
    (one,) = answer.unreadable
    assert one.job_id == "slurm-2"
    assert one.path.endswith("job_state")
    assert (await bench.controller.job(2)).unreadable[0].job_id == "slurm-2"


async def test_it_knows_the_nodes(bench: Bench) -> None:
    bench.add_node(NodeRecord(name="n1", state="mixed", cpus=8, cpus_allocated=2))
    bench.add_node(NodeRecord(name="n2", state="idle", flags=("drain",), reason="fan"))
    assert list(await bench.controller.nodes()) == [
        NodeRecord(name="n1", state="mixed", cpus=8, cpus_allocated=2),
        NodeRecord(name="n2", state="idle", flags=("drain",), reason="fan"),
    ]


async def test_a_slurm_that_does_not_answer_and_one_that_refuses_are_two_errors(bench: Bench) -> None:
    bench.break_down()
    for question in (bench.controller.current_jobs, bench.controller.nodes, lambda: bench.controller.job(1)):
        with pytest.raises(SlurmUnavailable):
            await question()
    bench.refuse()
    for question in (bench.controller.current_jobs, bench.controller.nodes, lambda: bench.controller.job(1)):
        with pytest.raises(SlurmDenied):
            await question()
    bench.recover()
    assert (await bench.controller.current_jobs()).records == ()

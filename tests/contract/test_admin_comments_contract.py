"""What every AdminComments promises: the fake, and Slurm's commands as programs that answer like two releases."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from jobtrail.adapters.sacct import SlurmComments
from jobtrail.core.slurm.comment_ports import AdminComments, HeldComment
from jobtrail.domain.errors import SlurmDenied, SlurmUnavailable
from tests.contract.slurm_programs import DENIED, DOWN, SlurmPrograms
from tests.fake_comments import MemoryComments

T = 1_760_000_000
LINE = "jobtrail: completed, CPU 85% of 4 CPUs, memory 75% of 4 GiB"


class Bench(Protocol):
    """AdminComments, and hands to change what accounting holds."""

    comments: AdminComments

    def add(self, number: int, name: str, *, submitted: int, ended: int | None, comment: str = "") -> None: ...
    def break_down(self) -> None: ...
    def refuse(self) -> None: ...
    def recover(self) -> None: ...


class MemoryBench:
    def __init__(self) -> None:
        self.memory = MemoryComments()
        self.comments: AdminComments = self.memory

    def add(self, number: int, name: str, *, submitted: int, ended: int | None, comment: str = "") -> None:
        held = HeldComment(
            job_id=f"slurm-{number}", name=name, submit_time=submitted, is_over=ended is not None, comment=comment
        )
        self.memory.runs.append(held)

    def break_down(self) -> None:
        self.memory.failure = SlurmUnavailable("down")

    def refuse(self) -> None:
        self.memory.failure = SlurmDenied("not you")

    def recover(self) -> None:
        self.memory.failure = None


class ProgramsBench:
    def __init__(self, directory: Path, *, small_letters: bool) -> None:
        self.programs = SlurmPrograms(directory, small_letters=small_letters)
        self.comments: AdminComments = SlurmComments(
            sacct=self.programs.sacct,
            sacctmgr=self.programs.sacctmgr,
            conf="",
            timeout_seconds=30.0,
            pace_seconds=0.001,
        )

    def add(self, number: int, name: str, *, submitted: int, ended: int | None, comment: str = "") -> None:
        self.programs.add(number, name, submitted=submitted, ended=ended, comment=comment)

    def break_down(self) -> None:
        self.programs.fail(DOWN)

    def refuse(self) -> None:
        self.programs.fail(DENIED)

    def recover(self) -> None:
        self.programs.fail("")


@pytest.fixture(params=["memory", "programs of 22.05", "programs of 24.11"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "memory":
        return MemoryBench()
    return ProgramsBench(tmp_path, small_letters=request.param.endswith("22.05"))


async def comment_of(bench: Bench, number: int) -> str:
    return (await bench.comments.held([number]))[f"slurm-{number}"].comment


async def test_the_last_run_of_each_job_that_was_asked_for_is_told(bench: Bench) -> None:
    bench.add(7, "7", submitted=T, ended=T + 5, comment="first")
    bench.add(7, "7", submitted=T + 60, ended=None)
    bench.add(8, "8", submitted=T, ended=T + 5, comment="a | b = 'c'")
    held = await bench.comments.held([7, 8, 9])
    assert held == {
        "slurm-7": HeldComment(job_id="slurm-7", name="7", submit_time=T + 60, is_over=False, comment=""),
        "slurm-8": HeldComment(job_id="slurm-8", name="8", submit_time=T, is_over=True, comment="a | b = 'c'"),
    }
    assert await bench.comments.held([]) == {}


async def test_what_was_written_is_held(bench: Bench) -> None:
    bench.add(7, "7", submitted=T, ended=T + 5)
    await bench.comments.write((await bench.comments.held([7]))["slurm-7"], LINE)
    assert (await comment_of(bench, 7)).casefold() == LINE.casefold()


@pytest.mark.parametrize("mark", ["_", "+"])
async def test_the_job_that_bears_the_id_of_an_array_or_of_a_heterogeneous_job_is_written_alone(
    bench: Bench, mark: str
) -> None:
    bench.add(4, f"4{mark}2", submitted=T, ended=T + 5)
    bench.add(5, f"4{mark}1", submitted=T, ended=T + 5, comment="another")
    await bench.comments.write((await bench.comments.held([4]))["slurm-4"], LINE)
    assert await comment_of(bench, 5) == "another"
    assert (await comment_of(bench, 4)).casefold() == LINE.casefold()


async def test_only_the_last_run_is_written(bench: Bench) -> None:
    bench.add(7, "7", submitted=T, ended=T + 5, comment="first")
    bench.add(7, "7", submitted=T + 60, ended=T + 65)
    held = (await bench.comments.held([7]))["slurm-7"]
    await bench.comments.write(held, LINE)
    assert (await bench.comments.held([7]))["slurm-7"].submit_time == T + 60
    assert (await comment_of(bench, 7)).casefold() == LINE.casefold()


async def test_accounting_that_does_not_answer_and_one_that_refuses_are_two_errors(bench: Bench) -> None:
    bench.add(7, "7", submitted=T, ended=T + 5)
    held = (await bench.comments.held([7]))["slurm-7"]
    bench.break_down()
    with pytest.raises(SlurmUnavailable):
        await bench.comments.held([7])
    with pytest.raises(SlurmUnavailable):
        await bench.comments.write(held, LINE)
    bench.refuse()
    with pytest.raises(SlurmDenied):
        await bench.comments.write(held, LINE)
    bench.recover()
    assert await comment_of(bench, 7) == ""

"""AdminComments through Slurm's commands: what the contract does not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobtrail.adapters.sacct import SlurmComments
from jobtrail.core.slurm.comment_ports import HeldComment
from jobtrail.domain.errors import SlurmAnswerInvalid, SlurmUnavailable
from tests.contract.slurm_programs import SlurmPrograms

T = 1_760_000_000
HELD = HeldComment(job_id="slurm-7", name="7", submit_time=T, is_over=True, comment="")


@pytest.fixture
def programs(tmp_path: Path) -> SlurmPrograms:
    return SlurmPrograms(tmp_path, small_letters=False)


def comments(programs: SlurmPrograms) -> SlurmComments:
    return SlurmComments(
        sacct=programs.sacct, sacctmgr=programs.sacctmgr, conf="", timeout_seconds=30.0, pace_seconds=0.001
    )


@pytest.mark.parametrize("text", ["", "it's", 'a "b"', "a|b", "a=b", "two\nlines", "caf\xe9", "`date`", "x" * 251])
async def test_a_text_that_would_not_stay_as_it_is_is_not_written(programs: SlurmPrograms, text: str) -> None:
    programs.add(7, "7", submitted=T, ended=T + 5, comment="")
    with pytest.raises(ValueError, match="must be printable ASCII"):
        await comments(programs).write(HELD, text)


async def test_tasks_that_wait_have_no_name_and_are_not_over(programs: SlurmPrograms) -> None:
    programs.add(10, "10_[1-3%1]", submitted=T, ended=T + 5, comment="")
    assert (await comments(programs).held([10]))["slurm-10"].is_over is False


async def test_another_task_of_an_array_is_not_told_of(programs: SlurmPrograms) -> None:
    programs.add(4, "4_2", submitted=T, ended=T + 5, comment="")
    programs.add(5, "4_1", submitted=T, ended=T + 5, comment="")
    assert set(await comments(programs).held([4])) == {"slurm-4"}


async def test_a_comment_of_several_lines_is_read_whole(programs: SlurmPrograms) -> None:
    programs.add(7, "7", submitted=T, ended=T + 5, comment="one\n8|8|two")
    assert (await comments(programs).held([7]))["slurm-7"].comment == "one\n8|8|two"


async def test_a_time_that_is_none_names_the_field(programs: SlurmPrograms) -> None:
    programs.add(7, "7", submitted=5, ended=T, comment="")
    with pytest.raises(SlurmAnswerInvalid, match=r"rows\[0\]\.Submit or End"):
        await comments(programs).held([7])


async def test_a_command_that_is_not_there_says_which_setting_names_it(programs: SlurmPrograms) -> None:
    gone = SlurmComments(sacct=programs.sacct, sacctmgr="/none/sacctmgr", conf="", timeout_seconds=5.0)
    with pytest.raises(SlurmUnavailable, match=r"slurm\.sacctmgr"):
        await gone.write(HELD, "jobtrail: completed")

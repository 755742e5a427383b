"""How sacct is called, with small programs in its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobtrail.adapters.sacct import Sacct, command, running
from jobtrail.domain.errors import SlurmAnswerInvalid, SlurmDenied, SlurmHasNone, SlurmUnavailable
from tests.adapters.sacct_prints import FIELDS, Row, job_row, printed
from tests.daemon_process import wait_until

DELIMITER_HERE = "@DELIMITER@"
PROGRAM = """#!/bin/sh
if [ "$1" = --helpformat ]; then printf '%s\\n' {fields}; exit 0; fi
for argument do
  case "$argument" in --delimiter=*) delimiter="${{argument#--delimiter=}}";; esac
done
printf '%s\\n' "$*" >> {directory}/asked
{body}
"""
ANSWER = f'sed "s/{DELIMITER_HERE}/$delimiter/g" {{directory}}/rows'

Program = Callable[..., str]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Make a program that stands for sacct: it answers with rows, or does what `body` says. Returns its path."""

    def make(*rows: Row, body: str = ANSWER, fields: tuple[str, ...] = FIELDS) -> str:
        path = tmp_path / "sacct"
        (tmp_path / "rows").write_text(printed(rows, fields=fields, delimiter=DELIMITER_HERE))
        text = body.replace("{directory}", str(tmp_path))
        path.write_text(PROGRAM.format(fields=" ".join(fields), directory=tmp_path, body=text))
        path.chmod(0o755)
        return str(path)

    return make


def asked(tmp_path: Path) -> list[str]:
    """The arguments of each question so far."""
    return (tmp_path / "asked").read_text().splitlines()


def quick(path: str, **settings: float) -> Sacct:
    return Sacct(path, **{"timeout_seconds": 20.0, "pace_seconds": 0.001, **settings})


async def test_the_question(program: Program, tmp_path: Path) -> None:
    """Every run of these jobs of all users since a time in UTC, in rows that end with the delimiter."""
    answer = await quick(program(job_row(7), job_row(8))).runs_of([7, 8], since=1_795_260_227)
    assert [record.job_id for record in answer.records] == ["slurm-7", "slurm-8"]
    (words,) = asked(tmp_path)
    for option in ("--parsable", "--noheader", "--duplicates", "--allusers", "--noconvert", "--local", "--jobs=7,8"):
        assert option in words.split()
    assert "--starttime=2026-11-21T11:23:47" in words.split()
    assert f"--format={','.join(FIELDS)}" in words.split()


async def test_no_two_questions_have_the_same_delimiter(program: Program, tmp_path: Path) -> None:
    """One that was seen once is of no use to who names a job."""
    sacct = quick(program(job_row()))
    for _ in range(3):
        await sacct.runs_of([7], since=0)
    delimiters = {word for words in asked(tmp_path) for word in words.split() if word.startswith("--delimiter=")}
    assert len(delimiters) == 3
    assert all(len(delimiter) >= 28 for delimiter in delimiters)


async def test_many_jobs_are_asked_in_batches(program: Program, tmp_path: Path) -> None:
    """A command line has its limits."""
    numbers = list(range(1, 2 * command.JOBS_PER_QUESTION + 2))
    answer = await quick(program(*(job_row(number) for number in numbers))).runs_of(numbers, since=0)
    assert len(answer.records) == len(numbers)
    counts = [words.split("--jobs=")[1].count(",") + 1 for words in asked(tmp_path)]
    assert counts == [command.JOBS_PER_QUESTION, command.JOBS_PER_QUESTION, 1]


async def test_nothing_asked_nothing_run(tmp_path: Path) -> None:
    """No job, no process."""
    assert (await quick(str(tmp_path / "none")).runs_of([], since=0)).records == ()


async def test_questions_keep_their_pace(program: Program, tmp_path: Path) -> None:
    """Whoever asks too soon, or at the same time as others, waits for the turn."""
    sacct = quick(program(body=f"date +%s.%N >> {tmp_path}/times"), pace_seconds=0.2)
    began = time.time()
    await asyncio.gather(*(sacct.runs_of([number], since=0) for number in (1, 2, 3)))
    times = [float(line) for line in (tmp_path / "times").read_text().split()]
    assert len(times) == 3
    # The pace is from one question to the next. When the program itself begins is the machine's affair, so that two
    # times of it may lie closer together.
    assert times[1] - began > 0.19
    assert times[2] - began > 0.39


async def test_only_known_fields_are_asked(program: Program, tmp_path: Path) -> None:
    """sacct refuses a question that names a field it does not have."""
    fields = tuple(name for name in FIELDS if name not in {"Restarts", "SLUID"})
    answer = await quick(program(job_row(), fields=fields)).runs_of([7], since=0)
    assert answer.records[0].facts.restart_count is None
    assert "Restarts" not in asked(tmp_path)[0]


async def test_fields_without_which_nothing_can_be_told(program: Program) -> None:
    """A sacct that knows no State is none."""
    with pytest.raises(SlurmAnswerInvalid, match="--helpformat: does not list State"):
        await quick(program(fields=tuple(name for name in FIELDS if name != "State"))).runs_of([7], since=0)


async def test_the_fields_are_looked_up_anew_after_a_failure(program: Program, tmp_path: Path) -> None:
    """Slurm may have been upgraded while the daemon ran."""
    sacct = quick(program(job_row()))
    await sacct.runs_of([7], since=0)
    program(body="exit 1")
    with pytest.raises(SlurmUnavailable):
        await sacct.runs_of([7], since=0)
    fewer = tuple(name for name in FIELDS if name != "Reservation")
    program(job_row(), fields=fewer)
    assert len((await sacct.runs_of([7], since=0)).records) == 1
    assert f"--format={','.join(fewer)}" in asked(tmp_path)[-1]


async def test_the_environment_is_minimal(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's SACCT_FORMAT, SLURM_TIME_FORMAT or TZ changes the answer, and no secret of the daemon's leaks."""
    monkeypatch.setenv("SACCT_FORMAT", "jobid")
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    path = program(body=f"env > {tmp_path}/environment; pwd >> {tmp_path}/environment")
    await Sacct(path, "/etc/slurm/slurm.conf", pace_seconds=0.001).runs_of([7], since=0)
    lines = set((tmp_path / "environment").read_text().splitlines())
    own = {line for line in lines if line.partition("=")[0] not in {"PWD", "OLDPWD", "SHLVL", "_"}}
    assert own == {
        f"PATH={os.environ['PATH']}",
        "TZ=UTC",
        "SLURM_TIME_FORMAT=%s",
        "SLURM_BITSTR_LEN=0",
        "SLURM_CONF=/etc/slurm/slurm.conf",
        "/",
    }


async def test_bytes_that_are_not_utf_8_are_replaced(program: Program) -> None:
    """A Latin-1 name costs one character, not the answer."""
    path = program(job_row(JobName="caf@E9@"))
    with (Path(path).parent / "rows").open("r+b") as rows:
        content = rows.read().replace(b"@E9@", b"\xe9")
        rows.seek(0)
        rows.truncate()
        rows.write(content)
    answer = await quick(path).runs_of([7], since=0)
    assert answer.records[0].facts.job_name == "caf\ufffd"


async def test_a_missing_command(tmp_path: Path) -> None:
    """The error says what to do."""
    with pytest.raises(
        SlurmUnavailable, match=r"cannot run .*/sacct: No such file or directory; install .* slurm\.sacct"
    ):
        await quick(str(tmp_path / "sacct")).runs_of([7], since=0)


async def test_a_failure_tells_sacct_s_own_words(program: Program) -> None:
    """Its end, on one line and not for ever."""
    body = "echo 'sacct: error: Connection\n refused' >&2; head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3"
    with pytest.raises(SlurmUnavailable) as caught:
        await quick(program(body=body)).runs_of([7], since=0)
    words = str(caught.value)
    assert "ended with exit status 3: x" in words
    assert "does slurmdbd run" in words
    assert len(words) < running.MAX_MESSAGE + 200


async def test_a_machine_without_slurm_conf_is_told_from_one_without_slurmdbd(program: Program) -> None:
    """As sacct 22.05 says it where there is no slurm.conf and DNS names no slurmctld."""
    body = "echo 'sacct: fatal: Could not establish a configuration source' >&2; exit 1"
    with pytest.raises(SlurmUnavailable, match=r"it finds no slurm\.conf: name its path") as caught:
        await quick(program(body=body)).runs_of([7], since=0)
    assert "slurmdbd" not in str(caught.value)


async def test_a_refusal_is_told_from_a_failure(program: Program) -> None:
    """Asking again would not help."""
    body = "echo 'sacct: error: Access/permission denied' >&2; exit 1"
    with pytest.raises(SlurmDenied, match="was refused: sacct: error: Access/permission denied"):
        await quick(program(body=body)).runs_of([7], since=0)


async def test_a_site_without_accounting_is_told_from_accounting_that_is_down(program: Program, tmp_path: Path) -> None:
    """What sacct 22.05 says beside AccountingStorageType=accounting_storage/none, to --helpformat already."""
    before = quick(program(job_row()))
    await before.runs_of([7], since=0)
    path = Path(program())
    path.write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    for sacct in (before, quick(str(path))):
        with pytest.raises(SlurmHasNone, match="no accounting: Slurm accounting storage is disabled"):
            await sacct.runs_of([7], since=0)


async def test_a_silent_failure(program: Program) -> None:
    """Even one without a word is told."""
    with pytest.raises(SlurmUnavailable, match="exit status 1: it said nothing"):
        await quick(program(body="exit 1")).runs_of([7], since=0)


HANGS = "sleep 1000 & echo $$ $! > {directory}/pids.new; mv {directory}/pids.new {directory}/pids; wait"


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet reaped by init does not (proc(5), stat)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def dead(pids: list[int]) -> None:
    """Wait until none of the processes runs."""
    async with asyncio.timeout(60):
        while any(map(alive, pids)):
            await asyncio.sleep(0)


async def test_a_process_that_hangs_is_killed_with_its_children(program: Program, tmp_path: Path) -> None:
    """After the time-out nothing of it is left."""
    path = program(body=HANGS)
    for seconds in (0.5, 2, 8, 32):  # a busy machine may take longer to begin the program and its child
        with pytest.raises(SlurmUnavailable, match=f"did not answer within {seconds:g} s"):
            await quick(path, timeout_seconds=seconds).runs_of([7], since=0)
        if (tmp_path / "pids").exists():
            break
    await dead([int(pid) for pid in (tmp_path / "pids").read_text().split()])


async def test_a_cancelled_question_leaves_no_process(program: Program, tmp_path: Path) -> None:
    """The daemon stops while sacct hangs."""
    asking = asyncio.create_task(quick(program(body=HANGS), timeout_seconds=120.0).runs_of([7], since=0))
    async with asyncio.timeout(60):
        while not (tmp_path / "pids").exists():
            await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await dead([int(pid) for pid in (tmp_path / "pids").read_text().split()])


def with_environment(mark: str) -> list[int]:
    """Processes in whose environment the text is."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


async def test_a_question_cancelled_while_its_process_begins_leaves_none(program: Program, tmp_path: Path) -> None:
    """However far asyncio has come: the process runs from the fork on, and has children before anybody can wait."""
    mark = f"{tmp_path}/slurm.conf"
    sacct = Sacct(program(job_row()), mark, timeout_seconds=120.0, pace_seconds=0.0)
    await sacct.runs_of([7], since=0)  # from now on a question is one process
    program(body=HANGS)
    begun = 0
    for steps in range(20):
        (tmp_path / "pids").unlink(missing_ok=True)
        asking = asyncio.create_task(sacct.runs_of([7], since=0))
        for _ in range(steps):
            await asyncio.sleep(0)
        if with_environment(mark):
            begun += 1
            wait_until((tmp_path / "pids").exists, "the process to have a child", timeout_seconds=60.0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(60):
                await asking
        async with asyncio.timeout(60):
            while any(map(alive, with_environment(mark))):
                await asyncio.sleep(0)
    assert 0 < begun < 20


async def test_an_endless_answer_is_cut_off(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and the process is killed."""
    monkeypatch.setattr(running, "MAX_OUTPUT_BYTES", 100_000)
    with pytest.raises(SlurmAnswerInvalid, match="printed more than 100000 bytes"):
        await quick(program(body="yes")).runs_of([7], since=0)

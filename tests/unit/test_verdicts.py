"""What became of a run, for every way a job can end and every set of sources that tell of it.

The rows hold what slurmd's epilog, slurmctld and accounting were seen to say on Slurm 22.05 and 24.11.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import msgspec
import pytest

from jobtrail.domain.events import Actor, Event
from jobtrail.domain.job import Job
from jobtrail.domain.job_facts import Outcome
from jobtrail.domain.registers import OutcomeRegister, Stamp, Word
from jobtrail.domain.slurm import ENDED_BY_SLURM, FINAL_STATES, Origin, SlurmRecord
from jobtrail.domain.states import State, Verdict
from jobtrail.domain.verdicts import final_word, newest_word, rule, split_wait_status
from tests.unit.stories import JOB, SECOND, finished, hooked, reported, started, tell_one

OOM = Outcome(out_of_memory=True, raw_status=253, derived_raw_status=0)


def exited(code: int, *, derived: int = 0) -> Outcome:
    return Outcome(exit_code=code, raw_status=code << 8, derived_raw_status=derived)


def killed(signal: int) -> Outcome:
    return Outcome(exit_signal=signal, raw_status=signal, derived_raw_status=0)


class Row(msgspec.Struct, frozen=True):
    """How a job ended: what each source says, and what is to be held of it."""

    name: str
    epilog: Outcome | None
    state: str  # of slurmctld and of accounting's row of the run
    controller: Outcome | None  # None where slurmctld holds no final record of this run
    accounting: Outcome  # of slurmdbd from v0.0.40 on, which is where its exit codes are right
    record: tuple[State, Verdict, int | None, int | None]
    provisional: tuple[State, Verdict] = (State.ENDED, Verdict.UNKNOWN)
    derived: tuple[int | None, int | None, bool] = (0, None, False)
    only_controller: bool = False  # whether only slurmctld itself knows the exit status


UNKNOWN = (State.ENDED, Verdict.UNKNOWN)
TIMEOUT = (State.FAILED, Verdict.TIMEOUT)
PREEMPTED = (State.CANCELLED, Verdict.PREEMPTED)
NODE_FAIL = (State.FAILED, Verdict.NODE_FAIL, None, None)
FAILED = (State.FAILED, Verdict.FAILED)
KILLED = (State.FAILED, Verdict.KILLED_BY_SIGNAL)
OUT_OF_MEMORY = (State.FAILED, Verdict.OUT_OF_MEMORY)
CANCELLED = (State.CANCELLED, Verdict.CANCELLED)
ZERO, NOTHING, OOM_ONLY = exited(0), Outcome(), Outcome(out_of_memory=True)
ROWS = [
    Row("exit 0", ZERO, "COMPLETED", ZERO, ZERO, (State.COMPLETED, Verdict.COMPLETED, 0, None)),
    *(
        Row(f"exit {n}", exited(n), "FAILED", exited(n), exited(n), (*FAILED, n, None), FAILED)
        for n in (1, 2, 42, 126, 127, 128, 255)
    ),
    Row(
        "step segv, shell exits 139", exited(139, derived=11), "FAILED", exited(139, derived=11), NOTHING,
        (*FAILED, 139, None), FAILED, (None, 11, False),
    ),
    *(
        Row(f"shell ends by {s}", killed(s), "FAILED", killed(s), killed(s), (*KILLED, None, s), KILLED)
        for s in (6, 9, 11)
    ),
    Row("out of memory", OOM, "OUT_OF_MEMORY", OOM, OOM_ONLY, (*OUT_OF_MEMORY, None, None), OUT_OF_MEMORY),
    Row(
        "out of memory in a step, script exits 1", exited(1, derived=253), "FAILED", exited(1, derived=253), exited(1),
        (*FAILED, 1, None), FAILED, (None, None, True),
    ),
    Row(
        "a step failed, script exits 0", exited(0, derived=768), "COMPLETED", exited(0, derived=768), ZERO,
        (State.COMPLETED, Verdict.COMPLETED, 0, None), derived=(3, None, False),
    ),
    Row("scancel", ZERO, "CANCELLED", killed(15), ZERO, (*CANCELLED, None, 15), only_controller=True),
    Row("scancel, TERM trapped, exit 0", ZERO, "CANCELLED", ZERO, ZERO, (*CANCELLED, 0, None), only_controller=True),
    Row("scancel --batch --signal=USR1, exit 9", exited(9), "FAILED", exited(9), exited(9), (*FAILED, 9, None), FAILED),
    *(
        Row(f"time limit, {s}", ZERO, "TIMEOUT", killed(s), ZERO, (*TIMEOUT, None, s), only_controller=True)
        for s in (15, 9)
    ),
    *(
        Row(f"node fails, epilog {told}", told, "NODE_FAIL", killed(15), ZERO, NODE_FAIL, seen)
        for told, seen in ((ZERO, UNKNOWN), (killed(1), KILLED), (None, (State.RUNNING, None)))
    ),
    Row("preempted", ZERO, "PREEMPTED", killed(15), ZERO, (*PREEMPTED, None, 15), only_controller=True),
    Row("requeued", ZERO, "REQUEUED", None, ZERO, (State.CANCELLED, Verdict.REQUEUED, None, None)),
    Row("preempted and requeued", ZERO, "PREEMPTED", None, ZERO, (*PREEMPTED, None, None)),
    Row("node fails and requeued", ZERO, "NODE_FAIL", None, ZERO, NODE_FAIL),
]  # fmt: skip
SOURCES = ("epilog", "controller_hook", "slurmctld", "slurmdbd", "old_slurmdbd", "sacct")
AUTHORITIES = frozenset(SOURCES[2:])


def said(row: Row, sources: frozenset[str]) -> list[Event]:
    """What the sources say. slurmdbd before v0.0.40 and sacct give no exit status that could be wrong."""
    times: dict[str, Any] = {"submit_time": -1, "start_time": 0, "end_time": 5}
    events = [started("n1", 0)]
    if row.epilog is not None and "epilog" in sources:
        events.append(finished("n1", 5 * SECOND, outcome=row.epilog))
    if "controller_hook" in sources:
        events.append(hooked("epilog", 5 * SECOND, outcome=row.epilog or ZERO))
    if row.controller is not None and "slurmctld" in sources:
        events.append(reported(Origin.SLURMCTLD, 6 * SECOND, state=row.state, outcome=row.controller, **times))
    if "slurmdbd" in sources:
        events.append(reported(Origin.SLURMDBD, 7 * SECOND, state=row.state, outcome=row.accounting, **times))
    elif "old_slurmdbd" in sources:
        events.append(reported(Origin.SLURMDBD, 7 * SECOND, state=row.state, **times))
    if "sacct" in sources:
        events.append(reported(Origin.SACCT, 8 * SECOND, state=row.state, **times))
    return events


def sets_of_sources() -> Iterator[frozenset[str]]:
    for count in range(len(SOURCES) + 1):
        for chosen in combinations(SOURCES, count):
            if not {"slurmdbd", "old_slurmdbd"} <= set(chosen):
                yield frozenset(chosen)


def spoken(events: list[Event]) -> set[str]:
    return {str(one.slurm.origin) for one in events if one.slurm is not None and one.slurm.state is not None}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_way_to_end_with_every_set_of_sources(row: Row) -> None:
    """State and verdict as soon as any authority speaks; until then `ended`, or the epilog's own failure."""
    for sources in sets_of_sources():
        events = said(row, sources)
        job = tell_one(events).job
        ruling = job.ruling
        state, verdict, code, signal = row.record
        where = f"{row.name}, told by {', '.join(sorted(sources))}"
        if spoken(events):
            if verdict is Verdict.KILLED_BY_SIGNAL and not exit_is_told(row, sources):
                verdict = Verdict.FAILED
            assert (job.state, job.verdict, job.state_confirmed) == (state, verdict, True), where
            assert ruling.raw_state == row.state, where
            if "slurmctld" in spoken(events) or not row.only_controller:
                expected = {(code, signal)} if exit_is_told(row, sources) else {(code, signal), (None, None)}
                assert (ruling.exit_code, ruling.exit_signal) in expected, where
            else:
                assert (ruling.exit_code, ruling.exit_signal) == (None, None), where
        elif row.epilog is not None and "epilog" in sources:
            assert (job.state, job.verdict, job.state_confirmed) == (*row.provisional, False), where
            assert (ruling.source, ruling.exit_code) == ("epilog", row.epilog.exit_code), where
        else:
            assert (job.state, job.verdict, job.state_confirmed) == (State.RUNNING, None, False), where
        if state is not State.COMPLETED:
            assert job.state is not State.COMPLETED, where


def exit_is_told(row: Row, sources: frozenset[str]) -> bool:
    """Whether some source that is at hand tells how the run ended, where the record has anything of it."""
    if row.controller is not None and "slurmctld" in sources:
        return True
    hooks = bool(sources & {"epilog", "controller_hook"}) and row.epilog is not None
    return hooks or ("slurmdbd" in sources and row.accounting != NOTHING)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_the_steps_came_to(row: Row) -> None:
    """Which the run's own exit status hides; told by the epilog and by slurmctld."""
    for sources in ({"epilog"}, {"slurmctld"}, {"epilog", "slurmctld", "sacct"}):
        if (row.epilog if "epilog" in sources else row.controller) is None:
            continue
        ruling = tell_one(said(row, frozenset(sources))).job.ruling
        assert (ruling.derived_exit_code, ruling.derived_exit_signal, ruling.out_of_memory_step) == row.derived


def test_no_word_of_cancelled_or_failed_runs_makes_a_success() -> None:
    """Whatever zeros the sources show."""
    for state in FINAL_STATES.keys() - {"COMPLETED"}:
        for outcome in (NOTHING, ZERO, exited(3), killed(9), OOM):
            job = tell_one([started("n1", 0), finished("n1", 5, outcome=ZERO), word_of(state, outcome)]).job
            assert job.state in (State.FAILED, State.CANCELLED)
            assert job.verdict is not Verdict.COMPLETED


def word_of(state: str, outcome: Outcome, origin: Origin = Origin.SLURMCTLD, **more: Any) -> Event:
    return reported(origin, 6 * SECOND, f"{state} {origin} {more}", state=state, outcome=outcome, start_time=0, **more)


def exit_of(*events: Event) -> tuple[int | None, int | None]:
    ruling = tell_one([started("n1", 0), *events]).job.ruling
    return ruling.exit_code, ruling.exit_signal


@pytest.mark.parametrize("state", sorted(ENDED_BY_SLURM - {"NODE_FAIL", "BOOT_FAIL"}))
def test_a_zero_of_a_run_that_slurm_ended_is_only_slurmctlds_own(state: str) -> None:
    """Its hook, accounting and its record from before the end show 0 for want of a status."""
    assert exit_of(word_of(state, ZERO)) == (0, None)
    for origin in (Origin.SLURMDBD, Origin.SACCT):
        assert exit_of(word_of(state, ZERO, origin)) == (None, None)
        assert exit_of(word_of(state, killed(15), origin)) == (None, 15)
        assert exit_of(word_of(state, NOTHING, origin), hooked("epilog", 5)) == (None, None)
        assert exit_of(word_of(state, NOTHING, origin), word_of("RUNNING", ZERO)) == (None, None)
        assert exit_of(word_of(state, NOTHING, origin), word_of(state, ZERO, flags=("COMPLETING",))) == (None, None)
        assert exit_of(word_of(state, NOTHING, origin), finished("n1", 5, outcome=exited(1))) == (None, None)
    contradicted = [word_of(state, NOTHING, Origin.SLURMDBD), word_of("COMPLETED", ZERO)]
    assert exit_of(*contradicted) == (None, None)


def test_exit_statuses_come_from_where_they_are_exact() -> None:
    """slurmctld, its hook, the epilog, slurmdbd, sacct: the first that tells one a failed run can have."""
    sources = [
        word_of("FAILED", exited(1)),
        hooked("epilog", 5, outcome=exited(2)),
        finished("n1", 5, outcome=exited(3)),
        word_of("FAILED", exited(4), Origin.SLURMDBD),
        word_of("FAILED", exited(5), Origin.SACCT),
    ]
    for first in range(5):
        assert exit_of(*sources[first:]) == (first + 1, None)
    assert exit_of(word_of("FAILED", ZERO), finished("n1", 5, outcome=ZERO)) == (None, None)
    assert exit_of(word_of("COMPLETED", exited(7)), finished("n1", 5, outcome=exited(7))) == (0, None)
    assert exit_of(word_of("FAILED", Outcome(exit_code=1, exit_signal=9))) == (None, 9)


@pytest.mark.parametrize("state", ["OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL"])
def test_marks_of_slurm_are_no_exit_status(state: str) -> None:
    """24.11 gives a run whose node failed 0:1, which reads as SIGHUP."""
    assert exit_of(word_of(state, killed(1)), finished("n1", 5, outcome=exited(1))) == (None, None)


def word(origin: Origin, state: str | None, at: int, name: str = "", **fields: Any) -> Word:
    record = SlurmRecord(origin=origin, job_id=JOB, state=state, **fields)
    return Word(stamp=Stamp(int(record.is_final), at, name or f"{origin}{at}"), record=record)


def test_the_best_authority_on_the_state_is_believed() -> None:
    """slurmdbd, which has a row for each run, then slurmctld, then sacct; and no record that is not final."""
    words = [
        word(Origin.SACCT, "FAILED", 9),
        word(Origin.SLURMCTLD, "COMPLETED", 8),
        word(Origin.SLURMDBD, "CANCELLED", 1),
        word(Origin.CONTROLLER_HOOK, None, 99),
    ]
    for count, state in ((1, "FAILED"), (2, "COMPLETED"), (3, "CANCELLED"), (4, "CANCELLED")):
        for order in (words[:count], words[:count][::-1]):
            record = final_word(order)
            assert record is not None
            assert record.state == state
    assert final_word([]) is None
    assert final_word([word(Origin.SLURMDBD, "CANCELLED", 1, flags=("COMPLETING",)), words[3]]) is None


def test_the_newest_word_is_the_latest_that_names_a_state() -> None:
    words = [word(Origin.SLURMCTLD, "RUNNING", 5, "a"), word(Origin.SLURMDBD, "PENDING", 5, "b")]
    for order in (words, words[::-1]):
        newest = newest_word([*order, word(Origin.CONTROLLER_HOOK, None, 9), word(Origin.SACCT, "SUSPENDED", 4)])
        assert newest is not None
        assert newest.state == "PENDING"
    assert newest_word([word(Origin.CONTROLLER_HOOK, None, 9)]) is None


@pytest.mark.parametrize(
    ("state", "begun", "expected"),
    [
        (None, False, State.PENDING),
        ("PENDING", False, State.PENDING),
        ("PENDING", True, State.RUNNING),
        ("RUNNING", False, State.RUNNING),
        ("COMPLETING", False, State.RUNNING),
        ("SUSPENDED", False, State.RUNNING),
    ],
)
def test_a_run_that_goes_on(state: str | None, begun: bool, expected: State) -> None:
    """It runs once a node began it or Slurm says so; Slurm's word and its reason are kept."""
    words = [] if state is None else [word(Origin.SLURMCTLD, state, 5, reason="why")]
    ruling = rule(words, None, begun=begun, over=False)
    assert (ruling.state, ruling.verdict, ruling.confirmed, ruling.source) == (expected, None, False, None)
    assert (ruling.raw_state, ruling.reason) == (state, None if state is None else "why")


def test_whose_word_decided_is_told() -> None:
    """An Origin, the epilog, or a sender that knows; nobody where the end is only inferred."""
    for confirmed, source in ((True, "sender"), (False, "epilog")):
        told = OutcomeRegister(stamp=Stamp(0, 0, ""), outcome=exited(1), confirmed=confirmed)
        ruling = rule([], told, begun=True, over=True)
        assert (ruling.source, ruling.confirmed, ruling.exit_code, ruling.reason) == (source, confirmed, 1, None)
    nobody = rule([], None, begun=True, over=True)
    assert (nobody.state, nobody.verdict, nobody.source) == (State.ENDED, Verdict.UNKNOWN, None)
    final = rule([word(Origin.SACCT, "TIMEOUT", 5, reason="TimeLimit")], None, begun=True, over=True)
    assert (final.source, final.raw_state, final.reason) == ("sacct", "TIMEOUT", "TimeLimit")


def test_slurms_word_stands_against_a_persons() -> None:
    """And the person's, until Slurm has spoken."""
    person = finished("n1", 5, outcome=Outcome(final_state="cancelled"), changed_by=Actor.API)
    before: Job = tell_one([started("n1", 0), person]).job
    after = tell_one([started("n1", 0), person, word_of("COMPLETED", ZERO)]).job
    assert (before.state, after.state) == (State.CANCELLED, State.COMPLETED)


def test_a_step_out_of_memory_is_told_by_accounting_too() -> None:
    job = tell_one([started("n1", 0), word_of("FAILED", NOTHING, Origin.SACCT, out_of_memory_step=True)]).job
    assert (job.ruling.out_of_memory_step, job.verdict) == (True, Verdict.FAILED)
    assert (job.ruling.derived_exit_code, job.ruling.derived_exit_signal) == (None, None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, (0, None)), (256, (1, None)), (0xFF00, (255, None)), (1, (None, 1)), (127, (None, 127)), (128, (0, None)),
        (139, (None, 11)), (253, (None, 125)), (0xFF7F, (None, 127)),
    ],
)  # fmt: skip
def test_a_wait_status_is_a_code_or_a_signal(status: int, expected: tuple[int | None, int | None]) -> None:
    """The core flag, 128, is neither."""
    assert split_wait_status(status) == expected

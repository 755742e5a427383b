"""The books of a parent counter: what ended jobs used, never more than the parent saw."""

from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.ledger import Credit, ParentLedger
from jobtrail.domain.samples import CpuTotals


def totals(parent_us: int | None, **by_ref: int) -> CpuTotals:
    return CpuTotals(parent_us=parent_us, by_ref=by_ref)


def ledger_with(*refs: str, cpus: int | None = 1, parent_us: int | None = 1000) -> ParentLedger:
    ledger = ParentLedger()
    for ref in refs:
        ledger.track(ref, cpus)
    ledger.look(totals(parent_us))
    return ledger


def test_the_only_job_that_ended_gets_exactly_what_the_parent_grew_by() -> None:
    """Also when its counter was never seen, which is the rule for a job that lives a tenth of a second."""
    ledger = ledger_with("a")
    ledger.look(totals(1234), ended=["a"])
    assert ledger.forget("a") == Credit(234, 1)
    assert ledger.forget("a") is None
    assert ledger.refs() == ()


def test_the_living_keep_what_is_theirs() -> None:
    ledger = ledger_with("a", "b")
    ledger.look(totals(1500, a=200, b=300))
    ledger.look(totals(2000, b=500))
    assert ledger.forget("a") == Credit(500, 1)
    assert ledger.forget("b") is None


def test_several_that_ended_share_by_their_cpus_beyond_what_is_known_of_each() -> None:
    """Told as an estimate: the number of those that shared goes with it."""
    ledger = ParentLedger()
    ledger.track("a", 3)
    ledger.track("b", None)
    ledger.look(totals(0))
    ledger.note("a", 100)
    ledger.look(totals(500), ended=["a", "b"])
    assert ledger.forget("a") == Credit(100 + 300, 2)
    assert ledger.forget("b") == Credit(100, 2)


def test_a_reading_after_the_last_look_counts_as_known() -> None:
    """Notes of unknown jobs are ignored, and an older reading never lowers a newer one."""
    ledger = ledger_with("a", "b")
    ledger.note("nobody", 5)
    ledger.note("a", 90)
    ledger.note("a", 70)
    ledger.look(totals(1100), ended=["a", "b"])
    assert ledger.forget("a") == Credit(95, 2)
    assert ledger.forget("b") == Credit(5, 2)


def test_a_job_that_is_not_there_yet_is_not_one_that_ended() -> None:
    ledger = ledger_with("a")
    ledger.look(totals(1100))
    assert ledger.forget("a") is None


def test_a_counter_that_vanished_before_the_end_was_told_is_settled_at_once() -> None:
    """Slurm removes the cgroup before the epilog runs: what others use meanwhile is not this job's."""
    ledger = ledger_with("a", "b")
    ledger.look(totals(1300, a=100, b=200))
    ledger.look(totals(1450, b=200))
    ledger.look(totals(1950, b=700), ended=["a"])
    assert ledger.forget("a") == Credit(250, 1)


def test_a_counter_that_was_only_unreadable_keeps_its_job_in_the_books() -> None:
    """Or else what it goes on to use would be credited to the next job that ends."""
    ledger = ledger_with("a", "b")
    ledger.look(totals(1300, a=100, b=200))
    ledger.look(totals(1400, b=300))
    assert ledger.refs() == ("a", "b")
    ledger.look(totals(2400, a=1100, b=300))
    ledger.look(totals(2500, a=1200), ended=["b"])
    assert ledger.forget("a") is None
    assert ledger.forget("b") == Credit(300, 1)


def test_without_a_first_look_nothing_is_credited() -> None:
    """What the parent held before is nobody's that we know."""
    ledger = ParentLedger()
    ledger.track("a", 1)
    ledger.look(totals(999_999), ended=["a"])
    assert ledger.forget("a") is None


def test_a_parent_that_was_not_there_was_made_by_its_jobs() -> None:
    """The first job after boot makes Slurm's directory: all its parent holds is growth."""
    ledger = ledger_with("a", parent_us=None)
    ledger.look(totals(70), ended=["a"])
    assert ledger.forget("a") == Credit(70, 1)


def test_without_a_parent_nothing_is_credited() -> None:
    ledger = ledger_with("a")
    ledger.look(totals(None), ended=["a"])
    assert ledger.forget("a") is None


def test_a_parent_that_started_over_credits_nobody() -> None:
    ledger = ledger_with("a", "b", parent_us=5000)
    ledger.look(totals(10), ended=["a"])
    assert ledger.forget("a") is None
    ledger.look(totals(25), ended=["b"])
    assert ledger.forget("b") == Credit(15, 1)


def test_living_jobs_that_grew_more_than_the_parent_leave_no_credit() -> None:
    """The counters are read one after the other; a job may tick in between."""
    ledger = ledger_with("a", "b")
    ledger.look(totals(1010, a=11), ended=["b"])
    assert ledger.forget("b") is None


def test_after_a_failed_look_books_begin_anew() -> None:
    """Nothing that happened while the counters could not be read is credited to anybody."""
    ledger = ledger_with("a", "b", "c")
    ledger.look(totals(1300, a=100, b=100, c=100))
    ledger.restart()
    assert ledger.forget("c") is None
    ledger.look(totals(9000, a=4000, b=4000))
    ledger.look(totals(9100, a=4040), ended=["b"])
    assert ledger.forget("b") == Credit(4060, 1)
    assert ledger.forget("a") is None


def test_what_is_subtracted_too_early_is_made_good_at_the_next_look() -> None:
    """A living job ran on after its parent was read: the job that vanished keeps what is known of it."""
    ledger = ledger_with("a", "b", "c")
    ledger.look(totals(1300, a=100, b=100, c=100))
    ledger.look(totals(1350, b=160, c=100))
    assert ledger.forget("a") == Credit(100, 1)
    ledger.look(totals(1460, b=200), ended=["c"])
    assert ledger.forget("c") == Credit(100 + 60, 1)


def test_a_job_that_nobody_saw_keeps_its_time_until_its_end_is_told() -> None:
    """It began and ended between two looks, and another's start made the second one."""
    ledger = ledger_with("short", "long")
    ledger.look(totals(1500, long=200))
    ledger.track("next", 1)
    ledger.look(totals(1600, long=300))
    ledger.look(totals(1700, long=400), ended=["short"])
    assert ledger.forget("short") == Credit(300, 1)


def test_growth_that_waits_for_nobody_is_dropped() -> None:
    """What a removed job still used while it was taken down is not the next one's."""
    ledger = ledger_with("a", "b")
    ledger.look(totals(1200, a=100, b=100))
    ledger.look(totals(1240, a=120, b=100))
    ledger.look(totals(1250, b=110), ended=["a"])
    assert ledger.forget("a") == Credit(120, 1)


def test_a_share_that_is_small_is_no_estimate() -> None:
    """What several share is less than one per cent of what is known of each."""
    ledger = ledger_with("a", "b")
    ledger.look(totals(21_000, a=10_000, b=10_000))
    ledger.look(totals(21_100), ended=["a", "b"])
    assert ledger.forget("a") == Credit(10_050, 1)
    ledger = ledger_with("a", "b")
    ledger.look(totals(11_020, a=10_000, b=20))
    ledger.look(totals(11_120), ended=["a", "b"])
    assert ledger.forget("a") == Credit(10_050, 1)
    assert ledger.forget("b") == Credit(70, 2)


def test_a_counter_that_is_still_there_after_the_end_is_exact() -> None:
    """The kernel may be slow to let a cgroup go."""
    ledger = ledger_with("a", "b")
    ledger.look(totals(1300, a=100, b=200), ended=["a"])
    assert ledger.forget("a") == Credit(100, 1)
    assert ledger.forget("b") is None


def test_where_the_parent_cannot_tell_what_was_last_read_is_told_as_such() -> None:
    """It started over, or the look failed: the last reading may lack the job's last moments."""
    ledger = ledger_with("a", "b", parent_us=5000)
    ledger.look(totals(5300, a=100, b=200))
    ledger.note("a", 150)
    ledger.look(totals(10, b=210))
    assert ledger.forget("a") == Credit(150, 0)
    ledger.restart(ended=["b"])
    assert ledger.forget("b") == Credit(210, 0)


def test_a_job_that_was_found_running_takes_nothing_from_the_others() -> None:
    """What it used before it was known is not what the parent grew by."""
    ledger = ledger_with("a")
    ledger.look(totals(1100, a=100))
    ledger.track("found", 1, new=False)
    ledger.look(totals(1300, found=90_000))
    assert ledger.forget("a") == Credit(300, 1)
    ledger.look(totals(1350), ended=["found"])
    assert ledger.forget("found") == Credit(90_050, 1)


class Machine:
    """Jobs that compute below one parent, and the parent that keeps what they used."""

    def __init__(self, parent_us: int) -> None:
        self.parent_us = parent_us
        self.used: dict[str, int] = {}

    def burn(self, ref: str, spent: int) -> None:
        self.used[ref] += spent
        self.parent_us += spent


@given(st.data(), st.integers(0, 1000))
def test_credits_and_living_jobs_never_exceed_the_parent(data: st.DataObject, before: int) -> None:
    """Jobs come, compute, are looked at or not, and end, alone or together; the parent keeps what they used."""
    machine, ledger = Machine(before), ParentLedger()
    ledger.look(totals(before))
    credited = truth = rounding = 0
    for step in range(data.draw(st.integers(1, 8))):
        for number in range(data.draw(st.integers(0, 2))):
            machine.used[f"{step}.{number}"] = 0
            ledger.track(f"{step}.{number}", data.draw(st.integers(1, 8)))
        for ref in list(machine.used):
            machine.burn(ref, data.draw(st.integers(0, 500)))
            if data.draw(st.booleans()):
                ledger.note(ref, machine.used[ref])
                machine.burn(ref, data.draw(st.integers(0, 50)))
        ended = {ref: machine.used.pop(ref) for ref in list(machine.used) if data.draw(st.booleans())}
        ledger.look(totals(machine.parent_us, **machine.used), ended=ended)
        for ref, own in ended.items():
            credit = ledger.forget(ref)
            assert credit is not None
            assert credit.shared_by in (1, len(ended))
            assert len(ended) > 1 or credit.cpu_usage_us == own
            credited += credit.cpu_usage_us
        truth += sum(ended.values())
        rounding += max(0, len(ended) - 1)
        assert truth - rounding <= credited <= truth
        assert before + credited + sum(machine.used.values()) <= machine.parent_us
